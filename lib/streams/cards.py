"""What a topology's picture is made of: plain data, so that who draws it needs neither a job's code nor Polars."""

from __future__ import annotations

import msgspec


class Card(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A node as it is drawn. ``shape`` is its look: ``topic``, ``state`` or ``node``; ``stage`` its sub-topology."""

    name: str
    kind: str
    note: str = ""
    shape: str = "node"
    parents: tuple[str, ...] = ()
    stage: int = 0
    is_source: bool = False
    columns: tuple[tuple[str, str], ...] = ()  # names with their types, for whoever points at it
