"""Record keys of columns. What has equal columns has equal bytes, and so lies in one partition (murmur2, as in Kafka).

One column is written as text: strings and bytes as they are, numbers in decimal, times in ms since 1970, dates as
2013-07-04. Several columns are a JSON object of them. A null in a single column is no key at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import polars as pl
import pyarrow as pa

from headwater.streams.model import Schema


def key_array(frame: pl.DataFrame, keys: Sequence[str]) -> pa.Array[Any]:
    """The record keys (binary) of the rows of ``frame``; all null without ``keys``."""
    if not keys:
        return pa.nulls(frame.height, pa.binary())
    if len(keys) == 1:
        made = frame.select(_text(pl.col(keys[0]), frame.schema[keys[0]])).to_series()
    else:
        plain = [_plain(pl.col(name), frame.schema[name]).alias(name) for name in keys]
        made = frame.select(pl.struct(plain).struct.json_encode()).to_series()
    array = made.cast(pl.Binary).to_arrow()
    return cast("pa.Array[Any]", array.cast(pa.binary()))


def key_frame(keys: pl.Series, names: Sequence[str], schema: Schema) -> pl.DataFrame:
    """The columns that record keys (binary) were made of; null where a key is none."""
    if len(names) == 1 and schema[names[0]] == pl.Binary:
        return pl.DataFrame({names[0]: keys})
    text = texts(keys)
    if len(names) == 1:
        name = names[0]
        return pl.DataFrame({name: text}).select(_parsed(pl.col(name), schema[name]).alias(name))
    shape = pl.Struct({name: _carrier(schema[name]) for name in names})
    found = pl.DataFrame({"key": text}).select(pl.col("key").str.json_decode(shape)).to_series().struct.unnest()
    return found.select(_parsed(pl.col(name), schema[name]).alias(name) for name in names)


def texts(values: pl.Series) -> pl.Series:
    """Binary as String; null where it is not UTF-8."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series(values.name, [_text_of(value) for value in values], dtype=pl.String)


def _text_of(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Binary:
        return column
    return _plain(column, dtype).cast(pl.String)


def _plain(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A value as text and JSON have it."""
    if isinstance(dtype, pl.Datetime):
        return column.dt.epoch("ms")
    if isinstance(dtype, pl.Date):
        return column.dt.to_string("%Y-%m-%d")
    if dtype == pl.Binary:
        return column.bin.encode("base64")
    return column


def _carrier(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.Datetime):
        return pl.Int64()
    if isinstance(dtype, pl.Date) or dtype == pl.Binary:
        return pl.String()
    return dtype


def _parsed(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        moment = pl.from_epoch(column.cast(pl.Int64, strict=False), "ms")
        return (moment.dt.replace_time_zone(dtype.time_zone) if dtype.time_zone else moment).cast(dtype)
    if isinstance(dtype, pl.Date):
        return column.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Binary:
        return column.str.decode("base64", strict=False)
    if dtype == pl.Boolean:
        return pl.when(column.cast(pl.String).is_in(["true", "false"])).then(column.cast(pl.String) == "true")
    return column.cast(dtype, strict=False)
