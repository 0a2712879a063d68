"""Which commit was the last one at a time.

Manifests say when they were made, and never an earlier time than the one before them; so the answer is found by
bisection over the numbers that still exist.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from headwater.errors import NotFound
from headwater.log.chain import Chain, read_manifest
from headwater.log.history import state_at

LOOK_AGAIN_MAX: Final = 3  # how often the collector may take away what is being looked at


async def commit_at(chain: Chain, time_ms: int) -> int:
    """The number of the last commit whose manifest time is at or before ``time_ms``; 0 before the first one.

    Raises:
        NotFound: the manifests of that time were collected; the message says how far back the history reaches.

    Cost: 1 GET if it is the newest; else 1 LIST and 1 GET for each halving of the history: 24 of ten million manifests.
    """
    await chain.refresh()
    for _ in range(LOOK_AGAIN_MAX):
        if time_ms >= chain.state.time_ms:
            return chain.state.seq
        boundary = await chain.read_boundary()
        found = await _bisect(chain, boundary, time_ms)
        if found is not None and (found >= boundary or boundary == 1):
            return found
        if found is not None and await _reaches(chain, found, time_ms):
            return found
    raise NotFound(f"The history of {chain.store.url} changes faster than it can be read: try again.")


async def _bisect(chain: Chain, boundary: int, time_ms: int) -> int | None:
    """The last manifest at or before ``time_ms``, else the one below ``boundary``; None if one has gone meanwhile."""
    below, above = boundary - 1, chain.state.seq
    while above - below > 1:
        middle = (below + above) // 2
        data = await chain.read_slot(middle)
        if data is None:
            return None
        if read_manifest(data, middle).time <= time_ms:
            below = middle
        else:
            above = middle
    return below


async def _reaches(chain: Chain, seq: int, time_ms: int) -> bool:
    """Whether the oldest state that can be read was there at ``time_ms``. Raises ``NotFound`` if it came later."""
    oldest = await state_at(chain, seq)
    if oldest.time_ms <= time_ms:
        return True
    raise NotFound(
        f"The history reaches back to commit {seq} of {_shown(oldest.time_ms)}, not to {_shown(time_ms)}. "
        "A longer history.retention.ms keeps more from now on.",
        commit=seq,
        time_ms=oldest.time_ms,
    )


def _shown(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
