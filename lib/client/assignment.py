"""Which partitions a consumer reads, and how that changes: by hand, by looking at topics, or by its group's word.

``follow`` is called inside every poll and does nothing while there is nothing new. When the group asks partitions
back it goes through the steps in the order of KIP-848: stop handing out, tell the listener, commit, drop, release.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headwater.client.backoff import Backoff
from headwater.client.fetching import Fetcher
from headwater.client.lanes import Lane
from headwater.client.membership import GroupOptions, Membership
from headwater.client.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from headwater.client.subscription import Subscription, place, told
from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest, NotFound, Throttled, Unavailable
from headwater.limits import CLIENT_COMMIT_S
from headwater.log.outcomes import UnknownMember

if TYPE_CHECKING:
    from headwater.api.verbs import GroupOffset, Heartbeat, Verbs
    from headwater.client.transaction import OffsetsLike


class Assignment:
    """The partitions of one consumer, their offsets in its group, and its membership."""

    def __init__(
        self,
        verbs: Verbs,
        subscription: Subscription,
        fetcher: Fetcher,
        terms: GroupOptions,
        *,
        auto_commit_s: float | None,
        metadata_max_age_s: float,
        news: Callable[[], None],
    ) -> None:
        self.verbs = verbs
        self.clock = fetcher.clock
        self.rng = fetcher.rng
        self._subscription = subscription
        self._fetcher = fetcher
        self._terms = terms
        self._auto_commit_s = auto_commit_s
        self._max_age_s = metadata_max_age_s
        self._news = news
        self._following = asyncio.Lock()
        self._follower: asyncio.Task[Any] | None = None
        self._committing = asyncio.Lock()
        self._committed: dict[TopicPartition, int] = {}  # what is known to be committed, to spare idle commits
        self._membership: Membership | None = None
        self._applied: Heartbeat | None = None
        self._looked_s = -1e9
        self._asked: object = None  # the subscription as of the last look
        self._committer: asyncio.Task[None] | None = None

    # -- following ----------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Read what is to be read as of now: join, take, give up. Raises what the verbs raise; call it again then."""
        if self._is_settled():
            return
        async with self._alone():
            await self._follow()

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One change of the assignment at a time. Raises ``InvalidRequest`` for a listener that polls: it would wait
        for itself.
        """
        if self._follower is not None and self._follower is asyncio.current_task():
            raise InvalidRequest("A rebalance listener is called inside a poll and cannot poll itself.")
        async with self._following:
            self._follower = asyncio.current_task()
            try:
                yield
            finally:
                self._follower = None

    async def _follow(self) -> None:
        self._fetcher.is_patient = self._subscription.is_automatic
        if self._subscription.manual is not None:
            await self._replace(self._subscription.manual)
        elif not self._subscription.is_automatic:
            await self._leave()
        elif not self._terms.group:
            await self._look()
        else:
            await self._heed()
        self._asked = self._asking()
        if self._auto_commit_s is not None and self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_on(), name="headwater-auto-commit")

    def look_again_s(self) -> float:
        """How long a poll may wait before topics must be looked at again."""
        if self._subscription.manual is not None or (self._terms.group and self._subscription.pattern is None):
            return 3_600.0
        return max(self._looked_s + self._max_age_s - self.clock.elapsed_s(), 0.001)

    def polled(self, lanes: Iterable[Lane]) -> None:
        """The program has done with what it was given of these."""
        for lane in lanes:
            lane.processed = lane.position
        if self._membership is not None:
            self._membership.polled()

    async def close(self, *, processed: bool) -> None:
        """Give up everything, after a commit of all positions or, if not ``processed``, of those of the last poll."""
        if processed:
            self.polled(self._fetcher.lanes.values())
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.wait([self._committer])
        try:
            async with self._alone():
                await self._leave()
        finally:
            await self._fetcher.drop(list(self._fetcher.lanes))

    def _asking(self) -> object:
        asked = self._subscription
        return asked.manual, asked.pattern, asked.topics

    def _is_settled(self) -> bool:
        if self._asked != self._asking() or self.look_again_s() <= 0.001:
            return False
        member = self._membership
        return member is None or (member.latest is self._applied and not member.is_lost and member.error is None)

    async def _replace(self, wanted: Iterable[TopicPartition]) -> None:
        """Read exactly these."""
        wanted = dict.fromkeys(wanted)
        lanes = self._fetcher.lanes
        gone = [tp for tp in lanes if tp not in wanted]
        if gone:
            await self._commit_quietly(gone)
            await self._fetcher.drop(gone)
        self._fetcher.add(await self._lanes([tp for tp in wanted if tp not in lanes]))

    async def _look(self) -> None:
        """Without a group: read every partition of the topics there are."""
        topics = await self._subscription.resolve(self.verbs)
        infos = await asyncio.gather(*(self.verbs.topic(name) for name in topics))
        self._looked_s = self.clock.elapsed_s()
        wanted = [TopicPartition(info.name, each.partition) for info in infos for each in info.partitions]
        new = [tp for tp in wanted if tp not in self._fetcher.lanes]
        await self._replace(wanted)
        if new:
            await told(self._subscription.listener.on_partitions_assigned(new))

    # -- in a group --------------------------------------------------------------------------------------

    async def _heed(self) -> None:
        """Do as the group said last, until it has nothing new to say."""
        member = await self._joined()
        if self._subscription.pattern is not None and self.look_again_s() <= 0.001:
            member.subscribe(await self._subscription.resolve(self.verbs))
            self._looked_s = self.clock.elapsed_s()
        while True:
            if member.error is not None:
                error, member.error, member.is_lost = member.error, None, True
                raise error
            if member.is_lost:
                member = await self._joined()
            heard = member.latest
            assert heard is not None, "a member has heard of its group"
            if heard is self._applied:
                return
            try:
                await self._apply(member, heard)
            except UnknownMember:
                member.is_lost = True
            else:
                self._applied = heard

    async def _joined(self) -> Membership:
        if self._membership is None:
            self._membership = Membership(self.verbs, self._terms, clock=self.clock, rng=self.rng, news=self._news)
        if self._membership.is_lost:
            await self._lose()
        if self._membership.latest is None or self._membership.is_lost:
            topics = await self._subscription.resolve(self.verbs)
            self._looked_s = self.clock.elapsed_s()
            self._applied = None
            await self._membership.join(topics)
        elif self._subscription.pattern is None:
            self._membership.subscribe(self._subscription.topics)
        return self._membership

    async def _apply(self, member: Membership, heard: Heartbeat) -> None:
        lanes = self._fetcher.lanes
        gone = [tp for tp in lanes if tuple(tp) not in heard.owned]
        if gone:
            await self._give_up(gone)
        if heard.revoke:
            await member.release(list(heard.revoke))
        new = [place(tp) for tp in heard.owned if place(tp) not in lanes]
        if new:
            added = await self._lanes(new)
            self._fetcher.add(added)
            await told(self._subscription.listener.on_partitions_assigned(new))

    async def _give_up(self, gone: Collection[TopicPartition]) -> None:
        for tp in gone:
            self._fetcher.lanes[tp].paused = True
        await told(self._subscription.listener.on_partitions_revoked(gone))
        await self._commit_quietly(gone)
        await self._forget(gone)

    async def _lose(self) -> None:
        """The group has let go of us: what we held is somebody else's, so nothing of it is committed."""
        lost = list(self._fetcher.lanes)
        await self._forget(lost)
        if lost:
            await told(self._subscription.listener.on_partitions_lost(lost))

    async def _forget(self, gone: Collection[TopicPartition]) -> None:
        await self._fetcher.drop(gone)
        for tp in gone:
            self._committed.pop(tp, None)

    async def _leave(self) -> None:
        lanes = list(self._fetcher.lanes)
        if lanes:
            if self._subscription.manual is None:
                await told(self._subscription.listener.on_partitions_revoked(lanes))
            await self._commit_quietly(lanes)
            await self._forget(lanes)
        if self._membership is not None:
            member, self._membership, self._applied = self._membership, None, None
            with contextlib.suppress(UnknownMember, NotFound):
                await member.leave()

    async def _lanes(self, tps: Collection[TopicPartition]) -> list[Lane]:
        """Lanes that begin where the group stopped, else where ``auto_offset_reset`` says."""
        if not tps:
            return []
        known = await self.committed() if self._terms.group else {}
        for tp in tps:
            if tp in known:
                self._committed[tp] = known[tp].offset

        async def one(tp: TopicPartition) -> Lane:
            return Lane(tp, known[tp].offset) if tp in known else await self._fetcher.begin(tp)

        return list(await asyncio.gather(*(one(tp) for tp in tps)))

    # -- offsets --------------------------------------------------------------------------------------------

    def group_metadata(self) -> GroupMetadata:
        """Who commits. Raises ``InvalidRequest`` without a group."""
        if not self._terms.group:
            raise InvalidRequest("A consumer without a group_id commits nothing.")
        heard = self._membership.latest if self._membership is not None else None
        if self._membership is None or heard is None:
            return GroupMetadata(self._terms.group)
        return GroupMetadata(self._terms.group, self._membership.member, heard.epoch)

    def positions(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """The next offset to hand out, of every partition."""
        return {lane.tp: OffsetAndMetadata(lane.position) for lane in self._fetcher.lanes.values()}

    async def committed(self) -> Mapping[TopicPartition, GroupOffset]:
        """What the group has committed."""
        group = self.group_metadata().group
        return {place(tp): offset for tp, offset in (await self.verbs.committed(group)).items()}

    async def commit(self, offsets: OffsetsLike) -> None:
        """Commit these, in the order of the calls. Raises ``Fenced`` for what is not ours any more."""
        from headwater.api.verbs import GroupOffset, GroupOffsets

        places = {
            place(tp): OffsetAndMetadata(given) if isinstance(given, int) else given for tp, given in offsets.items()
        }
        self.group_metadata()
        if not places:
            return
        async with self._committing:
            whose = self.group_metadata()
            wish = GroupOffsets(
                group=whose.group,
                offsets={
                    (tp.topic, tp.partition): GroupOffset(offset=given.offset, metadata=given.metadata)
                    for tp, given in places.items()
                },
                member=whose.member,
                generation=whose.generation,
            )
            await self._send(wish)
            self._committed |= {tp: given.offset for tp, given in places.items()}

    async def _send(self, wish: object) -> None:
        """A commit of offsets may be sent twice: the second one says the same."""
        backoff, deadline_s = Backoff(self.clock, self.rng), self.clock.elapsed_s() + CLIENT_COMMIT_S
        while True:
            try:
                return await self.verbs.commit_offsets(wish)  # type: ignore[arg-type]
            except (Throttled, Unavailable, Indeterminate) as error:
                if not await backoff.pause(error, deadline_s):
                    raise

    async def _commit_on(self) -> None:
        """Commit what was processed, again and again."""
        assert self._auto_commit_s is not None
        while True:
            await self.clock.sleep(self._auto_commit_s)
            await self._commit_quietly(list(self._fetcher.lanes))

    async def _commit_quietly(self, tps: Collection[TopicPartition]) -> None:
        """Commit automatically what was processed of these, if that is wanted and new.

        What cannot be committed is read again by whoever comes next, which is all that "at least once" promises.
        """
        if self._auto_commit_s is None:
            return
        lanes = [self._fetcher.lanes[tp] for tp in tps if tp in self._fetcher.lanes]
        news = {lane.tp: lane.processed for lane in lanes if self._committed.get(lane.tp) != lane.processed}
        if news:
            with contextlib.suppress(HeadwaterError):
                await self.commit(news)
