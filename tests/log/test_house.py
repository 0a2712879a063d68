"""Snapshots, pages and the hint: when they are made, what they cost, and what a cold start finds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.log import keys, snapshot
from headwater.log.operations import CreateTopic
from headwater.log.options import Options
from headwater.log.writer import Append
from headwater.sim.loop import sim_loop
from tests.log.helpers import Parts, blob, keys_under, memory, simulate
from tests.log.helpers_store import Scripted, away, lost_answer, raced


class Home:
    """One process over a scripted store, that snapshots every ten manifests."""

    def __init__(self, options: Options | None = None) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)
        self.parts = Parts(self.store, options=options or Options(snapshot_every=10, store_retry_s=5))

    async def start(self) -> Home:
        await self.parts.chain.refresh()
        await self.parts.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        return self

    async def append(self, times: int = 1, size: int = 10) -> None:
        for _ in range(times):
            await self.parts.writer.commit([Append(topic=1, partition=0, batch=blob(size=size))])
            await self.parts.house.drain()

    async def cold(self) -> int:
        """How many chunks a cold start finds; all of them are read."""
        other = Parts(self.truth, writer="other", seed=8)
        return len([chunk async for chunk in other.reader.chunks("t", 0, 0)])

    async def snapshots(self) -> list[int]:
        return [keys.parse_numbered_key(key) for key in await keys_under(self.truth, "snapshot/")]


def test_a_snapshot_is_made_every_so_many_manifests_and_latest_names_it() -> None:
    async def main() -> None:
        home = await Home().start()
        await home.append(8)
        assert [] == await home.snapshots()
        await home.append(1)
        assert [10] == await home.snapshots()
        await home.append(25)
        assert [10, 20, 30] == await home.snapshots()
        assert 30 == snapshot.decode_latest((await home.truth.get("latest")).data)
        assert 34 == await home.cold()

    simulate(main())


def test_a_snapshot_is_made_when_manifests_grew_large() -> None:
    async def main() -> None:
        home = await Home(Options(snapshot_every=1_000, snapshot_bytes=10_000)).start()
        await home.append(3, size=6_000)
        assert [3] == await home.snapshots()

    simulate(main())


def test_a_snapshot_of_the_same_manifest_costs_nothing_new_and_harms_nothing() -> None:
    async def main() -> None:
        home = await Home().start()
        await home.append(5)
        assert 6 == await home.parts.house.snapshot() == await home.parts.house.snapshot()
        assert (1, [6], 5) == (
            len(await keys_under(home.truth, "index/")), await home.snapshots(), await home.cold(),
        )  # fmt: skip

    simulate(main())


@pytest.mark.parametrize("step", [away, lost_answer, raced])
@pytest.mark.parametrize("kind", ["put", "put_if_absent"])
def test_a_snapshot_that_meets_a_rough_store_is_made_all_the_same(step: Any, kind: str) -> None:
    async def main() -> None:
        home = await Home().start()
        await home.append(5)
        if (step, kind) != (raced, "put"):
            home.store.will(kind, step, step)
        await home.parts.house.snapshot()
        assert ([6], 5) == (await home.snapshots(), await home.cold())

    simulate(main())


def test_a_snapshot_that_fails_disturbs_no_reader_and_the_next_one_stores_its_page_too() -> None:
    async def main() -> None:
        home = await Home().start()
        await home.append(5)
        home.store.always["put_if_absent"] = away
        with pytest.raises(Exception, match="503"):
            await home.parts.house.snapshot()
        home.store.always.clear()
        assert 5 == len((await home.parts.reader.fetch("t", 0, 0)).chunks)
        await home.append(3)
        await home.parts.house.snapshot()
        assert (2, 8, 8) == (
            len(await keys_under(home.truth, "index/")),
            await home.cold(),
            len((await home.parts.reader.fetch("t", 0, 0)).chunks),
        )

    simulate(main())


def test_pages_merge_and_a_cold_start_still_finds_everything() -> None:
    async def main() -> None:
        home = await Home(Options(snapshot_every=2)).start()
        await home.append(150)
        assert len(home.parts.chain.state.pages) < 16
        assert 150 == await home.cold()

    simulate(main())


def test_two_snapshots_at_once_lose_no_page() -> None:
    async def main() -> None:
        home = await Home(Options(snapshot_every=1_000)).start()
        await home.append(3)

        async def late(store: Scripted, act: Any) -> Any:
            await sim_loop().sleep(1)
            return await act()

        home.store.always["put_if_absent"] = late
        first = asyncio.ensure_future(home.parts.house.snapshot())
        await sim_loop().sleep(1.5)
        home.store.always.clear()
        await home.append(3)
        home.store.always["put_if_absent"] = late
        second = asyncio.ensure_future(home.parts.house.snapshot())
        await asyncio.gather(first, second)
        assert 6 == await home.cold()

    simulate(main())


def test_a_process_that_only_reads_lets_go_of_what_others_have_paged_out() -> None:
    async def main() -> None:
        home = await Home().start()
        other = Parts(home.truth, writer="other", seed=8, options=Options(snapshot_every=10))
        await other.chain.refresh()
        for _ in range(60):
            await home.append()
            await other.chain.refresh()
            await other.house.drain()
            assert other.chain.state.tail_entries <= 40
        assert 60 == len((await other.reader.fetch("t", 0, 0)).chunks)

    simulate(main())


def test_a_state_larger_than_an_object_still_gets_a_snapshot() -> None:
    async def main() -> None:
        home = await Home().start()
        config = {"padding": "x" * (8 * 1024 * 1024)}
        for topic in home.parts.chain.state.topics.values():
            topic.config = {f"{i}": config["padding"] for i in range(9)}
        await home.parts.house.snapshot()

    simulate(main())
