"""A bell for who commits and does not look: who publishes while nobody seems to look says where. DESIGN section 6.

It is a hint and no more: rings may be lost, be another's by the time they are heard, or be old. What is published is
found without it by a LIST now and then, or committed in a turn of its writer's own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Struct

from headwater.errors import HeadwaterError
from headwater.log import keys
from headwater.log.chain import Chain
from headwater.log.intents import FORMAT, decode_hint, encode_hint


class Ring(Struct, frozen=True, forbid_unknown_fields=True):
    """What lies under `keys.BELL`: the segment that whoever rang last waits for."""

    v: int
    kind: Literal["bell"]
    key: str


_rings = msgspec.json.Decoder(Ring)


async def ring(chain: Chain, key: str) -> None:
    """Tell who commits that the segment ``key`` is there, or will be in a moment. Cost: 1 PUT."""
    with suppress(HeadwaterError):
        await chain.store.put(keys.BELL, encode_hint(Ring(FORMAT, "bell", key)))


async def heard(chain: Chain) -> str:
    """The segment that the bell was rung for last; "" if there is none, or the store does not say. Cost: 1 GET."""
    with suppress(HeadwaterError):
        rung = decode_hint(_rings, (await chain.store.get(keys.BELL)).data, "bell")
        keys.parse_segment_key(rung.key)
        return rung.key
    return ""
