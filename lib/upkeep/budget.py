"""A bound on memory that many tasks share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """At most ``total`` bytes are held at once; who asks for more than there is waits, first come first served.

    ``peak`` is the most that was held so far. A task that wants more than ``total`` gets all of it, alone.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self.peak = 0
        self._door = asyncio.Lock()
        self._room = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold ``size`` bytes inside the block. Who holds some must not ask for more: it might wait for ever."""
        size = min(size, self.total)
        async with self._door:
            while self.held + size > self.total:
                self._room.clear()
                await self._room.wait()
            self.held += size
        self.peak = max(self.peak, self.held)
        try:
            yield
        finally:
            self.held -= size
            self._room.set()
