"""Messages as the codec gives them to handlers and takes them back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Fields: TypeAlias = dict[str, Any]
"""A message as Kafka's schema names it, in snake case, the union of all versions; see ``wire``.

A request has every field: those that its version lacks have their default. An answer may leave fields out: they get
their default, and fields that the version lacks are dropped. Arrays are lists of ``Fields`` or of plain values, times
are ints in ms, UUIDs 16 bytes, records and bytes are buffers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``client`` is the client id, "" if there is none."""

    api: int
    version: int
    correlation: int
    client: str
    fields: Fields
