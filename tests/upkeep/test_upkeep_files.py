"""Small files become large ones and old ones move to pages, at a bounded price and without touching a record."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from headwater.errors import Conflict, Corrupt
from headwater.limits import FILES_MAX, MIB
from headwater.log import keys
from headwater.log.config import TopicConfig
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.log.state import Archive, Partition
from headwater.sim.faults import Process, SimBucket, SimStore
from headwater.sim.loop import sim_loop
from headwater.store.base import ObjectStore
from headwater.upkeep import files as tidying
from headwater.upkeep.archiver import ArchiveReport, archive
from headwater.upkeep.offload import inline
from tests.log.helpers import FIXED, network, simulate
from tests.upkeep import helpers_upkeep as up

KIB = 1 << 10
CONFIG = TopicConfig()


def listed(*sizes: int, cleaned: int = 0, clean: int = 0) -> Partition:
    """A partition whose files have these sizes, 10 offsets each; the first ``cleaned`` went through compaction."""
    files = [
        File(10 * i, 10 * i + 10, 10, f"f{i}", size, 0, 1, 0, 0, 7 if i < cleaned else 0)
        for i, size in enumerate(sizes)
    ]
    return Partition(next=10 * len(sizes), archive=Archive(10 * len(sizes), clean, [], files))


def found(partition: Partition) -> list[int]:
    return [file.base // 10 for file in tidying.small_neighbours(partition, CONFIG)]


# -- what is merged -----------------------------------------------------------------------------------


def test_enough_small_neighbours_are_merged() -> None:
    assert [] == found(listed(*[4 * MIB] * 7))
    assert list(range(8)) == found(listed(*[4 * MIB] * 8))
    assert [] == found(listed(*[MIB] * 27))
    assert list(range(28)) == found(listed(*[MIB] * 28))
    assert [] == found(listed(*[KIB] * 63))
    assert list(range(64)) == found(listed(*[KIB] * 64))
    assert [] == found(listed(*[7 * MIB] * 100))
    assert [] == found(listed())
    assert not tidying.is_untidy(Partition(), CONFIG)


def test_large_files_keep_small_ones_apart() -> None:
    assert list(range(8, 16)) == found(listed(*[4 * MIB] * 7, 16 * MIB, *[4 * MIB] * 8))
    assert [] == found(listed(*[4 * MIB] * 7, 16 * MIB, *[4 * MIB] * 7))


def test_a_file_that_would_hardly_grow_is_left_out() -> None:
    assert [] == found(listed(6 * MIB, *[MIB] * 20))
    assert list(range(1, 31)) == found(listed(6 * MIB, *[MIB] * 30))
    assert list(range(30)) == found(listed(*[MIB] * 30, 6 * MIB, *[MIB] * 3))


def test_a_merged_file_fits_an_object() -> None:
    assert list(range(11)) == found(listed(*[5 * MIB] * 20))


def test_what_compaction_went_over_is_not_mixed_with_what_it_did_not() -> None:
    assert [] == found(listed(*[4 * MIB] * 14, cleaned=7))
    assert list(range(7, 15)) == found(listed(*[4 * MIB] * 15, cleaned=7))
    assert list(range(8)) == found(listed(*[4 * MIB] * 15, cleaned=8))
    assert [] == found(listed(*[4 * MIB] * 14, clean=70))
    assert [] == found(listed(*[4 * MIB] * 14, clean=75))
    assert list(range(8)) == found(listed(*[4 * MIB] * 14, clean=80))


@pytest.mark.parametrize(
    ("size", "ratio_max", "files_max"),
    [
        (KIB, 4.1, 260),
        (16 * KIB, 3.1, 260),
        (112 * KIB, 2.2, 150),
        (128 * KIB, 2.0, 130),
        (MIB, 2.0, 65),
        (5 * MIB, 2.0, 20),
    ],
)
def test_written_bytes_are_bounded_over_two_years_of_small_files(size: int, ratio_max: float, files_max: int) -> None:
    """A file of about ``size`` every 6 hours: written / ingested bytes, and how many small files there are."""
    rng = random.Random(size)
    partition = listed()
    assert partition.archive is not None
    listing, ingested, written, small_max = partition.archive.files, 0, 0, 0
    for i in range(2 * 365 * 4):
        fresh = rng.randint(size * 3 // 4, size * 5 // 4)
        listing.append(File(i, i + 1, 1, f"n{i}", fresh, 0, 1, 0, 0))
        ingested += fresh
        written += fresh
        while group := tidying.small_neighbours(partition, CONFIG):
            at, total = listing.index(group[0]), sum(file.bytes for file in group)
            merged = structs.replace(group[0], end=group[-1].end, bytes=total, key=f"m{i}")
            listing[at : at + len(group)] = [merged]
            written += total
        small_max = max(small_max, sum(file.bytes < 7 * MIB for file in listing))
    assert written / ingested <= ratio_max
    assert small_max <= files_max


# -- doing it -----------------------------------------------------------------------------------------


async def trickle(store: ObjectStore, files: int, **config: str) -> Namespace:
    """A partition of so many small archive files."""
    space = await up.opened(store)
    await space.create_topic("t", 1, {name.replace("_", "."): value for name, value in config.items()})
    for seed in range(files):
        await space.append("t", 0, up.arrow(up.some(space, 3, size=300, seed=seed)))
    return space


async def tiny_files(store: ObjectStore, files: int) -> Namespace:
    """So many files that wait to be merged: archived one by one, and called small afterwards."""
    space = await trickle(store, files, archive_bytes="1")
    await archive(space, offload=inline, all=True)
    await space.alter_topic("t", {"archive.bytes": "40000"})
    return space


def test_merged_files_hold_the_same_records() -> None:
    async def main() -> None:
        space = await tiny_files(up.memory(), 20)
        before = await up.rows_of(space)
        assert 20 == len(await up.files_of(space))
        report = await archive(space, offload=inline, all=True)
        after = await up.files_of(space)
        assert (True, True) == (report.merged >= 15, len(after) <= 6)
        assert before == await up.archived_rows(space) == await up.rows_of(space)
        assert ArchiveReport() == await archive(space, offload=inline, all=True)
        await up.assert_sound(space)
        assert 60 == space.topic("t").partitions[0].archived

    simulate(main())


def test_old_files_move_to_pages_and_pages_stay_few() -> None:
    async def main() -> None:
        space = await trickle(up.memory(), FILES_MAX + 10, archive_bytes="1")
        before = await up.rows_of(space)
        report = await archive(space, offload=inline, all=True)
        partition = space.topic("t").partitions[0]
        assert partition.archive is not None
        assert (FILES_MAX + 10, True) == (report.files, report.pages > 1)
        assert len(partition.archive.files) <= FILES_MAX // 2
        (page,) = partition.archive.pages
        assert FILES_MAX + 10 == page.files + len(partition.archive.files)
        assert before == await up.archived_rows(space)
        await space.trim("t", 0, 500)
        assert [row for row in before if row[0] >= 500] == await up.rows_of(await up.opened(space.bucket, seed=2))
        await up.assert_sound(space)

    simulate(main())


@pytest.mark.parametrize("moves", [False, True])
def test_a_crash_at_any_request_of_a_merge_or_a_move_loses_nothing(
    moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        for at in range(1, 1_000):
            monkeypatch.setattr(tidying, "LISTED_MAX", 128)
            bucket = SimBucket(sim_loop())
            space = await tiny_files(network(bucket), 9)
            if moves:  # before there are enough small files to merge
                await space.alter_topic("t", {"archive.bytes": "1"})
            before = await up.rows_of(space)
            await space.drain()
            if moves:
                monkeypatch.setattr(tidying, "LISTED_MAX", 4)
                monkeypatch.setattr(tidying, "LISTED_KEPT", 2)
            process = Process("tidy", sim_loop(), crash_at=at)
            store = SimStore(bucket, loop=sim_loop(), rng=random.Random(at), profile=FIXED, process=process)

            async def dying(store: SimStore = store) -> None:
                await archive(await up.opened(store, seed=2), offload=inline, all=True)

            task = process.spawn(dying())
            await asyncio.wait([task])
            await asyncio.sleep(60)
            fresh = await up.opened(network(bucket, seed=at), seed=3)
            assert before == await up.rows_of(fresh)
            await archive(fresh, offload=inline, all=True)
            assert before == await up.archived_rows(fresh) == await up.rows_of(fresh)
            await up.assert_sound(fresh)
            archive_now = fresh.topic("t").partitions[0].archive
            assert archive_now is not None
            assert ((1, 2) if moves else (0, 1)) == (len(archive_now.pages), len(archive_now.files))
            if not task.cancelled():
                assert at > (8 if moves else 12)
                return
        raise AssertionError("it never came to its end")

    simulate(main())


def test_several_that_tidy_up_at_once_leave_nothing_behind() -> None:
    async def main() -> None:
        lost = 0
        for seed in range(8):
            bucket = SimBucket(sim_loop())
            space = await tiny_files(network(bucket), 30)
            before = await up.rows_of(space)
            await space.drain()
            old = await up.objects(space)
            many = [
                await up.opened(network(bucket, profile=FIXED, seed=seed + i), seed=seed * 9 + i) for i in (2, 3, 4)
            ]
            reports = await asyncio.gather(*(archive(each, offload=inline, all=True) for each in many))
            lost += sum(report.lost for report in reports)
            assert before == await up.archived_rows(space) == await up.rows_of(space)
            await up.assert_sound(space)
            known = {file.key for file in await up.files_of(space)}
            assert known - old <= await up.objects(space) - old
            assert await up.objects(space) <= known | old | await merged_twice(space, old)
        assert lost > 0

    simulate(main())


async def merged_twice(space: Namespace, old: set[str]) -> set[str]:
    """Files that were made by one merge and replaced by a later one: they were in the state for a while."""
    seen: set[str] = set()
    for seq in range(1, space.state.seq + 1):
        data = (await space.store.get(keys.manifest_key(seq))).data
        for intent in read(data, seq):
            seen |= {key for op in intent.ops if isinstance(op, SwapFiles) for key in op.was}
    return seen


def read(data: bytes, seq: int) -> Any:
    from headwater.log.chain import read_manifest

    return read_manifest(data, seq).intents


def test_a_log_start_that_moves_meanwhile_sends_the_merge_back_to_look() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        space = await tiny_files(network(bucket), 20)
        before = await up.rows_of(space)
        slow = await up.opened(network(bucket, profile=FIXED, seed=5), seed=6)

        async def trimming() -> None:
            for before_offset in range(3, 30, 3):
                await asyncio.sleep(0.3)
                await space.trim("t", 0, before_offset)

        await asyncio.gather(archive(slow, offload=inline, all=True), trimming())
        await archive(slow, offload=inline, all=True)
        start = space.topic("t").partitions[0].start
        assert 27 == start
        assert [row for row in before if row[0] >= start] == await up.rows_of(space)
        await up.assert_sound(space)

    simulate(main())


def test_merged_files_have_the_columns_of_the_newest_schema() -> None:
    async def main() -> None:
        from tests.upkeep.test_archiver import json, set_schema

        space = await up.opened(up.memory())
        topic = (await space.create_topic("t", 1, {"archive.bytes": "1"})).id
        await set_schema(space, topic, 1, {"a": {"type": "integer", "format": "int32"}})
        for i in range(5):
            await space.append("t", 0, json({"a": i}))
        await archive(space, offload=inline, all=True)
        await set_schema(space, topic, 2, {"a": {"type": "integer"}, "b": {"type": "string"}})
        for i in range(5, 10):
            await space.append("t", 0, json({"a": i, "b": str(i)}))
        await archive(space, offload=inline, all=True)
        await space.alter_topic("t", {"archive.bytes": "30000"})
        report = await archive(space, offload=inline, all=True)
        (file,) = await up.files_of(space)
        table = pq.read_table(pa.BufferReader((await space.store.get(file.key)).data))
        assert (10, list(range(10))) == (report.merged, table.column("a").to_pylist())
        assert [None] * 5 + [str(i) for i in range(5, 10)] == table.column("b").to_pylist()

    simulate(main())


def test_a_merged_file_keeps_the_later_mark_of_compaction() -> None:
    async def main() -> None:
        space = await tiny_files(up.memory(), 20)
        topic, before = space.topic("t").id, await up.files_of(space)
        marked = [structs.replace(file, cleaned_ms=2 * up.START_MS + i) for i, file in enumerate(before[:10])]
        await space.writer.commit(
            ops=[
                SwapFiles(
                    topic=topic,
                    partition=0,
                    base=0,
                    end=marked[-1].end,
                    was=[file.key for file in marked],
                    files=marked,
                    clean=marked[-1].end,
                )
            ]
        )
        report = await archive(space, offload=inline, all=True)
        archived = space.topic("t").partitions[0].archive
        assert archived is not None
        assert (True, 30) == (report.merged > 15, archived.clean)
        merged = archived.files[0]
        assert (0, max(file.cleaned_ms for file in marked if file.end <= merged.end)) == (
            merged.base,
            merged.cleaned_ms,
        )
        assert {0} == {file.cleaned_ms for file in archived.files if file.base >= 30}

    simulate(main())


def test_a_damaged_file_is_named_and_left_where_it_is() -> None:
    async def main() -> None:
        space = await tiny_files(up.memory(), 9)
        await space.create_topic("u")
        await space.append("u", 0, up.arrow(up.some(space, 5)))
        before = await up.files_of(space)
        blob = await space.store.get(before[4].key)
        await space.store.put(before[4].key, blob.data[:50] + b"X" + blob.data[51:])
        with pytest.raises(Corrupt, match=f"{before[4].key}.*CRC32C"):
            await archive(space, offload=inline, all=True)
        assert before == await up.files_of(space)
        assert 5 == space.topic("u").partitions[0].archived
        assert len(before) + 1 == len(await up.objects(space))

    simulate(main())


def test_files_that_others_replaced_are_not_merged_from_memory() -> None:
    async def main() -> None:
        store = up.memory()
        space = await tiny_files(store, 9)
        behind = await up.opened(store, seed=2)
        group = tidying.small_neighbours(behind.topic("t").partitions[0], TopicConfig.of(behind.topic("t").config))
        await archive(space, offload=inline, all=True)
        op = SwapFiles(
            topic=behind.topic("t").id, partition=0, base=0, end=27, was=[file.key for file in group], files=group[:1]
        )
        with pytest.raises(Conflict):
            await behind.writer.commit(ops=[structs.replace(op, files=[structs.replace(group[0], end=27)])])
        report = await archive(behind, offload=inline, all=True)
        assert (0, 0) == (report.merged, report.lost)

    simulate(main())
