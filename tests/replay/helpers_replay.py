"""A topic beside a plain model of it: what was appended, where it lies by now, and what a replay must give."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headwater.log import files, keys
from headwater.log.batch import PLACED_SCHEMA, batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.log.parquet import FileBuilder, placed
from headwater.replay import replay_batches
from headwater.types import Record

Row = dict[str, Any]
NAMES = ("partition", "offset", "timestamp", "key", "value", "headers")


@dataclass
class Part:
    """One partition as plain Python: the records that are kept, and the bounds."""

    rows: dict[int, Row] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    archived: int = 0

    def kept(self) -> list[Row]:
        return [row for offset, row in sorted(self.rows.items()) if offset >= self.start]


class Twin:
    """A topic in a namespace, and the model of it, which every step changes alike."""

    def __init__(self, log: Namespace, topic: str, partitions: int) -> None:
        self.log, self.topic = log, topic
        self.parts = [Part() for _ in range(partitions)]
        self.past: dict[int, list[Part]] = {}

    @classmethod
    async def create(cls, log: Namespace, topic: str = "t", partitions: int = 2) -> Twin:
        await log.create_topic(topic, partitions)
        twin = cls(log, topic, partitions)
        twin.remember()
        return twin

    def remember(self) -> None:
        self.past[self.log.state.seq] = copy.deepcopy(self.parts)

    async def append(self, number: int, records: Sequence[Record]) -> None:
        await self.log.append(self.topic, number, batch_of_records(records, default_timestamp=0))
        part = self.parts[number]
        for record in records:
            part.rows[part.end] = {
                "partition": number,
                "offset": part.end,
                "timestamp": record.timestamp,
                "key": record.key,
                "value": record.value,
                "headers": [{"key": key, "value": value} for key, value in record.headers],
            }
            part.end += 1
        self.remember()

    async def archive(self, number: int, end: int, cuts: Iterable[int] = ()) -> None:
        """Files of what lies between the archive's end and ``end``, one for each piece between the ``cuts``."""
        part = self.parts[number]
        base, end = part.archived, min(end, part.end)
        if base < end:
            await self.swap(number, base, end, cuts, [])
            part.archived = end
            self.remember()

    async def compact(self, number: int, first: int, count: int, keep: Callable[[int], bool]) -> None:
        """``count`` neighbouring files become one, without the records that are not kept."""
        listed = self.listed(number)[first : first + count]
        if not listed:
            return
        part, base, end = self.parts[number], listed[0].base, listed[-1].end
        for offset in [each for each in part.rows if base <= each < end and not keep(each)]:
            del part.rows[offset]
        await self.swap(number, base, end, [], [file.key for file in listed])
        self.remember()

    async def page(self, number: int, count: int) -> None:
        """The oldest ``count`` files are listed by a page instead of the state."""
        listed = self.listed(number)[:count]
        if not listed:
            return
        topic = self.log.topic(self.topic)
        key = keys.file_page_key(self.log.state.seq, topic.id, number, keys.fresh_name(self.log.chain.rng, 50))
        made, body = files.encode(listed, key)
        await self.log.store.put(key, body)
        await self.log._change(
            SwapFiles(
                topic=topic.id,
                partition=number,
                base=listed[0].base,
                end=listed[-1].end,
                was=[file.key for file in listed],
                pages=[made],
            )
        )
        self.remember()

    async def trim(self, number: int, before: int) -> None:
        part = self.parts[number]
        before = min(before, part.end)
        if before > part.start:
            await self.log.trim(self.topic, number, before)
            part.start = before
            part.archived = max(part.archived, 0)
            self.remember()

    def listed(self, number: int) -> list[File]:
        archive = self.log.topic(self.topic).partitions[number].archive
        return list(archive.files) if archive else []

    async def swap(self, number: int, base: int, end: int, cuts: Iterable[int], was: list[str]) -> None:
        bounds = [base, *sorted({cut for cut in cuts if base < cut < end}), end]
        made = [await self.file(number, low, high) for low, high in itertools.pairwise(bounds)]
        topic = self.log.topic(self.topic).id
        await self.log._change(SwapFiles(topic=topic, partition=number, base=base, end=end, was=was, files=made))

    async def file(self, number: int, base: int, end: int) -> File:
        rows = [row for offset, row in sorted(self.parts[number].rows.items()) if base <= offset < end]
        builder = FileBuilder()
        builder.add(table_of(rows))
        built = builder.finish()
        nonce = keys.fresh_name(self.log.chain.rng, 50)
        key = keys.archive_key(self.topic, number, base, end, self.log.state.seq, nonce)
        await self.log.store.put(key, bytes(built.data))
        return placed(built, base=base, end=end, key=key)

    # -- what a replay must give ---------------------------------------------------------------------

    def expected(
        self,
        *,
        commit: int | None = None,
        wanted: Callable[[Row], bool] = lambda row: True,
        order: str = "partition",
        columns: Sequence[str] = NAMES,
    ) -> list[Row]:
        parts = self.parts if commit is None else self.past[commit]
        rows = [row for part in parts for row in part.kept() if wanted(row)]
        if order == "timestamp":
            rows = merged(rows)
        return [{name: row[name] for name in columns} for row in rows]

    async def replayed(self, **options: Any) -> list[Row]:
        batches = [batch async for batch in replay_batches(self.log, self.topic, **options)]
        return plain(batches)


def merged(rows: list[Row]) -> list[Row]:
    """By the greatest timestamp of the partition so far, then partition and offset: what a k-way merge does."""
    highest: dict[int, int] = {}
    keyed = []
    for row in rows:
        number = row["partition"]
        highest[number] = max(highest.get(number, row["timestamp"]), row["timestamp"])
        keyed.append(((highest[number], number, row["offset"]), row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def plain(batches: Iterable[pa.RecordBatch]) -> list[Row]:
    rows = []
    for batch in batches:
        if "timestamp" in batch.schema.names:
            at = batch.schema.get_field_index("timestamp")
            batch = batch.set_column(at, "timestamp", batch.column(at).cast(pa.int64()))
        rows += batch.to_pylist()
    for row in rows:
        if "headers" in row:
            row["headers"] = row["headers"] or []
    return rows


def table_of(rows: list[Row]) -> pa.Table:
    arrays: list[pa.Array[Any]] = []
    for column in PLACED_SCHEMA:
        values = [row[column.name] for row in rows]
        made = pa.array(values, pa.int64() if column.name == "timestamp" else column.type)
        arrays.append(made.cast(column.type))
    return pa.Table.from_arrays(arrays, schema=PLACED_SCHEMA)
