"""Ranges of one object that are wanted at the same time: one request, and nobody waits for one that was broken off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import NotFound, Unavailable
from headwater.limits import KIB, MIB
from headwater.log.operations import CreateTopic
from headwater.log.ranges import ALONE_BYTES_MIN, GAP_BYTES_MAX, MERGED_BYTES_MAX, Ranges, merged
from headwater.log.writer import Append
from headwater.sim.loop import SimClock, sim_loop
from tests.log.helpers import Parts, blob, memory, simulate
from tests.log.helpers_store import Gate, Scripted, away, slow

DATA = random.Random(1).randbytes(2 * MIB)


class Desk:
    """A store with one object, and its ranges through so many slots."""

    def __init__(self, slots: int = 16) -> None:
        self.store = Scripted(memory())
        self.ranges = Ranges(self._read, asyncio.Semaphore(slots), SimClock(sim_loop()))
        self.asked: list[tuple[int, int]] = []

    async def _read(self, key: str, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return (await self.store.get(key, start=start, end=end)).data

    async def read(self, start: int, size: int, key: str = "o") -> bool:
        """Whether it is what lies there."""
        return await self.ranges.read(key, start, start + size) == DATA[start : start + size]


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]], slots: int = 16) -> None:
    async def start() -> None:
        desk = Desk(slots)
        await desk.store.put("o", DATA)
        await main(desk)

    simulate(start())


@given(st.lists(st.tuples(st.integers(0, 3 * MERGED_BYTES_MAX), st.integers(1, ALONE_BYTES_MIN)), min_size=1))
def test_every_range_lies_in_one_piece_and_no_piece_is_large_or_reads_much_that_nobody_wants(
    wanted: list[tuple[int, int]],
) -> None:
    ranges = [(start, start + size) for start, size in wanted]
    pieces = merged(ranges)
    assert pieces == sorted(pieces)
    for start, end in ranges:
        first, last = [piece for piece in pieces if piece[0] <= start][-1]
        assert first <= start < end <= last
    for first, last in pieces:
        assert last - first <= MERGED_BYTES_MAX
        inside = sorted((start, end) for start, end in ranges if first <= start and end <= last)
        reached = first
        for start, end in inside:
            assert start - reached <= GAP_BYTES_MAX
            reached = max(reached, end)
        assert reached == last


def test_a_hundred_ranges_of_one_turn_are_one_request() -> None:
    async def main(desk: Desk) -> None:
        assert all(await asyncio.gather(*(desk.read(number * 2_000, 1_500) for number in range(100))))
        assert [(0, 99 * 2_000 + 1_500)] == desk.asked

    at_a_desk(main)


def test_those_that_wait_for_a_slot_share_it_and_large_ranges_go_alone() -> None:
    async def main(desk: Desk) -> None:
        gate = Gate()
        desk.store.will("get", gate)
        large = asyncio.ensure_future(desk.read(0, ALONE_BYTES_MIN))
        await asyncio.sleep(0.001)
        small = []
        for number in range(10):
            small.append(asyncio.ensure_future(desk.read(number * KIB, KIB)))
            await asyncio.sleep(0.001)
        gate.opened.set()
        assert all(await asyncio.gather(large, *small))
        assert [(0, ALONE_BYTES_MIN), (0, 10 * KIB)] == desk.asked

    at_a_desk(main, slots=1)


def test_what_lies_far_apart_is_asked_for_side_by_side() -> None:
    async def main(desk: Desk) -> None:
        assert all(await asyncio.gather(desk.read(0, 10), desk.read(1 * MIB, 10), desk.read(20, 10)))
        assert [(0, 30), (1 * MIB, 1 * MIB + 10)] == desk.asked

    at_a_desk(main)


def test_if_the_first_is_cancelled_the_others_ask_themselves() -> None:
    async def main(desk: Desk) -> None:
        gate = Gate()
        desk.store.will("get", gate)
        first, *others = [asyncio.ensure_future(desk.read(number * KIB, KIB)) for number in range(5)]
        await asyncio.sleep(0.001)
        assert 1 == gate.waiting
        first.cancel()
        assert all(await asyncio.gather(*others))
        assert [(0, 5 * KIB), (KIB, 5 * KIB)] == desk.asked

    at_a_desk(main)


def test_a_failure_is_told_to_all_who_shared_it_and_to_nobody_else() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("get", away)
        for found in await asyncio.gather(*(desk.read(0, 10) for _ in range(5)), return_exceptions=True):
            assert isinstance(found, Unavailable)
        assert await desk.read(0, 10)
        with pytest.raises(NotFound):
            await desk.read(0, 10, key="none")

    at_a_desk(main)


def test_a_reader_of_many_partitions_reads_a_segment_of_another_process_by_one_request() -> None:
    """It was one for each partition, sixteen at once: 100 partitions at two busy gateways were seconds behind."""

    async def main() -> None:
        store = Scripted(memory())
        writing, reading = Parts(store), Parts(store, writer="w2", seed=2)
        await writing.chain.refresh()
        await writing.writer.commit(ops=[CreateTopic(name="t", partitions=100)])
        size = 20 * KIB  # in all more than a manifest carries
        await writing.writer.commit([Append(topic=1, partition=p, batch=blob(size=size)) for p in range(100)])
        await reading.chain.refresh()
        store.always["get"] = slow(sim_loop(), 0.03)
        store.calls.clear()
        fetched = await asyncio.gather(*(reading.reader.fetch("t", p, 0, fresh=False) for p in range(100)))
        assert [size] * 100 == [len(each.chunks[0].data) for each in fetched]
        assert {"get": 1} == dict(store.calls)

    simulate(main())
