"""Producers: ids, epochs, transactions, and reserved ranges (KIP-98, KIP-360, KIP-890).

I4: whoever holds the current epoch owns the producer. Each bump fences all that came before it, and it
happens here, at the commit point, so a zombie is refused wherever it knocks.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

from msgspec import structs

from headwater.log.keys import manifest_key
from headwater.log.operations import EndReserve, EndTransaction, ExpireReserve, InitProducer, Op, Reserve
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Entry, Held, Partition, Producer, State

EPOCH_LAST = 2**15 - 2  # as in Kafka; behind it the producer gets a new id


def fence(state: State, pid: int, epoch: int) -> Producer:
    """The producer, if ``epoch`` is its current one."""
    producer = state.producers.get(pid)
    if producer is None:
        raise Refused("unknown_producer", f"Producer {pid} is unknown: it was never made, or was idle for too long.")
    if epoch < producer.epoch:
        raise Refused("fenced", f"Producer {pid} is at epoch {producer.epoch}; epoch {epoch} is over.")
    if epoch > producer.epoch:
        raise Refused("invalid", f"Producer {pid} is at epoch {producer.epoch} and was never given epoch {epoch}.")
    return producer


def bump(change: Change, producer: Producer) -> None:
    """Give the producer its next epoch, or past the last one a new id, and answer both."""
    state = change.state
    if state.producers.get(producer.id) is not producer:
        raise Refused("invalid", f"Producer {producer.id} got a new id in this very intent and cannot end more.")
    if producer.open:
        # Past the last epoch nobody could end these ranges any more, and readers would wait for ever.
        raise Refused("invalid", f"Producer {producer.id} has reserved ranges; end those first.")
    if producer.epoch < EPOCH_LAST:
        change.on_refusal(setattr, producer, "epoch", producer.epoch)
        producer.epoch += 1
    else:
        # Copies, because the order of producers decides who is forgotten first. This is one bump in 32,766.
        change.on_refusal(setattr, state, "producers", dict(state.producers))
        change.on_refusal(setattr, state, "transactional", dict(state.transactional))
        forget(state, producer)
        producer = _create(change, producer.tid)
    change.touched.append(producer)
    change.values["pid"] = producer.id
    change.values["epoch"] = producer.epoch


def forget(state: State, producer: Producer) -> None:
    """Drop a producer; a later write under its id is refused as ``unknown_producer``."""
    del state.producers[producer.id]
    if producer.tid and state.transactional.get(producer.tid) == producer.id:
        del state.transactional[producer.tid]


def _create(change: Change, tid: str) -> Producer:
    state = change.state
    producer = Producer(id=state.next_producer, tid=tid, last_ms=state.time_ms)
    state.next_producer += 1
    state.producers[producer.id] = producer
    if tid:
        state.transactional[tid] = producer.id
    change.on_refusal(_undo_create, state, producer)
    return producer


def _undo_create(state: State, producer: Producer) -> None:
    forget(state, producer)
    state.next_producer -= 1


def _init(change: Change, op: InitProducer) -> None:
    state = change.state
    pid = state.transactional.get(op.tid, -1) if op.tid else op.pid
    if pid < 0:
        if op.pid >= 0:
            raise Refused("unknown_producer", f"Transactional id {op.tid!r} has no producer {op.pid}.")
        producer = _create(change, op.tid)
        change.values["pid"], change.values["epoch"] = producer.id, producer.epoch
        return
    if op.pid >= 0:
        if op.pid != pid:
            raise Refused("fenced", f"Transactional id {op.tid!r} belongs to producer {pid} now, not {op.pid}.")
        fence(state, pid, op.epoch)
    producer = state.producers[pid]
    _end(change, producer, commit=False)
    bump(change, producer)


def _end_transaction(change: Change, op: EndTransaction) -> None:
    _bump_at_the_end(change, fence(change.state, op.pid, op.epoch))


def _bump_at_the_end(change: Change, producer: Producer) -> None:
    """The appends behind this operation still carry the old epoch, so the bump comes last, and once."""
    if change.bump is not None and change.bump is not producer:
        raise Refused(
            "invalid", f"One intent ends one producer's transaction, not {change.bump.id}'s and {producer.id}'s."
        )
    change.bump = producer


def _reserve(change: Change, op: Reserve) -> None:
    producer = fence(change.state, op.pid, op.epoch)
    change.reserve = op
    if not producer.open:
        change.on_refusal(setattr, producer, "deadline_ms", producer.deadline_ms)
        producer.deadline_ms = change.state.time_ms + op.timeout_ms


def _end_reserve(change: Change, op: EndReserve) -> None:
    producer = fence(change.state, op.pid, op.epoch)
    _end(change, producer, commit=op.commit)
    _bump_at_the_end(change, producer)


def _expire_reserve(change: Change, op: ExpireReserve) -> None:
    state = change.state
    producer = state.producers.get(op.pid)
    if producer is None or not producer.open:
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
    change.on_refusal(setattr, producer, "open", producer.open)
    change.on_refusal(setattr, producer, "deadline_ms", producer.deadline_ms)
    producer.open, producer.deadline_ms = [], 0


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
    EndReserve: _end_reserve,
    ExpireReserve: _expire_reserve,
}
