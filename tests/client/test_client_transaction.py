from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import pytest

from headwater.client import GroupMetadata, OffsetAndMetadata, TopicPartition
from headwater.errors import Fenced, Indeterminate, InvalidRequest, NotFound, Unavailable
from tests.client.helpers_client import Between, lose_the_answer, refuse, simulate, values, world

T0 = TopicPartition("t", 0)


def test_a_transaction_is_one_request_and_its_futures_are_done_with_it() -> None:
    async def main() -> None:
        async with world(t=2, u=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, transactional_id="x") as producer:
                async with producer.transaction() as t:
                    first = await t.send("t", b"a", partition=0)
                    second = await t.send("t", b"b", partition=1)
                    third = await t.send_batch("u", pa.table({"value": [b"c", b"d"]}))
                    await w.clock.sleep(100)
                    assert not first.done()
                assert "committed" == t.state
                assert (0, 0) == ((await first).offset, (await second).offset)
                assert [(0, 2)] == [(each.offset, each.count) for each in await third]
            assert 1 == between.count("transact")
            assert 0 == between.count("produce")
            assert [b"c", b"d"] == await values(verbs, "u")

    simulate(main())


def test_an_exception_aborts_and_nothing_is_sent() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, transactional_id="x") as producer:
                futures = []

                async def work() -> None:
                    async with producer.transaction() as t:
                        futures.append(await t.send("t", b"never"))
                        raise ZeroDivisionError

                with pytest.raises(ZeroDivisionError):
                    await work()
                with pytest.raises(InvalidRequest):
                    await futures[0]
            assert 0 == between.count("transact")
            assert [] == await values(verbs, "t")

    simulate(main())


def test_an_empty_transaction_costs_nothing() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, transactional_id="x") as producer, producer.transaction() as t:
                assert None is await t.commit()
            assert 0 == between.count("transact")

    simulate(main())


def test_a_commit_whose_answer_was_lost_takes_effect_once() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)

            async def under_a_token(real: Any, *args: Any, **kwargs: Any) -> Any:
                # The engine's own token of a write that was sent: it is done, and nobody hears of it.
                from headwater.log.intents import new_id

                token = f"{new_id(verbs._space.chain.rng)}@{verbs._space.state.seq}"
                await real(*args, token=token)
                raise Indeterminate("silence", token=token)

            between.plan("transact", under_a_token)
            async with w.producer(between, transactional_id="x") as producer:
                async with producer.transaction() as t:
                    placed = await t.send("t", b"once")
                assert 0 == (await placed).offset
                async with producer.transaction() as t:
                    await t.send("t", b"next")
            assert [b"once", b"next"] == await values(verbs, "t")
            assert 3 == between.count("transact")

    simulate(main())


def test_an_unknown_commit_can_be_committed_again_and_not_be_aborted() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("transact", refuse(Indeterminate("silence")))
            async with w.producer(between, transactional_id="x") as producer:
                t = producer.transaction()
                await t.send("t", b"x")
                with pytest.raises(Indeterminate):
                    await t.commit()
                assert "indeterminate" == t.state
                with pytest.raises(InvalidRequest):
                    await t.abort()
                with pytest.raises(InvalidRequest):
                    producer.transaction()
                with pytest.raises(InvalidRequest):
                    await t.send("t", b"late")
                await t.commit()
            assert [b"x"] == await values(verbs, "t")

    simulate(main())


def test_while_the_service_is_away_a_commit_waits_and_stays_open_after_its_time() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("transact", *[refuse(Unavailable("away"))] * 3)
            async with w.producer(between, transactional_id="x", delivery_timeout_ms=20_000) as producer:
                async with producer.transaction() as t:
                    await t.send("t", b"x")
                between.plan("transact", *[refuse(Unavailable("away"))] * 200)
                t = producer.transaction()
                await t.send("t", b"y")
                with pytest.raises(Unavailable):
                    await t.commit()
                assert "open" == t.state
                await t.abort()
                await t.abort()
                between._plans.clear()
                async with producer.transaction() as t:
                    await t.send("t", b"z")
            assert [b"x", b"z"] == await values(verbs, "t")

    simulate(main())


def test_a_newer_producer_fences_an_older_one() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            async with w.producer(verbs, transactional_id="x") as old:
                t = old.transaction()
                await t.send("t", b"old")
                await old._transactions.identify()
                async with w.producer(verbs, transactional_id="x") as new, new.transaction() as newer:
                    await newer.send("t", b"new")
                with pytest.raises(Fenced):
                    await t.commit()
                with pytest.raises(Fenced):
                    old.transaction()
            assert [b"new"] == await values(verbs, "t")

    simulate(main())


def test_a_fenced_member_aborts_its_transaction_and_its_producer_goes_on() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs), w.producer(verbs, transactional_id="x") as producer:
            async with w.consumer(verbs, "t", group_id="g") as consumer:
                stale = consumer.group_metadata()
            t = producer.transaction()
            await t.send("t", b"stale")
            await t.send_offsets({T0: 1}, stale)
            with pytest.raises(Fenced):
                await t.commit()
            assert "aborted" == t.state
            async with producer.transaction() as t:
                await t.send("t", b"fresh")
            assert [b"fresh"] == await values(verbs, "t")

    simulate(main())


