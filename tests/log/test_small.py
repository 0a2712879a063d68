"""Batches of a few records, built without Arrow."""

import struct
import subprocess
import sys

import pyarrow as pa
import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import BATCH_BYTES_MAX, RECORD_BYTES_MAX, SMALL_BYTES_MAX, SMALL_RECORDS_MAX
from headwater.log import batch, frame, kafka2, partitioner, small
from headwater.types import PlacedRecord, Record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RECORDS = st.lists(
    st.builds(
        Record,
        value=st.none() | st.binary(max_size=300),
        key=st.none() | st.binary(max_size=100),
        timestamp=st.integers(0, 2**40),
        headers=st.lists(st.tuples(TEXT, st.none() | st.binary(max_size=100)), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=SMALL_RECORDS_MAX,
)


@given(RECORDS)
def test_records_come_back_as_they_went_in(records: list[Record]) -> None:
    made = small.batch_of(records)
    placed = list(batch.records_of("t", 3, batch.decode(made.codec, made.data, 7)))
    expected = [
        PlacedRecord(
            topic="t", partition=3, offset=7 + i, timestamp=r.timestamp, key=r.key, value=r.value, headers=r.headers
        )
        for i, r in enumerate(records)
    ]
    assert expected == placed


@given(RECORDS)
def test_aiokafka_reads_the_same_records(records: list[Record]) -> None:
    theirs = DefaultRecordBatch(small.batch_of(records).data)
    assert theirs.validate_crc()
    expected = [(r.timestamp, r.key, r.value, list(r.headers)) for r in records]
    assert expected == [(r.timestamp, r.key, r.value, list(r.headers)) for r in theirs]


@given(st.lists(RECORDS, min_size=1, max_size=3))
def test_what_was_built_here_is_read_here(batches: list[list[Record]]) -> None:
    records = [record for batch in batches for record in batch]
    data = b"".join(small.batch_of(batch).data for batch in batches)
    assert (records if len(records) <= SMALL_RECORDS_MAX else None) == small.records_in(data)


@given(RECORDS, st.data())
def test_bytes_that_were_changed_are_read_as_aiokafka_reads_them_or_refused(
    records: list[Record], data: st.DataObject
) -> None:
    made = bytearray(small.batch_of(records).data)
    at = data.draw(st.integers(kafka2.HEADER_BYTES, len(made) - 1))
    made[at] = data.draw(st.integers(0, 255))
    struct.pack_into(">I", made, 17, frame.checksum(bytes(made[kafka2.CRC_END :])))
    try:
        expected = list(batch.records_of("t", 0, batch.decode("kafka2", bytes(made), 0)))
    except Corrupt:
        expected = None
    try:
        found = small.records_in(bytes(made))
    except Corrupt:
        return  # ours is the stricter of the two
    assert expected is not None
    assert found is not None
    assert [(r.timestamp, r.key, r.value, r.headers) for r in expected] == [
        (r.timestamp, r.key, r.value, r.headers) for r in found
    ]


def test_batches_that_are_compressed_or_large_are_left_to_arrow() -> None:
    table = pa.table({"value": pa.array([b"v" * 100] * 9), "timestamp": pa.array([5] * 9)})
    assert small.records_in(batch.encode_kafka2(table, 0, compression="gzip")) is None
    assert small.records_in(small.batch_of([Record(value=bytes(SMALL_BYTES_MAX), timestamp=0)]).data) is None
    many = pa.table({"value": pa.array([b"v"] * 65), "timestamp": pa.array([5] * 65)})
    assert small.records_in(batch.encode_kafka2(many, 0)) is None


def test_the_time_of_appending_counts_where_the_batch_says_so() -> None:
    body = small.batch_of([Record(value=b"v", timestamp=3), Record(value=b"w", timestamp=5)]).data
    data = kafka2.pack(
        body[kafka2.HEADER_BYTES :], count=2, first_timestamp=3, max_timestamp=90, attributes=kafka2.LOG_APPEND_TIME
    )
    assert [90, 90] == [record.timestamp for record in small.records_in(data) or []]


@given(RECORDS)
def test_the_header_tells_what_the_batch_says(records: list[Record]) -> None:
    made = small.batch_of(records, producer_id=7, producer_epoch=2, sequence=40)
    expected = batch.batch_of_kafka2(made.data, check_records=True)
    assert (min(r.timestamp for r in records), max(r.timestamp for r in records), len(records), 7, 2, 40) == (
        *(made.timestamp_min, made.timestamp_max, made.count),
        *(made.producer_id, made.producer_epoch, made.sequence),
    )
    for name in ("codec", "data", "count", "timestamp_min", "timestamp_max", "producer_id", "sequence"):
        assert getattr(expected, name) == getattr(made, name)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(1, 10_000))
def test_keys_go_where_a_column_of_them_goes(keys: list[bytes], partitions: int) -> None:
    expected = partitioner.partitions_of(pa.array(keys, pa.binary()), partitions).to_pylist()
    assert expected == [small.partition_of(key, partitions) for key in keys]


def test_a_record_without_a_key_goes_to_the_sticky_partition() -> None:
    assert 5 == small.partition_of(None, 9, 5)
    assert partitioner.partition_of(b"", 9) == small.partition_of(b"", 9, 5)


def test_one_record_and_sixty_four_are_taken_and_none_and_one_more_are_not() -> None:
    record = Record(value=b"v", timestamp=1)
    assert 1 == small.batch_of([record]).count
    assert 64 == small.batch_of([record] * 64).count
    for count in (0, 65):
        with pytest.raises(InvalidRequest, match=f"1 to 64 records, not {count}"):
            small.batch_of([record] * count)


@pytest.mark.parametrize("timestamp", [-1, -5, 2**62, 2**70])
def test_a_record_without_a_sound_timestamp_is_refused(timestamp: int) -> None:
    with pytest.raises(InvalidRequest, match=f"not {timestamp}"):
        small.batch_of([Record(value=b"", timestamp=9), Record(value=b"", timestamp=timestamp)])


def test_the_greatest_timestamp_that_is_taken_comes_back() -> None:
    made = small.batch_of([Record(value=b"", timestamp=0), Record(value=b"", timestamp=2**62 - 1)])
    assert (0, 2**62 - 1) == (made.timestamp_min, made.timestamp_max)
    assert [0, 2**62 - 1] == [record.timestamp for record in DefaultRecordBatch(made.data)]


def test_the_largest_record_is_taken_and_one_byte_more_is_not() -> None:
    headers = (("h", b"x" * 9),)
    fits = Record(value=bytes(RECORD_BYTES_MAX - 13), key=b"key", timestamp=0, headers=headers)
    assert 1 == small.batch_of([fits]).count
    with pytest.raises(InvalidRequest, match="row 1"):
        small.batch_of(
            [fits, Record(value=bytes(RECORD_BYTES_MAX - 12), key=b"key", timestamp=0, headers=headers)],
        )


def test_records_that_fit_and_make_too_large_a_batch_are_refused() -> None:
    record = Record(value=bytes(BATCH_BYTES_MAX // 3), timestamp=0)
    with pytest.raises(InvalidRequest, match=str(BATCH_BYTES_MAX)):
        small.batch_of([record] * 3)


def test_a_header_name_that_has_no_utf8_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        small.batch_of([Record(value=b"", timestamp=0, headers=(("\ud800", b""),))])


def test_nothing_here_imports_arrow() -> None:
    program = (
        "import sys; from headwater.log import small; from headwater.types import Record; "
        "small.batch_of([Record(value=b'v', key=b'k', timestamp=1)]); print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()


def test_what_was_built_here_is_read_as_arrow_without_aiokafka() -> None:
    program = """
import sys
from headwater.errors import InvalidRequest
from headwater.log import batch, small
from headwater.types import Record
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "aiokafka":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
records = [Record(value=b"v%d" % i, key=None, timestamp=i, headers=(("h", b"x"),)) for i in range(64)]
data = small.batch_of(records).data
placed = batch.decode("kafka2", data * 3, 0)
assert records * 3 == [
    Record(value=r.value, key=r.key, timestamp=r.timestamp, headers=r.headers)
    for r in batch.records_of("t", 0, placed)
]
try:
    batch.encode_kafka2(placed)
except InvalidRequest as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "aiokafka" in done.stdout


def test_a_batch_in_a_large_view_has_the_crc_of_its_bytes() -> None:
    made = small.batch_of([Record(value=bytes(2 << 20), timestamp=1)])
    (header,) = kafka2.headers_of(memoryview(made.data))
    assert len(made.data) == header.end
