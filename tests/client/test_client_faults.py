"""The client over the real engine over a store that misbehaves: what was promised holds, whatever goes wrong below."""

from __future__ import annotations

import asyncio
import random

import pytest

from headwater.api.service import Service
from headwater.client import Consumer, Producer
from headwater.errors import AlreadyExists, Conflict, HeadwaterError, Indeterminate, Throttled, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.faults import CALM, Faults, SimBucket, SimStore
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, run, sim_loop
from tests.client.helpers_client import values

QUICK = Profile("quick", put=(20, 60), get=(10, 30), list=(15, 40))
TROUBLE_S = 120.0


class Rough:
    """A bucket behind a store that misbehaves for two minutes, and processes over it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = SimClock(sim_loop())
        self.bucket = SimBucket(sim_loop())
        self.faults = Faults.swarm(self.rng, rate_max=0.15, timeout_s=2.0, late_s=(0.5, 30.0), until_s=TROUBLE_S)

    async def verbs(self, *, calm: bool = False) -> Service:
        faults = CALM if calm else self.faults
        seed = self.rng.getrandbits(32)
        store = SimStore(self.bucket, loop=sim_loop(), rng=random.Random(seed), profile=QUICK, faults=faults)
        while True:
            try:
                # The engine gives up soon, so that much of what is unknown is the client's to find out.
                options = Options(commit_timeout_s=1.0, store_retry_s=3.0)
                opened = await Namespace.open(
                    store, "ns", clock=self.clock, rng=random.Random(seed), options=None if calm else options
                )
                return Service(opened)
            except HeadwaterError:
                await self.clock.sleep(1)

    def producer(self, verbs: Service, tid: str = "") -> Producer:
        return Producer(
            verbs,
            clock=self.clock,
            rng=random.Random(self.rng.getrandbits(32)),
            transactional_id=tid,
            batch_size=300,
            delivery_timeout_ms=900_000,
        )

    def consumer(self, verbs: Service) -> Consumer:
        return Consumer(
            verbs,
            "in",
            group_id="g",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000,
            max_poll_records=7,
            clock=self.clock,
            rng=random.Random(self.rng.getrandbits(32)),
        )


async def made(verbs: Service, **topics: int) -> None:
    for name, partitions in topics.items():
        while True:
            try:
                await verbs.create_topic(name, partitions)
                break
            except AlreadyExists:
                break
            except (Unavailable, Throttled, Indeterminate):
                continue


@pytest.mark.parametrize("seed", range(15))
def test_what_a_producer_was_promised_is_there_once_and_in_order(seed: int) -> None:
    async def main() -> None:
        rough = Rough(seed)
        verbs = await rough.verbs(calm=True)
        await made(verbs, t=3)
        sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}

        async def writer(name: int) -> None:
            async with rough.producer(await rough.verbs()) as producer:
                for n in range(120):
                    # A partition for each writer, so that its order is the whole order.
                    sent[name].append(b"%d-%d" % (name, n))
                    await producer.send("t", sent[name][-1], partition=name)
                    await rough.clock.sleep(rough.rng.uniform(0, 0.4))

        await asyncio.gather(*(writer(name) for name in range(3)))
        for partition, expected in sent.items():
            assert expected == await values(verbs, "t", partition)
        await verbs.aclose()

    run(main(), limit_s=7_200, steps_max=4_000_000)


@pytest.mark.parametrize("seed", range(12))
def test_read_process_write_by_a_group_is_exactly_once(seed: int) -> None:
    """Members of a group copy records in transactions; they die, are paused too long, and come back."""

    async def main() -> None:
        rough = Rough(1_000 + seed)
        verbs = await rough.verbs(calm=True)
        await made(verbs, **{"in": 3, "out": 1})
        async with rough.producer(verbs) as producer:
            for n in range(150):
                await producer.send("in", b"%d" % n, partition=n % 3)
        total, finished = 150, asyncio.Event()

        async def copy(name: str, life_s: float) -> None:
            """One life of a worker: until its time is over, or until something takes its place away."""
            mine = await rough.verbs()
            until_s = rough.clock.elapsed_s() + life_s
            async with rough.consumer(mine) as consumer, rough.producer(mine, name) as producer:
                while rough.clock.elapsed_s() < until_s and not finished.is_set():
                    found = await consumer.getmany(timeout_ms=500)
                    if not found:
                        continue
                    if rough.rng.random() < 0.05:
                        await rough.clock.sleep(rough.rng.uniform(0, 30))
                    async with producer.transaction() as t:
                        for records in found.values():
                            for record in records:
                                await t.send("out", record.value)
                        places = consumer.positions()
                        await t.send_offsets({tp: places[tp] for tp in found if tp in places}, consumer)
                        if rough.rng.random() < 0.1:
                            raise Unavailable("The worker died.")

        async def worker(name: str) -> None:
            while not finished.is_set():
                try:
                    await copy(name, rough.rng.uniform(5, 60))
                except (Conflict, Unavailable, Throttled, Indeterminate):
                    await rough.clock.sleep(rough.rng.uniform(0, 3))

        async def watch() -> None:
            while True:
                committed = await verbs.committed("g")
                if sum(place.offset for place in committed.values()) >= total:
                    return finished.set()
                await rough.clock.sleep(5)

        await asyncio.gather(watch(), *(worker(f"w{index}") for index in range(3)))
        out = await values(verbs, "out")
        assert sorted(b"%d" % n for n in range(total)) == sorted(out)
        for partition in range(3):
            mine = [int(value) for value in out if int(value) % 3 == partition]
            assert sorted(mine) == mine
        await verbs.aclose()

    run(main(), limit_s=7_200, steps_max=8_000_000)
