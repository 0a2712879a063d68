"""One intent in the middle of being decided: what it did so far, and how to take that back.

An intent is all or nothing. Its operations run in order, each checks before it changes anything, and
each change leaves its undoing here; the first refusal runs the undoings backwards, and the state is
what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater.log.operations import Reserve
from headwater.log.state.model import Ended, Producer, State


class Refused(Exception):
    """The intent cannot be applied. ``code`` is stable and is what callers act on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Change:
    """The working notes of one intent."""

    __slots__ = ("bases", "bump", "ended", "groups", "reserve", "state", "topics", "touched", "undo", "values")

    def __init__(self, state: State) -> None:
        self.state = state
        self.undo: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.bases: list[int] = []
        self.values: dict[str, int] = {}
        self.reserve: Reserve | None = None
        self.bump: Producer | None = None
        self.ended: Ended | None = None  # what ``bump`` is for, if that is remembered
        self.touched: list[Producer] = []
        self.groups: dict[str, bool] = {}  # to be rebalanced at the end of the manifest; True: with a new target
        self.topics: set[str] = set()  # names whose topic came, went, or has other partitions now

    def on_refusal(self, undo: Callable[..., Any], *args: Any) -> None:
        """Call ``undo(*args)`` if a later part of the intent is refused."""
        self.undo.append((undo, args))

    def set(self, thing: Any, name: str, value: Any) -> None:
        """Set an attribute, and set it back if a later part of the intent is refused."""
        self.undo.append((setattr, (thing, name, getattr(thing, name))))
        setattr(thing, name, value)

    def touch(self, group: str, *, anew: bool) -> None:
        """Rebalance the group at the end of the manifest; ``anew`` with a new generation and target."""
        self.groups[group] = self.groups.get(group, False) or anew

    def roll_back(self) -> None:
        """Take everything back, last change first."""
        for undo, args in reversed(self.undo):
            undo(*args)
