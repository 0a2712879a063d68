"""Ranges of one object that are wanted at the same time, by one request.

A gateway's segment has a piece of every partition that its clients wrote to, and a reader of a hundred partitions wants
all of them. Asked for one by one they cost a hundred requests, and take as long as the slowest of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.limits import KIB, MIB
from headwater.log.together import together

GAP_BYTES_MAX: Final = 64 * KIB  # that nobody wants, between two ranges of one request: sooner read than asked around
ALONE_BYTES_MIN: Final = 256 * KIB  # a range from this on is a request of its own: its bytes are not copied then
MERGED_BYTES_MAX: Final = 4 * MIB  # of one request

Range = tuple[int, int]  # start, end
Read = Callable[[str, int, int], Coroutine[Any, Any, bytes]]


@dataclass(slots=True, eq=False)
class _Round:
    """What is wanted of an object by those who have come until its first one asks."""

    wanted: list[Range]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    found: list[tuple[int, bytes]] | None = None  # where each piece begins; None if the first one was cancelled
    error: HeadwaterError | None = None


class Ranges:
    """Reads ranges with ``read``, as many at once as there are ``slots``; those that wait for the same one share it."""

    def __init__(self, read: Read, slots: asyncio.Semaphore, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._slots = slots
        self._rounds: dict[str, _Round] = {}

    async def read(self, key: str, start: int, end: int) -> bytes:
        """The bytes ``[start, end)`` of the object; fewer if it ends before. Raises what ``read`` raises.

        Cost: 1 GET for all that come in the same turn of the loop, or while all slots are taken, and lie near each
        other; no copy if it is alone, or large.
        """
        if end - start >= ALONE_BYTES_MIN:
            async with self._slots:
                return await self._read(key, start, end)
        while (round_ := self._rounds.get(key)) is not None:
            round_.wanted.append((start, end))
            await round_.over.wait()
            if round_.error is not None:
                raise round_.error
            if round_.found is not None:
                return _cut(round_.found, start, end)
        return _cut(await self._led(key, (start, end)), start, end)

    async def _led(self, key: str, first: Range) -> Sequence[tuple[int, bytes]]:
        """Ask for what is wanted by the time that there is a slot. Who leads does so for all: nothing outlives it."""
        round_ = self._rounds[key] = _Round([first])
        try:
            async with self._slots:
                await self._clock.sleep(0)  # the others of this turn
                del self._rounds[key]
                pieces = merged(round_.wanted)
                found = await together(*(self._read(key, *piece) for piece in pieces))
            round_.found = [(start, data) for (start, _), data in zip(pieces, found, strict=True)]
            return round_.found
        except HeadwaterError as error:
            round_.error = error
            raise
        finally:
            if self._rounds.get(key) is round_:
                del self._rounds[key]
            round_.over.set()


def merged(wanted: Sequence[Range]) -> list[Range]:
    """The ranges, in order, with those together that overlap or lie near each other. Pure."""
    pieces: list[Range] = []
    for start, end in sorted(wanted):
        if pieces:
            first, last = pieces[-1]
            if start - last <= GAP_BYTES_MAX and max(end, last) - first <= MERGED_BYTES_MAX:
                pieces[-1] = first, max(end, last)
                continue
        pieces.append((start, end))
    return pieces


def _cut(found: Sequence[tuple[int, bytes]], start: int, end: int) -> bytes:
    """The range out of the piece that holds it: the last that begins no later."""
    at, data = next(each for each in reversed(found) if each[0] <= start)
    return data[start - at : end - at]
