"""From a program's rows to values, and back: one at a time, or a whole Arrow table at once.

JSON holds what the columns hold but NaN and the infinities, which become null. Avro values are framed with their
version, so that readers know what wrote them (``datums``).
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.errors import InvalidRequest
from headwater.log.state import Schema
from headwater.schemas import datums, documents, framing, texts, typed
from headwater.schemas.compile import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_encode = msgspec.json.encode


def encode_row(version: Schema, row: Any) -> bytes:
    """A row (a dict, dataclass or struct) as a value of this version. Raises ``InvalidRequest`` naming the field."""
    if version.format == "avro":
        plain = row if isinstance(row, dict) else texts.plain(row)
        whole = {**{each.name: None for each in version.columns if each.nullable}, **plain}
        value = datums.framed(framing.id_of(version) or version.version, _written(_writer(version.definition), whole))
    else:
        try:
            value = _encode(row)
        except (TypeError, ValueError, OverflowError, msgspec.EncodeError) as error:
            raise InvalidRequest(f"The value cannot be written as JSON: {error}") from error
        if framing.id_of(version):
            value = framing.framed(version, value)
    typed.check([version], [value])
    return value


def decode_value(versions: Sequence[Schema], data: bytes) -> dict[str, Any]:
    """A value as the columns of the newest version: dates, times and decimals as Python has them.

    Fields that are no columns are left out, and columns that the value lacks are None. Raises ``InvalidRequest`` for a
    value that is of no version.
    """
    newest = versions[-1]
    if newest.format != "avro":
        lenient = texts.lenient(newest.columns)
        if framing.bound(versions):
            (data,) = (value or b"" for value in framing.unframed(versions, [data]))
        try:
            found: dict[str, Any] = texts.plain(lenient.decode(data))
        except texts.UNFIT as error:
            raise InvalidRequest(f"The value does not fit the topic's schema: {error}") from error
        return found
    ((version, _, (datum,)),) = datums.grouped(versions, [data])
    if version is None:
        raise InvalidRequest(f"The value does not fit the topic's schema: {datums.unknown(versions, [data], 0).what}.")
    typed.check([version], [data])
    import fastavro

    row: Any = fastavro.schemaless_reader(io.BytesIO(datum), _writer(version.definition), None)
    return {**dict.fromkeys([each.name for each in newest.columns]), **row}


def encode_table(version: Schema, table: pa.Table | pa.RecordBatch) -> pa.Array[Any]:
    """The rows of a table as values: the bulk way, in which no row is touched by Python.

    The table's columns are the schema's, in any order, of types that cast to theirs without loss; those that may be
    null may be missing.

    Raises:
        InvalidRequest: a column is unknown, missing, or does not cast, or a value does not fit; nothing is lost.

    Cost: about 9 µs a row of 20 columns for JSON, 33 µs for Avro.
    """
    import pyarrow as pa

    rows = _cast(version, table).to_pylist(maps_as_pydicts="strict")
    values = list(map(_encode, rows)) if version.format != "avro" else _datums_of(version, rows)
    if version.format != "avro" and framing.id_of(version):
        values = [framing.framed(version, value) for value in values]
    typed.check([version], values)
    return pa.array(values, pa.binary())


def _cast(version: Schema, table: pa.Table | pa.RecordBatch) -> pa.Table:
    """The table with the schema's types, without the columns that it lacks."""
    import pyarrow as pa

    wanted = {field.name: field for field in arrow_schema(version.columns)}
    for name in table.schema.names:
        if name not in wanted:
            raise InvalidRequest(f"The topic's schema has no column {name!r}.", field=name)
    arrays: dict[str, Any] = {}
    for name, field in wanted.items():
        if name not in table.schema.names:
            if not field.nullable:
                raise InvalidRequest(f"The table has no column {name!r}, which may not be null.", field=name)
            if version.format == "avro":  # a datum has all its fields
                arrays[name] = pa.nulls(table.num_rows, field.type)
            continue
        try:
            arrays[name] = table.column(name).cast(field.type)
        except (pa.ArrowException, ValueError) as error:
            raise InvalidRequest(f"Column {name!r} does not become {field.type}: {error}", field=name) from error
    return pa.table(arrays)


def _datums_of(version: Schema, rows: Sequence[dict[str, Any]]) -> list[bytes]:
    """All rows by one call of fastavro: as an Avro array with a mark behind each, which is then cut at the marks."""
    if not rows:
        return []
    attempt = 0
    while True:
        mark = blake2b(attempt.to_bytes(4, "big"), digest_size=datums.MARK).digest()
        written = _written(_marked(version.definition), [{"value": row, "end": mark} for row in rows])
        parts = written[len(datums.varint(len(rows))) : -1].split(mark)
        if len(parts) == len(rows) + 1:  # otherwise some value holds the mark itself
            return [datums.framed(framing.id_of(version) or version.version, part) for part in parts[:-1]]
        attempt += 1


def _written(schema: Any, row: Any) -> bytes:
    import fastavro

    out = io.BytesIO()
    try:
        fastavro.schemaless_writer(out, schema, row, strict=True)
    except datums.UNFIT as error:
        raise InvalidRequest(f"The value does not fit the topic's schema: {error}") from error
    except AttributeError as error:
        raise InvalidRequest(
            "The value does not fit the topic's schema: a field has a value of another type."
        ) from error
    return out.getvalue()


@functools.lru_cache(datums.CACHED)
def _writer(definition: str) -> Any:
    return datums.parsed_by_fastavro(documents.parsed("avro", definition))


@functools.lru_cache(datums.CACHED)
def _marked(definition: str) -> Any:
    return datums.parsed_by_fastavro(datums.marked(documents.parsed("avro", definition)))
