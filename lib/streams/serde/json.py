"""JSON values to columns, at the speed of Polars' own reader, and one by one only around a value that does not fit.

Whether a value fits never depends on its neighbours: the same reader reads many and one.
"""

from __future__ import annotations

import io

import polars as pl

from headwater.streams.model import Schema

Failures = dict[int, str]


def read(values: pl.Series, schema: Schema) -> tuple[pl.DataFrame, Failures]:
    """One row for each of ``values`` (String, no nulls), and what is wrong with those that do not fit.

    A field that a value lacks is null, and fields beyond the schema are passed over.
    """
    lines = values.str.replace_all("\n", " ", literal=True).str.replace_all("\r", " ", literal=True)
    carriers = {name: _carrier(dtype) for name, dtype in schema.items()}
    failures: Failures = {}
    parts = _read(lines, 0, carriers, failures)
    empty = pl.DataFrame(schema=carriers)
    raw = pl.concat([empty, *parts], how="vertical")
    made = raw.select([_parsed(pl.col(name), dtype).alias(name) for name, dtype in schema.items()])
    return made, _unparsed(raw, made, failures)


def _read(lines: pl.Series, first: int, carriers: Schema, failures: Failures) -> list[pl.DataFrame]:
    """Halves of what does not fit as a whole are tried by themselves; a line that does not fit becomes nulls."""
    if not len(lines):
        return []
    found = _rows(lines, carriers)
    if isinstance(found, pl.DataFrame):
        return [found]
    if len(lines) == 1:
        failures[first] = found
        return [pl.DataFrame({name: [None] for name in carriers}, schema=carriers)]
    half = len(lines) // 2
    return _read(lines[:half], first, carriers, failures) + _read(lines[half:], first + half, carriers, failures)


def _rows(lines: pl.Series, carriers: Schema) -> pl.DataFrame | str:
    """The rows of lines that all fit, or what is wrong."""
    trimmed = lines.str.strip_chars()
    if not (trimmed.str.starts_with("{") & trimmed.str.ends_with("}")).all():
        return "InvalidValue: the value is not a JSON object"
    try:
        found = pl.read_ndjson(io.BytesIO(lines.str.join("\n")[0].encode()), schema=carriers)
    except pl.exceptions.PolarsError as error:
        return f"InvalidValue: {str(error).splitlines()[0]}"
    return found if found.height == len(lines) else "InvalidValue: the value is not one JSON object"


def _carrier(dtype: pl.DataType) -> pl.DataType:
    """What JSON brings a type as."""
    if isinstance(dtype, pl.Datetime | pl.Date | pl.Time | pl.Duration | pl.Decimal) or dtype == pl.Binary:
        return pl.String()
    if dtype.is_integer() and dtype != pl.UInt64:
        return pl.Int64()  # Polars' reader panics at narrow ones
    if isinstance(dtype, pl.Float32):
        return pl.Float64()
    return dtype


def _parsed(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return _moment(column, dtype)
    if isinstance(dtype, pl.Date):
        return column.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(dtype, pl.Time):
        return column.str.to_time("%H:%M:%S%.f", strict=False)
    if isinstance(dtype, pl.Duration):
        return column.cast(pl.Int64, strict=False).cast(pl.Duration("ms")).cast(dtype)
    if dtype == pl.Binary:
        return column.str.decode("base64", strict=False)
    return column.cast(dtype, strict=False)


def _moment(column: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """A time as text of ISO 8601, UTC where it names no zone, or as ms since 1970."""
    counted = pl.from_epoch(column.cast(pl.Int64, strict=False), "ms").dt.replace_time_zone("UTC")
    spelled = column.str.replace(" ", "T", literal=True)
    zoned = spelled.str.contains(r"(Z|[+-]\d{2}:?\d{2})$")
    text = pl.when(zoned).then(spelled).otherwise(spelled + "Z")
    parsed = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    moment = pl.coalesce(counted.dt.cast_time_unit("us"), parsed)
    if dtype.time_zone is None:
        return moment.dt.replace_time_zone(None).cast(dtype)
    return moment.dt.convert_time_zone(dtype.time_zone).cast(dtype)


def _unparsed(raw: pl.DataFrame, made: pl.DataFrame, failures: Failures) -> Failures:
    """Failures, and those of texts that are no value of their type."""
    for name in raw.columns:
        if made.schema[name] == raw.schema[name]:
            continue
        bad = (made.get_column(name).is_null() & raw.get_column(name).is_not_null()).arg_true()
        for row in bad.to_list():
            text = raw.get_column(name)[row]
            failures.setdefault(row, f"InvalidValue: field {name!r}: {text!r} is no {made.schema[name]}")
    return failures
