"""RecordBatch v2: headers on the way in, records on the way out."""

import gzip
import struct
from typing import Any

import pyarrow as pa
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st
from kafka.record import MemoryRecords

from headwater import limits
from headwater.errors import Corrupt, InvalidRequest
from headwater.log import frame, kafka2
from headwater.log.batch import (
    PLACED_SCHEMA,
    SUMMED_TWICE_BYTES_MAX,
    batch_of_kafka2,
    batch_of_records,
    decode,
    encode_kafka2,
    records_of,
)
from headwater.types import Record

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

NULLABLE = st.none() | st.binary(max_size=40)
KEYS = st.text(st.characters(codec="utf-8"), max_size=5)
HEADERS = st.lists(st.tuples(KEYS, NULLABLE), max_size=3)
ROWS = st.lists(st.tuples(st.integers(0, 2**62), NULLABLE, NULLABLE, HEADERS), min_size=1, max_size=20)


def built(rows: list[Row], *, pid: int = -1, epoch: int = -1, sequence: int = -1, codec: int = 0) -> bytes:
    """What a client sends: aiokafka's own builder, from end to end."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, pid, epoch, sequence, 1 << 30)
    for delta, (time, key, value, headers) in enumerate(rows):
        builder.append(delta, time, key, value, headers)
    return bytes(builder.build())


def rows_of(data: bytes, base: int) -> list[Row]:
    records = records_of("t", 0, decode("kafka2", data, base))
    return [(r.timestamp, r.key, r.value, list(r.headers)) for r in records]


def of(count: int, **producer: int) -> bytes:
    return built([(1_000 + i, b"k", b"v%d" % i, []) for i in range(count)], **producer)


def packed(records: bytes, count: int = 1, attributes: int = 0) -> bytes:
    return kafka2.pack(records, count=count, first_timestamp=5, max_timestamp=9, attributes=attributes)


def parts(data: bytes) -> tuple[bytes, bytes]:
    return data[: kafka2.HEADER_BYTES], data[kafka2.HEADER_BYTES :]


ROW: list[Row] = [(1_000, b"k", b"v" * 200, [("h", None), ("h", b"1")])] * 50
PLAIN = built(ROW)
RECORDS = parts(PLAIN)[1]


@given(ROWS, st.integers(0, 2**62))
def test_what_aiokafka_builds_comes_back_at_dense_offsets(rows: list[Row], base: int) -> None:
    data = built(rows)
    decoded = decode("kafka2", data, base)
    assert PLACED_SCHEMA.equals(decoded.schema)
    assert list(range(base, base + len(rows))) == decoded.column("offset").to_pylist()
    assert rows == rows_of(data, base)
    assert rows == rows_of(kafka2.with_base_offset(data, base), 0)


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(0, 2**40))
def test_batches_back_to_back_decode_and_move_as_one(lists: list[list[Row]], base: int) -> None:
    data = b"".join(built(rows) for rows in lists)
    assert [row for rows in lists for row in rows] == rows_of(data, base)
    moved = kafka2.headers_of(kafka2.with_base_offset(data, base))
    starts = [base + sum(map(len, lists[:i])) for i in range(len(lists))]
    assert starts == [header.base_offset for header in moved]


@given(ROWS, st.integers(0, 2**62))
def test_what_is_encoded_is_what_aiokafka_reads(rows: list[Row], base: int) -> None:
    records = [Record(timestamp=t, key=k, value=v, headers=tuple(h)) for t, k, v, h in rows]
    placed = decode("arrow", batch_of_records(records, default_timestamp=0).data, base)
    batch = DefaultRecordBatch(encode_kafka2(placed, producer_id=3, producer_epoch=4, sequence=5, transactional=True))
    assert batch.validate_crc()
    assert (base, 3, 4, 5) == (batch.base_offset, batch.producer_id, batch.producer_epoch, batch.base_sequence)
    assert (True, max(row[0] for row in rows)) == (batch.is_transactional, batch.max_timestamp)
    assert [(base + i, *row) for i, row in enumerate(rows)] == [
        (r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch
    ]


def test_offsets_with_gaps_stay_as_they_are() -> None:
    batch = batch_of_records([Record(value=b"%d" % i) for i in range(5)], default_timestamp=0)
    placed = decode("arrow", batch.data, 10).filter(pa.array([False, True, False, True, False]))
    read = DefaultRecordBatch(encode_kafka2(placed))
    assert [(11, b"1"), (13, b"3")] == [(r.offset, r.value) for r in read]
    assert 14 == read.next_offset


def test_no_rows_are_no_bytes() -> None:
    assert b"" == encode_kafka2(PLACED_SCHEMA.empty_table())


def test_a_first_timestamp_of_minus_one_does_not_shift_the_others() -> None:
    table = pa.table({"timestamp": [-1, -1, 7], "value": [b"a", b"b", b"c"]})
    assert [-1, -1, 7] == [r[0] for r in rows_of(encode_kafka2(table, 0), 0)]


def xerial(data: bytes, block: int = 1_000) -> bytes:
    blocks = [pa.Codec("snappy").compress(data[i : i + block], asbytes=True) for i in range(0, len(data), block)]
    return b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)


COMPRESSED = {
    "none": (0, RECORDS),
    "gzip": (1, gzip.compress(RECORDS)),
    "snappy": (2, pa.Codec("snappy").compress(RECORDS, asbytes=True)),
    "snappy in blocks": (2, xerial(RECORDS)),
    "lz4": (3, pa.Codec("lz4").compress(RECORDS, asbytes=True)),
    "zstd": (4, pa.Codec("zstd").compress(RECORDS, asbytes=True)),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_batches_decode(name: str) -> None:
    codec, body = COMPRESSED[name]
    data = kafka2.pack(body, count=50, first_timestamp=1_000, max_timestamp=1_000, attributes=codec)
    assert ROW == rows_of(data, 0)
    assert data == batch_of_kafka2(data, check_records=True).data


@pytest.mark.parametrize("nbytes", [1, SUMMED_TWICE_BYTES_MAX - 200, SUMMED_TWICE_BYTES_MAX, 1 << 20])
def test_the_sum_of_a_batch_is_that_of_all_its_bytes(nbytes: int) -> None:
    """That of a large one is combined from the sum in it, that of a small one is made anew."""
    data = built([(1_000, None, bytes(nbytes), [])])
    assert frame.checksum(data) == batch_of_kafka2(data).crc


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_batches_that_aiokafka_compressed_decode(codec: int) -> None:
    if codec > 1:
        pytest.importorskip("cramjam")  # what aiokafka[snappy,lz4,zstd] brings
    data = built(ROW, codec=codec)
    assert len(data) < len(PLAIN)
    assert ROW == rows_of(data, 0)


def test_log_append_time_is_the_time_of_every_record() -> None:
    data = packed(parts(of(3))[1], 3, attributes=kafka2.LOG_APPEND_TIME)
    assert [9, 9, 9] == [row[0] for row in rows_of(data, 0)]
    batch = batch_of_kafka2(data)
    assert (9, 9) == (batch.timestamp_min, batch.timestamp_max)


# -- the way in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_a_batch_takes_its_facts_from_the_header_and_the_buffer_as_it_is(buffer: Any) -> None:
    data = buffer(of(3, pid=7, epoch=2, sequence=11))
    batch = batch_of_kafka2(data)
    assert batch.data is data
    assert ("kafka2", 3, 1_000, 1_002) == (batch.codec, batch.count, batch.timestamp_min, batch.timestamp_max)
    assert (7, 2, 11) == (batch.producer_id, batch.producer_epoch, batch.sequence)


def test_without_a_producer_id_there_is_no_sequence() -> None:
    batch = batch_of_kafka2(of(1, epoch=5, sequence=0))
    assert (-1, -1, -1) == (batch.producer_id, batch.producer_epoch, batch.sequence)
    assert 4 == batch_of_kafka2(of(1) + of(3)).count


def test_batches_of_one_producer_in_sequence_are_one_batch() -> None:
    data = of(3, pid=7, epoch=2, sequence=11) + of(2, pid=7, epoch=2, sequence=14)
    batch = batch_of_kafka2(data)
    assert (5, 11, data) == (batch.count, batch.sequence, batch.data)


def test_sequences_wrap_to_zero() -> None:
    last = kafka2.SEQUENCES - 2
    assert last == batch_of_kafka2(of(3, pid=7, epoch=2, sequence=last) + of(2, pid=7, epoch=2, sequence=1)).sequence


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"pid": 7, "epoch": 2, "sequence": 15}, "sequence 15 where 14 must follow"),
        ({"pid": 7, "epoch": 2, "sequence": 11}, "sequence 11 where 14 must follow"),
        ({"pid": 8, "epoch": 2, "sequence": 14}, "two producers"),
        ({"pid": 7, "epoch": 3, "sequence": 14}, "two producers"),
        ({}, "two producers"),
    ],
)
def test_batches_that_do_not_follow_each_other_are_refused(second: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        batch_of_kafka2(of(3, pid=7, epoch=2, sequence=11) + of(2, **second))


@pytest.mark.parametrize("producer", [{"pid": 7}, {"pid": 7, "epoch": 1}, {"pid": 7, "sequence": 1}])
def test_a_producer_without_epoch_or_sequence_is_refused(producer: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="Producer 7 sent"):
        batch_of_kafka2(of(1, **producer))


def with_header(at: int, form: str, value: int) -> bytes:
    """A batch whose header says ``value`` at byte ``at``, under a CRC that is right."""
    data = bytearray(PLAIN)
    struct.pack_into(form, data, at, value)
    struct.pack_into(">I", data, 17, kafka2._crc32c(bytes(data[21:])))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (PLAIN[:60], "too few for the header"),
        (PLAIN[:-1], "claims"),
        (PLAIN + b"x", "1 bytes at byte .* too few"),
        (with_header(8, ">i", -1), "claims 11 bytes"),
        (with_header(8, ">i", -(2**31)), "claims -2147483636 bytes"),
        (with_header(8, ">i", 2**31 - 1), "claims 2147483659 bytes"),
        (with_header(8, ">i", 48), "claims 60 bytes"),
        (with_header(16, ">b", 1), "message format 1"),
        (PLAIN[:17] + bytes(4) + PLAIN[21:], "CRC32C"),
        (PLAIN[:-1] + b"x", "CRC32C"),
        (with_header(21, ">h", 5), "unknown compression 5"),
        (with_header(21, ">h", kafka2.CONTROL), "control batch"),
        (with_header(23, ">i", 50), "50 records and the last offset delta 50"),
        (with_header(57, ">i", 0), "0 records"),
        (with_header(57, ">i", -1), "-1 records"),
        (with_header(57, ">i", 2**31 - 1), "2147483647 records"),
    ],
)
def test_a_header_that_lies_is_the_sender_s_fault_on_the_way_in_and_corrupt_on_the_way_out(
    data: bytes, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        batch_of_kafka2(data)
    with pytest.raises(Corrupt, match=message):
        decode("kafka2", data, 0)


def test_a_batch_over_a_bound_is_refused() -> None:
    room = limits.BATCH_BYTES_MAX - kafka2.HEADER_BYTES
    assert 1 == batch_of_kafka2(packed(bytes(room))).count
    with pytest.raises(InvalidRequest, match="16777217 bytes"):
        batch_of_kafka2(packed(bytes(room + 1)))
    assert limits.BATCH_RECORDS_MAX == batch_of_kafka2(packed(b"", limits.BATCH_RECORDS_MAX)).count
    with pytest.raises(InvalidRequest, match="1048577 records"):
        batch_of_kafka2(packed(b"", limits.BATCH_RECORDS_MAX) + packed(b"", 1))


def test_records_are_checked_on_the_way_in_when_asked() -> None:
    bad = packed(b"no records at all")
    assert 1 == batch_of_kafka2(bad).count
    with pytest.raises(InvalidRequest, match="malformed"):
        batch_of_kafka2(bad, check_records=True)


@pytest.mark.parametrize("end", [6, 1_000, 5 + 2**31 - 1, 5 + 2**31, 5 + 5 * 2**31])
def test_a_gap_is_control_batches_that_reach_its_end(end: int) -> None:
    data, position = kafka2.passage(5, end), 5
    while data:
        base, length = struct.unpack_from(">qi", data)
        (attributes, delta) = struct.unpack_from(">hi", data, 21)
        (count,) = struct.unpack_from(">i", data, 57)
        assert (position, kafka2.CONTROL, 1) == (base, attributes, count)
        if delta < 2**20:  # kafka-python reads it: the mark of a commit, at the batch's last offset
            batch = MemoryRecords(data[: 12 + length]).next_batch()
            assert batch.is_control_batch and batch.validate_crc()
            ((offset, key),) = [(record.offset, record.key) for record in batch]
            assert (base + delta, struct.pack(">hh", 0, 1)) == (offset, key)
        position, data = base + delta + 1, data[12 + length :]
    assert end == position
