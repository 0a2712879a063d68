"""Knowing that there is nothing to do, so that upkeep of an idle namespace costs one GET.

A run that found nothing to do knows two numbers: the commit that it looked at, and the time before which nothing can
fall due. As long as the chain ends at that commit and the time has not come, the next run need not look at anything
but the tip. The process remembers it; for those that begin cold it is left in an object, ``maintained``.

The hint is believed for 12 hours by the store's own clock. Behind that the slot after its commit may have been filled
and collected again, so that a 404 there would say nothing (R5 keeps manifests for a day).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from headwater.clock import Clock
from headwater.errors import Corrupt, HeadwaterError, NotFound
from headwater.limits import OFFSETS_RETENTION_MS
from headwater.log import keys
from headwater.log.config import TopicConfig
from headwater.log.intents import FORMAT, decode_hint, encode_hint
from headwater.log.namespace import Namespace
from headwater.log.state import Group, State, Topic
from headwater.store.base import ObjectStore

QUIET_MS_MAX: Final = 12 * 3_600_000
UNARCHIVED_MS: Final = 15 * 60_000  # chunks that wait for the archive are looked at this often: a few requests
WORTH_MS: Final = 30 * 60_000  # a hint that is good for less is not worth its PUT


class Quiet(Struct, frozen=True, forbid_unknown_fields=True):
    """The line of ``maintained``: up to ``until_ms`` nothing falls due, unless somebody commits behind ``seq``."""

    v: int
    kind: str
    seq: int
    until_ms: int


class Memory:
    """What this process knows of its namespace; kept by ``Namespace.shared``."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.seq = -1
        self.until_ms = 0
        self.pruned_ms = 0  # when index pages were last looked through
        self.stored: Quiet | None = None

    def rests(self, now_ms: int) -> bool:
        """Whether nothing can have fallen due, if the state is that of the tip."""
        return self.seq == self.namespace.state.seq and now_ms < self.until_ms

    async def note(self, until_ms: int, *, idle: bool) -> None:
        """Remember that nothing falls due before ``until_ms``. A run that was ``idle`` leaves it to others, too."""
        state, now_ms = self.namespace.state, self.namespace.chain.clock.wall_ms()
        self.seq, self.until_ms = state.seq, min(until_ms, now_ms + QUIET_MS_MAX)
        hint = Quiet(FORMAT, "maintained", self.seq, self.until_ms)
        known = self.stored
        fresh = known is not None and (known.seq, known.until_ms > now_ms) == (hint.seq, True)
        if idle and not fresh and self.until_ms - now_ms >= WORTH_MS:
            with contextlib.suppress(HeadwaterError):  # a courtesy to those who begin cold
                await self.namespace.store.put(keys.MAINTAINED, encode_hint(hint))
                self.stored = hint


_hints = msgspec.json.Decoder(Quiet)


async def rests(store: ObjectStore, clock: Clock) -> bool:
    """Whether a namespace that this process has not opened has nothing to do; ``store`` shows its folder.

    False if that is not known. Cost: 1 GET, and 1 more if there is a hint.
    """
    try:
        blob = await store.get(keys.MAINTAINED)
        hint = decode_hint(_hints, blob.data, "hint 'maintained'")
    except (NotFound, Corrupt):
        return False
    young = blob.stat.date_ms - blob.stat.modified_ms < QUIET_MS_MAX
    if not young or max(blob.stat.date_ms, clock.wall_ms()) >= hint.until_ms:
        return False
    try:
        await store.get(keys.manifest_key(hint.seq + 1), end=1)
    except NotFound:
        return True
    return False


def quiet_until(state: State, now_ms: int, due: Iterable[int] = ()) -> int:
    """The time before which nothing falls due for members, groups, reservations and chunks; or ``due``, if sooner.

    A lower bound: what the state alone does not tell is looked at now and then.
    """
    times = [now_ms + QUIET_MS_MAX, *due]
    times += [_group_due(group, now_ms) for group in state.groups.values()]
    times += [producer.deadline_ms for producer in state.producers.values() if producer.is_busy]
    times += [now_ms + UNARCHIVED_MS for topic in state.topics.values() if _waits(topic)]
    return min(times)


def _group_due(group: Group, now_ms: int) -> int:
    if group.members:
        return now_ms  # their leases are looked at every time
    times = [committed.time_ms for places in group.offsets.values() for committed in places.values()]
    return max(min(times, default=now_ms), group.emptied_ms) + OFFSETS_RETENTION_MS


def _waits(topic: Topic) -> bool:
    """Whether chunks of the topic wait for the archive."""
    return TopicConfig.of(topic.config).archive and any(place.hot < place.stable_end for place in topic.partitions)
