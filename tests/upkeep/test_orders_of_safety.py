"""The orders of requests that collection and branches rely on: who comes first leaves a sign for the other one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import Body, Stat
from headwater.store.memory import MemoryStore
from headwater.upkeep.branch import branch
from headwater.upkeep.collector import collect
from tests.log.helpers import blob, simulate

DAY_S = 86_400.0


class Told(MemoryStore):
    """Remembers what it was asked, in order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[tuple[str, str]] = []

    async def put(self, key: str, body: Body) -> Stat:
        self.asked.append(("put", key))
        return await super().put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.asked.append(("put", key))
        return await super().put_if_absent(key, body)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        self.asked.append(("list", prefix))
        async for stat in super().list(prefix, start_after=start_after, limit=limit):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        self.asked.append(("delete", min(keys, default="")))
        await super().delete(keys)

    def first(self, what: str, prefix: str) -> int:
        return next(
            at for at, (kind, key) in enumerate(self.asked) if kind == what and key.startswith(f"main/{prefix}")
        )

    def last(self, what: str, prefix: str) -> int:
        return self._all(what, prefix)[-1]

    def _all(self, what: str, prefix: str) -> list[int]:
        found = f"main/{prefix}"
        return [at for at, (kind, key) in enumerate(self.asked) if kind == what and key.startswith(found)]


async def aged(store: Told) -> Namespace:
    """A namespace with a history of some days, whose garbage may go."""
    clock, options = SimClock(sim_loop()), Options(snapshot_every=10, threads=False)
    space = await Namespace.open(store, "main", clock=clock, rng=random.Random(1), options=options)
    await space.create_topic("t")
    for _ in range(4):
        for _ in range(12):
            await space.append("t", 0, blob(1))
        await space.trim("t", 0, space.topic("t").partitions[0].next - 1)
        await space.house.snapshot()
        await sim_loop().sleep(DAY_S)
    return space


def test_the_boundary_is_durable_before_pins_are_listed_and_anything_is_deleted() -> None:
    async def main() -> None:
        store = Told(clock=SimClock(sim_loop()))
        space = await aged(store)
        store.asked.clear()
        report = await collect(space)
        assert report.objects > 10
        assert store.first("put", keys.BOUNDARIES) < store.first("list", keys.BRANCHES) < store.first("delete", "")
        assert store.first("put", keys.COLLECTED) > store.last("delete", "")

    simulate(main(), limit_s=30 * DAY_S)


def test_a_pin_is_durable_before_its_maker_looks_at_the_boundary_for_the_last_time() -> None:
    async def main() -> None:
        store = Told(clock=SimClock(sim_loop()))
        space = await aged(store)
        store.asked.clear()
        await branch(space, "copy")
        pinned, looked = store.first("put", keys.BRANCHES), store.last("list", keys.BOUNDARIES)
        taken = store.asked.index(("put", f"copy/{keys.manifest_key(1)}"))
        assert pinned < looked < taken

    simulate(main(), limit_s=30 * DAY_S)


def test_a_snapshot_is_durable_before_its_writer_looks_at_the_boundary() -> None:
    async def main() -> None:
        store = Told(clock=SimClock(sim_loop()))
        space = await aged(store)
        await space.append("t", 0, blob(1))
        store.asked.clear()
        seq = await space.house.snapshot()
        assert store.asked.index(("put", f"main/{keys.snapshot_key(seq)}")) < store.last("list", keys.BOUNDARIES)

    simulate(main(), limit_s=30 * DAY_S)
