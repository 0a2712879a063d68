"""Records to frames and back: what goes in comes out, and what does not fit is set aside with its reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import Corrupt, InvalidRequest
from headwater.log import partitioner
from headwater.log.codec_schema import PLACED_SCHEMA
from headwater.streams import serde
from headwater.streams.model import Sink, Source

SCHEMA = {"k": pl.String(), "v": pl.Int64(), "x": pl.Float64(), "at": pl.Datetime("ms", "UTC")}


def source(**given: Any) -> Source:
    schema = given.pop("schema", SCHEMA)
    return Source(name="s", topic="t", format=given.pop("format", "json"), schema=schema, whole=SCHEMA, **given)


def placed(*values: bytes | str | None, keys: list[bytes | None] | None = None) -> pa.RecordBatch:
    rows = [
        {
            "offset": 10 + i,
            "timestamp": 1_000 + i,
            "key": keys[i] if keys else None,
            "value": value.encode() if isinstance(value, str) else value,
            "headers": None,
        }
        for i, value in enumerate(values)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=PLACED_SCHEMA)


def test_json_becomes_columns_with_what_the_log_says() -> None:
    found = serde.decode(
        source(),
        (),
        placed('{"k":"a","v":1,"x":1.5,"at":"2020-01-01T00:00:00Z"}', '{"v":null,\n"at":1577836800001,"more":[1]}'),
    )
    assert [] == found.dead
    assert [
        {
            "k": "a",
            "v": 1,
            "x": 1.5,
            "at": datetime(2020, 1, 1, tzinfo=UTC),
            "_time": 1_000,
            "_key": None,
            "_offset": 10,
        },
        {
            "k": None,
            "v": None,
            "x": None,
            "at": datetime(2020, 1, 1, 0, 0, 0, 1_000, tzinfo=UTC),
            "_time": 1_001,
            "_key": None,
            "_offset": 11,
        },
    ] == found.frame.to_dicts()


@pytest.mark.parametrize(
    "poison",
    ["", "{", "null", "[1]", '"x"', '{"v":"x"}', '{"v":1} {"v":2}', '{"at":"yesterday"}', b"\xff\xfe", "{}}", "  "],
)
def test_a_record_that_does_not_fit_is_set_aside_and_stops_no_other(poison: Any) -> None:
    found = serde.decode(source(), (), placed('{"v":1}', poison, '{"v":3}'))
    assert [1, 3] == found.frame.get_column("v").to_list()
    assert [11] == [each.offset for each in found.dead]
    assert found.dead[0].error.startswith("InvalidValue: ")
    assert (poison if isinstance(poison, bytes) else poison.encode()) == found.dead[0].value


@given(st.lists(st.sampled_from(['{"v":1}', '{"v":2}', "{", "", "null", '{"v":"x"}']), min_size=1, max_size=20))
def test_whether_a_record_fits_does_not_depend_on_its_neighbours(values: list[str]) -> None:
    found = serde.decode(source(), (), placed(*values))
    alone = [serde.decode(source(), (), placed(value)) for value in values]
    assert [row for each in alone for row in each.frame.get_column("v").to_list()] == found.frame.get_column(
        "v"
    ).to_list()
    assert [dead.error for each in alone for dead in each.dead] == [dead.error for dead in found.dead]


VALUES = (
    *("1", "-0", "1.0", "1.5", "1e3", "1e400", "01", "NaN", "tru", "true", "null", "", '"12"', '"x"', '"a", "v": "x"'),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", r'"\ud800"', r'"\q"', r'"\u0041"'),
    *(
        "[1]",
        "[1.5]",
        '["x"]',
        "[",
        "{}",
        '{"v":1}',
        '{"v":1.5}',
        '{"v":',
        "[" * 2_000 + "]" * 2_000,
        "1}{",
        '1, "v":"x"',
    ),
)
TYPES = (
    pl.Int64(),
    pl.Int32(),
    pl.UInt64(),
    pl.Float64(),
    pl.Boolean(),
    pl.String(),
    pl.List(pl.Int64()),
    pl.Decimal(),
)


@pytest.mark.parametrize("dtype", [*TYPES, pl.Struct({"v": pl.Int64()})], ids=str)
def test_values_are_judged_together_as_each_is_alone(dtype: pl.DataType) -> None:
    values = [f'{{"v":{value}}}' for value in VALUES for _ in range(3)]
    schema = {"v": dtype}
    alone = [serde.decode(source(schema=schema), (), placed(value)) for value in values]
    found = serde.decode(source(schema=schema), (), placed(*values, "poison"))
    assert [dead.value for each in alone for dead in each.dead] == [dead.value for dead in found.dead][:-1]
    assert [dead.error for each in alone for dead in each.dead] == [dead.error for dead in found.dead][:-1]
    assert pl.concat([each.frame.select("v") for each in alone]).equals(found.frame.select("v"))


@pytest.mark.parametrize("dtype", [pl.Int64(), pl.UInt64(), pl.Int8(), pl.UInt32()], ids=str)
@pytest.mark.parametrize("fraction", ["1.5", "-0.5", "1e-3", "9007199254740993.5"])
def test_a_fraction_is_refused_by_an_integer_column_and_not_truncated(dtype: pl.DataType, fraction: str) -> None:
    found = serde.decode(source(schema={"v": dtype}), (), placed('{"v":1}', f'{{"v":{fraction}}}', '{"v":3}'))
    assert [1, 3] == found.frame.get_column("v").to_list()
    assert [11] == [each.offset for each in found.dead]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_poison_costs_one_look_at_each_record_and_no_search(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    read = pl.read_ndjson

    def counted(*args: Any, **kwargs: Any) -> pl.DataFrame:
        calls.append(1)
        return read(*args, **kwargs)

    monkeypatch.setattr(pl, "read_ndjson", counted)
    values = ['{"v":1.5}' if number % every == 0 else '{"v":1}' for number in range(1_000)]
    found = serde.decode(source(), (), placed(*values))
    assert 1_000 - len(range(0, 1_000, every)) == found.frame.height
    assert len(range(0, 1_000, every)) == len(found.dead)
    assert len(calls) <= 2


@pytest.mark.parametrize(
    "dtype", [pl.Int8(), pl.Int16(), pl.Int32(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.Float32()]
)
def test_narrow_numbers_are_read_and_those_that_do_not_fit_set_aside(dtype: pl.DataType) -> None:
    found = serde.decode(source(schema={"v": dtype}), (), placed('{"v":7}', '{"v":null}', '{"v":1e300}', '{"v":"x"}'))
    assert [7, None] == found.frame.get_column("v").to_list()[:2]
    assert 13 in {each.offset for each in found.dead}
    assert dtype == found.frame.schema["v"]


def test_dates_and_times_have_one_form_whatever_comes_first() -> None:
    schema = {"day": pl.Date(), "at": pl.Time()}
    rows = ('{"day":"2020/01/02"}', '{"day":"2020-01-02","at":"03:04:05"}', '{"at":"3 pm"}')
    found = serde.decode(source(schema=schema), (), placed(*rows))
    assert [10, 12] == [each.offset for each in found.dead]
    assert [("2020-01-02", "03:04:05")] == [(str(day), str(at)) for day, at in found.frame.select("day", "at").rows()]


def test_event_time_comes_from_a_column_and_a_row_without_is_dead() -> None:
    found = serde.decode(
        source(time="at", schema={"v": pl.Int64()}),
        (),
        placed('{"v":1,"at":"1970-01-01T00:00:05Z"}', '{"v":2}', '{"v":3,"at":7000}'),
    )
    assert ["v", "_time", "_key", "_offset"] == found.frame.columns
    assert [(1, 5_000), (3, 7_000)] == found.frame.select("v", "_time").rows()
    assert ["InvalidTime: column 'at' holds None, which is no time in ms"] == [each.error for each in found.dead]


def test_tombstones_delete_from_tables_and_are_nothing_to_streams() -> None:
    rows = placed('{"k":"a","v":1}', None, keys=[b"a", b"b"])
    table = serde.decode(source(kind="table", key=("k",)), (), rows)
    assert [("a", 1, 1), ("b", None, -1)] == table.frame.select("k", "v", "_weight").rows()
    stream = serde.decode(source(), (), rows)
    assert [("a", 1)] == stream.frame.select("k", "v").rows()


def test_bytes_stay_as_they_are() -> None:
    schema = {"value": pl.Binary()}
    found = serde.decode(source(format="bytes", schema=schema), (), placed(b"\xff", "x"))
    assert [b"\xff", b"x"] == found.frame.get_column("value").to_list()


def test_a_record_may_hold_a_frame() -> None:
    frame = pl.DataFrame({"k": ["a", "b"], "v": [1, 2], "x": [0.5, None], "at": [datetime(2020, 1, 1, tzinfo=UTC)] * 2})
    frame = frame.cast({"at": pl.Datetime("ms", "UTC")})
    found = serde.decode(source(format="frame", time="v"), (), placed(*serde.pack(frame), b"damaged"))
    assert frame.rows() == found.frame.select(frame.columns).rows()
    assert [1, 2] == found.frame.get_column("_time").to_list()
    assert [11] == [each.offset for each in found.dead]


def test_frames_bring_the_event_times_of_their_rows() -> None:
    schema = {"k": pl.String(), "v": pl.Int64()}
    rows = pl.DataFrame({"k": ["a", "b"], "v": [1, 2], "_time": [5, 900], "_wm": [0, 0]})
    _, records = next(serde.encode_by_partition(sink(format="frame", key=()), rows, 1, 0))
    found = serde.decode(source(format="frame", schema=schema), (), placed(*records.column("value").to_pylist()))
    assert [("a", 1, 5), ("b", 2, 900)] == found.frame.select("k", "v", "_time").rows()
    assert ["k", "v", "_time", "_key", "_offset"] == found.frame.columns


def test_frames_of_a_table_bring_what_is_gone() -> None:
    schema = {"k": pl.String(), "v": pl.Int64()}
    changes = pl.DataFrame({"k": ["a", "a", "b"], "v": [1, 2, 3], "_time": [5, 6, 7], "_weight": [-1, 1, -1]})
    changes = changes.with_columns(pl.col("_weight").cast(pl.Int8))
    _, records = next(serde.encode_by_partition(sink(format="frame"), changes, 1, 0))
    values = placed(*records.column("value").to_pylist())
    table = serde.decode(source(format="frame", schema=schema, kind="table", key=("k",)), (), values)
    assert [("a", 2, 6, 1), ("b", 3, 7, -1)] == table.frame.select("k", "v", "_time", "_weight").rows()
    stream = serde.decode(source(format="frame", schema=schema), (), values)
    assert [("a", 2)] == stream.frame.select("k", "v").rows(), "as tombstones of other formats are passed over"
    alone = pl.DataFrame({"k": ["c"], "v": [4]}, schema=schema)
    read = serde.decode(source(format="frame", schema=schema, kind="table", key=("k",)), (), placed(*serde.pack(alone)))
    assert [("c", 4, 1_000, 1)] == read.frame.select("k", "v", "_time", "_weight").rows(), "frames of others need none"


def test_frames_come_back_and_damaged_ones_are_named() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1], []]})
    assert frame.equals(serde.unpack(serde.pack(frame)[0]))
    with pytest.raises(Corrupt, match="does not hold a frame"):
        serde.unpack(b"nothing")


def test_large_frames_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.streams.serde.packing.STREAMS_FRAME_BYTES", 1_000)
    frame = pl.DataFrame({"a": list(range(1_000))})
    parts = serde.pack(frame)
    assert len(parts) > 5
    assert frame.equals(pl.concat([serde.unpack(part) for part in parts]))


KEYS: list[tuple[dict[str, pl.DataType], dict[str, Any], bytes | None]] = [
    ({"k": pl.String()}, {"k": "ä"}, "ä".encode()),
    ({"k": pl.Binary()}, {"k": b"\xff"}, b"\xff"),
    ({"k": pl.Int32()}, {"k": -7}, b"-7"),
    ({"k": pl.String()}, {"k": None}, None),
    ({"k": pl.Boolean()}, {"k": True}, b"true"),
    ({"k": pl.Datetime("us", "UTC")}, {"k": datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)}, b"2000"),
    ({"a": pl.String(), "b": pl.Int64()}, {"a": "x", "b": 1}, b'{"a":"x","b":1}'),
]


@pytest.mark.parametrize(("schema", "row", "key"), KEYS)
def test_keys_are_text_that_comes_back_as_columns(
    schema: dict[str, pl.DataType], row: dict[str, Any], key: bytes | None
) -> None:
    frame = pl.DataFrame([row], schema=schema)
    made = serde.key_array(frame, list(schema))
    assert [key] == made.to_pylist()
    back = serde.key_frame(pl.Series("key", made.to_pylist(), dtype=pl.Binary), list(schema), schema)
    assert frame.equals(back)


def sink(**given: Any) -> Sink:
    given = {"key": ("k",), "format": "json", "schema": {"k": pl.String(), "v": pl.Int64()}} | given
    return Sink(name="to", topic="out", **given)


def test_rows_become_json_records_in_the_partition_of_their_key() -> None:
    frame = pl.DataFrame({"k": ["a", "b", None], "v": [1, 2, 3], "_time": [5, 6, -1], "_wm": [0, 0, 0]})
    parts = dict(serde.encode_by_partition(sink(), frame, 4, 2))
    wanted = dict(
        zip(["a", "b", None], [*partitioner.partitions_of(pa.array(["a", "b"]), 4).to_pylist(), 2], strict=True)
    )
    for partition, records in parts.items():
        for key in records.column("key").to_pylist():
            assert wanted[key.decode() if key else None] == partition
    assert {b'{"k":"a","v":1}', b'{"k":"b","v":2}', b'{"k":null,"v":3}'} == {
        value for records in parts.values() for value in records.column("value").to_pylist()
    }


def test_of_a_table_the_last_word_on_each_key_is_written() -> None:
    frame = pl.DataFrame(
        {"k": ["a", "a", "b", "c", "c"], "v": [1, 2, 3, 4, 5], "_time": [1, 2, 3, 4, 5], "_weight": [-1, 1, -1, -1, 1]}
    )
    records = serde.encode(sink(), frame)
    assert [b"a", b"b", b"c"] == records.column("key").to_pylist()
    assert [b'{"k":"a","v":2}', None, b'{"k":"c","v":5}'] == records.column("value").to_pylist()


def test_times_and_bytes_have_a_form_in_json_that_is_read_again() -> None:
    schema = {"at": pl.Datetime("ms", "UTC"), "day": pl.Date(), "raw": pl.Binary()}
    frame = pl.DataFrame({"at": [86_400_001], "day": [1], "raw": [b"\xff"]}).cast({"at": pl.Datetime("ms")})
    frame = frame.with_columns(pl.col("at").dt.replace_time_zone("UTC"), pl.col("day").cast(pl.Date), _time=pl.lit(1))
    records = serde.encode(sink(key=(), schema=schema), frame)
    assert [b'{"at":"1970-01-02T00:00:00.001Z","day":"1970-01-02","raw":"/w=="}'] == records.column("value").to_pylist()
    back = serde.decode(source(schema=schema), (), placed(*records.column("value").to_pylist()))
    assert frame.select("at", "day", "raw").equals(back.frame.select("at", "day", "raw"))


def test_what_cannot_be_written_says_what_can() -> None:
    frame = pl.DataFrame({"k": ["a"], "v": [1], "_time": [1]})
    with pytest.raises(InvalidRequest, match="avro"):
        serde.encode(sink(format="avro"), frame)
    with pytest.raises(InvalidRequest, match="the one column"):
        serde.encode(sink(format="bytes"), frame)


def test_dead_letters_say_where_they_come_from() -> None:
    found = serde.decode(source(), (), placed("{", keys=[b"key"]))
    letters = serde.dead_records("job", source(), 3, found.dead)
    headers = {each["key"]: each["value"] for each in letters.column("headers").to_pylist()[0]}
    assert (b"key", b"{") == (letters.column("key")[0].as_py(), letters.column("value")[0].as_py())
    assert (b"InvalidValue", b"job", b"s", b"t", b"3", b"10") == tuple(
        headers[f"__streams.errors.{name}"] for name in ("exception", "job", "operator", "topic", "partition", "offset")
    )


def test_rows_that_a_function_refused_are_dead_letters_too() -> None:
    frame = pl.DataFrame(
        {"v": [1], "_time": [7], "_offset": [4], "_key": [b"k"], "_error": ["ValueError: no: not that"]}
    )
    letters = serde.dead_rows("job", "map-1", 2, frame, 0)
    headers = {each["key"]: each["value"] for each in letters.column("headers").to_pylist()[0]}
    assert b'{"v":1}' == letters.column("value")[0].as_py()
    assert (b"ValueError", b"no: not that", b"4") == tuple(
        headers[f"__streams.errors.{name}"] for name in ("exception", "message", "offset")
    )
