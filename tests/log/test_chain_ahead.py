"""Catching up at the pace of the log: how many manifests to ask for at once."""

from __future__ import annotations

import random

import pytest

from headwater.limits import CATCH_UP_PARALLEL_MAX
from headwater.log.operations import CreateTopic
from headwater.log.turns import BUSY_MANIFESTS, BUSY_S, Seen, Turns
from headwater.sim.faults import SimBucket
from headwater.sim.latency import Profile
from headwater.sim.loop import sim_loop
from tests.log.helpers import FIXED, Parts, network, simulate
from tests.log.helpers_store import Scripted

SLOW = Profile("slow gets", put=(100, 100), get=(3_000, 3_000), list=(80, 80))
GET_S = FIXED.get[0] / 1_000


@pytest.mark.parametrize(
    ("pause_s", "count", "rest_s", "rounds", "gets"),
    [
        (0.1, 40, 0.0, 4, 42 + CATCH_UP_PARALLEL_MAX),  # 7 where each round was twice the last one
        (2.0, 4, 0.0, 3, 10),  # 7 before: it is asked for twice as many in the end, wherever that is
        (0.1, 3, 60.0, 2, 1 + CATCH_UP_PARALLEL_MAX),  # it has stopped since, which nobody can know
    ],
)
def test_who_is_behind_a_busy_log_asks_for_what_has_probably_come_since(
    pause_s: float, count: int, rest_s: float, rounds: int, gets: int
) -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        writing = Parts(network(bucket, seed=1), writer="first", seed=1)
        store = Scripted(network(bucket, profile=FIXED, seed=2))
        late = Parts(store, writer="second", seed=2)
        await writing.chain.refresh()
        for number in range(count + 1):
            await writing.writer.commit(ops=[CreateTopic(name=f"t{number}", partitions=1)])
            if not number:
                await late.chain.refresh()
            await sim_loop().sleep(pause_s)
        await sim_loop().sleep(rest_s)
        store.calls.clear()
        start_s = sim_loop().time()
        await late.chain.refresh()
        assert writing.chain.state.seq == late.chain.state.seq
        assert rounds * GET_S == pytest.approx(sim_loop().time() - start_s)
        assert gets >= store.calls["get"]

    simulate(main())


def test_who_looks_first_writes_then_however_long_the_look_took() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        first = Parts(network(bucket, seed=1), writer="first", seed=1)
        second = Parts(network(bucket, profile=SLOW, seed=2), writer="second", seed=2)
        for each in (first, second, first):
            await each.chain.refresh()
            await each.writer.commit(ops=[CreateTopic(name=f"t{each.chain.state.seq}", partitions=1)])
        await second.chain.refresh()
        await sim_loop().sleep(2 * BUSY_S)
        start_s = sim_loop().time()
        await second.writer.commit(ops=[CreateTopic(name="late", partitions=1)])
        assert (SLOW.get[0] + SLOW.put[0]) / 1_000 == pytest.approx(sim_loop().time() - start_s)

    simulate(main())


def test_who_wrote_before_another_did_looks_before_it_writes_again_a_while_later() -> None:
    """It sent its manifest to a slot that was taken long since, and lost as long as a PUT takes."""
    turns = Turns("me", random.Random(1))
    assert not turns.looks_first(BUSY_S + 1), "nobody else was ever seen"
    turns.saw_manifest(Seen(writer="other"), 0.0)
    assert turns.looks_first(BUSY_S + 1)
    assert not turns.looks_first(BUSY_S / 2)
    turns.saw_manifest(Seen(writer="me"), 0.0)
    assert not turns.looks_first(BUSY_S + 1), "who leads pays for its PUT alone"


def test_who_came_in_between_a_busy_writers_manifests_looks_first_though_its_own_is_the_last_it_knows() -> None:
    """It believed that it led, and sent its manifest to a slot that was taken long since."""
    turns = Turns("me", random.Random(1))
    for number in range(BUSY_MANIFESTS):
        turns.saw_manifest(Seen(writer="other"), 0.1 * number)
    turns.saw_manifest(Seen(writer="me"), 0.1 * BUSY_MANIFESTS)
    assert turns.looks_first(BUSY_S + 1)
    turns.saw_manifest(Seen(writer="me"), 2 * BUSY_S)
    assert not turns.looks_first(BUSY_S + 1), "nobody came in between since"


def test_others_outrun_who_would_find_them_busy_at_the_tip() -> None:
    turns = Turns("me", random.Random(1))
    assert not turns.is_outrun(0, 2.0)
    assert not turns.is_outrun(2 * BUSY_MANIFESTS - 1, 2.0 * BUSY_S)
    assert turns.is_outrun(2 * BUSY_MANIFESTS, 2.0 * BUSY_S)
    assert not Turns("me", random.Random(1), cooperative=False).is_outrun(1_000, 2.0)
