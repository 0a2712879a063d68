"""Producers: a batch lands once whoever sends it again, and a transaction is visible whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headwater.errors import Fenced, Indeterminate, InvalidRequest, NotFound, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.outcomes import OutOfOrder, UnknownProducer
from headwater.log.producer import Producer
from headwater.sim.loop import sim_loop
from tests.log.helpers import blob, keys_under, memory, opened, simulate
from tests.log.helpers_store import Gate, Scripted, away, lost_answer

SMALL = Options(inline_bytes_max=1_000, segment_bytes_target=4_000, commit_timeout_s=10, store_retry_s=5)


class Desk:
    """A namespace with two topics, over a scripted store."""

    space: Namespace

    def __init__(self) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)

    async def start(self) -> Desk:
        self.space = await opened(self.store, options=SMALL)
        await self.space.create_topic("a", 2)
        await self.space.create_topic("b", 1)
        return self

    async def log(self, topic: str = "a", partition: int = 0) -> list[int]:
        reader = await opened(self.truth, seed=99)
        return [c.data[0] async for c in reader.reader.chunks(topic, partition, 0)]

    async def everything(self) -> list[list[int]]:
        return [await self.log("a", 0), await self.log("a", 1), await self.log("b", 0)]


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def start() -> None:
        await main(await Desk().start())

    simulate(start())


# -- idempotent ------------------------------------------------------------------------------------------


def test_a_batch_sent_again_lands_once_and_answers_the_same() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer()
        first = await producer.append("a", 0, blob(3, fill=1))
        second = await producer.append("a", 0, blob(2, fill=2))
        assert (0, 3) == (first.base_offset, second.base_offset)
        for _ in range(2):
            assert 0 == (await producer.resend("a", 0, blob(3, fill=1), 0)).base_offset
            assert 3 == (await producer.resend("a", 0, blob(2, fill=2), 3)).base_offset
        assert [1, 2] == await desk.log()

    at_a_desk(main)


def test_calls_may_overlap_and_keep_their_order() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer()
        sizes = [10, 2_000, 10, 10, 1_500, 10]
        placed = await asyncio.gather(*(producer.append("a", 0, blob(1, size, fill=i)) for i, size in enumerate(sizes)))
        assert list(range(6)) == [p.base_offset for p in placed]
        assert list(range(6)) == await desk.log()

    at_a_desk(main)


def test_after_indeterminate_the_error_says_under_which_number_to_send_again() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer()
        await producer.append("a", 0, blob(3, fill=1))
        desk.store.will("put_if_absent", lost_answer)
        desk.store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await producer.append("a", 0, blob(2, fill=2))
        assert 3 == caught.value.data["sequence"]
        desk.store.always.clear()
        other = await opened(desk.truth, seed=5)  # even from another process
        copy = Producer(other, "", producer.id, producer.epoch)
        assert 3 == (await copy.resend("a", 0, blob(2, fill=2), 3)).base_offset
        assert 5 == (await producer.append("a", 0, blob(1, fill=3))).base_offset
        assert [1, 2, 3] == await desk.log()

    at_a_desk(main)


@pytest.mark.parametrize("wrong", [lambda p: p.append("nope", 0, blob()), lambda p: p.append("a", 0, blob(size=0))])
def test_a_batch_that_is_never_accepted_takes_no_number(wrong: Any) -> None:
    """The number was gone, and every batch behind it out of order, until the producer took a new epoch."""

    async def main(desk: Desk) -> None:
        producer = await desk.space.producer()
        await producer.append("a", 0, blob())
        with pytest.raises((NotFound, InvalidRequest)):
            await wrong(producer)
        assert 1 == (await producer.append("a", 0, blob())).base_offset

    at_a_desk(main)


def test_a_lost_batch_stops_those_behind_it_until_the_epoch_is_renewed() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer()
        desk.store.always["put_if_absent"] = away
        with pytest.raises(Unavailable):
            await producer.append("a", 0, blob(fill=1))
        desk.store.always.clear()
        with pytest.raises(OutOfOrder):
            await producer.append("a", 0, blob(fill=2))
        await producer.renew()
        assert (1, 0) == (producer.epoch, (await producer.append("a", 0, blob(fill=3))).base_offset)
        assert [3] == await desk.log()

    at_a_desk(main)


def test_an_unknown_producer_is_told_so() -> None:
    async def main(desk: Desk) -> None:
        with pytest.raises(UnknownProducer):
            await Producer(desk.space, "", 77, 0).append("a", 0, blob())

    at_a_desk(main)


# -- transactions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 600, 3_000])
def test_a_transaction_is_visible_whole_with_its_group_offsets(size: int) -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        for round_ in range(3):
            async with producer.transaction() as t:
                for i in range(6):
                    topic, partition = [("a", 0), ("a", 1), ("b", 0)][i % 3]
                    await t.append(topic, partition, blob(2, size, fill=10 * round_ + i))
                await t.send_offsets("g", {("b", 0): round_})
                assert 2 * round_ == len(await desk.log())
            assert ("committed", 2 * round_ + 2) == (t.state, len(await desk.log()))
        assert [[0, 3, 10, 13, 20, 23], [1, 4, 11, 14, 21, 24], [2, 5, 12, 15, 22, 25]] == await desk.everything()
        assert 2 == (await desk.space.committed("g"))["b", 0].offset

    at_a_desk(main)


def test_a_transaction_says_where_each_batch_lies_in_the_order_of_appends() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        t = producer.transaction()
        sizes = [10, 2_000, 10, 10, 3_000, 700, 10]
        for i, size in enumerate(sizes):
            await t.append("a", i % 2, blob(1 + i, size, fill=i))
        placed = await t.commit()
        assert [1 + i for i in range(7)] == [p.count for p in placed]
        for i, place in enumerate(placed):
            (chunk, *_) = (await desk.space.reader.fetch("a", place.partition, place.base_offset)).chunks
            assert (place.base_offset, i) == (chunk.base, chunk.data[0])

    at_a_desk(main)


def test_appends_of_several_tasks_keep_their_places() -> None:
    """Two tasks that spilled at once staged the same bytes twice, or in another order than they were named."""

    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")

        async def slower(store: Scripted, act: Any) -> Any:
            await sim_loop().sleep(1.0 / store.calls["put"])
            return await act()

        desk.store.always["put"] = slower
        t = producer.transaction()
        await asyncio.gather(*(t.append("a", i % 2, blob(1, 400, fill=i)) for i in range(12)))
        placed = await t.commit()
        for i, place in enumerate(placed):
            (chunk, *_) = (await desk.space.reader.fetch("a", i % 2, place.base_offset)).chunks
            assert i == chunk.data[0]
        assert list(range(12)) == sorted([*await desk.log("a", 0), *await desk.log("a", 1)])

    at_a_desk(main)


@pytest.mark.parametrize("size", [10, 3_000])
def test_an_aborted_transaction_leaves_nothing_to_read(size: int) -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        manifests = await keys_under(desk.truth, "ns/manifest/")
        t = producer.transaction()

        async def failing() -> None:
            async with t:
                await t.append("a", 0, blob(1, size))
                await t.send_offsets("g", {("a", 0): 1})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await failing()
        assert "aborted" == t.state
        assert manifests == await keys_under(desk.truth, "ns/manifest/")
        assert ([[], [], []], {}) == (await desk.everything(), await desk.space.committed("g"))
        for call in (t.commit, lambda: t.append("a", 0, blob()), lambda: t.send_offsets("g", {})):
            with pytest.raises(InvalidRequest):
                await call()
        async with producer.transaction() as t:
            await t.append("a", 0, blob(1, size, fill=5))
        assert [5] == await desk.log()

    at_a_desk(main)


def test_one_wrong_part_refuses_all_of_it() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        t = producer.transaction()
        await t.append("a", 0, blob(1, 3_000))
        await t.append("a", 7, blob())
        with pytest.raises(NotFound):
            await t.commit()
        t = producer.transaction()
        await t.append("a", 0, blob())
        await t.send_offsets("g", {("a", 0): 1}, generation=4, member="m")
        with pytest.raises(Fenced):
            await t.commit()
        assert ([[], [], []], {}) == (await desk.everything(), await desk.space.committed("g"))
        assert 0 == producer.epoch

    at_a_desk(main)


def test_a_second_producer_of_one_transactional_id_fences_the_first() -> None:
    async def main(desk: Desk) -> None:
        first = await desk.space.producer("x")
        t = first.transaction()
        await t.append("a", 0, blob(1, 3_000, fill=1))
        second = await (await opened(desk.store, seed=2)).producer("x")
        assert (first.id, first.epoch + 1) == (second.id, second.epoch)
        for call in (t.commit, lambda: first.append("a", 0, blob()), first.renew):
            with pytest.raises(Fenced):
                await call()
        async with second.transaction() as u:
            await u.append("a", 0, blob(fill=2))
        assert [2] == await desk.log()

    at_a_desk(main)


@pytest.mark.parametrize("size", [10, 3_000])
@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_repeated_after_indeterminate_takes_effect_once(size: int, landed: bool) -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        t = producer.transaction()
        await t.append("a", 0, blob(1, size, fill=1))
        await t.append("b", 0, blob(2, size, fill=2))

        async def lost(store: Scripted, act: Any) -> Any:
            raise Indeterminate("no answer")

        if landed:
            desk.store.will("put_if_absent", lost_answer)
        desk.store.always["put_if_absent"] = lost
        for _ in range(1 if landed else 2):
            with pytest.raises(Indeterminate):
                await t.commit()
            assert "indeterminate" == t.state
            with pytest.raises(InvalidRequest):
                t.abort()
        desk.store.always.clear()
        placed = await t.commit()
        assert ([0, 0], 1) == ([p.base_offset for p in placed], producer.epoch)
        assert [[1], [], [2]] == await desk.everything()
        with pytest.raises(InvalidRequest):
            await t.commit()

    at_a_desk(main)


def test_bytes_that_could_not_be_staged_abort_the_transaction_whole() -> None:
    """The batches were forgotten and the rest could be committed: half a transaction, with no error."""

    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        for step in (away, lost_answer):
            t = producer.transaction()
            await t.append("b", 0, blob(fill=1))
            desk.store.always["put"] = step
            with pytest.raises(Unavailable):
                await t.append("a", 0, blob(1, 3_000, fill=2))
            desk.store.always.clear()
            assert "aborted" == t.state
            with pytest.raises(InvalidRequest):
                await t.commit()
        assert [[], [], []] == await desk.everything()

    at_a_desk(main)


def test_a_commit_whose_caller_was_cancelled_is_undecided_and_can_be_asked_again() -> None:
    """It was called open, so it could be aborted while it took effect."""

    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        t = producer.transaction()
        await t.append("a", 0, blob(fill=1))
        gate = Gate()
        desk.store.will("put_if_absent", gate)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(t.commit(), 1)
        with pytest.raises(InvalidRequest):
            t.abort()
        gate.opened.set()
        assert [0] == [p.base_offset for p in await t.commit()]
        assert ([1], 1) == (await desk.log(), producer.epoch)

    at_a_desk(main)


def test_an_empty_transaction_commits_and_bumps_the_epoch() -> None:
    async def main(desk: Desk) -> None:
        producer = await desk.space.producer("x")
        async with producer.transaction():
            pass
        assert 1 == producer.epoch
        with pytest.raises(InvalidRequest):
            (await desk.space.producer()).transaction()
        with pytest.raises(InvalidRequest):
            await desk.space.producer("x" * 513)

    at_a_desk(main)
