"""Retention: what goes by time, by size, never what is to be kept, and nothing at all while nothing is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import NotFound
from headwater.log import files, keys
from headwater.log.operations import EndReserve, File, InitProducer, Reserve, SwapFiles
from headwater.log.options import Options
from headwater.log.writer import Append
from headwater.sim.loop import SimClock, sim_loop
from headwater.upkeep.retention import RetentionReport, next_due_ms, retain
from tests.log.helpers import blob, memory, opened, simulate
from tests.log.helpers_store import Scripted

T0 = 1_800_000_000_000  # when the simulated clock starts
HOUR = 3_600_000


class Desk:
    """A namespace with a topic ``t``, and short ways to fill it with chunks and files of known times and sizes."""

    def __init__(self, config: dict[str, str], partitions: int = 1, options: Options | None = None) -> None:
        self.config, self.partitions, self.options = config, partitions, options

    async def start(self) -> Desk:
        self.store = Scripted(memory())
        self.ns = await opened(self.store, options=self.options)
        await self.ns.create_topic("t", self.partitions, self.config)
        return self

    async def append(self, *times: int, size: int = 100, count: int = 1, partition: int = 0) -> None:
        """One chunk for each time, which is its newest record's."""
        for time in times:
            made = blob(count, size, timestamp_min=time - 1, timestamp_max=time)
            await self.ns.append("t", partition, made)

    async def archive(
        self, *spans: tuple[int, int, int], size: int = 100, partition: int = 0, page: bool = False
    ) -> None:
        """Files of ``(base, end, time of the newest record)``, which lie nowhere: retention never reads one."""
        tip = self.ns.state.seq
        made = [
            File(base, end, end - base, keys.archive_key("t", partition, base, end, tip, "aaaaaaaa"), size, 1, 1,
                 time - HOUR, time)
            for base, end, time in spans
        ]  # fmt: skip
        pages = []
        if page:
            listed, data = files.encode(made, keys.file_page_key(tip, 1, partition, "aaaaaaaa"))
            await self.ns.store.put(listed.key, data)
            pages, made = [listed], []
        base, end = spans[0][0], spans[-1][1]
        op = SwapFiles(topic=1, partition=partition, base=base, end=end, pages=pages, files=made)
        await self.ns.writer.commit(ops=[op])

    def start_of(self, partition: int = 0) -> int:
        return self.ns.topic("t").partitions[partition].start

    async def retain(self, now_ms: int | None = None) -> RetentionReport:
        return await retain(self.ns, now_ms=now_ms)


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]], desk: Desk) -> None:
    async def start() -> None:
        await main(await desk.start())

    simulate(start())


def with_time(**more: str) -> dict[str, str]:
    return {"retention.ms": str(10 * HOUR), **more}


def with_size(size: int, **more: str) -> dict[str, str]:
    return {"retention.bytes": str(size), **more}


# -- by time ---------------------------------------------------------------------------------------------


def test_what_is_older_than_retention_ms_goes_and_what_is_just_as_old_stays() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, T0 + 1, T0 + HOUR)
        assert 0 == (await desk.retain(T0 + 10 * HOUR)).trimmed
        report = await desk.retain(T0 + 10 * HOUR + 1)
        assert (1, 1, 1, 100) == (report.looked_at, report.trimmed, report.offsets, report.bytes)
        assert 1 == desk.start_of()
        assert T0 + 1 + 10 * HOUR + 1 == report.next_due_ms == next_due_ms(desk.ns.state)

    at_a_desk(main, Desk(with_time()))


def test_a_whole_partition_may_go() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, T0)
        report = await desk.retain(T0 + 11 * HOUR)
        assert (2, 2, None) == (desk.start_of(), report.offsets, report.next_due_ms)
        assert 0 == (await desk.retain(T0 + 12 * HOUR)).looked_at

    at_a_desk(main, Desk(with_time()))


