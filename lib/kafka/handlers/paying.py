"""Quotas in Kafka's way (KIP-219): the answer comes at once, and says for how long its client is to be silent.

A client that keeps to it never waits here. Another one, or one of several that share a quota, is held back until what
was had before is paid for; but not until it gives up, since it would send the same again.
"""

from __future__ import annotations

from headwater.api.quotas import Kind
from headwater.errors import Throttled
from headwater.kafka.model import Peer
from headwater.limits import KAFKA_HELD_BACK_S


def charged(peer: Peer, api: int, kind: Kind, nbytes: int) -> int:
    """Charge what was had; for how many ms a client that has had more than it may is to be silent."""
    if not nbytes:
        return 0
    peer.service.charge(kind, nbytes)
    silent_ms = owed_ms(peer, kind)
    if silent_ms:
        peer.gateway.figures.api(api).throttled(silent_ms)
    return silent_ms


def owed_ms(peer: Peer, kind: Kind) -> int:
    """When all is paid for, in ms from now; 0 if it is."""
    try:
        peer.service.check_debt(kind)
    except Throttled as error:
        return error.retry_after_ms
    return 0


async def settled(peer: Peer, kind: Kind, patience_s: float = KAFKA_HELD_BACK_S) -> int:
    """Wait until all is paid for, or ``patience_s``; for how many ms more the client is to be silent then."""
    clock = peer.gateway.clock
    end_s = clock.elapsed_s() + patience_s
    while silent_ms := owed_ms(peer, kind):
        left_s = end_s - clock.elapsed_s()
        if left_s < silent_ms / 1_000:
            await clock.sleep(max(0.0, left_s))
            return owed_ms(peer, kind)
        await clock.sleep(silent_ms / 1_000)
    return 0
