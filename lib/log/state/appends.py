"""Appends: dense offsets, and the sequence numbers that make a retry harmless (KIP-98).

I3: offsets are dense. ``partition.next`` is the only source of offsets and moves by a chunk's count.
"""

from __future__ import annotations

from headwater.limits import PRODUCER_BATCHES
from headwater.log.operations import Chunk
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Entry, Held, Partition, Producer, Sequences, State
from headwater.log.state.producers import fence

_SEQUENCES = 2**31  # sequence numbers wrap here, as in Kafka


def append(change: Change, chunk: Chunk) -> int:
    """Place a chunk and say its base offset. A repeated sequence gets its first base offset, and no effect."""
    state = change.state
    partition = partition_of(state, chunk.topic, chunk.partition)
    if chunk.obj:
        _check_segment(state, chunk.obj)
    if change.reserve is not None and chunk.pid != change.reserve.pid:
        raise Refused("invalid", f"Producer {change.reserve.pid} cannot reserve offsets for producer {chunk.pid}.")
    base = partition.next
    if chunk.pid >= 0:
        producer = _writer(change, chunk)
        change.touched.append(producer)
        if chunk.seq >= 0:
            repeated = _check_sequence(change, producer, chunk, base)
            if repeated is not None:
                return repeated
    entry = Entry(
        base,
        chunk.count,
        chunk.codec,
        state.seq,
        chunk.obj,
        chunk.pos,
        chunk.len,
        chunk.crc,
        chunk.min,
        chunk.max,
    )
    partition.next = base + chunk.count
    partition.bytes += chunk.len
    if change.reserve is None:
        partition.tail.append(entry)
        state.tail_entries += 1
        change.on_refusal(_undo_append, state, partition, chunk)
    else:
        _hold(change, partition, chunk, entry)
    return base


def _writer(change: Change, chunk: Chunk) -> Producer:
    """Whose the chunk is, if its epoch is not over. One that keeps its own count may be behind it in this partition."""
    known = change.state.producers.get(chunk.pid)
    if known is not None and known.again and chunk.epoch < known.epoch and chunk.seq >= 0 and change.reserve is None:
        return known
    return fence(change.state, chunk.pid, chunk.epoch)


def partition_of(state: State, topic: int, partition: int) -> Partition:
    """The partition, or a refusal that says what is missing."""
    found = state.topics.get(topic)
    if found is None:
        raise Refused("no_topic", f"There is no topic with id {topic}: it was deleted, or never created.")
    if partition >= len(found.partitions):
        raise Refused(
            "no_partition",
            f"Topic {found.name!r} has partitions 0 to {len(found.partitions) - 1}, and no partition {partition}.",
        )
    return found.partitions[partition]


def _undo_append(state: State, partition: Partition, chunk: Chunk) -> None:
    partition.tail.pop()
    state.tail_entries -= 1
    partition.next -= chunk.count
    partition.bytes -= chunk.len


def _hold(change: Change, partition: Partition, chunk: Chunk, entry: Entry) -> None:
    producer = change.state.producers[chunk.pid]
    partition.held.append(Held(chunk.pid, entry))
    place = (chunk.topic, chunk.partition)
    news = place not in producer.open
    if news:
        producer.open.append(place)
    change.set(producer, "ended", None)

    def undo() -> None:
        partition.held.pop()
        partition.next -= chunk.count
        partition.bytes -= chunk.len
        if news:
            producer.open.remove(place)

    change.on_refusal(undo)


def _check_segment(state: State, key: str) -> None:
    """R4: a segment below the floor may be collected at any moment, so nothing may come to need it."""
    tip = key[8:28]
    if not key.startswith("segment/") or not (len(tip) == 20 and tip.isascii() and tip.isdigit()):
        raise Refused("invalid", f"{key[:120]!r} is not the name of a segment.")
    if int(tip) < state.floor:
        raise Refused(
            "gone", f"Segment {key[:120]!r} was staged at tip {int(tip)}; those below {state.floor} are collected."
        )


def _check_sequence(change: Change, producer: Producer, chunk: Chunk, base: int) -> int | None:
    """The base offset of the first sending if this is a repetition; else note the sequence and answer None."""
    places = producer.sequences.get(chunk.topic, {})
    known = places.get(chunk.partition)
    if known is not None and known.epoch > chunk.epoch:
        raise Refused(
            "fenced", f"Producer {chunk.pid} is at epoch {known.epoch} in this partition; epoch {chunk.epoch} is over."
        )
    if known is None or known.epoch < chunk.epoch:
        if chunk.seq != 0 and not (known is None and _goes_on(change.state, producer, chunk)):
            raise Refused(
                "out_of_order",
                f"Producer {chunk.pid} begins epoch {chunk.epoch} of this partition with sequence {chunk.seq}, not 0.",
            )
        places[chunk.partition] = Sequences(chunk.epoch, [(chunk.seq, chunk.count, base)])
        producer.sequences[chunk.topic] = places
        change.on_refusal(_restore, producer, chunk.topic, chunk.partition, known)
        return None
    for first, count, placed in known.batches:
        if first == chunk.seq and count == chunk.count:
            return placed
    first, count, _ = known.batches[-1]
    expected = (first + count) % _SEQUENCES
    if chunk.seq != expected:
        raise Refused(
            "out_of_order",
            f"Producer {chunk.pid} sends sequence {chunk.seq} where {expected} comes next: "
            "a batch before it is missing, or it repeats one older than the last "
            f"{PRODUCER_BATCHES}.",
        )
    before = known.batches
    known.batches = [*before[-PRODUCER_BATCHES + 1 :], (chunk.seq, chunk.count, base)]
    change.on_refusal(setattr, known, "batches", before)
    return None


def _goes_on(state: State, producer: Producer, chunk: Chunk) -> bool:
    """Whether a producer may go on in a partition of which it has no sequences: it was forgotten, or its topic was.

    A client does not know that a topic was deleted and made again, and goes on counting, as Kafka lets it.
    """
    return producer.again or any(
        topic not in state.topics and chunk.partition in places for topic, places in producer.sequences.items()
    )


def _restore(producer: Producer, topic: int, partition: int, known: Sequences | None) -> None:
    places = producer.sequences[topic]
    if known is not None:
        places[partition] = known
        return
    del places[partition]
    if not places:
        del producer.sequences[topic]
