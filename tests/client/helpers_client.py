"""What the tests of the client share: a world in virtual time, and verbs that go wrong when they are told to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from headwater.api.service import Service
from headwater.client import Consumer, Producer
from headwater.log.namespace import Namespace
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore

FIXED = Profile("fixed", put=(100, 100), get=(50, 50), list=(80, 80))  # every request takes exactly this


def simulate(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` in virtual time. A client that spins, or waits for what never comes, fails soon."""
    run(main, limit_s=1_800, steps_max=400_000)


class World:
    """A bucket in virtual time, and any number of processes over it.

    Without a profile requests take no time at all, which suits one process; several that compete need one.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self.clock = SimClock(sim_loop())
        self.bucket = SimBucket(sim_loop())
        self.profile = profile
        self.memory = MemoryStore(clock=self.clock)
        self._seed = 0
        self._services: list[Service] = []

    async def verbs(self) -> Service:
        """The verbs of one more process."""
        self._seed += 1
        namespace = await Namespace.open(self.store(), "ns", clock=self.clock, rng=random.Random(self._seed))
        service = Service(namespace)
        self._services.append(service)
        return service

    def store(self) -> ObjectStore:
        if self.profile is None:
            return self.memory
        return SimStore(self.bucket, loop=sim_loop(), rng=random.Random(self._seed), profile=self.profile)

    async def close(self) -> None:
        for service in self._services:
            await service.aclose()

    def producer(self, verbs: Any, **options: Any) -> Producer:
        return Producer(verbs, clock=self.clock, rng=random.Random(7), **options)

    def consumer(self, verbs: Any, *topics: str, **options: Any) -> Consumer:
        self._seed += 1
        options = {"auto_offset_reset": "earliest", **options}
        return Consumer(verbs, *topics, clock=self.clock, rng=random.Random(self._seed), **options)


@asynccontextmanager
async def world(profile: Profile | None = None, /, **topics: int) -> AsyncIterator[tuple[World, Service]]:
    """A world with topics of so many partitions, and the verbs of its first process."""
    made = World(profile)
    verbs = await made.verbs()
    for name, partitions in topics.items():
        await verbs.create_topic(name, partitions)
    try:
        yield made, verbs
    finally:
        await made.close()


class Between:
    """Verbs with somebody in between, who sees each call and may answer, break or delay it."""

    def __init__(self, verbs: Any) -> None:
        self.verbs = verbs
        self.namespace = verbs.namespace
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._plans: dict[str, list[Callable[..., Any]]] = {}

    def plan(self, verb: str, *plans: Callable[..., Any]) -> None:
        """What the next calls of ``verb`` do: each plan is an async function of the real verb and the arguments."""
        self._plans.setdefault(verb, []).extend(plans)

    def count(self, verb: str) -> int:
        return len(self.of(verb))

    def of(self, verb: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for name, args, kwargs in self.calls if name == verb]

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.verbs, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            plans = self._plans.get(name)
            if plans:
                return await plans.pop(0)(real, *args, **kwargs)
            return await real(*args, **kwargs)

        return call


def refuse(error: Exception) -> Callable[..., Any]:
    """A plan: the call never arrives."""

    async def plan(real: Any, *args: Any, **kwargs: Any) -> Any:
        raise error

    return plan


def lose_the_answer(error: Exception) -> Callable[..., Any]:
    """A plan: the call is done, and nobody hears of it."""

    async def plan(real: Any, *args: Any, **kwargs: Any) -> Any:
        await real(*args, **kwargs)
        raise error

    return plan


async def values(verbs: Any, topic: str, partition: int = 0) -> list[bytes]:
    """Everything that a partition holds."""
    held: list[bytes] = []
    offset = 0
    while True:
        fetched = await verbs.fetch(topic, partition, offset)
        for chunk in fetched.chunks:
            held += chunk.decode().column("value").to_pylist()
        if fetched.next_offset == offset:
            return held
        offset = fetched.next_offset


def numbers(count: int, start: int = 0) -> Sequence[bytes]:
    return [str(number).encode() for number in range(start, start + count)]
