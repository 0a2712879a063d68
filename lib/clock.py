"""Time and randomness: the only module that may ask the machine for either.

Everything else takes a ``Clock`` and a ``random.Random`` as arguments, so that the
simulation can run the same code under virtual time and a seed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from functools import partial
from typing import Final, Protocol


class Clock(Protocol):
    """What the engine may ask about time."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by this machine's clock. It may be wrong and may jump."""
        ...

    def elapsed_s(self) -> float:
        """Seconds since some fixed point; never goes back, and counts time asleep (R5)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Other tasks run meanwhile."""
        ...


# CLOCK_BOOTTIME goes on while a laptop or a frozen function sleeps; the monotonic clock of other systems does not.
_elapsed_s: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    elapsed_s = staticmethod(_elapsed_s)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def system_entropy() -> random.Random:
    """Randomness that stays fresh after a fork or a snapshot restore (R10): each draw asks the kernel."""
    return random.SystemRandom()


def stopwatch_s() -> float:
    """Seconds for measuring how long something took, at the best resolution there is."""
    return time.perf_counter()


def cpu_s() -> float:
    """CPU seconds that this process has used."""
    return time.process_time()
