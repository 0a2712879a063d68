"""The bell: a writer that publishes now and then beside a busy one is heard at once."""

from __future__ import annotations

import random

import pytest

from headwater.bench.contention import measure_gateways
from headwater.log import bell, keys
from headwater.log.intents import FORMAT, encode_hint
from headwater.log.operations import CreateTopic
from headwater.log.published import RUNG_MAX
from headwater.log.turns import BUSY_MANIFESTS, LISTENED_S, LONE_S, Look, Seen, Turns
from headwater.sim.loop import sim_loop
from tests.log.helpers_store import forbidden, ok
from tests.log.test_following import Pair, with_pair

KEY = keys.segment_key(1, "second", 1)


@pytest.mark.parametrize("seed", range(3))
def test_who_writes_now_and_then_and_is_behind_publishes_before_it_has_caught_up(seed: int) -> None:
    """It read all that had come first, and was heard of after that: 0.92 s at the median, 1.6 at worst."""
    found = measure_gateways(1, "s3-standard", requests_per_s=100.0, seconds=280.0, seed=seed, pause_s=7.0)
    waits = sorted(found.sporadic_ms)
    assert 30 <= len(waits)
    assert waits[len(waits) // 2] < 700
    assert waits[-1] < 1_500


@pytest.mark.parametrize("seed", range(3))
def test_who_writes_now_and_then_beside_a_busy_gateway_waits_for_a_few_round_trips(seed: int) -> None:
    """It waited for the leader's next LIST, at its 32nd manifest, or for a turn, which it lost: 0.9 s at the median and
    2.5 s at worst. Each commit of a group at a gateway without producers did so."""
    found = measure_gateways(1, "s3-standard", requests_per_s=100.0, seconds=280.0, seed=seed, pause_s=7.0, hears=True)
    waits = sorted(found.sporadic_ms)
    assert 30 <= len(waits)
    assert waits[len(waits) // 2] < 500
    assert waits[-1] < 1_300


def test_who_is_alone_and_busy_listens_and_nobody_else_does() -> None:
    turns, now_s = Turns("me", random.Random(1)), 0.0
    while now_s < LONE_S:  # a short burst is over before anybody could wait for it
        assert not turns.look(now_s, 0)
        turns.saw_manifest(Seen(writer="me"), now_s)
        now_s += 0.1
    assert Look.BELL is turns.look(now_s, 0)
    turns.listened(now_s)
    assert not turns.look(now_s + LISTENED_S / 2, 0)
    assert Look.BELL is turns.look(now_s + LISTENED_S, 0)
    assert not turns.look(now_s + 10, 0), "others could have had their turns since"
    turns.saw_pending(1, now_s)
    for _ in range(BUSY_MANIFESTS):
        turns.saw_manifest(Seen(writer="me"), now_s)
    assert Look.LIST is turns.look(now_s + LISTENED_S, 0), "in company it lists"


def test_a_ring_has_the_leader_list_and_name_what_was_published() -> None:
    async def main(pair: Pair) -> None:
        others = pair.leader.committer.published
        (waiting,) = await pair.sent(1)
        ((key, _),) = await pair.segments()
        assert key == await bell.heard(pair.leader.chain)
        assert [] == others.mergeable()
        pair.wires.calls.clear()
        for _ in range(3):
            await others._listen()
            assert [key] == [each for each, _ in others.mergeable()]
        assert {"get": 3, "list": 1} == dict(pair.wires.calls)
        await pair.name(*others.mergeable())
        assert (0,) == tuple((await waiting).bases)

    with_pair(main)


def test_a_follower_whose_leader_names_others_too_does_not_ring() -> None:
    async def main(pair: Pair) -> None:
        pair.follower.committer.turns.saw_manifest(
            Seen(writer="first", shares={"first": 1, "other": 1}), sim_loop().time()
        )
        await pair.sent(1)
        assert "" == await bell.heard(pair.leader.chain)

    with_pair(main)


def test_a_bell_that_cannot_be_rung_holds_up_nobody() -> None:
    async def main(pair: Pair) -> None:
        pair.store.will("put", ok, forbidden)
        await pair.sent(1)
        assert 1 == len(await pair.segments())
        assert "" == await bell.heard(pair.leader.chain)

    with_pair(main)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        encode_hint(bell.Ring(FORMAT + 1, "bell", KEY)),
        encode_hint(bell.Ring(FORMAT, "bell", "segment/nonsense")),
        encode_hint(bell.Ring(FORMAT, "bell", "")),
    ],
)
def test_what_is_no_bell_is_not_heard(data: bytes) -> None:
    async def main(pair: Pair) -> None:
        await pair.wires.put(keys.BELL, data)
        assert "" == await bell.heard(pair.leader.chain)

    with_pair(main)


def test_a_ring_for_what_never_comes_is_soon_ignored() -> None:
    async def main(pair: Pair) -> None:
        await bell.ring(pair.follower.chain, keys.segment_key(pair.leader.chain.state.seq, "second", 7))
        pair.wires.calls.clear()
        for _ in range(3 * RUNG_MAX):
            await pair.leader.committer.published._listen()
        assert {"get": 3 * RUNG_MAX, "list": RUNG_MAX} == dict(pair.wires.calls)

    with_pair(main)


def test_an_old_ring_is_ignored() -> None:
    async def main(pair: Pair) -> None:
        await bell.ring(pair.follower.chain, keys.segment_key(0, "second", 7))
        others = pair.leader.committer.published
        for number in range(others.lookback() // 2 + 1):
            await pair.leader.writer.commit(ops=[CreateTopic(name=f"t{number}", partitions=1)])
        await sim_loop().sleep(1.0)  # a snapshot is on its way
        pair.wires.calls.clear()
        await others._listen()
        assert {"get": 1} == dict(pair.wires.calls)

    with_pair(main)
