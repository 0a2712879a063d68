"""The read path: make sure of the tip, find the chunks, range-GET them in parallel, check every CRC.

    fetch ──► chain.refresh (1 GET) ──► lookup.entries ──► range GETs, up to READS_MAX at once ──► CRC32C ──► chunks
                                    └─► lookup.files   ──► row groups of an archive file ────────► Parquet ─► a chunk

Offsets below ``Partition.archived`` are read from archive files, the others from chunks as they were written.
A chunk that rode inline in a manifest which this process has just folded is in memory already, so a
tailing reader's poll brings data and metadata in the same GET. R6: a chunk or page that answers 404 means
"look again with a fresh state", never an empty answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from headwater.errors import Corrupt, InvalidRequest, NotFound, OffsetOutOfRange
from headwater.limits import BATCH_BYTES_MAX, READS_MAX
from headwater.log import frame, keys
from headwater.log.chain import Chain
from headwater.log.chunk import Chunk
from headwater.log.lookup import Lookup
from headwater.log.operations import File
from headwater.log.polling import LongPoll
from headwater.log.ranges import Ranges
from headwater.log.state import Entry, Partition, State, Topic
from headwater.log.together import together
from headwater.meters import families
from headwater.types import Codec

if TYPE_CHECKING:
    from headwater.log.archived import Archived

T = TypeVar("T")

LOOK_AGAIN_MAX = 3  # R6: how often a vanished object sends us back to the state before we call it lost
ARCHIVED_BYTES_MAX = 8 << 20  # records of one chunk that is made of archived ones; larger ones come one by one
ENTRIES_MAX = 1 << 18  # chunks of one fetch; a log of the tiniest ones gives as many bytes as memory likes to hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch found. The first chunk may begin below the offset asked for, as in Kafka.

    ``next_offset`` is where to go on: past the last chunk, and past gaps that hold no records.
    ``high_watermark`` is the end of the log, ``stable_end`` where readers stop (they differ only behind an
    open reservation), ``commit`` the manifest number as of which all this holds.
    """

    chunks: list[Chunk]
    next_offset: int
    log_start: int
    high_watermark: int
    stable_end: int
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What ``Fetched`` says, with the places of chunks or files instead of their bytes."""

    entries: list[Entry]
    files: list[File]  # archive files, whole, if the range begins in the archive; then there are no entries
    next_offset: int
    log_start: int
    high_watermark: int
    stable_end: int
    commit: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to look up: chunks or files of about ``bytes_max``, at most ``entries_max`` of them."""

    topic: Topic
    partition: int
    offset: int
    bytes_max: int
    entries_max: int
    state: State | None

    def hole(self, start: int, end: int) -> Corrupt:
        """I3: offsets are dense. A reader that went on behind a hole would lose its records without a word."""
        return Corrupt(
            f"Topic {self.topic.name!r}, partition {self.partition}: the index has nothing that holds the offsets "
            f"[{start}, {end}). Run `headwater verify`."
        )


