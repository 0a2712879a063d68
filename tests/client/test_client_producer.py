from __future__ import annotations

import asyncio
import random
from typing import Any

import pyarrow as pa
import pytest

from headwater.client import Producer, RecordMetadata
from headwater.client.gathering import Gathering, Item, Told
from headwater.errors import Fenced, Forbidden, Indeterminate, InvalidRequest, NotFound, Unavailable
from headwater.limits import PRODUCER_BATCHES
from headwater.log.batch import batch_of_records
from headwater.log.outcomes import UnknownProducer
from headwater.log.partitioner import partition_of
from headwater.sim.loop import sim_loop
from headwater.types import Record
from tests.client.helpers_client import Between, lose_the_answer, numbers, refuse, simulate, values, world


def test_a_record_is_acknowledged_with_its_place() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs) as producer:
            first = await producer.send_and_wait("t", b"a", timestamp_ms=1_000)
            second = await producer.send_and_wait("t", b"b", timestamp_ms=2_000)
            assert RecordMetadata("t", 0, 0, 1_000) == first
            assert RecordMetadata("t", 0, 1, 2_000) == second
            assert [b"a", b"b"] == await values(verbs, "t")

    simulate(main())


def test_records_gather_for_linger_ms_and_then_go_as_one_request() -> None:
    async def main() -> None:
        async with world(t=4) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, linger_ms=5) as producer:
                start = w.clock.elapsed_s()
                futures = [await producer.send("t", b"%d" % n, partition=n % 4) for n in range(100)]
                await asyncio.gather(*futures)
                assert 0.005 == pytest.approx(w.clock.elapsed_s() - start)
            assert 1 == between.count("produce")
            assert 4 == len(between.of("produce")[0][0][0])

    simulate(main())


def test_a_full_batch_does_not_linger() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs, linger_ms=60_000, batch_size=1_000) as producer:
            start = w.clock.elapsed_s()
            await asyncio.gather(*[await producer.send("t", bytes(1_000))])
            assert start == w.clock.elapsed_s()

    simulate(main())


def test_flush_does_not_linger_and_waits_for_all() -> None:
    async def main() -> None:
        async with world(t=3) as (w, verbs), w.producer(verbs, linger_ms=60_000) as producer:
            futures = [await producer.send("t", b"x", partition=n) for n in range(3)]
            start = w.clock.elapsed_s()
            await producer.flush()
            assert start == w.clock.elapsed_s()
            assert all(future.done() for future in futures)

    simulate(main())


def test_order_within_a_partition_holds_over_many_batches_and_lost_answers() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, batch_size=200, linger_ms=0) as producer:
                between.plan(
                    "produce",
                    lose_the_answer(Indeterminate("silence")),
                    refuse(Unavailable("away")),
                    lose_the_answer(Indeterminate("silence")),
                )
                for n in range(500):
                    await producer.send("t", b"%d" % n, partition=n % 2)
            assert [b"%d" % n for n in range(0, 500, 2)] == await values(verbs, "t", 0)
            assert [b"%d" % n for n in range(1, 500, 2)] == await values(verbs, "t", 1)

    simulate(main())


def test_after_a_lost_answer_the_same_sequence_and_token_are_sent_and_the_record_is_there_once() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("produce", lose_the_answer(Indeterminate("silence", token="")))
            async with w.producer(between) as producer:
                placed = await producer.send_and_wait("t", b"once")
            assert 0 == placed.offset
            assert [b"once"] == await values(verbs, "t")
            first, second = between.of("produce")
            assert first[0] == second[0]
            assert 0 == first[0][0][0][2].sequence

    simulate(main())


def test_a_token_goes_with_the_second_attempt() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("produce", refuse(Indeterminate("silence", token="abcdefgh@1")))
            async with w.producer(between, enable_idempotence=False) as producer:
                await producer.send_and_wait("t", b"once")
            assert ["", "abcdefgh@1"] == [kwargs["token"] for _, kwargs in between.of("produce")]
            assert [b"once"] == await values(verbs, "t")

    simulate(main())


def test_without_idempotence_and_token_the_unknown_is_told_and_not_sent_again() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("produce", lose_the_answer(Indeterminate("silence")))
            async with w.producer(between, enable_idempotence=False) as producer:
                with pytest.raises(Indeterminate):
                    await producer.send_and_wait("t", b"perhaps")
            assert 1 == between.count("produce")

    simulate(main())


