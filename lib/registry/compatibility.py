"""Whether a schema may follow those before it: which of them are asked, in which direction, by which judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from headwater.limits import REGISTRY_PROBLEMS_MAX
from headwater.registry.definitions import Definition
from headwater.registry.records import Level

T = TypeVar("T")


def asked(level: Level, versions: Sequence[T]) -> Sequence[T]:
    """The versions that a new one is held against: all of them at a TRANSITIVE level, else the last; none at NONE."""
    return () if level == "NONE" else versions if level.endswith("_TRANSITIVE") else versions[-1:]


def problems(level: Level, new: Definition, versions: Sequence[tuple[int, Definition]]) -> list[str]:
    """Why ``new`` may not stand beside these versions at this level; none: it may.

    BACKWARD: new readers read old data. FORWARD: old readers read new data. FULL: both.

    Cost: a walk of two schemas for each direction and version.
    """
    found: list[str] = []
    for number, old in reversed(versions):
        if level.startswith(("BACKWARD", "FULL")):
            found += _readable(new, old, f"the new schema cannot read data of version {number}")
        if level.startswith(("FORWARD", "FULL")):
            found += _readable(old, new, f"version {number} cannot read data of the new schema")
    return found[:REGISTRY_PROBLEMS_MAX]


def _readable(reader: Definition, writer: Definition, told: str) -> list[str]:
    if reader.type != writer.type:
        return [f"{told}: one is {reader.type}, the other {writer.type}"]
    match reader.type:
        case "AVRO":
            from headwater.registry import avro

            found = avro.problems(reader.parsed, writer.parsed)
        case "JSON":
            from headwater.registry import jsons

            found = jsons.problems(reader.parsed, writer.parsed)
        case _:
            from headwater.registry import protobuf

            found = protobuf.problems(reader.parsed, writer.parsed)
    return [f"{told}: {each}" for each in found]
