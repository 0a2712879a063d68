"""What tests of archived ranges share: a topic, its archive, and a compaction, made by hand."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.log import batch, keys, parquet
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.types import Record


async def opened(store: MemoryStore, seed: int = 1) -> Namespace:
    clock = SimClock(sim_loop(), start_ms=1_000_000)
    return await Namespace.open(store, clock=clock, rng=random.Random(seed))


def value(offset: int) -> bytes:
    return f"v{offset}".encode()


async def filled(store: MemoryStore, count: int = 30, size: int = 3) -> Namespace:
    """A topic ``t`` whose record at offset n has the value v<n> and the timestamp 10 n."""
    log = await opened(store)
    await log.create_topic("t")
    for base in range(0, count, size):
        records = [Record(value=value(n), key=b"k", timestamp=10 * n) for n in range(base, base + size)]
        await log.append("t", 0, batch.batch_of_records(records, default_timestamp=0))
    return log


async def read(log: Namespace, base: int, end: int) -> pa.Table:
    found = [chunk.decode() async for chunk in log.reader.chunks("t", 0, base, end)]
    table = pa.Table.from_batches(found, schema=batch.PLACED_SCHEMA)
    offsets: Any = table.column("offset")
    return table.filter(pc.and_(pc.greater_equal(offsets, base), pc.less(offsets, end)))


async def put_file(log: Namespace, base: int, end: int, table: pa.Table, nonce: str = "aaaa") -> File:
    builder = parquet.FileBuilder()
    builder.add(table)
    key = keys.archive_key("t", 0, base, end, log.state.seq, nonce)
    made = builder.finish()
    await log.store.put(key, made.data.to_pybytes())
    return parquet.placed(made, base=base, end=end, key=key)


async def archive(log: Namespace, *bounds: int) -> list[File]:
    """Archive the offsets between neighbouring ``bounds`` as a file each."""
    files = [await put_file(log, base, end, await read(log, base, end)) for base, end in itertools.pairwise(bounds)]
    await log.writer.commit(ops=[SwapFiles(topic=1, partition=0, base=bounds[0], end=bounds[-1], files=files)])
    return files


async def compact(log: Namespace, old: list[File], kept: list[int]) -> File:
    """Keep some of the offsets of files."""
    table = await read(log, old[0].base, old[-1].end)
    offsets: Any = table.column("offset")
    rows = table.filter(pc.is_in(offsets, pa.array(kept, pa.int64())))
    file = await put_file(log, old[0].base, old[-1].end, rows, "bbbb")
    swap = SwapFiles(
        topic=1, partition=0, base=file.base, end=file.end, was=[each.key for each in old], files=[file], clean=file.end
    )
    await log.writer.commit(ops=[swap])
    return file


async def walk(log: Namespace, start: int, **options: Any) -> tuple[list[int], list[bytes]]:
    """Offsets and values from ``start`` on, fetch by fetch."""
    offsets: list[int] = []
    values: list[bytes] = []
    while True:
        fetched = await log.reader.fetch("t", 0, start, **options)
        for chunk in fetched.chunks:
            rows = batch.slice_from(chunk.decode(), start)
            offsets += rows.column("offset").to_pylist()
            values += rows.column("value").to_pylist()
            assert chunk.end == rows.column("offset")[-1].as_py() + 1 or chunk.end > start
        if fetched.next_offset <= start:
            return offsets, values
        start = fetched.next_offset