def test_after_delivery_timeout_the_unknown_fails_and_a_new_epoch_keeps_it_out() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("produce", *[refuse(Indeterminate("silence"))] * 50)
            async with w.producer(between, delivery_timeout_ms=30_000) as producer:
                start = w.clock.elapsed_s()
                with pytest.raises(Indeterminate):
                    await producer.send_and_wait("t", b"lost")
                assert 30 >= w.clock.elapsed_s() - start
                between._plans.clear()
                placed = await producer.send_and_wait("t", b"next")
                late = between.of("produce")[0][0][0]
                with pytest.raises(Fenced):
                    await verbs.produce(late)
            assert 0 == placed.offset
            assert [b"next"] == await values(verbs, "t")
            assert 2 == between.count("init_producer")

    simulate(main())


def test_a_refused_partition_does_not_fail_the_others() -> None:
    async def main() -> None:
        async with world(good=1, bad=1) as (w, verbs), w.producer(verbs) as producer:
            await producer.partitions_for("bad")
            await verbs.delete_topic("bad")
            bad = await producer.send("bad", b"x")
            good = await producer.send("good", b"y")
            assert 0 == (await good).offset
            with pytest.raises(NotFound):
                await bad
            assert 1 == (await producer.send_and_wait("good", b"z")).offset

    simulate(main())


def test_a_refusal_uses_up_no_sequence() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between) as producer:
                await producer.send_and_wait("t", b"a")
                between.plan("produce", refuse(Forbidden("not you")))
                with pytest.raises(Forbidden):
                    await producer.send_and_wait("t", b"b")
                await producer.send_and_wait("t", b"c")
            assert [b"a", b"c"] == await values(verbs, "t")
            assert 1 == between.count("init_producer")

    simulate(main())


def test_a_topic_made_anew_is_written_under_a_new_epoch() -> None:
    async def main() -> None:
        async with world(t=1, u=1) as (w, verbs), w.producer(verbs) as producer:
            for _ in range(3):
                await producer.send_and_wait("t", b"old")
            await verbs.delete_topic("t")
            await verbs.create_topic("t", 1)
            assert 0 == (await producer.send_and_wait("t", b"new")).offset

    simulate(main())


def test_what_nobody_looked_at_is_raised_by_flush_once() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between) as producer:
                between.plan("produce", refuse(Forbidden("not you")))
                await producer.send("t", b"x")
                with pytest.raises(Forbidden):
                    await producer.flush()
                await producer.flush()

    simulate(main())


def test_an_error_at_the_end_of_the_block_is_not_lost() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("produce", refuse(Forbidden("not you")))
            with pytest.raises(Forbidden):
                async with w.producer(between) as producer:
                    await producer.send("t", b"x")

    simulate(main())


def test_send_waits_while_the_buffer_is_full() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)

            async def slow(real: Any, *args: Any, **kwargs: Any) -> Any:
                await w.clock.sleep(1)
                return await real(*args, **kwargs)

            between.plan("produce", *[slow] * 100)
            async with w.producer(between, buffer_memory=10_000, batch_size=1_000, linger_ms=0) as producer:
                start = w.clock.elapsed_s()
                for _ in range(100):
                    await producer.send("t", bytes(968))
                    assert 10_000 >= producer._buffered
                assert 8 < w.clock.elapsed_s() - start
            assert 100 == len(await values(verbs, "t"))

    simulate(main())


def test_keys_go_where_kafka_puts_them_and_keyless_records_stick_together() -> None:
    async def main() -> None:
        async with world(t=8) as (w, verbs), w.producer(verbs) as producer:
            for key in numbers(50):
                placed = await producer.send_and_wait("t", b"v", key)
                assert partition_of(key, 8) == placed.partition
            stuck = {(await producer.send_and_wait("t", b"v")).partition for _ in range(20)}
            assert 1 == len(stuck)

    simulate(main())


def test_a_partitioner_of_ones_own_is_asked_and_checked() -> None:
    async def main() -> None:
        async with world(t=4) as (w, verbs), w.producer(verbs, partitioner=lambda key, n: int(key or b"0")) as producer:
            assert 3 == (await producer.send_and_wait("t", b"v", b"3")).partition
            with pytest.raises(InvalidRequest):
                await producer.send("t", b"v", b"4")

    simulate(main())


