"""Producers: their ids and epochs (KIP-98, KIP-360, KIP-890). What they reserve is in ``transactions``.

I4: whoever holds the current epoch owns the producer. Each bump fences all that came before it, and it
happens here, at the commit point, so a zombie is refused wherever it knocks.
"""

from __future__ import annotations

from headwater.log.operations import InitProducer
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Ended, Producer, State

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


def bump(change: Change, producer: Producer, ended: Ended | None = None) -> None:
    """Give the producer its next epoch, or past the last one a new id, and answer both.

    ``ended`` is remembered: what came before it is no longer anybody's to repeat.
    """
    state = change.state
    if state.producers.get(producer.id) is not producer:
        raise Refused("invalid", f"Producer {producer.id} got a new id in this very intent and cannot end more.")
    if producer.is_busy:
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
        producer = create(change, producer.tid, producer.timeout_ms)
    change.set(producer, "ended", ended)
    answer(change, producer)


def answer(change: Change, producer: Producer) -> None:
    """Say the producer's id and epoch, and note that it was here."""
    change.touched.append(producer)
    change.values["pid"] = producer.id
    change.values["epoch"] = producer.epoch


def last_end(state: State, tid: str, pid: int, epoch: int) -> tuple[Producer, Ended] | None:
    """How the transactional id's last transaction ended, if it was the one of ``pid`` and ``epoch``; and its producer.

    For whoever asks again to end it, having missed the answer and with it the next epoch.
    """
    producer = state.producers.get(state.transactional.get(tid, -1))
    ended = producer.ended if producer is not None else None
    if producer is None or ended is None or (ended.pid, ended.epoch) != (pid, epoch):
        return None
    return producer, ended


def forget(state: State, producer: Producer) -> None:
    """Drop a producer; a later write under its id is refused as ``unknown_producer``."""
    del state.producers[producer.id]
    if producer.tid and state.transactional.get(producer.tid) == producer.id:
        del state.transactional[producer.tid]


def create(change: Change, tid: str, timeout_ms: int = 0) -> Producer:
    """A producer with an id of its own."""
    state = change.state
    producer = Producer(id=state.next_producer, tid=tid, last_ms=state.time_ms, timeout_ms=timeout_ms)
    state.next_producer += 1
    state.producers[producer.id] = producer
    if tid:
        state.transactional[tid] = producer.id
    change.on_refusal(_undo_create, state, producer)
    return producer


def go_on(change: Change, op: InitProducer) -> Producer:
    """A producer under the epoch that it has given itself; made anew if it was forgotten."""
    state, producer = change.state, change.state.producers.get(op.pid)
    if not 0 <= op.epoch <= EPOCH_LAST:
        raise Refused("invalid", f"No producer is at epoch {op.epoch}; the last one is {EPOCH_LAST}.")
    if producer is None:
        if op.tid or not 0 <= op.pid < state.next_producer:
            raise Refused("unknown_producer", f"Producer {op.pid} was never made, so it cannot have been forgotten.")
        producer = state.producers[op.pid] = Producer(id=op.pid, epoch=op.epoch, last_ms=state.time_ms, again=True)
        change.on_refusal(forget, state, producer)
        return producer
    if producer.tid:
        return fence(state, op.pid, op.epoch)  # its epochs are ours to give
    change.set(producer, "epoch", max(producer.epoch, op.epoch))
    change.set(producer, "again", True)
    return producer


def _undo_create(state: State, producer: Producer) -> None:
    forget(state, producer)
    state.next_producer -= 1
