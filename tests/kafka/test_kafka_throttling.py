"""Quotas as Kafka's clients know them (KIP-219): told for how long to be silent, and held back only if they are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kio.schema.errors import ErrorCode

from headwater.kafka.model import Fields, Peer, Request
from headwater.limits import KAFKA_HELD_BACK_S
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_peer import handled, peer, whole
from tests.kafka.test_kafka_fetch import asked, found
from tests.kafka.test_kafka_produce import batch, codes, wanted
from tests.log.helpers import memory, opened, simulate

PRODUCE, FETCH = 0, 1
BATCH_BYTES = len(batch(-1, -1))


async def reader_and_writer(**quota: int) -> tuple[Peer, Any]:
    namespace = await opened(memory())
    await namespace.create_topic("orders", partitions=1)
    owner = peer(namespace)
    await owner.service.set_quota("ann", **quota)
    return peer(namespace, "ann", gateway=owner.gateway), namespace.topic("orders").partitions[0]


async def produced(known: Peer, acks: int = -1) -> Fields | None:
    request = wanted({0: batch(-1, -1)})
    request.fields["acks"] = acks
    return await whole(await handled(known, request))


async def fetched(known: Peer, offset: int = 0) -> Fields:
    request = Request(api=FETCH, version=12, correlation=1, client="test", fields=asked({0: offset}))
    answer = await whole(await handled(known, request))
    assert answer is not None
    return answer


def test_a_producer_over_its_quota_is_told_so_at_once_and_loses_no_time_if_it_is_silent() -> None:
    """It was held back for as long as it took to pay: more than a minute, and clients sent the same batch again."""

    async def main() -> None:
        known, place = await reader_and_writer(produce_bytes_per_s=BATCH_BYTES // 4)
        start_s = sim_loop().time()
        for number in range(5):
            answer = await produced(known)
            assert answer is not None
            assert [(0, ErrorCode.none, number)] == codes(answer)
            assert start_s == sim_loop().time()
            assert 2_900 < answer["throttle_time"] <= 4_200
            await sim_loop().sleep(answer["throttle_time"] / 1_000)
            start_s = sim_loop().time()
        assert 5 == place.next

    simulate(main())


def test_a_producer_that_is_not_silent_is_held_back_and_refused_before_it_gives_up() -> None:
    async def main() -> None:
        known, place = await reader_and_writer(produce_bytes_per_s=BATCH_BYTES // 4)
        await produced(known)
        start_s = sim_loop().time()
        assert [(0, ErrorCode.none, 1)] == codes(await produced(known))
        assert 2.9 < sim_loop().time() - start_s < 4.2
        for _ in range(4):
            known.service.charge("produce", BATCH_BYTES)
        start_s = sim_loop().time()
        answer = await produced(known)
        assert answer is not None
        assert [(0, ErrorCode.not_enough_replicas, -1)] == codes(answer)
        assert "Nothing was appended" in answer["responses"][0]["partition_responses"][0]["error_message"]
        assert KAFKA_HELD_BACK_S == pytest.approx(sim_loop().time() - start_s)
        assert answer["throttle_time"] > 0
        assert 2 == place.next
        assert await produced(known, acks=0) is None
        await sim_loop().sleep(30.0)
        assert 3 == place.next, "who wants no answer is never refused"

    simulate(main())


def test_requests_that_wait_for_one_another_are_refused_before_the_last_of_them_gives_up() -> None:
    """Each was held back for ten seconds, one behind the other: the seventh was older than a minute, and sent again."""

    async def main() -> None:
        known, _ = await reader_and_writer(produce_bytes_per_s=BATCH_BYTES // 4)
        known.service.charge("produce", 100 * BATCH_BYTES)
        start_s = sim_loop().time()
        for _ in range(30):
            answer = await produced(known)
            assert answer is not None
            assert [(0, ErrorCode.not_enough_replicas, -1)] == codes(answer)
        assert sim_loop().time() - start_s < 20.0
        await sim_loop().sleep(500.0)
        assert [(0, ErrorCode.none, 0)] == codes(await produced(known))
        known.service.charge("produce", 100 * BATCH_BYTES)
        start_s = sim_loop().time()
        await produced(known)
        assert KAFKA_HELD_BACK_S == pytest.approx(sim_loop().time() - start_s), "it has paid meanwhile"

    simulate(main())


def test_what_is_held_back_is_not_appended_for_a_client_that_has_left() -> None:
    async def main() -> None:
        known, place = await reader_and_writer(produce_bytes_per_s=BATCH_BYTES // 4)
        await produced(known)
        waiting = asyncio.ensure_future(produced(known))
        await sim_loop().sleep(1.0)
        known.has_left = True
        answer = await waiting
        assert answer is not None
        assert [(0, ErrorCode.not_enough_replicas, -1)] == codes(answer)
        assert 1 == place.next

    simulate(main())


def test_a_reader_over_its_quota_gets_what_it_asked_for_and_then_nothing_until_it_is_paid() -> None:
    async def main() -> None:
        known, _ = await reader_and_writer(fetch_bytes_per_s=BATCH_BYTES // 40)
        await produced(known)
        start_s = sim_loop().time()
        answer = await fetched(known)
        assert {0: (ErrorCode.none, [0])} == found(answer)
        assert start_s == sim_loop().time()
        assert answer["throttle_time"] > 30_000
        again = asyncio.ensure_future(fetched(known))
        await sim_loop().sleep(KAFKA_HELD_BACK_S - 0.1)
        assert not again.done()
        answer = await again
        assert {0: (ErrorCode.none, [])} == found(answer)
        assert 1 == answer["responses"][0]["partitions"][0]["high_watermark"]
        assert answer["throttle_time"] > 20_000
        await sim_loop().sleep(answer["throttle_time"] / 1_000)
        start_s = sim_loop().time()
        assert {0: (ErrorCode.none, [0])} == found(await fetched(known))
        assert start_s == sim_loop().time()

    simulate(main())
