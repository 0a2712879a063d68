from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pytest

from headwater.client import (
    Consumer,
    NoOffset,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RebalanceListener,
    TopicPartition,
    Undecodable,
)
from headwater.errors import Fenced, InvalidRequest, NotFound, OffsetOutOfRange, Unavailable
from tests.client.helpers_client import FIXED, Between, World, lose_the_answer, numbers, refuse, simulate, world

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


async def fill(
    w: World, verbs: Any, topic: str = "t", count: int = 10, *, partition: int | None = 0, start: int = 0
) -> None:
    async with w.producer(verbs) as producer:
        for value in numbers(count, start):
            await producer.send(topic, value, value, partition=partition, timestamp_ms=1_000 + int(value))


async def drain(consumer: Consumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        record = await consumer.getone(timeout_ms=60_000)
        assert record is not None, f"only {len(found)} of {count} records came"
        found.append(record.value)
    return found


async def until_owned(consumer: Consumer, *wanted: TopicPartition) -> None:
    while consumer.assignment() != set(wanted):
        await consumer.getmany(timeout_ms=500)


# -- reading -----------------------------------------------------------------------------------------------


def test_without_a_group_all_partitions_are_read_each_in_order() -> None:
    async def main() -> None:
        async with world(t=3) as (w, verbs):
            for partition in range(3):
                await fill(w, verbs, partition=partition, start=100 * partition)
            async with w.consumer(verbs, "t") as consumer:
                found = await drain(consumer, 30)
            for partition in range(3):
                mine = [value for value in found if int(value) // 100 == partition]
                assert list(numbers(10, 100 * partition)) == mine

    simulate(main())


def test_async_for_gives_record_after_record() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            async with w.consumer(verbs, "t") as consumer:
                found = []
                async for record in consumer:
                    assert await consumer.position(T0) == record.offset + 1
                    found.append((record.offset, record.key, record.value, record.timestamp))
                    if len(found) == 10:
                        break
            assert [(n, b"%d" % n, b"%d" % n, 1_000 + n) for n in range(10)] == found

    simulate(main())


def test_getmany_waits_for_the_first_record_and_is_bounded() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs), w.consumer(verbs, "t", max_poll_records=7) as consumer:
            assert {} == await consumer.getmany(timeout_ms=200)
            await fill(w, verbs, count=20)
            first = await consumer.getmany(timeout_ms=5_000)
            assert [T0] == list(first)
            assert list(numbers(7)) == [record.value for record in first[T0]]
            second = await consumer.getmany(timeout_ms=5_000, max_records=50)
            assert list(numbers(13, 7)) == [record.value for record in second[T0]]
            assert {} == await consumer.getmany(T1, timeout_ms=10)

    simulate(main())


def test_arrow_batches_come_with_offsets_and_without_a_record_being_touched() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            await fill(w, verbs, count=20)
            async with w.consumer(verbs, "t") as consumer:
                for _ in range(3):
                    await consumer.getone()
                tables = await consumer.poll_arrow(timeout_ms=1_000)
                assert [T0] == list(tables)
                assert isinstance(tables[T0], pa.Table)
                assert list(range(3, 20)) == tables[T0].column("offset").to_pylist()
                assert list(numbers(17, 3)) == tables[T0].column("value").to_pylist()
                assert 20 == await consumer.position(T0)
                await fill(w, verbs, count=5, start=20)
                assert list(numbers(5, 20)) == await drain(consumer, 5)

    simulate(main())


def test_records_that_come_while_polling_are_given_at_once() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.consumer(verbs, "t") as consumer:
            waiting = asyncio.get_running_loop().create_task(consumer.getone())
            await w.clock.sleep(20)
            start = w.clock.elapsed_s()
            await fill(w, verbs, count=1)
            assert b"0" == (await waiting).value  # type: ignore[union-attr]
            assert 2 > w.clock.elapsed_s() - start

    simulate(main())


def test_where_to_begin_is_as_auto_offset_reset_says() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs, count=5)
            async with w.consumer(verbs, "t", auto_offset_reset="latest") as consumer:
                await consumer.getmany()
                await fill(w, verbs, count=1, start=5)
                assert [b"5"] == await drain(consumer, 1)
            async with w.consumer(verbs, "t", auto_offset_reset="none") as consumer:
                with pytest.raises(NoOffset):
                    await consumer.getone()
                with pytest.raises(NoOffset):
                    await consumer.getmany(timeout_ms=100)
                await consumer.seek(T0, 3)
                assert [b"3", b"4", b"5"] == await drain(consumer, 3)

    simulate(main())


