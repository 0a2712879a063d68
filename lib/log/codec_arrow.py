"""The ``arrow`` codec: record batches as Arrow IPC streams.

What is written: one stream of one record batch with `RECORD_SCHEMA`, its buffers compressed one by one. What
is read: any number of such streams back to back, each with any number of record batches. Bytes are not
trusted: a compressed buffer says how large it will be, so the size of a batch is known, and bounded,
before a byte of it is decompressed (`_decoded_bytes`), and offsets and UTF-8 are checked before use.

Source: the Arrow columnar format, "Serialization and interprocess communication" (Message.fbs, Schema.fbs).
"""

from __future__ import annotations

import struct

import pyarrow as pa

from headwater.errors import Corrupt
from headwater.log.codec_schema import (
    BATCH_DECODED_BYTES_MAX,
    CHUNK_DECODED_BYTES_MAX,
    PLACED_SCHEMA,
    RECORD_SCHEMA,
    Bytes,
    Compression,
    joined,
)

COMPRESS_BYTES_MIN = 1024  # below this the frames around seventeen tiny buffers cost more than they save
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_INT32, _INT64 = struct.Struct("<i"), struct.Struct("<q")
_HEADER = 2  # Message.fbs: the field that holds the RecordBatch table
_BUFFERS, _COMPRESSION = 2, 3  # Message.fbs: fields of RecordBatch
_FOREIGN = (pa.ArrowException, OSError, ValueError, TypeError, IndexError, OverflowError, struct.error)


def encode(records: pa.RecordBatch, compression: Compression) -> bytes:
    """One Arrow IPC stream of ``records``, which have `RECORD_SCHEMA` or `PLACED_SCHEMA`.

    Cost: the compression, and one copy.
    """
    assert records.schema.equals(RECORD_SCHEMA) or records.schema.equals(PLACED_SCHEMA), records.schema
    codec = compression if records.nbytes >= COMPRESS_BYTES_MIN else None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_batch(records)
    return sink.getvalue().to_pybytes()


def decode(data: Bytes, schema: pa.Schema = RECORD_SCHEMA) -> pa.RecordBatch:
    """The records of all streams in ``data``, as one record batch with ``schema``, which they must have.

    Buffers that are not compressed stay views of ``data``. Every offset, length and string is checked, so
    that what comes back is safe to use whatever the bytes were.

    Raises:
        Corrupt: anything else than complete streams of records, or more bytes than the module's bounds.
    """
    try:
        return joined(_batches(data, schema))
    except MemoryError:  # also an Arrow error; sizes are bounded before they are believed, so this is a real one
        raise
    except _FOREIGN as error:
        raise Corrupt(f"{len(data)} bytes are not Arrow record batches: {error}.") from error


def read_columns(data: Bytes) -> pa.Table:
    """One Arrow IPC stream of some of a record's columns, in types that can perhaps be cast to its own.

    For clients that do not know `RECORD_SCHEMA`; ``codec_schema.as_records`` makes records of what comes back. No
    dictionaries and nothing nested but headers of our own type, so that sizes are known before they are believed.

    Raises:
        Corrupt: anything else, or more bytes than the module's bounds.
    """
    try:
        source = pa.BufferReader(pa.py_buffer(data))
        schema, messages = _stream(source, data)
        _refuse_types(schema)
        budget = BATCH_DECODED_BYTES_MAX
        batches: list[pa.RecordBatch] = []
        for message in messages:
            budget -= _decoded_bytes(message)
            if budget < 0:
                raise Corrupt(f"The stream holds more than {BATCH_DECODED_BYTES_MAX} bytes decoded.")
            batches.append(pa.ipc.read_record_batch(message, schema))
            batches[-1].validate(full=True)
        if source.tell() < len(data):
            raise Corrupt("Something follows the Arrow stream.")
        return pa.Table.from_batches(batches, schema=schema)
    except MemoryError:
        raise
    except _FOREIGN as error:
        raise Corrupt(f"{len(data)} bytes are not Arrow record batches: {error}.") from error


def read_first(data: Bytes, bytes_max: int) -> tuple[pa.RecordBatch, int]:
    """The first record batch of an Arrow IPC stream of any columns, and the rows of all its batches: to look at.

    Raises:
        Corrupt: it is no such stream, has columns whose values take no bytes (so that a few bytes could name billions
            of them) or dictionaries, or takes more than ``bytes_max`` bytes decoded.
    """
    try:
        schema, messages = _stream(pa.BufferReader(pa.py_buffer(data)), data)
        for field in schema:
            if _is_weightless(field.type):
                raise Corrupt(f"The stream has a column {field.name[:80]!r} of type {str(field.type)[:80]}.")
        if sum(map(_decoded_bytes, messages)) > bytes_max:
            raise Corrupt(f"The stream holds more than {bytes_max} bytes decoded.")
        batches = [pa.ipc.read_record_batch(message, schema) for message in messages]
        batches[0].validate(full=True)
        return batches[0], sum(batch.num_rows for batch in batches)
    except MemoryError:
        raise
    except _FOREIGN as error:
        raise Corrupt(f"{len(data)} bytes are not Arrow record batches: {error}.") from error


