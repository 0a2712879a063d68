"""Publishes what is to be committed while somebody else leads, and sees it committed. DESIGN section 6.

    publish      PUT a segment that anyone may commit; the next one when that is stored, ``PUBLISHED_MAX`` under way
    see through  poll the chain until manifests name them all; take a turn if nobody does

Order. A segment is sent when the one before it is stored, so whoever LISTs it finds the earlier one as well. Its
intents say which one has to be decided before them (``Intent.after``), and the fold holds them to it: named too early
they are void, and published anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from headwater import tracing
from headwater.errors import HeadwaterError, Indeterminate
from headwater.limits import PUBLISHED_MAX, WINDOW
from headwater.log import bell, keys
from headwater.log.intents import FORMAT, Intent, SegmentHeader, encode_segment, located
from headwater.log.payload import assemble
from headwater.log.published import Group, Published
from headwater.log.queue import Pending, Queue
from headwater.log.tags import encode_tag
from headwater.log.turns import Turns

_CONTENDED: Final = "The log was too contended, or the store too slow, for this commit's deadline."


@dataclass(slots=True)
class Segment:
    """A group of intents on its way: to be stored (it has no key yet), or waiting to be named by a manifest."""

    group: list[Pending]
    deadline_s: float
    key: str = ""
    intents: list[Intent] = field(default_factory=list)
    seen: int = 0  # the newest manifest when it was stored, or when we last took a turn
    renew_at: int = 0  # the manifest from which on LISTs do not find it, or it is void (R4)


class Follower:
    """What one process has published and nobody has committed yet."""

    def __init__(
        self,
        queue: Queue,
        turns: Turns,
        others: Published,
        *,
        writer: str,
        take_turn: Callable[[Sequence[Group], float], Awaitable[object]],
    ) -> None:
        self._queue = queue
        self._chain = queue.chain
        self._turns = turns
        self._others = others
        self._writer = writer
        self._take_turn = take_turn
        self._segments: deque[Segment] = deque()  # in the order of their calls
        self._count = 0
        self._announced = ""  # the key of the next segment, as the last one says
        self._storing: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self.ringing: asyncio.Task[None] | None = None

    async def follow(self, group: list[Pending], deadline_s: float, *, is_behind: bool = False) -> None:
        """Publish the group, and what gathers meanwhile, and see it committed by others or in a turn of our own.

        Returns when every caller has heard what became of its intent. Who ``is_behind`` catches up beside the first
        PUT: others name what it publishes meanwhile. Cost: 1 PUT a group; a GET for each manifest and about two that
        find none.
        """
        self._segments.append(Segment(group, deadline_s))
        if is_behind:
            self._catching_up = asyncio.get_running_loop().create_task(self._chain.refresh())
        try:
            await self._see_through()
        except HeadwaterError as error:
            await self._stop(cancel=False)
            self._queue.fail(self.abandoned(), _unknown(error), error)
        except BaseException:
            await self._stop(cancel=True)
            raise

    def abandoned(self) -> list[Pending]:
        """What is not decided yet, for who gives up: nobody sees it through any more."""
        left = [pending for segment in self._segments for pending in segment.group]
        self._segments.clear()
        return left

    async def _stop(self, *, cancel: bool) -> None:
        for task in (self._storing, self._catching_up, self.ringing):
            if task is not None:
                if cancel:
                    task.cancel()
                await asyncio.wait([task])
                _ = task.cancelled() or task.exception()  # whoever stops knows of a reason already
        self._storing = self._catching_up = None

    # -- seeing through -------------------------------------------------------------------------------

    async def _see_through(self) -> None:
        clock, turns, chain = self._chain.clock, self._turns, self._chain
        poll_at_s: float | None = None
        while True:
            self._sort_out(clock.elapsed_s())
            self._store_next()
            if not self._stored() and self._storing is not None:
                await asyncio.wait([self._storing])
                poll_at_s = None
                continue
            if self._catching_up is not None:
                await self._caught_up(self._catching_up)
                continue
            if not self._stored():
                return
            now_s = clock.elapsed_s()
            if poll_at_s is None:
                turns.published(now_s)
                poll_at_s = now_s + turns.first_poll_s()
            if poll_at_s > now_s:
                if await self._is_over(poll_at_s - now_s):
                    poll_at_s = now_s
                continue
            found = await chain.step()
            poll_at_s = clock.elapsed_s()
            if found:
                turns.took.note("get", poll_at_s - now_s)
            self._sort_out(poll_at_s)
            waiting = self._stored()
            is_ours = turns.leads or turns.is_next
            if waiting and (is_ours or turns.my_turn(chain.state.seq - waiting[0].seen, poll_at_s)):
                await self._take_turn([(each.key, each.intents) for each in waiting], waiting[0].deadline_s)
                for each in waiting:
                    each.seen = chain.state.seq
            elif not found:
                poll_at_s += turns.poll_s()

    async def _caught_up(self, looking: asyncio.Task[None]) -> None:
        """Return when the chain is known to its tip; what it has grown by meanwhile is no passing over of ours."""
        await asyncio.wait([looking])
        self._catching_up = None
        looking.result()
        for each in self._stored():
            each.seen = self._chain.state.seq

    def _sort_out(self, now_s: float) -> None:
        """Forget what is decided, give up what took too long, and have published anew what is void or out of sight."""
        if self._storing is not None and self._storing.done():
            self._storing.result()
            self._storing = None
        for segment in list(self._segments):
            segment.group = self._queue.undecided(segment.group)
            if segment.group and segment.key and now_s > segment.deadline_s:
                self._queue.fail(segment.group, Indeterminate(_CONTENDED))
                segment.group = []
            if not segment.group and (segment.key or self._storing is None):
                self._segments.remove(segment)
            elif segment.key and (self._others.is_named(segment.key) or self._chain.state.seq >= segment.renew_at):
                # Safe, since all manifests up to the new tip are folded and none has committed these intents: any two
                # that yet might are less than WINDOW apart, within which ids are remembered (R3).
                segment.key = ""

    def _stored(self) -> list[Segment]:
        """What waits to be named by a manifest."""
        return [segment for segment in self._segments if segment.key]

    async def _is_over(self, seconds: float) -> bool:
        """Let the time pass. False: a segment has been stored before, and the next one may be sent."""
        if self._storing is None:
            await self._chain.clock.sleep(seconds)
            return True
        stored, _ = await asyncio.wait([self._storing], timeout=seconds)
        return not stored

    @property
    def _publishes(self) -> bool:
        """Whether it is still others who write the manifests."""
        return not (self._turns.leads or self._turns.rotates)

    # -- publishing -----------------------------------------------------------------------------------

    def _store_next(self) -> None:
        """Have the next segment stored, if there is one and none is being stored: their order is that of their PUTs."""
        if self._storing is not None:
            return
        void = next((segment for segment in self._segments if not segment.key), None)
        if void is not None:
            self._storing = asyncio.get_running_loop().create_task(self._store(void))
        elif self._segments and len(self._queue) and len(self._segments) < PUBLISHED_MAX and self._publishes:
            self._storing = asyncio.get_running_loop().create_task(self._store_more())

    async def _store_more(self) -> None:
        await self._queue.linger()
        if group := await self._queue.take():
            deadline_s = self._chain.clock.elapsed_s() + self._queue.options.commit_timeout_s
            segment = Segment(group, deadline_s)
            self._segments.append(segment)
            await self._store(segment)

    async def _store(self, segment: Segment) -> None:
        """PUT the intents with their bytes as a segment that anyone may commit."""
        chain = self._chain
        try:
            if chain.is_stale():
                await chain.refresh()
            group = segment.group = self._queue.undecided(segment.group)
            if not group:
                return
            self._queue.note_tips(group)
            with tracing.within(group[0].trace):
                segment.key, segment.intents = await self._publish(group, self._last_before(segment))
        except HeadwaterError as error:
            self._queue.fail(segment.group, _unknown(error), error)
            return
        segment.seen = chain.state.seq
        oldest = min(keys.parse_segment_key(segment.key).tip, *(intent.tip for intent in segment.intents))
        segment.renew_at = oldest + min(WINDOW, self._others.lookback())

    def _last_before(self, segment: Segment) -> str:
        """The intent behind which the segment comes: the last one that is not decided; "" if all are."""
        last = ""
        for each in self._segments:
            if each is segment:
                return last
            if left := self._queue.undecided(each.group):
                last = left[-1].piece.intent.id
        return last

    async def _publish(self, group: Sequence[Pending], after: str) -> Group:
        tip, announced = self._chain.state.seq, self._announced
        self._count += 1
        self._announced = following = keys.segment_key(tip, self._writer, self._count + 1)

        def build(intents: list[Intent]) -> SegmentHeader:
            return SegmentHeader(v=FORMAT, kind="segment", writer=self._writer, intents=intents, next=following)

        header, parts, _ = assemble([pending.piece for pending in group], tip, build, encode_segment, after=after)
        if self._others.is_young(announced):
            key = announced
        else:
            key = keys.segment_key(tip, self._writer, self._count)
            if len(header.intents) == 1 and (tag := encode_tag(header.intents[0])):
                tagged = keys.segment_key(tip, self._writer, self._count, tag)
                if len(tagged.encode()) <= self._chain.store.key_bytes_max:
                    key, self._announced = tagged, ""  # nobody reads the header
        is_unseen = self._turns.unaware() or self._catching_up is not None
        if is_unseen and (self.ringing is None or self.ringing.done()):
            self.ringing = asyncio.get_running_loop().create_task(bell.ring(self._chain, key))
        start_s = self._chain.clock.elapsed_s()
        await self._chain.retry(lambda: self._chain.store.put(key, parts))
        self._turns.took.note("put", self._chain.clock.elapsed_s() - start_s)
        return key, [located(intent, key) for intent in header.intents]


def _unknown(error: HeadwaterError) -> Indeterminate:
    """Published intents are anyone's to commit, so nothing that befalls us afterwards says "not applied"."""
    if isinstance(error, Indeterminate):
        return error
    return Indeterminate(f"The intent was published and its fate could not be learnt: {error}")
