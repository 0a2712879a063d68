"""Avro values: bare and framed datums, of one version and of several, and bytes that are none."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.schemas import build, datums
from headwater.schemas.typed import check, typed
from tests.schemas.helpers_schemas import binary, datum, record, version

INNER = record(("x", "int"), ("y", ["null", "string"]), name="Inner")
EVERYTHING = record(
    ("b", "boolean"),
    ("i", "int"),
    ("l", "long"),
    ("f", "float"),
    ("d", "double"),
    ("s", "string"),
    ("raw", "bytes"),
    ("day", {"type": "int", "logicalType": "date"}),
    ("at", {"type": "long", "logicalType": "timestamp-micros"}),
    ("ms", ["null", {"type": "long", "logicalType": "timestamp-millis"}]),
    ("local", {"type": "long", "logicalType": "local-timestamp-micros"}),
    ("clock", {"type": "int", "logicalType": "time-millis"}),
    ("price", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
    ("rate", {"type": "fixed", "name": "Rate", "size": 4, "logicalType": "decimal", "precision": 5, "scale": 4}),
    ("id", {"type": "string", "logicalType": "uuid"}),
    ("color", {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}),
    ("hash", {"type": "fixed", "name": "Hash", "size": 2}),
    ("tags", {"type": "map", "values": ["null", "int"]}),
    ("legs", {"type": "array", "items": INNER}),
    ("last", ["Inner", "null"]),
)
ROW = {
    "b": True,
    "i": -5,
    "l": 1 << 40,
    "f": 1.5,
    "d": 0.1,
    "s": "é",
    "raw": b"\0\xff",
    "day": dt.date(2013, 1, 1),
    "at": dt.datetime(2013, 1, 1, 10, 0, 0, 123456, dt.UTC),
    "ms": dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC),
    "local": dt.datetime(2013, 1, 1, 10),  # noqa: DTZ001 - a time without a zone
    "clock": dt.time(10, 0, 1),
    "price": Decimal("-1234567.89"),
    "rate": Decimal("1.2345"),
    "id": "5c8b3f57-8e54-4a4e-9d0a-6f2f0a4f2b11",
    "color": "BLUE",
    "hash": b"ab",
    "tags": {"k": 1, "n": None},
    "legs": [{"x": 1, "y": "z"}, {"x": 2, "y": None}],
    "last": {"x": 3, "y": None},
}
ONE = version("avro", record(("a", "int"), ("s", "string")))
TWO_TEXT = record(("a", "long"), ("s", "string"), ("n", ["null", "int"]))
TWO = version("avro", TWO_TEXT, 2)


def one(a: int, s: str) -> bytes:
    return datum(record(("a", "int"), ("s", "string")), {"a": a, "s": s})


def two(a: int, s: str, n: int | None) -> bytes:
    return datum(TWO_TEXT, {"a": a, "s": s, "n": n})


def test_every_type_becomes_its_column() -> None:
    schema = version("avro", EVERYTHING)
    found = typed(schema, binary(datum(EVERYTHING, ROW), None, datum(EVERYTHING, {**ROW, "ms": None})), strict=True)
    assert build.nullable(schema.columns) == found.schema
    first, tombstone, other = found.to_pylist()
    assert {**ROW, "tags": [("k", 1), ("n", None)]} == first
    assert dict.fromkeys(ROW) == tombstone
    assert other["ms"] is None


def test_no_values_are_no_rows() -> None:
    check(ONE, [])
    assert 0 == typed(ONE, binary()).num_rows
    assert [None] == typed([ONE, TWO], binary(None), strict=True).column("a").to_pylist()


def test_bare_and_framed_datums_stand_side_by_side() -> None:
    values = [one(1, "x"), datums.framed(1, one(2, "y")), None, one(3, "")]
    check(ONE, values)
    assert [1, 2, None, 3] == typed(ONE, binary(*values), strict=True).column("a").to_pylist()


def test_each_value_is_read_by_the_version_that_wrote_it_and_shown_by_the_newest() -> None:
    values = [
        datums.framed(2, two(1 << 40, "new", 7)),
        one(1, "bare"),
        datums.framed(1, one(2, "old")),
        None,
        datums.framed(2, two(3, "", None)),
    ]
    check([ONE, TWO], values)
    assert [
        {"a": 1 << 40, "s": "new", "n": 7},
        {"a": 1, "s": "bare", "n": None},
        {"a": 2, "s": "old", "n": None},
        {"a": None, "s": None, "n": None},
        {"a": 3, "s": "", "n": None},
    ] == typed([ONE, TWO], binary(*values), strict=True).to_pylist()


def test_a_bare_datum_is_of_version_1_and_nothing_else() -> None:
    with pytest.raises(InvalidRequest, match=r"read as version 1"):
        check([ONE, TWO], [two(1, "x", 2)])
    assert [None] == typed([ONE, TWO], binary(two(1, "x", 2))).column("a").to_pylist()


def test_a_frame_of_a_version_that_is_not_there_is_refused() -> None:
    value = datums.framed(3, two(1, "x", 2))
    with pytest.raises(InvalidRequest, match=r"Row 1 .* framed with version 3, and the versions are 1 to 2"):
        check([ONE, TWO], [one(1, "x"), value])
    assert [1, None] == typed([ONE, TWO], binary(one(1, "x"), value)).column("a").to_pylist()


def test_five_bytes_that_look_like_a_frame_are_one() -> None:
    five = record(*((f"f{number}", "int") for number in range(5)))
    schema = version("avro", five)
    bare = datum(five, {"f0": 0, "f1": 0, "f2": 0, "f3": 0, "f4": -1})
    assert b"\0\0\0\0\1" == bare
    with pytest.raises(InvalidRequest, match="field 'f0'"):
        check(schema, [bare])
    check(schema, [datums.framed(1, bare), datum(five, {f"f{n}": 0 for n in range(5)})])


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (b"", "a", "the bytes end inside it"),
        (b"\2", "s", "the bytes end inside it"),
        (one(1, "abc")[:-1], "s", "Expected 3 bytes, read 2"),
        (one(1, "abc") + b"\0", "", "bytes follow its last field"),
        (b"\2\x04\xff\xfe", "s", "'utf-8' codec can't decode"),
        (b"\2\3", "s", ""),  # a text of -2 bytes
        (b"\xff" * 20, "a", ""),
        (b"\2" + b"\xfe" * 9 + b"\1", "s", ""),  # a text of exabytes
        (b'{"a": 1, "s": "x"}', "s", ""),
    ],
)
def test_bytes_that_are_no_datum_are_named_with_row_and_field(value: bytes, field: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(ONE, [one(1, "x"), None, value, one(2, "y")])
    assert (2, field) == (caught.value.data["row"], caught.value.data["field"])
    assert reason in caught.value.message
    assert [1, None, None, 2] == typed(ONE, binary(one(1, "x"), None, value, one(2, "y"))).column("a").to_pylist()
    with pytest.raises(InvalidRequest, match=r"^Row 2 "):
        typed(ONE, binary(one(1, "x"), None, value), strict=True)


def test_a_value_too_short_does_not_hide_behind_one_too_long() -> None:
    whole = one(1, "abcdef") + one(2, "ghi")
    for cut in range(len(whole) + 1):
        values = [whole[:cut], whole[cut:]]
        fits = [1, 2] if values[0] == one(1, "abcdef") else [None, None]
        assert fits == typed(ONE, binary(*values)).column("a").to_pylist()


def test_a_number_of_more_than_its_bits_is_null_where_it_is_read() -> None:
    values = [one(1, "x"), datum(record(("a", "long"), ("s", "string")), {"a": 1 << 40, "s": "x"})]
    assert [1, None] == typed(ONE, binary(*values)).column("a").to_pylist()
    with pytest.raises(InvalidRequest, match=r"Row 1 .*field 'a': int32 cannot hold it"):
        typed(ONE, binary(*values), strict=True)


def test_a_decimal_of_too_many_digits_is_refused_whatever_its_size() -> None:
    plain = record(("p", "bytes"))
    schema = version("avro", record(("p", {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1})))
    assert [Decimal("-99.9")] == typed(
        schema, binary(datum(plain, {"p": (-999).to_bytes(2, "big", signed=True)}))
    ).column("p").to_pylist()
    for data in ((1000).to_bytes(2, "big"), b"\x01" * 1_000_000):
        with pytest.raises(InvalidRequest, match="field 'p': a decimal has more than 3 digits"):
            check(schema, [datum(plain, {"p": data})])
    assert [Decimal("0.0")] == typed(schema, binary(datum(plain, {"p": b""}))).column("p").to_pylist()


def test_an_array_that_claims_more_than_there_is_ends_with_the_bytes() -> None:
    schema = version("avro", record(("a", {"type": "array", "items": "int"})))
    with pytest.raises(InvalidRequest, match="field 'a'"):
        check(schema, [b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\0" * 100])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.none() | st.binary(max_size=12) | st.builds(one, st.integers(-9, 9), st.text(max_size=3)), max_size=6)
)
def test_no_value_moves_the_rows_of_others(values: list[bytes | None]) -> None:
    alone: list[Any] = []
    for value in values:
        alone += typed([ONE, TWO], binary(value)).column("a").to_pylist()
    assert alone == typed([ONE, TWO], binary(*values)).column("a").to_pylist()


def test_what_is_torn_and_flipped_is_refused_or_read_and_never_more() -> None:
    rng = random.Random(7)
    schema = version("avro", EVERYTHING)
    whole = datum(EVERYTHING, ROW)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        torn = bytes(data[: rng.randrange(len(data) + 1)]) if rng.random() < 0.3 else bytes(data)
        found = typed(schema, binary(whole, torn, whole)).to_pylist()
        assert found[0] == found[2]
        assert found[0]["s"] == "é"


def test_a_definition_that_fastavro_cannot_read_is_refused() -> None:
    datums.check_definition(ONE.definition)
    with pytest.raises(InvalidRequest):
        datums.check_definition('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "none"}]}')


def test_frames_are_those_of_confluent() -> None:
    assert b"\0\0\0\0\2\7" == datums.framed(2, b"\7")


def test_fastavro_reads_our_array_as_any_other() -> None:
    rows = [{"a": number, "s": str(number)} for number in range(300)]
    assert rows == datums.decode(ONE.definition, [one(**row) for row in rows])
    assert fastavro.__version__