@pytest.mark.parametrize(("reset", "expected"), [("earliest", b"5"), ("latest", b"9")])
def test_a_position_outside_the_log_is_put_right_as_auto_offset_reset_says(reset: str, expected: bytes) -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs, count=9)
            await verbs.delete_records("t", 0, 5)
            async with w.consumer(verbs, auto_offset_reset=reset) as consumer:
                consumer.assign([T0])
                await consumer.getmany()
                await consumer.seek(T0, 1)
                waiting = asyncio.get_running_loop().create_task(consumer.getone())
                await w.clock.sleep(1)
                await fill(w, verbs, count=1, start=9)
                assert expected == (await waiting).value  # type: ignore[union-attr]

    simulate(main())


def test_a_position_outside_the_log_is_an_error_with_none() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs, count=9)
            async with w.consumer(verbs, auto_offset_reset="none") as consumer:
                consumer.assign([T0])
                with pytest.raises(NoOffset):
                    await consumer.getmany()
                await consumer.seek(T0, 100)
                with pytest.raises(OffsetOutOfRange) as caught:
                    await consumer.getone()
                assert (0, 9) == (caught.value.log_start, caught.value.high_watermark)
                await consumer.seek(T0, 8)
                assert [b"8"] == await drain(consumer, 1)

    simulate(main())


def test_seek_position_and_the_ends_of_the_log() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            await fill(w, verbs, count=10)
            async with w.consumer(verbs, "t") as consumer:
                await drain(consumer, 4)
                assert 4 == await consumer.position(T0)
                assert {T0: 6, T1: 0} == await consumer.lag()
                await consumer.seek(T0, 8)
                assert [b"8", b"9"] == await drain(consumer, 2)
                await consumer.seek_to_beginning(T0)
                assert [b"0"] == await drain(consumer, 1)
                await consumer.seek_to_end()
                assert 10 == await consumer.position(T0)
                assert {T0: 0, T1: 0} == await consumer.beginning_offsets([T0, T1])
                assert {T0: 10, T1: 0} == await consumer.end_offsets([("t", 0), T1])
                times = await consumer.offsets_for_times({T0: 1_007, T1: 0})
                assert {T0: OffsetAndTimestamp(7, 1_007), T1: None} == times
                assert 10 == consumer.highwater(T0)
                assert {"t"} == await consumer.topics()
                assert {0, 1} == await consumer.partitions_for_topic("t")
                with pytest.raises(InvalidRequest):
                    await consumer.seek(T0, -1)
                with pytest.raises(InvalidRequest):
                    await consumer.seek(TopicPartition("t", 2), 0)

    simulate(main())


def test_paused_partitions_keep_still_until_resumed() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            await fill(w, verbs, partition=0, count=3)
            await fill(w, verbs, partition=1, count=3, start=10)
            async with w.consumer(verbs, "t") as consumer:
                consumer.pause(T0)
                assert {T0} == consumer.paused()
                assert [b"10", b"11", b"12"] == await drain(consumer, 3)
                assert None is await consumer.getone(timeout_ms=1_000)
                consumer.resume(T0)
                assert [b"0", b"1", b"2"] == await drain(consumer, 3)

    simulate(main())


def test_one_record_that_cannot_be_read_stops_the_reader_in_front_of_it() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            async with w.producer(verbs) as producer:
                for value in (b"1", b"2", b"{", b"4"):
                    await producer.send("t", value)
            async with w.consumer(verbs, "t", value_deserializer="json") as consumer:
                assert {T0: [1, 2]} == {
                    tp: [record.value for record in records]
                    for tp, records in (await consumer.getmany(timeout_ms=1_000)).items()
                }
                for _ in range(2):
                    with pytest.raises(Undecodable) as caught:
                        await consumer.getone()
                    assert 2 == caught.value.data["offset"] == await consumer.position(T0)
                await consumer.seek(T0, 3)
                assert 4 == (await consumer.getone()).value  # type: ignore[union-attr]

    simulate(main())


