"""Ask again, with growing random pauses, what is safe to ask again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headwater.clock import Clock
from headwater.errors import HeadwaterError, Indeterminate, StorageFull, Throttled, Unavailable
from headwater.limits import BACKOFF_MS_MAX, BACKOFF_MS_MIN, STORE_RETRY_S

T = TypeVar("T")


class Backoff:
    """The pauses of one call that is made again and again.

    Each is drawn from ``[0, cap)``, the cap doubling from ``first_ms`` to ``BACKOFF_MS_MAX`` ("full jitter", from the
    AWS Architecture Blog on exponential backoff); the time that an error says to wait comes on top of it.
    """

    def __init__(self, clock: Clock, rng: random.Random, *, first_ms: float = BACKOFF_MS_MIN) -> None:
        self.clock = clock
        self.rng = rng
        self._cap_ms = float(first_ms)

    def next_s(self, error: BaseException | None = None) -> float:
        """The next pause after ``error``."""
        asked_ms = error.data.get("retry_after_ms", 0) if isinstance(error, HeadwaterError) else 0
        pause_ms = self.rng.uniform(0.0, self._cap_ms) + (asked_ms if isinstance(asked_ms, int | float) else 0)
        self._cap_ms = min(self._cap_ms * 2, BACKOFF_MS_MAX)
        return pause_ms / 1_000

    async def pause(self, error: BaseException, deadline_s: float) -> bool:
        """Wait, and say whether there is time for another try; it does not wait where there is not."""
        pause_s = self.next_s(error)
        if self.clock.elapsed_s() + pause_s > deadline_s:
            return False
        await self.clock.sleep(pause_s)
        return True


async def retrying(
    call: Callable[[], Awaitable[T]], *, clock: Clock, rng: random.Random, deadline_s: float = STORE_RETRY_S
) -> T:
    """The answer of ``call``, asked again while the store is throttling, away or silent.

    For **reads, and writes that may be applied twice** (an unconditional PUT of the same bytes, DELETE). Never for a
    conditional write: its second answer says nothing about the first (C4); the journal resolves those (R2).

    When the next pause (see ``Backoff``) would end after ``deadline_s``, the last error is raised as it came.
    """
    deadline = clock.elapsed_s() + deadline_s
    backoff = Backoff(clock, rng)
    while True:
        try:
            return await call()
        except StorageFull:
            raise
        except (Throttled, Unavailable, Indeterminate) as error:
            if not await backoff.pause(error, deadline):
                raise
