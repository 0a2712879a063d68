"""Who is far behind a busy writer publishes first and catches up beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from headwater.errors import Indeterminate
from headwater.log import bell, keys
from headwater.log.operations import CreateTopic
from headwater.log.options import Options
from headwater.sim.loop import sim_loop
from tests.log.helpers import FIXED
from tests.log.helpers_store import Gate, away, ok
from tests.log.test_following import Pair, with_pair

PUT_S, GET_S = FIXED.put[0] / 1_000, FIXED.get[0] / 1_000
COUNT = 40  # manifests, of which the follower sees the first


def with_late(main: Callable[[Pair], Coroutine[None, None, None]], options: Options | None = None) -> None:
    async def start(pair: Pair) -> None:
        for number in range(COUNT):
            await pair.leader.writer.commit(ops=[CreateTopic(name=f"t{number}", partitions=1)])
            if not number:
                await pair.follower.chain.refresh()  # it has seen that another writes
        pair.store.calls.clear()
        await main(pair)

    with_pair(start, options)


def test_who_is_far_behind_publishes_and_rings_before_it_has_caught_up() -> None:
    async def main(pair: Pair) -> None:
        chain, tip = pair.follower.chain, pair.leader.chain.state.seq
        waiting = pair.later(7)
        await sim_loop().sleep(GET_S + PUT_S + 0.01)  # one manifest is read, and tells that there are more
        ((key, intents),) = await pair.segments()
        assert chain.state.seq < tip
        assert key == await bell.heard(pair.leader.chain)
        await pair.name((key, intents))
        assert (0,) == tuple((await waiting).bases)
        await pair.follower.writer.drain()
        assert tip + 1 == chain.state.seq
        assert [7] == await pair.log()

    with_late(main)


def test_what_is_caught_up_with_does_not_count_as_passing_over() -> None:
    missed = []

    def my_turn(count: int, now: float) -> bool:
        missed.append(count)
        return False

    async def main(pair: Pair) -> None:
        pair.follower.committer.turns.my_turn = my_turn  # type: ignore[method-assign]
        waiting = pair.later(7)
        await sim_loop().sleep(1.0)
        assert missed
        assert {0} == set(missed)
        await pair.name(*await pair.segments())
        await waiting

    with_late(main)


def test_who_is_a_little_behind_catches_up_first() -> None:
    async def main(pair: Pair) -> None:
        del pair.follower.committer.turns.direct  # type: ignore[method-assign]
        await pair.follower.chain.refresh()
        await pair.leader.writer.commit(ops=[CreateTopic(name="one-more", partitions=1)])
        await sim_loop().sleep(5.0)
        waiting = pair.later(7)
        await sim_loop().sleep(2 * GET_S + 0.01)
        assert pair.leader.chain.state.seq == pair.follower.chain.state.seq
        await waiting
        assert pair.follower.committer.turns.leads
        assert [] == await pair.segments()

    with_late(main)


def test_a_segment_whose_tip_would_be_out_of_sight_is_published_after_catching_up() -> None:
    async def main(pair: Pair) -> None:
        # Many write, so that a LIST looks back for 8 manifests.
        pair.follower.committer.published._per_manifest.extend([10**6] * 8)
        waiting = pair.later(7)
        await sim_loop().sleep(1.0)
        ((key, intents),) = await pair.segments()
        assert pair.leader.chain.state.seq == keys.parse_segment_key(key).tip
        await pair.name((key, intents))
        await waiting

    with_late(main)


def test_callers_hear_of_it_when_the_rest_of_the_chain_cannot_be_read() -> None:
    async def main(pair: Pair) -> None:
        pair.store.will("get", ok)
        pair.store.always["get"] = away
        with pytest.raises(Indeterminate, match="fate could not be learnt"):
            await pair.later(7)
        del pair.store.always["get"]
        await pair.follower.writer.drain()
        assert 0 == pair.store._requests
        await pair.name(*await pair.segments())
        assert [7] == await pair.log()  # what nobody could tell has come to pass

    with_late(main, Options(store_retry_s=2.0))


def test_who_is_broken_off_while_it_catches_up_leaves_nothing_on_its_way() -> None:
    async def main(pair: Pair) -> None:
        gate = Gate()
        pair.store.will("get", ok)
        pair.store.always["get"] = gate
        waiting = pair.later(7)
        await sim_loop().sleep(1.0)
        assert gate.waiting
        task = pair.follower.committer._task
        assert task is not None
        task.cancel()
        with pytest.raises(Indeterminate, match="stopping"):
            await waiting
        await asyncio.wait([task])
        assert 0 == pair.store._requests

    with_late(main)
