"""Dead letters: records that a job could not take, with where they come from and what was wrong in their headers.

Header names follow KIP-1034 (``__streams.errors.*``), with ours beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from headwater.log.codec_schema import RECORD_SCHEMA
from headwater.streams.failures import OperatorFailed
from headwater.streams.frames import ERROR, OFFSET, SYSTEM, TIME
from headwater.streams.model import Source

Headers = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that could not be decoded; ``error`` says why, with the class of the error first."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    error: str


def dead_records(job: str, source: Source, partition: int, dead: Sequence[Dead]) -> pa.RecordBatch:
    """Records for the dead-letter topic: key, value, time and headers as they were, and the error's headers behind."""
    rows = [
        {
            "timestamp": max(each.timestamp, 0),
            "key": each.key,
            "value": each.value,
            "headers": [
                *(each.headers or []),
                *_headers(job, source.name, each.error, topic=source.topic, partition=partition, offset=each.offset),
            ],
        }
        for each in dead
    ]
    return pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)


def unreadable(job: str, source: Source, partition: int, dead: Dead) -> OperatorFailed:
    """The error that ends a task which meets such a record and has no topic for it."""
    return OperatorFailed(
        f"Source {source.name!r} of job {job!r} cannot read the record of topic {source.topic!r}, "
        f"partition {partition} at offset {dead.offset}: {dead.error}",
        operator=source.name,
        topic=source.topic,
        partition=partition,
        offset=dead.offset,
    )


def dead_rows(job: str, node: str, number: int, frame: pl.DataFrame, time_ms: int) -> pa.RecordBatch:
    """Rows that a function of ``node`` refused, in task ``number``: as JSON, with the column ``_error`` in headers."""
    columns = [name for name in frame.columns if name not in SYSTEM and name != ERROR]
    values = frame.select(pl.struct(columns).struct.json_encode()).to_series()
    offsets = frame.get_column(OFFSET) if OFFSET in frame.columns else pl.repeat(None, frame.height, eager=True)
    keys = frame.get_column("_key") if "_key" in frame.columns else pl.repeat(None, frame.height, eager=True)
    times = frame.get_column(TIME) if TIME in frame.columns else pl.repeat(time_ms, frame.height, eager=True)
    rows = [
        {
            "timestamp": max(time, 0),
            "key": key,
            "value": value.encode(),
            "headers": _headers(job, node, error, partition=number, offset=offset),
        }
        for value, error, offset, key, time in zip(values, frame.get_column(ERROR), offsets, keys, times, strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)


def _headers(job: str, node: str, error: str, **where: str | int | None) -> Headers:
    kind, _, message = error.partition(": ")
    said: dict[str, Any] = {
        "__streams.errors.exception": kind,
        "__streams.errors.message": message or error,
        "__streams.errors.job": job,
        "__streams.errors.operator": node,
        **{f"__streams.errors.{name}": value for name, value in where.items() if value is not None},
    }
    return [{"key": name, "value": str(value).encode()} for name, value in said.items()]
