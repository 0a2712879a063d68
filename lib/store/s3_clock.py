"""The clock of an S3 service, for a client that hides the Date of its answers (C8).

Every HTTP answer carries a Date, a refusal too. So one unsigned request tells the service's clock, and our own
clock carries it on for a while.
"""

from __future__ import annotations

import asyncio

from headwater.clock import Clock

FRESH_S = 300.0  # clocks drift by less than a tenth of a second in this time
SILENT_S = 30.0  # a service without a Date is not asked again before this
DISAGREE_S = 2.0  # wall and boot-time clock have come apart by so much: the machine slept, or the wall clock was set
UNKNOWN = -1


class ServiceClock:
    """``now_ms`` is the service's clock to about a second, which is what Date and Last-Modified resolve.

    When in doubt it is behind, so a lease that is judged by it looks younger than it is, never older.
    """

    def __init__(self, url: str, clock: Clock, timeout_s: float) -> None:
        self._url = url
        self._clock = clock
        self._timeout_s = timeout_s
        self._date_ms = UNKNOWN
        self._read_at = (float("-inf"), float("-inf"))  # wall and elapsed, in seconds

    def known_ms(self) -> int:
        """The service's clock if it has been read lately, else -1. Asks nobody."""
        wall_s, elapsed_s = self._since()
        if self._date_ms == UNKNOWN or elapsed_s > FRESH_S or abs(wall_s - elapsed_s) > DISAGREE_S:
            return UNKNOWN
        return self._date_ms + int(elapsed_s * 1_000)

    async def now_ms(self) -> int:
        """The service's clock, or -1 if it does not say. Cost: one unsigned HEAD every five minutes of use."""
        if (now_ms := self.known_ms()) != UNKNOWN:
            return now_ms
        if self._date_ms == UNKNOWN and self._since()[1] < SILENT_S:
            return UNKNOWN
        before = (self._clock.wall_ms() / 1_000, self._clock.elapsed_s())
        # urllib costs more CPU than all of this store, and a function's cold start has no need of it.
        from headwater.store.s3_date import read_date_ms

        date_ms = await asyncio.to_thread(read_date_ms, self._url, self._timeout_s)
        self._date_ms, self._read_at = date_ms, before if date_ms == UNKNOWN else self._now()
        return self.known_ms()

    def _now(self) -> tuple[float, float]:
        return self._clock.wall_ms() / 1_000, self._clock.elapsed_s()

    def _since(self) -> tuple[float, float]:
        wall_s, elapsed_s = self._now()
        return wall_s - self._read_at[0], elapsed_s - self._read_at[1]
