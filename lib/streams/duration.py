"""Durations as people write them: "10s", "1h30m", a timedelta, or whole milliseconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final, TypeAlias

from headwater.errors import InvalidRequest

Duration: TypeAlias = "int | str | timedelta"
_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"\s*(\d+)\s*(ms|s|m|h|d|w)")


def millis(given: Duration, what: str = "A duration") -> int:
    """The duration in ms. Raises ``InvalidRequest``: ``what`` is how the error calls it."""
    if isinstance(given, bool):
        raise _strange(given, what)
    if isinstance(given, int):
        found = given
    elif isinstance(given, timedelta):
        found = given // timedelta(milliseconds=1)
    else:
        found = _parsed(given, what)
    if found < 0:
        raise InvalidRequest(f"{what} is not negative; {given!r} is.")
    return found


def shown(ms: int) -> str:
    """A duration as people read it: the largest unit that divides it."""
    for unit, size in reversed(_UNITS.items()):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _parsed(given: object, what: str) -> int:
    if not isinstance(given, str):
        raise _strange(given, what)
    total = at = 0
    for part in _PART.finditer(given):
        if part.start() != at:
            break
        total += int(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not at or given[at:].strip():
        raise _strange(given, what)
    return total


def _strange(given: object, what: str) -> InvalidRequest:
    return InvalidRequest(f'{what} is written as "10s", "1h30m", a timedelta or whole milliseconds, not {given!r}.')
