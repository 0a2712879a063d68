"""The pauses of a long poll: wait for a commit, and look at the tip now and then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headwater.log.chain import Chain

POLL_S_MIN: Final = 0.02  # the first look at the tip comes after this, …
POLL_S_MAX: Final = 1.0  # … later ones after ever more, up to this; …
POLL_GROWTH: Final = 1.8  # … so many times more: who waits in vain for ten seconds looks 15 times
WAIT_S_MIN: Final = 0.001  # less than this may be too small a number for a clock to pass it


class LongPoll:
    """At most ``wait_ms``, from now on; without it, until who waits has enough of it."""

    def __init__(self, chain: Chain, wait_ms: float = math.inf) -> None:
        self._chain = chain
        self._deadline_s = chain.clock.elapsed_s() + wait_ms / 1_000
        self._pause_s = POLL_S_MIN

    async def more(self, seq: int) -> bool:
        """Wait until there may be more than at commit ``seq``; False at once if the time is up.

        Cost: nothing if this process folds or commits something, or is about to; else 1 GET (see ``Chain.follow``).
        """
        chain = self._chain
        left_s = self._deadline_s - chain.clock.elapsed_s()
        if left_s < WAIT_S_MIN:
            return False
        if chain.is_behind and not chain.is_asking(POLL_S_MAX):
            await chain.follow(seq)
            return True
        pause_s = self._pause_s
        # Many partitions may be waited for at once: who finds that somebody has just looked need not look as well. Nor
        # is there a need while a manifest is on its way, which tells the tip: who looks hears of it after the look.
        has_grown = await chain.grown(seq, min(pause_s, left_s))
        if not has_grown and chain.age_s() >= pause_s / 2 and not chain.is_asking(POLL_S_MAX):
            await chain.follow(seq)
        self._pause_s = min(pause_s * POLL_GROWTH, POLL_S_MAX)
        return True
