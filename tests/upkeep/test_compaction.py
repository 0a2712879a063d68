"""Compaction: what stays of every key, for how long tombstones do, and that neither crash nor company changes that."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.log.helpers import memory, simulate
from tests.log.helpers_store import Scripted
from tests.upkeep.helpers_compaction import DAY, HOUR, T0, Desk, Row


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]], **config: str) -> None:
    async def start() -> None:
        await main(await Desk.start(Scripted(memory()), **config))

    simulate(start())


def test_the_latest_value_of_every_key_stays_at_its_offset() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"b", b"1"), (b"a", b"2"))
        await desk.append((b"c", b"1"), (b"b", b"2"), (b"a", b"3"))
        await desk.archive(3, 6)
        report = await desk.compact()
        assert [Row(3, b"c", b"1"), Row(4, b"b", b"2"), Row(5, b"a", b"3")] == await desk.rows()
        assert (1, 3, 3, 1, 6) == (report.files, report.records, report.dropped, report.partitions, desk.clean)
        assert [(0, 3, 0), (3, 6, 3)] == [(file.base, file.end, file.count) for file in desk.files]

    at_a_desk(main)


def test_a_second_run_finds_nothing_to_do() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        await desk.compact()
        desk.store.calls.clear()
        report = await desk.compact()
        assert (0, {"get": 1}) == (report.partitions, desk.store.calls)

    at_a_desk(main)


def test_older_files_lose_what_newer_ones_supersede_and_others_are_left_alone() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"b", b"1"), (b"c", b"1"), (b"d", b"1"))
        await desk.archive(2, 4)
        await desk.compact()
        before = [file.key for file in desk.files]
        await desk.append((b"a", b"2"), (b"e", b"1"))
        await desk.archive()
        report = await desk.compact()
        assert [Row(1, b"b", b"1"), Row(2, b"c", b"1"), Row(3, b"d", b"1"), Row(4, b"a", b"2"), Row(5, b"e", b"1")] == (
            await desk.rows()
        )
        after = [file.key for file in desk.files]
        assert (1, before[1], 3) == (report.files, after[1], len(after))
        assert before[0] not in after

    at_a_desk(main)


def test_records_without_a_key_stay() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((None, b"1"), (b"a", b"1"), (None, None), (b"a", b"2"), (None, b"1"))
        await desk.archive()
        await desk.compact()
        await desk.append((b"a", b"3"))
        await desk.archive()
        await desk.compact(T0 + 100 * DAY)
        await desk.append((b"b", b"3"))
        await desk.archive()
        await desk.compact(T0 + 200 * DAY)
        assert [Row(0, None, b"1"), Row(2, None, None), Row(4, None, b"1"), Row(5, b"a", b"3"), Row(6, b"b", b"3")] == (
            await desk.rows()
        )

    at_a_desk(main)


# -- tombstones ------------------------------------------------------------------------------------------


def test_a_tombstone_stays_for_delete_retention_ms_after_the_first_compaction_and_then_goes() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"b", b"1"), (b"a", None))
        await desk.archive()
        await desk.compact(T0 + HOUR)
        tomb, rest = Row(2, b"a", None), Row(1, b"b", b"1")
        assert [rest, tomb] == await desk.rows()
        for i, (at, kept) in enumerate([(T0 + 24 * HOUR, True), (T0 + 25 * HOUR - 1, True), (T0 + 25 * HOUR, False)]):
            await desk.append((b"x%d" % i, b"1"))
            await desk.archive()
            report = await desk.compact(at)
            assert (kept, 0 if kept else 1) == (tomb in await desk.rows(), report.tombstones)
        assert rest in await desk.rows()

    at_a_desk(main)


def test_a_later_rewriting_does_not_lengthen_the_life_of_a_tombstone() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", None), (b"b", b"1"), (b"c", b"1"))
        await desk.archive()
        await desk.compact(T0)
        for hour in range(1, 24):
            await desk.append((b"b", b"%d" % hour))
            await desk.archive()
            await desk.compact(T0 + hour * HOUR)
            assert Row(0, b"a", None) in await desk.rows()
        await desk.append((b"b", b"last"))
        await desk.archive()
        await desk.compact(T0 + DAY)
        assert [Row(2, b"c", b"1"), Row(26, b"b", b"last")] == await desk.rows()

    at_a_desk(main)
