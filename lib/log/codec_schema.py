"""The columns of a record batch, and the checks that every batch passes on its way in.

A record batch in memory is an Arrow record batch with ``RECORD_SCHEMA``. Once it has a place in the log an
``offset`` column comes first (``PLACED_SCHEMA``). A record without headers has null or an empty list there;
a header always has a key.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from headwater import limits
from headwater.errors import InvalidRequest

Bytes: TypeAlias = bytes | bytearray | memoryview
Compression: TypeAlias = Literal["zstd", "lz4"] | None

TIMESTAMP = pa.timestamp("ms", tz="UTC")
HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
_FIELDS: list[pa.Field[Any]] = [
    pa.field("timestamp", TIMESTAMP, nullable=False),
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),
    pa.field("headers", HEADERS),
]
RECORD_SCHEMA = pa.schema(_FIELDS)
PLACED_SCHEMA = RECORD_SCHEMA.insert(0, pa.field("offset", pa.int64(), nullable=False))

# One batch decoded: no honest batch of 16 MiB as stored comes near it, a decompression bomb does at once.
BATCH_DECODED_BYTES_MAX = 128 * limits.MIB
# One chunk decoded; below 2 GiB, so that the 32-bit offsets of its binary columns cannot overflow.
CHUNK_DECODED_BYTES_MAX = 1024 * limits.MIB


def as_records(data: pa.Table | pa.RecordBatch, default_timestamp: int | None = None) -> pa.RecordBatch:
    """``data`` as one record batch with ``RECORD_SCHEMA``, within every limit of `limits` on one batch.

    Missing ``key`` and ``headers`` columns become nulls; a missing or null ``timestamp`` becomes
    ``default_timestamp`` (ms since 1970 UTC), where given. Timestamps of other units and zones are converted
    (what is finer than a millisecond is dropped; one without a zone is UTC), and so are whole numbers in ms;
    string columns stand for their UTF-8.

    Raises:
        InvalidRequest: a column is missing, unknown or of a type that does not fit; there is no record, or
            there are too many; a record or the batch is too large; a header has no key.
    """
    _refuse_shape(data)
    table = data if isinstance(data, pa.Table) else pa.Table.from_batches([data])
    columns = [
        _timestamps(table, default_timestamp),
        _binary(table, "key", required=False),
        _binary(table, "value", required=True),
        _headers(table),
    ]
    records = pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)
    refuse_content(records)
    return records


def refuse_content(records: pa.RecordBatch) -> None:
    """Check what the types of ``RECORD_SCHEMA`` do not say. Raises InvalidRequest, naming the row or the column."""
    if records.column("timestamp").null_count:
        raise InvalidRequest("Column 'timestamp' holds nulls; every record needs a timestamp.", column="timestamp")
    headers = records.column("headers")
    if headers.null_count < len(headers):
        entries: Any = pc.list_flatten(headers)
        if entries.null_count or pc.struct_field(entries, "key").null_count:
            raise InvalidRequest("Column 'headers' holds a header without a key.", column="headers")
    if records.nbytes > limits.RECORD_BYTES_MAX:  # otherwise no single record can be too large
        _refuse_large_records(records)
    if records.nbytes > BATCH_DECODED_BYTES_MAX:
        raise InvalidRequest(
            f"The batch holds {records.nbytes} bytes before compression; at most {BATCH_DECODED_BYTES_MAX} are allowed."
        )


def refuse_size(count: int, nbytes: int) -> None:
    """Check a batch's record count and its size as stored, in bytes. Raises InvalidRequest."""
    if count < 1:
        raise InvalidRequest("The batch holds no record.")
    if count > limits.BATCH_RECORDS_MAX:
        raise InvalidRequest(f"The batch holds {count} records; at most {limits.BATCH_RECORDS_MAX} are allowed.")
    if nbytes > limits.BATCH_BYTES_MAX:
        raise InvalidRequest(f"The batch takes {nbytes} bytes; at most {limits.BATCH_BYTES_MAX} are allowed.")


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """``batches``, at least one, in a row as one. A single one is returned as it is; several are copied."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # type: ignore[attr-defined]


def _refuse_shape(data: pa.Table | pa.RecordBatch) -> None:
    names = data.schema.names
    for name in names:
        if name not in RECORD_SCHEMA.names:
            raise InvalidRequest(
                f"Column {name!r} is not one of a record ({', '.join(RECORD_SCHEMA.names)}); drop or rename it.",
                column=name,
            )
        if names.count(name) > 1:
            raise InvalidRequest(f"Column {name!r} occurs {names.count(name)} times.", column=name)
    refuse_size(data.num_rows, 0)
    if data.nbytes > 2 * BATCH_DECODED_BYTES_MAX:  # before anything is copied; wider types may shrink when cast
        raise InvalidRequest(f"The table holds {data.nbytes} bytes, too many for one batch; split it.")


def _timestamps(table: pa.Table, default: int | None) -> Any:
    if "timestamp" not in table.schema.names:
        if default is None:
            raise InvalidRequest("Column 'timestamp' is missing.", column="timestamp")
        return pa.repeat(pa.scalar(default, pa.int64()), table.num_rows).cast(TIMESTAMP)
    column = table.column("timestamp")
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        times = _cast(_cast(column, "timestamp", pa.int64()), "timestamp", TIMESTAMP)
    elif pa.types.is_timestamp(kind):
        times = _cast(column, "timestamp", TIMESTAMP, safe=kind.unit == "s")
    else:
        raise _wrong_type("timestamp", kind)
    if times.null_count and default is not None:
        times = pc.fill_null(times, pa.scalar(default, pa.int64()).cast(TIMESTAMP))
    return times


def _binary(table: pa.Table, name: str, *, required: bool) -> Any:
    if name not in table.schema.names:
        if required:
            raise InvalidRequest(f"Column {name!r} is missing.", column=name)
        return pa.nulls(table.num_rows, pa.binary())
    column = table.column(name)
    kind = column.type
    if pa.types.is_dictionary(kind) and _is_binary(kind.value_type):
        return _cast(_cast(column, name, kind.value_type), name, pa.binary())
    if not _is_binary(kind):
        raise _wrong_type(name, kind)
    return _cast(column, name, pa.binary())


def _is_binary(kind: pa.DataType) -> bool:
    checks = ("is_binary", "is_string", "is_large_binary", "is_large_string", "is_fixed_size_binary", "is_null")
    views = ("is_binary_view", "is_string_view")
    return any(getattr(pa.types, check)(kind) for check in checks + views)


def _headers(table: pa.Table) -> Any:
    if "headers" not in table.schema.names:
        return pa.nulls(table.num_rows, HEADERS)
    column = table.column("headers")
    kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)
    if not (listed or pa.types.is_null(kind)):
        raise _wrong_type("headers", kind)
    if listed and not pa.types.is_map(kind) and not _is_header(kind.value_type):
        raise _wrong_type("headers", kind)
    return _cast(column, "headers", HEADERS)


def _is_header(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"key", "value"} and kind.num_fields == 2


def _cast(column: Any, name: str, wanted: pa.DataType, *, safe: bool = True) -> Any:
    """One array, not chunked, of the type ``wanted``. Copies nothing that has the type and is in one piece."""
    try:
        array = column if column.type == wanted else column.cast(wanted, safe=safe)
        return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    except (pa.ArrowException, ValueError) as error:
        raise _wrong_type(name, column.type, str(error)) from error


def _wrong_type(name: str, kind: pa.DataType, why: str = "") -> InvalidRequest:
    wanted = RECORD_SCHEMA.field(name).type
    because = f": {why}" if why else ""
    return InvalidRequest(
        f"Column {name!r} of type {kind} cannot be taken as {wanted}{because}.", column=name, type=str(kind)
    )


def _refuse_large_records(records: pa.RecordBatch) -> None:
    sizes: Any = pc.add(_lengths(records.column("key")), _lengths(records.column("value")))
    headers: Any = records.column("headers")
    if headers.null_count < len(headers):
        sizes = pc.add(sizes, _header_bytes(headers))
    row = pc.index(sizes, pc.max(sizes)).as_py()
    size = sizes[row].as_py()
    if size > limits.RECORD_BYTES_MAX:
        raise InvalidRequest(
            f"The record in row {row} has {size} bytes; at most {limits.RECORD_BYTES_MAX} are allowed.",
            row=row,
            bytes=size,
        )


def _lengths(array: Any) -> Any:
    return pc.fill_null(pc.binary_length(array), 0).cast(pa.int64())


def _header_bytes(headers: Any) -> Any:
    """Bytes of keys and values of each record's headers: a running total, cut at the lists' own offsets."""
    entries = headers.values
    each: Any = pc.add(_lengths(entries.field("key")), _lengths(entries.field("value")))
    running = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(each)])
    at = running.take(headers.offsets)
    return pc.subtract(at[1:], at[:-1])
