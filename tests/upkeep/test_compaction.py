"""Compaction: what stays of every key, for how long tombstones do, and that neither crash nor company changes that."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from headwater.errors import Corrupt, Unavailable
from headwater.log.config import TopicConfig
from headwater.log.operations import Column, SetSchema, SwapFiles
from headwater.upkeep import cleaner, rewriting
from headwater.upkeep.compaction import compact
from headwater.upkeep.offload import inline
from tests.log.helpers import blob, keys_under, memory, opened, simulate
from tests.log.helpers_store import Scripted, away, lost_answer
from tests.upkeep.helpers_compaction import DAY, HOUR, T0, Desk, Row, listed_by_a_page


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


def test_the_tombstones_of_a_partition_that_rests_stay_as_in_kafka() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", None))
        await desk.archive()
        await desk.compact(T0)
        assert 0 == (await desk.compact(T0 + 9 * DAY)).partitions
        assert [Row(0, b"a", None)] == await desk.rows()

    at_a_desk(main)


# -- what is due -----------------------------------------------------------------------------------------


def test_the_hot_part_is_left_alone() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        await desk.append((b"a", b"3"))
        await desk.compact()
        assert [Row(1, b"a", b"2"), Row(2, b"a", b"3")] == await desk.rows()

    at_a_desk(main)


def test_topics_of_another_policy_are_left_alone() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        await desk.ns.alter_topic("t", {"cleanup.policy": "delete"})
        assert 0 == (await desk.compact()).partitions
        await desk.ns.alter_topic("t", {"cleanup.policy": "compact,delete"})
        assert 1 == (await desk.compact()).partitions

    at_a_desk(main)


def test_records_younger_than_min_compaction_lag_ms_are_left_alone_and_so_is_what_follows() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"), at=T0 - 9 * HOUR)
        await desk.append((b"a", b"3"), at=T0 - HOUR)
        await desk.append((b"a", b"4"), (b"b", b"1"), at=T0 - 9 * HOUR)
        await desk.archive(2, 3, 5)
        report = await desk.compact(T0)
        assert [1, 2, 3, 4] == [row.offset for row in await desk.rows()]
        assert (2, T0 + 4 * HOUR) == (desk.clean, report.next_due_ms)
        assert 0 == (await desk.compact(T0 + 4 * HOUR - 1)).partitions
        await desk.compact(T0 + 4 * HOUR)
        assert [3, 4] == [row.offset for row in await desk.rows()]

    at_a_desk(main, min_compaction_lag_ms=str(5 * HOUR))


def test_a_partition_waits_until_its_dirty_ratio_is_exceeded() -> None:
    async def main(desk: Desk) -> None:
        for i in range(4):
            await desk.append((b"k%d" % i, b"1"))
            await desk.archive()
        await desk.compact()
        for i in range(4):
            await desk.append((b"k%d" % i, b"2"))
            await desk.archive()
            assert 0 == (await desk.compact()).partitions
        await desk.append((b"k9", b"2"))
        await desk.archive()
        assert 1 == (await desk.compact()).partitions

    at_a_desk(main, min_cleanable_dirty_ratio="0.5")


def test_max_compaction_lag_ms_makes_a_partition_due_however_little_is_dirty() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), at=T0)
        await desk.archive()
        report = await desk.compact(T0 + 5 * HOUR)
        assert (0, T0 + 5 * HOUR + 1) == (report.partitions, report.next_due_ms)
        report = await desk.compact(T0 + 5 * HOUR + 1)
        assert (1, None) == (report.partitions, report.next_due_ms)

    at_a_desk(main, min_cleanable_dirty_ratio="1", max_compaction_lag_ms=str(5 * HOUR))


# -- files -----------------------------------------------------------------------------------------------


def test_a_partition_that_loses_everything_but_its_last_records_stays_covered() -> None:
    async def main(desk: Desk) -> None:
        for i in range(6):
            await desk.append((b"a", b"%d" % i), (b"b", b"%d" % i))
            await desk.archive()
            await desk.compact()
        assert [Row(10, b"a", b"5"), Row(11, b"b", b"5")] == await desk.rows()
        assert [Row(11, b"b", b"5")] == await desk.rows(11)
        assert (0, 12) == (desk.files[0].base, desk.files[-1].end)
        assert len(desk.files) <= 2, "files without records become one"

    at_a_desk(main)


def test_small_neighbours_that_lose_something_become_one_file() -> None:
    async def main(desk: Desk) -> None:
        for i in range(5):
            await desk.append((b"a%d" % i, b"1"), (b"b", b"%d" % i))
            await desk.archive()
        await desk.compact()
        assert [(0, 8, 4), (8, 10, 2)] == [(file.base, file.end, file.count) for file in desk.files]

    at_a_desk(main)


def test_what_was_compacted_at_different_times_shares_no_file_while_tombstones_wait() -> None:
    async def main(desk: Desk) -> None:
        for hour in range(3):
            await desk.append((b"a%d" % hour, None), (b"b%d" % hour, b"1"), (b"c%d" % hour, b"1"))
            await desk.archive()
            await desk.compact(T0 + (1 + hour) * HOUR)
        await desk.append(*((b"b%d" % hour, b"2") for hour in range(3)))
        await desk.archive()
        await desk.compact(T0 + 5 * HOUR)
        times = [file.cleaned_ms for file in desk.files]
        assert [T0 + hour * HOUR for hour in (1, 2, 3, 5)] == times
        await desk.append(*((b"c%d" % hour, b"2") for hour in range(3)))
        await desk.archive()
        report = await desk.compact(T0 + 2 * DAY)
        assert (3, list(range(9, 15))) == (report.tombstones, [row.offset for row in await desk.rows()])

    at_a_desk(main)


def test_more_keys_than_fit_the_memory_are_compacted_in_parts_and_a_file_may_be_cut() -> None:
    async def main(desk: Desk) -> None:
        for i in range(8):
            await desk.append(*((b"key-%04d" % (k % 300), b"%d" % i) for k in range(400)))
        await desk.archive(1_600, 3_200)
        before = await desk.rows()
        report = await desk.compact(memory_bytes_max=4_096)
        assert report.swaps > 2
        latest = {row.key: row for row in before}
        assert sorted(row.offset for row in latest.values()) == [row.offset for row in await desk.rows()]
        assert 3_200 == desk.clean

    def small_reads(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(cleaner, "KEYS_BYTES", 2_048)

    with pytest.MonkeyPatch.context() as patch:
        small_reads(patch)
        at_a_desk(main)


def test_large_results_are_cut_into_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "CUT_BYTES", 1_000)

    async def main(desk: Desk) -> None:
        for _ in range(2):
            await desk.append(*((b"key-%d" % k, b"x" * 500) for k in range(20)))
        await desk.archive()
        await desk.compact()
        assert list(range(20, 40)) == [row.offset for row in await desk.rows()]
        assert 0 == desk.files[0].base
        assert all(file.cleaned_ms for file in desk.files)

    at_a_desk(main)


def test_files_that_a_page_lists_are_compacted_too() -> None:
    async def main(desk: Desk) -> None:
        for i in range(6):
            await desk.append((b"a", b"%d" % i), (b"k%d" % i, b"1"))
        await desk.archive(2, 4, 6, 8)
        await desk.compact(T0)
        await listed_by_a_page(desk)
        await desk.append((b"k1", b"2"))
        await desk.archive(10, 13)
        await desk.compact(T0)
        archive = desk.ns.topic("t").partitions[0].archive
        assert archive is not None
        assert (1, 13, 13) == (len(archive.pages), archive.end, archive.clean)
        kept = [Row(1, b"k0", b"1"), Row(5, b"k2", b"1"), Row(7, b"k3", b"1"), Row(9, b"k4", b"1"),
                Row(10, b"a", b"5"), Row(11, b"k5", b"1"), Row(12, b"k1", b"2")]  # fmt: skip
        assert kept == await desk.rows()

    at_a_desk(main)


def test_dirty_files_that_a_page_lists_are_compacted_too() -> None:
    async def main(desk: Desk) -> None:
        for i in range(4):
            await desk.append((b"a", b"%d" % i), (b"k%d" % i, None))
        await desk.archive(2, 4, 6, 8)
        await listed_by_a_page(desk)
        await desk.compact(T0)
        assert [1, 3, 5, 6, 7] == [row.offset for row in await desk.rows()]
        assert 8 == desk.clean
        await desk.append((b"z", b"1"))
        await desk.archive()
        await desk.compact(T0 + DAY)
        assert [1, 3, 5, 6, 7, 8] == [row.offset for row in await desk.rows()]
        await desk.append((b"z", b"2"))
        await desk.archive()
        await desk.compact(T0 + 2 * DAY)
        assert [6, 9] == [row.offset for row in await desk.rows()]

    at_a_desk(main)


def test_typed_columns_are_carried_over_and_those_of_older_files_widened() -> None:
    old, new = [Column("n", "int32")], [Column("n", "int64"), Column("s", "string")]

    async def main(desk: Desk) -> None:
        wish = {"topic": 1, "format": "json"}
        number = '{"type": "object", "properties": {"n": {"type": "integer"}}}'
        both = '{"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}'
        await desk.ns.writer.commit(ops=[SetSchema(**wish, version=1, definition=number, columns=old)])
        await desk.append((b"a", b"{}"), (b"b", b"{}"))
        await desk.archive(2, columns=old)
        await desk.ns.writer.commit(ops=[SetSchema(**wish, version=2, definition=both, columns=new)])
        await desk.append((b"a", b"{}"), (b"c", b"{}"), (b"c", b"{}"))
        await desk.archive(columns=new)
        await desk.compact()
        assert [1, 2, 4] == [row.offset for row in await desk.rows()]
        assert 1 == len(desk.files)
        data = (await desk.ns.store.get(desk.files[0].key)).data
        table = pq.read_table(pa.BufferReader(data))
        assert ([1, 2, 4], [None, "2", "4"]) == (table.column("n").to_pylist(), table.column("s").to_pylist())
        assert pa.int64() == table.schema.field("n").type

    at_a_desk(main)


# -- failure and company ---------------------------------------------------------------------------------


def test_of_two_compactors_one_wins_and_the_other_deletes_what_it_made() -> None:
    async def main(desk: Desk) -> None:
        for i in range(3):
            await desk.append((b"a", b"%d" % i), (b"k%d" % i, b"1"))
        await desk.archive(2, 4, 6)
        other = await opened(desk.store, seed=2)
        commit = desk.ns.writer.commit

        async def after_the_other(**wish: Any) -> Any:
            desk.ns.writer.commit = commit  # type: ignore[method-assign]
            await compact(other, offload=inline)
            return await commit(**wish)

        desk.ns.writer.commit = after_the_other  # type: ignore[method-assign, assignment]
        report = await desk.compact()
        assert (0, 0) == (report.swaps, report.lost)
        assert [1, 3, 4, 5] == [row.offset for row in await desk.rows()]
        stored = set(await keys_under(desk.ns.store, "archive/"))
        assert {file.key for file in desk.files} <= stored
        assert 4 == len(stored), "three old ones and what the winner made"

    at_a_desk(main)


def test_a_damaged_file_is_named_and_nothing_is_lost() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        (file,) = desk.files
        good = (await desk.ns.store.get(file.key)).data
        await desk.ns.store.put(file.key, good[:10] + bytes([good[10] ^ 1]) + good[11:])
        with pytest.raises(Corrupt, match="archive/topic=t"):
            await desk.compact()
        assert ([file], 0) == (desk.files, desk.clean)
        assert [file.key] == await keys_under(desk.ns.store, "archive/")
        await desk.ns.store.put(file.key, good)
        await desk.compact()
        assert [Row(1, b"a", b"2")] == await desk.rows()

    at_a_desk(main)


def test_a_topic_deleted_meanwhile_is_no_failure() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        other = await opened(desk.store, seed=2)
        commit = desk.ns.writer.commit

        async def after_the_end(**wish: Any) -> Any:
            desk.ns.writer.commit = commit  # type: ignore[method-assign]
            await other.delete_topic("t")
            return await commit(**wish)

        desk.ns.writer.commit = after_the_end  # type: ignore[method-assign, assignment]
        assert 0 == (await desk.compact()).swaps

    at_a_desk(main)


def test_a_deadline_leaves_the_rest_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaner, "STRIDE_FILES", 1)

    async def main(desk: Desk) -> None:
        for i in range(6):
            await desk.append((b"a", b"%d" % i), (b"k%d" % i, b"1"))
        await desk.archive(2, 4, 6, 8, 10, 12)
        assert (await desk.compact(deadline_s=desk.ns.chain.clock.elapsed_s())).left
        assert 0 == desk.clean
        report = await desk.compact()
        assert (6, False, 12) == (report.swaps, report.left, desk.clean)
        assert [1, 3, 5, 7, 9, 10, 11] == [row.offset for row in await desk.rows()]

    at_a_desk(main)


def test_a_damaged_partition_does_not_keep_the_others_from_being_compacted() -> None:
    async def main(desk: Desk) -> None:
        await desk.ns.create_topic("u", 1, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"})
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        (file,) = desk.files
        other = structs.replace(file, key=file.key.replace("topic=t", "topic=u"))
        await desk.ns.store.put(other.key, b"PAR1" + bytes(file.bytes - 8) + b"PAR1")
        await desk.ns.append("u", 0, blob(2))
        await desk.ns.writer.commit(ops=[SwapFiles(topic=2, partition=0, base=0, end=2, files=[other])])
        with pytest.raises(Corrupt, match="archive/topic=u"):
            await desk.compact()
        assert [Row(1, b"a", b"2")] == await desk.rows()

    at_a_desk(main)


def test_a_store_that_falls_silent_at_the_commit_is_asked_what_became_of_it() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        desk.store.will("put_if_absent", lost_answer)
        report = await desk.compact()
        assert (1, 2) == (report.swaps, desk.clean)
        assert [Row(1, b"a", b"2")] == await desk.rows()

    at_a_desk(main)


def test_a_store_that_turns_us_away_leaves_everything_as_it_was() -> None:
    async def main(desk: Desk) -> None:
        await desk.append((b"a", b"1"), (b"a", b"2"))
        await desk.archive()
        files_before = desk.files
        desk.store.always["put"] = away
        with pytest.raises(Unavailable):
            await desk.compact()
        assert (files_before, 0) == (desk.files, desk.clean)
        desk.store.always.clear()
        await desk.compact()
        assert [Row(1, b"a", b"2")] == await desk.rows()

    at_a_desk(main)


def test_what_is_to_be_compacted_soon_is_archived_by_then() -> None:
    lag = {"max.compaction.lag.ms": "1000", "archive.ms": "5000"}
    assert 1_000 == TopicConfig.of({**lag, "cleanup.policy": "compact"}).archive_within_ms
    assert 5_000 == TopicConfig.of(lag).archive_within_ms
    assert 5_000 == TopicConfig.of({"archive.ms": "5000", "cleanup.policy": "compact"}).archive_within_ms
