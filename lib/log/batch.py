"""Record batches: from a caller's rows to bytes that the log keeps, and back at the edge that needs rows.

Between here and the bucket a batch is opaque bytes of one of two codecs, ``arrow`` and ``kafka2``
(`headwater.types.Batch`). A chunk of the log is one or several batches of one codec, back to back; `decode`
reads any number of them. Nothing here does I/O, reads a clock or keeps state.

What comes in is checked whole and refused with `InvalidRequest`; what comes from the log and breaks the
format is `Corrupt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import KIB
from headwater.log import codec_arrow, codec_kafka2, frame, kafka2
from headwater.log.codec_inflate import Writable
from headwater.log.codec_schema import (
    BATCH_DECODED_BYTES_MAX,
    CHUNK_DECODED_BYTES_MAX,
    PLACED_SCHEMA,
    RECORD_SCHEMA,
    TIMESTAMP,
    Bytes,
    Compression,
    as_records,
    refuse_content,
    refuse_size,
)
from headwater.log.crc import combined
from headwater.types import Batch, Codec, PlacedRecord, Record

__all__ = [
    "BATCH_DECODED_BYTES_MAX",
    "CHUNK_DECODED_BYTES_MAX",
    "PLACED_SCHEMA",
    "RECORD_SCHEMA",
    "Compression",
    "batch_of_arrow",
    "batch_of_kafka2",
    "batch_of_records",
    "decode",
    "decode_sparse",
    "encode_arrow",
    "encode_kafka2",
    "encode_sparse",
    "first_at",
    "keyless_rows",
    "records_of",
    "slice_from",
]

SUMMED_TWICE_BYTES_MAX = 16 * KIB  # a batch of no more is sooner summed again than its sums are combined


def encode_arrow(
    data: pa.Table | pa.RecordBatch, *, compression: Compression = "zstd", default_timestamp: int | None = None
) -> Batch:
    """``data`` as a batch of the ``arrow`` codec: one Arrow IPC stream of one record batch.

    See `as_records` for the columns and types that are taken. Batches under 1 KiB are not compressed.

    Raises:
        InvalidRequest: a column, a record or the batch does not fit; the message names it.

    Cost: compression dominates; about 3 M records/s of 100 B, 0.4 M of 1 KB, with zstd.
    """
    return _arrow_batch(as_records(data, default_timestamp), compression)


def batch_of_records(records: Sequence[Record], *, default_timestamp: int, compression: Compression = "zstd") -> Batch:
    """``records`` as a batch of the ``arrow`` codec; a timestamp of -1 becomes ``default_timestamp`` (ms).

    Raises:
        InvalidRequest: a field of some record has the wrong type, or a limit is exceeded.
    """
    refuse_size(len(records), 0)
    try:
        times = pa.array([default_timestamp if r.timestamp == -1 else r.timestamp for r in records])
        if times.type != pa.int64():
            raise InvalidRequest(f"Timestamps must be whole milliseconds, not {times.type}.")
        columns: list[Any] = [
            times.cast(TIMESTAMP),
            pa.array([r.key for r in records], pa.binary()),
            pa.array([r.value for r in records], pa.binary()),
            codec_kafka2.header_column([r.headers for r in records]),
        ]
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"A record holds a value of the wrong type: {error}") from error
    batch = pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)
    refuse_content(batch)
    return _arrow_batch(batch, compression)


def batch_of_arrow(data: bytes) -> Batch:
    """Arrow IPC streams that a client encoded like `encode_arrow`, taken as they are.

    Raises:
        InvalidRequest: the bytes are not such streams, or break a limit.

    Cost: one decode, to check every record.
    """
    refuse_size(1, len(data))
    try:
        records = codec_arrow.decode(data)
    except Corrupt as error:
        raise InvalidRequest(error.message) from error
    refuse_content(records)
    return _labelled(records, data)


def batch_of_kafka2(data: Bytes, *, check_records: bool = False) -> Batch:
    """RecordBatch v2 bytes as a client sent them, taken as they are, on the word of their headers.

    Several batches may lie back to back if they are of one producer and their sequences follow each other.
    ``data`` itself goes into the batch, not a copy: do not change the buffer afterwards. The timestamps are
    those of the headers, where the first record's stands for the least.

    With ``check_records`` every record is decoded too. Without, a client can store a batch with an
    intact header and unreadable records, which `decode` then calls `Corrupt`.

    Raises:
        InvalidRequest: a length, the CRC32C, the count, the message format or the producer is wrong, or the
            batch exceeds a limit.

    Cost: the CRC32C, about 40 us for 1 MiB, and 7 us for each batch in ``data``.
    """
    refuse_size(1, len(data))
    headers = kafka2.headers_of(data, blame=InvalidRequest)
    count = sum([header.count for header in headers])
    refuse_size(count, len(data))
    _refuse_producers(headers)
    keyless = -1
    if check_records:
        try:
            keyless = _keyless(codec_kafka2.decode(data))
        except Corrupt as error:
            raise InvalidRequest(error.message) from error
    first = headers[0]
    idempotent = first.producer_id >= 0
    return Batch(
        codec="kafka2",
        data=cast(bytes, data),
        count=count,
        timestamp_min=min([_least_timestamp(header) for header in headers]),
        timestamp_max=max([header.max_timestamp for header in headers]),
        producer_id=first.producer_id if idempotent else -1,
        producer_epoch=first.producer_epoch if idempotent else -1,
        sequence=first.sequence if idempotent else -1,
        crc=_whole_crc(first, data) if len(headers) == 1 else -1,
        keyless=keyless,
    )


def decode(codec: Codec, data: Bytes, base_offset: int) -> pa.RecordBatch:
    """The records of a chunk, with `PLACED_SCHEMA`; their offsets are ``base_offset``, ``base_offset + 1``, …

    Raises:
        Corrupt: the bytes break the format, or hold more than `BATCH_DECODED_BYTES_MAX` in one batch or
            `CHUNK_DECODED_BYTES_MAX` in all.
        InvalidRequest: ``kafka2`` without the extra ``kafka``.

    Cost: about 8 M records/s of 100 B for ``arrow`` with zstd, 1.4 M for ``kafka2``.
    """
    assert base_offset >= 0, base_offset
    records = codec_arrow.decode(data) if codec == "arrow" else codec_kafka2.decode(data)
    offsets = pa.arange(base_offset, base_offset + len(records))  # type: ignore[attr-defined]
    return pa.RecordBatch.from_arrays([offsets, *records.columns], schema=PLACED_SCHEMA)


def encode_sparse(placed: pa.RecordBatch, *, compression: Compression = "zstd") -> Batch:
    """Placed records with gaps between their offsets: one Arrow IPC stream with `PLACED_SCHEMA`.

    For answers to readers; the log never stores it, since what is appended has no gaps.
    """
    rows = pa.RecordBatch.from_arrays(placed.columns, schema=PLACED_SCHEMA)
    return _labelled(rows, codec_arrow.encode(rows, compression))


def decode_sparse(data: Bytes) -> pa.RecordBatch:
    """What `encode_sparse` has made. Raises ``Corrupt``."""
    placed = codec_arrow.decode(data, PLACED_SCHEMA)
    offsets: Any = placed.column("offset")
    if len(offsets) > 1 and not pc.all(pc.greater(offsets[1:], offsets[:-1])).as_py():
        raise Corrupt("The offsets of a batch with gaps do not ascend.")
    return placed


def slice_from(placed: pa.RecordBatch, offset: int) -> pa.RecordBatch:
    """The records of ``placed`` at ``offset`` and above; none, if all lie below. Cost: a search, no copy."""
    offsets: Any = placed.column("offset")
    if not len(offsets) or offset <= offsets[0].as_py():
        return placed
    dense = offset - offsets[0].as_py()
    if offsets[-1].as_py() - offsets[0].as_py() == len(offsets) - 1:
        return placed.slice(min(dense, len(offsets)))
    below = cast(int, pc.sum(pc.less(offsets, pa.scalar(offset))).as_py())  # a compacted range has gaps
    return placed.slice(below)


def first_at(placed: pa.RecordBatch | pa.Table, timestamp: int, start: int) -> tuple[int, int] | None:
    """The first (offset, timestamp) at or after both ``timestamp`` (ms) and the offset ``start``; None if none is."""
    offsets, times = placed.column("offset"), placed.column("timestamp").cast(pa.int64())
    late_enough: Any = pc.greater_equal(times, pa.scalar(timestamp, pa.int64()))
    inside: Any = pc.greater_equal(offsets, pa.scalar(start, pa.int64()))
    row = pc.index(pc.and_(late_enough, inside), pa.scalar(True)).as_py()
    return (offsets[row].as_py(), times[row].as_py()) if row >= 0 else None


def records_of(topic: str, partition: int, placed: pa.RecordBatch) -> Iterator[PlacedRecord]:
    """The rows of ``placed`` as objects, for callers that want one at a time. Cost: about 2 us for each."""
    rows: Iterator[Any] = zip(
        placed.column("offset").to_pylist(),
        placed.column("timestamp").view(pa.int64()).to_pylist(),
        placed.column("key").to_pylist(),
        placed.column("value").to_pylist(),
        codec_kafka2.header_lists(placed.column("headers")),
        strict=True,
    )
    for offset, timestamp, key, value, headers in rows:
        yield PlacedRecord(
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp=timestamp,
            key=key,
            value=value,
            headers=tuple(headers),
        )


def encode_kafka2(
    data: pa.Table | pa.RecordBatch,
    base_offset: int | None = None,
    *,
    compression: Writable = "none",
    producer_id: int = -1,
    producer_epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
) -> bytes:
    """``data`` as one Kafka RecordBatch v2; no rows are no bytes.

    With an ``offset`` column (`PLACED_SCHEMA`) the records keep their offsets, gaps included, and
    ``base_offset`` is not needed. Without, they lie densely from ``base_offset``.

    Raises:
        InvalidRequest: the columns do not fit, or the extra ``kafka`` is not installed.
    """
    if data.num_rows == 0:
        return b""
    deltas = list(range(data.num_rows))
    base = base_offset or 0
    if "offset" in data.schema.names:
        offsets = cast("list[int]", data.column("offset").to_pylist())
        base = offsets[0] if base_offset is None else base_offset
        deltas = [offset - offsets[0] for offset in offsets]
        data = data.drop_columns(["offset"])
    return codec_kafka2.encode(
        as_records(data),
        deltas=deltas,
        base_offset=base,
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        sequence=sequence,
        transactional=transactional,
    )


def _arrow_batch(records: pa.RecordBatch, compression: Compression) -> Batch:
    return _labelled(records, codec_arrow.encode(records, compression))


def _labelled(records: pa.RecordBatch, data: bytes) -> Batch:
    refuse_size(len(records), len(data))
    times = cast(dict[str, int], pc.min_max(records.column("timestamp").view(pa.int64())).as_py())
    return Batch(
        codec="arrow",
        data=data,
        count=len(records),
        timestamp_min=times["min"],
        timestamp_max=times["max"],
        keyless=_keyless(records),
    )


def keyless_rows(batch: Batch) -> list[int]:
    """The rows of all records without a key. Cost: a decoding."""
    keys = decode(batch.codec, batch.data, 0).column("key")
    return [row for row, is_null in enumerate(pc.is_null(keys).to_pylist()) if is_null]


def _keyless(records: pa.RecordBatch) -> int:
    """The first row without a key, or -1."""
    names = records.column("key")
    return pc.index(pc.is_null(names), pa.scalar(True)).as_py() if names.null_count else -1


def _whole_crc(header: kafka2.BatchHeader, data: Bytes) -> int:
    """The CRC32C of a single batch, front included; if it is large from the one in it, not to sum it twice."""
    if len(data) <= SUMMED_TWICE_BYTES_MAX:
        return frame.checksum(data)
    front = frame.checksum(bytes(data[: kafka2.CRC_END]))
    return combined(front, header.crc, len(data) - kafka2.CRC_END)


def _least_timestamp(header: kafka2.BatchHeader) -> int:
    return header.max_timestamp if header.log_append_time else min(header.first_timestamp, header.max_timestamp)


def _refuse_producers(headers: list[kafka2.BatchHeader]) -> None:
    first = headers[0]
    if first.producer_id >= 0 and (first.producer_epoch < 0 or first.sequence < 0):
        raise InvalidRequest(
            f"Producer {first.producer_id} sent epoch {first.producer_epoch} and sequence {first.sequence}."
        )
    producer = (first.producer_id, first.producer_epoch)
    expected = first.sequence
    for header in headers:
        if (header.producer_id, header.producer_epoch) != producer:
            raise InvalidRequest(
                f"The batches are of two producers: {producer} and {(header.producer_id, header.producer_epoch)}."
            )
        if first.producer_id >= 0 and header.sequence != expected:
            raise InvalidRequest(f"A batch has sequence {header.sequence} where {expected} must follow.")
        expected = (expected + header.count) % kafka2.SEQUENCES
