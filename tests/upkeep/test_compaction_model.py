"""Any mix of keys, tombstones, times, files and trims; compactors that die anywhere, alone and in company: what a
reader sees is always what Kafka's cleaner promises, by a model in plain Python.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from headwater.errors import HeadwaterError
from headwater.log.namespace import Namespace
from headwater.log.operations import TrimLog
from headwater.sim.faults import CALM, Faults, Process, SimBucket, SimStore
from headwater.sim.latency import S3_EXPRESS
from headwater.sim.loop import SimClock, sim_loop
from headwater.upkeep import cleaner, rewriting
from headwater.upkeep import files as tidying
from headwater.upkeep.archiver import archive
from headwater.upkeep.compaction import compact
from headwater.upkeep.offload import inline
from tests.log.helpers import simulate
from tests.upkeep.helpers_compaction import DAY, Desk, listed_by_a_page, rows_of

KEYS = [None, b"a", b"b", b"c", b"d", b"e"]
appends = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=8)
lives = st.fixed_dictionaries(
    {
        "crash_at": st.none() | st.integers(1, 60),
        "rough": st.booleans(),
        "seed": st.integers(0, 2**16),
        "memory": st.sampled_from([300, 1_000, 1 << 20]),
        "skew": st.sampled_from([0, 0, -40, 70]),  # hours that its clock is off
    }
)
rounds = st.lists(
    st.fixed_dictionaries(
        {
            "append": appends,
            "archive": st.none() | st.lists(st.integers(1, 7), max_size=3),
            "page": st.sampled_from([False, False, False, True]),
            "trim": st.sampled_from([0, 0, 0, 2, 5]),
            "compact": st.lists(lives, max_size=2),
            "sleep": st.integers(0, 20),
        }
    ),
    min_size=2,
    max_size=8,
)


class World:
    """The log as it was written, and when compaction first went over each offset."""

    def __init__(self) -> None:
        self.loop = sim_loop()
        self.bucket = SimBucket(self.loop)
        self.written: list[tuple[bytes | None, bytes | None]] = []
        self.cleaned_ms: dict[int, int] = {}
        self.began_ms = self.lives = 0
        self.desk: Desk

    async def start(self) -> World:
        self.desk = await Desk.start(SimStore(self.bucket, loop=self.loop, rng=random.Random(1)))
        return self

    def now_ms(self) -> int:
        return self.desk.ns.chain.clock.wall_ms()

    async def append(self, rows: list[tuple[bytes | None, bool]]) -> None:
        made = [(key, None if gone and key else b"%d" % (len(self.written) + i)) for i, (key, gone) in enumerate(rows)]
        await self.desk.append(*made, at=self.now_ms())
        self.written += made

    async def archive(self, sizes: list[int] | None) -> None:
        if sizes is None:
            return
        place = self.desk.ns.topic("t").partitions[0]
        base = max(place.archived, place.start)
        ends = []
        for size in sizes:
            base += size
            ends.append(base)
        ends = [end for end in ends if end <= place.stable_end] or [place.stable_end]
        if ends[-1] > max(place.archived, place.start):
            await self.desk.archive(*ends)

    async def page(self, wanted: bool) -> None:
        archive = self.desk.ns.topic("t").partitions[0].archive
        if wanted and archive is not None and archive.files and not archive.pages:
            await listed_by_a_page(self.desk)

    async def sleep(self, hours: int) -> None:
        await asyncio.sleep(hours * 3_600)

    async def trim(self, by: int) -> None:
        if not by:
            return
        place = self.desk.ns.topic("t").partitions[0]
        op = TrimLog(topic=1, partition=0, before=min(place.start + by, place.stable_end))
        await self.desk.ns.writer.commit(ops=[op])

    async def compact(self, wanted: list[dict[str, Any]]) -> int:
        """Let so many compactors live beside each other; how many of them did not die."""
        await self.note_clean()
        self.began_ms = self.now_ms()
        tasks = [self._spawn(**life) for life in wanted]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for life, outcome in zip(wanted, outcomes, strict=True):
            broken = life["rough"] or life["crash_at"] is not None
            assert not isinstance(outcome, BaseException) or (
                broken and isinstance(outcome, HeadwaterError | asyncio.CancelledError)
            ), outcome
        await self.note_clean()
        if any(isinstance(outcome, int) and outcome == 0 for outcome in outcomes):
            await self.check_exactly()
        return sum(isinstance(outcome, int) for outcome in outcomes)

    async def note_clean(self) -> None:
        """What a compactor sent before it died may land minutes later: not before it began, that much is certain."""
        await self.desk.ns.refresh()
        for offset in range(self.desk.clean):
            self.cleaned_ms.setdefault(offset, self.began_ms)

    def _spawn(self, crash_at: int | None, rough: bool, seed: int, memory: int, skew: int) -> asyncio.Task[int]:
        self.lives += 1  # two that draw the same names would be no two
        rng = random.Random(seed * 1_000 + self.lives)
        process = Process(f"compactor {seed}", self.loop, crash_at=crash_at)
        faults = Faults.swarm(rng) if rough else CALM
        store = SimStore(self.bucket, loop=self.loop, rng=rng, profile=S3_EXPRESS, faults=faults, process=process)

        async def life() -> int:
            clock = SimClock(self.loop, process=process, start_ms=self.bucket.wall_ms() + skew * 3_600_000)
            ns = await Namespace.open(store, "ns", clock=clock, rng=rng, probe=False)
            report = await compact(ns, offload=inline, memory_bytes_max=memory)
            await ns.drain()
            return report.lost

        return process.spawn(life())

    # -- the model ---------------------------------------------------------------------------------------

    async def check(self) -> None:
        """What holds at any moment."""
        place = self.desk.ns.topic("t").partitions[0]
        seen = {row.offset: (row.key, row.value) for row in await rows_of(self.desk.ns)}
        assert seen == {offset: self.written[offset] for offset in seen}, "no value and no offset changes"
        latest = {key: offset for offset, (key, _) in enumerate(self.written)}
        for offset in range(place.start, len(self.written)):
            key, value = self.written[offset]
            if key is None or offset >= place.archived:
                assert offset in seen, f"{offset} has no key, or lies in the hot part"
            elif latest[key] == offset and value is not None:
                assert offset in seen, f"{offset} is the latest of {key!r}"
            elif latest[key] == offset and offset not in seen:
                assert self.now_ms() >= self.cleaned_ms[offset] + DAY, f"the tombstone {offset} went too early"
                assert key not in {found for found, _ in seen.values()}, f"{key!r} has come back to life"

    async def check_exactly(self) -> None:
        """What holds behind a run that was not disturbed: one record a key in the archive, but for tombstones."""
        place = self.desk.ns.topic("t").partitions[0]
        if self.desk.clean < place.archived:
            return  # what a trim has left there is too short for a section
        rows = [row for row in await rows_of(self.desk.ns) if row.key is not None and row.offset < self.desk.clean]
        latest = {key: offset for offset, (key, _) in enumerate(self.written[: self.desk.clean])}
        assert all(latest[row.key] == row.offset for row in rows)


class Company(World):
    """The same, where an archiver archives, merges and lists files while compactors are at work."""

    async def compact(self, wanted: list[dict[str, Any]]) -> int:
        self.lives += 1
        rng = random.Random(f"archiver {self.lives}")  # a number is the seed of another, whose ids would be its own
        process = Process(f"archiver {self.lives}", self.loop)
        faults = Faults.swarm(rng) if any(life["rough"] for life in wanted) else CALM
        store = SimStore(self.bucket, loop=self.loop, rng=rng, profile=S3_EXPRESS, faults=faults, process=process)

        async def life() -> None:
            clock = SimClock(self.loop, process=process, start_ms=self.bucket.wall_ms())
            ns = await Namespace.open(store, "ns", clock=clock, rng=rng, probe=False)
            await archive(ns, offload=inline, all=True)
            await ns.drain()

        archiver = process.spawn(life())
        survived = await super().compact(wanted)
        (outcome,) = await asyncio.gather(archiver, return_exceptions=True)
        assert outcome is None or (faults is not CALM and isinstance(outcome, HeadwaterError)), outcome
        await self.note_clean()
        return survived

    async def archive(self, sizes: list[int] | None) -> None:
        """Somebody else does."""

    async def page(self, wanted: bool) -> None:
        """Likewise."""

    async def check_exactly(self) -> None:
        """What was archived meanwhile is dirty."""


@contextmanager
def small_bounds() -> Iterator[None]:
    """So small that every bound is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaner, "STRIDE_FILES", 2)
        patch.setattr(cleaner, "KEYS_BYTES", 300)
        patch.setattr(rewriting, "JOIN_BYTES", 4_000)
        for name, bound in (
            ("MERGE_MIN", 2),
            ("MERGE_GROWTH", 0),
            ("MERGE_SURE", 3),
            ("LISTED_MAX", 4),
            ("LISTED_KEPT", 2),
        ):
            patch.setattr(tidying, name, bound)
        yield


