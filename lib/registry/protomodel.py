"""What a .proto file defines, as far as compatibility looks: messages with their fields, and enums. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SCALARS: Final = (
    "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32",
    "sfixed32", "sfixed64", "sint32", "sint64",
)  # fmt: skip
FIELD_NUMBER_MAX: Final = 2**29 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field: ``type`` is a scalar's name, ``map<k,v>``, or a name, which is in full once the file is resolved."""

    name: str
    number: int
    type: str
    label: str = ""  # "", "optional", "required" or "repeated"
    oneof: str = ""
    group: bool = False  # written between two tags, as proto2 could


@dataclass(slots=True, kw_only=True)
class Message:
    """A message, by the numbers of its fields."""

    fields: dict[int, Field] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class File:
    """A file: its messages and enums (number by constant) by their full names, without a dot before them."""

    syntax: str = "proto2"
    package: str = ""
    imports: list[str] = field(default_factory=list)
    messages: dict[str, Message] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    imported_enums: frozenset[str] = frozenset()  # those of its imports, by their full names

    def defines(self, name: str) -> bool:
        """Whether a type of that full name is in this file."""
        return name in self.messages or name in self.enums


def rendered(file: File) -> str:
    """One text for all files that define the same."""
    lines = [f"syntax {file.syntax}", f"package {file.package}", *(f"import {name}" for name in sorted(file.imports))]
    for name, message in sorted(file.messages.items()):
        lines.append(f"message {name}")
        lines += [
            f" {each.number} {each.label} {'group ' * each.group}{each.type} {each.name} {each.oneof}"
            for _, each in sorted(message.fields.items())
        ]
    for name, constants in sorted(file.enums.items()):
        lines.append(f"enum {name}")
        lines += [f" {number} {constant}" for constant, number in sorted(constants.items())]
    return "\n".join(lines)


def resolved(name: str, scope: str, known: Mapping[str, object]) -> str | None:
    """The full name of what ``name`` means inside ``scope``, innermost first; None if it means nothing there."""
    if name.startswith("."):
        return name[1:] if name[1:] in known else None
    while True:
        full = f"{scope}.{name}" if scope else name
        if full in known:
            return full
        if not scope:
            return None
        scope = scope.rpartition(".")[0]
