"""REST consumer instances over a store that loses answers, turns requests away and takes its time."""

import asyncio
import random
from typing import Any

import pytest
from msgspec import structs

from headwater.api.instance_store import Instance, InstanceStore
from headwater.sim.faults import CALM, ROUGH, Faults, SimBucket, SimStore
from headwater.sim.latency import S3_STANDARD
from headwater.sim.loop import sim_loop
from tests.api.helpers_dialect import JSON, Answer, Consumer, Rest
from tests.log.helpers import simulate


def process(bucket: SimBucket, seed: int, faults: Faults = ROUGH) -> Rest:
    store = SimStore(bucket, loop=sim_loop(), rng=random.Random(seed), profile=S3_STANDARD, faults=faults)
    return Rest(store, seed=seed)


async def persistently(consumer: Consumer, method: str, path: str, body: Any = None) -> Any:
    """Ask until the answer is none of a store in trouble."""
    for _ in range(50):
        answer = await consumer.rest.ask(method, consumer.path + path, body, accept=JSON)
        if answer.status not in (503, 504, 429):
            return answer
    raise AssertionError("the store does not recover")


@pytest.mark.parametrize("seed", range(8))
def test_records_are_delivered_in_order_by_whoever_serves_the_polls(seed: int) -> None:
    async def main() -> None:
        bucket, rng = SimBucket(sim_loop()), random.Random(seed)
        calm = process(bucket, 1000 + seed, CALM)
        await (await calm.namespace()).create_topic("t", 3)
        await calm.produce("t", *range(120), keys=True)
        processes = [process(bucket, seed * 10 + i) for i in range(3)]
        path = "/consumers/g/instances/c"
        wanted = {"name": "c", "format": "json", "auto.offset.reset": "earliest"}
        made = await persistently(Consumer(processes[0], "/consumers/g"), "POST", "", wanted)
        assert made.status in (200, 409), made.body  # 409: an earlier sending, whose answer was lost
        subscribed = await persistently(Consumer(processes[0], path), "POST", "/subscription", {"topics": ["t"]})
        assert 204 == subscribed.status
        found: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for _ in range(40):
            consumer = Consumer(rng.choice(processes), path)
            answer = await persistently(consumer, "GET", "/records?timeout=0&max_bytes=900")
            assert 200 == answer.status, answer.body
            for record in answer.json:
                found[record["partition"]].append(record["offset"])
        namespace = await calm.namespace()
        ends = [partition.next for partition in namespace.topic("t").partitions]
        assert [list(range(end)) for end in ends] == list(found.values())

    simulate(main())


@pytest.mark.parametrize("seed", range(8))
def test_polls_at_the_same_time_deliver_each_record_once_though_answers_are_lost(seed: int) -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        calm = process(bucket, 1000 + seed, CALM)
        await (await calm.namespace()).create_topic("t", 2)
        await calm.produce("t", *range(60), keys=True)
        await calm.consumer("c", "t")
        path, found = "/consumers/g/instances/c", list[int]()

        async def client(rest: Rest) -> None:
            for _ in range(15):
                answer = await persistently(Consumer(rest, path), "GET", "/records?timeout=0&max_bytes=300")
                assert answer.status in (200, 409), answer.body
                found.extend(record["value"] for record in answer.json if answer.status == 200)
                await rest.clock.sleep(1)

        await asyncio.gather(*(client(process(bucket, seed * 10 + i)) for i in range(3)))
        consumer = Consumer(calm, path)
        while more := await consumer.values():
            found += more
        assert list(range(60)) == sorted(found)

    simulate(main())


