"""What one process hands out of share-partitions: claims in the log, locks in memory, and a lease that it lives.

    fetch         something is claimed and free?  ─no─► PUT lease, HEAD others' leases ─► commit ClaimShare
                  └─yes─► lock it in memory
    acknowledge   commit SettleShare ─► answer
    now and then  PUT lease; locks whose time is up; give back what nobody wants

Any number of processes do so for one group at once (``log.state.shares``); who has nothing to hand out claims more, or
frees what a dead process held. Locks die with their process, so its records are delivered again: at least once, as
KIP-932 has it where a partition's leader fails.

A process trusts its claims for as long as its own clock says that its lease is good, counted from before the renewal
was sent: nobody can have freed them by then. Later it forgets them all and begins anew, since what it would hand out
may have been accepted elsewhere. What it then still holds in the log, and any claim of which it never heard, is freed
with its next claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from headwater.errors import Fenced, HeadwaterError, NotFound
from headwater.groups.configs import ShareConfig, duration_ms, share_config
from headwater.groups.leases import Leases
from headwater.groups.share_partition import Acquired, NotAcquired, Parting, Said, SharePartition
from headwater.limits import (
    SHARE_CLAIM_MIN,
    SHARE_IDLE_S,
    SHARE_LEASE_MS,
    SHARE_LEASE_SAFE,
    SHARE_LOOK_S,
    SHARE_STOP_S,
    SHARE_TICK_S,
)
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log.namespace import Namespace
from headwater.log.state import Partition, Share
from headwater.log.surely import commit_surely
from headwater.log.together import to_the_end

T = TypeVar("T")
Place: TypeAlias = tuple[str, int, int]  # group, topic's id, partition

HOLDERS = "__share_holders"  # the folder of these leases, beside those of groups


@dataclass(slots=True)
class _Held:
    """What this process hands out of one share-partition, since ``epoch`` of it."""

    epoch: int
    used_s: float
    locks: SharePartition = field(default_factory=SharePartition)


class Shares:
    """Share-partitions of one namespace, as handed out by one process. Make one per process; ``close`` it."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.holder = keys.fresh_name(namespace.chain.rng, 80)
        self._leases = Leases(namespace.chain)
        self._leased_s = float("-inf")  # when the newest renewal that arrived was sent
        self._lapses = 0  # how often the lease may have been over since
        self._held: dict[Place, _Held] = {}
        self._doors: dict[Place, asyncio.Lock] = {}
        self._looked_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tending: asyncio.Task[None] | None = None

    # -- handing out -------------------------------------------------------------------------------------

    def config(self, group: str) -> ShareConfig:
        """The group's configs as this process knows them."""
        return share_config(self.namespace.state, group)

    def available(self, place: Place, base: int = 0) -> tuple[int, int] | None:
        """The first offsets ``[start, end)`` at or after ``base`` that may be acquired here, and can be read."""
        held, partition = self._find(place), self._partition(place)
        if held is None or partition is None:
            return None
        held.used_s = self._now_s()
        held.locks.spend(0, partition.start)  # retention has taken what was there
        run = held.locks.available(base)
        return (run.base, run.end) if run is not None else None

    def acquire(self, place: Place, member: str, base: int, end: int) -> list[Acquired]:
        """Lock what is available of ``[base, end)`` for a member; how often it was delivered, this time included.

        To be called in one step with handing it out: a process that waits in between may have lost it.
        """
        held = self._find(place)
        if held is None:
            return []
        return held.locks.acquire(member, base, end, until_s=self._now_s() + self.config(place[0]).lock_ms / 1_000)

    def spend(self, place: Place, base: int, end: int) -> None:
        """There are no records at these offsets: nobody need acknowledge them."""
        held = self._find(place)
        if held is not None:
            held.locks.spend(base, end)

    def may_claim(self, place: Place) -> bool:
        """Whether a claim might bring something, by what this process knows. Costs nothing."""
        share, partition = self._share(place), self._partition(place)
        if partition is None:
            return False
        if share is None or self._has_room(place, share, partition) or self._strays(place, share):
            return True
        return any(self._may_look(holder) for holder in share.holders.values())

    def backlog(self, place: Place) -> int:
        """How many offsets nobody has claimed yet, by what this process knows."""
        share, partition = self._share(place), self._partition(place)
        if partition is None:
            return 0
        start = partition.start if share is None else max(share.next, partition.start)
        free = sum(span.end - span.base for span in share.spans if span.is_free) if share is not None else 0
        return max(partition.stable_end - start, 0) + free

    async def claim(self, place: Place, records: int) -> None:
        """Claim what others have not: free offsets first, then new ones, about so many.

        Raises:
            NotFound: there is no such group or partition any more.
            Conflict: the group does not share.
            Unavailable, Indeterminate: the store does not answer.

        Cost: 1 commit, which those of others share; at most every 5 s 1 PUT, and 1 HEAD for each other process.
        """
        await self._whatever_becomes_of_the_caller(self._claim(place, records))

    async def acknowledge(self, place: Place, member: str, said: Sequence[Said]) -> None:
        """Make true what a member says of records: all of it, or nothing. It is in the log when this returns.

        Raises:
            NotAcquired: the member does not hold one of them, or not any more. They are delivered again, or are done.
            Unavailable, Indeterminate: nobody knows, or nothing was done; what is not done comes again.

        Cost: 1 commit, which those of others share; nothing for renewals.
        """
        held = self._find(place)
        if held is None:
            raise NotAcquired(f"Partition {place[2]} is not handed out here to group {place[0]!r} any more.")
        config = self.config(place[0])
        until_s = self._now_s() + config.lock_ms / 1_000
        parting = held.locks.acknowledge(member, said, until_s=until_s, limit=config.deliveries)
        held.used_s = self._now_s()
        if parting.marks:
            await self._whatever_becomes_of_the_caller(self._settle(place, held, parting))

    def release(self, group: str, member: str) -> None:
        """A member's session is over: others may have what it held, as if it had not been delivered."""
        for place, held in self._held.items():
            if place[0] == group:
                held.locks.release(member)

    async def close(self) -> None:
        """Give everything back, and say that this process is gone. What cannot be said now, its lease says later."""
        if self._tending is not None:
            self._tending.cancel()
        if self._leased_s == float("-inf"):
            return
        leaving = asyncio.get_running_loop().create_task(self._leave(), name="headwater-shares-leave")
        await asyncio.wait({leaving}, timeout=SHARE_STOP_S)

    async def _leave(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for held in self._held.values():
            for run in list(held.locks.runs):
                held.locks.release(run.member)
        try:
            await self._tend_all(idle_s=0.0)  # what is spent, …
            await self._tend_all(idle_s=0.0)  # … and then the rest
            await self._leases.drop([keys.lease_key(HOLDERS, self.holder)])
        except HeadwaterError:
            pass
        self._held.clear()

    # -- claims ------------------------------------------------------------------------------------------

    async def _claim(self, place: Place, records: int) -> None:
        async with self._doors.setdefault(place, asyncio.Lock()):
            if self.available(place) is not None:
                return  # somebody else's claim was enough
            await self._check_group(place[0])
            await self._renew()
            share, config = self._share(place), self.config(place[0])
            frees = self._free_ops(place, self._strays(place, share), await self._dead(share))
            partition = self._partition(place)
            if partition is None:
                raise NotFound(f"There is no partition {place[2]} of topic {place[1]} any more.")
            if share is not None and not frees and not self._has_room(place, share, partition):
                return
            claim = share_ops.ClaimShare(
                group=place[0],
                topic=place[1],
                partition=place[2],
                holder=self.holder,
                records=min(max(records, SHARE_CLAIM_MIN), config.locks),
                locks=config.locks,
                start=await self._start(place, config) if share is None else -1,
            )
            lapses = self._lapses
            outcome = await commit_surely(self.namespace, [*frees, claim])
            if self.is_leased and lapses == self._lapses:
                self._gain(place, outcome.values["claim"])
            # Else others may have freed it before we heard of it: it is a stray, and freed with the next claim.

    async def _check_group(self, name: str) -> None:
        """Raise ``NotFound`` unless the group shares: the fold would refuse its claims, each by a commit."""
        if not self._is_sharing(name):
            await self.namespace.refresh()
        if not self._is_sharing(name):
            raise NotFound(f"There is no share group {name!r}: its members join first.", group=name)

    def _is_sharing(self, name: str) -> bool:
        group = self.namespace.state.groups.get(name)
        return group is not None and group.kind == "share"

    def _gain(self, place: Place, claim: int) -> None:
        share = self._share(place)
        if share is None or share.holders.get(claim) != self.holder:
            return  # a claim that took nothing leaves its number to the next one, which may be another's
        held = self._find(place)
        if held is None:
            held = self._held[place] = _Held(share.epoch, self._now_s())
        for span in share.spans:
            if span.claim == claim:
                held.locks.gain(span.base, span.end, count=span.count, claim=claim)
        if self._tending is None or self._tending.done():
            self._tending = asyncio.get_running_loop().create_task(self._tend(), name="headwater-shares")

    def _has_room(self, place: Place, share: Share, partition: Partition) -> bool:
        if any(span.is_free for span in share.spans):
            return True
        still = sum(span.end - span.base for span in share.spans if not span.is_done)
        return max(share.next, partition.start) < partition.stable_end and still < self.config(place[0]).locks

    def _strays(self, place: Place, share: Share | None) -> list[int]:
        """Claims of this process that it does not know of, or has forgotten."""
        held = self._find(place)
        known = held.locks.claims if held is not None else set[int]()
        return [c for c, holder in (share.holders if share else {}).items() if holder == self.holder and c not in known]

    async def _dead(self, share: Share | None) -> dict[str, list[int]]:
        """Claims of processes whose leases are over, by process. As known before their leases were looked at."""
        claims: dict[str, list[int]] = {}
        for claim, holder in (share.holders if share else {}).items():
            if self._may_look(holder):
                claims.setdefault(holder, []).append(claim)
        dead = {}
        for holder in claims:
            self._looked_s[holder] = self._now_s()
            lease = await self._leases.look(HOLDERS, holder)
            if lease is None or lease.age_ms > SHARE_LEASE_MS:
                dead[holder] = claims[holder]
                self._looked_s.pop(holder, None)
        return dead

    def _may_look(self, holder: str) -> bool:
        return holder != self.holder and self._now_s() - self._looked_s.get(holder, float("-inf")) >= SHARE_LOOK_S

    def _free_ops(self, place: Place, strays: list[int], dead: dict[str, list[int]]) -> list[ops.AnyOp]:
        lost = {**dead, self.holder: strays} if strays else dead
        return [
            share_ops.FreeShare(group=place[0], topic=place[1], partition=place[2], holder=holder, claims=claims)
            for holder, claims in lost.items()
        ]

    async def _start(self, place: Place, config: ShareConfig) -> int:
        """Where the group begins a partition that it has not read before."""
        topic, partition = self.namespace.state.topics[place[1]], self._partition(place)
        assert partition is not None
        back_ms = duration_ms(config.reset)
        if back_ms is not None:
            since_ms = self.namespace.chain.clock.wall_ms() - back_ms
            found = await self.namespace.reader.offset_at(topic.name, place[2], since_ms)
            return found[0] if found is not None else partition.stable_end
        return partition.start if config.reset == "earliest" else partition.stable_end

    # -- the log -----------------------------------------------------------------------------------------

    async def _settle(self, place: Place, held: _Held, parting: Parting) -> None:
        settle = share_ops.SettleShare(
            group=place[0], topic=place[1], partition=place[2], holder=self.holder, marks=parting.marks
        )
        try:
            await commit_surely(self.namespace, [settle])
        except HeadwaterError as error:
            # Perhaps it was done and perhaps not. The log knows, and what it frees of ours is delivered again.
            if self._held.get(place) is held:
                del self._held[place]
            if isinstance(error, Fenced | NotFound):
                raise NotAcquired(error.message, **error.data) from error
            raise
        held.locks.confirm(parting)

    async def _tend(self) -> None:
        """Look after what is held, until nothing is."""
        while self._held:
            await self.namespace.chain.clock.sleep(SHARE_TICK_S)
            try:
                await self._tend_all(idle_s=SHARE_IDLE_S)
            except HeadwaterError:
                continue  # the store does not answer: the next tick tries again, or the lease is over

    async def _tend_all(self, *, idle_s: float) -> None:
        if self._now_s() - self._leased_s >= SHARE_LEASE_MS / 3_000:
            await self._renew()
        await to_the_end([self._tend_one(place, idle_s) for place in list(self._held)])

    async def _tend_one(self, place: Place, idle_s: float) -> None:
        held = self._find(place)
        if held is None:
            return
        is_idle = self._now_s() - held.used_s >= idle_s and not held.locks.is_locked()
        parting = held.locks.unsaid()
        if is_idle and not parting.marks:
            parting = held.locks.spare()
        if parting.marks:
            await self._whatever_becomes_of_the_caller(self._settle(place, held, parting))
        if not held.locks.runs and self._held.get(place) is held:
            del self._held[place]  # a lease costs requests: who holds nothing needs none
            if not self._doors[place].locked():
                del self._doors[place]

    async def _renew(self) -> None:
        """Say that this process lives. If it was silent for too long, it holds nothing any more."""
        sent_s = self._now_s()
        if self.is_leased and sent_s - self._leased_s < SHARE_LEASE_MS / 3_000:
            return
        await self._leases.renew(HOLDERS, self.holder, session_ms=SHARE_LEASE_MS)
        if not self.is_leased:
            self._lapse()
        self._leased_s = max(self._leased_s, sent_s)

    def _lapse(self) -> None:
        """The lease may have been over: whatever this process holds others may hand out by now."""
        self._lapses += 1
        self._held.clear()

    @property
    def is_leased(self) -> bool:
        """Whether nobody can have taken this process for dead by now."""
        return 0 <= self._now_s() - self._leased_s < SHARE_LEASE_MS / 1_000 * SHARE_LEASE_SAFE

    # -- the parts ---------------------------------------------------------------------------------------

    def _find(self, place: Place) -> _Held | None:
        """What is handed out here of that share-partition, with its locks as of now."""
        if not self.is_leased:
            self._lapse()
        held, share = self._held.get(place), self._share(place)
        if held is None:
            return None
        if share is None or share.epoch != held.epoch:
            del self._held[place]  # it was begun anew, or deleted
            return None
        held.locks.expire(self._now_s(), limit=self.config(place[0]).deliveries)
        return held

    def _share(self, place: Place) -> Share | None:
        group = self.namespace.state.groups.get(place[0])
        return group.shares.get(place[1], {}).get(place[2]) if group is not None else None

    def _partition(self, place: Place) -> Partition | None:
        return self.namespace.state.partition(place[1], place[2])

    def _now_s(self) -> float:
        return self.namespace.chain.clock.elapsed_s()

    async def _whatever_becomes_of_the_caller(self, work: Coroutine[Any, Any, T]) -> T:
        """A commit whose client has gone is still learned of."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # somebody has heard of it, or nobody wants to
