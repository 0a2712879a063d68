"""``FileDescriptorProto`` bytes, which Confluent's Python client sends in base64 in place of a .proto text.

A reader of Protobuf's wire format for the few fields that matter here: tag and value, varints and lengths.

Source: the Protocol Buffers encoding, and descriptor.proto.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from typing import Any, Final

from headwater.limits import REGISTRY_DEPTH_MAX
from headwater.registry.protomodel import FIELD_NUMBER_MAX, Field, File, Message
from headwater.registry.refusal import invalid_schema

_TYPES: Final = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string",
    12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64", 17: "sint32", 18: "sint64",
}  # fmt: skip
_LABELS: Final = {2: "required", 3: "repeated"}


def parse(text: str) -> File | None:
    """The file that a descriptor in base64 defines; None if the text is none.

    Raises:
        Refusal: 42201, the descriptor is broken.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        found = fields_of(data)
        made = File(syntax=_text(found, 12) or "proto2", package=_text(found, 2))
        made.imports = [each.decode() for each in found.get(3, [])]
        for each in found.get(4, []):
            _message(fields_of(each), made.package, made, 0)
        for each in found.get(5, []):
            _enum(fields_of(each), made.package, made)
    except (IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise invalid_schema(f"no file descriptor in base64 ({type(error).__name__}).") from None
    return made


def _message(found: dict[int, list[Any]], scope: str, made: File, depth: int) -> None:
    if depth > REGISTRY_DEPTH_MAX:
        raise invalid_schema("messages are nested too deep.")
    name = _full(found, scope)
    entries: dict[str, str] = {}  # the messages that stand for maps, which the text does not show
    for each in found.get(3, []):
        nested = fields_of(each)
        if _is_entry(nested):
            key, value = (_type(fields_of(part), {}) for part in nested[2])
            entries[f"{name}.{_text(nested, 1)}"] = f"map<{key},{value}>"
        else:
            _message(nested, name, made, depth + 1)
    for each in found.get(4, []):
        _enum(fields_of(each), name, made)
    oneofs = [_text(fields_of(each), 1) for each in found.get(8, [])]
    message = made.messages[name] = Message()
    for each in found.get(2, []):
        field = _field(fields_of(each), oneofs, entries)
        if not 1 <= field.number <= FIELD_NUMBER_MAX or field.number in message.fields:
            raise ValueError(field.number)
        message.fields[field.number] = field


def _field(found: dict[int, list[Any]], oneofs: list[str], entries: dict[str, str]) -> Field:
    kind = _type(found, entries)
    optional = bool(found.get(17, [0])[-1])
    label = "" if kind.startswith("map<") else _LABELS.get(found.get(4, [1])[-1], "")
    return Field(
        name=_text(found, 1),
        number=found[3][-1],
        type=kind,
        label="optional" if optional else label,
        oneof="" if optional or 9 not in found else oneofs[found[9][-1]],
        group=found.get(5) == [10],
    )


def _type(found: dict[int, list[Any]], entries: dict[str, str]) -> str:
    name = _text(found, 6)
    return entries.get(name.lstrip("."), name) if name else _TYPES[found[5][-1]]


def _enum(found: dict[int, list[Any]], scope: str, made: File) -> None:
    constants = [fields_of(each) for each in found.get(2, [])]
    made.enums[_full(found, scope)] = {_text(each, 1): each.get(2, [0])[-1] for each in constants}


def _is_entry(found: dict[int, list[Any]]) -> bool:
    return any(fields_of(each).get(7, [0])[-1] for each in found.get(7, []))


def _full(found: dict[int, list[Any]], scope: str) -> str:
    name = _text(found, 1)
    return f"{scope}.{name}" if scope else name


def _text(found: dict[int, list[Any]], number: int) -> str:
    return bytes(found[number][-1]).decode() if number in found else ""


def fields_of(data: bytes) -> dict[int, list[Any]]:
    """The values of a message by field number: whole numbers and bytes. Raises ``IndexError`` or ``ValueError``."""
    found: dict[int, list[Any]] = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
            found[tag >> 3].append(value - (1 << 64) if value >> 63 else value)
            continue
        size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _length(data, at, kind)
        if at + size > len(data):
            raise IndexError(at)
        found[tag >> 3].append(data[at : at + size])
        at += size
    return dict(found)


def _length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind != 2:
        raise ValueError(kind)
    return varint(data, at)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number, and where it ends. Raises ``IndexError`` or ``ValueError``."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(at)