class Reader:
    """Reads partitions of a namespace. Any number of tasks may use one at once."""

    def __init__(self, chain: Chain, lookup: Lookup) -> None:
        self.chain = chain
        self.lookup = lookup
        self._slots = asyncio.Semaphore(READS_MAX)
        self._ranges = Ranges(self._range, self._slots, chain.clock)
        self._archived: Archived | None = None

    @property
    def archived(self) -> Archived:
        """The reader of archive files. Imports pyarrow when it is first asked for."""
        if self._archived is None:
            from headwater.log.archived import Archived

            self._archived = Archived(self.chain, self.lookup)
        return self._archived

    # -- one fetch ---------------------------------------------------------------------------------

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        bytes_max: int = 8 << 20,
        wait_ms: float = 0,
        fresh: bool = True,
        state: State | None = None,
    ) -> Fetched:
        """Chunks from ``offset`` on, at most about ``bytes_max`` of them but at least one if there is any.

        With ``wait_ms`` an empty answer waits that long for a commit (long poll). ``fresh=False`` trusts the
        state as it is and skips the GET that makes sure of the tip. With ``state``, an earlier one of
        ``history.state_at``, the answer is what it would have been then: log start and compacted records included.

        Raises:
            NotFound: no such topic or partition.
            OffsetOutOfRange: carries the valid range.
            Corrupt: stored bytes fail their CRC, or are gone for good.

        Cost: 1 GET for the tip, 1 range GET for each run of neighbouring chunks not in memory. In the archive 1 range
        GET for the row groups, and 1 for a footer that is not in memory; decoding and encoding them is the larger part.
        """
        if state is not None:
            return await self._look(topic, partition, offset, bytes_max, state)
        if fresh:
            await self.chain.refresh()
        poll = LongPoll(self.chain, wait_ms)
        while True:
            fetched = await self._look(topic, partition, offset, bytes_max)
            if fetched.chunks or fetched.next_offset > offset or not await poll.more(fetched.commit):
                return fetched

    async def _look(
        self, topic: str, partition: int, offset: int, bytes_max: int, state: State | None = None
    ) -> Fetched:
        """One fetch from the state as it is; looks again while objects vanish under it (R6)."""
        start_s = self.chain.clock.elapsed_s()
        fetched = await self._found(
            topic, partition, lambda: self._fetch_now(topic, partition, offset, bytes_max, state), state
        )
        self._count(topic, fetched, self.chain.clock.elapsed_s() - start_s)
        return fetched

    def _count(self, topic: str, fetched: Fetched, seconds: float) -> None:
        meters, name = self.chain.options.meters, self.chain.name
        meters.histogram(families.FETCH_SECONDS, name).observe(seconds)
        if fetched.chunks:
            meters.counter(families.FETCHED_RECORDS, name, topic).add(sum(c.count for c in fetched.chunks))
            meters.counter(families.FETCHED_BYTES, name, topic).add(sum(len(c.data) for c in fetched.chunks))

    async def locate(
        self, topic: str, partition: int, offset: int, *, bytes_max: int, entries_max: int = ENTRIES_MAX
    ) -> Located:
        """Where the bytes lie that a fetch would read now, without reading them; looks again like a fetch (R6).

        At most ``entries_max`` chunks. Raises the same errors. Cost: nothing near the end of the log, else the index.
        """
        return await self._found(
            topic, partition, lambda: self._locate_now(topic, partition, offset, bytes_max, entries_max)
        )

    async def _found(
        self, topic: str, partition: int, look: Callable[[], Awaitable[T]], state: State | None = None
    ) -> T:
        """What ``look`` finds; it looks again, in the newest state, while objects vanish under it (R6)."""
        for _ in range(LOOK_AGAIN_MAX):
            try:
                return await look()
            except _Vanished as vanished:
                if state is not None:
                    raise NotFound(
                        f"Commit {state.seq} can no longer be read: {vanished.key!r} was collected. "
                        "A longer history.retention.ms keeps what later commits will replace."
                    ) from None
                last = vanished
                await self.chain.refresh()
                await self.chain.adopt_pages(lost=True)
        raise Corrupt(
            f"Topic {topic!r}, partition {partition} needs the object {last.key!r}, which does not exist. "
            "Run `headwater verify`.",
            key=last.key,
        )

    async def _fetch_now(
        self, topic: str, partition: int, offset: int, bytes_max: int, state: State | None = None
    ) -> Fetched:
        _, place = self.place(topic, partition, state)
        if offset < place.archived:
            return await self._fetch_archived(topic, partition, offset, bytes_max, state)
        located = await self._locate_now(topic, partition, offset, bytes_max, state=state)
        chunks = await self._load(topic, partition, located.entries, state)
        return _fetched(located, chunks, located.next_offset)

    async def _fetch_archived(
        self, topic: str, partition: int, offset: int, bytes_max: int, state: State | None
    ) -> Fetched:
        """Records of archive files, as a few chunks that are made for this answer."""
        located = await self._locate_now(topic, partition, offset, bytes_max, state=state)
        chunks: list[Chunk] = []
        position, left = offset, bytes_max
        for file in located.files:
            while position < file.end and (left > 0 or not chunks):
                try:
                    rows, position = await self.archived.rows(
                        file, max(position, file.base), bytes_max=max(min(left, ARCHIVED_BYTES_MAX), 1), state=state
                    )
                except NotFound as gone:
                    raise _Vanished(file.key) from gone
                if rows.num_rows:
                    chunks.append(Chunk.of_rows(topic, partition, rows))
                    left -= rows.nbytes
        return _fetched(located, chunks, position)

    async def _locate_now(
        self,
        topic: str,
        partition: int,
        offset: int,
        bytes_max: int,
        entries_max: int = ENTRIES_MAX,
        state: State | None = None,
    ) -> Located:
        described, place = self.place(topic, partition, state)
        check_range(topic, partition, place, offset)
        in_archive = offset < place.archived
        wanted = _Wanted(described, partition, offset, bytes_max, entries_max, state)
        entries: list[Entry] = []
        files: list[File] = []
        commit, start, stable_end, high_watermark = (
            (state or self.chain.state).seq,
            place.start,
            place.stable_end,
            place.next,
        )
        try:
            if in_archive:
                files, position = await self._find_files(wanted, place.archived)
            else:
                entries, position = await self._find_entries(wanted, stable_end)
        except NotFound as gone:
            raise _Vanished(str(gone)) from gone
        return Located(
            entries=entries,
            files=files,
            next_offset=position,
            log_start=start,
            high_watermark=high_watermark,
            stable_end=stable_end,
            commit=commit,
        )

    async def _find_entries(self, wanted: _Wanted, end: int) -> tuple[list[Entry], int]:
        """The chunks that are wanted, and where to go on."""
        chosen: list[Entry] = []
        position, size = wanted.offset, 0
        async for entry in self.lookup.entries(wanted.topic.id, wanted.partition, position, wanted.state):
            full = (size and size + entry.len > wanted.bytes_max) or len(chosen) >= wanted.entries_max
            if entry.base >= end or full:
                break
            if entry.base > position:
                raise wanted.hole(position, entry.base)
            position = max(position, min(entry.end, end))
            if entry.codec != "gap":
                chosen.append(entry)
                size += entry.len
        else:
            if position < end:
                raise wanted.hole(position, end)
        return chosen, position

    async def _find_files(self, wanted: _Wanted, end: int) -> tuple[list[File], int]:
        """The files that are wanted, and where to go on: the end of the archive at the latest."""
        chosen: list[File] = []
        position, size = wanted.offset, 0
        async for file in self.lookup.files(wanted.topic.id, wanted.partition, position, wanted.state):
            if (size and size + file.bytes > wanted.bytes_max) or len(chosen) >= wanted.entries_max:
                break
            if file.base > position:
                raise wanted.hole(position, file.base)
            position = file.end
            chosen.append(file)
            size += file.bytes
        else:
            if position < end:
                raise wanted.hole(position, end)
        return chosen, position

    # -- whole ranges ------------------------------------------------------------------------------

    async def chunks(
        self, topic: str, partition: int, start: int, end: int | None = None, *, bytes_max: int | None = None
    ) -> AsyncIterator[Chunk]:
        """Every chunk of ``[start, end)``, in order, with read-ahead of at most ``bytes_max`` (to the end as of now).

        Memory: ``bytes_max`` (default ``options.read_ahead_bytes_max``) plus one batch, however long the range is.
        """
        budget = self.chain.options.read_ahead_bytes_max if bytes_max is None else bytes_max
        await self.chain.refresh()
        _, place = self.place(topic, partition)
        check_range(topic, partition, place, start)
        end = place.stable_end if end is None else min(end, place.stable_end)
        window = max(budget // 4, 1)
        ahead: deque[asyncio.Task[Fetched]] = deque()
        # Each fetch must know where the one before it ended, so read-ahead overlaps one fetch with its consumer.
        position = start
        try:
            while position < end or ahead:
                if not ahead:
                    ahead.append(self._ahead(topic, partition, position, window))
                fetched = await ahead.popleft()
                if fetched.next_offset <= position:
                    return
                position = fetched.next_offset
                if position < end:
                    ahead.append(self._ahead(topic, partition, position, window))
                for chunk in fetched.chunks:
                    if chunk.base < end:
                        yield chunk
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _ahead(self, topic: str, partition: int, offset: int, bytes_max: int) -> asyncio.Task[Fetched]:
        return asyncio.get_running_loop().create_task(self._look(topic, partition, offset, bytes_max))

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> tuple[int, int] | None:
        """The first offset whose record is at or after ``timestamp`` (ms), with its own timestamp; None if none is.

        Exact inside a batch. Cost: the index, and 1 range GET for each chunk, or 2 for each archive file, that might
        hold it (mostly one).
        """
        await self.chain.refresh()
        for _ in range(LOOK_AGAIN_MAX):
            described, place = self.place(topic, partition)
            try:
                async for file in self.lookup.files(described.id, partition, place.start, timestamp=timestamp):
                    found = await self.archived.first_at(file, timestamp, place.start)
                    if found is not None:
                        return found
                async for entry in self.lookup.first_reaching(described.id, partition, timestamp):
                    if entry.base >= place.stable_end:
                        continue
                    from headwater.log import batch

                    (chunk,) = await self._load(topic, partition, [entry])
                    hit = batch.first_at(chunk.decode(), timestamp, place.hot)
                    if hit is not None:
                        return hit
                return None
            except (_Vanished, NotFound):
                await self.chain.refresh()
                await self.chain.adopt_pages(lost=True)
        raise Corrupt(f"Topic {topic!r}, partition {partition} cannot be searched by time: objects are missing.")

    def place(self, topic: str, partition: int, state: State | None = None) -> tuple[Topic, Partition]:
        """The topic and the partition's state. Raises ``NotFound``."""
        found = (state or self.chain.state).named(topic)
        if found is None:
            raise NotFound(f"There is no topic {topic!r} in this namespace.", topic=topic)
        if not 0 <= partition < len(found.partitions):
            raise NotFound(
                f"Topic {topic!r} has partitions 0 to {len(found.partitions) - 1}, and no partition {partition}.",
                topic=topic,
                partition=partition,
            )
        return found, found.partitions[partition]

    # -- bytes ----------------------------------------------------------------------------------------

    async def _load(self, topic: str, partition: int, entries: list[Entry], state: State | None = None) -> list[Chunk]:
        spans = _spans(entries)
        loaded = await together(*(self._load_span(key, span, state) for key, span in spans))
        return [
            Chunk(
                topic=topic,
                partition=partition,
                base=entry.base,
                count=entry.count,
                codec=_codec(entry),
                data=data,
                timestamp_min=entry.min,
                timestamp_max=entry.max,
            )
            for (_, span), parts in zip(spans, loaded, strict=True)
            for entry, data in zip(span, parts, strict=True)
        ]

    async def _load_span(self, key: str, span: list[Entry], state: State | None) -> list[bytes]:
        """Neighbouring chunks of one object by one range GET, perhaps with others' (see ``Ranges``), each checked."""
        start, end = span[0].pos, span[-1].pos + span[-1].len
        held = self.chain.inline.get(key)
        try:
            if held is not None:
                data = held[start:end]
            elif state is None:
                data = await self._ranges.read(key, start, end)
            else:  # whose object it is, the present state may not say
                async with self._slots:
                    data = await self._range(key, start, end, state)
        except NotFound:
            raise _Vanished(key) from None
        return [_checked(key, entry, data[entry.pos - start : entry.pos - start + entry.len]) for entry in span]

    async def _range(self, key: str, start: int, end: int, state: State | None = None) -> bytes:
        return (await self.chain.read(key, start=start, end=end, state=state)).data


class _Vanished(Exception):
    """An object that the state names answered 404 (R6)."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _fetched(located: Located, chunks: list[Chunk], next_offset: int) -> Fetched:
    return Fetched(
        chunks=chunks,
        next_offset=next_offset,
        log_start=located.log_start,
        high_watermark=located.high_watermark,
        stable_end=located.stable_end,
        commit=located.commit,
    )


def check_range(topic: str, partition: int, place: Partition, offset: int) -> None:
    """Raise ``OffsetOutOfRange`` unless ``log_start <= offset <= high_watermark``."""
    if offset < 0:
        raise InvalidRequest(f"An offset is 0 or more, not {offset}.")
    if not place.start <= offset <= place.next:
        raise OffsetOutOfRange(
            f"Topic {topic!r}, partition {partition} holds offsets [{place.start}, {place.next}); {offset} is outside.",
            log_start=place.start,
            high_watermark=place.next,
        )


def _spans(entries: list[Entry]) -> list[tuple[str, list[Entry]]]:
    """Entries grouped so that each group is one contiguous range of one object, of bounded size."""
    spans: list[tuple[str, list[Entry]]] = []
    for entry in entries:
        key = entry.obj or keys.manifest_key(entry.seq)
        if spans and spans[-1][0] == key:
            span = spans[-1][1]
            adjoins = span[-1].pos + span[-1].len == entry.pos
            if adjoins and entry.pos + entry.len - span[0].pos <= BATCH_BYTES_MAX:
                span.append(entry)
                continue
        spans.append((key, [entry]))
    return spans


def _codec(entry: Entry) -> Codec:
    assert entry.codec != "gap", "gaps have no bytes"
    return entry.codec


def _checked(key: str, entry: Entry, data: bytes) -> bytes:
    if len(data) != entry.len:
        raise Corrupt(f"{key!r} ends before its chunk at byte {entry.pos}: it was cut.", key=key)
    if frame.checksum(data) != entry.crc:
        raise Corrupt(
            f"The chunk at byte {entry.pos} of {key!r} (offsets [{entry.base}, {entry.end})) fails its CRC32C.",
            key=key,
        )
    return data
