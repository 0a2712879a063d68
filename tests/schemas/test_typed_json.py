"""JSON values: the check of what comes in, and typed columns of what is there."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.schemas import build
from headwater.schemas.typed import check, typed
from tests.schemas.helpers_schemas import binary, version

FLIGHTS = version(
    "json",
    {
        "type": "object",
        "properties": {
            "year": {"type": "integer", "minimum": 1900},
            "delay": {"type": ["number", "null"]},
            "carrier": {"enum": ["UA", "AA"]},
            "at": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "legs": {
                "type": "array",
                "items": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
            },
        },
        "required": ["year"],
    },
)
GOOD = b'{"year": 2013, "delay": 1.5, "carrier": "UA", "at": "2013-01-01T10:00:00Z", "day": "2013-01-01",\n "legs": [{"to": "IAH"}]}'  # noqa: E501

LOCAL = dt.datetime(2013, 1, 1, 10)  # noqa: DTZ001 - a time without a zone


def rows(schema: Any, *values: bytes | None, **options: Any) -> list[dict[str, Any]]:
    return typed(schema, binary(*values), **options).to_pylist()


def alone(type_: str, text: str) -> Any:
    """What one column of this type makes of a JSON value; an error's message if the check refuses it."""
    schema = version("arrow", {"a": type_})
    value = f'{{"a": {text}}}'.encode()
    found = rows(schema, value)[0]["a"]
    try:
        check(schema, [value])
    except InvalidRequest as error:
        assert found is None
        return error.message
    return found


# -- what fits ----------------------------------------------------------------------------------------------------


def test_values_become_columns_in_the_order_of_the_schema() -> None:
    found = typed(FLIGHTS, binary(GOOD, None, b'{"year": 2014, "other": 1}'), strict=True)
    assert build.nullable(FLIGHTS.columns) == found.schema
    assert [
        {
            "year": 2013,
            "delay": 1.5,
            "carrier": "UA",
            "at": dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC),
            "day": dt.date(2013, 1, 1),
            "legs": [{"to": "IAH"}],
        },
        dict.fromkeys(found.schema.names),
        {**dict.fromkeys(found.schema.names), "year": 2014},
    ] == found.to_pylist()


def test_no_values_are_no_rows() -> None:
    check(FLIGHTS, [])
    assert build.nullable(FLIGHTS.columns) == typed(FLIGHTS, binary()).schema
    assert 0 == typed(FLIGHTS, binary()).num_rows
    assert [None, None] == typed(FLIGHTS, binary(None, None), strict=True).column("year").to_pylist()


def test_a_column_of_chunks_is_taken_too() -> None:
    chunks = pa.chunked_array([[b'{"year": 2000}'], [b'{"year": 2001}']], pa.binary())
    assert [2000, 2001] == typed(FLIGHTS, chunks).column("year").to_pylist()


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("int8", "-128", -128),
        ("uint8", "255", 255),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("int64", "-9223372036854775808", -(2**63)),
        ("float", "1.5", 1.5),
        ("double", "3", 3.0),
        ("double", "18446744073709551616", 2.0**64),
        ("bool", "true", True),
        ("string", '"\\u00e9\\n"', "é\n"),
        ("large_string", '"x"', "x"),
        ("binary", '"aGk="', b"hi"),
        ("large_binary", '""', b""),
        ("fixed_size_binary[2]", '"aGk="', b"hi"),
        ("decimal128(5, 2)", "1.5", Decimal("1.50")),
        ("decimal128(5, 2)", '"-999.99"', Decimal("-999.99")),
        ("decimal128(20, 0)", "18446744073709551616", Decimal(2**64)),
        ("date32[day]", '"1969-12-31"', dt.date(1969, 12, 31)),
        ("time32[s]", '"10:00:01"', dt.time(10, 0, 1)),
        ("time64[us]", '"10:00:00.000001"', dt.time(10, 0, 0, 1)),
        ("timestamp[s, tz=UTC]", '"2013-01-01T10:00:00.9Z"', dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC)),
        ("timestamp[ms, tz=UTC]", '"2013-01-01T10:00:00.0019Z"', dt.datetime(2013, 1, 1, 10, 0, 0, 1000, dt.UTC)),
        ("timestamp[us, tz=UTC]", '"2013-01-01T10:00:00+02:00"', dt.datetime(2013, 1, 1, 8, tzinfo=dt.UTC)),
        ("timestamp[us, tz=UTC]", '"2013-01-01T10:00:00"', dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC)),
        ("timestamp[us, tz=UTC]", '"2013-01-01T10:00:00.0000014Z"', dt.datetime(2013, 1, 1, 10, 0, 0, 1, dt.UTC)),
        ("timestamp[us]", '"2013-01-01T10:00:00"', LOCAL),
        ("timestamp[us]", "null", None),
        ("list<item: int8>", "[1, null]", [1, None]),
        ("list<item: date32[day]>", '["2013-01-01"]', [dt.date(2013, 1, 1)]),
        ("map<string, int8>", '{"x": 1, "y": null}', [("x", 1), ("y", None)]),
        ("map<string, list<item: decimal128(3, 1)>>", '{"x": [1.5]}', [("x", [Decimal("1.5")])]),
        ("struct<x: int8, y: timestamp[s]>", '{"y": "2013-01-01T10:00:00"}', {"x": None, "y": LOCAL}),
        ("struct<x: binary not null>", '{"x": "aGk="}', {"x": b"hi"}),
    ],
)  # fmt: skip
def test_a_value_of_each_type(type_: str, text: str, value: Any) -> None:
    assert value == alone(type_, text)