def test_read_process_write_is_exactly_once_over_a_crash() -> None:
    async def main() -> None:
        async with world(t=1, out=1) as (w, verbs):
            async with w.producer(verbs) as producer:
                for n in range(20):
                    await producer.send("t", b"%d" % n)

            async def work(stop_after: int) -> None:
                done = 0
                async with (
                    w.consumer(verbs, "t", group_id="g", enable_auto_commit=False) as consumer,
                    w.producer(verbs, transactional_id="x") as producer,
                ):
                    while done < stop_after:
                        records = (await consumer.getmany(timeout_ms=500, max_records=3)).get(T0, [])
                        if not records:
                            return
                        async with producer.transaction() as t:
                            for record in records:
                                await t.send("out", b"<" + record.value + b">")
                            await t.send_offsets(consumer.positions(), consumer)
                        done += len(records)
                    async with producer.transaction() as t:
                        await t.send("out", b"half")
                        raise ZeroDivisionError

            for stop_after in (4, 9, 1_000):
                try:
                    await work(stop_after)
                except ZeroDivisionError:
                    continue
            assert [b"<%d>" % n for n in range(20)] == await values(verbs, "out")
            assert 20 == (await verbs.committed("g"))[T0].offset

    simulate(main())


def test_offsets_are_given_as_numbers_or_with_metadata_and_for_a_group_by_name() -> None:
    async def main() -> None:
        async with world(t=2) as (w, verbs), w.producer(verbs, transactional_id="x") as producer:
            async with producer.transaction() as t:
                await t.send_offsets({T0: 3}, "g")
                await t.send_offsets({("t", 1): OffsetAndMetadata(4, "m")}, GroupMetadata("h"))
            assert 3 == (await verbs.committed("g"))[T0].offset
            assert "m" == (await verbs.committed("h"))["t", 1].metadata

    simulate(main())


def test_a_topic_deleted_meanwhile_aborts_it_all() -> None:
    async def main() -> None:
        async with world(t=1, u=1) as (w, verbs), w.producer(verbs, transactional_id="x") as producer:
            t = producer.transaction()
            kept = await t.send("t", b"x")
            await t.send("u", b"x")
            await verbs.delete_topic("u")
            with pytest.raises(NotFound):
                await t.commit()
            with pytest.raises(NotFound):
                await kept
            assert [] == await values(verbs, "t")
            with pytest.raises(InvalidRequest):
                await t.commit()

    simulate(main())


def test_what_does_not_fit_one_request_goes_ahead_and_is_seen_by_nobody_before_the_commit() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            async with w.producer(between, transactional_id="x", compression="none", batch_size=20_000) as producer:
                producer.request_bytes_max = 100_000
                async with producer.transaction() as t:
                    futures = [await t.send("t", b"%05d" % n * 2_000) for n in range(50)]
                    assert [] == await values(verbs, "t")
                assert list(range(50)) == [(await future).offset for future in futures]
                t = producer.transaction()
                for _ in range(50):
                    await t.send("t", bytes(10_000))
                await t.abort()
            assert [b"%05d" % n * 2_000 for n in range(50)] == await values(verbs, "t")
            assert 0 == between.count("transact")
            assert (2, 1, 1) == (between.count("begin"), between.count("commit"), between.count("abort"))

    simulate(main())


def test_an_addition_that_fails_ends_the_transaction() -> None:
    async def main() -> None:
        async with world(t=1) as (w, verbs):
            between = Between(verbs)
            between.plan("add", lose_the_answer(Indeterminate("silence")))
            async with w.producer(between, transactional_id="x", compression="none") as producer:
                producer.request_bytes_max = 10_000
                t = producer.transaction()
                with pytest.raises(Indeterminate):
                    await asyncio.gather(*(t.send("t", bytes(1_000)) for _ in range(12)))
                assert "aborted" == t.state
                async with producer.transaction() as t:
                    await t.send("t", b"x")
            assert [b"x"] == await values(verbs, "t")

    simulate(main())


@pytest.mark.parametrize("what", ["plain", "transactional"])
def test_each_kind_of_producer_says_what_it_is_not_for(what: str) -> None:
    async def main() -> None:
        tid = "x" if what == "transactional" else ""
        async with world(t=1) as (w, verbs), w.producer(verbs, transactional_id=tid) as producer:
            if what == "plain":
                with pytest.raises(InvalidRequest):
                    producer.transaction()
                return
            with pytest.raises(InvalidRequest):
                await producer.send("t", b"x")
            with pytest.raises(InvalidRequest):
                await producer.send_batch("t", pa.table({"value": [b"x"]}))
            first = producer.transaction()
            with pytest.raises(InvalidRequest):
                producer.transaction()
            await first.abort()
            producer.transaction()

    simulate(main())


def test_tasks_may_send_into_one_transaction_at_once() -> None:
    async def main() -> None:
        async with world(t=3) as (w, verbs), w.producer(verbs, transactional_id="x") as producer:
            async with producer.transaction() as t:
                await asyncio.gather(*(t.send("t", b"%d" % n, b"%d" % n) for n in range(100)))
            assert 100 == sum([len(await values(verbs, "t", partition)) for partition in range(3)])

    simulate(main())
