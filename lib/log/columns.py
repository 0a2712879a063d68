"""Typed columns of a topic: which types there are, and which schema may follow which.

Types are written as Arrow prints them: ``list<item: struct<a: int32 not null, b: string>>``. They form a lattice: one
type is wider than another if each value of it is the same value there, and only that counts as widening.
A schema may follow another if old values still have a place in it: every column is there under its name with the
same or a wider type, and new ones are nullable. So a schema that may follow the next one may follow this one too.

Pure, and without Arrow: the fold decides by it (R1). Whatever a stranger writes as a type is refused with a
sentence, never with an exception.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from headwater.limits import COLUMN_DEPTH_MAX, COLUMN_FIELDS_MAX
from headwater.log.operations import Column

RESERVED: Final = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")

# type → those that hold all of its values: the whole relation, not only its single steps
_WIDER: Final[dict[str, tuple[str, ...]]] = {
    "int8": ("int16", "int32", "int64", "float", "double"),
    "int16": ("int32", "int64", "float", "double"),
    "int32": ("int64", "double"),
    "uint8": ("uint16", "uint32", "uint64", "int16", "int32", "int64", "float", "double"),
    "uint16": ("uint32", "uint64", "int32", "int64", "float", "double"),
    "uint32": ("uint64", "int64", "double"),
    "float": ("double",),
    "string": ("large_string",),
    "binary": ("large_binary",),
    "time32[s]": ("time32[ms]", "time64[us]"),
    "time32[ms]": ("time64[us]",),
}
SCALARS: Final = frozenset(
    {
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double"),
        *("string", "large_string", "binary", "large_binary"),
        *("date32[day]", "time32[s]", "time32[ms]", "time64[us]"),
        *(f"timestamp[{unit}{zone}]" for unit in ("s", "ms", "us") for zone in ("", ", tz=UTC")),
    }
)
# Digits before the point that hold every value of a whole-number type.
_DIGITS: Final = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}
PRECISION_MAX: Final = 38  # of decimal128

_SCALAR = re.compile(r"[a-z0-9_]+(?:\[[a-z0-9=A-Z, ]*\]|\([0-9, ]*\))?")
_DECIMAL = re.compile(r"decimal128\(([1-9][0-9]?), ([0-9][0-9]?)\)")
_FIXED = re.compile(r"fixed_size_binary\[([1-9][0-9]{0,4})\]")
_NAME = re.compile(r"[^<>,:]{1,249}(?=: )")
_NOT_NULL = " not null"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A part of a nested type."""

    name: str
    type: Type
    nullable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A type, parsed: ``kind`` is a name of ``SCALARS``, ``decimal128``, ``fixed_size_binary``, or a nested one.

    ``params`` are precision and scale, or the width. A ``list`` has the one field ``item``, a ``map`` the one field
    ``value`` (its keys are strings), and a ``struct`` its fields.
    """

    kind: str
    params: tuple[int, ...] = ()
    fields: tuple[Field, ...] = ()

    @property
    def item(self) -> Field:
        """The items of a list, the values of a map."""
        return self.fields[0]

    def __str__(self) -> str:
        match self.kind:
            case "decimal128":
                return "decimal128({}, {})".format(*self.params)
            case "fixed_size_binary":
                return f"fixed_size_binary[{self.params[0]}]"
            case "map":
                return f"map<string, {self.item.type}>"
            case "list" | "struct":
                inner = (f"{each.name}: {each.type}{'' if each.nullable else _NOT_NULL}" for each in self.fields)
                return f"{self.kind}<{', '.join(inner)}>"
        return self.kind


def parse(text: str) -> Type:
    """The type that ``text`` names. Raises ``ValueError``, whose message is a sentence."""
    parser = _Parser(text)
    found = parser.type(1)
    if parser.at != len(text):
        raise ValueError(f"type {_short(text)} ends with {_short(text[parser.at :])}, which says nothing.")
    return found


def plain_name(name: str) -> bool:
    """Whether a field inside a struct can have this name: the way types are written leaves some out."""
    found = _NAME.match(name + ": ")
    return found is not None and found[0] == name


def refusal(old: Sequence[Column], new: Sequence[Column]) -> str:
    """Why ``new`` cannot follow ``old``, as a sentence; empty if it can."""
    by_name: dict[str, Column] = {}
    for column in new:
        if column.name in by_name:
            return f"it has two columns {column.name!r}."
        if column.name in RESERVED:
            return f"column {column.name!r} has the name of one that every topic has."
        try:
            parse(column.type)
        except ValueError as error:
            return f"column {column.name!r}: {error}"
        by_name[column.name] = column
    for column in old:
        found = by_name.pop(column.name, None)
        if found is None:
            return f"column {column.name!r} is missing; columns are only added."
        if not widens(column.type, found.type):
            return f"column {column.name!r} was {column.type} and cannot become {found.type}: types only widen."
        if column.nullable and not found.nullable:
            return f"column {column.name!r} was nullable and must stay so."
    for added in by_name.values():
        if old and not added.nullable:
            return f"the new column {added.name!r} must be nullable: old values do not have it."
    return ""


def widens(old: str, new: str) -> bool:
    """Whether every value of type ``old`` has its place in ``new``, as the same value.

    False for what is no type. Reflexive and transitive. Structs gain nullable fields and lose none; their order is
    free.
    """
    try:
        return _follows(parse(old), parse(new))
    except ValueError:
        return False


def _follows(old: Type, new: Type) -> bool:
    match old.kind, new.kind:
        case "struct", "struct":
            return _fields_follow(old, new)
        case ("list", "list") | ("map", "map"):
            return (new.item.nullable or not old.item.nullable) and _follows(old.item.type, new.item.type)
        case "decimal128", "decimal128":
            (precision, scale), (wider, finer) = old.params, new.params
            return finer >= scale and wider - finer >= precision - scale
        case _, "decimal128":
            return old.kind in _DIGITS and new.params[0] - new.params[1] >= _DIGITS[old.kind]
        case "fixed_size_binary", ("binary" | "large_binary"):
            return True
    return (old.kind, old.params) == (new.kind, new.params) or new.kind in _WIDER.get(old.kind, ())


def _fields_follow(old: Type, new: Type) -> bool:
    rest = {each.name: each for each in new.fields}
    for each in old.fields:
        found = rest.pop(each.name, None)
        if found is None or (each.nullable and not found.nullable) or not _follows(each.type, found.type):
            return False
    return all(added.nullable for added in rest.values())


class _Parser:
    """Reads one type from left to right. The depth is bounded, so no text exhausts the stack."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.fields = 0

    def type(self, depth: int) -> Type:
        if depth > COLUMN_DEPTH_MAX:
            raise ValueError(f"types are nested at most {COLUMN_DEPTH_MAX} deep, and {_short(self.text)} is deeper.")
        if self._take("list<item: "):
            return Type(kind="list", fields=(self._close(self._field("item", depth)),))
        if self._take("map<string, "):
            return Type(kind="map", fields=(self._close(Field(name="value", type=self.type(depth + 1))),))
        if self._take("struct<"):
            return self._struct(depth)
        return self._scalar()

    def _struct(self, depth: int) -> Type:
        fields: dict[str, Field] = {}
        while not fields or self._take(", "):
            named = _NAME.match(self.text, self.at)
            if named is None:
                raise self._error("a field's name and a colon")
            if named[0] in fields:
                raise ValueError(f"a struct of {_short(self.text)} has two fields {_short(named[0])}.")
            self.at = named.end() + 2
            fields[named[0]] = self._field(named[0], depth)
        return Type(kind="struct", fields=tuple(self._close(list(fields.values()))))

    def _field(self, name: str, depth: int) -> Field:
        self.fields += 1
        if self.fields > COLUMN_FIELDS_MAX:
            raise ValueError(f"one type has at most {COLUMN_FIELDS_MAX} fields, and {_short(self.text)} has more.")
        found = self.type(depth + 1)
        return Field(name=name, type=found, nullable=not self._take(_NOT_NULL))

    def _scalar(self) -> Type:
        found = _SCALAR.match(self.text, self.at)
        if found is None:
            raise self._error("a type")
        name, self.at = found[0], found.end()
        if name in SCALARS:
            return Type(kind=name)
        if decimal := _DECIMAL.fullmatch(name):
            precision, scale = int(decimal[1]), int(decimal[2])
            if precision <= PRECISION_MAX and scale <= precision:
                return Type(kind="decimal128", params=(precision, scale))
        if fixed := _FIXED.fullmatch(name):
            return Type(kind="fixed_size_binary", params=(int(fixed[1]),))
        raise ValueError(f"{_short(name)} is no type that a column can have.")

    def _close(self, value: T) -> T:
        if not self._take(">"):
            raise self._error("'>'")
        return value

    def _take(self, word: str) -> bool:
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def _error(self, wanted: str) -> ValueError:
        return ValueError(f"type {_short(self.text)} has no {wanted} at character {self.at + 1}.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