@pytest.mark.parametrize("seed", range(5))
def test_changes_of_many_processes_are_each_made_once(seed: int) -> None:
    """Every process adds one to the same counter; the document ends at their sum."""

    async def main() -> None:
        bucket, rng = SimBucket(sim_loop()), random.Random(seed)
        calm = process(bucket, 1, CALM)
        await (await calm.namespace()).create_topic("t", 1)
        await InstanceStore((await calm.namespace()).chain, "root").create(Instance(group="g", name="c"))

        async def work(rest: Rest) -> int:
            store, done = InstanceStore((await rest.namespace()).chain, "root"), 0
            for _ in range(10):
                await store.change("g", "c", _turned)
                await rest.clock.sleep(rng.uniform(0, 5))  # a lost answer costs 10 s, in which others go on
                done += 1
            return done

        processes = [process(bucket, seed * 10 + i) for i in range(4)]
        done = await asyncio.gather(*map(work, processes))
        held = await InstanceStore((await calm.namespace()).chain, "root").load("g", "c")
        assert sum(done) == held.doc.turn == 40

    simulate(main())


def test_a_poll_without_news_costs_two_gets_and_one_that_is_served_afresh_a_head_more() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        one = process(bucket, 1, CALM)
        await (await one.namespace()).create_topic("t", 4)
        consumer = await one.consumer("c", "t")
        for _ in range(3):
            await consumer.values()
        for rest, heads in ((one, 0), (process(bucket, 2, CALM), 1)):
            await rest.namespace()
            counters = bucket.counters
            before = (counters.put, counters.get, counters.head, counters.list)
            assert [] == await consumer.at(rest).values()
            after = (counters.put, counters.get, counters.head, counters.list)
            assert (0, 2, heads, 0) == tuple(b - a for a, b in zip(before, after, strict=True))

    simulate(main())


def _turned(doc: Instance) -> Instance:
    return structs.replace(doc, turn=doc.turn + 1)


@pytest.mark.parametrize("seed", range(6))
def test_clients_that_repeat_what_got_no_answer_miss_no_record(seed: int) -> None:
    """Three clients, each with three instances one after another, whose requests any of three processes serves."""

    async def main() -> None:
        bucket, rng = SimBucket(sim_loop()), random.Random(seed)
        calm = process(bucket, 1000 + seed, CALM)
        await (await calm.namespace()).create_topic("t", 4)
        processes = [process(bucket, seed * 10 + i) for i in range(3)]
        found: list[int] = []

        async def producer() -> None:
            for i in range(12):
                await calm.produce("t", *range(i * 10, i * 10 + 10), keys=True)
                await calm.clock.sleep(rng.uniform(0, 10))

        async def ask(method: str, path: str, body: Any = None, **headers: str) -> Answer:
            for _ in range(60):
                answer = await rng.choice(processes).ask(method, path, body, accept=JSON, **headers)
                if answer.status not in (503, 504, 429):
                    return answer
                await calm.clock.sleep(rng.random())
            raise AssertionError("the store does not recover")

        async def client(name: str) -> None:
            path = f"/consumers/g/instances/{name}"
            wanted = {"name": name, "format": "json", "auto.offset.reset": "earliest", "session.timeout.ms": 30_000}
            assert (await ask("POST", "/consumers/g", wanted)).status in (200, 409)
            assert 204 == (await ask("POST", f"{path}/subscription", {"topics": ["t"]})).status
            for i in range(rng.randrange(3, 12)):
                query = f"timeout={rng.choice([0, 500])}&max_bytes=800"
                answer = await ask("GET", f"{path}/records?{query}", idempotency_key=f"{name}-{i}")
                assert answer.status in (200, 409), answer.body
                found.extend(record["value"] for record in answer.json if answer.status == 200)
                await calm.clock.sleep(rng.uniform(0, 3))
            if rng.random() < 0.5:  # the others die without a word
                assert (await ask("DELETE", path)).status in (204, 404)

        async def clients(name: str) -> None:
            for life in range(3):
                await client(f"{name}-{life}")

        await asyncio.gather(producer(), *map(clients, "abc"))
        last = await calm.consumer("last", "t", **{"session.timeout.ms": 6_000})
        for _ in range(200):
            found.extend(await last.values())
            await calm.clock.sleep(2)
        assert set(range(120)) == set(found)

    simulate(main())
