"""Whoever sleeps, dies or loses answers while the collector works: nothing that is needed goes, the rest goes later."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from headwater.errors import HeadwaterError
from headwater.log import index, keys, snapshot
from headwater.log.batch import batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.verify import verify
from headwater.log.writer import Append
from headwater.sim.faults import Faults, Process, SimBucket, SimStore
from headwater.sim.latency import ZERO
from headwater.sim.loop import SimClock, sim_loop
from headwater.types import Record
from headwater.upkeep.branch import branch
from headwater.upkeep.collector import collect
from tests.log.helpers import keys_under, simulate

DAY_S = 86_400.0
OPTIONS = Options(inline_bytes_max=1_200, snapshot_every=5)
INLINE = batch_of_records([Record(value=b"v")], default_timestamp=5)
SEGMENT = batch_of_records([Record(value=bytes(range(256)) * 8)], default_timestamp=5)
assert len(INLINE.data) <= OPTIONS.inline_bytes_max < len(SEGMENT.data)


class Frail(Process):
    """A process that is to be struck a few awaits from now."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sim_loop())

    def sleeps(self, step: int, days: float) -> None:
        self._pauses = {self.awaits + step: days * DAY_S}
        self._strikes = frozenset(self._pauses)

    def dies(self, step: int) -> None:
        self._crash_at = self.awaits + step
        self._strikes = frozenset({self._crash_at})


async def opened(bucket: SimBucket, *, seed: int = 1, owner: Process | None = None, name: str = "main") -> Namespace:
    loop = sim_loop()
    store = SimStore(bucket, loop=loop, rng=random.Random(seed), profile=ZERO, process=owner)
    clock = SimClock(loop, start_ms=bucket.wall_ms(), process=owner)
    return await Namespace.open(store, name, clock=clock, rng=random.Random(seed), options=OPTIONS)


async def passed(days: float) -> None:
    await sim_loop().sleep(days * DAY_S)


