"""A file's model as ``FileDescriptorProto`` bytes: the way back of ``protowire``.

Source: descriptor.proto; maps are repeated messages of an entry type, an ``optional`` of proto3 is a oneof of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

from headwater.registry.protomodel import SCALARS, Field, File

_TYPES: Final = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "fixed32": 7, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13, "sfixed32": 15, "sfixed64": 16, "sint32": 17, "sint64": 18,
}  # fmt: skip
_GROUP, _MESSAGE, _ENUM = 10, 11, 14
_OPTIONAL, _REQUIRED, _REPEATED = 1, 2, 3
_MAP_ENTRY: Final = b"\x38\x01"  # MessageOptions.map_entry = true
_BUILT_IN_ENUMS: Final = frozenset({"google.protobuf.NullValue"})


def serialize(file: File) -> str:
    """The descriptor in base64. ``file`` has its types' names in full."""
    body = _text(1, "schema.proto") + (_text(2, file.package) if file.package else b"")
    body += b"".join(_text(3, name) for name in file.imports)
    body += b"".join(_bytes(4, _message(file, name)) for name in within(file.messages, file, file.package))
    body += b"".join(_bytes(5, _enum(file, name)) for name in within(file.enums, file, file.package))
    return base64.b64encode(body + (_text(12, file.syntax) if file.syntax != "proto2" else b"")).decode()


def _message(file: File, name: str) -> bytes:
    message = file.messages[name]
    oneofs = list(dict.fromkeys(each.oneof for each in message.fields.values() if each.oneof))
    if file.syntax == "proto3":
        oneofs += [f"_{each.name}" for each in message.fields.values() if each.label == "optional"]
    body = _text(1, name.rpartition(".")[2])
    body += b"".join(_bytes(2, _field(file, name, each, oneofs)) for each in message.fields.values())
    body += b"".join(_bytes(3, _message(file, each)) for each in within(file.messages, file, name))
    body += b"".join(_bytes(3, _entry(file, each)) for each in message.fields.values() if _is_map(each))
    body += b"".join(_bytes(4, _enum(file, each)) for each in within(file.enums, file, name))
    return body + b"".join(_bytes(8, _text(1, each)) for each in oneofs)


def _field(file: File, scope: str, field: Field, oneofs: list[str]) -> bytes:
    label = {"required": _REQUIRED, "repeated": _REPEATED}.get(field.label, _OPTIONAL)
    if _is_map(field):
        kind, named, label = _MESSAGE, f"{scope}.{_entry_name(field)}", _REPEATED
    else:
        kind, named = _type(file, field)
    body = _text(1, field.name) + _number(3, field.number) + _number(4, label) + _number(5, kind)
    body += _text(6, f".{named}") if named else b""
    alone = file.syntax == "proto3" and field.label == "optional"
    oneof = f"_{field.name}" if alone else field.oneof
    return body + (_number(9, oneofs.index(oneof)) if oneof else b"") + (_number(17, 1) if alone else b"")


def _type(file: File, field: Field) -> tuple[int, str]:
    """The number of a type, and its name if it has one."""
    name = field.type
    if name in SCALARS:
        return _TYPES[name], ""
    if name in file.enums or name in file.imported_enums or name in _BUILT_IN_ENUMS:
        return _ENUM, name
    return (_GROUP if field.group else _MESSAGE), name


def _entry(file: File, field: Field) -> bytes:
    key, value = field.type[4:-1].split(",")
    parts = (Field(name="key", number=1, type=key), Field(name="value", number=2, type=value))
    body = _text(1, _entry_name(field)) + b"".join(_bytes(2, _field(file, "", each, [])) for each in parts)
    return body + _bytes(7, _MAP_ENTRY)


def _entry_name(field: Field) -> str:
    """``by_name`` → ``ByNameEntry``, as protoc makes it."""
    return "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"


def _enum(file: File, name: str) -> bytes:
    body = _text(1, name.rpartition(".")[2])
    for constant, number in file.enums[name].items():
        body += _bytes(2, _text(1, constant) + _number(2, number))
    numbers = list(file.enums[name].values())
    return body + (_bytes(3, b"\x10\x01") if len(set(numbers)) < len(numbers) else b"")  # allow_alias


def within(names: Iterable[str], file: File, scope: str) -> list[str]:
    """Those that are defined right inside ``scope``: a message, or the package."""
    return [name for name in names if _parent(name, file) == scope]


def _parent(name: str, file: File) -> str:
    parent = name.rpartition(".")[0]
    return parent if parent in file.messages else file.package


def _is_map(field: Field) -> bool:
    return field.type.startswith("map<")


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (1 << 64) - 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
