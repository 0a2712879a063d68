"""Pieces of archive files: which files and row groups can hold what is wanted, and their rows.

The state (or a page that it names) says which offsets and times a file holds, so others are never opened. Of a file
that is opened the footer says the same of its row groups, and holds statistics of every column for the filter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from headwater.limits import REPLAY_FILES_AHEAD, REPLAY_HOLE_BYTES, REPLAY_PART_BYTES, REPLAY_WHOLE_BYTES
from headwater.log import parquet
from headwater.log.operations import File
from headwater.log.parquet import FOREIGN, damaged
from headwater.log.sparse import Range, chunk_range, coalesced, sparse, taker
from headwater.log.together import together
from headwater.replay import sources
from headwater.replay.columns import may_match
from headwater.replay.pieces import Clip, Job, Piece, finished
from headwater.replay.ranges import Span

FOOTER_READ_BYTES = 64 << 10  # what Arrow reads first of a Parquet file, whatever its footer needs
_FORMAT = ds.ParquetFileFormat()
_TIME = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose footer is known.

    ``footer`` is an Arrow file of at least that, ``source`` one of all bytes, where they are at hand already. If these
    were ``checked`` as a whole, pages need not be: CRC32C is ten times as fast as what Parquet has for them.
    """

    file: File
    metadata: pq.FileMetaData
    footer: Any
    source: Any | None
    leaves: list[str]
    checked: bool
    sums: list[parquet.Sum]  # of the row groups, to be checked before they are decoded; else none
    data: Any | None = None  # all bytes of a mapped file: several pieces look at it at once
    shared: Shared | None = None  # a remote file of which everything is wanted


class Shared:
    """All bytes of a remote file, fetched once for all of its pieces, and checked as a whole before any is decoded."""

    def __init__(self, job: Job, file: File, metadata: pq.FileMetaData) -> None:
        self._job = job
        self._file = file
        self._starts = _cuts(metadata)
        self._lock = asyncio.Lock()
        self._source: Any | None = None

    async def source(self) -> Any:
        """An Arrow file of all bytes. Raises ``NotFound`` (R6) or ``Corrupt``."""
        async with self._lock:
            if self._source is None:
                view, file = self._job.view, self._file
                ranges = zip(self._starts, [*self._starts[1:], file.bytes], strict=True)
                parts = await together(*(sources.read_range(view, file, low, high) for low, high in ranges))
                await self._job.work(parquet.check_whole, file, *parts)
                self._source = sparse(file.bytes, self._starts, parts)
        return self._source


