"""Types of ``log.columns`` as Arrow's own."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headwater.log.columns import Type


def arrow_type(found: Type) -> pa.DataType:
    """Arrow's type of a column of a topic."""
    fields: list[pa.Field[Any]] = [pa.field(each.name, arrow_type(each.type), each.nullable) for each in found.fields]
    match found.kind:
        case "struct":
            return pa.struct(fields)
        case "list":
            return pa.list_(fields[0])
        case "map":
            return pa.map_(pa.string(), fields[0].type)
        case "decimal128":
            return pa.decimal128(*found.params)
        case "fixed_size_binary":
            return pa.binary(found.params[0])
    return _scalar(found.kind)


def _scalar(kind: str) -> pa.DataType:
    known: Any = pa  # its stubs know each name and each unit alone
    if kind.endswith(", tz=UTC]"):
        unit = kind.removeprefix("timestamp[").removesuffix(", tz=UTC]")
        return known.timestamp(unit, "UTC")  # type: ignore[no-any-return]
    return known.type_for_alias(kind)  # type: ignore[no-any-return]