def test_a_table_goes_as_a_few_batches_split_by_key() -> None:
    async def main() -> None:
        async with world(t=4) as (w, verbs):
            between = Between(verbs)
            table = pa.table({"key": [f"k{n % 100}" for n in range(10_000)], "value": [f"{n}" for n in range(10_000)]})
            async with w.producer(between) as producer:
                placed = await (await producer.send_batch("t", table))
            assert 10_000 == sum(each.count for each in placed)
            assert 1 == between.count("produce")
            for partition in range(4):
                held = await values(verbs, "t", partition)
                expected = [n for n in range(10_000) if partition_of(b"k%d" % (n % 100), 4) == partition]
                assert [b"%d" % n for n in expected] == held

    simulate(main())


def test_an_empty_table_is_nothing() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs) as producer:
            assert [] == await (await producer.send_batch("t", pa.table({"value": pa.array([], pa.binary())})))

    simulate(main())


def test_headers_keys_times_and_tombstones_come_through() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            async with w.producer(verbs, key_serializer="string", value_serializer="json") as producer:
                await producer.send("t", {"a": 1}, "k", timestamp_ms=5, headers={"h": "v", "n": None})
                await producer.send("t", None, "k", headers=[("h", b"1"), ("h", b"2")])
            async with w.consumer(verbs, "t", key_deserializer="string", value_deserializer="json") as consumer:
                first, second = await consumer.getone(), await consumer.getone()
            assert first is not None and second is not None
            assert ("k", {"a": 1}, 5, (("h", b"v"), ("n", None))) == (
                first.key,
                first.value,
                first.timestamp,
                first.headers,
            )
            assert (None, (("h", b"1"), ("h", b"2"))) == (second.value, second.headers)
            assert w.clock.wall_ms() >= second.timestamp >= w.clock.wall_ms() - 1_000

    simulate(main())


@pytest.mark.parametrize(
    ("options", "record"),
    [
        ({}, {"value": 5}),
        ({"value_serializer": "json"}, {"value": object()}),
        ({"value_serializer": "string"}, {"value": b"bytes"}),
        ({"value_serializer": lambda value: 5}, {"value": "x"}),
        ({}, {"value": bytes((8 << 20) + 1)}),
        ({}, {"value": b"x", "partition": 9}),
        ({}, {"value": b"x", "partition": -1}),
        ({}, {"value": b"x", "headers": [("a",)]}),
        ({}, {"value": b"x", "headers": [(b"a", b"b")]}),
        ({}, {"value": b"x", "headers": 7}),
    ],
)
def test_a_wrong_record_is_refused_at_once_and_nothing_is_sent(options: dict[str, Any], record: dict[str, Any]) -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs, **options) as producer:
            with pytest.raises(InvalidRequest):
                await producer.send("t", **record)
            await producer.flush()
            assert [] == await values(verbs, "t")

    simulate(main())


@pytest.mark.parametrize(
    "options",
    [
        {"acks": 1},
        {"compression": "brotli"},
        {"batch_size": 0},
        {"batch_size": 1 << 30},
        {"linger_ms": -1},
        {"max_in_flight": 0},
        {"value_serializer": "yaml"},
    ],
)
def test_wrong_settings_are_refused_when_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Producer("memory://x", **options)


def test_a_missing_topic_is_told_at_send() -> None:
    async def main() -> None:
        async with world() as (w, verbs), w.producer(verbs) as producer:
            with pytest.raises(NotFound):
                await producer.send("nowhere", b"x")

    simulate(main())


def test_a_topic_that_grew_takes_a_partition_that_was_not_there() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs) as producer:
            await producer.send_and_wait("t", b"x")
            await verbs.add_partitions("t", 3)
            assert 2 == (await producer.send_and_wait("t", b"x", partition=2)).partition

    simulate(main())


def test_a_producer_that_is_not_running_says_so() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            producer = w.producer(verbs)
            with pytest.raises(InvalidRequest):
                await producer.send("t", b"x")
            await producer.stop()
            await producer.start()
            await producer.send_and_wait("t", b"x")
            await producer.stop()
            await producer.stop()
            with pytest.raises(InvalidRequest):
                await producer.send("t", b"x")

    simulate(main())


def test_while_the_service_is_away_records_wait_and_then_fail_as_not_applied() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("init_producer", *[refuse(Unavailable("away"))] * 200)
            async with w.producer(between, delivery_timeout_ms=10_000) as producer:
                with pytest.raises(Unavailable):
                    await producer.send_and_wait("t", b"x")

    simulate(main())