def test_a_record_of_the_future_keeps_what_lies_behind_it_as_in_kafka() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, T0 + 900 * HOUR, T0)
        assert 1 == (await desk.retain(T0 + 500 * HOUR)).offsets
        assert 0 == (await desk.retain(T0 + 600 * HOUR)).offsets
        await desk.ns.trim("t", 0, 2)
        assert 1 == (await desk.retain(T0 + 600 * HOUR)).offsets

    at_a_desk(main, Desk(with_time()))


def test_time_is_that_of_the_manifests_or_later() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0)
        slow = SimClock(sim_loop(), skew_ms=-20 * HOUR)
        other = await opened(desk.store, seed=2, clock=slow)
        assert 0 == (await retain(other)).trimmed
        fast = await opened(desk.store, seed=3, clock=SimClock(sim_loop(), skew_ms=11 * HOUR))
        await fast.alter_topic("t", {"x": "y"})
        assert 1 == (await retain(other)).trimmed

    at_a_desk(main, Desk(with_time()))


def test_a_clock_that_is_fast_deletes_nothing() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0)
        fast = await opened(desk.store, seed=3, clock=SimClock(sim_loop(), skew_ms=11 * HOUR))
        report = await retain(fast)
        assert (0, T0 + 10 * HOUR + 1) == (report.trimmed, report.next_due_ms)
        await asyncio.sleep(10 * 3_600 + 1)
        assert 1 == (await retain(fast)).trimmed

    at_a_desk(main, Desk(with_time()))


def test_files_go_one_by_one_and_chunks_after_them() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(*(T0 + i * HOUR for i in range(6)))
        await desk.archive((0, 2, T0 + HOUR), (2, 4, T0 + 3 * HOUR))
        assert 2 == (await desk.retain(T0 + 12 * HOUR)).offsets
        assert 1 == len(desk.ns.topic("t").partitions[0].archive.files)  # type: ignore[union-attr]
        assert 0 == (await desk.retain(T0 + 13 * HOUR)).offsets
        assert 3 == (await desk.retain(T0 + 14 * HOUR + 1)).offsets
        assert 5 == desk.start_of()

    at_a_desk(main, Desk(with_time()))


def test_a_list_of_files_is_opened_only_if_one_of_them_may_be_due() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, count=4)
        await desk.archive((0, 2, T0 + HOUR), (2, 4, T0 + 30 * HOUR), page=True)
        desk.store.calls.clear()
        assert 0 == (await desk.retain(T0 + 9 * HOUR)).trimmed
        assert {"get": 1} == desk.store.calls
        report = await desk.retain(T0 + 11 * HOUR + 1)
        assert (2, T0 + 40 * HOUR + 1) == (desk.start_of(), report.next_due_ms)

    at_a_desk(main, Desk(with_time()))


def test_a_list_of_files_that_is_due_goes_with_all_of_them() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, count=6)
        await desk.archive((0, 2, T0), (2, 4, T0 + HOUR), page=True)
        await desk.archive((4, 6, T0 + 2 * HOUR))
        await desk.retain(T0 + 12 * HOUR)
        archive = desk.ns.topic("t").partitions[0].archive
        assert archive is not None
        assert (4, [], [4]) == (desk.start_of(), archive.pages, [file.base for file in archive.files])

    at_a_desk(main, Desk(with_time()))


# -- by size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "start"), [(0, 5), (99, 4), (100, 4), (101, 3), (400, 1), (401, 0), (500, 0)])
def test_the_oldest_goes_while_what_remains_is_still_retention_bytes(bound: int, start: int) -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, T0, T0, T0, T0)
        await desk.retain(T0)
        assert start == desk.start_of()

    at_a_desk(main, Desk(with_size(bound)))


