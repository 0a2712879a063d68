"""Messages are the bytes that kio, which has Kafka's own schema, reads and writes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import struct
import uuid
from typing import Any

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from headwater.kafka import compiled, schema, wire

APIS = [
    (api, version)
    for api in [*range(4), *range(8, 38), *range(42, 52), 55, 60, 61, 65, 66, 68, 69, 71, 72, 74, 75, 76, 77, 78, 79]
    for version in range(schema.versions(api)[0], schema.versions(api)[1] + 1)
]


@pytest.mark.parametrize(("api", "version"), APIS)
def test_a_request_reads_what_kio_wrote(api: int, version: int) -> None:
    kind = load_request_schema(api, version)
    for full in (False, True):
        entity = sample(schema.message(api, version, "request"), kind, full=full)
        buffer = io.BytesIO()
        entity_writer(kind)(buffer, entity)
        data = memoryview(buffer.getvalue())
        found, end = compiled.decoder(schema.message(api, version, "request"), api)(data, 0, len(data))
        assert (len(data), plain(entity)) == (end, _like(found, plain(entity)))


@pytest.mark.parametrize(("api", "version"), APIS)
def test_an_answer_is_what_kio_reads(api: int, version: int) -> None:
    kind = load_response_schema(api, version)
    for full in (False, True):
        entity = sample(schema.message(api, version, "response"), kind, full=full)
        buffer = io.BytesIO()
        entity_writer(kind)(buffer, entity)
        out: list[Any] = []
        compiled.encoder(schema.message(api, version, "response"))(plain(entity), out)
        assert buffer.getvalue() == b"".join(out)
        assert entity == entity_reader(kind)(b"".join(out), 0)[0]


def test_a_request_has_the_fields_of_all_versions() -> None:
    frame = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", -1)
    found = wire.request(memoryview(frame))
    assert (3, 1, 7, "") == (found.api, found.version, found.correlation, found.client)
    assert {
        "topics": None,
        "allow_auto_topic_creation": True,
        "include_topic_authorized_operations": False,
    }.items() <= (found.fields.items())


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_cut_frame_is_malformed(cut: int) -> None:
    frame = struct.pack(">hhih", 3, 12, 7, 2) + b"me\x00" + b"\x02" + bytes(16) + b"\x06topic\x00" + b"\x01\x00\x00"
    wire.request(memoryview(frame))
    if cut <= len(frame):
        with pytest.raises(wire.Malformed):
            wire.request(memoryview(frame[:-cut]))


def test_a_hostile_count_is_malformed() -> None:
    frame = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 2**31 - 1)
    with pytest.raises(wire.Malformed, match="claims 2147483647 elements in 0 bytes"):
        wire.request(memoryview(frame))


def plain(value: Any) -> Any:
    """kio's message in our words."""
    if dataclasses.is_dataclass(value):
        return {each.name: _field(value, each) for each in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, dt.timedelta):
        return value // dt.timedelta(milliseconds=1)
    if isinstance(value, dt.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, ErrorCode):
        return int(value)
    return value


def _like(found: Any, expected: Any) -> Any:
    """What was found, less the fields that only other versions have."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {name: _like(found[name], value) for name, value in expected.items()}
    if isinstance(expected, list) and isinstance(found, list):
        return [_like(*pair) for pair in zip(found, expected, strict=True)]
    return found


def _field(value: Any, each: dataclasses.Field[Any]) -> Any:
    found, kind = getattr(value, each.name), each.metadata.get("kafka_type", "")
    if found is None and kind in ("uuid", "datetime_i64") and "tuple" not in str(each.type):
        return bytes(16) if kind == "uuid" else -1
    return plain(found)


def sample(struct: schema.Struct, kind: Any, *, full: bool) -> Any:
    """A message of kio's with something, or with as little as it can have, in every field."""
    values = {}
    types = {each.name: each for each in dataclasses.fields(kind)}
    for each in struct.fields:
        field = types[each.name]
        if not full and field.default is not dataclasses.MISSING:
            continue
        if not full and each.is_nullable:
            values[each.name] = None
            continue
        part = _inner(field.type)
        one = sample(each.struct, part, full=full) if each.struct else _primitive(field.metadata["kafka_type"])
        values[each.name] = (one, one) if each.is_array and full else () if each.is_array else one
    return kind(**values)


def _inner(kind: Any) -> Any:
    import typing

    args = [each for each in typing.get_args(kind) if each not in (type(None), ...)]
    return _inner(args[0]) if args else kind


def _primitive(kind: str) -> Any:
    return {
        "int8": 7,
        "int16": -300,
        "int32": 70_000,
        "int64": -(2**40),
        "uint16": 65_000,
        "float64": 1.5,
        "bool": True,
        "string": "Grüße" * 40,
        "bytes": b"\x00\x01bytes",
        "records": b"records" * 30,
        "uuid": uuid.UUID(int=2**100 + 5),
        "error_code": ErrorCode.fenced_instance_id,
        "timedelta_i32": dt.timedelta(milliseconds=1234),
        "timedelta_i64": dt.timedelta(milliseconds=123456),
        "datetime_i64": dt.datetime(2026, 1, 2, 3, 4, 5, 678000, dt.UTC),
    }[kind]
