"""Records of a source to a frame. A record that does not fit is set aside, and never stops the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from headwater.log.state import Schema as TopicSchema
from headwater.streams.frames import KEY, OFFSET, TIME, WEIGHT
from headwater.streams.model import Schema, Source
from headwater.streams.serde import json
from headwater.streams.serde.dead import Dead
from headwater.streams.serde.keys import key_frame, texts
from headwater.streams.serde.packing import unpack

TIME_MAX = 2**53  # ms: a time beyond this was meant in another unit


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows, in the order of the log, and the records that are none."""

    frame: pl.DataFrame
    dead: list[Dead]


def decode(source: Source, schemas: Sequence[TopicSchema], rows: pa.RecordBatch) -> Decoded:
    """The records ``rows`` (``offset``, ``timestamp``, ``key``, ``value``, ``headers``) as a frame of the source.

    It has the source's columns, ``_time``, ``_key`` and ``_offset``; of a table also ``_weight``, which is -1 for a
    record without a value, of which only the key's columns are set. ``schemas`` are the versions of the topic's schema,
    if it has one. Tombstones of a stream are passed over, as in Kafka Streams.
    """
    records = _records(rows)
    is_table = source.kind != "stream"
    values = records.get_column("value")
    failures: dict[int, str] = {}
    if source.format == "frame":
        frame, failures = _frames(source, records)
    else:
        frame, failures = _valued(source, schemas, records)
    if is_table and source.format != "frame":
        gone = values.is_null()
        if gone.any():
            frame = _tombstones(source, records, frame, gone)
        frame = frame.with_columns(pl.when(gone).then(-1).otherwise(1).cast(pl.Int8).alias(WEIGHT))
    frame, failures = _timed(source, frame, failures)
    return _sorted_out(source, records, frame, failures)


def _records(rows: pa.RecordBatch) -> pl.DataFrame:
    found = pl.from_arrow(rows.select(["offset", "timestamp", "key", "value"]))
    assert isinstance(found, pl.DataFrame)
    headers: Any = rows.column("headers")
    frame = found.with_columns(pl.col("timestamp").dt.epoch("ms"))
    return (
        frame.with_row_index("row").with_columns(pl.Series("headers", headers.to_pylist(), dtype=pl.Object))
        if (headers.null_count < len(headers))
        else frame.with_row_index("row")
    )


def _system(records: pl.DataFrame) -> list[pl.Series]:
    return [
        records.get_column("timestamp").alias(TIME),
        records.get_column("key").alias(KEY),
        records.get_column("offset").alias(OFFSET),
        records.get_column("row").alias("_row"),
    ]


def _valued(
    source: Source, schemas: Sequence[TopicSchema], records: pl.DataFrame
) -> tuple[pl.DataFrame, dict[int, str]]:
    """One row for each record; a null value gives a row of nulls."""
    values = records.get_column("value")
    failures: dict[int, str] = {}
    schema = _wanted(source)
    if source.format == "bytes":
        name = next(iter(source.schema))
        frame = pl.DataFrame({name: values.cast(source.schema[name], strict=False)})
    elif source.format == "avro":
        frame, failures = _avro(schema, schemas, values)
    else:
        present = values.is_not_null()
        text = values.filter(present)
        spelled = texts(text)
        mangled = (spelled.is_null() & text.is_not_null()).arg_true().to_list()
        read, bad = json.read(spelled.fill_null(""), schema)
        bad |= dict.fromkeys(mangled, "InvalidValue: the value is not UTF-8")
        places = present.arg_true()
        failures = {int(places[row]): why for row, why in bad.items()}
        if len(read) == len(values):
            frame = read
        else:
            at = pl.DataFrame({"_row": records.get_column("row")})
            known = read.with_columns(records.get_column("row").filter(present).alias("_row"))
            frame = at.join(known, on="_row", how="left", maintain_order="left").drop("_row")
    return frame.with_columns(_system(records)), failures


def _wanted(source: Source) -> Schema:
    """The columns to decode: those asked for, and the one with event time."""
    if source.time and source.time not in source.schema:
        return {**source.schema, source.time: source.whole[source.time]}
    return source.schema


def _avro(schema: Schema, schemas: Sequence[TopicSchema], values: pl.Series) -> tuple[pl.DataFrame, dict[int, str]]:
    """Avro datums by the versions of the topic's schema that they name."""
    from headwater.errors import InvalidRequest
    from headwater.schemas.typed import check, typed

    if not schemas:
        raise InvalidRequest("Avro values are read by the topic's schema, and it has none: `headwater schema set`.")
    binary: Any = values.to_arrow().cast(pa.binary())
    failures: dict[int, str] = {}
    try:
        check(schemas, binary.to_pylist())
    except InvalidRequest:
        for row, value in enumerate(binary.to_pylist()):
            try:
                check(schemas, [value])
            except InvalidRequest as error:
                failures[row] = f"InvalidValue: {error.message}"
    found = pl.from_arrow(pa.Table.from_batches([typed(schemas, binary)]))
    assert isinstance(found, pl.DataFrame)
    return found.select([pl.col(name).cast(dtype) for name, dtype in schema.items()]), failures


