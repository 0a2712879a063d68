from __future__ import annotations

import asyncio

from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.small import batch_of
from headwater.meters import Distribution, Meters
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.types import Record
from tests.log.helpers import memory, simulate
from tests.log.helpers_store import Scripted, slow


def test_commits_produced_and_fetched_records_are_told_by_namespace_and_topic() -> None:
    meters = Meters()
    batch = batch_of([Record(value=b"a", timestamp=1), Record(value=b"b", timestamp=1)])

    async def work() -> None:
        async with await Namespace.open(MemoryStore(), "ns", options=Options(meters=meters)) as log:
            await log.create_topic("t")
            await log.append("t", 0, batch)
            await log.reader.fetch("t", 0, 0)
            await log.reader.fetch("t", 0, 2)

    asyncio.run(work())
    found = meters.snapshot()
    assert {("ns",): 2.0} == found["headwater_commits"].cells
    assert {("ns", "t"): 2.0} == found["headwater_produce_records"].cells
    assert {("ns", "t"): float(len(batch.data))} == found["headwater_produce_bytes"].cells
    assert {("ns", "t"): 2.0} == found["headwater_fetch_records"].cells
    assert {("ns", "t"): float(len(batch.data))} == found["headwater_fetch_bytes"].cells
    for name, count in (("commit_seconds", 2), ("produce_seconds", 1), ("fetch_seconds", 2), ("commit_intents", 2)):
        seen = found[f"headwater_{name}"].total(namespace="ns")
        assert isinstance(seen, Distribution)
        assert count == seen.count, name


def test_a_slot_that_another_had_filled_is_an_attempt_lost() -> None:
    mine, others = Meters(), Meters()

    async def work() -> None:
        store = MemoryStore()
        async with (
            await Namespace.open(store, "ns", options=Options(meters=mine)) as one,
            await Namespace.open(store, "ns", options=Options(meters=others)) as two,
        ):
            await one.create_topic("a")
            await two.create_topic("b")  # its state is behind by one manifest

    asyncio.run(work())
    assert 0.0 == mine.snapshot()["headwater_commit_attempts_lost"].total()
    assert {("ns",): 1.0} == others.snapshot()["headwater_commit_attempts_lost"].cells


def test_a_manifest_that_is_sent_twice_is_counted() -> None:
    mine = Meters()

    async def work() -> None:
        store = Scripted(memory())
        options = Options(meters=mine, hedge_ms=5.0)
        async with await Namespace.open(store, "ns", clock=SimClock(sim_loop()), options=options) as namespace:
            await namespace.create_topic("a")
            store.will("put_if_absent", slow(sim_loop(), 1.0))
            await namespace.create_topic("b")

    simulate(work())
    assert {("ns",): 1.0} == mine.snapshot()["headwater_commits_hedged"].cells
    assert {("ns",): 2.0} == mine.snapshot()["headwater_commits"].cells
