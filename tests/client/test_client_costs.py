"""What clients cost when nothing happens: no PUT but a member's lease, no LIST, and few GETs."""

from __future__ import annotations

import random

from headwater.api.service import Service
from headwater.client import Consumer, Producer
from headwater.log.namespace import Namespace
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.store.metered import Counts, MeteredStore
from tests.client.helpers_client import simulate

MINUTES = 4


async def counted(partitions: int, *, group: str | None) -> Counts:
    """What a few quiet minutes of a consumer cost."""
    clock = SimClock(sim_loop())
    uneven = Profile("uneven", put=(30, 90), get=(10, 60), list=(20, 60))
    store = MeteredStore(SimStore(SimBucket(sim_loop()), loop=sim_loop(), rng=random.Random(3), profile=uneven))
    verbs = Service(await Namespace.open(store, "ns", clock=clock, rng=random.Random(1)))
    await verbs.create_topic("t", partitions)
    async with Consumer(verbs, "t", group_id=group, clock=clock, rng=random.Random(2)) as consumer:
        await consumer.getmany(timeout_ms=30_000)
        before = store.counts.copy()
        for _ in range(MINUTES):
            await consumer.getmany(timeout_ms=60_000)
        spent = store.counts - before
    await verbs.aclose()
    return spent


def test_an_idle_member_renews_its_lease_four_times_a_minute_and_writes_nothing_else() -> None:
    async def main() -> None:
        spent = await counted(4, group="g")
        assert 4 * MINUTES >= spent.put >= 3 * MINUTES
        assert (0, 0, 0) == (spent.put_conditional, spent.list, spent.delete)

    simulate(main())


def test_an_idle_reader_without_a_group_writes_nothing_at_all() -> None:
    async def main() -> None:
        spent = await counted(4, group=None)
        assert (0, 0, 0) == (spent.put, spent.put_conditional, spent.list)

    simulate(main())


def test_looking_for_news_costs_about_the_same_for_many_partitions_as_for_one() -> None:
    async def main() -> None:
        one, many = await counted(1, group=None), await counted(16, group=None)
        assert 110 * MINUTES >= one.get
        assert 2.5 * one.get >= many.get

    simulate(main())


def test_an_idle_producer_costs_nothing() -> None:
    async def main() -> None:
        clock = SimClock(sim_loop())
        store = MeteredStore(MemoryStore(clock=clock))
        verbs = Service(await Namespace.open(store, "ns", clock=clock, rng=random.Random(1)))
        await verbs.create_topic("t", 1)
        async with Producer(verbs, clock=clock, rng=random.Random(2)) as producer:
            await producer.send_and_wait("t", b"x")
            before = store.counts.copy()
            await clock.sleep(600)
            assert Counts() == store.counts - before
        await verbs.aclose()

    simulate(main())
