"""Index pages against a flat list: whatever was sealed, merged and adopted, a lookup finds every entry in order."""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.errors import NotFound
from headwater.limits import INDEX_FANOUT
from headwater.log import index, keys, lookup
from headwater.log.operations import DeleteTopic, EndReserve, Reserve
from headwater.log.state import Entry, PageRef, State
from tests.log.helpers import FIXED, Fold, Parts, chunk, memory, network, simulate

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Kept:
    """A fold whose tails are sealed and merged as the house does, and a flat list of what it ever placed."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.pages: dict[PageRef, bytes] = {}
        self.reserved: list[tuple[int, int]] = []  # pid, epoch

    @property
    def state(self) -> State:
        return self.fold.state

    def seal(self) -> None:
        sealed = index.seal(self.state)
        if sealed is not None:
            self.pages[sealed[0]] = sealed[1]
        while due := index.plan_merge(self.state.pages):
            ref, body = index.merge(due, [self.pages[page] for page in due], self.state)
            if body is not None:
                self.pages[ref] = body
            self.state.pages[-len(due) :] = [] if body is None else [ref]

    def step(self, rng: random.Random) -> None:
        """One manifest: appends, reservations, and their release much later."""
        act = rng.random()
        partition = rng.choice([0, 0, 1])
        if act < 0.12:
            pid = self.fold.producer()
            wanted = [
                chunk(partition=rng.choice([0, 0, 1]), count=rng.choice([1, 3]), pid=pid, epoch=0) for _ in range(2)
            ]
            self.fold.done(Reserve(pid=pid, epoch=0, timeout_ms=9), *wanted)
            self.reserved.append((pid, 0))
        elif act < 0.2 and self.reserved:
            pid, epoch = self.reserved.pop(rng.randrange(len(self.reserved)))
            self.fold.done(EndReserve(pid=pid, epoch=epoch, commit=rng.random() < 0.6))
        else:
            low = rng.randrange(100)
            self.fold.done(
                chunk(partition=partition, count=rng.choice([1, 2, 7]), min=low, max=low + rng.randrange(50))
            )

    def flat(self, partition: int) -> list[Entry]:
        """Every entry of the partition, by decoding all there is."""
        found = [*self.part(partition).tail]
        for ref in self.state.pages:
            header, base = index.decode_header(self.pages[ref])
            for run in header.runs:
                if (run.topic, run.partition) == (1, partition):
                    found += index.decode_run(run, self.pages[ref][base + run.pos : base + run.pos + run.len])
        return sorted(found, key=lambda entry: entry.base)

    def part(self, partition: int) -> Any:
        return self.state.topics[1].partitions[partition]


def kept(rng: random.Random, steps: int, seal_odds: float) -> Kept:
    made = Kept()
    made.fold.topic(partitions=2)
    for _ in range(steps):
        made.step(rng)
        if rng.random() < seal_odds:
            made.seal()
    return made


async def looked_up(made: Kept, partition: int, offset: int) -> list[Entry]:
    parts = Parts(memory())
    parts.chain.state = made.state
    for ref, body in made.pages.items():
        await parts.chain.store.put(keys.index_key(ref.first, ref.last), body)
    return [entry async for entry in parts.lookup.entries(1, partition, offset)]


@RELAXED
@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_a_lookup_gives_exactly_the_entries_above_an_offset_in_order(seed: int, steps: int, odds: float) -> None:
    rng = random.Random(seed)
    made = kept(rng, steps, odds)
    for partition in (0, 1):
        flat, end = made.flat(partition), made.part(partition).next
        for offset in {0, end, max(end - 1, 0), rng.randrange(end + 1), rng.randrange(end + 1)}:
            expected = [entry for entry in flat if entry.end > offset]
            assert expected == simulate(looked_up(made, partition, offset))
        held = sum(held.entry.count for held in made.part(partition).held)
        assert end == sum(entry.count for entry in flat) + held
        assert all(one.end <= two.base for one, two in itertools.pairwise(flat))


@RELAXED
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 160))
def test_a_search_by_time_gives_entries_in_offset_order(seed: int, odds: float, timestamp: int) -> None:
    made = kept(random.Random(seed), 60, odds)

    async def main() -> list[Entry]:
        parts = Parts(memory())
        parts.chain.state = made.state
        for ref, body in made.pages.items():
            await parts.chain.store.put(keys.index_key(ref.first, ref.last), body)
        return [entry async for entry in parts.lookup.first_reaching(1, 0, timestamp)]

    assert [e for e in made.flat(0) if e.max >= timestamp and e.codec != "gap"] == simulate(main())


def test_a_range_released_late_is_found_between_two_older_pages() -> None:
    """The limit looked at the next page only, so entries above the released range were handed out before it."""
    made = Kept()
    made.fold.topic()
    pid = made.fold.producer()
    made.fold.done(chunk(count=5))
    made.fold.done(Reserve(pid=pid, epoch=0, timeout_ms=9), chunk(count=3, pid=pid, epoch=0))
    made.fold.done(chunk(count=2))
    made.seal()
    made.fold.done(chunk(count=10))
    made.seal()
    made.fold.done(EndReserve(pid=pid, epoch=0, commit=True))
    assert [0, 5, 8, 10] == [entry.base for entry in simulate(looked_up(made, 0, 0))]
    assert [5, 8, 10] == [entry.base for entry in simulate(looked_up(made, 0, 6))]


def test_there_are_few_pages_however_long_the_log_is() -> None:
    fold = Fold()
    fold.topic()
    for number in range(1, 1_025):
        fold.done(chunk())
        fold.state.pages.append(PageRef(number, number, 0, 1))
        fold.state.topics[1].partitions[0].tail.clear()
        while due := index.plan_merge(fold.state.pages):
            merged = PageRef(due[0].first, due[-1].last, due[0].level + 1, sum(page.entries for page in due))
            fold.state.pages[-len(due) :] = [merged]
        levels = [page.level for page in fold.state.pages]
        assert levels == sorted(levels, reverse=True)
        assert all(levels.count(level) < INDEX_FANOUT for level in levels)
    assert [3, 3] == [page.level for page in fold.state.pages]


def test_a_page_too_large_is_merged_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_PAGE_ENTRIES_MAX", 8)
    small = [PageRef(i, i, 0, 1) for i in range(INDEX_FANOUT)]
    assert small == index.plan_merge(small)
    assert [] == index.plan_merge([*small[:-1], PageRef(9, 9, 0, 2)])
    assert [] == index.plan_merge(small[1:])
    assert [] == index.plan_merge([PageRef(0, 0, 1, 1), *small[1:]])


def test_the_same_range_sealed_by_two_processes_gives_the_same_bytes() -> None:
    bodies = []
    for order in ((0, 1, 2), (2, 1, 0)):
        fold = Fold()
        fold.topic(partitions=3)
        pid = fold.producer()
        fold.done(Reserve(pid=pid, epoch=0, timeout_ms=9), chunk(pid=pid, epoch=0))
        fold.done(*(chunk(partition=p, count=p + 1) for p in (0, 1, 2)))
        fold.done(EndReserve(pid=pid, epoch=0, commit=True))
        topic = fold.state.topics[1]
        for partition in order:  # the order in which a process came to hold them must not show
            topic.partitions[partition].tail.reverse()
        sealed = index.seal(fold.state)
        assert sealed is not None
        bodies.append(sealed[1])
    assert bodies[0] == bodies[1]


def test_sealing_moves_everything_once_and_coverage_advances_without_entries() -> None:
    fold = Fold()
    fold.topic()
    assert (None, 1) == (index.seal(fold.state), fold.state.paged)
    fold.done(chunk())
    sealed = index.seal(fold.state)
    assert sealed is not None
    assert PageRef(2, 2, 0, 1) == sealed[0]
    assert (2, 0, []) == (fold.state.paged, fold.state.tail_entries, fold.state.topics[1].partitions[0].tail)
    assert (None, 2, 1) == (index.seal(fold.state), fold.state.paged, len(fold.state.pages))


def test_a_deleted_topic_is_not_sealed() -> None:
    fold = Fold()
    fold.topic()
    fold.done(chunk())
    fold.done(DeleteTopic(topic=1))
    assert None is index.seal(fold.state)


def test_adopting_pages_drops_what_they_cover_and_nothing_else() -> None:
    fold, other = Fold(), Fold()
    for one in (fold, other):
        one.topic()
        one.done(chunk(count=2))
        one.done(chunk(count=3))
    sealed = index.seal(other.state)
    assert sealed is not None
    fold.done(chunk(count=4))
    index.adopt(fold.state, other.state.pages, other.state.paged)
    assert ([5], 1, 3) == ([e.base for e in fold.state.topics[1].partitions[0].tail], 1, fold.state.paged)
    assert (1, other.state.pages) == (fold.state.tail_entries, fold.state.pages)
    before = msgspec.json.encode(fold.state)
    index.adopt(fold.state, list(fold.state.pages), 3)  # no news
    index.adopt(fold.state, [PageRef(1, 3, 0, 1, pruned=fold.state.seq + 1)], 3)  # pruned by a later state
    index.adopt(fold.state, [], 2)  # older
    index.adopt(fold.state, [], fold.state.seq + 1)  # beyond what was folded
    assert before == msgspec.json.encode(fold.state)


def test_from_offset_is_the_part_of_a_tail_that_ends_above_it() -> None:
    tail = [Entry(base, 2, "arrow", 1, "", 0, 1, 0, 0, 0) for base in (0, 2, 6, 8)]
    for offset in range(12):
        assert [e for e in tail if e.end > offset] == index.from_offset(tail, offset)
    assert [] == index.from_offset([], 0)


# -- lookup ------------------------------------------------------------------------------------------------


def test_a_reader_near_the_end_opens_no_page() -> None:
    made = Kept()
    made.fold.topic()
    made.fold.done(chunk(count=5))
    made.seal()
    made.fold.done(chunk(count=2))

    async def main() -> None:
        parts = Parts(memory())  # no page is stored, so opening one would be NotFound
        parts.chain.state = made.state
        assert [5] == [e.base async for e in parts.lookup.entries(1, 0, 5)]
        assert [5] == [e.base async for e in parts.lookup.entries(1, 0, 6)]
        with pytest.raises(NotFound):
            assert [] == [e async for e in parts.lookup.entries(1, 0, 4)]
        assert [] == [e async for e in parts.lookup.entries(9, 0, 0)]
        assert [] == [e async for e in parts.lookup.entries(1, 7, 0)]

    simulate(main())


def test_a_directory_longer_than_the_first_guess_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "HEAD_BYTES_GUESS", 128)
    made = kept(random.Random(3), 80, 0.2)
    made.seal()
    assert made.flat(0) == simulate(looked_up(made, 0, 0))


def test_directories_and_runs_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "DIRECTORIES_MAX", 2)
    monkeypatch.setattr(lookup, "RUN_ENTRIES_MAX", 5)
    made = kept(random.Random(4), 100, 0.9)

    async def main() -> None:
        parts = Parts(memory())
        parts.chain.state = made.state
        for ref, body in made.pages.items():
            await parts.chain.store.put(keys.index_key(ref.first, ref.last), body)
        for _ in range(3):
            assert made.flat(0) == [e async for e in parts.lookup.entries(1, 0, 0)]
            assert len(parts.lookup._directories) <= 2
            held = sum(len(run) for run in parts.lookup._runs.values())
            assert held == parts.lookup._run_entries
            assert held <= 5 or 1 == len(parts.lookup._runs)

    simulate(main())


def test_two_tasks_that_load_one_run_count_it_once() -> None:
    """The count of entries in memory only ever grew, until the cache held a single run."""
    made = Kept()
    made.fold.topic()
    made.fold.done(chunk())
    made.seal()

    async def main() -> None:
        parts = Parts(network(profile=FIXED))
        parts.chain.state = made.state
        for ref, body in made.pages.items():
            await parts.chain.store.put(keys.index_key(ref.first, ref.last), body)

        async def read() -> list[Entry]:
            return [e async for e in parts.lookup.entries(1, 0, 0)]

        await asyncio.gather(*(read() for _ in range(4)))
        assert 1 == parts.lookup._run_entries

    simulate(main())


def test_a_page_that_another_build_of_zlib_has_stored_is_read_by_its_own_directory() -> None:
    """The sealer remembers where runs lie in its own bytes; the stored page may have been packed differently."""
    made = Kept()
    made.fold.topic()
    for _ in range(50):
        made.fold.done(chunk())
    entries = list(made.part(0).tail)
    sealed = index.seal(made.state)
    assert sealed is not None
    ref, body = sealed

    def compress(data: bytes, level: int) -> bytes:
        packer = zlib.compressobj(0)
        return packer.compress(data) + packer.flush()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.zlib, "compress", compress)
        theirs = index.encode(ref, {(1, 0): entries})
    assert theirs != body

    async def main() -> None:
        parts = Parts(memory())
        parts.chain.state = made.state
        key = keys.index_key(ref.first, ref.last)
        parts.house._unstored[key] = body
        await parts.chain.store.put(key, theirs)
        runs = await parts.lookup._runs_above(1, 0, 0, made.part(0), [], made.state)
        parts.house._unstored.clear()  # the snapshot is done: from now on the store's page is read
        assert entries == [e for found, run in runs for e in await parts.lookup._load_run(found, run, made.state)]
        assert entries == [entry async for entry in parts.lookup.entries(1, 0, 0)]

    simulate(main())
