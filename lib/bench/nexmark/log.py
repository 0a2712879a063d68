"""The queries end to end: from a topic to a topic, exactly once, over a log in a directory.

The events lie in a topic of one partition, in records that hold frames, and stay there for all queries. A run is
``streams.run_once``: it reads, decodes, computes, encodes, and commits results, state and offsets with each
micro-batch. Writing the events is not part of it; joining the group, making the topics and leaving is.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pyarrow as pa

from headwater.bench.nexmark.generator import Generator
from headwater.bench.nexmark.inprocess import Run
from headwater.bench.nexmark.queries import RESULT, TOPIC, Query
from headwater.clock import stopwatch_s
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.store import open_store
from headwater.streams import run_once
from headwater.streams.frames import WEIGHT
from headwater.streams.serde.packing import pack, unpack

RECORDS = 8  # of a batch when the events are written: about 8 MiB


@asynccontextmanager
async def written(frames: Iterable[pa.RecordBatch]) -> AsyncIterator[Namespace]:
    """A log in a directory of its own with the events in it, and no longer there at the end."""
    import polars as pl

    with tempfile.TemporaryDirectory(prefix="headwater-nexmark-") as folder:
        async with await Namespace.open(open_store(f"file://{folder}"), "nexmark", owns_store=True) as log:
            await log.create_topic(TOPIC, 1)
            for frame in frames:
                rows = pl.from_arrow(frame)
                assert isinstance(rows, pl.DataFrame)
                values = pack(rows)
                for start in range(0, len(values), RECORDS):
                    table = pa.table({"value": pa.array(values[start : start + RECORDS], pa.binary())})
                    await log.append(TOPIC, 0, encode_arrow(table, compression=None, default_timestamp=0))
            yield log


async def run(query: Query, generator: Generator, log: Namespace) -> Run:
    """The query over the topic; its results are read back after the clock has stopped."""
    if log.state.named(RESULT) is not None:
        await log.delete_topic(RESULT)
    await log.create_topic(RESULT, 1)
    started = stopwatch_s()
    await run_once(query.topology(generator), log)
    seconds = stopwatch_s() - started
    made = []
    async for chunk in log.reader.chunks(RESULT, 0, 0):
        frames = [unpack(value) for value in chunk.decode().column("value").to_pylist() if value is not None]
        made += [frame.drop(WEIGHT, strict=False) for frame in frames]  # no query loses a row of its table
    return Run(made, seconds)
