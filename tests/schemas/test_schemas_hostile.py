"""Definitions and values that a stranger made up: each is taken or refused, and what is taken can be used."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.log.columns import refusal
from headwater.log.state import Topic
from headwater.schemas.change import planned
from headwater.schemas.typed import check, typed
from tests.schemas.helpers_schemas import version

NAMES = st.sampled_from(["a", "b", "", "a b", 'q"', "x:y", "offset", "é", "\\", "null", "R"])
NUMBERS = st.sampled_from([0, 1, -1, 1.5, 5, 1 << 62, 1 << 63, -(1 << 63), 1 << 70, 1e300, True, None, "1", []])
NOISE = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["object", "integer", "x"]) | st.just([])
JSON_WORDS = [
    *("type", "format", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "items", "properties", "required"),
    *("additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"),
    *("maxLength", "minItems", "maxItems", "contentEncoding", "precision", "scale", "default", "pattern", "not"),
]
JSON_VALUES = (
    st.sampled_from(
        [
            *("object", "array", "string", "integer", "number", "boolean", "null", "date", "date-time", "decimal"),
            *("base64", "#/properties/a", "#/$defs/a", "#"),
        ]
    )
    | NUMBERS
    | st.lists(st.sampled_from(["null", "string", "integer", "a", "b", 1, None, 1.5, True]), max_size=3)
)


def _json_schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    good = st.one_of(
        st.builds(lambda props, need: {"type": "object", "properties": props, "required": need},
                  st.dictionaries(NAMES, inner, max_size=3), st.lists(NAMES, max_size=2)),
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(lambda item: {"type": "object", "additionalProperties": item}, inner),
        st.builds(lambda item: {"anyOf": [item, {"type": "null"}]}, inner),
    )  # fmt: skip
    loose = st.dictionaries(st.sampled_from(JSON_WORDS), JSON_VALUES | inner | st.lists(inner, max_size=2), max_size=3)
    return st.builds(lambda one, more: {**one, **more}, good, st.just({}) | loose) | loose


_LEAVES = st.sampled_from(["integer", "number", "string", "boolean"]).map(lambda kind: {"type": kind})
_BOUNDED = st.builds(lambda leaf, word, value: {**leaf, word: value}, _LEAVES, st.sampled_from(JSON_WORDS), JSON_VALUES)
JSON_SCHEMAS = st.builds(
    lambda props, more: {"properties": props, **more},
    st.dictionaries(NAMES, st.recursive(_LEAVES | _BOUNDED | NOISE, _json_schema, max_leaves=6), max_size=3),
    st.just({}) | st.just({"required": ["a"]}) | st.just({"additionalProperties": False}),
)

_AVRO_LEAVES = (
    st.sampled_from(["int", "long", "string", "bytes", "double", "boolean", "null", "R", "E", "none"])
    | st.builds(lambda kind, logical, number: {"type": kind, "logicalType": logical, "precision": number, "scale": 1},
                st.sampled_from(["int", "long", "bytes", "string"]),
                st.sampled_from(["date", "time-millis", "timestamp-micros", "decimal", "uuid", "timestamp-nanos", 5]),
                NUMBERS)
    | st.builds(lambda name, size: {"type": "fixed", "name": name, "size": size}, NAMES, NUMBERS)
    | st.builds(lambda name, symbols: {"type": "enum", "name": name, "symbols": symbols}, NAMES,
                st.lists(NAMES, max_size=2))
)  # fmt: skip


def _avro_schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(lambda item: {"type": "map", "values": item}, inner),
        st.builds(lambda item: ["null", item], inner),
        st.lists(inner, max_size=2),
        st.builds(lambda name, fields: {"type": "record", "name": name, "fields": fields}, NAMES,
                  st.lists(st.builds(lambda name, kind: {"name": name, "type": kind}, NAMES, inner), max_size=2)),
    )  # fmt: skip


_AVRO_TYPES = st.recursive(_AVRO_LEAVES | NOISE, _avro_schema, max_leaves=6)
AVRO_SCHEMAS = st.builds(
    lambda fields: {"type": "record", "name": "R", "fields": fields},
    st.lists(st.builds(lambda name, kind: {"name": name, "type": kind}, NAMES, _AVRO_TYPES), max_size=3),
)
ARROW_TYPES = st.sampled_from(["int8", "uint64 not null", "decimal128(3, 1)", "list<item: bool>", "none", "", 5, None])
VALUES = [
    b"",
    b"null",
    b"{}",
    b'{"a": 1}',
    b'{"a": "x"}',
    b'{"a": null}',
    b"\0",
    b"\2\2\2",
    b"\0\0\0\0\1\2",
    None,
    b"[" * 50,
]


def _used(format_: str, definition: Any) -> None:
    topic = Topic(id=1, name="t", created_ms=0)
    try:
        op = planned(topic, format_, definition)
    except InvalidRequest:
        return
    assert op is not None
    assert "" == refusal([], op.columns)
    schema = version(format_, definition)
    assert op.columns == schema.columns
    for value in VALUES:
        with suppress(InvalidRequest):
            check(schema, [value])
    found = typed(schema, pa.array(VALUES, pa.binary()))
    found.validate(full=True)
    assert (len(VALUES), [column.name for column in op.columns]) == (found.num_rows, found.schema.names)


@settings(max_examples=400, deadline=None)
@given(JSON_SCHEMAS)
def test_any_json_schema_is_refused_or_can_be_used(definition: Any) -> None:
    _used("json", json.dumps(definition))


@settings(max_examples=300, deadline=None)
@given(AVRO_SCHEMAS)
def test_any_avro_schema_is_refused_or_can_be_used(definition: Any) -> None:
    _used("avro", json.dumps(definition))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, ARROW_TYPES, max_size=4))
def test_any_arrow_schema_is_refused_or_can_be_used(definition: Any) -> None:
    _used("arrow", json.dumps(definition))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["json", "avro", "arrow", "x"]), st.text(max_size=20) | st.binary(max_size=20))
def test_any_text_is_refused_or_can_be_used(format_: str, text: str | bytes) -> None:
    _used(format_, text)


def test_what_is_no_unicode_is_refused() -> None:
    for definition in ("\ud800", '{"a\ud800": "int8"}', b"\x80", '{"\\ud800": "int8"}'):
        _used("arrow", definition)
        _used("json", definition)