def test_a_service_that_is_away_for_a_while_is_asked_again() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            between = Between(verbs)
            between.plan("fetch", *[refuse(Unavailable("away"))] * 5)
            async with w.consumer(between, "t") as consumer:
                assert list(numbers(10)) == await drain(consumer, 10)

    simulate(main())


def test_an_error_of_fetching_is_raised_where_records_are_asked_for() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            async with w.consumer(verbs) as consumer:
                consumer.assign([T0])
                await drain(consumer, 10)
                await verbs.delete_topic("t")
                with pytest.raises(NotFound):
                    await consumer.getone()

    simulate(main())


def test_new_topics_of_a_pattern_and_new_partitions_are_found_without_a_group() -> None:
    async def main() -> None:
        async with world(t=1, other=1) as (w, verbs), w.consumer(verbs, metadata_max_age_ms=1_000) as consumer:
            consumer.subscribe(pattern="t|u")
            await consumer.getmany()
            assert {T0} == consumer.assignment()
            await verbs.create_topic("u", 1)
            await verbs.add_partitions("t", 2)
            await fill(w, verbs, "u", count=1)
            assert [b"0"] == await drain(consumer, 1)
            assert {T0, T1, TopicPartition("u", 0)} == consumer.assignment()
            assert {"t", "u"} == consumer.subscription()

    simulate(main())


# -- groups ------------------------------------------------------------------------------------------------


def test_a_group_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            async with w.consumer(verbs, "t", group_id="g") as consumer:
                assert list(numbers(4)) == await drain(consumer, 4)
            async with w.consumer(verbs, "t", group_id="g") as consumer:
                assert list(numbers(6, 4)) == await drain(consumer, 6)

    simulate(main())


def test_who_leaves_by_an_exception_reads_its_last_record_again() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)

            async def work() -> None:
                async with w.consumer(verbs, "t", group_id="g") as consumer:
                    await drain(consumer, 4)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await work()
            async with w.consumer(verbs, "t", group_id="g") as consumer:
                assert list(numbers(7, 3)) == await drain(consumer, 7)

    simulate(main())


def test_what_was_processed_is_committed_in_the_background() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            async with w.consumer(verbs, "t", group_id="g", auto_commit_interval_ms=1_000) as consumer:
                await drain(consumer, 4)
                assert None is await consumer.committed(T0)
                await w.clock.sleep(1.5)
                assert 3 == await consumer.committed(T0), "the last record may still be in work"
                commits = verbs._space.state.seq
                await w.clock.sleep(10)
                assert commits == verbs._space.state.seq, "nothing new, nothing to commit"

    simulate(main())


def test_commits_by_hand_sync_and_async_with_metadata() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            await fill(w, verbs)
            async with w.consumer(verbs, "t", group_id="g", enable_auto_commit=False) as consumer:
                await drain(consumer, 4)
                await consumer.commit()
                assert 4 == await consumer.committed(T0)
                await consumer.commit({T0: OffsetAndMetadata(2, "note"), ("t", 1): 0})
                stored = await verbs.committed("g")
                assert (2, "note") == (stored["t", 0].offset, stored["t", 0].metadata)
                first, second = consumer.commit_async({T0: 3}), consumer.commit_async()
                await asyncio.gather(first, second)
                assert 4 == await consumer.committed(T0)
                await drain(consumer, 1)
            assert 4 == (await verbs.committed("g"))["t", 0].offset, (
                "nothing is committed at the end without auto commit"
            )

    simulate(main())


def test_without_a_group_there_is_nothing_to_commit() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.consumer(verbs, "t") as consumer:
            with pytest.raises(InvalidRequest):
                await consumer.commit()
            with pytest.raises(InvalidRequest):
                consumer.group_metadata()

    simulate(main())


class Diary(RebalanceListener):
    def __init__(self) -> None:
        self.lines: list[tuple[str, list[int]]] = []

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.lines.append(("revoked", sorted(tp.partition for tp in revoked)))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.lines.append(("assigned", sorted(tp.partition for tp in assigned)))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self.lines.append(("lost", sorted(tp.partition for tp in lost)))


