"""What tests of upkeep share: namespaces in virtual time, records to put in, and what is in them afterwards."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.log.batch import batch_of_kafka2, batch_of_records, encode_arrow, encode_kafka2
from headwater.log.namespace import Namespace
from headwater.log.operations import File
from headwater.log.options import Options
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.types import Batch, Record

START_MS = 1_700_000_000_000
HOUR_S = 3_600.0

Row = tuple[int, int, bytes | None, bytes | None, Any]


def clock() -> SimClock:
    return SimClock(sim_loop(), start_ms=START_MS)


def memory() -> MemoryStore:
    """A bucket whose clock is the simulation's."""
    return MemoryStore(clock=clock())


async def opened(store: ObjectStore, seed: int = 1, **options: Any) -> Namespace:
    """A handle of its own, as another process would have it. Batches above 300 bytes lie in segments."""
    known: dict[str, Any] = {"inline_bytes_max": 300, "snapshot_every": 16, **options}
    return await Namespace.open(store, "ns", clock=clock(), rng=random.Random(seed), options=Options(**known))


def some(space: Namespace, count: int = 3, *, size: int = 20, seed: int = 0, age_ms: int = 0) -> list[Record]:
    """Records of all shapes: without a key, without a value, with headers, of random bytes."""
    rng = random.Random(seed)
    now_ms = space.chain.clock.wall_ms() - age_ms
    return [
        Record(
            key=None if i % 3 == 2 else b"k%d" % (i % 2),
            value=None if i % 5 == 4 else rng.randbytes(size),
            timestamp=now_ms + i,
            headers=(("h", b"v%d" % i), ("n", None)) if i % 4 == 1 else (),
        )
        for i in range(count)
    ]


def arrow(records: list[Record], *, packed: bool = True) -> Batch:
    return batch_of_records(records, default_timestamp=START_MS, compression="zstd" if packed else None)


def kafka2(records: list[Record], *, compression: Any = "none") -> Batch:
    rows = batch_of_records(records, default_timestamp=START_MS)
    from headwater.log.batch import decode

    return batch_of_kafka2(
        encode_kafka2(decode("arrow", rows.data, 0).drop_columns(["offset"]), 0, compression=compression)
    )


def big(rows: int, size: int, *, start: int = 0, seed: int = 1) -> Batch:
    """A batch of incompressible values, made by columns."""
    blob = random.Random(seed + start).randbytes(rows * size)
    offsets = pa.array(range(0, rows * size + 1, size), pa.int32())
    values = pa.Array.from_buffers(pa.binary(), rows, [None, offsets.buffers()[1], pa.py_buffer(blob)])
    times = pa.array([START_MS] * rows, pa.timestamp("ms", tz="UTC"))
    return encode_arrow(pa.table({"timestamp": times, "value": values}), compression=None)


async def rows_of(space: Namespace, topic: str = "t", partition: int = 0) -> list[Row]:
    """Every record that a reader sees, as plain tuples."""
    await space.refresh()
    found: list[Row] = []
    async for chunk in space.reader.chunks(topic, partition, space.topic(topic).partitions[partition].start):
        found += _plain(chunk.decode())
    start = space.topic(topic).partitions[partition].start
    return [row for row in found if row[0] >= start]


async def files_of(space: Namespace, topic: str = "t", partition: int = 0) -> list[File]:
    await space.refresh()
    return [file async for file in space.lookup.files(space.topic(topic).id, partition, 0)]


async def archived_rows(space: Namespace, topic: str = "t", partition: int = 0) -> list[Row]:
    """Every record of the archive, as a tool that knows nothing of Headwater reads it."""
    found: list[Row] = []
    for file in await files_of(space, topic, partition):
        blob = await space.store.get(file.key)
        table = pq.read_table(pa.BufferReader(blob.data), columns=["offset", "timestamp", "key", "value", "headers"])
        assert (file.bytes, file.count) == (len(blob.data), table.num_rows)
        found += _plain(table)
    return found


def _plain(rows: pa.RecordBatch | pa.Table) -> list[Row]:
    columns = [rows.column(name) for name in ("key", "value", "headers")]
    times = rows.column("timestamp").cast(pa.int64())
    return [
        (offset, time, key, value, headers or None)
        for offset, time, key, value, headers in zip(
            rows.column("offset").to_pylist(), times.to_pylist(), *(each.to_pylist() for each in columns), strict=True
        )
    ]


async def objects(space: Namespace, prefix: str = "archive/") -> set[str]:
    return {stat.key async for stat in space.store.list(prefix)}


async def assert_sound(space: Namespace, topic: str = "t", partition: int = 0) -> None:
    """The files of a partition meet end to end, each is there, and nobody's are not."""
    files = await files_of(space, topic, partition)
    place = space.topic(topic).partitions[partition]
    position = files[0].base if files else place.archived
    for file in files:
        assert position == file.base
        assert 0 <= file.count <= file.end - file.base
        position = file.end
    assert place.archived == position
