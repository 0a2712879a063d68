"""JSON values to columns, at the speed of Polars' own reader; a batch with values that do not fit is looked at by row.

Whether a value fits never depends on its neighbours: the same reader reads many and one, and what sorts out the values
that do not fit refuses none that the reader takes. A fraction is no value of an integer column: it is never truncated.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Final

import msgspec
import polars as pl

from headwater.streams.model import Schema

Failures = dict[int, str]
NO_OBJECT: Final = "InvalidValue: the value is not a JSON object"
_ROW: Final = "\0row"  # no column of a topic is called so
_PIECE: Final = 64  # lines: the few that only Polars refuses cost one call for each line of their piece


def read(values: pl.Series, schema: Schema) -> tuple[pl.DataFrame, Failures]:
    """One row for each of ``values`` (String, no nulls), and what is wrong with those that do not fit.

    A field that a value lacks is null, and fields beyond the schema are passed over.
    """
    lines = values
    for end in ("\n", "\r"):
        if lines.str.contains(end, literal=True).any():
            lines = lines.str.replace_all(end, " ", literal=True)
    carriers = {name: _carrier(dtype) for name, dtype in schema.items()}
    failures: Failures = {}
    parts = _read(lines, carriers, failures)
    empty = pl.DataFrame(schema=carriers)
    raw = pl.concat([empty, *parts], how="vertical")
    made = raw.select([_parsed(pl.col(name), dtype).alias(name) for name, dtype in schema.items()])
    return made, _unparsed(raw, made, failures)


def _read(lines: pl.Series, carriers: Schema, failures: Failures) -> list[pl.DataFrame]:
    """All lines at once, and only where one does not fit, those that do: what does not becomes nulls."""
    if not len(lines):
        return []
    found = _rows(lines, carriers)
    if isinstance(found, pl.DataFrame):
        return [found]
    _refused(lines, carriers, failures)
    kept = lines.to_frame("line").with_row_index("row").filter(~pl.col("row").is_in(list(failures)))
    parts: list[pl.DataFrame] = []
    _piecewise(kept.get_column("line"), kept.get_column("row"), carriers, failures, parts)
    if not failures:
        return parts
    rows = kept.filter(~pl.col("row").is_in(list(failures))).select("row")
    read = pl.concat([pl.DataFrame(schema=carriers), *parts], how="vertical")
    every = pl.select(pl.int_range(len(lines), dtype=pl.UInt32).alias(_ROW))
    placed = read.with_columns(rows.to_series().alias(_ROW))
    return [every.join(placed, on=_ROW, how="left", maintain_order="left").drop(_ROW)]


def _refused(lines: pl.Series, carriers: Schema, failures: Failures) -> None:
    """Say why of the lines that ``msgspec`` refuses, one by one and at a million a second.

    It refuses nothing that Polars takes, but for two cases that are left to Polars: escapes that are no character, and
    a field that comes twice, of which Polars takes the first and ``msgspec`` looks at both.
    """
    decoder = _decoder(tuple(carriers.items()))
    names = [f'"{name}"' for name in carriers]
    for row, line in enumerate(lines.to_list()):
        try:
            decoder.decode(line)
        except RecursionError:  # how deep is too deep is for Polars to say
            continue
        except (msgspec.MsgspecError, UnicodeError) as error:
            if "\\" in line or any(line.count(name) > 1 for name in names):
                continue
            failures[row] = f"InvalidValue: {error}" if _is_object(line) else NO_OBJECT


def _is_object(line: str) -> bool:
    trimmed = line.strip()
    return trimmed.startswith("{") and trimmed.endswith("}")


def _piecewise(
    lines: pl.Series, rows: pl.Series, carriers: Schema, failures: Failures, parts: list[pl.DataFrame]
) -> None:
    """What is left, at once if it fits, else in pieces of a fixed length, so that time grows with their number only.

    Appends the rows of the lines that fit.
    """
    found = _rows(lines, carriers) if len(lines) else pl.DataFrame(schema=carriers)
    if isinstance(found, pl.DataFrame):
        parts.append(found)
    elif len(lines) == 1:
        failures[int(rows[0])] = found
    else:
        piece = _PIECE if len(lines) > _PIECE else 1
        for start in range(0, len(lines), piece):
            _piecewise(lines.slice(start, piece), rows.slice(start, piece), carriers, failures, parts)


def _rows(lines: pl.Series, carriers: Schema) -> pl.DataFrame | str:
    """The rows of lines that all fit, or what is wrong."""
    if not (lines.str.starts_with("{") & lines.str.ends_with("}")).all():
        trimmed = lines.str.strip_chars()
        if not (trimmed.str.starts_with("{") & trimmed.str.ends_with("}")).all():
            return NO_OBJECT
    try:
        found = pl.read_ndjson(lines.str.join("\n")[0].encode(), schema=carriers)
    except pl.exceptions.PolarsError as error:
        return f"InvalidValue: {str(error).splitlines()[0]}"
    return found if found.height == len(lines) else "InvalidValue: the value is not one JSON object"


@functools.lru_cache(maxsize=256)
def _decoder(carriers: tuple[tuple[str, pl.DataType], ...]) -> msgspec.json.Decoder[Any]:
    """Takes what Polars may take: what it cannot judge it passes over."""
    fields: list[Any] = [(f"f{number}", _judged(dtype), None) for number, (_, dtype) in enumerate(carriers)]
    names = {f"f{number}": name for number, (name, _) in enumerate(carriers)}
    return msgspec.json.Decoder(msgspec.defstruct("Value", fields, rename=names, kw_only=True, gc=False))


def _judged(dtype: pl.DataType) -> Any:
    if dtype == pl.Int64:
        return Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None
    if dtype == pl.Float64:
        return float | None
    if dtype == pl.Boolean:
        return bool | None
    return msgspec.Raw


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