def test_two_members_share_and_the_listener_hears_in_order() -> None:
    async def main() -> None:
        async with world(t=4) as (w, verbs):
            other = await w.verbs()
            diary, second_diary = Diary(), Diary()
            first = w.consumer(verbs, group_id="g")
            first.subscribe("t", listener=diary)
            async with first:
                assert [("assigned", [0, 1, 2, 3])] == diary.lines
                second = w.consumer(other, group_id="g")
                second.subscribe(["t"], listener=second_diary)
                async with second:
                    while len(first.assignment()) != 2 or len(second.assignment()) != 2:
                        await first.getmany(timeout_ms=500)
                        await second.getmany(timeout_ms=500)
                    assert not first.assignment() & second.assignment()
                    given = sorted(tp.partition for tp in second.assignment())
                    assert ("revoked", given) == diary.lines[1]
                    assert [("assigned", given)] == second_diary.lines
                await until_owned(first, *(TopicPartition("t", n) for n in range(4)))
                assert ("assigned", given) == diary.lines[-1]
            assert ("revoked", given) == second_diary.lines[-1]

    simulate(main())


def test_what_was_processed_is_committed_before_it_is_given_up() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            for partition in range(2):
                await fill(w, verbs, partition=partition, count=5)
            other = await w.verbs()
            async with w.consumer(verbs, "t", group_id="g", auto_commit_interval_ms=1e9) as first:
                await drain(first, 10)
                async with w.consumer(other, "t", group_id="g") as second:
                    while not (len(first.assignment()) == len(second.assignment()) == 1):
                        await first.getmany(timeout_ms=500)
                        assert {} == await second.getmany(timeout_ms=500)
                    (taken,) = second.assignment()
                    assert 5 == await second.position(taken)

    simulate(main())


def test_a_listener_may_seek_and_commit_and_must_not_poll() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            for partition in range(2):
                await fill(w, verbs, partition=partition)
            consumer = w.consumer(verbs, group_id="g", enable_auto_commit=False)

            class Listener(RebalanceListener):
                async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
                    for tp in assigned:
                        await consumer.seek(tp, 7)

                async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
                    await consumer.commit({tp: await consumer.position(tp) for tp in revoked})
                    with pytest.raises(InvalidRequest):
                        await consumer.getone()

            consumer.subscribe("t", listener=Listener())
            async with consumer:
                assert [b"7", b"7", b"8", b"8", b"9", b"9"] == sorted(await drain(consumer, 6))
                async with w.consumer(await w.verbs(), "t", group_id="g") as second:
                    while len(second.assignment()) != 1:
                        await consumer.getmany(timeout_ms=300)
                        await second.getmany(timeout_ms=300)
                    (taken,) = second.assignment()
                    assert 10 == await second.position(taken)

    simulate(main())


def test_an_error_of_a_listener_reaches_the_poll_and_the_next_poll_tries_again() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            errors = [ZeroDivisionError(), ZeroDivisionError()]

            class Listener(RebalanceListener):
                def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
                    if errors:
                        raise errors.pop()

            async with w.consumer(verbs, group_id="g") as consumer:
                consumer.subscribe("t", listener=Listener())
                await drain(consumer, 10)
                await consumer.commit()
                await verbs.leave("g", consumer.group_metadata().member)
                await w.clock.sleep(5)
                with pytest.raises(ZeroDivisionError):
                    await consumer.getmany()
                await consumer.getmany(timeout_ms=500)
                assert {T0} == consumer.assignment()
                assert 10 == await consumer.position(T0)
                errors.clear()

    simulate(main())


def test_a_member_that_died_is_replaced_and_its_records_are_read_again_from_its_commit() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            for partition in range(2):
                await fill(w, verbs, partition=partition, start=100 * partition)
            other = await w.verbs()
            options: dict[str, Any] = {"group_id": "g", "session_timeout_ms": 6_000, "enable_auto_commit": False}
            async with w.consumer(other, "t", **options) as survivor:
                dead = w.consumer(verbs, "t", **options)
                await dead.start()
                while not (len(dead.assignment()) == len(survivor.assignment()) == 1):
                    await survivor.getmany(timeout_ms=300, max_records=1)
                    await dead.getmany(timeout_ms=300, max_records=1)
                (taken,) = dead.assignment()
                await dead.commit({taken: 4})
                assert dead._assignment is not None
                assert dead._assignment._membership is not None
                await dead._assignment._membership._halt()  # its process is gone: no heartbeat, no word
                found: list[int] = []
                while not found:
                    records = await survivor.getmany(timeout_ms=500)
                    found += [record.offset for record in records.get(taken, [])]
                assert 4 == found[0]
                with pytest.raises(Fenced):
                    await dead.commit({taken: 9})
                assert dead._fetcher is not None
                await dead._fetcher.drop(list(dead._fetcher.lanes))

    simulate(main())


