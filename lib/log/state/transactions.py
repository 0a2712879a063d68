"""Transactions that reserve: ranges and offsets that take their places now, and become true together or not at all.

    Reserve + appends, ReserveOffsets ──► EndReserve      all of it opens, or none
                                     └──► ExpireReserve   none, once its time is up; by anybody
                                     └──► InitProducer    none: a new instance has taken over

Each takes back what it did if a later part of its intent is refused. How a transaction ended is remembered until the
next one holds something, since a client that missed the answer asks again (KIP-890).
"""

from __future__ import annotations

from bisect import insort
from typing import Any, Literal

from msgspec import structs

from headwater.limits import TRANSACTION_OFFSETS_MAX
from headwater.log.keys import manifest_key
from headwater.log.operations import (
    EndReserve,
    EndTransaction,
    ExpireReserve,
    InitProducer,
    Reserve,
    ReserveOffsets,
)
from headwater.log.operations_base import Op
from headwater.log.state import groups
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Ended, Entry, Held, Partition, Producer, State
from headwater.log.state.producers import answer, bump, create, fence, go_on

# -- beginning -------------------------------------------------------------------------------------------


def _init(change: Change, op: InitProducer) -> None:
    state = change.state
    if op.again:
        answer(change, go_on(change, op))
        return
    pid = state.transactional.get(op.tid, -1) if op.tid else op.pid
    if pid < 0:
        if op.pid >= 0:
            raise Refused("unknown_producer", f"Transactional id {op.tid!r} has no producer {op.pid}.")
        producer = create(change, op.tid, op.timeout_ms)
        change.values["pid"], change.values["epoch"] = producer.id, producer.epoch
        return
    if op.pid >= 0:
        if op.pid != pid:
            raise Refused("fenced", f"Transactional id {op.tid!r} belongs to producer {pid} now, not {op.pid}.")
        fence(state, pid, op.epoch)
    producer = state.producers[pid]
    _end(change, producer, commit=False)
    change.set(producer, "timeout_ms", op.timeout_ms)
    bump(change, producer, Ended(op.pid, op.epoch, "renew") if op.pid >= 0 else None)


def _reserve(change: Change, op: Reserve) -> None:
    producer = fence(change.state, op.pid, op.epoch)
    change.reserve = op
    _set_deadline(change, producer, op.timeout_ms)


def _reserve_offsets(change: Change, op: ReserveOffsets) -> None:
    producer = fence(change.state, op.pid, op.epoch)
    _check_after(producer, op.after)
    _set_deadline(change, producer, op.timeout_ms)
    group = groups.reserve(change, op.offsets, producer.id)
    if group not in producer.groups:
        change.set(producer, "groups", [*producer.groups, group])
    held = sum(groups.count(change.state, name, producer.id) for name in producer.groups)
    if held > TRANSACTION_OFFSETS_MAX:
        raise Refused("too_many", f"A transaction moves at most {TRANSACTION_OFFSETS_MAX} offsets, not {held}.")
    change.set(producer, "ended", None)
    change.set(producer, "steps", producer.steps + 1)
    change.touched.append(producer)


def _set_deadline(change: Change, producer: Producer, timeout_ms: int) -> None:
    """A transaction's time begins with the first thing that it holds, and is no longer than its owner wanted."""
    if not producer.is_busy:
        bound_ms = min(timeout_ms, producer.timeout_ms or timeout_ms)
        change.set(producer, "deadline_ms", change.state.time_ms + bound_ms)


# -- ending ----------------------------------------------------------------------------------------------


def _end_transaction(change: Change, op: EndTransaction) -> None:
    _bump_at_the_end(change, fence(change.state, op.pid, op.epoch), None)


def _bump_at_the_end(change: Change, producer: Producer, ended: Ended | None) -> None:
    """The appends behind this operation still carry the old epoch, so the bump comes last, and once."""
    if change.bump is not None and change.bump is not producer:
        raise Refused(
            "invalid", f"One intent ends one producer's transaction, not {change.bump.id}'s and {producer.id}'s."
        )
    change.bump, change.ended = producer, ended


