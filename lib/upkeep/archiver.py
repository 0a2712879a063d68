"""The archiver: chunks of a partition become Parquet files, and from then on the files are what is read.

    due? ──► spans of chunks ──► read ahead ──► decode, type, encode ──► PUT ──► SwapFiles, in order
             (whole chunks,      (reader)       (offload: threads)               (1 commit a file)
              archive.bytes)

Partitions are worked on at the same time, and the files of one too, as far as memory goes (`Budget`); only the swaps
of a partition wait for each other, since files must meet end to end. Nothing is remembered between runs: what is
archived stands in the state, so after a crash at any point the next run goes on where the archive ends, and what was
stored in vain is collected. Any number of archivers may run: a swap names the place where the archive ended when it was
made, so of several that do the same work one wins. The others notice before each upload, or are refused; to meet
seldom, each begins at a partition of its own choice.

When a partition is due: when ``archive.bytes`` of chunks wait, full files are made and the rest goes on waiting; when
the oldest chunk has waited for ``archive.ms``, everything is archived. So a partition gets at most one small file in
``archive.ms``, and `upkeep.files` merges those.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from headwater.errors import Conflict, Corrupt, HeadwaterError, InvalidRequest, NotFound
from headwater.limits import ARCHIVE_MEMORY_BYTES, MIB
from headwater.log.chunk import Chunk
from headwater.log.config import TopicConfig
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.log.state import Entry, State
from headwater.log.together import together
from headwater.types import Progress
from headwater.upkeep import files as tidying
from headwater.upkeep.ages import Ages
from headwater.upkeep.budget import Budget
from headwater.upkeep.offload import Offload, in_thread
from headwater.upkeep.packing import Packer
from headwater.upkeep.rows import Reading, feed
from headwater.upkeep.swapping import Place, Swapper, Totals

PARTITIONS_AT_ONCE: Final = 8
FILES_AHEAD: Final = 4  # of one partition, that are being made while the first of them waits for its swap
TRIES_MAX: Final = 4  # of one partition in one run, while others are faster
PAUSE_S: Final = 2.0  # at most, after others were faster: about what a file takes
FILE_BYTES_MAX: Final = 60 * MIB  # chunks of one file: encoded they mostly fit one object
READ_BYTES: Final = 16 * MIB  # chunks that are read and wait for the encoder: two windows …
READ_CHUNKS: Final = 16_384  # … of so many chunks at most
NOTES_MAX: Final = 10  # damaged partitions that one error tells of
STEP_BYTES: Final = 2 * MIB  # chunks handed to the encoder at once …
STEP_CHUNKS: Final = 512  # … and how many at most
EXPANSION: Final = 8  # decoded bytes of one byte of chunk, for the estimate of memory
WORK_BYTES: Final = READ_BYTES + EXPANSION * STEP_BYTES + 24 * MIB  # of one file, beside what is encoded already

Due: TypeAlias = Literal["", "full", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReport:
    """What a run did. ``files`` and ``records`` were archived; ``bytes_read`` are those of chunks and of merged files.

    ``partitions`` had something to be done. ``left`` of them still have, since the time or the bytes of this run were
    over: the next run goes on. ``lost`` counts how often others were faster. ``merged`` small files became larger
    ones, and ``pages`` lists of old files were written. ``puts`` are objects stored and commits made.
    """

    partitions: int = 0
    files: int = 0
    records: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    puts: int = 0
    merged: int = 0
    pages: int = 0
    lost: int = 0
    left: int = 0
    memory_peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    """A partition that may be due, and what its topic says."""

    place: Place
    name: str
    config: TopicConfig


@dataclass(slots=True)
class _Span:
    """Neighbouring chunks that become one file, two if they do not fit one. ``size`` are their bytes.

    ``count`` are its records at ``base`` and above; ``versions`` says from which offset on values are written by which
    version of the topic's schema, 0 for none.
    """

    base: int
    end: int = 0
    size: int = 0
    count: int = 0
    chunks: int = 0
    versions: list[tuple[int, int]] = field(default_factory=list)

    def take(self, entry: Entry, version: int) -> None:
        """Put the next chunk behind those that are there. A gap has offsets and no records."""
        self.end = entry.end
        if entry.codec == "gap":
            return
        self.size += entry.len
        self.count += entry.end - max(entry.base, self.base)
        self.chunks += 1
        if not self.versions or self.versions[-1][1] != version:
            self.versions.append((entry.base, version))

    @property
    def window(self) -> int:
        """How many bytes of its chunks are read at once: fewer of very small ones, since each is an object here."""
        return max(1, min(READ_BYTES // 2, READ_CHUNKS * self.size // max(self.chunks, 1)))


@dataclass(slots=True)
class _Job:
    """A partition that is being worked on: files that are being made, in order; once ``stopped``, they are in vain."""

    target: _Target
    making: deque[tuple[_Span, asyncio.Task[list[File] | None]]] = field(default_factory=deque)
    stopped: bool = False


@dataclass(slots=True)
class _Run:
    """One run: its bounds, and how far it is."""

    bytes_max: int | None
    deadline_s: float | None
    all: bool
    progress: Progress | None
    claimed: int = 0  # bytes that were taken on, by merges too
    read: int = 0  # bytes of chunks, and …
    total: int = 0  # … how many are to be read, as far as is known
    partitions: int = 0
    left: set[Place] = field(default_factory=set)
    failed: list[HeadwaterError] = field(default_factory=list)
    broken: HeadwaterError | None = None


async def archive(
    namespace: Namespace,
    *,
    offload: Offload = in_thread,
    progress: Progress | None = None,
    memory_bytes_max: int = ARCHIVE_MEMORY_BYTES,
    bytes_max: int | None = None,
    deadline_s: float | None = None,
    all: bool = False,  # noqa: A002
) -> ArchiveReport:
    """Archive what is due in every partition, and tidy up its list of files. A second call finds nothing to do.

    With ``all`` every readable chunk is archived, however young, of topics with ``archive.enable=false`` too.
    ``bytes_max`` bounds the chunks of one run, and ``deadline_s`` (on the clock's ``elapsed_s``) when it begins a file
    for the last time; files that are begun are finished.

    Raises:
        Corrupt, InvalidRequest: chunks of some partition cannot be read; the first such error, which names it, with
            the others as notes. Nothing at or above such a chunk was archived there, and the other partitions were.
        Unavailable, Indeterminate: the store is down. What was swapped is swapped; run it again.

    Cost: 1 GET while nothing can be due. Else 1 HEAD for each partition whose records look old enough; and for a file
    of 60 MiB about 10 range GETs, 2 PUTs and 1 GET of the tip. Memory: ``memory_bytes_max``, by estimate.
    """
    await namespace.refresh()
    run = _Run(bytes_max, deadline_s, all, progress)
    archiver = _Archiver(namespace, run, Swapper(namespace, offload, Budget(memory_bytes_max)))
    targets = deque(_targets(namespace.state, everything=all))
    if targets:
        targets.rotate(namespace.chain.rng.randrange(len(targets)))
        await together(*(archiver.work(targets) for _ in range(min(PARTITIONS_AT_ONCE, len(targets)))))
    if run.broken is not None:
        raise run.broken
    if run.failed:
        for other in run.failed[1:NOTES_MAX]:
            run.failed[0].add_note(str(other))
        raise run.failed[0]
    return archiver.report()


def _targets(state: State, *, everything: bool) -> list[_Target]:
    """Partitions with chunks that wait, or with files to tidy up."""
    found = []
    for topic in state.topics.values():
        config = TopicConfig.of(topic.config)
        if config.archive or everything:
            found += [
                _Target(Place(topic.id, number), topic.name, config)
                for number, partition in enumerate(topic.partitions)
                if partition.hot < partition.stable_end or tidying.is_untidy(partition, config)
            ]
    return found


class _Archiver:
    """One run over a namespace."""

    def __init__(self, namespace: Namespace, run: _Run, swapper: Swapper) -> None:
        self.namespace = namespace
        self.run = run
        self.swapper = swapper
        self.budget = swapper.budget
        self.totals: Totals = swapper.totals
        self.ages = namespace.shared(Ages)

    def report(self) -> ArchiveReport:
        totals = self.totals
        return ArchiveReport(
            partitions=self.run.partitions,
            files=totals.files,
            records=totals.records,
            bytes_read=totals.bytes_read,
            bytes_written=totals.bytes_written,
            puts=totals.puts,
            merged=totals.merged,
            pages=totals.pages,
            lost=totals.lost,
            left=len(self.run.left),
            memory_peak_bytes=self.budget.peak,
        )

    @property
    def over(self) -> bool:
        """Whether this run begins nothing any more."""
        return self.late or (self.run.bytes_max is not None and self.run.claimed >= self.run.bytes_max)

    @property
    def late(self) -> bool:
        """Whether nothing that waits for memory is begun any more."""
        deadline_s, clock = self.run.deadline_s, self.namespace.chain.clock
        return self.run.broken is not None or (deadline_s is not None and clock.elapsed_s() >= deadline_s)

    async def work(self, targets: deque[_Target]) -> None:
        """Take partition after partition. What is wrong with one does not keep us from the others."""
        while targets:
            target = targets.popleft()
            try:
                await self._partition(target)
            except (Corrupt, InvalidRequest) as error:
                self.run.failed.append(error)
            except HeadwaterError as error:
                self.run.broken = self.run.broken or error
                return

    # -- one partition ----------------------------------------------------------------------------------

    async def _partition(self, target: _Target) -> None:
        chain = self.namespace.chain
        for tries in range(TRIES_MAX):
            try:
                await self._archive(target)
                await self._tidy(target)
                return
            except (Conflict, NotFound) as error:
                # Others were faster, or something vanished because they were (R6): look at what is there now.
                self.totals.lost += 1
                # Who is ahead is at work on the next file by now: in step with them we would lose that one, too.
                await chain.clock.sleep(chain.rng.random() * PAUSE_S * (tries + 1))
                await self.namespace.refresh()
                if isinstance(error, NotFound):
                    await chain.adopt_pages(lost=True)
        self.run.left.add(target.place)

    async def _tidy(self, target: _Target) -> None:
        partition = self.swapper.partition(target.place)
        while partition is not None and tidying.is_untidy(partition, target.config):
            if self.over:
                self.run.left.add(target.place)
                return
            self.run.claimed += await tidying.tidy(self.swapper, target.place, target.config)
            partition = self.swapper.partition(target.place)

    async def _archive(self, target: _Target) -> None:
        due = await self._due(target)
        if not due:
            return
        self.run.partitions += 1
        job = _Job(target)
        try:
            async with aclosing(self._spans(target, due)) as spans:
                async for span in spans:
                    if self.over:
                        self.run.left.add(target.place)
                        break
                    self._begin(job, span)
                    if len(job.making) >= FILES_AHEAD and not await self._swap_first(job):
                        return
            while job.making and await self._swap_first(job):
                pass
        finally:
            await self._drop(job)

    def _begin(self, job: _Job, span: _Span) -> None:
        self.run.claimed += span.size
        self.run.total += span.size
        job.making.append((span, asyncio.create_task(self._make(job, span), name="headwater-archive")))

    async def _drop(self, job: _Job) -> None:
        """Files whose turn never comes, because an earlier one of the partition failed, are nobody's."""
        job.stopped = True  # they end at their next step: an upload that is broken off would leave its object behind
        for made in await asyncio.gather(*(task for _, task in job.making), return_exceptions=True):
            if isinstance(made, list):
                await self.swapper.discard([file.key for file in made])

    async def _swap_first(self, job: _Job) -> bool:
        """Commit the oldest span of the partition once its files are stored. False if it was not begun in time."""
        span, task = job.making[0]
        place = job.target.place
        made = await asyncio.shield(task)
        if made is None:
            self.run.left.add(place)
            return False
        await tidying.make_room(self.swapper, place, len(made))
        job.making.popleft()
        op = SwapFiles(topic=place.topic, partition=place.number, base=span.base, end=span.end, files=made)
        await self.swapper.swap(op, [file.key for file in made])
        self.totals.files += len(made)
        self.totals.records += span.count
        self._tell()
        return True

    def _tell(self) -> None:
        if self.run.progress is not None:
            self.run.progress("archive", self.run.read, self.run.total)

    # -- what is due ------------------------------------------------------------------------------------

    async def _due(self, target: _Target) -> Due:
        """Whether the partition is due, and whether all of it is."""
        size, first = 0, True
        async with aclosing(self._waiting(target)) as waiting:
            async for entry in waiting:
                if first and (self.run.all or await self._has_waited(entry, target.config)):
                    return "all"
                first = False
                size += entry.len
                if size >= target.config.archive_bytes:
                    return "full"
        return ""

    async def _has_waited(self, entry: Entry, config: TopicConfig) -> bool:
        """Whether the chunk was committed ``archive.ms`` ago.

        A record that was made later than that was committed later still, so most chunks need no look at their
        manifest. Times that are wrong, in the past or in the future, do.
        """
        state, clock = self.namespace.state, self.namespace.chain.clock
        now_ms = max(state.time_ms, clock.wall_ms())
        if now_ms - config.archive_within_ms < entry.max <= now_ms:
            return False
        return await self.ages.of(entry.seq) >= config.archive_within_ms

    async def _waiting(self, target: _Target) -> AsyncGenerator[Entry, None]:
        """Whole readable chunks above the archive, without holes between them. Raises ``Corrupt``."""
        partition = self.swapper.partition(target.place)
        if partition is None:
            return
        position, stable_end = partition.hot, partition.stable_end
        lookup = self.namespace.lookup.entries(target.place.topic, target.place.number, position)
        async with aclosing(lookup) as entries:  # type: ignore[type-var]
            async for entry in entries:
                if entry.end > stable_end:
                    return
                if entry.base > position:
                    raise Corrupt(
                        f"Topic {target.name!r}, partition {target.place.number}: the index has nothing that holds the "
                        f"offsets [{position}, {entry.base}). Run `headwater verify`."
                    )
                position = entry.end
                yield entry

    async def _spans(self, target: _Target, due: Due) -> AsyncGenerator[_Span, None]:
        """What becomes one file each. Unless everything is due, what does not fill a file is left out."""
        partition, topic = self.swapper.partition(target.place), self.namespace.state.topics.get(target.place.topic)
        if partition is None or topic is None:
            return
        full, since = self._file_bytes(target.config), [schema.seq for schema in topic.schemas]
        span = _Span(partition.hot)
        async with aclosing(self._waiting(target)) as waiting:
            async for entry in waiting:
                span.take(entry, bisect_right(since, entry.seq))
                if span.size >= full:
                    yield span
                    span = _Span(span.end)
        if due == "all" and span.end > span.base:
            yield span

    def _file_bytes(self, config: TopicConfig) -> int:
        """Chunk bytes of one file: what is encoded of them is held twice while the encoder's buffer grows."""
        most = max((self.budget.total - WORK_BYTES) // 2, MIB)
        return max(1, min(config.archive_bytes, FILE_BYTES_MAX, most))

    # -- one span ---------------------------------------------------------------------------------------

    async def _make(self, job: _Job, span: _Span) -> list[File] | None:
        """Read the chunks of a span and store them as files, which nothing names yet.

        None if the time of this run was over before there was memory to begin.
        """
        made: list[File] = []
        need = 2 * span.size + min(WORK_BYTES, (EXPANSION + 4) * span.size + MIB)
        async with self.budget.hold(need):
            if self.late:
                return None
            try:
                await self._fill(job, span, made)
            except HeadwaterError:
                await self.swapper.discard([file.key for file in made])
                raise
        return made

    async def _fill(self, job: _Job, span: _Span, made: list[File]) -> None:
        self._see_that_it_is_of_use(job, span)
        target = job.target
        schemas = list(self.namespace.state.topics[target.place.topic].schemas)
        columns = schemas[-1].columns if schemas else []
        packer = Packer(
            span.base, columns, {"headwater.topic": target.name, "headwater.partition": str(target.place.number)}
        )
        reading = Reading(span.base, span.end, schemas, span.versions)
        async with aclosing(self._steps(job, span)) as steps:
            async for chunks in steps:
                await self.swapper.offload(feed, packer, reading, chunks)
                await self._store(job, span, packer, made)
        if packer.rows != span.count:
            # Of chunks that others archived and compacted meanwhile there may be fewer.
            await self.namespace.refresh()
            self._see_that_it_is_of_use(job, span)
            raise Corrupt(
                f"Topic {target.name!r}, partition {target.place.number}: the offsets [{span.base}, {span.end}) should "
                f"hold {span.count} records, and {packer.rows} were read. Run `headwater verify`."
            )
        await self.swapper.offload(packer.finish, span.end)
        await self._store(job, span, packer, made)

    async def _store(self, job: _Job, span: _Span, packer: Packer, made: list[File]) -> None:
        """Store what is finished, after a look whether it is still of use."""
        for ready in packer.take():
            await self.namespace.refresh()
            self._see_that_it_is_of_use(job, span)
            made.append(await self.swapper.store(job.target.place, ready))

    def _see_that_it_is_of_use(self, job: _Job, span: _Span) -> None:
        """Raise ``Conflict`` if others have archived the span or deleted the topic, or an earlier span has failed."""
        partition = self.swapper.partition(job.target.place)
        if job.stopped or partition is None or partition.archived > span.base:
            raise Conflict(f"Others have archived the offsets [{span.base}, {span.end}) of {job.target.name!r} by now.")

    async def _steps(self, job: _Job, span: _Span) -> AsyncGenerator[list[Chunk], None]:
        """The chunks of a span in groups that are worth a call of the encoder."""
        group: list[Chunk] = []
        size = 0
        if not span.count:
            return
        chunks = self.namespace.reader.chunks(
            job.target.name, job.target.place.number, span.base, span.end, bytes_max=4 * span.window
        )
        async with aclosing(chunks) as found:  # type: ignore[type-var]
            async for chunk in found:
                group.append(chunk)
                size += len(chunk.data)
                if size >= STEP_BYTES or len(group) >= STEP_CHUNKS:
                    self._note_read(job, span, size)
                    yield group
                    group, size = [], 0
        if group:
            self._note_read(job, span, size)
            yield group

    def _note_read(self, job: _Job, span: _Span, size: int) -> None:
        self._see_that_it_is_of_use(job, span)
        self.totals.bytes_read += size
        self.run.read += size
        self._tell()