def test_a_member_that_was_expelled_loses_all_and_joins_under_a_new_id() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            await fill(w, verbs)
            diary = Diary()
            consumer = w.consumer(verbs, group_id="g")
            consumer.subscribe("t", listener=diary)
            async with consumer:
                await drain(consumer, 4)
                await consumer.commit()
                before = consumer.group_metadata()
                await verbs.leave("g", before.member)
                await w.clock.sleep(5)
                assert list(numbers(6, 4)) == await drain(consumer, 6)
                assert before.member != consumer.group_metadata().member
                assert [("assigned", [0]), ("lost", [0]), ("assigned", [0])] == diary.lines

    simulate(main())


def test_a_program_that_does_not_poll_leaves_and_its_partitions_go_to_others() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            other = await w.verbs()
            async with w.consumer(verbs, "t", group_id="g", max_poll_interval_ms=10_000) as stuck:
                async with w.consumer(other, "t", group_id="g") as busy:
                    while not (len(stuck.assignment()) == len(busy.assignment()) == 1):
                        await stuck.getmany(timeout_ms=300)
                        await busy.getmany(timeout_ms=300)
                    start = w.clock.elapsed_s()
                    await until_owned(busy, T0, T1)
                    assert 20 > w.clock.elapsed_s() - start
                await until_owned(stuck, T0, T1)

    simulate(main())


def test_a_static_member_that_comes_back_finds_its_partitions_without_a_rebalance() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs):
            other = await w.verbs()
            async with w.consumer(other, "t", group_id="g", group_instance_id="two") as second:
                async with w.consumer(verbs, "t", group_id="g", group_instance_id="one") as first:
                    while not (len(first.assignment()) == len(second.assignment()) == 1):
                        await first.getmany(timeout_ms=300)
                        await second.getmany(timeout_ms=300)
                    held, generation = first.assignment(), (await verbs.group("g")).generation
                async with w.consumer(verbs, "t", group_id="g", group_instance_id="one") as again:
                    assert held == again.assignment()
                    assert generation == (await verbs.group("g")).generation

    simulate(main())


def test_a_pattern_follows_topics_as_they_come_in_a_group() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.consumer(verbs, group_id="g", metadata_max_age_ms=2_000) as consumer:
            consumer.subscribe(pattern="[tu]")
            await until_owned(consumer, T0)
            await verbs.create_topic("u", 1)
            await until_owned(consumer, T0, TopicPartition("u", 0))
            await verbs.create_topic("v", 1)
            await consumer.getmany(timeout_ms=10_000)
            assert {T0, TopicPartition("u", 0)} == consumer.assignment()

    simulate(main())


def test_subscriptions_can_change_and_end() -> None:
    async def main() -> None:
        async with world(t=1, u=1) as (w, verbs), w.consumer(verbs, "t", group_id="g") as consumer:
            assert {T0} == consumer.assignment()
            consumer.subscribe("u")
            await until_owned(consumer, TopicPartition("u", 0))
            await consumer.unsubscribe()
            assert set() == consumer.assignment()
            assert [] == list((await verbs.group("g")).members)
            consumer.assign([T0])
            await until_owned(consumer, T0)
            with pytest.raises(InvalidRequest):
                consumer.subscribe("t")

    simulate(main())


def test_a_deleted_topic_goes_away_from_its_members() -> None:
    async def main() -> None:
        async with world(t=1, u=1) as (w, verbs), w.consumer(verbs, "t", "u", group_id="g") as consumer:
            await verbs.delete_topic("u")
            while consumer.assignment() != {T0}:
                await consumer.getmany(timeout_ms=500)
            await fill(w, verbs)
            assert list(numbers(10)) == await drain(consumer, 10)

    simulate(main())


