"""Pages without what is dead: who reads them, who still has the old ones, and who makes them at once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headwater.errors import NotFound
from headwater.log import index, keys, snapshot
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.state import State
from headwater.log.verify import verify
from headwater.sim.faults import SimStore
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.metered import MeteredStore
from headwater.upkeep.collector import collect
from tests.log.helpers import FIXED, blob, keys_under, network, simulate

DAY_S = 86_400.0
EVERY = Options(inline_bytes_max=0, snapshot_every=4)
NEVER = Options(inline_bytes_max=0, snapshot_every=1 << 40, snapshot_bytes=1 << 60)


async def opened(store: Any, *, seed: int = 1, options: Options = NEVER) -> Namespace:
    return await Namespace.open(
        store, "main", clock=SimClock(sim_loop()), rng=random.Random(seed), options=options, probe=False
    )


def bucket_far_away() -> SimStore:
    """Requests take their time: two writers of a store without any would have nothing to wait for."""
    return network(profile=FIXED)


async def filled(space: Namespace, appends: int = 16) -> None:
    await space.create_topic("t", 2)
    for i in range(appends):
        await space.append("t", i % 2, blob())
        if i % 4 == 3:
            await space.house.snapshot()


async def offsets(space: Namespace, partition: int, state: State | None = None) -> list[int]:
    """What the index says can be read."""
    place = (state or space.state).topics[1].partitions[partition]
    entries = [entry async for entry in space.lookup.entries(1, partition, place.hot, state)]
    return [entry.base for entry in entries if entry.end > place.hot]


def run(main: Any) -> None:
    simulate(main, limit_s=100 * DAY_S)


def test_a_page_half_of_which_is_dead_is_written_anew_without_it() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        entries = sum(ref.entries for ref in space.state.pages)
        await space.trim("t", 0, 8)
        assert len(space.state.pages) == await space.house.prune()
        assert (16, 8) == (entries, sum(ref.entries for ref in space.state.pages))
        assert {space.state.seq} == {ref.pruned for ref in space.state.pages}
        assert ([], list(range(8))) == (await offsets(space, 0), await offsets(space, 1))
        cold = await opened(space.bucket, seed=2)
        assert space.state.pages == cold.state.pages
        assert list(range(8)) == await offsets(cold, 1)

    run(main())


def test_a_page_that_is_dead_as_a_whole_is_named_no_more() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        await space.trim("t", 0, 8)
        await space.trim("t", 1, 8)
        assert 0 < await space.house.prune()
        assert [] == space.state.pages
        await space.append("t", 0, blob())
        cold = await opened(space.bucket, seed=2)
        assert [8] == await offsets(cold, 0) == await offsets(space, 0)

    run(main())


def test_less_than_half_is_left_alone_and_a_second_run_finds_nothing() -> None:
    async def main() -> None:
        metered = MeteredStore(bucket_far_away())
        space = await opened(metered)
        await filled(space)
        await space.trim("t", 0, 3)
        kept = list(space.state.pages)
        await space.house.prune()
        assert [ref for ref in kept if ref in space.state.pages][-1:] == kept[-1:]
        before = metered.counts.copy()
        assert 0 == await space.house.prune()
        assert 0 == (metered.counts - before).put + (metered.counts - before).put_conditional
        await space.trim("t", 0, 8)
        assert 0 < await space.house.prune()
        assert 0 == await space.house.prune()

    run(main())


def test_nothing_is_pruned_while_a_snapshot_of_this_very_state_exists() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        await space.trim("t", 0, 8)
        await space.house.snapshot()
        before = await keys_under(space.store, "")
        assert 0 == await space.house.prune()
        assert before == await keys_under(space.store, "")
        await space.trim("t", 1, 1)
        assert 0 < await space.house.prune()
        named = snapshot.pages_named((await space.store.get(keys.snapshot_key(space.state.seq))).data, space.state.seq)
        assert space.state.pages == named

    run(main())


def test_a_process_behind_the_pruning_keeps_the_pages_that_still_have_what_it_reads() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        old = await opened(space.bucket, seed=2)
        then = list(old.state.pages)
        await space.trim("t", 0, 8)
        await space.house.prune()
        await old.chain.adopt_pages()
        assert then == old.state.pages  # for it offsets 0 to 7 are alive
        assert list(range(8)) == await offsets(old, 0)
        await old.refresh()
        await old.chain.adopt_pages()
        assert space.state.pages == old.state.pages
        assert ([], list(range(8))) == (await offsets(old, 0), await offsets(old, 1))

    run(main())


def test_two_processes_that_prune_and_take_over_in_turns_agree_and_come_to_rest() -> None:
    async def main() -> None:
        bucket = bucket_far_away()
        one = await opened(bucket)
        await filled(one, 40)
        two = await opened(bucket, seed=2)
        for round_ in range(1, 9):
            for each, other in ((one, two), (two, one)):
                await each.refresh()
                await each.append("t", round_ % 2, blob())
                await each.trim("t", round_ % 2, each.topic("t").partitions[round_ % 2].start + 1)
                await each.house.prune()
                await other.refresh()
                assert await offsets(each, 0) == await offsets(other, 0)
                assert await offsets(each, 1) == await offsets(other, 1)
                await other.house.snapshot()
                await each.chain.adopt_pages()
        await one.drain()
        await two.drain()
        await one.house.snapshot()
        await two.refresh()
        await two.chain.adopt_pages()
        assert one.state.pages == two.state.pages
        for _ in range(3):
            assert (0, 0) == (await one.house.prune(), await two.house.prune())
        place = one.state.topics[1].partitions[0]
        assert list(range(place.start, place.next)) == await offsets(await opened(bucket, seed=3), 0)

    run(main())


def test_an_earlier_state_reads_by_its_own_pages_until_they_are_collected() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        then = space.state.seq
        await space.trim("t", 0, 8)
        await space.house.prune()
        past = await state_at(space.chain, then)
        assert list(range(8)) == await offsets(space, 0, past)
        for _ in range(5):
            await sim_loop().sleep(DAY_S)
            await collect(space)
        cold = await opened(space.bucket, seed=4)
        with pytest.raises(NotFound, match="collected"):
            await state_at(cold.chain, then)
        assert list(range(8)) == await offsets(cold, 1)
        named = [keys.index_key(ref.first, ref.last, ref.pruned) for ref in cold.state.pages]
        assert sorted(named) == await keys_under(space.store, keys.INDEXES)

    run(main())


def test_a_process_with_old_pages_writes_a_snapshot_with_the_pruned_ones() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        old = await opened(space.bucket, seed=2)
        await space.trim("t", 0, 8)
        await space.house.prune()
        await space.append("t", 1, blob())
        await old.refresh()
        await old.house.snapshot()
        assert 8 + 1 == sum(ref.entries for ref in old.state.pages)
        for _ in range(4):
            await sim_loop().sleep(DAY_S)
            await collect(space)
        assert list(range(9)) == await offsets(old, 1) == await offsets(await opened(space.bucket, seed=3), 1)

    run(main())


def test_pruning_that_breaks_off_leaves_everything_readable() -> None:
    async def main() -> None:
        space = await opened(bucket_far_away())
        await filled(space)
        await space.trim("t", 0, 8)
        # As if the process had died between the new pages and the snapshot that names them.
        for ref in list(space.state.pages):
            body = await space.house.load_page(ref)
            new, pruned = index.merge([ref], [body], space.state)
            assert pruned is not None
            await space.store.put_if_absent(keys.index_key(new.first, new.last, new.pruned), pruned)
        cold = await opened(space.bucket, seed=2)
        assert list(range(8)) == await offsets(cold, 1)
        assert 0 < await cold.house.prune()
        for _ in range(5):
            await sim_loop().sleep(DAY_S)
            await collect(cold)
        report = await verify(cold.store, clock=cold.chain.clock, rng=random.Random(1))
        assert {} == report.orphans
        assert {"decode"} >= {problem.kind for problem in report.problems}  # the bytes of these chunks are no batches

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_trimmed_pruned_and_merged_all_processes_find_the_same(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        bucket = bucket_far_away()
        spaces = [await opened(bucket, seed=seed * 7 + 1, options=EVERY)]
        await spaces[0].create_topic("t", 2)
        spaces.append(await opened(bucket, seed=seed * 7 + 2, options=EVERY))
        for _ in range(60):
            space = rng.choice(spaces)
            await space.refresh()
            act = rng.random()
            partition = rng.randrange(2)
            place = space.topic("t").partitions[partition]
            if act < 0.6:
                for _ in range(rng.randint(1, 4)):
                    await space.append("t", partition, blob())
            elif act < 0.75 and place.next > place.start:
                await space.trim("t", partition, rng.randint(place.start, place.next))
            elif act < 0.9:
                await space.house.prune()
            elif act < 0.95:
                await space.house.snapshot()
            else:
                await sim_loop().sleep(DAY_S / 2)
                await collect(space)
            for each in spaces:
                await each.refresh()
                for number in range(2):
                    where = each.topic("t").partitions[number]
                    found = [chunk.base async for chunk in each.reader.chunks("t", number, where.start)]
                    assert list(range(where.start, where.next)) == found
        for each in spaces:
            await each.drain()

    run(main())
