"""Leases: the objects by which members of groups show that they live. Never a commit, never a local clock.

A lease is ``lease/<group>/<member>``, written with a plain PUT every ``renewal_ms``. Its age is what the store says
of it: its clock at the answer less the time at which it stamped the object (R7, C8). A lease is only a reason to
expel somebody. What a member may do is decided by the fold, so a wrong guess costs a rebalance and no record.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from headwater.errors import NotFound
from headwater.limits import HEARTBEAT_MS, LEASES_KNOWN_MAX
from headwater.log import keys
from headwater.log.chain import Chain
from headwater.log.state import Member
from headwater.store.base import Stat

EARLY = 0.05  # of an interval: a heartbeat that comes a moment early renews, rather than leave it to the next one
ABSENT = 1.5  # intervals: who was not heard of for so long may have been served by another process meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How old a lease is, and what the store's clock said then."""

    age_ms: int
    date_ms: int


@dataclass(slots=True)
class _Seen:
    """What this process knows of a lease: when it was last renewed, who did it, and when the member last came by."""

    renewed_s: float
    heard_s: float
    ours: bool


def renewal_ms(session_ms: int) -> int:
    """How often a lease is renewed: three tries in a session, and never more than 4 PUTs a minute for long ones."""
    return min(HEARTBEAT_MS, session_ms // 3)


def overdue(member: Member, lease: Lease | None, now_ms: int) -> str:
    """Why ``member`` is to be expelled, or nothing. ``now_ms`` is the time that a manifest would bear now.

    What it owes since ``revoking_ms`` is due by manifest time *and* by the store's clock: a clock that is ahead
    expels nobody.
    """
    if lease is None:
        return "its lease is gone"
    if lease.age_ms > member.session_ms:
        return f"its lease is {lease.age_ms} ms old and its session {member.session_ms} ms long"
    due_ms = member.revoking_ms + member.rebalance_ms
    if member.revoking and due_ms < min(now_ms, lease.date_ms):
        return f"it has not released its partitions for more than {member.rebalance_ms} ms"
    return ""


class Leases:
    """Reads and writes leases, and remembers when the members that come by this process are due."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    async def renew(self, group: str, member: str, *, session_ms: int) -> None:
        """Write the lease. Cost: 1 PUT."""
        begun_s = self.chain.clock.elapsed_s()
        key = keys.lease_key(group, member)
        body = msgspec.json.encode({"group": group, "member": member, "session_ms": session_ms})
        await self.chain.retry(lambda: self.chain.store.put(key, body))
        self._note(group, member, _Seen(begun_s, self.chain.clock.elapsed_s(), ours=True))

    async def due(self, group: str, member: str, *, session_ms: int) -> bool:
        """Whether the lease is to be renewed now.

        A process that serves the member alone knows; one that may share it with others (functions do) asks the
        store. Cost: nothing, or 1 HEAD an interval.
        """
        interval_s, now_s = renewal_ms(session_ms) / 1_000, self.chain.clock.elapsed_s()
        seen = self._seen.get((group, member))
        certain = seen is not None and seen.ours and now_s - seen.heard_s <= interval_s * ABSENT
        if seen is not None:
            seen.heard_s = now_s
            if 0 <= now_s - seen.renewed_s < interval_s * (1 - EARLY):  # below 0: restored on another machine
                return False
        if certain:
            return True
        lease = await self.look(group, member)
        if lease is None:
            return True
        self._note(group, member, _Seen(now_s - lease.age_ms / 1_000, now_s, ours=False))
        return lease.age_ms / 1_000 >= interval_s * (1 - EARLY)

    def heard(self, group: str, member: str, *, session_ms: int) -> bool:
        """Whether the member came by this process within its session. Costs nothing; a no says nothing."""
        seen = self._seen.get((group, member))
        return seen is not None and 0 <= self.chain.clock.elapsed_s() - seen.heard_s <= session_ms / 1_000

    async def look(self, group: str, member: str) -> Lease | None:
        """How old the lease is; None if there is none. Cost: 1 HEAD."""
        key = keys.lease_key(group, member)
        try:
            return _lease(await self.chain.retry(lambda: self.chain.store.head(key)))
        except NotFound:
            return None

    async def all(self, group: str | None = None) -> dict[str, Lease]:
        """Every lease of a group, or of all groups, by key. Cost: 1 LIST for each 1,000."""
        prefix = keys.LEASES if group is None else keys.leases_of(group)
        return {stat.key: _lease(stat) for stat in await self.chain.listed(prefix)}

    async def drop(self, lease_keys: list[str]) -> None:
        """Delete leases. One that does not exist is no error. Cost: 1 DELETE for each 1,000, which is free on S3."""
        if lease_keys:
            await self.chain.retry(lambda: self.chain.store.delete(lease_keys))

    def forget(self, group: str, member: str) -> None:
        """The member has left by way of this process."""
        self._seen.pop((group, member), None)

    def _note(self, group: str, member: str, seen: _Seen) -> None:
        self._seen[group, member] = seen
        self._seen.move_to_end((group, member))
        if len(self._seen) > LEASES_KNOWN_MAX:
            self._seen.popitem(last=False)


def _lease(stat: Stat) -> Lease:
    return Lease(age_ms=stat.date_ms - stat.modified_ms, date_ms=stat.date_ms)