def test_a_join_that_broke_off_leaves_no_ghost_behind() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("heartbeat", lose_the_answer(Unavailable("away")))
            consumer = w.consumer(between, "t", group_id="g")
            with pytest.raises(Unavailable):
                await consumer.start()
            assert [] == list((await verbs.group("g")).members)

            async def slow(real: Any, *args: Any, **kwargs: Any) -> Any:
                await real(*args, **kwargs)
                await w.clock.sleep(5)

            async with w.consumer(between, group_id="g") as consumer:
                consumer.subscribe("t")
                between.plan("heartbeat", slow)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await consumer.getmany(timeout_ms=10_000)
                await consumer.getmany(timeout_ms=1_000)
                assert {T0} == consumer.assignment()
                assert 1 == len((await verbs.group("g")).members)

    simulate(main())


@pytest.mark.parametrize("seed", range(6))
def test_a_poll_that_is_cancelled_at_any_moment_loses_nothing(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        async with world(FIXED, t=3) as (w, verbs):
            for partition in range(3):
                await fill(w, verbs, count=30, partition=partition, start=100 * partition)
            found: list[bytes] = []
            async with w.consumer(verbs, "t", group_id="g", max_poll_records=4) as consumer:
                while len(found) < 90:
                    try:
                        async with asyncio.timeout(rng.uniform(0, 0.3)):
                            records = await consumer.getmany(timeout_ms=1_000)
                    except TimeoutError:
                        continue
                    found += [record.value for each in records.values() for record in each]
            assert 90 == len(set(found)) == len(found)

    simulate(main())


def test_leaving_is_told_so_that_others_need_not_wait_for_a_session() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            async with w.consumer(verbs, "t", group_id="g"):
                assert 1 == len((await verbs.group("g")).members)
            assert 0 == len((await verbs.group("g")).members)

    simulate(main())


@pytest.mark.parametrize(
    "options",
    [
        {"auto_offset_reset": "soon"},
        {"isolation_level": "read_uncommitted"},
        {"group_instance_id": "one"},
        {"max_poll_records": 0},
        {"value_deserializer": "yaml"},
    ],
)
def test_wrong_settings_are_refused_when_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Consumer("memory://x", "t", **options)


@pytest.mark.parametrize("what", [{"topics": ["a"], "pattern": "b"}, {}, {"pattern": "("}])
def test_a_wrong_subscription_is_refused(what: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Consumer("memory://x").subscribe(**what)


@pytest.mark.parametrize("seed", range(8))
def test_members_that_come_go_and_die_read_every_record_at_least_once(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        async with world(FIXED, t=4) as (w, verbs):
            seen: set[bytes] = set()

            async def member(life_s: float, polite: bool) -> None:
                mine = await w.verbs()
                consumer = w.consumer(
                    mine, "t", group_id="g", session_timeout_ms=6_000, auto_commit_interval_ms=500, max_poll_records=5
                )
                await consumer.start()
                until_s = w.clock.elapsed_s() + life_s
                while w.clock.elapsed_s() < until_s:
                    for records in (await consumer.getmany(timeout_ms=300)).values():
                        seen.update(record.value for record in records)
                if polite:
                    await consumer.stop()
                else:
                    assert consumer._assignment is not None and consumer._fetcher is not None
                    if consumer._assignment._membership is not None:
                        await consumer._assignment._membership._halt()
                    if consumer._assignment._committer is not None:
                        consumer._assignment._committer.cancel()
                    await consumer._fetcher.drop(list(consumer._fetcher.lanes))

            async def writer() -> None:
                async with w.producer(verbs) as producer:
                    for n in range(200):
                        await producer.send("t", b"%d" % n, partition=n % 4)
                        await w.clock.sleep(rng.uniform(0, 0.3))

            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(writer())]
            for _ in range(5):
                tasks.append(loop.create_task(member(rng.uniform(5, 30), rng.random() < 0.5)))
                await w.clock.sleep(rng.uniform(0, 8))
            await asyncio.gather(*tasks)
            await member(40, True)
            assert set(numbers(200)) == seen

    simulate(main())
