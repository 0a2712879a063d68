"""From definitions to columns, and what is refused with its path."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pyarrow as pa
import pytest

from headwater.errors import InvalidRequest
from headwater.limits import COLUMNS_MAX, SCHEMA_BYTES_MAX
from headwater.log.columns import RESERVED, SCALARS, refusal
from headwater.log.operations import Column
from headwater.schemas import documents
from headwater.schemas.compile import arrow_columns, arrow_schema, compile_schema, definition_text
from tests.schemas.helpers_schemas import record


def described(format: str, definition: Any) -> dict[str, str]:  # noqa: A002
    """Columns as ``{"a": "int32 not null"}``."""
    return {
        each.name: each.type + ("" if each.nullable else " not null") for each in compile_schema(format, definition)
    }


def of_property(schema: Any, **more: Any) -> str:
    """The type of one required property."""
    return described("json", {"type": "object", "properties": {"a": schema}, "required": ["a"], **more})["a"]


# -- JSON Schema --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "column"),
    [
        ({"type": "integer"}, "int64 not null"),
        ({"type": "number", "minimum": 0.5}, "double not null"),
        ({"type": "boolean"}, "bool not null"),
        ({"type": "string", "minLength": 3}, "string not null"),
        ({"type": "string", "format": "date"}, "date32[day] not null"),
        ({"type": "string", "format": "date-time"}, "timestamp[us, tz=UTC] not null"),
        ({"type": "string", "format": "time"}, "time64[us] not null"),
        ({"type": "string", "format": "email"}, "string not null"),
        ({"type": "string", "format": "decimal"}, "decimal128(38, 18) not null"),
        ({"type": "string", "format": "decimal", "precision": 9, "scale": 2}, "decimal128(9, 2) not null"),
        ({"type": "string", "format": "decimal", "precision": 9}, "decimal128(9, 0) not null"),
        ({"type": "string", "contentEncoding": "base64"}, "binary not null"),
        ({"type": ["integer", "null"]}, "int64"),
        ({"type": ["null", "string"], "format": "date"}, "date32[day]"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, "int64"),
        ({"oneOf": [{"type": "null"}, {"type": "number"}]}, "double"),
        ({"allOf": [{"type": "integer"}], "title": "A"}, "int64 not null"),
        ({"enum": ["a", "b"]}, "string not null"),
        ({"enum": ["a", None]}, "string"),
        ({"enum": [1, 2]}, "int64 not null"),
        ({"const": "a"}, "string not null"),
        ({"type": "array", "items": {"type": "integer"}}, "list<item: int64 not null> not null"),
        ({"type": "array", "items": {"type": ["integer", "null"]}}, "list<item: int64> not null"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "map<string, int64> not null"),
        (
            {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["x"]},
            "struct<x: int64 not null, y: string> not null",
        ),
        ({"properties": {"x": {"type": "boolean"}}, "x-note": 1}, "struct<x: bool> not null"),
        ({"$ref": "#/$defs/Two"}, "list<item: date32[day] not null> not null"),
    ],
)
def test_a_property_is_a_column(schema: dict[str, Any], column: str) -> None:
    days = {"type": "array", "items": {"$ref": "#/$defs/a~1day"}}
    assert column == of_property(schema, **{"$defs": {"Two": days, "a/day": {"type": "string", "format": "date"}}})


def test_a_property_that_is_not_required_may_be_null() -> None:
    assert {"a": "int64", "b": "int64 not null"} == described(
        "json", {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]}
    )


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({}, "a"),
        (True, "a"),
        ({"type": "null"}, "a"),
        ({"type": "text"}, "a"),
        ({"type": ["string", "integer"]}, "a"),
        ({"type": "object"}, "a"),
        ({"type": "array"}, "a"),
        ({"type": "array", "items": {"type": "string", "pattern": "x"}}, "a[]"),
        ({"type": "array", "items": {"properties": {"b": {"type": "object"}}}}, "a[].b"),
        ({"type": "object", "additionalProperties": {"type": "map"}}, "a.*"),
        ({"properties": {"b": {"type": "integer"}}, "additionalProperties": {"type": "integer"}}, "a"),
        ({"properties": {"b": {"type": "integer"}}, "required": ["c"]}, "a"),
        ({"properties": {"b": {"type": "integer"}}, "required": "b"}, "a"),
        ({"properties": {"b:c": {"type": "integer"}}}, "a.b:c"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "a"),
        ({"not": {"type": "integer"}}, "a"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "a"),
        ({"anyOf": [{"type": "null"}]}, "a"),
        ({"anyOf": [{"type": "integer"}], "type": "integer"}, "a"),
        ({"anyOf": {"type": "integer"}}, "a"),
        ({"allOf": [{"type": "integer"}, {"minimum": 1}]}, "a"),
        ({"enum": []}, "a"),
        ({"enum": [None]}, "a"),
        ({"enum": [1, "a"]}, "a"),
        ({"enum": [1.5]}, "a"),
        ({"enum": [True]}, "a"),
        ({"enum": [1 << 70]}, "a"),
        ({"enum": "ab"}, "a"),
        ({"type": "integer", "minimum": 1 << 70}, "a"),
        ({"type": "integer", "minimum": 1.5}, "a"),
        ({"type": "integer", "minimum": "1"}, "a"),
        ({"type": "integer", "minimum": True}, "a"),
        ({"type": "integer", "multipleOf": 0}, "a"),
        ({"type": "integer", "minLength": 1}, "a"),
        ({"type": "string", "minLength": -1}, "a"),
        ({"type": "string", "format": "date", "minLength": 1}, "a"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": 0}, "a"),
        ({"type": "string", "contentEncoding": "base32"}, "a"),
        ({"type": "string", "format": "decimal", "precision": 50}, "a"),
        ({"type": "string", "format": "decimal", "precision": "x"}, "a"),
        ({"$ref": "https://example.com/a.json"}, "a"),
        ({"$ref": "#/$defs/none"}, "a"),
        ({"$ref": 5}, "a"),
        ({"$ref": "#/properties/a"}, "a"),
    ],
)
def test_what_a_column_cannot_hold_is_refused_with_its_path(schema: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_property(schema)
    assert path == caught.value.data["field"]
    assert f"at {path}: " in caught.value.message


@pytest.mark.parametrize(
    "definition",
    [
        *("", "{", "5", "null", "[]", "{}", '"x"', b"\xff", "[" * 100_000, '{"a":' * 100_000),
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object"},
        {"properties": {}},
        {"properties": {"a": {"type": "integer"}}, "type": ["object", "null"]},
        {"properties": {'"': {"type": "integer"}}},
        {"properties": {"": {"type": "integer"}}},
        {"properties": {"a\n": {"type": "integer"}}},
        {"properties": {"a" * 250: {"type": "integer"}}},
        {"properties": {str(n): {"type": "integer"} for n in range(COLUMNS_MAX + 1)}},
        *({"properties": {name: {"type": "integer"}}} for name in RESERVED),
        {"$ref": "#"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"b": {"$ref": "#/$defs/A"}}}}},
        5,
        None,
        int,
        [1],
    ],
)
def test_what_is_no_definition_is_refused(definition: Any) -> None:
    with pytest.raises(InvalidRequest):
        compile_schema("json", definition)


def test_references_do_not_multiply_without_end() -> None:
    def level(number: int) -> dict[str, Any]:
        return {"properties": {f"p{n}": {"$ref": f"#/$defs/L{number + 1}"} for n in range(100)}}

    levels = {f"L{number}": level(number) for number in range(14)}
    with pytest.raises(InvalidRequest, match="too large"):
        compile_schema("json", {"$ref": "#/$defs/L0", "$defs": {**levels, "L14": {"type": "integer"}}})


def test_a_type_is_no_longer_than_the_log_can_keep() -> None:
    wide = {"properties": {"x" * 200 + str(number): {"type": "integer"} for number in range(100)}}
    many = {"properties": {f"p{number}": {"$ref": "#/$defs/wide"} for number in range(4)}}
    with pytest.raises(InvalidRequest, match=r"at a: its type takes [0-9]+ characters"):
        of_property({"$ref": "#/$defs/many"}, **{"$defs": {"wide": wide, "many": many}})


def test_a_definition_that_is_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidRequest, match="deep"):
        of_property(deep)


# -- Python classes -----------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Leg:
    airport: str
    at: dt.datetime


@dataclasses.dataclass
class Flight:
    year: int
    color: Color
    kind: Literal["a", "b"]
    delay: float | None
    legs: list[Leg]
    price: decimal.Decimal
    raw: bytes
    tags: dict[str, int]
    day: dt.date
    id: uuid.UUID
    seats: Annotated[int, msgspec.Meta(ge=0, lt=1000)]
    at: dt.time | None = None
    ok: bool = True


class Point(NamedTuple):
    x: int
    y: float | None = None


class Loose(TypedDict):
    x: int
    y: NotRequired[list[str]]


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    long_name: set[int]


class Tree(msgspec.Struct):
    children: list[Tree]


class Tagged(msgspec.Struct, tag=True):
    a: int


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (
            Flight,
            {
                "year": "int64 not null",
                "color": "string not null",
                "kind": "string not null",
                "delay": "double",
                "legs": "list<item: struct<airport: string not null, at: timestamp[us, tz=UTC] not null> not null>"
                " not null",
                "price": "decimal128(38, 18) not null",
                "raw": "binary not null",
                "tags": "map<string, int64> not null",
                "day": "date32[day] not null",
                "id": "string not null",
                "seats": "int64 not null",
                "at": "time64[us]",
                "ok": "bool",
            },
        ),
        (Point, {"x": "int64 not null", "y": "double"}),
        (Loose, {"x": "int64 not null", "y": "list<item: string not null>"}),
        (Renamed, {"longName": "list<item: int64 not null> not null"}),
    ],
)
def test_a_class_is_its_fields(given: type, columns: dict[str, str]) -> None:
    assert columns == described("json", given)
    assert columns == described("json", definition_text("json", given))


@pytest.mark.parametrize("given", [int, list, Tree, Tagged, Color, TypedDict("E", {"a": complex}), object])  # type: ignore[misc]
def test_a_class_that_is_no_object_of_columns_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest):
        compile_schema("json", given)


def test_classes_and_arrow_schemas_go_with_their_own_format() -> None:
    with pytest.raises(InvalidRequest, match="'arrow'"):
        compile_schema("json", pa.schema([("a", pa.int8())]))
    for format_ in ("avro", "arrow"):
        with pytest.raises(InvalidRequest, match="JSON"):
            compile_schema(format_, Point)
    with pytest.raises(InvalidRequest, match="json, avro and arrow"):
        compile_schema("xml", "{}")


# -- Avro ---------------------------------------------------------------------------------------------------------

ENUM = {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("boolean", "bool not null"),
        ("int", "int32 not null"),
        ("long", "int64 not null"),
        ("float", "float not null"),
        ("double", "double not null"),
        ("bytes", "binary not null"),
        ("string", "string not null"),
        ({"type": "int"}, "int32 not null"),
        ({"type": {"type": "int", "logicalType": "date"}}, "date32[day] not null"),
        ({"type": "int", "logicalType": "time-millis"}, "time32[ms] not null"),
        ({"type": "long", "logicalType": "time-micros"}, "time64[us] not null"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "timestamp[ms, tz=UTC] not null"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "timestamp[us, tz=UTC] not null"),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, "timestamp[ms] not null"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "timestamp[us] not null"),
        ({"type": "string", "logicalType": "uuid"}, "string not null"),
        ({"type": "string", "logicalType": "timestamp-millis"}, "string not null"),  # ignored, as the standard has it
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "decimal128(9, 2) not null"),
        (
            {"type": "fixed", "name": "D", "size": 4, "logicalType": "decimal", "precision": 9},
            "decimal128(9, 0) not null",
        ),
        ({"type": "fixed", "name": "F", "size": 16}, "fixed_size_binary[16] not null"),
        (ENUM, "string not null"),
        (["null", "int"], "int32"),
        (["string", "null"], "string"),
        (["long"], "int64 not null"),
        ({"type": "array", "items": ["null", "int"]}, "list<item: int32> not null"),
        ({"type": "map", "values": "long"}, "map<string, int64> not null"),
        (record(("x", "int"), ("y", ["null", ENUM]), name="In"), "struct<x: int32 not null, y: string> not null"),
    ],
)
def test_an_avro_field_is_a_column(kind: Any, column: str) -> None:
    assert {"a": column} == described("avro", record(("a", kind)))


def test_named_types_are_found_by_their_full_names() -> None:
    inner = {**record(("c", ENUM), name="In"), "namespace": "x.y"}
    outer = {**record(("a", inner), ("b", "x.y.In"), ("c", "x.y.Color"), ("d", "E"), name="n.R")}
    outer["fields"][2:2] = [{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}]
    assert {
        "a": "struct<c: string not null> not null",
        "b": "struct<c: string not null> not null",
        "e": "string not null",
        "c": "string not null",
        "d": "string not null",
    } == described("avro", json.dumps(outer))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("null", "a"),
        ("integer", "a"),
        (5, "a"),
        (None, "a"),
        ({}, "a"),
        (["int", "string"], "a"),
        (["null", "int", "string"], "a"),
        (["null"], "a"),
        ([], "a"),
        (["null", ["null", "int"]], "a"),
        ("R", "a"),
        (["null", "R"], "a"),
        ({"type": "array"}, "a[]"),
        ({"type": "array", "items": "null"}, "a[]"),
        ({"type": "map", "values": {"type": "array", "items": "R"}}, "a.*[]"),
        ({"type": "record", "name": "E", "fields": []}, "a"),
        ({"type": "record", "fields": [{"name": "b", "type": "int"}]}, "a"),
        (record(("b", "null"), name="In"), "a.b"),
        (record(("b c", "int"), name="In"), "a.b c"),
        (record(("b", "int"), ("b", "int"), name="In"), "a"),
        (record(("b", "int"), name="R"), "a"),
        ({"type": "enum", "name": "E", "symbols": []}, "a"),
        ({"type": "fixed", "name": "F", "size": 0}, "a"),
        ({"type": "fixed", "name": "F", "size": 1 << 40}, "a"),
        ({"type": "bytes", "logicalType": "decimal"}, "a"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 77}, "a"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, "a"),
    ],
)
def test_what_an_avro_field_cannot_be_is_refused_with_its_path(kind: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_schema("avro", record(("a", kind)))
    assert path == caught.value.data["field"]


@pytest.mark.parametrize(
    "definition",
    ["int", '"int"', "{}", {"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "record", "name": "R"}, ["int"]],
)
def test_an_avro_schema_is_a_record(definition: Any) -> None:
    with pytest.raises(InvalidRequest):
        compile_schema("avro", definition)


# -- Arrow --------------------------------------------------------------------------------------------------------

ARROW = pa.schema(
    [
        pa.field("a", pa.int32(), nullable=False),
        pa.field("b", pa.list_(pa.field("item", pa.struct([pa.field("x y", pa.string(), nullable=False)])))),
        pa.field("c", pa.map_(pa.string(), pa.timestamp("ms", "UTC"))),
        pa.field("d", pa.decimal128(9, 2)),
        pa.field("e:f, <g>", pa.binary(4)),
        pa.field("h", pa.struct([pa.field("i", pa.list_(pa.large_string()))])),
    ]
)


def test_an_arrow_schema_becomes_columns_and_comes_back() -> None:
    columns = arrow_columns(ARROW)
    assert ARROW == arrow_schema(columns)
    assert columns == compile_schema("arrow", definition_text("arrow", ARROW))
    everything = [Column(name, name) for name in sorted(SCALARS)]
    assert everything == arrow_columns(arrow_schema(everything))
    assert "" == refusal([], everything)


def test_names_that_arrow_gives_to_items_do_not_matter() -> None:
    other = pa.list_(pa.field("element", pa.int8(), nullable=False))
    assert {"a": "list<item: int8 not null>"} == described("arrow", pa.schema([("a", other)]))


@pytest.mark.parametrize(
    ("field", "path"),
    [
        (pa.field("a", pa.dictionary(pa.int8(), pa.string())), "a"),
        (pa.field("a", pa.timestamp("ns")), "a"),
        (pa.field("a", pa.timestamp("us", "Europe/Rome")), "a"),
        (pa.field("a", pa.null()), "a"),
        (pa.field("a", pa.struct([])), "a"),
        (pa.field("a", pa.map_(pa.int8(), pa.int8())), "a"),
        (pa.field("a", pa.struct([("b", pa.struct([("c,d", pa.int8())]))])), "a.b.c,d"),
        (pa.field("offset", pa.int64()), "offset"),
        (pa.field('"', pa.int64()), '"'),
    ],
)
def test_what_arrow_has_and_a_column_has_not_is_refused_with_its_path(field: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_schema("arrow", pa.schema([field]))
    assert path == caught.value.data["field"]


def test_two_columns_of_one_name_and_types_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="two columns"):
        compile_schema("arrow", pa.schema([("a", pa.int8()), ("a", pa.int8())]))
    with pytest.raises(InvalidRequest, match="its type is a text"):
        compile_schema("arrow", '{"a": 5}')
    with pytest.raises(InvalidRequest, match="'a'"):
        arrow_schema([Column("a", "nothing")])


# -- texts --------------------------------------------------------------------------------------------------------


def test_a_definition_is_kept_as_it_was_given_and_has_a_bound() -> None:
    text = '{"a":   "int8"}'
    assert text == definition_text("arrow", text) == definition_text("arrow", text.encode())
    with pytest.raises(InvalidRequest, match="at most"):
        definition_text("arrow", text + " " * SCHEMA_BYTES_MAX)


def test_definitions_are_the_same_if_they_are_the_same_json() -> None:
    assert documents.same('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    assert not documents.same('{"a": [1, 2]}', '{"a": [2, 1]}')