def test_compression_is_what_was_asked_for() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            sizes = {}
            for compression in ("none", "lz4", "zstd"):
                between = Between(verbs)
                async with w.producer(between, compression=compression) as producer:
                    await producer.send("t", b"abcd" * 10_000)
                sizes[compression] = len(between.of("produce")[0][0][0][0][2].data)
            assert sizes["zstd"] < sizes["lz4"] < 10_000 < 40_000 < sizes["none"]

    simulate(main())


def test_a_producer_that_was_forgotten_goes_on_as_another_one() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between) as producer:
                await producer.send_and_wait("t", b"a")
                between.plan("produce", refuse(UnknownProducer("forgotten")))
                between.plan("init_producer", refuse(UnknownProducer("forgotten")))
                assert 1 == (await producer.send_and_wait("t", b"b")).offset
                between.plan("produce", *[refuse(UnknownProducer("forgotten"))] * 2)
                with pytest.raises(UnknownProducer):
                    await producer.send_and_wait("t", b"refused twice")
                assert 2 == (await producer.send_and_wait("t", b"c")).offset
            assert [b"a", b"b", b"c"] == await values(verbs, "t")

    simulate(main())


def test_who_may_not_produce_hears_so_for_each_record_and_may_try_again() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("init_producer", refuse(Forbidden("not you")))
            async with w.producer(between) as producer:
                futures = [await producer.send("t", b"x") for _ in range(3)]
                await asyncio.wait(futures)
                assert all(isinstance(future.exception(), Forbidden) for future in futures)
                assert 0 == producer._buffered
                await producer.send_and_wait("t", b"y")

    simulate(main())


def test_a_request_is_bounded_and_partitions_take_turns() -> None:
    async def main() -> None:
        gathering = Gathering(batch_bytes=100, linger_s=0.0, compression=None)
        for partition in range(4):
            for _ in range(8):
                place = ("t", partition)
                gathering.append(place, None, b"x", 1, (), nbytes=100, now_s=0.0, delivery=Told())
        taken: list[tuple[str, int]] = []
        while items := gathering.take(1.0, set(), 700):
            assert 700 >= sum(item.nbytes for item in items)
            each = [item.tp for item in items]
            assert PRODUCER_BATCHES >= max(each.count(place) for place in each)
            taken += each
        assert {("t", partition): 8 for partition in range(4)} == {place: taken.count(place) for place in taken}
        assert 4 == len(set(taken[:21])), "nobody waits until another partition is empty"
        large = Item("t", 0, 0.0, batch_of_records([Record(value=bytes(5_000))], default_timestamp=1, compression=None))
        gathering.add(large)
        assert [large] == gathering.take(1.0, set(), 700)

    simulate(main())


def test_a_bug_below_leaves_nobody_waiting() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("init_producer", refuse(ZeroDivisionError()))
            producer = w.producer(between)
            await producer.start()
            with pytest.raises(ZeroDivisionError):
                await producer.send_and_wait("t", b"x")
            with pytest.raises(RuntimeError):
                await producer.send("t", b"x")
            with pytest.raises(RuntimeError):
                await producer.stop()
            between.plan("produce", refuse(ZeroDivisionError()))
            async with w.producer(between) as producer:
                with pytest.raises(Indeterminate):
                    await producer.send_and_wait("t", b"x")
                await producer.send_and_wait("t", b"y")
                # The loop of the simulation tells of the task that failed; here that is the point.
                assert 1 == len([error for error in sim_loop().unseen() if isinstance(error, ZeroDivisionError)])

    simulate(main())


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_each_acknowledged_record_is_there_once_and_in_order(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        async with world(t=3) as (w, verbs):
            between = Between(verbs)
            silence, away = Indeterminate("silence"), Unavailable("away")

            async def fine(real: Any, *args: Any, **kwargs: Any) -> Any:
                await w.clock.sleep(rng.uniform(0, 0.2))
                return await real(*args, **kwargs)

            trouble = [refuse(silence), lose_the_answer(silence), refuse(away)]
            between.plan("produce", *[fine if rng.random() < 0.5 else rng.choice(trouble) for _ in range(300)])
            sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
            async with w.producer(between, batch_size=400, linger_ms=rng.choice([0, 5, 50])) as producer:
                for n in range(300):
                    partition = rng.randrange(3)
                    sent[partition].append(b"%d" % n)
                    await producer.send("t", b"%d" % n, partition=partition)
                    if rng.random() < 0.05:
                        await w.clock.sleep(rng.uniform(0, 0.5))
            for partition, expected in sent.items():
                assert expected == await values(verbs, "t", partition)

    simulate(main())