def _frames(source: Source, records: pl.DataFrame) -> tuple[pl.DataFrame, dict[int, str]]:
    """Records that hold a frame each."""
    failures: dict[int, str] = {}
    parts: list[pl.DataFrame] = []
    schema = _wanted(source)
    for row, offset, timestamp, key, value in records.select("row", "offset", "timestamp", "key", "value").iter_rows():
        if value is None:
            continue
        try:
            part = _framed(source, unpack(value), schema, timestamp)
        except Exception as error:  # damage and foreign columns alike make it a dead letter
            failures[row] = f"InvalidValue: {str(error).splitlines()[0]}"
            continue
        parts.append(
            part.with_columns(
                pl.lit(key, pl.Binary).alias(KEY),
                pl.lit(offset, pl.Int64).alias(OFFSET),
                pl.lit(row, pl.UInt32).alias("_row"),
            )
        )
    weight = {WEIGHT: pl.Int8()} if source.kind != "stream" else {}
    system = {TIME: pl.Int64(), **weight, KEY: pl.Binary(), OFFSET: pl.Int64(), "_row": pl.UInt32()}
    return pl.concat(parts, how="vertical") if parts else pl.DataFrame(schema={**schema, **system}), failures


def _framed(source: Source, frame: pl.DataFrame, schema: Schema, timestamp: int) -> pl.DataFrame:
    """The rows of one frame. A job's frames bring event times and, of a table, which rows are gone; others need not."""
    is_table = source.kind != "stream"
    if WEIGHT in frame.columns and not is_table:
        frame = frame.filter(pl.col(WEIGHT) > 0)
    time = pl.col(TIME) if TIME in frame.columns else pl.lit(timestamp)
    weight = pl.col(WEIGHT) if WEIGHT in frame.columns else pl.lit(1)
    return frame.select(
        *(pl.col(name).cast(dtype) for name, dtype in schema.items()),
        time.cast(pl.Int64).alias(TIME),
        *([weight.cast(pl.Int8).alias(WEIGHT)] if is_table else []),
    )


def _tombstones(source: Source, records: pl.DataFrame, frame: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """Rows without a value get the columns that their key was made of."""
    found = key_frame(records.get_column("key"), source.key, source.schema)
    return frame.with_columns(
        pl.when(gone).then(found.get_column(name)).otherwise(pl.col(name)).alias(name) for name in found.columns
    )


def _timed(source: Source, frame: pl.DataFrame, failures: dict[int, str]) -> tuple[pl.DataFrame, dict[int, str]]:
    """Event time into ``_time``; a row without one is dead, but for tombstones, which have the record's."""
    if not source.time or not frame.height:
        return frame, failures
    column, dtype = pl.col(source.time), frame.schema[source.time]
    if isinstance(dtype, pl.Date):
        column = column.cast(pl.Datetime("ms"))
    if isinstance(dtype, pl.Datetime | pl.Date):
        column = column.dt.epoch("ms")
    made = column.cast(pl.Int64)
    if WEIGHT in frame.columns:
        made = pl.when(pl.col(WEIGHT) < 0).then(pl.col(TIME)).otherwise(made)
    timed = frame.with_columns(made.alias(TIME))
    time = timed.get_column(TIME)
    wrong = (time.is_null() | (time.abs() > TIME_MAX)).fill_null(True)
    if wrong.any():
        rows = timed.get_column("_row").filter(wrong).to_list()
        times = time.filter(wrong).to_list()
        # A tombstone of a stream is passed over anyhow.
        for row, moment in zip(rows, times, strict=True):
            failures.setdefault(row, f"InvalidTime: column {source.time!r} holds {moment}, which is no time in ms")
    return timed, failures


def _sorted_out(source: Source, records: pl.DataFrame, frame: pl.DataFrame, failures: dict[int, str]) -> Decoded:
    """Rows that fit, and records that do not."""
    if source.kind == "stream" and source.format != "frame":
        present = records.get_column("value").is_not_null()
        if not present.all():
            frame = frame.filter(present)
            kept = set(records.get_column("row").filter(present).to_list())
            failures = {row: why for row, why in failures.items() if row in kept}
    dead: list[Dead] = []
    if failures:
        frame = frame.filter(~pl.col("_row").is_in(list(failures)))
        for row in sorted(failures):
            found = records.row(row, named=True)
            dead.append(
                Dead(
                    offset=found["offset"],
                    timestamp=found["timestamp"],
                    key=found["key"],
                    value=found["value"],
                    headers=found.get("headers"),
                    error=failures[row],
                )
            )
    return Decoded(frame.drop("_row").select(_order(source, frame)), dead)


def _order(source: Source, frame: pl.DataFrame) -> list[str]:
    system = [name for name in (TIME, KEY, OFFSET, WEIGHT) if name in frame.columns]
    return [*source.schema, *system]
