"""Ask again, with growing random pauses, what is safe to ask again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headwater.clock import Clock
from headwater.errors import Indeterminate, StorageFull, Throttled, Unavailable
from headwater.limits import BACKOFF_MS_MAX, BACKOFF_MS_MIN, STORE_RETRY_S

T = TypeVar("T")


async def retrying(
    call: Callable[[], Awaitable[T]], *, clock: Clock, rng: random.Random, deadline_s: float = STORE_RETRY_S
) -> T:
    """The answer of ``call``, asked again while the store is throttling, away or silent.

    For **reads, and writes that may be applied twice** (an unconditional PUT of the same bytes, DELETE). Never for a
    conditional write: its second answer says nothing about the first (C4); the journal resolves those (R2).

    The pause is drawn from ``[0, cap)``, the cap doubling from ``BACKOFF_MS_MIN`` to ``BACKOFF_MS_MAX`` ("full
    jitter", from the AWS Architecture Blog on exponential backoff); a throttling store's ``retry_after_ms`` comes on
    top of it. When the next pause would end after ``deadline_s``, the last error is raised as it came.
    """
    deadline = clock.elapsed_s() + deadline_s
    cap_ms = float(BACKOFF_MS_MIN)
    while True:
        try:
            return await call()
        except StorageFull:
            raise
        except (Throttled, Unavailable, Indeterminate) as error:
            pause_s = (rng.uniform(0.0, cap_ms) + (error.retry_after_ms if isinstance(error, Throttled) else 0)) / 1_000
            if clock.elapsed_s() + pause_s > deadline:
                raise
        cap_ms = min(cap_ms * 2, BACKOFF_MS_MAX)
        await clock.sleep(pause_s)
