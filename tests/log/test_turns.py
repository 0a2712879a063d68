"""Whose turn it is: what is drawn, and from what."""

from __future__ import annotations

import asyncio
import random

import pytest

from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.turns import RECENT, UNAWARE, Durations, Seen, Turns
from headwater.log.writer import Append
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import S3_STANDARD, ZERO
from headwater.sim.loop import SimClock, sim_loop
from tests.log.helpers import blob, simulate

REST_S = 2.2 * Durations().put + Durations().get  # that a chain may have without anybody's stepping forward


@pytest.mark.parametrize("intents", [1, 40, 1_000])
def test_how_long_a_follower_waits_goes_by_how_many_write_and_not_by_how_much(intents: int) -> None:
    for seed in range(200):
        turns = Turns("me", random.Random(seed))
        for _ in range(RECENT):
            turns.saw_manifest(Seen(writer="other", writers=2, intents=intents, others=intents), 10.0)
        turns.published(10.0)
        assert not turns.my_turn(0, 10.0 + REST_S)
        assert turns.my_turn(0, 10.0 + REST_S + 0.6 * 2 * (Durations().put + Durations().list))


@pytest.mark.parametrize("intents", [1, 40])
def test_a_writer_whose_manifests_carry_nobody_elses_intents_does_not_know_that_others_wait(intents: int) -> None:
    turns = Turns("me", random.Random(1))
    alone = Seen(writer="other", intents=intents, others=intents)
    turns.saw_manifest(Seen(writer="other", writers=2, intents=intents, others=intents), 0.0)
    for _ in range(RECENT - 1):
        turns.saw_manifest(alone, 0.0)
        assert not turns.unaware()
        assert not turns.passed_over(UNAWARE)
    turns.saw_manifest(alone, 0.0)
    assert turns.unaware()
    assert turns.passed_over(UNAWARE)


@pytest.mark.parametrize("seed", range(3))
def test_two_gateways_with_many_clients_wait_for_each_other_no_longer_than_a_few_round_trips(seed: int) -> None:
    """A follower drew its turn from a time that grew with the requests of the leader's clients: it waited for 6 s and
    more, and 12 s at 1,000 requests a second, for a leader whose clients had gone. When they meet, the leader looks
    around after 32 manifests, 2.2 s, at the latest."""

    async def main() -> None:
        loop = sim_loop()
        bucket, rng = SimBucket(loop), random.Random(seed)
        first = await Namespace.open(SimStore(bucket, loop=loop, rng=rng, profile=ZERO), clock=SimClock(loop), rng=rng)
        topic = await first.create_topic("t", 1)
        waits_s: list[float] = []

        async def gateway(number: int) -> None:
            own = random.Random(f"{seed}-{number}")
            store = SimStore(bucket, loop=loop, rng=own, profile=S3_STANDARD)
            log = await Namespace.open(store, clock=SimClock(loop), rng=own, options=Options(linger_ms=25.0))
            for sent in range(2_000):
                began_s = loop.time()
                begun = log.writer.begin([Append(topic=topic.id, partition=0, batch=blob())], caller=sent % 10)
                assert begun is not None
                begun.add_done_callback(lambda _, began_s=began_s: waits_s.append(loop.time() - began_s))
                await asyncio.sleep(0.002)
            await log.close()

        await asyncio.gather(gateway(1), gateway(2))
        assert 4_000 == len(waits_s)
        assert max(waits_s) < 3.5

    simulate(main())