# -- what does not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "text", "reason"),
    [
        ("int8", "128", "expected `int` <= 127"),
        ("int64", "9223372036854775808", "expected `int` <= 9223372036854775807"),
        ("uint8", "-1", "expected `int` >= 0"),
        ("uint64", "18446744073709551616", "uint64 cannot hold it"),
        ("int64", "1.0", "expected `int | null`, got `float`"),
        ("int64", '"1"', "expected `int | null`, got `str`"),
        ("int64", "true", "expected `int | null`, got `bool`"),
        ("float", "1e39", "expected `float` <= 3.4028234663852886e+38"),
        ("double", "1e400", "Number out of range"),
        ("string", "1", "expected `str | null`, got `int`"),
        ("binary", '"%"', "Invalid base64 encoded string"),
        ("fixed_size_binary[2]", '"aA=="', "expected `bytes` of length >= 2"),
        ("decimal128(5, 2)", "1.555", "decimal128(5, 2) cannot hold it"),
        ("decimal128(5, 2)", '"1000"', "decimal128(5, 2) cannot hold it"),
        ("decimal128(5, 2)", '"NaN"', "decimal128(5, 2) cannot hold it"),
        ("date32[day]", '"2013-02-30"', "Invalid RFC3339 encoded date"),
        ("date32[day]", "15706", "expected `date | null`, got `int`"),
        ("timestamp[us]", '"yesterday"', "Invalid RFC3339 encoded datetime"),
        ("list<item: int8 not null>", "[1, null]", "expected `int`, got `null`"),
        ("struct<x: int8 not null>", "{}", "object missing required field `x`"),
        ("map<string, int8>", '[["x", 1]]', "expected `object | null`, got `array`"),
    ],
)
def test_a_value_that_a_type_cannot_hold(type_: str, text: str, reason: str) -> None:
    assert reason in alone(type_, text)
    assert "field 'a" in alone(type_, text)


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (b"", "", "Input data was truncated"),
        (b"null", "", "expected `object`, got `null`"),
        (b"[]", "", "expected `object`, got `array`"),
        (b"{}", "year", "object missing required field `year`"),
        (b'{"year": 1}', "year", "expected `int` >= 1900"),
        (b'{"year": 2000, "carrier": "XX"}', "carrier", "Invalid enum value 'XX'"),
        (b'{"year": 2000, "legs": [{"to": "a"}, {"to": 1}]}', "legs[1].to", "expected `str`, got `int`"),
        (b'{"year": 2000, "legs": [{}]}', "legs[0].to", "object missing required field `to`"),
        (b'{"year": 2000', "", "Input data was truncated"),
        (b'{"year": 2000}{"year": 2001}', "", "JSON is malformed: trailing characters (byte 15)"),
        (b'{"year": 2000},"z":2', "", "JSON is malformed: trailing characters (byte 15)"),
        (b'{"year": 2000, "carrier": "\xff"}', "", "it is not UTF-8"),
        (b'{"year": NaN}', "", "JSON is malformed: invalid character (byte 9)"),
        (b'{"year": 2000, "x": ' + b"[" * 100_000, "", "it is nested too deep"),
    ],
)
def test_the_first_row_that_does_not_fit_is_named_with_its_field(value: bytes, field: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(FLIGHTS, [GOOD, None, value, b"too"], where="of the batch for topic 'f'", offsets=[7, 8, 9, 10])
    named = f"field '{field}': " if field else ""
    assert caught.value.message.startswith(
        f"Row 2 of the batch for topic 'f' (offset 9) does not fit version 1 of the topic's schema: {named}{reason}"
    )
    assert (2, field, 1) == tuple(caught.value.data[name] for name in ("row", "field", "schema_version"))
    with pytest.raises(InvalidRequest, match=r"^Row 2 "):
        typed(FLIGHTS, binary(GOOD, None, value), strict=True)


HOSTILE = [
    *(b'{"year": 1}}', b'{"year": 1}}\n{"v": {"year": 2}', b'"a', b'"', b"{", b"}", b"[", b"", b" ", b"\n", b"1,2"),
    *(b'{"year": 1},"v":{"year": 2}', b'{"year": 1},"w":[', b"]", b'{"year": 1} // x', b"/*", b"*/", b"\0", b"\xff"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([GOOD, b'{"year": 5}', None, *HOSTILE]) | st.binary(max_size=12), max_size=8))
def test_no_value_moves_the_rows_of_others(values: list[bytes | None]) -> None:
    expected = [{GOOD: 2013, b'{"year": 5}': 5}.get(value or b"") for value in values]
    assert expected == typed(FLIGHTS, binary(*values)).column("year").to_pylist()


def test_the_columns_alone_decide_what_is_read_and_the_definition_what_comes_in() -> None:
    value = b'{"year": 1, "carrier": "XX"}'
    assert {"year": 1, "carrier": "XX"}.items() <= rows(FLIGHTS, value)[0].items()
    with pytest.raises(InvalidRequest):
        check(FLIGHTS, [value])


def test_a_required_field_may_be_null_and_not_missing_and_a_closed_object_has_no_others() -> None:
    closed = version(
        "json",
        {"properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"], "additionalProperties": False},
    )
    check(closed, [b'{"a": null}', b'{"a": 1}'])
    for value in (b"{}", b'{"a": 1, "b": 2}'):
        with pytest.raises(InvalidRequest):
            check(closed, [value])


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "exclusiveMinimum": 1, "maximum": 3}, "2", "1"),
        ({"type": "number", "exclusiveMaximum": 1}, "0.5", "1"),
        ({"type": "integer", "multipleOf": 5}, "10", "11"),
        ({"type": "string", "minLength": 2, "maxLength": 2}, '"ab"', '"abc"'),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, "[1]", "[1, 2]"),
        ({"enum": [1, 3]}, "3", "2"),
        ({"const": "x"}, '"x"', '"y"'),
    ],
)
def test_every_bound_that_is_taken_is_checked(schema: dict[str, Any], good: str, bad: str) -> None:
    bounded = version("json", {"properties": {"a": schema}})
    check(bounded, [f'{{"a": {good}}}'.encode(), b'{"a": null}'])
    with pytest.raises(InvalidRequest):
        check(bounded, [f'{{"a": {bad}}}'.encode()])