def test_files_count_with_their_own_size_and_a_list_without_those_below_the_log_start() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, size=1_000, count=6)
        await desk.archive((0, 2, T0), (2, 4, T0), (4, 6, T0), size=100, page=True)
        await desk.append(T0, size=50)
        await desk.ns.trim("t", 0, 2)
        assert 0 == (await desk.retain(T0)).trimmed  # 100 + 100 + 50, and 150 would remain
        await desk.ns.alter_topic("t", {"retention.bytes": "150"})
        assert 2 == (await desk.retain(T0)).offsets

    at_a_desk(main, Desk(with_size(200)))


def test_both_bounds_hold_at_once() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0 + 100 * HOUR, T0, T0, T0 + 100 * HOUR)
        assert 3 == (await desk.retain(T0 + 20 * HOUR)).offsets

    at_a_desk(main, Desk({**with_time(), "retention.bytes": "300"}))


# -- what never goes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{}, {"retention.ms": "-1", "retention.bytes": "-1"}, with_time(**{"cleanup.policy": "compact"})]
)
def test_for_ever_is_for_ever(config: dict[str, str]) -> None:
    async def main(desk: Desk) -> None:
        await desk.append(1, 2, 3)
        assert RetentionReport() == await desk.retain(T0 + 10**9 * HOUR)
        assert next_due_ms(desk.ns.state) is None

    at_a_desk(main, Desk(config))


def test_nothing_that_is_still_reserved_goes() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0)
        values = (await desk.ns.writer.commit(ops=[InitProducer(tid="x")])).values
        pid, epoch = values["pid"], values["epoch"]
        held = blob(1, 100, producer_id=pid, producer_epoch=epoch, timestamp_min=T0, timestamp_max=T0)
        wish = Reserve(pid=pid, epoch=epoch, timeout_ms=10**9)
        await desk.ns.writer.commit([Append(topic=1, partition=0, batch=held)], [wish])
        await desk.append(T0)
        await desk.retain(T0 + 11 * HOUR)
        assert 1 == desk.start_of()
        await desk.ns.writer.commit(ops=[EndReserve(pid=pid, epoch=epoch, commit=False)])
        await desk.retain(T0 + 11 * HOUR)
        assert 3 == desk.start_of()

    at_a_desk(main, Desk(with_time()))


# -- cost and company --------------------------------------------------------------------------------------


def test_while_nothing_is_due_a_run_costs_one_get() -> None:
    async def main(desk: Desk) -> None:
        for partition in range(50):
            await desk.append(T0, partition=partition)
        desk.store.calls.clear()
        report = await desk.retain(T0)
        assert (50, 0, {"get": 1}) == (report.looked_at, report.trimmed, desk.store.calls)

    at_a_desk(main, Desk({**with_time(), "retention.bytes": "100"}, partitions=50))


def test_many_partitions_take_one_commit() -> None:
    async def main(desk: Desk) -> None:
        for partition in range(50):
            await desk.append(T0, T0 + 20 * HOUR, partition=partition)
        before = desk.ns.state.seq
        report = await desk.retain(T0 + 11 * HOUR)
        assert (50, 50, before + 1) == (report.trimmed, report.offsets, desk.ns.state.seq)

    at_a_desk(main, Desk(with_time(), partitions=50))


def test_chunks_that_only_index_pages_know_go_too() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(*(T0 + i * HOUR for i in range(20)))
        await desk.ns.house.snapshot()
        await desk.append(T0 + 30 * HOUR)
        assert not [entry for entry in desk.ns.topic("t").partitions[0].tail if entry.base < 20]
        assert 0 == next_due_ms(desk.ns.state)  # the state alone cannot tell
        report = await desk.retain(T0 + 15 * HOUR)
        assert (5, T0 + 15 * HOUR + 1) == (desk.start_of(), report.next_due_ms)
        await desk.ns.alter_topic("t", {"retention.bytes": "1000"})
        await desk.retain(T0 + 15 * HOUR)
        assert 11 == desk.start_of()

    at_a_desk(main, Desk(with_time()))


