"""Typed columns of a topic: which types there are, and which schema may follow which.

Types are written as Arrow writes them. A schema may follow another if old values still have a place in it: every
column is there under its name with the same or a wider type, and new ones are nullable. Pure, and without Arrow:
the fold decides by it (R1).
"""

from __future__ import annotations

from typing import Final

from headwater.log.operations import Column

RESERVED: Final = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")

# type → those that hold all of its values
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
    "date32[day]": ("date64[ms]",),
}


def refusal(old: list[Column], new: list[Column]) -> str:
    """Why ``new`` cannot follow ``old``, as a sentence; empty if it can."""
    names = [column.name for column in new]
    for name in names:
        if names.count(name) > 1:
            return f"it has two columns {name!r}."
        if name in RESERVED:
            return f"column {name!r} has the name of one that every topic has."
    by_name = {column.name: column for column in new}
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
    """Whether every value of type ``old`` has its place in ``new``."""
    return old == new or new in _WIDER.get(old, ())
