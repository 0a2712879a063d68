"""Any mix of appends, reservations, trims, archiving and tidying against a plain list of records."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace

import pytest

from headwater.errors import HeadwaterError
from headwater.log.namespace import Namespace
from headwater.log.operations import EndReserve, InitProducer, Reserve
from headwater.log.writer import Append
from headwater.sim.faults import ROUGH, SimBucket
from headwater.sim.latency import Profile
from headwater.sim.loop import sim_loop
from headwater.store.base import ObjectStore
from headwater.types import Batch
from headwater.upkeep.archiver import archive
from headwater.upkeep.branch import branch
from headwater.upkeep.offload import inline
from tests.log.helpers import FIXED, network, simulate
from tests.upkeep import helpers_upkeep as up

FAST = Profile("fast", put=(5, 5), get=(2, 2), list=(3, 3))  # who follows another writer asks as fast as it is answered


@dataclass
class Model:
    """What a reader must see: rows by offset, from ``start`` up to the first open reservation."""

    rows: list[up.Row] = field(default_factory=list)
    start: int = 0
    next: int = 0
    held: dict[int, tuple[int, list[up.Row]]] = field(default_factory=dict)  # producer → base, rows

    def visible(self) -> list[up.Row]:
        end = min((base for base, _ in self.held.values()), default=self.next)
        return sorted((row for row in self.rows if self.start <= row[0] < end), key=lambda row: row[0])


@dataclass
class World:
    space: Namespace
    rng: random.Random
    topic: int
    model: Model = field(default_factory=Model)
    serial: int = 0

    def batch(self) -> tuple[Batch, list[up.Row]]:
        self.serial += 1
        records = up.some(self.space, self.rng.choice([1, 3, 20]), size=self.rng.choice([5, 90]), seed=self.serial)
        form = self.rng.randrange(4)
        made = (
            up.kafka2(records, compression="gzip" if form else "none")
            if form < 2
            else up.arrow(records, packed=form > 2)
        )
        base = self.model.next
        rows = [
            (base + i, each.timestamp, each.key, each.value, [{"key": k, "value": v} for k, v in each.headers] or None)
            for i, each in enumerate(records)
        ]
        self.model.next += len(rows)
        return made, rows

    async def append(self) -> None:
        made, rows = self.batch()
        await self.space.append("t", 0, made)
        self.model.rows += rows

    async def reserve(self) -> None:
        if len(self.model.held) == 2:
            return
        pid = (await self.space.writer.commit(ops=[InitProducer(tid=f"x{self.serial}")])).values["pid"]
        base = self.model.next
        made, rows = self.batch()
        made = replace(made, producer_id=pid, producer_epoch=0, sequence=0)
        append = Append(topic=self.topic, partition=0, batch=made)
        await self.space.writer.commit([append], [Reserve(pid=pid, epoch=0, timeout_ms=10**9)])
        self.model.held[pid] = base, rows

    async def end(self) -> None:
        if self.model.held:
            pid = self.rng.choice(list(self.model.held))
            commit = self.rng.random() < 0.5
            await self.space.writer.commit(ops=[EndReserve(pid=pid, epoch=0, commit=commit)])
            _, rows = self.model.held.pop(pid)
            self.model.rows += rows if commit else []

    async def trim(self) -> None:
        rows = self.model.visible()
        if len(rows) > 30:
            self.model.start = rows[self.rng.randrange(10)][0] + 1
            await self.space.trim("t", 0, self.model.start)

    async def alter(self) -> None:
        await self.space.alter_topic("t", {"archive.bytes": self.rng.choice(["1", "2000", "30000", "60000"])})


async def built(store: ObjectStore, rng: random.Random) -> World:
    space = await up.opened(store)
    topic = (await space.create_topic("t", 1, {"archive.ms": "5000"})).id
    return World(space, rng, topic)


@pytest.mark.parametrize("seed", range(12))
def test_readers_see_the_model_whatever_was_archived(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        bucket = SimBucket(sim_loop())
        world = await built(network(bucket, profile=FAST), rng)
        stores = [network(bucket, profile=FIXED, seed=seed * 10 + i) for i in range(2)]
        keepers = [await up.opened(store, seed=seed * 10 + i) for i, store in enumerate(stores)]
        if seed % 3 == 0:
            for store in stores:
                store.set_faults(replace(ROUGH, timeout_s=1.0))
        background: list[asyncio.Task[object]] = []
        for _ in range(60):
            choices = [world.append, world.append, world.append, world.reserve, world.end, world.trim, world.alter]
            await rng.choice(choices)()
            await asyncio.sleep(rng.random())
            if rng.random() < 0.4:
                bounds = rng.choice([{}, {"bytes_max": 3_000}, {"memory_bytes_max": 1}])
                task = archive(rng.choice(keepers), offload=inline, all=rng.random() < 0.7, **bounds)
                background.append(asyncio.create_task(task))
            if rng.random() < 0.3:
                assert world.model.visible() == await up.rows_of(await up.opened(network(bucket), seed=rng.random()))
        for ended in await asyncio.gather(*background, return_exceptions=True):
            assert ended is None or not isinstance(ended, BaseException) or isinstance(ended, HeadwaterError)
        while world.model.held:
            await world.end()
        for store in stores:
            store.set_faults(replace(ROUGH, until_s=0))
        await asyncio.sleep(400)
        for _ in range(3):
            await archive(world.space, offload=inline, all=True)
        assert world.model.visible() == await up.rows_of(world.space) == await archived_from_start(world)
        await up.assert_sound(world.space)

    simulate(main())


async def archived_from_start(world: World) -> list[up.Row]:
    return [row for row in await up.archived_rows(world.space) if row[0] >= world.model.start]


def test_a_branch_archives_what_it_shares_without_touching_its_origin() -> None:
    async def main() -> None:
        store = up.memory()
        world = await built(store, random.Random(5))
        for _ in range(6):
            await world.append()
        await archive(world.space, offload=inline, all=True)
        for _ in range(6):
            await world.append()
        before = await up.rows_of(world.space)
        await branch(world.space, "copy")
        theirs = await up.objects(world.space, "")
        copy = await Namespace.open(store, "copy", clock=up.clock(), rng=random.Random(6))
        await copy.alter_topic("t", {"archive.bytes": "100000"})
        report = await archive(copy, offload=inline, all=True)
        assert before == await up.rows_of(copy) == await up.rows_of(world.space)
        assert (1, copy.topic("t").partitions[0].next) == (report.files, copy.topic("t").partitions[0].archived)
        assert theirs == await up.objects(world.space, "")
        assert 1 == len(await up.objects(copy))

    simulate(main())
