"""Reading archive files through the store: the footer once, then only the row groups and columns that are wanted.

Parsed footers are kept, least recently used first out. Row groups are chosen by the offsets and times in the footer's
statistics; neighbouring ranges become one request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.log import batch, parquet
from headwater.log.chain import Chain
from headwater.log.codec_schema import PLACED_SCHEMA
from headwater.log.lookup import Lookup
from headwater.log.operations import File
from headwater.log.sparse import Range, chunk_range, coalesced, sparse
from headwater.log.state import State
from headwater.log.together import together

FOOTERS_KEPT: Final = 256  # parsed footers in memory, about 20 KB each
GAP_BYTES: Final = 64 << 10  # bytes between two wanted ranges that are cheaper to read than another request


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its offsets ``[first, last]``, its newest timestamp, and its bytes once decoded."""

    index: int
    first: int
    last: int
    max_ms: int
    raw: int


@dataclass(frozen=True, slots=True)
class Footer:
    """A parsed footer, and what its statistics say."""

    meta: pq.FileMetaData
    groups: list[Group]


class Archived:
    """Reads records of archive files. Any number of tasks may use one at once."""

    def __init__(self, chain: Chain, lookup: Lookup) -> None:
        self.chain = chain
        self.lookup = lookup
        self._footers: OrderedDict[str, Footer] = OrderedDict()

    async def rows(
        self,
        file: File,
        start: int,
        *,
        bytes_max: int,
        columns: Sequence[str] | None = None,
        state: State | None = None,
    ) -> tuple[pa.RecordBatch, int]:
        """Records of ``file`` at offset ``start`` and above, about ``bytes_max`` decoded ones but at least one.

        With the offset at which to go on: ``file.end`` if nothing is left. ``columns`` are those of a record, or some
        of them and typed ones; ``offset`` is always among them.

        Raises:
            NotFound: the file is gone (R6): look up again.
            Corrupt: it is damaged.

        Cost: 1 GET for each run of neighbouring row groups, mostly 1; 1 more for a footer that is not in memory.
        """
        names = list(PLACED_SCHEMA.names if columns is None else dict.fromkeys(["offset", *columns]))
        footer = await self.footer(file, state)
        chosen = _chosen(footer.groups, start, bytes_max)
        if not chosen:
            return _empty(footer, names), file.end
        table = await self._read(file, footer, chosen, names, state)
        if columns is None:
            table = table.cast(PLACED_SCHEMA)
        found = batch.slice_from(_one(table), start)
        fitting = max(1, found.num_rows * bytes_max // max(found.nbytes, 1))
        if fitting < found.num_rows:
            found = found.slice(0, fitting)
            return found, _last(found) + 1
        done = chosen[-1].index + 1 == len(footer.groups)
        return found, file.end if done else _last(found) + 1

    async def first_at(
        self, file: File, timestamp: int, start: int, state: State | None = None
    ) -> tuple[int, int] | None:
        """The first record at or after ``timestamp`` (ms) and ``start``, as (offset, timestamp); None if none is."""
        footer = await self.footer(file, state)
        for group in footer.groups:
            if group.max_ms < timestamp or group.last < start:
                continue
            table = await self._read(file, footer, [group], ["offset", "timestamp"], state)
            found = batch.first_at(table, timestamp, start)
            if found is not None:
                return found
        return None

    async def nulls(self, file: File, column: str, state: State | None = None) -> int:
        """How many records of the file have no value in ``column``. Cost: the footer."""
        meta = (await self.footer(file, state)).meta
        paths = [meta.schema.column(i).path for i in range(meta.num_columns)]
        at = paths.index(column)
        return sum(_null_count(meta.row_group(group).column(at)) for group in range(meta.num_row_groups))

    async def footer(self, file: File, state: State | None = None) -> Footer:
        """The file's footer. Cost: 1 GET, or nothing if it is in memory."""
        known = self._footers.get(file.key)
        if known is None:
            blob = await self.chain.read(file.key, start=file.bytes - file.footer, end=file.bytes, state=state)
            meta = parquet.read_footer(blob.data, file)
            known = self._footers[file.key] = Footer(meta, _groups(meta, file))
        self._footers.move_to_end(file.key)
        while len(self._footers) > FOOTERS_KEPT:
            self._footers.popitem(last=False)
        return known

    async def _read(
        self, file: File, footer: Footer, chosen: Sequence[Group], names: Sequence[str], state: State | None
    ) -> pa.Table:
        ranges = _ranges(footer.meta, chosen, names)
        blobs = await together(*(self.chain.read(file.key, start=low, end=high, state=state) for low, high in ranges))
        source = sparse(file.bytes, [low for low, _ in ranges], [blob.data for blob in blobs])
        groups = [group.index for group in chosen]
        table = parquet.decode_row_groups(source, footer.meta, groups, names, file)
        offsets = table.column("offset")
        if (offsets[0].as_py(), offsets[-1].as_py()) != (chosen[0].first, chosen[-1].last):
            raise parquet.damaged(file, ValueError("its footer and its pages differ about the offsets"))
        return table


def _groups(meta: pq.FileMetaData, file: File) -> list[Group]:
    paths = [meta.schema.column(i).path for i in range(meta.num_columns)]
    offset, time = paths.index("offset"), paths.index("timestamp")
    found: list[Group] = []
    for index in range(meta.num_row_groups):
        group = meta.row_group(index)
        offsets, times = group.column(offset).statistics, group.column(time).statistics
        if offsets is None or times is None or not offsets.has_min_max or not times.has_min_max:
            raise parquet.damaged(file, ValueError("its footer lacks the statistics of offsets and times"))
        # Raw: no calendar reaches as far as timestamps do.
        first, last, newest = (cast(int, raw) for raw in (offsets.min_raw, offsets.max_raw, times.max_raw))
        before = found[-1].last if found else file.base - 1
        if not before < first <= last < file.end or group.num_rows > last - first + 1:
            raise parquet.damaged(file, ValueError(f"its row group {index} claims the offsets [{first}, {last}]"))
        found.append(Group(index, first, last, newest, group.total_byte_size))
    if found and max(group.max_ms for group in found) != file.max:
        raise parquet.damaged(file, ValueError("its footer and its entry differ about its times"))
    return found


def _chosen(groups: list[Group], start: int, bytes_max: int) -> list[Group]:
    chosen: list[Group] = []
    size = 0
    for group in groups:
        if group.last < start:
            continue
        if chosen and size + group.raw > bytes_max:
            break
        chosen.append(group)
        size += group.raw
    return chosen


def _ranges(meta: pq.FileMetaData, chosen: Sequence[Group], names: Sequence[str]) -> list[Range]:
    """Where the wanted columns of the row groups lie; ranges that nearly touch become one."""
    wanted = set(names)
    columns = [i for i in range(meta.num_columns) if meta.schema.column(i).path.partition(".")[0] in wanted]
    places = [chunk_range(meta.row_group(group.index).column(at)) for group in chosen for at in columns]
    return coalesced(places, GAP_BYTES)


def _one(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # type: ignore[attr-defined]


def _empty(footer: Footer, names: Sequence[str]) -> pa.RecordBatch:
    schema = footer.meta.schema.to_arrow_schema()
    fields: list[pa.Field[Any]] = [schema.field(name) for name in names]
    if list(names) == PLACED_SCHEMA.names:
        fields = list(PLACED_SCHEMA)
    return pa.RecordBatch.from_arrays([pa.array([], each.type) for each in fields], schema=pa.schema(fields))


def _last(rows: pa.RecordBatch) -> int:
    found: int = rows.column("offset")[-1].as_py()
    return found


def _null_count(chunk: Any) -> int:
    statistics = chunk.statistics
    return 0 if statistics is None else int(statistics.null_count or 0)
