"""Kafka's message schema, as kio has it, in the few words that ``compiled`` needs.

kio describes each version of each message as a dataclass; here one becomes a ``Struct``: fields in the order of the
wire, each with its kind, whether it may be null, its tag, and its default. Times become ints in ms, UUIDs 16 bytes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import types
import typing
import uuid
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from kio.schema.index import api_key_map, schema_name_map
from kio.static.constants import EntityType

from headwater.kafka.messages import Fields

Direction = Literal["request", "response"]

API_VERSIONS: Final = 18

_KINDS: Final = {  # what kio calls differently on the wire
    "error_code": "int16",
    "timedelta_i32": "int32",
    "timedelta_i64": "int64",
    "datetime_i64": "int64",
}
_ZEROS: Final[dict[str, Any]] = {
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint16"), 0),
    "float64": 0.0,
    "bool": False,
    "string": "",
    "bytes": b"",
    "records": b"",
    "uuid": bytes(16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """``kind`` is a primitive's name, or "struct" with ``struct``; ``tag`` is -1 for a field in its fixed place."""

    name: str
    kind: str
    struct: Struct | None
    is_array: bool
    is_nullable: bool
    tag: int
    default: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Struct:
    """A message, or a part of one, in one version."""

    name: str
    is_flexible: bool
    fields: tuple[Field, ...]


@functools.cache
def versions(api: int) -> tuple[int, int]:
    """The oldest and the newest version that the schema has. Raises ``KeyError`` for an unknown API."""
    known = schema_name_map[api_key_map[api]]
    return min(known), max(known)


@functools.cache
def message(api: int, version: int, direction: Direction) -> Struct:
    """The message's struct. Raises ``KeyError`` for one that does not exist. Cost: an import of kio's module."""
    known = schema_name_map[api_key_map[api]][version]
    path = known[EntityType.request] if direction == "request" else known[EntityType.response]
    module, _, name = path.partition(":")
    return _struct(getattr(__import__(module, fromlist=[name]), name))


def header_has_tags(api: int, version: int, direction: Direction) -> bool:
    """Whether tagged fields end the header before the message. In an answer to ApiVersions never (KIP-511)."""
    return message(api, version, direction).is_flexible and not (api == API_VERSIONS and direction == "response")


def defaults(struct: Struct) -> Fields:
    """A message with nothing but defaults."""
    return {field.name: field.default for field in struct.fields}


@functools.cache
def others(api: int, path: tuple[str, ...]) -> Fields:
    """Every field that any version of a request has at ``path``, with its default: what an old request lacks."""
    found: Fields = {}
    for version in sorted(schema_name_map[api_key_map[api]]):
        part: Struct | None = message(api, version, "request")
        for name in path:
            field = next((each for each in part.fields if each.name == name), None) if part else None
            part = field.struct if field else None
        if part is not None:
            found |= defaults(part)
    return found


@functools.cache
def _struct(kind: Any) -> Struct:
    return Struct(
        name=kind.__name__,
        is_flexible=kind.__flexible__,
        fields=tuple(_field(each) for each in dataclasses.fields(kind)),
    )


def _field(field: dataclasses.Field[Any]) -> Field:
    inner, is_nullable = _without_none(field.type)
    is_array = typing.get_origin(inner) is tuple
    if is_array:
        inner, _ = _without_none(typing.get_args(inner)[0])
    struct = _struct(cast(type, inner)) if dataclasses.is_dataclass(inner) else None
    kafka_type = field.metadata.get("kafka_type", "struct")
    kind = "struct" if struct is not None else _KINDS.get(kafka_type, kafka_type)
    if kind == "uuid" or kafka_type == "datetime_i64":
        is_nullable = is_array and is_nullable  # their null is a value: zeros, or -1
    return Field(
        name=field.name,
        kind=kind,
        struct=struct,
        is_array=is_array,
        is_nullable=is_nullable,
        tag=field.metadata.get("tag", -1),
        default=_default(field, kind, struct, is_array=is_array, is_nullable=is_nullable),
    )


def _default(
    field: dataclasses.Field[Any], kind: str, struct: Struct | None, *, is_array: bool, is_nullable: bool
) -> Any:
    if field.default is dataclasses.MISSING:
        if is_nullable:
            return None
        return [] if is_array else defaults(struct) if struct is not None else _ZEROS[kind]
    return _plain(field.default, kind, struct, field.metadata.get("kafka_type", ""))


def _plain(value: Any, kind: str, struct: Struct | None, kafka_type: str) -> Any:
    if value is None:
        return bytes(16) if kind == "uuid" else -1 if kafka_type == "datetime_i64" else None
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value):
        assert struct is not None
        return defaults(struct)
    if isinstance(value, dt.timedelta):
        return value // dt.timedelta(milliseconds=1)
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, enum.IntEnum):
        return int(value)
    return value


def _without_none(kind: Any) -> tuple[Any, bool]:
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind, False
    inner = [each for each in typing.get_args(kind) if each is not types.NoneType]
    return inner[0], len(inner) < len(typing.get_args(kind))
