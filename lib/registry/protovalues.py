"""Protobuf values by their schema, for people: a message's bytes as plain data, with the names of its fields.

The wire says numbers, kinds and bytes; the file says what they mean. What the file does not say (fields of a newer
schema, messages of files that were not given) is kept under its number, as Protobuf keeps unknown fields. Depth and
size are bounded by the caller's bytes and by ``REGISTRY_DEPTH_MAX``.

Source: protobuf.dev/programming-guides/encoding; the message indexes are those of Confluent's wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from headwater.limits import REGISTRY_DEPTH_MAX
from headwater.registry.protodescriptor import within
from headwater.registry.protomodel import Field, File
from headwater.registry.protowire import fields_of, varint

_FIXED: Final = {
    "double": "<d",
    "float": "<f",
    "fixed64": "<Q",
    "sfixed64": "<q",
    "fixed32": "<I",
    "sfixed32": "<i",
}
_INDEXES_MAX: Final = 64  # levels of messages within messages that a value's index names


def decode(file: File, data: bytes) -> tuple[str, dict[str, Any]]:
    """The full name of the message that ``data`` says it is, and its fields by name.

    ``data`` begins with Confluent's message indexes. Raises ``ValueError``, or another of ``UNFIT``, if the bytes are
    no such message.
    """
    name, at = _named(file, data)
    return name, message(file, name, data[at:])


UNFIT: Final = (ValueError, IndexError, KeyError, struct.error, RecursionError)


def message(file: File, name: str, data: bytes, depth: int = 0) -> dict[str, Any]:
    """The fields of one message, in the order of their numbers; repeated ones as lists."""
    if depth > REGISTRY_DEPTH_MAX:
        raise ValueError("it is nested too deep")
    known = file.messages[name].fields
    found: dict[str, Any] = {}
    for number, raw in sorted(fields_of(data).items()):
        field = known.get(number)
        if field is None:
            found[str(number)] = raw
        elif field.type.startswith("map<"):
            found[field.name] = dict(_pairs(file, field, raw, depth))
        else:
            values = [value for each in raw for value in _values(file, field, each, depth)]
            found[field.name] = values if field.label == "repeated" else values[-1]
    return found


def _named(file: File, data: bytes) -> tuple[str, int]:
    """The message that the indexes lead to, and where they end. One zero byte is the first message."""
    count, at = _signed(data, 0)
    indexes = []
    if not 0 <= count <= _INDEXES_MAX:
        raise ValueError("the message's index is too long")
    for _ in range(count):
        index, at = _signed(data, at)
        if index < 0:
            raise ValueError("the message's index is negative")
        indexes.append(index)
    scope = file.package
    for index in indexes or [0]:
        scope = within(file.messages, file, scope)[index]
    return scope, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = varint(data, at)
    return _zigzag(value), at


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _pairs(file: File, field: Field, raw: list[Any], depth: int) -> Iterator[tuple[str, Any]]:
    key, _, value = field.type[4:-1].partition(",")
    for each in raw:
        parts = fields_of(each)
        yield (
            str(_one(file, key, parts[1][-1], depth) if 1 in parts else ""),
            _one(file, value, parts[2][-1], depth) if 2 in parts else None,
        )


def _values(file: File, field: Field, raw: Any, depth: int) -> Iterator[Any]:
    """One value, or the many of a packed field."""
    packed = field.label == "repeated" and isinstance(raw, bytes) and _is_number(file, field.type)
    if not packed:
        yield _one(file, field.type, raw, depth)
        return
    if (form := _FIXED.get(field.type)) is not None:
        yield from (value for (value,) in struct.iter_unpack(form, raw))  # one that is not packed is the same bytes
        return
    at = 0
    while at < len(raw):
        value, at = varint(raw, at)
        yield _one(file, field.type, value - (1 << 64) if value >> 63 else value, depth)


def _is_number(file: File, kind: str) -> bool:
    return kind not in ("string", "bytes") and kind not in file.messages and (kind in file.enums or "." not in kind)


def _one(file: File, kind: str, raw: Any, depth: int) -> Any:
    if isinstance(raw, int):
        return _number(file, kind, raw)
    if (form := _FIXED.get(kind)) is not None:
        return struct.unpack(form, raw)[0]
    if kind == "string":
        return raw.decode()
    if kind in file.messages:
        return message(file, kind, raw, depth + 1)
    return raw


def _number(file: File, kind: str, raw: int) -> Any:
    if kind == "bool":
        return bool(raw)
    if kind in ("sint32", "sint64"):
        return _zigzag(raw % (1 << 64))
    if kind in ("uint32", "uint64"):
        return raw % (1 << 64)
    for constant, number in file.enums.get(kind, {}).items():
        if number == raw:
            return constant
    return raw