def test_two_at_once_trim_once_and_a_deleted_topic_does_not_stop_the_others() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0)
        await desk.ns.create_topic("u", 1, with_time())
        await desk.ns.append("u", 0, blob(1, 10, timestamp_max=T0))
        other = await opened(desk.store, seed=2)
        commit = desk.ns.writer.commit

        async def after_others(**wish: Any) -> Any:
            desk.ns.writer.commit = commit  # type: ignore[method-assign]
            await retain(other, now_ms=T0 + 11 * HOUR)
            await other.delete_topic("t")
            return await commit(**wish)

        desk.ns.writer.commit = after_others  # type: ignore[method-assign, assignment]
        report = await desk.retain(T0 + 11 * HOUR)
        assert (1, 1) == (report.trimmed, desk.ns.topic("u").partitions[0].start)

    at_a_desk(main, Desk(with_time()))


def test_delete_records_moves_the_log_start_over_files_and_lists_of_them() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(T0, count=10)
        await desk.archive((0, 2, T0), (2, 4, T0), page=True)
        await desk.archive((4, 6, T0), (6, 8, T0))
        for before, kept in ((1, (1, 2)), (3, (1, 2)), (5, (0, 2)), (6, (0, 1)), (9, (0, 0))):
            await desk.ns.trim("t", 0, before)
            archive = desk.ns.topic("t").partitions[0].archive
            assert archive is not None
            assert (before, 8, kept) == (desk.start_of(), archive.end, (len(archive.pages), len(archive.files)))
        with pytest.raises(NotFound):
            await desk.ns.trim("u", 0, 1)

    at_a_desk(main, Desk({}))


# -- any log ---------------------------------------------------------------------------------------------

pieces = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 400), st.integers(1, 3)), min_size=1, max_size=12)


def kafka(units: list[tuple[int, int, int]], now: int, keep_ms: int, keep_bytes: int) -> int:
    """The new log start by Kafka's rule, applied until it changes nothing: units are (end, newest record, bytes)."""
    start, left = 0, sum(size for _, _, size in units)
    for end, newest, size in units:
        by_time = keep_ms >= 0 and now - newest > keep_ms
        by_size = keep_bytes >= 0 and left - size >= keep_bytes
        if not (by_time or by_size):
            break
        start, left = end, left - size
    return start


@settings(max_examples=50)
@given(pieces, st.integers(0, 12), st.integers(0, 12), st.sampled_from([-1, 0, 3, 10]), st.sampled_from([-1, 0, 500]))
def test_any_log_starts_where_kafka_would_let_it_start(
    chunks: list[tuple[int, int, int]], archived: int, paged: int, hours: int, size_max: int
) -> None:
    config = {"retention.ms": str(hours * HOUR if hours >= 0 else -1), "retention.bytes": str(size_max)}

    async def main(desk: Desk) -> None:
        units, end = [], 0
        for hour, size, count in chunks:
            await desk.append(T0 + hour * HOUR, size=size, count=count)
            end += count
            units.append((end, T0 + hour * HOUR, size))
        bounds = [0, *(end for end, _, _ in units)]
        for first, last, page in ((0, min(archived, paged, len(units)), True), (min(paged, archived), archived, False)):
            for i in range(first, min(last, len(units))) if not page else ([0] if last else []):
                j = last if page else i + 1
                files_of = [(bounds[k], bounds[k + 1], units[k][1]) for k in range(i, j)]
                await desk.archive(*files_of, size=77, page=page)
        done = min(archived, len(units))
        units = [(end, newest, 77 if i < done else size) for i, (end, newest, size) in enumerate(units)]
        await desk.ns.house.snapshot()
        now = T0 + 31 * HOUR
        report = await desk.retain(now)
        expected = kafka(units, now, hours * HOUR if hours >= 0 else -1, size_max)
        assert (expected, expected) == (desk.start_of(), report.offsets)
        assert 0 == (await desk.retain(now)).offsets

    at_a_desk(main, Desk(config))
