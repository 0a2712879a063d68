"""Arrow's types as Spark has them, and batches made to fit.

Spark knows no unsigned numbers, no half floats and, by default, no times of day. A column of such a type becomes the
narrowest one that holds each of its values: uint8 a short, uint32 a long, uint64 a decimal(20, 0), a time of day the
whole number that it is stored as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from headwater.errors import InvalidRequest

_KNOWN: Final[list[tuple[Callable[[Any], bool], pa.DataType]]] = [
    (pa.types.is_uint8, pa.int16()),
    (pa.types.is_uint16, pa.int32()),
    (pa.types.is_uint32, pa.int64()),
    (pa.types.is_uint64, pa.decimal128(20, 0)),
    (pa.types.is_time32, pa.int32()),
    (pa.types.is_time64, pa.int64()),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
]


def spark_schema(schema: pa.Schema) -> StructType:
    """The schema that Spark shows for Arrow's."""
    return from_arrow_schema(pa.schema([field.with_type(_kind(field.type)) for field in schema]))


def arrow_schema(schema: StructType) -> pa.Schema:
    """The one that Spark wants its batches to have, to the letter."""
    return to_arrow_schema(schema, timezone="UTC")


def fitted(batches: Sequence[pa.RecordBatch], target: pa.Schema, where: str) -> Iterator[pa.RecordBatch]:
    """The batches with the types of ``target``. Raises ``InvalidRequest`` for a value that has no place there.

    Cost: a copy of what has another type: of the six plain columns that is ``timestamp``, ms in the log, us in Spark.
    """
    for batch in batches:
        arrays = [_cast(batch.column(field.name), field, where) for field in target]
        yield pa.RecordBatch.from_arrays(arrays, schema=target)


def _cast(column: Any, field: pa.Field[Any], where: str) -> Any:
    if column.type.equals(field.type):
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidRequest(
            f"{where}: column {field.name!r} ({column.type}) does not become {field.type}: {error}", column=field.name
        ) from error


def _kind(kind: Any) -> Any:
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_kind(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_kind(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_kind(kind.key_type), kind.item_field.with_type(_kind(kind.item_type)))
    return next((wider for holds, wider in _KNOWN if holds(kind)), kind)
