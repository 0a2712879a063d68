"""What benches of the archive write: records of 100 bytes, of 1 KB, and flights as JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from headwater.log.codec_schema import PLACED_SCHEMA, as_records, joined

KINDS: Final = ("100 B", "1 KB", "flights")
BLOCK_BYTES: Final = 4 << 20
KEY_BYTES: Final = 16
KEYS: Final = 10_000
FLIGHTS_PER_MIB: Final = 3_300


def blocks(kind: str, *, flights_max: int | None = None) -> Iterator[pa.RecordBatch]:
    """Record batches for ever, about 4 MiB each. ``flights_max`` bounds the flights that are loaded, and repeated.

    Raises:
        NotFound: the data set of the flights is not installed.
    """
    if kind == "flights":
        yield from _flights(flights_max)
    value_bytes = {"100 B": 100, "1 KB": 1_000}[kind] - KEY_BYTES
    rng = random.Random(1)
    rows = BLOCK_BYTES // (value_bytes + KEY_BYTES)
    for first in count(0, rows):
        yield as_records(_made(rng, rows, value_bytes, first))


def placed(kind: str, size: int) -> pa.Table:
    """At least ``size`` bytes of keys and values, with offsets from 0 on, in blocks."""
    batches, first, seen = [], 0, 0
    for block in blocks(kind, flights_max=max(1, (size >> 20) * FLIGHTS_PER_MIB)):
        offsets: Any = pa.array(range(first, first + block.num_rows), pa.int64())
        batches.append(pa.RecordBatch.from_arrays([offsets, *block.columns], schema=PLACED_SCHEMA))
        first += block.num_rows
        seen += payload_bytes(block)
        if seen >= size:
            break
    return pa.Table.from_batches([joined(batches)] if kind == "flights" else batches)


def payload_bytes(rows: pa.RecordBatch | pa.Table) -> int:
    """Bytes of keys and values."""
    columns: list[Any] = [rows.column("key"), rows.column("value")]
    return sum(int(pc.sum(pc.binary_length(column)).as_py() or 0) for column in columns)


def _made(rng: random.Random, rows: int, value_bytes: int, first: int) -> pa.Table:
    """Values of which no codec makes one half smaller, and keys that come back."""
    half = value_bytes // 2
    noise, still = rng.randbytes(rows * half), b"." * (value_bytes - half)
    values = [noise[i * half : (i + 1) * half] + still for i in range(rows)]
    keys = [b"key-%012d" % rng.randrange(KEYS) for _ in range(rows)]
    return pa.table({"timestamp": pa.array(range(first, first + rows), pa.int64()), "key": keys, "value": values})


def _flights(most: int | None) -> Iterator[pa.RecordBatch]:
    from headwater.demo.source import load

    flights = load(most)[0]
    while True:
        for block in flights.blocks():
            yield as_records(block)
