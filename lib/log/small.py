"""Batches of a few records, and the partition of a key, without Arrow: for functions that start from nothing.

Importing pyarrow costs a fresh process 110 to 180 ms of CPU, which is most of what a cold produce takes. A record
built here costs about 2 µs, so that up to ``SMALL_RECORDS_MAX`` records are built here and more are built by
``headwater.log.batch``. Both forms are batches like any other: what is stored is one uncompressed Kafka RecordBatch
v2 (``kafka2``), and what was built here can be read here again.

    record:  length | attributes 1 | timestamp delta | offset delta | key | value | number of headers | headers
    bytes:   length, -1 for null | bytes                  all lengths, deltas and numbers are zig-zag varints

Source: KIP-98 (message format v2); Kafka's ``Utils.murmur2`` and ``BuiltInPartitioner``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from headwater import limits
from headwater.errors import Corrupt, InvalidRequest
from headwater.log import kafka2
from headwater.log.kafka2 import varint
from headwater.types import Batch, Buffer, Header, Record

__all__ = ["batch_of", "murmur2", "partition_of", "records_in"]

TIMESTAMP_MAX = 2**62 - 1  # ms; what the log's own integers can carry

_M = 0x5BD1E995
_SEED = 0x9747B28C
_R = 24
_MASK = 0xFFFFFFFF


def batch_of(
    records: Sequence[Record], *, producer_id: int = -1, producer_epoch: int = -1, sequence: int = -1
) -> Batch:
    """``records`` as a batch of the ``kafka2`` codec; the batch of an idempotent producer says whose it is.

    The header's first timestamp is the least one of the records, so that an index by time misses none of them.

    Raises:
        InvalidRequest: there is no record or there are more than ``SMALL_RECORDS_MAX``, a record has no timestamp
            or one out of range, or a record or the batch is too large.

    Cost: about 2 µs a record.
    """
    if not 1 <= len(records) <= limits.SMALL_RECORDS_MAX:
        raise InvalidRequest(f"A small batch has 1 to {limits.SMALL_RECORDS_MAX} records, not {len(records)}.")
    times = [record.timestamp for record in records]
    first, last = min(times), max(times)
    if not 0 <= first <= last <= TIMESTAMP_MAX:
        raise InvalidRequest(f"A timestamp is 0 to {TIMESTAMP_MAX} ms, not {first if first < 0 else last}.")
    body = b"".join([_record(record, delta, first) for delta, record in enumerate(records)])
    if len(body) + kafka2.HEADER_BYTES > limits.BATCH_BYTES_MAX:
        raise InvalidRequest(f"The batch takes {len(body)} bytes; at most {limits.BATCH_BYTES_MAX} are allowed.")
    data = kafka2.pack(
        body,
        count=len(records),
        first_timestamp=first,
        max_timestamp=last,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        sequence=sequence,
    )
    return Batch(
        codec="kafka2",
        data=data,
        count=len(records),
        timestamp_min=first,
        timestamp_max=last,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        sequence=sequence,
        keyless=next((row for row, record in enumerate(records) if record.key is None), -1),
    )


def records_in(data: Buffer) -> list[Record] | None:
    """The records of ``kafka2`` batches, in order; None if they are not few and uncompressed: then decode with Arrow.

    Raises:
        Corrupt: the bytes are not RecordBatch v2 batches of dense offsets.

    Cost: about 3 µs a record.
    """
    if len(data) > limits.SMALL_BYTES_MAX:
        return None
    headers = kafka2.headers_of(data)
    if sum(header.count for header in headers) > limits.SMALL_RECORDS_MAX or not all(map(readable, headers)):
        return None
    return [record for header in headers for record in records_at(header, data)]


def readable(header: kafka2.BatchHeader) -> bool:
    """Whether ``records_at`` reads the batch: few records, not compressed."""
    few = header.count <= limits.SMALL_RECORDS_MAX and header.end - header.start <= limits.SMALL_BYTES_MAX
    return few and header.codec == "none"


def records_at(header: kafka2.BatchHeader, data: Buffer) -> list[Record]:
    """The records of a ``readable`` batch of ``data``, which fill it exactly. Raises ``Corrupt``."""
    body = bytes(data[header.start + kafka2.HEADER_BYTES : header.end])
    at = 0
    records = []
    try:
        for delta in range(header.count):
            size, at = _number(body, at)
            end = at + size
            if size < 1 or end > len(body):
                raise _corrupt(header, f"record {delta} claims {size} bytes")
            records.append(_record_at(header, body, at, end, delta))
            at = end
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise _corrupt(header, str(error)) from error
    if at != len(body):
        raise _corrupt(header, f"{len(body) - at} bytes follow the last record")
    return records


def murmur2(data: bytes) -> int:
    """Kafka's variant of MurmurHash2: seed 0x9747b28c, a signed 32-bit result (``Utils.murmur2``)."""
    words = len(data) >> 2
    h = _SEED ^ len(data)
    for k in struct.unpack_from(f"<{words}I", data):
        k = (k * _M) & _MASK
        k ^= k >> _R
        h = ((h * _M) ^ (k * _M)) & _MASK
    tail = data[words << 2 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h >> 31 else h


def partition_of(key: bytes | None, partitions: int, sticky: int = 0) -> int:
    """The partition of ``key`` among ``partitions``, at least 1, as Kafka's own clients choose it.

    A record without a key goes to ``sticky``, the partition that all such records of its batch share (KIP-480).
    """
    return sticky if key is None else (murmur2(key) & 0x7FFFFFFF) % partitions


def _record(record: Record, delta: int, first: int) -> bytes:
    key, value = record.key, record.value
    parts = [b"\x00", varint(record.timestamp - first), varint(delta), _sized(key), _sized(value)]
    parts.append(varint(len(record.headers)))
    for name, content in record.headers:
        parts += (_sized(_utf8(name)), _sized(content))
    body = b"".join(parts)
    if len(body) > limits.RECORD_BYTES_MAX:
        _refuse_large(record, delta)
    return varint(len(body)) + body


def _record_at(header: kafka2.BatchHeader, data: bytes, at: int, end: int, delta: int) -> Record:
    """The record at bytes ``[at, end)``; its one byte of attributes means nothing yet (the other decoder: < 0x80)."""
    if data[at] >= 0x80:
        raise _corrupt(header, f"record {delta} has the attributes {data[at]}")
    time_delta, at = _number(data, at + 1)
    offset_delta, at = _number(data, at)
    if offset_delta != delta:
        raise _corrupt(header, f"record {delta} has the offset delta {offset_delta}")
    key, at = _bytes_at(header, data, at, end)
    value, at = _bytes_at(header, data, at, end)
    count, at = _number(data, at)
    if not 0 <= count <= end - at:
        raise _corrupt(header, f"record {delta} claims {count} headers")
    found: list[Header] = []
    for _ in range(count):
        name, at = _bytes_at(header, data, at, end)
        content, at = _bytes_at(header, data, at, end)
        if name is None:
            raise _corrupt(header, f"record {delta} has a header without a name")
        found.append((name.decode(), content))
    if at != end:
        raise _corrupt(header, f"record {delta} ends at byte {at}, not {end}")
    timestamp = header.max_timestamp if header.log_append_time else header.first_timestamp + time_delta
    if not -(2**63) <= timestamp < 2**63:
        raise _corrupt(header, f"record {delta} has the timestamp {timestamp}")
    return Record(key=key, value=value, timestamp=timestamp, headers=tuple(found))


def _bytes_at(header: kafka2.BatchHeader, data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    size, at = _number(data, at)
    if size == -1:
        return None, at
    if not 0 <= size <= end - at:
        raise _corrupt(header, f"a field claims {size} bytes at byte {at}")
    return data[at : at + size], at + size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The zig-zag varint at byte ``at``, of at most ten bytes, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise OverflowError(f"the number at byte {at} has no end")


def _corrupt(header: kafka2.BatchHeader, why: str) -> Corrupt:
    return Corrupt(f"The records of the batch of {header.count} at byte {header.start} are malformed: {why}.")


def _refuse_large(record: Record, delta: int) -> None:
    """The same measure as for batches of Arrow: keys and values, without what the format adds."""
    fields: Iterable[bytes | str | None] = (
        record.key,
        record.value,
        *(field for header in record.headers for field in header),
    )
    size = sum(len(field.encode() if isinstance(field, str) else field) for field in fields if field is not None)
    if size > limits.RECORD_BYTES_MAX:
        raise InvalidRequest(
            f"The record in row {delta} has {size} bytes; at most {limits.RECORD_BYTES_MAX} are allowed.",
            row=delta,
            bytes=size,
        )


def _utf8(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The header name {name[:40]!r} is no valid Unicode.") from error


def _sized(data: bytes | None) -> bytes:
    return b"\x01" if data is None else varint(len(data)) + data