def _end_reserve(change: Change, op: EndReserve) -> None:
    producer = fence(change.state, op.pid, op.epoch)
    how: Literal["commit", "abort"] = "commit" if op.commit else "abort"
    if not op.brings and _is_repetition(change, producer, how):
        answer(change, producer)
        return
    _check_after(producer, op.after)
    _end(change, producer, commit=op.commit)
    change.set(producer, "steps", producer.steps + 1)
    ended = Ended(producer.id, producer.epoch, how)
    if op.bump:
        _bump_at_the_end(change, producer, ended)
    else:
        change.set(producer, "ended", ended)
        answer(change, producer)


def _check_after(producer: Producer, after: int) -> None:
    """Without a new epoch a late request of one transaction would join the next, or undo what came after it."""
    if after not in (-1, producer.steps):
        raise Refused("stale", f"Producer {producer.id} has gone {producer.steps} steps by now, not {after}.")


def _is_repetition(change: Change, producer: Producer, how: str) -> bool:
    """Whether the producer's present epoch has ended its last transaction so already, and begun no other."""
    known = change.ended if change.bump is producer else producer.ended
    begun = change.reserve is not None and change.reserve.pid == producer.id
    if known is None or begun or producer.is_busy or known.epoch != producer.epoch or known.pid != producer.id:
        return False
    if known.how != how:
        raise Refused("ended", f"The last transaction of producer {producer.id} ended otherwise: by {known.how}.")
    return True


def _expire_reserve(change: Change, op: ExpireReserve) -> None:
    state = change.state
    producer = state.producers.get(op.pid)
    if producer is None or not producer.is_busy:
        raise Refused("not_expired", f"Producer {op.pid} has nothing reserved.")
    if state.time_ms < producer.deadline_ms:
        raise Refused(
            "not_expired", f"Producer {op.pid} has until {producer.deadline_ms} ms; it is {state.time_ms} ms."
        )
    _end(change, producer, commit=False)
    bump(change, producer)


def _end(change: Change, producer: Producer, *, commit: bool) -> None:
    """Open or void all that the producer has reserved."""
    for topic, index in producer.open:
        partition = change.state.partition(topic, index)
        if partition is not None:
            _release(change, partition, producer.id, commit)
    for group in producer.groups:
        groups.release(change, group, producer.id, commit=commit)
    change.set(producer, "open", [])
    change.set(producer, "groups", [])
    change.set(producer, "deadline_ms", 0)


def _release(change: Change, partition: Partition, pid: int, commit: bool) -> None:
    state = change.state
    held, tail = partition.held, partition.tail
    mine = [h.entry for h in held if h.pid == pid]
    change.on_refusal(_undo_release, state, partition, held, tail, len(mine))
    partition.held = [h for h in held if h.pid != pid]
    partition.tail = list(tail)
    for entry in mine:
        # An append that was not reserved may have overtaken this range, so it goes in by offset.
        insort(partition.tail, _opened(entry, state.seq) if commit else _gap(entry, state.seq), key=_base)
    state.tail_entries += len(mine)


def _undo_release(state: State, partition: Partition, held: list[Held], tail: list[Entry], released: int) -> None:
    partition.held, partition.tail = held, tail
    state.tail_entries -= released


def _opened(entry: Entry, seq: int) -> Entry:
    """The entry as made readable by manifest ``seq``; inline bytes stay where the reserving manifest has them."""
    return structs.replace(entry, seq=seq, obj=entry.obj or manifest_key(entry.seq))


def _gap(entry: Entry, seq: int) -> Entry:
    return Entry(entry.base, entry.count, "gap", seq, "", 0, 0, 0, entry.min, entry.max)


def _base(entry: Entry) -> int:
    return entry.base


OPERATIONS: dict[type[Op], Any] = {
    InitProducer: _init,
    EndTransaction: _end_transaction,
    Reserve: _reserve,
    ReserveOffsets: _reserve_offsets,
    EndReserve: _end_reserve,
    ExpireReserve: _expire_reserve,
}
