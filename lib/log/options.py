"""The knobs of one process's handle on a namespace, with their units and defaults.

None of them must agree between processes: whatever they are, the fold gives the same state.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater import limits
from headwater.meters import PROCESS, Meters


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this process behaves. See ``headwater.limits`` for the reasons behind the defaults."""

    linger_ms: float = 0.0  # how long a commit waits for company from callers of the same process
    hedge_ms: float = 0.0  # a manifest that is not answered by then is sent a second time; 0: it is not
    inline_bytes_max: int = limits.INLINE_BYTES_MAX
    segment_bytes_target: int = limits.SEGMENT_BYTES_TARGET
    write_buffer_bytes_max: int = limits.WRITE_BUFFER_BYTES_MAX
    uploads_max: int = limits.UPLOADS_MAX
    commit_timeout_s: float = limits.COMMIT_TIMEOUT_S
    store_retry_s: float = limits.STORE_RETRY_S
    snapshot_every: int = limits.SNAPSHOT_EVERY
    snapshot_bytes: int = limits.SNAPSHOT_BYTES
    catch_up_bytes_max: int = limits.CATCH_UP_BYTES_MAX
    read_ahead_bytes_max: int = limits.READ_AHEAD_BYTES_MAX
    stale_after_s: float = limits.STALE_AFTER_S
    threads: bool = True  # upkeep encodes and decodes in threads; False where time is simulated
    meters: Meters = PROCESS  # where this process counts what it commits, produces and fetches
    cooperative: bool = True  # False: the naive optimistic loop, kept as the baseline of `headwater bench contention`