def test_the_two_readers_agree_where_arrow_s_refuses_a_value_that_fits() -> None:
    twice, fine = b'{"year": 1, "year": 2}', b'{"year": 3, "at": "2013-01-01T10:00:00.1234567Z"}'
    assert [2, 3, 4] == typed(FLIGHTS, binary(twice, fine, b'{"year": 4}')).column("year").to_pylist()
    assert [2] == typed(FLIGHTS, binary(twice)).column("year").to_pylist()


# -- versions -----------------------------------------------------------------------------------------------------


def test_old_values_are_read_by_the_newest_version() -> None:
    one = version("arrow", {"a": "int32 not null", "b": "struct<x: float>"})
    two = version("arrow", {"a": "int64", "b": "struct<x: double, y: string>", "c": "string"}, 2)
    old, new = b'{"a": 1, "b": {"x": 0.5}}', b'{"a": 8589934592, "b": {"x": 0.1, "y": "z"}, "c": "d"}'
    for value in (old, b'{"a": -1}'):
        check(one, [value])
        check(two, [value])
    assert [
        {"a": 1, "b": {"x": 0.5, "y": None}, "c": None},
        {"a": 1 << 33, "b": {"x": 0.1, "y": "z"}, "c": "d"},
    ] == rows([one, two], old, new, strict=True)


# -- any column ---------------------------------------------------------------------------------------------------

COLUMNS = {
    "i": "int16 not null",
    "d": "decimal128(7, 3)",
    "t": "timestamp[ms, tz=UTC]",
    "b": "binary",
    "s": "string",
    "l": "list<item: struct<x: int8 not null, y: list<item: string>>>",
    "m": "map<string, double>",
}
_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)


def _null(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_items = st.fixed_dictionaries({"x": st.integers(-128, 127), "y": _null(st.lists(_null(_texts), max_size=2))})
_rows = st.fixed_dictionaries(
    {
        "i": st.integers(-(2**15), 2**15 - 1),
        "d": _null(st.integers(-9_999_999, 9_999_999).map(lambda number: Decimal(number).scaleb(-3))),
        "t": _null(st.integers(-(10**12), 10**12).map(lambda ms: _EPOCH + dt.timedelta(milliseconds=ms))),
        "b": _null(st.binary(max_size=5)),
        "s": _null(_texts),
        "l": _null(st.lists(_null(_items), max_size=3)),
        "m": _null(st.dictionaries(_texts, _null(st.floats(allow_nan=False, allow_infinity=False)), max_size=2)),
    }
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_rows, max_size=4))
def test_rows_survive_the_way_to_json_and_back(given_rows: list[dict[str, Any]]) -> None:
    import msgspec

    schema = version("arrow", COLUMNS)
    values = [msgspec.json.encode(row) for row in given_rows]
    expected = [{**row, "m": None if row["m"] is None else list(row["m"].items())} for row in given_rows]
    assert expected == rows(schema, *values, strict=True)
    spaced = [json.dumps(json.loads(value), indent=2).encode() for value in values]
    assert expected == rows(schema, *spaced, strict=True)
