"""Transactions over a store where everything goes wrong: lost answers, late writes, crashes, and a crowd that commits.

Whatever happens, a transaction's records are in the log once or not at all, and everybody who hears an answer hears
the same one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

from headwater.api.transactions import Transactions
from headwater.api.verbs import GroupOffset, GroupOffsets, ProducerId, Written
from headwater.errors import HeadwaterError, Indeterminate, Throttled, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.outcomes import ExpiredTransaction
from headwater.sim.faults import Faults, Process, SimBucket, SimStore
from headwater.sim.latency import S3_STANDARD
from headwater.sim.loop import SimClock, sim_loop
from tests.log.helpers import blob, simulate

BATCHES = 4
TRIES_MAX = 200
OPTIONS = Options(store_retry_s=15.0, commit_timeout_s=20.0, snapshot_every=32)
T = TypeVar("T")
AGAIN = (Unavailable, Throttled, Indeterminate)


class World:
    """A bucket, and processes that come and go."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bucket = SimBucket(sim_loop())
        self.names = 0
        self.stores: list[SimStore] = []

    async def opened(self, faults: Faults | None = None) -> Namespace:
        self.names += 1
        loop = sim_loop()
        rng = random.Random(self.rng.getrandbits(64))
        fields = {} if faults is None else {"faults": faults}
        process = Process(f"p{self.names}", loop)
        store = SimStore(self.bucket, loop=loop, rng=rng, profile=S3_STANDARD, process=process, **fields)
        self.stores.append(store)
        while True:
            try:
                return await Namespace.open(store, "ns", clock=SimClock(loop), rng=rng, options=OPTIONS)
            except AGAIN:
                await loop.sleep(1)

    def struck(self) -> Counter[str]:
        """How often each fault struck."""
        total: Counter[str] = Counter()
        for store in self.stores:
            total += Counter(store.struck)
        return total


async def once(world: World, producer: ProducerId, faults: Faults) -> list[Written | HeadwaterError]:
    """One transaction: adds that are repeated until they are answered, and three processes that commit it."""
    transactions = Transactions(await world.opened(faults))
    name = await answered(lambda: transactions.begin(producer, 900_000))
    for number in range(BATCHES):
        batch = replace(blob(count=2), producer_id=producer.id, producer_epoch=producer.epoch, sequence=2 * number)
        offsets = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=number)})
        adding = partial(Transactions(await world.opened(faults)).add, name, [("t", 0, batch)], [offsets])
        try:
            await answered(adding)
        except ExpiredTransaction as error:
            return [error, *await asyncio.gather(*(committed(transactions, name) for _ in range(2)))]
    crowd = [Transactions(await world.opened(faults)) for _ in range(3)]
    return list(await asyncio.gather(*(committed(place, name) for place in crowd)))


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    for _ in range(TRIES_MAX):
        try:
            return await call()
        except AGAIN:
            await sim_loop().sleep(1)
    raise AssertionError("never answered")


async def committed(transactions: Transactions, name: str) -> Written | HeadwaterError:
    try:
        return await answered(lambda: transactions.commit(name))
    except HeadwaterError as error:
        return error


def run(seed: int) -> tuple[int, Counter[str]]:
    """One seed: three transactions one after another. How many were committed, and what went wrong."""

    async def main() -> tuple[int, Counter[str]]:
        world = World(seed)
        calm = await world.opened()
        await calm.create_topic("t")
        made = await calm.producer("tx")
        producer = ProducerId(id=made.id, epoch=made.epoch, transactional_id="tx")
        faults = Faults.swarm(world.rng, rate_max=0.15)
        done = 0
        for _ in range(3):
            heard = await once(world, producer, faults)
            first = heard[0]
            if isinstance(first, Written):
                assert [first] * 3 == heard
                assert [2] * BATCHES == [appended.count for appended in first.appended]
                done += 1
                producer = first.producer
            else:
                assert [ExpiredTransaction] * 3 == [type(answer) for answer in heard]
        reader = await world.opened()
        chunks = [chunk async for chunk in reader.reader.chunks("t", 0, 0)]
        assert done * BATCHES * 2 == sum(chunk.count for chunk in chunks)
        assert ([BATCHES - 1] if done else []) == [place.offset for place in (await reader.committed("g")).values()]
        return done, world.struck()

    return simulate(main(), rng=random.Random(seed))


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_records_are_there_once_or_not_at_all_and_everybody_hears_the_same(first: int) -> None:
    struck: Counter[str] = Counter()
    done = 0
    for seed in range(first, first + 25):
        committed, faults = run(seed)
        done += committed
        struck += faults
    assert done > 60  # of 75: the rest took longer than a transaction may
    assert {"lost_answer", "lost_request", "late", "own_412", "false_503", "raced"} <= set(struck)
