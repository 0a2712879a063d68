"""Archive files made by hand: what a test says, where an archiver would put it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.log import keys
from headwater.log.batch import batch_of_records
from headwater.log.codec_schema import PLACED_SCHEMA
from headwater.log.frame import checksum
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.types import Record


async def fill(log: Namespace, topic: str, partition: int, count: int, first: int = 0) -> None:
    """``count`` records whose values are ``v<offset>`` and whose times are 1,000 times the offset."""
    records = [
        Record(key=f"k{i % 3}".encode(), value=f"v{i}".encode(), timestamp=1_000 * i)
        for i in range(first, first + count)
    ]
    await log.append(topic, partition, batch_of_records(records, default_timestamp=0))


def rows(offsets: Sequence[int], columns: dict[str, pa.Array[Any]] | None = None) -> pa.Table:
    """The records of ``fill`` at these offsets, and typed columns."""
    table = pa.table(
        {
            "offset": pa.array(offsets, pa.int64()),
            "timestamp": pa.array([1_000 * i for i in offsets], pa.timestamp("ms", "UTC")),
            "key": pa.array([f"k{i % 3}".encode() for i in offsets]),
            "value": pa.array([f"v{i}".encode() for i in offsets]),
            "headers": pa.array([None] * len(offsets), PLACED_SCHEMA.field("headers").type),
        },
        schema=PLACED_SCHEMA,
    )
    for name, array in (columns or {}).items():
        table = table.append_column(name, array)
    return table


async def put_file(log: Namespace, topic: str, partition: int, base: int, end: int, table: pa.Table) -> File:
    """A Parquet file of the offsets ``[base, end)``, stored where an archiver stores it."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue()
    nonce = keys.fresh_name(log.chain.rng, 50)
    key = keys.archive_key(topic, partition, base, end, log.state.seq, nonce)
    await log.store.put(key, data)
    times = table.column("timestamp").cast(pa.int64()).to_pylist() or [0]
    return File(
        base=base,
        end=end,
        count=table.num_rows,
        key=key,
        bytes=len(data),
        crc=checksum(data),
        footer=int.from_bytes(data[-8:-4], "little") + 8,
        min=min(times),
        max=max(times),
    )


async def swap(log: Namespace, topic: str, partition: int, files: list[File], was: Sequence[File] = ()) -> None:
    """Let ``files`` hold their offsets from now on, in the place of ``was``."""
    op = SwapFiles(
        topic=log.topic(topic).id,
        partition=partition,
        base=files[0].base,
        end=files[-1].end,
        was=[file.key for file in was],
        files=files,
    )
    await log.writer.commit(ops=[op])


async def archive_all(
    log: Namespace, topic: str, partition: int, base: int, end: int, columns: dict[str, pa.Array[Any]] | None = None
) -> File:
    """One file of all the offsets ``[base, end)``."""
    file = await put_file(log, topic, partition, base, end, rows(range(base, end), columns))
    await swap(log, topic, partition, [file])
    return file
