"""How the client waits: before it asks again, and for something to happen."""

from __future__ import annotations

import asyncio
import random

from headwater.clock import Clock
from headwater.store import retry

FIRST_MS = 50.0  # a service is further away than a store


class Backoff(retry.Backoff):
    """The stores' pauses, from a longer first one on."""

    def __init__(self, clock: Clock, rng: random.Random, *, first_ms: float = FIRST_MS) -> None:
        super().__init__(clock, rng, first_ms=first_ms)


async def poked(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait until ``event`` is set, or for ``timeout_s``, and clear it."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