def _is_weightless(kind: pa.DataType) -> bool:
    """Whether it, or what it is made of, could hold values without bytes."""
    if pa.types.is_null(kind) or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return True
    if pa.types.is_fixed_size_binary(kind):
        return kind.byte_width == 0
    if pa.types.is_nested(kind):
        return not kind.num_fields or any(_is_weightless(kind.field(at).type) for at in range(kind.num_fields))
    return False


def _refuse_types(schema: pa.Schema) -> None:
    for field in schema:
        nested = pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type)
        if field.name not in RECORD_SCHEMA.names or (nested and field.type != RECORD_SCHEMA.field(field.name).type):
            raise Corrupt(f"The stream has a column {field.name[:80]!r} of type {str(field.type)[:80]}.")


def _batches(data: Bytes, schema: pa.Schema) -> list[pa.RecordBatch]:
    source = pa.BufferReader(pa.py_buffer(data))
    batches: list[pa.RecordBatch] = []
    budget = CHUNK_DECODED_BYTES_MAX
    while not batches or source.tell() < len(data):
        for message in _messages(source, data, schema):
            nbytes = _decoded_bytes(message)
            budget -= nbytes
            if nbytes > BATCH_DECODED_BYTES_MAX or budget < 0:
                raise Corrupt(f"A batch of {nbytes} bytes decoded, or the chunk around it, exceeds the bounds.")
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
            batches.append(batch)
    return batches


def _messages(source: pa.BufferReader, data: Bytes, expected: pa.Schema) -> list[pa.Message]:
    """The record batch messages of the stream that begins here, and ``source`` moved behind its end."""
    start = source.tell()
    schema, messages = _stream(source, data)
    if not schema.equals(expected):
        raise Corrupt(f"The Arrow stream at byte {start} has other columns than a record: {schema}.")
    return messages


def _stream(source: pa.BufferReader, data: Bytes) -> tuple[pa.Schema, list[pa.Message]]:
    """The schema and the record batch messages of the stream that begins here, and ``source`` behind its end."""
    start = source.tell()
    messages = list(pa.ipc.MessageReader.open_stream(source))
    end = source.tell()
    if len(messages) < 2 or memoryview(data)[end - len(END_OF_STREAM) : end] != END_OF_STREAM:
        raise Corrupt(f"The Arrow stream at byte {start} is cut off.")
    if messages[0].type != "schema":  # pyarrow checks a message as what it claims to be, and crashes on another
        raise Corrupt(f"The Arrow stream at byte {start} begins with a {messages[0].type} message.")
    schema = pa.ipc.read_schema(messages[0])
    for message in messages[1:]:
        if message.type != "record batch":
            raise Corrupt(f"The Arrow stream at byte {start} holds a {message.type} message.")
    return schema, messages[1:]


def _decoded_bytes(message: pa.Message) -> int:
    """Bytes that the buffers of a record batch message take once decompressed. Reads the metadata only.

    The metadata is a FlatBuffer, which Arrow has verified: a table starts with the distance back to its
    vtable, and the vtable holds the place of each field in the table, or 0 if it is absent.
    """
    meta, body = memoryview(message.metadata), memoryview(message.body or b"")
    batch = _table(meta, _field(meta, _table(meta, 0), _HEADER))
    start = _table(meta, _field(meta, batch, _BUFFERS))
    compressed = _field(meta, batch, _COMPRESSION) != 0
    total = 0
    for index in range(_INT32.unpack_from(meta, start)[0]):
        at, length = struct.unpack_from("<qq", meta, start + 4 + 16 * index)
        total += _buffer_bytes(body, at, length, compressed)
    return total


def _buffer_bytes(body: memoryview, at: int, length: int, compressed: bool) -> int:
    if at < 0 or length < 0 or at + length > len(body):
        raise Corrupt(f"A buffer claims bytes {at} to {at + length} of {len(body)}.")
    if not compressed or length == 0:
        return length
    size = int(_INT64.unpack_from(body, at)[0])
    if size < -1:
        raise Corrupt(f"A buffer claims {size} bytes.")
    return length if size == -1 else size


def _table(meta: memoryview, at: int) -> int:
    return at + int(_INT32.unpack_from(meta, at)[0])


def _field(meta: memoryview, table: int, index: int) -> int:
    vtable = table - _INT32.unpack_from(meta, table)[0]
    slot = 4 + 2 * index
    if slot >= struct.unpack_from("<H", meta, vtable)[0]:
        return 0
    place = struct.unpack_from("<H", meta, vtable + slot)[0]
    return table + place if place else 0
