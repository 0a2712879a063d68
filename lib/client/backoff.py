"""How long to wait before asking again: full jitter with a doubling cap, as the stores' ``retrying`` does."""

from __future__ import annotations

import asyncio
import random

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.limits import BACKOFF_MS_MAX


class Backoff:
    """The pauses of one call that is tried again and again."""

    def __init__(self, clock: Clock, rng: random.Random, *, first_ms: float = 50.0) -> None:
        self.clock = clock
        self.rng = rng
        self._cap_ms = first_ms

    def next_s(self, error: BaseException) -> float:
        """The next pause; on top of the time that the error says to wait (a ``Throttled`` does)."""
        at_least_ms = error.data.get("retry_after_ms", 0) if isinstance(error, HeadwaterError) else 0
        pause_s = self.rng.uniform(0.0, self._cap_ms) / 1_000
        if isinstance(at_least_ms, int | float):
            pause_s += at_least_ms / 1_000
        self._cap_ms = min(self._cap_ms * 2, BACKOFF_MS_MAX)
        return pause_s

    async def pause(self, error: BaseException, deadline_s: float) -> bool:
        """Wait, and say whether there is time for another try; it does not wait where there is not."""
        pause_s = self.next_s(error)
        if self.clock.elapsed_s() + pause_s > deadline_s:
            return False
        await self.clock.sleep(pause_s)
        return True


async def poked(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait until ``event`` is set, or for ``timeout_s``, and clear it."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
