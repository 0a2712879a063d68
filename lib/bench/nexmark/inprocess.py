"""The queries in this process, from Arrow to frames: what the engine costs without a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from headwater.bench.nexmark.generator import Generator
from headwater.bench.nexmark.queries import TOPIC, Query
from headwater.clock import cpu_s
from headwater.limits import STREAMS_BATCH_RECORDS
from headwater.streams.frames import TIME
from headwater.streams.plan import make_plan
from headwater.streams.task import Input, Task

FRAME_ROWS = STREAMS_BATCH_RECORDS  # a micro-batch as the runner takes it


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave, and the seconds that it took: of CPU time in process, of the wall clock through the log."""

    frames: list[pl.DataFrame]
    seconds: float


def run(query: Query, generator: Generator, frames: Sequence[pa.RecordBatch]) -> Run:
    """The query over ``frames``, each a micro-batch of one task, with the deltas of its state for a changelog."""
    plan = make_plan(query.topology(generator).build(), {TOPIC: 1})
    task = Task(plan.nodes)
    made: list[pl.DataFrame] = []
    started = cpu_s()
    for frame in frames:
        step = task.step([Input(source=TOPIC, frame=rows(query, frame))])
        for results in step.sinks.values():
            made += results
    seconds = cpu_s() - started
    task.close()
    return Run(made, seconds)


def rows(query: Query, frame: pa.RecordBatch) -> pl.DataFrame:
    """The columns that the query reads, as its source would decode them."""
    columns = list(dict.fromkeys([*query.columns, query.time]))
    found: Any = pl.from_arrow(frame.select(columns))
    timed = found.with_columns(pl.col(query.time).cast(pl.Int64).alias(TIME))
    keep = query.time in query.columns
    made: pl.DataFrame = timed if keep else timed.drop(query.time)
    return made