@settings(max_examples=40)
@given(rounds)
def test_a_reader_sees_what_kafka_promises_whatever_dies_and_whoever_else_compacts(plan: list[dict[str, Any]]) -> None:
    async def main() -> None:
        world = await World().start()
        note(repr(plan))
        for step in plan:
            for name, argument in step.items():
                await getattr(world, name)(argument)
                await world.check()
        calm = {"crash_at": None, "rough": False, "seed": 7, "memory": 1 << 20, "skew": 0}
        await world.archive([])
        await world.compact([calm])
        await world.check()

    with small_bounds():
        simulate(main(), limit_s=10**8)


@settings(max_examples=20)
@given(rounds)
def test_an_archiver_that_merges_and_lists_files_meanwhile_changes_nothing_of_that(plan: list[dict[str, Any]]) -> None:
    async def main() -> None:
        world = await Company().start()
        note(repr(plan))
        for step in plan:
            for name, argument in step.items():
                await getattr(world, name)(argument)
                await world.check()

    with small_bounds():
        simulate(main(), limit_s=10**8)


def test_a_death_at_every_await_of_a_pass_loses_nothing() -> None:
    async def main(crash_at: int) -> bool:
        world = await World().start()
        for i in range(4):
            await world.append([(b"a", False), (b"b", i == 1), (b"c%d" % i, False), (None, False)])
            await world.archive([2, 2])
        life = {"rough": False, "seed": crash_at, "memory": 400, "skew": 0}
        survived = await world.compact([{**life, "crash_at": crash_at}]) == 1
        await world.check()
        assert not survived or 16 == world.desk.clean
        await world.compact([{**life, "crash_at": None}])
        await world.check()
        assert 16 == world.desk.clean
        return survived

    with small_bounds():
        deaths = 0
        while not simulate(main(1 + 3 * deaths)):
            deaths += 1
    assert deaths >= 40, "a pass has more awaits"
