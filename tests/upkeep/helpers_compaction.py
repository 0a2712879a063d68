"""A topic that is filled, archived, compacted and read back, beside what Kafka's cleaner would have made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from headwater.log import files, keys, parquet
from headwater.log.batch import batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.store.base import ObjectStore
from headwater.types import Record
from headwater.upkeep.compaction import CompactionReport, compact
from headwater.upkeep.offload import inline
from tests.log.helpers import opened

T0 = 1_800_000_000_000  # when the simulated clock starts
HOUR = 3_600_000
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Row:
    """A record at its place. A value of None is a tombstone."""

    offset: int
    key: bytes | None
    value: bytes | None


class Desk:
    """A process with a compacted topic ``t`` of one partition."""

    def __init__(self, ns: Namespace, store: Any) -> None:
        self.ns, self.store = ns, store

    @classmethod
    async def start(cls, store: ObjectStore, **config: str) -> Desk:
        ns = await opened(store)
        settings = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"}
        await ns.create_topic("t", 1, settings | {name.replace("_", "."): value for name, value in config.items()})
        return cls(ns, store)

    async def append(self, *rows: tuple[bytes | None, bytes | None], at: int = T0) -> None:
        """One chunk of records with these keys and values."""
        made = [Record(key=key, value=value, timestamp=at) for key, value in rows]
        # As bytes into which nobody has looked: so records without a key come in, too.
        opaque = replace(batch_of_records(made, default_timestamp=at), keyless=-1)
        await self.ns.append("t", 0, opaque)

    async def archive(self, *ends: int, columns: Sequence[Any] = ()) -> None:
        """Archive up to the last of ``ends`` (the end of the log without any), one file up to each."""
        place = self.ns.topic("t").partitions[0]
        base, new = max(place.archived, place.start), []
        first = base
        for end in ends or (place.stable_end,):
            new.append(await self._file(base, end, columns))
            base = end
        op = SwapFiles(topic=self.ns.topic("t").id, partition=0, base=first, end=base, files=new)
        await self.ns.writer.commit(ops=[op])

    async def _file(self, base: int, end: int, columns: Sequence[Any]) -> File:
        builder = parquet.FileBuilder(columns)
        offset = base
        while offset < end:
            fetched = await self.ns.reader.fetch("t", 0, offset, fresh=False)
            for chunk in fetched.chunks:
                rows = chunk.decode()
                numbers = rows.column("offset").to_pylist()
                kept = [i for i, number in enumerate(numbers) if offset <= number < end]
                if kept:
                    builder.add(_typed(rows.slice(kept[0], len(kept)), builder.schema))
            offset = fetched.next_offset
        nonce = keys.fresh_name(self.ns.chain.rng, 50)
        key = keys.archive_key("t", 0, base, end, self.ns.state.seq, nonce)
        built = builder.finish()
        await self.ns.store.put(key, memoryview(built.data))
        return parquet.placed(built, base=base, end=end, key=key)

    async def compact(self, now_ms: int | None = None, **options: Any) -> CompactionReport:
        return await compact(self.ns, offload=inline, now_ms=now_ms, **options)

    async def rows(self, start: int = 0) -> list[Row]:
        return await rows_of(self.ns, start)

    @property
    def files(self) -> list[File]:
        archive = self.ns.topic("t").partitions[0].archive
        return [] if archive is None else archive.files

    @property
    def clean(self) -> int:
        archive = self.ns.topic("t").partitions[0].archive
        return 0 if archive is None else archive.clean


def _typed(rows: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Typed columns hold the record's own offset, so that it shows if they are mixed up."""
    table = pa.Table.from_batches([rows])
    for field in list(schema)[len(table.column_names) :]:
        table = table.append_column(field, table.column("offset").cast(field.type))
    return table


async def rows_of(ns: Namespace, start: int = 0) -> list[Row]:
    """All that a reader sees from ``start`` on, in order."""
    place = ns.topic("t").partitions[0]
    offset, found = max(start, place.start), []
    while offset < place.stable_end:
        fetched = await ns.reader.fetch("t", 0, offset, fresh=False)
        for chunk in fetched.chunks:
            data = chunk.decode()
            for number, key, value in zip(
                *(data.column(name).to_pylist() for name in ("offset", "key", "value")), strict=True
            ):
                if number >= offset:
                    found.append(Row(number, key, value))
        assert fetched.next_offset > offset
        offset = fetched.next_offset
    assert [row.offset for row in found] == sorted({row.offset for row in found})
    return found


async def listed_by_a_page(desk: Desk) -> None:
    """What the archiver does with old files."""
    old = desk.files
    page, data = files.encode(old, keys.file_page_key(desk.ns.state.seq, 1, 0, "aaaaaaaaaa"))
    await desk.ns.store.put(page.key, data)
    was = [file.key for file in old]
    op = SwapFiles(topic=1, partition=0, base=page.base, end=page.end, was=was, pages=[page])
    await desk.ns.writer.commit(ops=[op])
