"""Chunks of a namespace as Kafka clients get them, kept for all readers of a gateway.

A miss reads ahead, and whoever else wants the same part of the partition waits for that one read, so the bucket sends
each byte once a gateway, and a consumer that catches up finds most of what it asks for in memory. What is here never
becomes wrong: offsets below the end that readers see do not change. A topic's id is never given out again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from headwater.limits import KAFKA_READ_AHEAD_BYTES, KIB
from headwater.log import kafka2
from headwater.log.namespace import Namespace
from headwater.types import Buffer


@dataclass(frozen=True, slots=True)
class Shelved:
    """Record batches of the offsets ``[base, end)``, in ``parts`` of ``size`` bytes; records may be missing in it.

    All of them are missing in a gap, whose ``parts`` are control batches that take a reader to its end.
    """

    base: int
    end: int
    parts: tuple[Buffer, ...]
    size: int
    is_gap: bool = False

    @classmethod
    def of(cls, base: int, end: int, parts: Iterable[Buffer], *, is_gap: bool = False) -> Shelved:
        """Batches whose bytes are kept where they lie."""
        kept = tuple(parts)
        return cls(base, end, kept, sum(map(len, kept)), is_gap)

    @property
    def data(self) -> bytes:
        """All of it in one piece. Cost: one copy, where it is not that already."""
        (first, *rest) = self.parts
        return first if isinstance(first, bytes) and not rest else b"".join(self.parts)


Place = tuple[int, int]  # topic id, partition


FOLLOWED_MAX = 1 << 16  # partitions whose readers are remembered
COPIED_BYTES_MAX = 16 * KIB  # of batches in one part: less costs more to carry in parts than to copy
INTEREST_S = 5.0  # a partition that nobody asked for this long has no reader who waits for its end


class Shelf:
    """At most ``bytes_max`` bytes of record batches; what was used last goes last.

    ``hits`` counts what was found here, ``misses`` what had to be waited for.
    """

    def __init__(self, namespace: Namespace, bytes_max: int) -> None:
        self.namespace = namespace
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._bytes_max = bytes_max
        self._places: dict[Place, list[Shelved]] = {}
        self._used: OrderedDict[tuple[int, int, int], Shelved] = OrderedDict()  # by place and base
        self._reading: dict[Place, asyncio.Task[list[Shelved]]] = {}
        self._read_s: dict[Place, float] = {}  # when somebody last asked for the end of a partition

    def find(self, place: Place, offset: int) -> Shelved | None:
        """The batches that hold ``offset``, if they are in memory."""
        found = self.peek(place, offset)
        self.hits += found is not None
        return found

    def find_whole(self, place: Place, offset: int) -> Shelved | None:
        """As ``find``, in one part: for who looks into the batches, again and again. Cost: one copy, once."""
        return self.whole(place, self.find(place, offset))

    def whole(self, place: Place, found: Shelved | None) -> Shelved | None:
        """What was found here, in one part from now on."""
        if found is None or len(found.parts) == 1:
            return found
        whole = Shelved.of(found.base, found.end, (found.data,))
        held = self._places[place]
        held[bisect_right(held, found.base, key=_base) - 1] = self._used[(*place, found.base)] = whole
        return whole

    def offer(self, place: Place, base: int, end: int, data: Buffer) -> None:
        """A batch that this gateway has just committed: kept where somebody reads along, so that nobody fetches it.

        To be called in the fold of the commit: those who wait for it look here as soon as they are woken.
        """
        if self._read_s.get(place, -INTEREST_S) > self.namespace.chain.clock.elapsed_s() - INTEREST_S:
            self._put(place, _placed(base, end, data))

    def follow(self, place: Place) -> None:
        """Somebody has read all of this partition and waits for more."""
        if len(self._read_s) >= FOLLOWED_MAX:
            self._read_s.clear()
        self._read_s[place] = self.namespace.chain.clock.elapsed_s()

    async def read(self, topic: str, place: Place, offset: int) -> Shelved | None:
        """Bring in what holds ``offset`` and what follows it, or wait for who does so already; None beyond the end.

        Raises what ``Reader.fetch`` raises.
        Cost: 1 request to the store, and the encoding of what is not in Kafka's format.
        """
        self.misses += 1
        reading = self._reading.get(place)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._read(topic, place, offset))
            self._reading[place] = reading
            reading.add_done_callback(lambda _: self._reading.pop(place, None))
        brought = await asyncio.shield(reading)
        # Where there is no room for all that came, what was asked for may be gone from here already.
        return self.peek(place, offset) or next((each for each in brought if each.base <= offset < each.end), None)

    def peek(self, place: Place, offset: int) -> Shelved | None:
        """As ``find``, for who counts its hits itself: it may look more than once."""
        held = self._places.get(place)
        if not held:
            return None
        at = bisect_right(held, offset, key=_base) - 1
        if at < 0 or held[at].end <= offset:
            return None
        found = held[at]
        self._used.move_to_end((*place, found.base))
        return found

    async def _read(self, topic: str, place: Place, offset: int) -> list[Shelved]:
        fetched = await self.namespace.reader.fetch(
            topic, place[1], offset, bytes_max=KAFKA_READ_AHEAD_BYTES, fresh=False
        )
        position = offset
        brought = []
        for chunk in fetched.chunks:
            if chunk.base > position:
                brought.append(_gap(position, chunk.base))
            if chunk.codec == "kafka2":
                brought.append(_placed(chunk.base, chunk.end, chunk.data))
            else:
                brought.append(Shelved.of(chunk.base, chunk.end, (await asyncio.to_thread(chunk.kafka2),)))
            position = max(position, chunk.end)
        if fetched.next_offset > position:
            brought.append(_gap(position, fetched.next_offset))
        for each in brought:
            self._put(place, each)
        return brought

    def _put(self, place: Place, shelved: Shelved) -> None:
        held = self._places.setdefault(place, [])
        at = bisect_right(held, shelved.base, key=_base)
        if at and held[at - 1].end > shelved.base:
            if held[at - 1].end >= shelved.end:
                return  # it is here already
            self._drop(place, held[at - 1])
            at -= 1
        while at < len(held) and held[at].base < shelved.end:
            self._drop(place, held[at])
        held.insert(at, shelved)
        self._used[(*place, shelved.base)] = shelved
        self.size += shelved.size
        while self.size > self._bytes_max and len(self._used) > 1:
            (topic, partition, _), oldest = next(iter(self._used.items()))
            self._drop((topic, partition), oldest)

    def _drop(self, place: Place, shelved: Shelved) -> None:
        held = self._places[place]
        held.remove(shelved)
        if not held:
            del self._places[place]
        del self._used[(*place, shelved.base)]
        self.size -= shelved.size


def _base(shelved: Shelved) -> int:
    return shelved.base


def _gap(start: int, end: int) -> Shelved:
    return Shelved.of(start, end, (kafka2.passage(start, end),), is_gap=True)


def _placed(base: int, end: int, data: Buffer) -> Shelved:
    """Batches from ``base`` on. They stay where they lie, unless they are small or keep far more memory than theirs."""
    if len(data) <= COPIED_BYTES_MAX:
        return Shelved.of(base, end, (kafka2.with_base_offset(data, base),))
    if isinstance(data, memoryview) and memoryview(data.obj).nbytes > 2 * data.nbytes:
        data = bytes(data)
    return Shelved.of(base, end, kafka2.rebased(data, base))
