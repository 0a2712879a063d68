"""From rows and texts to Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from headwater.log.arrow_types import arrow_type
from headwater.log.columns import Type, parse
from headwater.log.operations import Column
from headwater.schemas import texts
from headwater.schemas.compile import arrow_schema
from headwater.schemas.misfit import Misfit

# What Arrow's JSON reader does not read as we write it: base64, times of day, objects as maps; and decimals, which it
# does not hold to their digits.
_FOREIGN: Final = (
    "decimal128",
    "binary",
    "large_binary",
    "fixed_size_binary",
    "map",
    "time32[s]",
    "time32[ms]",
    "time64[us]",
)
_REFUSED: Final = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError)


def of_texts(columns: Sequence[Column], items: Sequence[bytes | None]) -> pa.StructArray:
    """JSON values that fit these columns (``texts.fitting``), as one struct each; null for None.

    Arrow reads what it can, at about 0.4 million values of 20 fields a second; other columns go through plain
    objects. Where the two readers differ (a name twice, digits beyond the microsecond) the plain objects decide.
    """
    types = {each.name: parse(each.type) for each in columns}
    native = [each for each in columns if not _foreign(types[each.name])]
    foreign = [each for each in columns if _foreign(types[each.name])]
    found: dict[str, pa.Array[Any]] = {}
    if native:
        try:
            found.update(_read(native, items))
        except pa.ArrowInvalid:
            foreign = list(columns)
    if foreign:
        made, _ = of_rows(foreign, texts.rows(foreign, items))
        found.update(zip([each.name for each in foreign], made.flatten(), strict=True))
    schema = nullable(columns)
    mask = pa.array([item is None for item in items], pa.bool_())
    arrays = [found[each.name] for each in columns]
    return pa.StructArray.from_arrays(arrays, fields=list(schema), mask=mask)


def of_rows(columns: Sequence[Column], rows: Sequence[dict[str, Any] | None]) -> tuple[pa.StructArray, set[int]]:
    """Plain objects as structs of these columns, and the places of those that cannot be held, which are null.

    Cost: about 1 µs a field, in C; only if some value cannot be held it is looked for by halves.
    """
    struct = pa.struct(list(nullable(columns)))
    try:
        return _struct(rows, struct), set()
    except _REFUSED:
        unheld = _unheld(rows, struct, 0)
        kept = [None if place in unheld else row for place, row in enumerate(rows)]
        return _struct(kept, struct), unheld


def refuse_unheld(columns: Sequence[Column], rows: Sequence[dict[str, Any] | None]) -> None:
    """Raise ``Misfit`` for the first row that its columns cannot hold, though it has their types."""
    _, unheld = of_rows(columns, rows)
    if not unheld:
        return
    row = min(unheld)
    for column in columns:
        try:
            _struct([rows[row]], pa.struct(list(nullable([column]))))
        except _REFUSED:
            raise Misfit(row, column.name, f"{column.type} cannot hold it") from None
    raise AssertionError("a row was refused whose columns are all held")


def nullable(columns: Sequence[Column]) -> pa.Schema:
    """The columns as an Arrow schema in which each may be null: a tombstone is null in all of them."""
    return pa.schema([field.with_nullable(True) for field in arrow_schema(columns)])


def _struct(rows: Sequence[dict[str, Any] | None], struct: pa.StructType) -> pa.StructArray:
    return pa.array(rows, struct)  # type: ignore[return-value]


def _unheld(rows: Sequence[Any], struct: pa.StructType, first: int) -> set[int]:
    try:
        _struct(rows, struct)
    except _REFUSED:
        if len(rows) == 1:
            return {first}
        half = len(rows) // 2
        return _unheld(rows[:half], struct, first) | _unheld(rows[half:], struct, first + half)
    return set()


def _read(columns: Sequence[Column], items: Sequence[bytes | None]) -> dict[str, pa.Array[Any]]:
    """All values by one call of Arrow's JSON reader, each inside an object of its own."""
    from pyarrow import json

    if not items:
        return {each.name: pa.array([], field.type) for each, field in zip(columns, nullable(columns), strict=True)}
    joined = b'{"v":' + b'}\n{"v":'.join([b"null" if item is None else item for item in items]) + b"}"
    struct = pa.struct([pa.field(each.name, _readable(parse(each.type))) for each in columns])
    table = json.read_json(
        pa.BufferReader(joined),  # type: ignore[arg-type]
        json.ReadOptions(use_threads=False, block_size=len(joined) + 1),
        json.ParseOptions(
            explicit_schema=pa.schema([pa.field("v", struct)]),
            newlines_in_values=True,
            unexpected_field_behavior="ignore",
        ),
    )
    if table.num_rows != len(items):
        raise pa.ArrowInvalid("the values are not one document each")
    read: Any = table.column("v").combine_chunks()
    wanted = nullable(columns)
    return {
        field.name: array if array.type == field.type else array.cast(field.type, safe=False)
        for field, array in zip(wanted, read.flatten(), strict=True)
    }


def _foreign(found: Type) -> bool:
    return found.kind in _FOREIGN or any(_foreign(each.type) for each in found.fields)


def _readable(found: Type) -> pa.DataType:
    """The type to read a column as, which casts to its own: dates as texts, times in microseconds."""
    match found.kind:
        case "date32[day]":
            return pa.string()
        case "list":
            return pa.list_(pa.field("item", _readable(found.item.type)))
        case "struct":
            return pa.struct([pa.field(each.name, _readable(each.type)) for each in found.fields])
    if found.kind.startswith("timestamp"):
        return pa.timestamp("us", "UTC") if found.kind.endswith("UTC]") else pa.timestamp("us")
    return arrow_type(found)
