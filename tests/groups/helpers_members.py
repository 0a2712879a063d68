"""What the tests of groups share: processes over one bucket, and members that live, freeze and die."""

from __future__ import annotations

import asyncio
from typing import Any

from headwater.groups.coordinator import Coordinator, Heartbeat
from headwater.log.namespace import Namespace
from headwater.sim.faults import SimBucket
from headwater.sim.latency import ZERO, Profile
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.metered import Counts, MeteredStore
from tests.log.helpers import network, opened


class Place:
    """A bucket with topics, and as many processes as a test needs, each with its own way to it and its own meter."""

    def __init__(self, profile: Profile = ZERO) -> None:
        self.loop = sim_loop()
        self.bucket = SimBucket(self.loop)
        self.profile = profile
        self.meters: list[MeteredStore] = []

    async def topics(self, **partitions: int) -> Namespace:
        """A process that has made these topics."""
        namespace = (await self.process()).namespace
        for name, count in partitions.items():
            await namespace.create_topic(name, count)
        return namespace

    async def process(self, *, clock: SimClock | None = None) -> Coordinator:
        seed = len(self.meters) + 1
        meter = MeteredStore(network(self.bucket, profile=self.profile, seed=seed))
        self.meters.append(meter)
        return Coordinator(await opened(meter, seed=seed, clock=clock))

    def counts(self, of: Coordinator) -> Counts:
        """What the process has asked the store so far."""
        meter = of.namespace.bucket
        assert isinstance(meter, MeteredStore)
        return meter.counts.copy()

    def manifests(self) -> int:
        return sum("/manifest/" in key for key in self.bucket.keys)

    def leases(self) -> list[str]:
        return [key for key in self.bucket.keys if "/lease/" in key]


class Life:
    """A member in a process of its own: it joins, sends heartbeats when they are due, and releases at once."""

    def __init__(self, coordinator: Coordinator, member: str, *, group: str = "g", **terms: Any) -> None:
        self.coordinator = coordinator
        self.group, self.member = group, member
        self.terms: dict[str, Any] = {"topics": ["t"], **terms}
        self.beat: Heartbeat | None = None
        self.error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> Heartbeat:
        self.beat = await self.coordinator.heartbeat(self.group, self.member, joining=True, **self.terms)
        return self.beat

    async def once(self, **more: Any) -> Heartbeat:
        """One heartbeat, which releases what the last one asked for."""
        released = self.beat.revoke if self.beat else ()
        self.beat = await self.coordinator.heartbeat(self.group, self.member, **{"released": released, **more})
        return self.beat

    def start(self) -> Life:
        """Go on alone from here."""
        self._task = asyncio.get_running_loop().create_task(self._live(), name=self.member)
        return self

    async def kill(self) -> None:
        """Stop without a word."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def owned(self) -> list[tuple[str, int]]:
        return list(self.beat.owned) if self.beat else []

    async def _live(self) -> None:
        if self.beat is None:
            await self.join()
        while True:
            assert self.beat is not None
            wait_s = 0.0 if self.beat.revoke else self.beat.interval_ms / 1_000
            await self.coordinator.namespace.chain.clock.sleep(wait_s)
            await self.once()


async def alive(place: Place, count: int, **terms: Any) -> list[Life]:
    """So many members that have settled."""
    lives = [Life(await place.process(), f"m{n}", **terms).start() for n in range(count)]
    await place.loop.sleep(60.0)
    return lives


async def end(*lives: Life) -> None:
    for life in lives:
        await life.kill()


def shares(*lives: Life) -> list[int]:
    return [len(life.owned) for life in lives]
