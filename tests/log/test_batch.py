"""The arrow codec and the edge conversions."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import limits
from headwater.errors import InvalidRequest
from headwater.log import codec_schema
from headwater.log.batch import (
    PLACED_SCHEMA,
    RECORD_SCHEMA,
    batch_of_arrow,
    batch_of_records,
    decode,
    encode_arrow,
    encode_kafka2,
    records_of,
    slice_from,
)
from headwater.types import Header, PlacedRecord, Record

INT64 = st.integers(-(2**63), 2**63 - 1)
NULLABLE = st.none() | st.binary(max_size=40)
KEYS = st.text(st.characters(codec="utf-8"), max_size=5)
HEADERS = st.lists(st.tuples(KEYS, NULLABLE), max_size=3).map(tuple)
RECORDS = st.builds(Record, value=NULLABLE, key=NULLABLE, timestamp=INT64.filter(lambda t: t != -1), headers=HEADERS)
LISTS = st.lists(RECORDS, min_size=1, max_size=20)


def placed(records: list[Record], base: int) -> list[PlacedRecord]:
    return [
        PlacedRecord(
            topic="t",
            partition=3,
            offset=base + i,
            timestamp=r.timestamp,
            key=r.key,
            value=r.value,
            headers=tuple(r.headers),
        )
        for i, r in enumerate(records)
    ]


def table(**columns: Any) -> pa.Table:
    given_columns = {"timestamp": pa.array([1], pa.int64()), "value": pa.array([b"v"])} | columns
    return pa.table({name: column for name, column in given_columns.items() if column is not None})


@given(LISTS, st.sampled_from([None, "lz4", "zstd"]), st.integers(0, 2**62))
def test_records_come_back_from_arrow_at_dense_offsets(records: list[Record], compression: Any, base: int) -> None:
    batch = batch_of_records(records, default_timestamp=0, compression=compression)
    decoded = decode("arrow", batch.data, base)
    assert PLACED_SCHEMA.equals(decoded.schema)
    assert list(range(base, base + len(records))) == decoded.column("offset").to_pylist()
    assert placed(records, base) == list(records_of("t", 3, decoded))
    times = [r.timestamp for r in records]
    assert (len(records), min(times), max(times)) == (batch.count, batch.timestamp_min, batch.timestamp_max)
    assert ("arrow", -1, -1, -1) == (batch.codec, batch.producer_id, batch.producer_epoch, batch.sequence)


@given(LISTS, st.sampled_from(["none", "gzip", "snappy", "zstd"]), st.integers(0, 2**62))
def test_records_come_back_from_kafka_bytes_as_from_arrow(records: list[Record], compression: Any, base: int) -> None:
    decoded = decode("arrow", batch_of_records(records, default_timestamp=0).data, base)
    again = decode("kafka2", encode_kafka2(decoded, compression=compression), base)
    assert placed(records, base) == list(records_of("t", 3, again))
    assert decoded.equals(again)


@given(st.lists(LISTS, min_size=1, max_size=4))
def test_streams_back_to_back_decode_as_one_batch(lists: list[list[Record]]) -> None:
    data = b"".join(batch_of_records(records, default_timestamp=0).data for records in lists)
    everything = [record for records in lists for record in records]
    assert placed(everything, 7) == list(records_of("t", 3, decode("arrow", data, 7)))


def test_a_timestamp_of_minus_one_becomes_the_default() -> None:
    batch = batch_of_records([Record(value=b"a"), Record(value=b"b", timestamp=5)], default_timestamp=9)
    assert [9, 5] == [r.timestamp for r in records_of("t", 0, decode("arrow", batch.data, 0))]
    assert (5, 9) == (batch.timestamp_min, batch.timestamp_max)


def test_equal_records_make_equal_bytes() -> None:
    records = [Record(value=b"a" * 5_000, timestamp=5)]
    assert batch_of_records(records, default_timestamp=1) == batch_of_records(records, default_timestamp=2)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compression_makes_repetitive_records_smaller(compression: Any) -> None:
    records = [Record(value=b"a" * 100, timestamp=1)] * 1_000
    plain = batch_of_records(records, default_timestamp=0, compression=None)
    packed = batch_of_records(records, default_timestamp=0, compression=compression)
    assert len(packed.data) < len(plain.data) / 5


@pytest.mark.parametrize(
    "value",
    [
        pa.array(["é"]),
        pa.array(["é"], pa.large_string()),
        pa.array(["é"], pa.string_view()),
        pa.array(["é".encode()], pa.binary_view()),
        pa.array(["é".encode()], pa.large_binary()),
        pa.array(["é".encode()], pa.binary(2)),
        pa.array(["é"]).dictionary_encode(),
        pa.chunked_array([pa.array([], pa.string()), pa.array(["é"])]),
    ],
    ids=lambda array: str(array.type),
)
def test_strings_and_their_relatives_are_taken_as_bytes(value: Any) -> None:
    batch = encode_arrow(table(key=value, value=value))
    (record,) = records_of("t", 0, decode("arrow", batch.data, 0))
    assert ("é".encode(), "é".encode()) == (record.key, record.value)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_500], pa.int64()),
        pa.array([1_500], pa.uint16()),
        pa.array([1_500], pa.timestamp("ms")),
        pa.array([1_500], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([1_500_999_999], pa.timestamp("ns", "UTC")),
        pa.array([1_500_999], pa.timestamp("us")),
    ],
    ids=lambda array: str(array.type),
)
def test_timestamps_of_other_units_and_zones_are_the_same_instant(times: Any) -> None:
    batch = encode_arrow(table(timestamp=times))
    assert (1_500, 1_500) == (batch.timestamp_min, batch.timestamp_max)


def test_missing_columns_are_filled_with_nulls() -> None:
    (record,) = records_of("t", 0, decode("arrow", encode_arrow(table()).data, 0))
    assert (None, b"v", ()) == (record.key, record.value, record.headers)


def test_missing_and_null_timestamps_become_the_default() -> None:
    times = pa.array([None], pa.timestamp("us"))
    assert 8 == encode_arrow(table(timestamp=times), default_timestamp=8).timestamp_min
    assert 8 == encode_arrow(table(timestamp=None), default_timestamp=8).timestamp_max
    assert 8 == encode_arrow(table(timestamp=pa.nulls(1)), default_timestamp=8).timestamp_max


def test_headers_may_come_as_a_map_or_in_another_order_of_fields() -> None:
    as_map = pa.array([[("a", b"1"), ("a", None)]], pa.map_(pa.string(), pa.binary()))
    turned = pa.array(
        [[{"key": "a", "value": b"1"}]], pa.list_(pa.struct([("value", pa.binary()), ("key", pa.string())]))
    )
    expected: list[tuple[Header, ...]] = [(("a", b"1"), ("a", None)), (("a", b"1"),)]
    batches = [encode_arrow(table(headers=column)) for column in (as_map, turned)]
    assert expected == [next(records_of("t", 0, decode("arrow", b.data, 0))).headers for b in batches]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"value": None}, "Column 'value' is missing"),
        ({"timestamp": None}, "Column 'timestamp' is missing"),
        ({"key": pa.array([1])}, "Column 'key' of type int64"),
        ({"value": pa.array([[b"v"]])}, "Column 'value' of type list"),
        ({"value": pa.array([1]).dictionary_encode()}, "Column 'value' of type dictionary"),
        ({"timestamp": pa.array(["now"])}, "Column 'timestamp' of type string"),
        ({"timestamp": pa.array([1.5])}, "Column 'timestamp' of type double"),
        ({"timestamp": pa.array([2**62], pa.timestamp("s"))}, "Column 'timestamp' of type timestamp"),
        ({"timestamp": pa.array([2**63], pa.uint64())}, "Column 'timestamp' of type uint64"),
        ({"timestamp": pa.nulls(1, pa.int64())}, "Column 'timestamp' holds nulls"),
        ({"headers": pa.array(["h"])}, "Column 'headers' of type string"),
        ({"headers": pa.array([[b"h"]])}, "Column 'headers' of type list<item: binary>"),
        ({"headers": pa.array([[{"key": 1, "value": [1]}]])}, "Column 'headers' of type list"),
        ({"headers": pa.array([[{"key": None, "value": b""}]])}, "a header without a key"),
        ({"headers": pa.array([[None]], codec_schema.HEADERS)}, "a header without a key"),
        ({"offset": pa.array([1])}, "Column 'offset' is not one of a record"),
    ],
)
def test_a_column_that_does_not_fit_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_arrow(table(**columns))
    assert message in str(caught.value)


def test_a_column_that_occurs_twice_is_refused() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([b"a"]), pa.array([b"b"])], ["timestamp", "value", "value"])
    with pytest.raises(InvalidRequest, match="'value' occurs 2 times"):
        encode_arrow(twice)


@pytest.mark.parametrize(
    "record",
    [
        Record(value=1),  # type: ignore[arg-type]
        Record(value=b"", key=1.5),  # type: ignore[arg-type]
        Record(value=b"", timestamp=1.5),  # type: ignore[arg-type]
        Record(value=b"", timestamp=2**63),
        Record(value=b"", timestamp=2**70),
        Record(value=b"", timestamp="now"),  # type: ignore[arg-type]
        Record(value=b"", headers=((None, b""),)),  # type: ignore[arg-type]
        Record(value=b"", headers=(("a",),)),  # type: ignore[arg-type]
        Record(value=b"", headers=(("\ud800", b""),)),
        Record(value=b"", headers=5),  # type: ignore[arg-type]
    ],
)
def test_a_record_with_a_field_of_the_wrong_type_is_refused(record: Record) -> None:
    with pytest.raises(InvalidRequest):
        batch_of_records([Record(value=b"fine", timestamp=1), record], default_timestamp=0)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no record"):
        batch_of_records([], default_timestamp=0)
    with pytest.raises(InvalidRequest, match="no record"):
        encode_arrow(RECORD_SCHEMA.empty_table())


def test_a_record_at_the_bound_is_taken_and_one_byte_more_is_refused_by_row() -> None:
    filler, key, header = Record(value=b"x", timestamp=1), b"k" * 10, ("h", b"1")
    value = bytes(limits.RECORD_BYTES_MAX - len(key) - 2)
    fits = Record(value=value, key=key, headers=(header,), timestamp=1)
    assert 3 == batch_of_records([filler, fits, filler], default_timestamp=0).count
    too_large = Record(value=value + b"x", key=key, headers=(header,), timestamp=1)
    with pytest.raises(InvalidRequest, match="row 1 has 8388609 bytes; at most 8388608") as caught:
        batch_of_records([filler, too_large, filler], default_timestamp=0)
    assert (1, 8_388_609) == (caught.value.data["row"], caught.value.data["bytes"])


def test_the_size_of_a_record_is_right_in_a_slice() -> None:
    large = bytes(limits.RECORD_BYTES_MAX)
    records = [Record(value=large, timestamp=1, headers=(("h", b""),)), Record(value=b"", timestamp=1)]
    whole = pa.table({"value": [r.value for r in records], "timestamp": [1, 1], "headers": [[("h", b"1")], []]}, None)
    whole = whole.set_column(2, "headers", pa.array([[("h", b"1")], []], pa.map_(pa.string(), pa.binary())))
    with pytest.raises(InvalidRequest, match="row 0 has 8388610 bytes"):
        encode_arrow(whole)
    assert 1 == encode_arrow(whole.slice(1)).count


def test_a_batch_too_large_as_stored_is_refused() -> None:
    part = bytes(limits.RECORD_BYTES_MAX // 2)
    records = [Record(value=part, timestamp=1)] * 5
    assert 5 == batch_of_records(records, default_timestamp=0).count
    with pytest.raises(InvalidRequest, match="at most 16777216"):
        batch_of_records(records, default_timestamp=0, compression=None)


def test_a_batch_too_large_before_compression_is_refused() -> None:
    values = pa.array([bytes(limits.MIB)] * 129)
    with pytest.raises(InvalidRequest, match="before compression"):
        encode_arrow(pa.table({"timestamp": pa.repeat(1, 129), "value": values}))
    with pytest.raises(InvalidRequest, match="split it"):
        encode_arrow(pa.table({"timestamp": pa.repeat(1, 516), "value": pa.chunked_array([values] * 4)}))


def test_a_batch_of_too_many_records_is_refused() -> None:
    most = limits.BATCH_RECORDS_MAX
    columns = {"timestamp": pa.repeat(1, most + 1), "value": pa.nulls(most + 1)}
    assert most == encode_arrow(pa.table(columns).slice(1)).count
    with pytest.raises(InvalidRequest, match=f"{most + 1} records"):
        encode_arrow(pa.table(columns))


def test_slice_from_keeps_offsets_from_the_asked_one_on() -> None:
    batch = batch_of_records([Record(value=b"")] * 5, default_timestamp=0)
    decoded = decode("arrow", batch.data, 10)
    cases = {0: [10, 11, 12, 13, 14], 10: [10, 11, 12, 13, 14], 12: [12, 13, 14], 14: [14], 15: [], 99: []}
    assert cases == {at: slice_from(decoded, at).column("offset").to_pylist() for at in cases}
    gaps = decoded.filter(pa.array([True, False, True, False, True]))
    cases = {10: [10, 12, 14], 11: [12, 14], 12: [12, 14], 13: [14], 15: []}
    assert cases == {at: slice_from(gaps, at).column("offset").to_pylist() for at in cases}
    assert [] == slice_from(decoded.slice(0, 0), 3).column("offset").to_pylist()


def test_a_client_s_own_arrow_bytes_are_taken_as_they_are() -> None:
    batch = batch_of_records([Record(value=b"v", timestamp=4), Record(value=None, timestamp=2)], default_timestamp=0)
    assert batch == batch_of_arrow(batch.data)
    with pytest.raises(InvalidRequest):
        batch_of_arrow(batch.data[:-1])
    with pytest.raises(InvalidRequest):
        batch_of_arrow(b"")
    with pytest.raises(InvalidRequest, match="at most 16777216"):
        batch_of_arrow(bytes(limits.BATCH_BYTES_MAX + 1))
