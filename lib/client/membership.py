"""A consumer's place in its group: heartbeats in the background, and what the group said last.

The background only listens. Partitions are taken and given up by the consumer itself, inside its polls, when the
program has done with what it was given. A program that does not poll for ``max_poll_interval_ms`` leaves the group,
so that others go on with its partitions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.client.backoff import Backoff, poked
from headwater.clock import Clock
from headwater.errors import Indeterminate, Throttled, Unavailable
from headwater.limits import SESSION_MS
from headwater.log.outcomes import UnknownMember

if TYPE_CHECKING:
    from headwater.api.verbs import Heartbeat, Verbs
    from headwater.client.gathering import TP


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """The terms of membership."""

    group: str
    instance: str = ""
    client: str = ""
    assignor: str = ""
    session_ms: int = SESSION_MS
    heartbeat_ms: int = 3_000
    max_poll_ms: int = 300_000


class Membership:
    """One member. ``latest`` is what the group said last; ``is_lost`` that the group has let go of it."""

    def __init__(
        self, verbs: Verbs, options: GroupOptions, *, clock: Clock, rng: random.Random, news: Callable[[], None]
    ) -> None:
        self.verbs = verbs
        self.options = options
        self.clock = clock
        self.rng = rng
        self.member = ""
        self.latest: Heartbeat | None = None
        self.is_lost = False
        self.error: Exception | None = None  # what ended the heartbeats; for the next poll to raise
        self._topics: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        self._news = news
        self._polled_s = 0.0
        self._beating = asyncio.Lock()
        self._poke = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def join(self, topics: Sequence[str]) -> None:
        """Enter the group, and begin to beat. Raises what ``Verbs.heartbeat`` raises; call it again then.

        The id is a fresh one, unless an earlier call broke off: that one may have entered, and is not left as a ghost.
        """
        await self._halt()
        if not self.member or self.is_lost or self.latest is not None:
            self.member = f"{self.options.client or 'consumer'}-{self.rng.getrandbits(80):020x}"
        self.is_lost, self.error, self.latest = False, None, None
        self._topics = tuple(topics)
        self.polled()
        await self._join()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"headwater-heartbeat-{self.member}")

    def subscribe(self, topics: Sequence[str]) -> None:
        """Tell the group at the next heartbeat, which is now, that these are the topics."""
        if tuple(topics) != self._topics:
            self._topics = tuple(topics)
            self._poke.set()

    def polled(self) -> None:
        """The program is alive."""
        self._polled_s = self.clock.elapsed_s()

    async def release(self, partitions: Sequence[TP]) -> None:
        """Give up partitions that the group has asked back. Raises ``UnknownMember``, and what else the verb raises."""
        await self._beat(partitions)

    async def leave(self) -> None:
        """Leave the group, so that it need not wait for the session to end. A second call does nothing."""
        await self._halt()
        if self.member and not self.is_lost and not self.options.instance:
            # A static member keeps its place: who comes back under its name within the session finds it (KIP-345).
            await self.verbs.leave(self.options.group, self.member)
        self.member, self.latest = "", None

    # -- below ---------------------------------------------------------------------------------------------

    async def _halt(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _join(self) -> None:
        options = self.options
        async with self._beating:
            self.latest = await self.verbs.heartbeat(
                options.group,
                self.member,
                topics=list(self._topics),
                instance=options.instance,
                assignor=options.assignor,
                session_ms=options.session_ms,
                rebalance_ms=options.max_poll_ms,
                client=options.client,
                joining=True,
            )
            self._told = self._topics

    async def _beat(self, released: Sequence[TP] = ()) -> None:
        async with self._beating:
            topics = self._topics
            heard = await self.verbs.heartbeat(
                self.options.group,
                self.member,
                topics=None if topics == self._told else list(topics),
                released=list(released),
            )
            self._told = topics
            before, self.latest = self.latest, heard
        if before is None or (before.owned, before.revoke) != (heard.owned, heard.revoke):
            self._news()

    async def _run(self) -> None:
        """Beat until the group lets go of us, the program falls silent, or the verb refuses for good."""
        backoff = Backoff(self.clock, self.rng)
        wait_s = self._interval_s()
        while not self.is_lost and self.error is None:
            await poked(self._poke, wait_s)
            try:
                if self.clock.elapsed_s() - self._polled_s > self.options.max_poll_ms / 1_000:
                    await self.verbs.leave(self.options.group, self.member)
                    self.is_lost = True
                    break
                await self._beat()
                backoff, wait_s = Backoff(self.clock, self.rng), self._interval_s()
            except UnknownMember:
                self.is_lost = True
            except (Throttled, Unavailable, Indeterminate) as error:
                wait_s = min(backoff.next_s(error), self._interval_s())
            except Exception as error:  # also a bug must reach the program, who would believe itself a member
                self.error = error
        self._news()

    def _interval_s(self) -> float:
        asked = self.latest.interval_ms if self.latest is not None else self.options.heartbeat_ms
        return min(asked, self.options.heartbeat_ms) / 1_000