async def busy(space: Namespace, appends: int) -> None:
    """Some life: batches inline and in segments, trims, and topics that come and go."""
    for i in range(appends):
        await space.append("t", i % 2, INLINE if i % 3 else SEGMENT)
    await space.append("u", 0, SEGMENT)
    await space.delete_topic("u")
    await space.create_topic("u")
    place = space.topic("t").partitions[0]
    await space.trim("t", 0, place.start + (place.next - place.start) // 2)
    await space.writer.stage([Append(topic=space.topic("t").id, partition=0, batch=SEGMENT)])  # an orphan
    await space.drain()


async def begun(bucket: SimBucket) -> Namespace:
    space = await opened(bucket)
    await space.create_topic("t", 2)
    await space.create_topic("u")
    await busy(space, 12)
    return space


async def readable(space: Namespace) -> None:
    """Every offset from the log start on can be read, from chunks that pass their CRC."""
    await space.refresh()
    for number, place in enumerate(space.topic("t").partitions):
        found: list[int] = []
        async for chunk in space.reader.chunks("t", number, place.start):
            found += range(chunk.base, chunk.end)
        assert list(range(place.start, place.next)) == [offset for offset in found if offset >= place.start]


async def settled(bucket: SimBucket) -> None:
    """In the end everything is whole, and what nobody needs is gone."""
    space = await opened(bucket, seed=99)
    for _ in range(9):
        await passed(1)
        await collect(space)
    await collect(space, full=True)  # a sleeper that wakes last leaves strays that no commit betrays
    await readable(space)
    checked = await verify(space.store, clock=space.chain.clock, rng=random.Random(5))
    assert [] == checked.problems
    assert {} == checked.orphans
    before = set(bucket.objects)
    await passed(1)
    assert (await collect(space)).rested
    assert before == set(bucket.objects)


async def alive(space: Namespace, days: int, *others: Namespace) -> None:
    """Days of life, with a collector that is awake."""
    for _ in range(days):
        await busy(space, 6)
        await passed(1)
        await collect(space)
        for other in others:
            await readable(other)


def quietly(work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    async def done() -> None:
        try:
            await work()
        except HeadwaterError:
            return

    return done


def play(main: Callable[[SimBucket], Awaitable[None]]) -> None:
    async def world() -> None:
        await main(SimBucket(sim_loop()))

    simulate(world(), limit_s=400 * DAY_S)


@pytest.mark.parametrize("step", range(1, 60, 3))
def test_a_collector_that_sleeps_for_days_at_any_step_harms_nothing(step: int) -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await passed(1.1)
        await collect(space)
        await passed(1.1)
        sleeper = Frail("sleeper")
        slow = await opened(bucket, seed=2, owner=sleeper)
        sleeper.sleeps(step, 2.2)
        task = sleeper.spawn(quietly(lambda: collect(slow, full=True))())
        await alive(space, 4)
        await task
        await settled(bucket)

    play(main)


@pytest.mark.parametrize("step", range(1, 60, 3))
def test_a_collector_that_dies_at_any_step_leaves_work_that_the_next_one_finishes(step: int) -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await passed(1.1)
        await collect(space)
        await passed(1.1)
        mortal = Frail("mortal")
        slow = await opened(bucket, seed=2, owner=mortal)
        mortal.dies(step)
        task = mortal.spawn(quietly(lambda: collect(slow, full=True))())
        await passed(0.1)
        assert task.done()
        await readable(await opened(bucket, seed=3))
        await settled(bucket)

    play(main)


@pytest.mark.parametrize("step", range(1, 40))
def test_a_snapshot_whose_writer_sleeps_for_days_at_any_step_does_no_harm(step: int) -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        sleeper = Frail("sleeper")
        slow = await opened(bucket, seed=2, owner=sleeper)
        await busy(space, 4)
        await slow.refresh()
        sleeper.sleeps(step, 3.2)
        task = sleeper.spawn(quietly(slow.house.snapshot)())
        await busy(space, 30)
        await space.house.snapshot()
        for _ in range(3):
            await passed(1)
            await collect(space)
        await passed(0.5)
        await task
        await readable(slow)
        await readable(await opened(bucket, seed=3))
        await settled(bucket)

    play(main)


@pytest.mark.parametrize("step", range(1, 40, 2))
def test_a_writer_that_sleeps_for_days_at_any_step_loses_nothing_and_harms_nothing(step: int) -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        sleeper = Frail("sleeper")
        slow = await opened(bucket, seed=2, owner=sleeper)
        sleeper.sleeps(step, 2.4)
        task = sleeper.spawn(quietly(lambda: busy(slow, 8))())
        await passed(0.01)
        for _ in range(3):
            await passed(1)
            await collect(space)
        await passed(1)
        await task
        await settled(bucket)

    play(main)


@pytest.mark.parametrize("seed", range(12))
def test_faults_and_two_collectors_at_once(seed: int) -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        rates = dict.fromkeys(("throttled", "unavailable", "lost_answer", "late", "lost_request", "raced"), 0.04)
        faults = Faults(**rates, own_412=0.04, false_503=0.04, partial_delete=0.3)
        pair = [await opened(bucket, seed=seed * 10 + i) for i in (2, 3)]
        for each in pair:
            each.bucket.set_faults(faults)  # type: ignore[attr-defined]
        for _ in range(4):
            await busy(space, 5)
            await passed(1)
            tasks = [sim_loop().create_task(quietly(lambda each=each: collect(each, full=True))()) for each in pair]  # type: ignore[misc]
            await busy(space, 3)
            for task in tasks:
                await task
            await readable(space)
        await settled(bucket)

    play(main)


def test_a_process_with_pages_that_were_merged_away_and_collected_still_reads() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        old = await opened(bucket, seed=2)
        await readable(old)
        await alive(space, 5, old)
        await settled(bucket)

    play(main)


def test_a_process_that_lost_the_race_for_a_snapshot_takes_over_the_pages_that_count() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await space.house.snapshot()
        hint = (await space.store.get(keys.LATEST)).data
        other = await opened(bucket, seed=2)
        for process in (space, other):
            process.house._start = lambda work: None  # type: ignore[method-assign]
        await busy(space, 3)
        await other.refresh()
        sealed = index.seal(other.state)  # it has sealed earlier than the one that wins
        assert sealed is not None
        other.house._unstored[keys.index_key(sealed[0].first, sealed[0].last)] = sealed[1]
        await busy(space, 3)
        await other.refresh()
        await space.house.snapshot()
        await space.store.put(keys.LATEST, hint)  # the winner has not come to that yet
        assert space.state.seq == await other.house.snapshot()
        assert space.state.pages == other.state.pages
        for _ in range(4):
            await passed(1)
            await collect(space)
            await readable(other)
        await settled(bucket)

    play(main)


def test_a_snapshot_from_pages_that_may_be_collected_is_not_the_latest() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        first = await space.house.snapshot()
        hint = (await space.store.get(keys.LATEST)).data
        slow = await opened(bucket, seed=2)
        assert first == slow.chain.adopted
        await busy(space, 4)
        for _ in range(3):
            await passed(1)
            await collect(space)
        await space.store.put(keys.LATEST, hint)  # a hint of days ago, landing late
        slow.chain.known(slow.chain.now())
        assert space.state.seq == await slow.house.snapshot()
        assert space.state.seq == snapshot.decode_latest((await space.store.get(keys.LATEST)).data)
        await readable(await opened(bucket, seed=3))
        await settled(bucket)

    play(main)


def test_a_process_whose_pages_are_gone_starts_again_though_it_believes_that_they_are_the_newest() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await space.house.snapshot()
        old = await opened(bucket, seed=2)
        old.state.pages = [index.PageRef(1, space.state.seq, 3, 9)]
        await readable(old)
        assert space.state.pages == old.state.pages

    play(main)


def test_a_hint_at_a_snapshot_that_is_gone_is_corrected() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await busy(space, 4)
        await passed(1)
        await collect(space)
        await passed(1.1)
        await space.store.put(keys.LATEST, snapshot.encode_latest(3))
        await collect(space)
        named = snapshot.decode_latest((await space.store.get(keys.LATEST)).data)
        assert keys.snapshot_key(named) in await keys_under(space.store, keys.SNAPSHOTS)

    play(main)


def test_a_snapshot_that_names_pages_which_are_gone_is_written_anew() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        for _ in range(3):
            await passed(1)
            await collect(space)
        await busy(space, 4)
        bad = snapshot.decode(snapshot.encode(space.state), space.state.seq)
        bad.pages = [index.PageRef(1, 2, 0, 7), *bad.pages]
        await space.drain()
        await space.store.put(keys.snapshot_key(space.state.seq), snapshot.encode(bad))
        report = await collect(space, full=True)
        assert 1 == report.mended
        for _ in range(3):
            await passed(1)
            await collect(space)
        await readable(await opened(bucket, seed=4))
        await settled(bucket)

    play(main)


def test_a_branch_that_is_made_while_the_collector_works_is_whole_or_is_refused() -> None:
    async def main(bucket: SimBucket) -> None:
        space = await begun(bucket)
        await passed(1.1)
        await collect(space)
        made = []
        for step in range(1, 40):
            await busy(space, 2)
            await passed(1.1)
            at = space.state.seq
            maker = Frail(f"maker-{step}")
            mine = await opened(bucket, seed=step + 50, owner=maker)
            maker.sleeps(step % 14, random.Random(step).choice([0.0, 0.0001, 1.5]))

            async def make(mine: Namespace = mine, step: int = step, at: int = at) -> None:
                await branch(mine, f"b{step}", at=at - step % 9)
                made.append(step)

            task = maker.spawn(quietly(make)())
            await collect(space, full=True)
            await passed(1.6)
            await collect(space, full=True)
            await task
        assert len(made) > 10
        for _ in range(4):
            await passed(1)
            await collect(space)
        for step in made:
            await readable(await opened(bucket, seed=3, name=f"b{step}"))

    play(main)