def _cuts(metadata: pq.FileMetaData) -> list[int]:
    """Where to cut a file into ranges that are fetched side by side: between row groups, so that nothing is joined."""
    starts = [0]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        start = min(chunk_range(group.column(i))[0] for i in range(metadata.num_columns))
        if start - starts[-1] >= REPLAY_PART_BYTES:
            starts.append(start)
    return starts


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its number, the offsets and times in it (inclusive), and its bytes before compression."""

    number: int
    low: int
    high: int
    low_ms: int
    high_ms: int
    size: int


async def file_pieces(job: Job, span: Span) -> AsyncIterator[Piece]:
    """The pieces of the archive in ``span``, in offset order. Raises ``NotFound`` where an object has gone (R6).

    Cost: 1 GET for each page of files that is not in memory, 1 for each footer; files up to 1 MiB are read whole.
    """
    opening: deque[asyncio.Task[Opened]] = deque()
    files = _files(job, span)
    more = True
    try:
        while more or opening:
            while more and len(opening) < REPLAY_FILES_AHEAD:
                file = await anext(files, None)
                if file is None:
                    more = False
                else:
                    opening.append(asyncio.ensure_future(_open(job, span, file)))
            if opening:
                opened = await opening[0]
                for piece in _pieces_of(job, span, opened):
                    yield piece
                opening.popleft()
    finally:
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)


async def _files(job: Job, span: Span) -> AsyncIterator[File]:
    """Files that can hold what is wanted, by what is known without opening them."""
    view, shape = job.view, job.shape
    async for file in view.namespace.lookup.files(
        view.topic.id,
        span.partition,
        span.start,
        view.state,
        timestamp=span.since_ms,
        end=span.end,
        before=span.until_ms,
    ):
        if not file.count:
            continue
        if shape.filter is not None and not may_match(guarantee(span.partition, file), shape.filter, shape.whole):
            continue
        yield file


def guarantee(partition: int, file: File) -> Any:
    """What holds for every row of the file."""
    return (
        (pc.field("partition") == pa.scalar(partition, pa.int32()))
        & (pc.field("offset") >= file.base)
        & (pc.field("offset") < file.end)
        & (pc.field("timestamp") >= pa.scalar(file.min, _TIME))
        & (pc.field("timestamp") <= pa.scalar(file.max, _TIME))
    )


async def _open(job: Job, span: Span, file: File) -> Opened:
    view = job.view
    path = sources.local_path(view.namespace.chain.home(file.key, view.state), file.key)
    if path is not None:
        whole = _wants_all(job, span, file)
        return await job.work(_parse_mapped, sources.mapped(path, file), file, whole)  # type: ignore[no-any-return]
    whole = file.bytes <= REPLAY_WHOLE_BYTES
    # Before the footer lies the page index, of much the same size; it is checked where everything is read.
    tail = max(file.footer * 2 if _wants_all(job, span, file) else file.footer, FOOTER_READ_BYTES)
    start = 0 if whole else max(0, file.bytes - tail)
    data = await sources.read_range(view, file, start, file.bytes)
    if whole:
        parquet.check_whole(file, data)
    footer = sparse(file.bytes, [start], [data])
    opened: Opened = await job.work(_parse, file, footer, whole, whole)
    if whole or not _wants_all(job, span, file):
        return opened
    if sums := parquet.sums_of(opened.metadata):
        between = await sources.read_range(view, file, sums[-1].end, start) if sums[-1].end < start else b""
        parquet.check_rest(file, sums, between + data[max(0, sums[-1].end - start) :])
        return replace(opened, checked=True, sums=sums)
    if file.bytes <= job.piece_bytes:
        return replace(opened, checked=True, shared=Shared(job, file, opened.metadata))
    return opened


def _wants_all(job: Job, span: Span, file: File) -> bool:
    """Whether every byte of the file will be read anyhow."""
    inside = span.start <= file.base and file.end <= span.end and span.holds(file.min, file.max)
    return inside and job.shape.filter is None and len(job.shape.needed) == len(job.shape.whole)


def _parse_mapped(source: Any, file: File, whole: bool) -> Opened:
    opened = _parse(file, source, True, whole)
    if not whole:
        return opened
    source.seek(0)
    data = source.read_buffer(file.bytes)
    if sums := parquet.sums_of(opened.metadata):
        parquet.check_rest(file, sums, data.slice(sums[-1].end))
        return replace(opened, sums=sums, data=data)
    parquet.check_whole(file, memoryview(data))
    return opened


def _parse(file: File, source: Any, whole: bool, checked: bool) -> Opened:
    source.seek(file.bytes - file.footer)
    metadata = parquet.read_footer(source.read(file.footer), file)
    leaves = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return Opened(file, metadata, source, source if whole else None, leaves, checked, [])


def _pieces_of(job: Job, span: Span, opened: Opened) -> list[Piece]:
    """Pieces of neighbouring row groups that can hold what is wanted, several in one if they are small."""
    groups = _groups(opened)
    chosen = set(range(len(groups))) if job.shape.filter is None else _matching(job, span, opened)
    runs: list[list[Group]] = []
    size = 0
    for group in groups:
        outside = group.high < span.start or group.low >= span.end or span.misses(group.low_ms, group.high_ms)
        if outside or group.number not in chosen:
            continue
        size += group.size
        if runs and runs[-1][-1].number + 1 == group.number and size <= job.piece_bytes:
            runs[-1].append(group)
        else:
            runs.append([group])
            size = group.size
    ends = [group.low for group in groups[1:]] + [opened.file.end]
    return [_piece(job, span, opened, run, ends[run[-1].number]) for run in runs]


def _groups(opened: Opened) -> list[Group]:
    """What the footer says of each row group; without statistics it may hold anything of the file."""
    file, metadata = opened.file, opened.metadata
    at, when = opened.leaves.index("offset"), opened.leaves.index("timestamp")
    groups = []
    for number in range(metadata.num_row_groups):
        found = metadata.row_group(number)
        low, high = _bounds(found.column(at).statistics, (file.base, file.end - 1))
        low_ms, high_ms = _bounds(found.column(when).statistics, (file.min, file.max))
        groups.append(Group(number, low, high, low_ms, high_ms, found.total_byte_size))
    return groups


def _bounds(statistics: Any, otherwise: tuple[int, int]) -> tuple[int, int]:
    return (statistics.min_raw, statistics.max_raw) if statistics and statistics.has_min_max else otherwise


def _matching(job: Job, span: Span, opened: Opened) -> set[int]:
    """The row groups in which the filter can hold, by their statistics."""
    try:
        fragment: Any = _FORMAT.make_fragment(
            opened.footer, partition_expression=guarantee(span.partition, opened.file)
        )
        subset = fragment.subset(filter=job.shape.filter, schema=job.shape.whole)
        return {group.id for group in subset.row_groups}
    except FOREIGN as error:
        raise damaged(opened.file, error) from error


def _piece(job: Job, span: Span, opened: Opened, run: list[Group], end: int) -> Piece:
    low_ms, high_ms = min(group.low_ms for group in run), max(group.high_ms for group in run)
    clip = Clip.of(span, run[0].low, run[-1].high, low_ms, high_ms)
    have = {leaf.split(".", 1)[0] for leaf in opened.leaves} | set(opened.leaves)
    wanted = [name for name in job.shape.whole.names if name in {*job.shape.needed, *clip.names()} and name in have]
    names, numbers = wanted or ["offset"], [group.number for group in run]
    leaves = _leaves_of(opened, names)
    columns = [opened.metadata.row_group(number).column(i) for number in numbers for i in leaves]
    cost = sum(column.total_uncompressed_size for column in columns)
    if opened.source is None:  # what is mapped, or small, is not counted
        cost += sum(column.total_compressed_size for column in columns)

    sums = [opened.sums[number] for number in numbers] if opened.sums else []

    async def load() -> list[pa.RecordBatch]:
        source = opened.source if opened.shared is None else await opened.shared.source()
        if source is None:
            ranges = _parts(sums) or coalesced([chunk_range(column) for column in columns], REPLAY_HOLE_BYTES)
            source = await sources.fetched(job.view, opened.file, ranges)
        return await job.decode(_rows, opened, source, numbers, names, clip, job)  # type: ignore[no-any-return]

    return Piece(span.partition, min(end, span.end), cost, load)


def _parts(sums: list[parquet.Sum]) -> list[Range]:
    """Ranges of whole row groups, to be fetched side by side."""
    parts: list[Range] = []
    for each in sums:
        if parts and parts[-1][1] - parts[-1][0] < REPLAY_PART_BYTES:
            parts[-1] = (parts[-1][0], each.end)
        else:
            parts.append((each.start, each.end))
    return parts


def _leaves_of(opened: Opened, names: list[str]) -> list[int]:
    roots = tuple(f"{name}." for name in names)
    return [i for i, leaf in enumerate(opened.leaves) if leaf in names or leaf.startswith(roots)]


def _rows(
    opened: Opened, source: Any, numbers: list[int], names: list[str], clip: Clip, job: Job
) -> list[pa.RecordBatch]:
    """Read and decode neighbouring row groups. Runs in a thread; Arrow lets go of the interpreter meanwhile.

    Arrow's own threads, one for each column, would be idle while the largest column is decoded: pieces are many, and
    each is decoded by one thread, all columns after one another.
    """
    if opened.sums:
        data = opened.data
        take = taker(source) if data is None else lambda start, end: data.slice(start, end - start)
        parquet.check_groups(opened.file, [opened.sums[number] for number in numbers], take)
    try:
        # The bytes are at hand. Buffering them before would only copy them, and read across the cuts between parts.
        reader = pq.ParquetFile(
            source, metadata=opened.metadata, page_checksum_verification=not opened.checked, pre_buffer=False
        )
        table = reader.read_row_groups(numbers, columns=names, use_threads=False)
    except FOREIGN as error:
        raise damaged(opened.file, error) from error
    return finished(table, clip, job.shape)
