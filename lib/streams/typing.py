"""Schemas of frames: what users give, and what expressions make of them. Nothing here sees a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from headwater.errors import InvalidRequest
from headwater.log.operations import Column
from headwater.streams.frames import SYSTEM, TIME, WM
from headwater.streams.model import Schema

MOMENT = pl.Datetime("ms", "UTC")  # where a window begins and ends
BYTES: Schema = {"value": pl.Binary()}  # of topics whose values are opaque


def schema_of(given: Any, what: str) -> Schema:
    """A schema as Polars types by column.

    ``given`` is a mapping of names to Polars types, a ``pyarrow.Schema``, the columns of a topic's schema, or a
    dataclass, TypedDict or msgspec Struct. Raises ``InvalidRequest``.
    """
    if isinstance(given, Mapping):
        found: Schema = {str(name): _dtype(dtype, what, str(name)) for name, dtype in given.items()}
    elif isinstance(given, pa.Schema):
        found = _of_arrow(given)
    elif isinstance(given, Sequence) and given and all(isinstance(each, Column) for each in given):
        from headwater.schemas.compile import arrow_schema

        found = _of_arrow(arrow_schema(given))
    elif isinstance(given, type) or dataclasses.is_dataclass(given):
        from headwater.schemas.compile import arrow_schema, compile_schema

        found = _of_arrow(arrow_schema(compile_schema("json", given)))
    else:
        raise InvalidRequest(
            f"The schema of {what} is a mapping of columns to types, a pyarrow.Schema, a class, or the columns of a "
            f"topic's schema, not {type(given).__name__}."
        )
    for name in found:
        if name in SYSTEM or name.startswith("_"):
            raise InvalidRequest(f"Column {name!r} of {what}: names that begin with '_' are the system's.")
    if not found:
        raise InvalidRequest(f"The schema of {what} has no column.")
    return found


def inferred(schema: Schema, make: Callable[[pl.LazyFrame], pl.LazyFrame], what: str) -> Schema:
    """The schema of what ``make`` gives, without system columns. Raises ``InvalidRequest`` naming ``what``."""
    empty = pl.LazyFrame(schema={**schema, TIME: pl.Int64(), WM: pl.Int64()})
    try:
        found = make(empty).collect_schema()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InvalidRequest(f"{what}: {reason}. The columns are {', '.join(schema)}.") from error
    return {name: dtype for name, dtype in found.items() if name not in SYSTEM}


def check_columns(names: Sequence[str], schema: Schema, what: str) -> None:
    """Raises ``InvalidRequest`` for a column that is not there."""
    for name in names:
        if name not in schema:
            raise InvalidRequest(f"{what}: there is no column {name!r}; the columns are {', '.join(schema)}.")


def _of_arrow(schema: pa.Schema) -> Schema:
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return dict(frame.schema)


def _dtype(given: Any, what: str, name: str) -> pl.DataType:
    try:
        return pl.Schema({name: given})[name]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"Column {name!r} of {what} has no Polars type: {given!r}.") from error
