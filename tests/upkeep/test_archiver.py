"""Archiving changes where records lie, and nothing else, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from json import dumps
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import Corrupt, Indeterminate, Unavailable
from headwater.limits import MIB, OBJECT_BYTES_MAX, WINDOW
from headwater.log.batch import batch_of_records
from headwater.log.chunk import Chunk
from headwater.log.namespace import Namespace
from headwater.log.operations import EndReserve, InitProducer, Reserve, SetSchema
from headwater.log.writer import Append
from headwater.schemas.compile import compile_schema
from headwater.sim.faults import ROUGH, Burst, Process, SimBucket, SimStore
from headwater.sim.loop import sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.types import Batch, Record
from headwater.upkeep.archiver import ArchiveReport, archive
from headwater.upkeep.offload import inline
from tests.log.helpers import FIXED, blob, network, simulate
from tests.log.helpers_store import Scripted, Step, applied_503, away, lost_answer, lost_request, ok, throttled
from tests.upkeep import helpers_upkeep as up


async def mixed(store: ObjectStore, partitions: int = 2, *, rounds: int = 4, **config: str) -> Namespace:
    """A topic with chunks of both codecs, packed and not, inline and in segments."""
    space = await up.opened(store)
    await space.create_topic("t", partitions, {name.replace("_", "."): value for name, value in config.items()})
    for number in range(partitions):
        for i in range(rounds):
            await space.append("t", number, up.arrow(up.some(space, 5, seed=i)))
            await space.append("t", number, up.arrow(up.some(space, 30, size=60, seed=i), packed=False))
            await space.append("t", number, up.kafka2(up.some(space, 5, seed=50 + i)))
            await space.append("t", number, up.kafka2(up.some(space, 40, seed=90 + i), compression="gzip"))
    return space


def test_records_are_the_same_before_and_after() -> None:
    async def main() -> None:
        store = up.memory()
        space = await mixed(store)
        before = [await up.rows_of(space, partition=number) for number in range(2)]
        report = await archive(space, offload=inline, all=True)
        assert (2, 2, 640, 0, 0) == (report.partitions, report.files, report.records, report.lost, report.left)
        for number in range(2):
            assert before[number] == await up.archived_rows(space, partition=number)
            assert before[number] == await up.rows_of(await up.opened(store, seed=7), partition=number)
            await up.assert_sound(space, partition=number)

    simulate(main())


def test_a_second_run_finds_nothing_to_do() -> None:
    async def main() -> None:
        space = await mixed(up.memory())
        await archive(space, offload=inline, all=True)
        seq = space.state.seq
        assert ArchiveReport() == await archive(space, offload=inline, all=True)
        assert seq == space.state.seq

    simulate(main())


def test_readers_stop_where_they_did_and_a_reservation_is_never_archived() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        topic = (await space.create_topic("t")).id
        await space.append("t", 0, up.arrow(up.some(space, 5)))
        pid = (await space.writer.commit(ops=[InitProducer(tid="x")])).values["pid"]
        batch = replace(up.arrow(up.some(space, 3, seed=2)), producer_id=pid, producer_epoch=0, sequence=0)
        held = [Append(topic=topic, partition=0, batch=batch)]
        await space.writer.commit(held, [Reserve(pid=pid, epoch=0, timeout_ms=60_000)])
        await space.append("t", 0, up.arrow(up.some(space, 4, seed=3)))
        await archive(space, offload=inline, all=True)
        assert 5 == space.topic("t").partitions[0].archived
        await space.writer.commit(ops=[EndReserve(pid=pid, epoch=0, commit=False)])
        before = await up.rows_of(space)
        await archive(space, offload=inline, all=True)
        assert (12, 9) == (space.topic("t").partitions[0].archived, len(before))
        assert before == await up.archived_rows(space) == await up.rows_of(space)

    simulate(main())


# -- interruptions ------------------------------------------------------------------------------------


async def unharmed(space: Namespace, before: list[list[up.Row]]) -> None:
    """Another process finishes the work: every record is there once, and every file that the state names."""
    for number, rows in enumerate(before):
        assert rows == await up.rows_of(space, partition=number)
    await archive(space, offload=inline, all=True)
    for number, rows in enumerate(before):
        assert rows == await up.archived_rows(space, partition=number)
        await up.assert_sound(space, partition=number)
        assert space.topic("t").partitions[number].archived == space.topic("t").partitions[number].next


def test_a_crash_at_any_request_loses_nothing_and_the_next_run_finishes() -> None:
    async def main() -> None:
        for at in range(1, 1_000):
            bucket = SimBucket(sim_loop())
            space = await mixed(network(bucket), 1, rounds=2, archive_bytes="2500")
            before = [await up.rows_of(space)]
            await space.drain()
            process = Process("archiver", sim_loop(), crash_at=at)
            store = SimStore(bucket, loop=sim_loop(), rng=random.Random(at), profile=FIXED, process=process)

            async def dying(store: SimStore = store) -> None:
                await archive(await up.opened(store, seed=2), offload=inline, all=True)

            task = process.spawn(dying())
            await asyncio.wait([task])
            await asyncio.sleep(60)
            await unharmed(await up.opened(network(bucket, seed=at), seed=3), before)
            if not task.cancelled():
                assert at > 25
                assert len(await up.files_of(space)) == 3
                return
        raise AssertionError("it never came to its end")

    simulate(main())


def test_an_answer_lost_at_any_write_is_resolved_before_anything_is_deleted() -> None:
    async def main() -> None:
        for kind in ("put", "put_if_absent", "delete"):
            for step in (lost_answer, lost_request, applied_503, away, throttled):
                for at in range(4):
                    inner = up.memory()
                    space = await mixed(inner, 1, rounds=2, archive_bytes="2500")
                    before = [await up.rows_of(space)]
                    await space.drain()
                    store = Scripted(inner)
                    store.will(kind, *[ok] * at, step)
                    await archive(await up.opened(store, seed=2), offload=inline, all=True)
                    await unharmed(await up.opened(inner, seed=3), before)
                    listed = {file.key for file in await up.files_of(space)}
                    assert listed == await up.objects(space)

    simulate(main())


def test_a_swap_of_unknown_outcome_deletes_nothing() -> None:
    async def main() -> None:
        for applied in (True, False):
            for others in (0, WINDOW + 20):
                inner = up.memory()
                space = await mixed(inner, 1, rounds=1)
                before = [await up.rows_of(space)]
                await space.drain()
                store = Scripted(inner)
                store.will("put_if_absent", then_dark(applied))
                slow = await up.opened(store, seed=2, commit_timeout_s=20.0, store_retry_s=20.0)
                task = asyncio.create_task(archive(slow, offload=inline, all=True))
                await asyncio.sleep(30 if others else 1)
                for _ in range(others):
                    await space.commit_offsets("g", {("t", 0): 1})
                if others:
                    store.always.clear()
                await asyncio.wait([task])
                assert (task.exception() is None) == (applied and others > 0)
                assert isinstance(task.exception(), Unavailable | Indeterminate | None)
                assert 1 <= len(await up.objects(space)) <= 2
                await unharmed(await up.opened(inner, seed=3), before)

    simulate(main())


def then_dark(applied: bool) -> Step:
    """The write lands, or does not, nobody is told, and from then on the store answers nobody."""

    async def step(store: Scripted, act: Any) -> Any:
        if applied:
            await act()
        store.always = dict.fromkeys(("get", "head", "list", "put", "put_if_absent", "delete"), away)
        raise Indeterminate("No answer.", token="a/key")

    return step


def test_two_archivers_at_once_archive_everything_once() -> None:
    async def main() -> None:
        lost = 0
        for seed in range(12):
            bucket = SimBucket(sim_loop())
            space = await mixed(network(bucket), archive_bytes="3500")
            before = [await up.rows_of(space, partition=number) for number in range(2)]
            await space.drain()
            both = [await up.opened(network(bucket, profile=FIXED, seed=seed + i), seed=seed * 9 + i) for i in (2, 3)]
            reports = await asyncio.gather(*(archive(each, offload=inline, all=True) for each in both))
            assert 640 == sum(report.records for report in reports)
            lost += sum(report.lost for report in reports)
            listed = {file.key for number in range(2) for file in await up.files_of(space, partition=number)}
            assert listed == await up.objects(space)
            await unharmed(space, before)
        assert lost > 0

    simulate(main())


def test_archivers_that_begin_in_step_do_not_stay_so() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        space = await up.opened(network(bucket, profile=FIXED))
        await space.create_topic("t", 1, {"archive.bytes": "3000"})
        for seed in range(40):
            await space.append("t", 0, up.arrow(up.some(space, 30, size=60, seed=seed), packed=False))
        await space.drain()
        many = [await up.opened(network(bucket, profile=FIXED, seed=i), seed=50 + i) for i in range(3)]
        reports = await asyncio.gather(*(archive(each, offload=inline, all=True) for each in many))
        await archive(space, offload=inline, all=True)
        listed = await up.files_of(space)
        assert 1_200 == sum(file.count for file in listed)
        assert sum(report.bytes_written for report in reports) < 1.5 * sum(file.bytes for file in listed)
        assert {file.key for file in listed} == await up.objects(space)

    simulate(main())


def test_storms_of_503_and_lost_answers_are_ridden_out() -> None:
    async def main() -> None:
        for seed in range(10):
            bucket = SimBucket(sim_loop())
            space = await mixed(network(bucket), archive_bytes="3500")
            before = [await up.rows_of(space, partition=number) for number in range(2)]
            await space.drain()
            stores = [network(bucket, profile=FIXED, seed=seed + i) for i in range(3)]
            many = [await up.opened(store, seed=seed * 7 + i) for i, store in enumerate(stores)]
            now_s = sim_loop().time()
            for store in stores:
                storm = Burst(start_s=now_s + seed / 10, end_s=now_s + 30, share=0.8)
                store.set_faults(replace(ROUGH, lost_request=0.1, lost_answer=0.1, bursts=(storm,)))
            await asyncio.gather(*(archive(each, offload=inline, all=True) for each in many), return_exceptions=True)
            await asyncio.sleep(600)
            await unharmed(await up.opened(network(bucket, seed=99), seed=99), before)

    simulate(main())


# -- what is due --------------------------------------------------------------------------------------


def test_chunks_wait_for_archive_ms_or_archive_bytes() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t", 1, {"archive.bytes": "6000"})
        await space.append("t", 0, up.arrow(up.some(space, 30, size=60), packed=False))
        assert ArchiveReport() == await archive(space, offload=inline)
        await asyncio.sleep(5.9 * up.HOUR_S)
        await space.append("t", 0, up.arrow(up.some(space, 5)))
        assert ArchiveReport() == await archive(space, offload=inline)
        await asyncio.sleep(0.2 * up.HOUR_S)
        assert 35 == (await archive(space, offload=inline)).records
        for seed in range(3):
            await space.append("t", 0, up.arrow(up.some(space, 30, size=60, seed=seed), packed=False))
        report = await archive(space, offload=inline)
        # Two chunks fill a file; the third one waits for company.
        assert (1, 60, 95) == (report.files, report.records, space.topic("t").partitions[0].archived)

    simulate(main())


def test_wrong_timestamps_do_not_hurry_or_hold_up_the_archive() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t", 2)
        await space.append("t", 0, up.arrow(up.some(space, 5, age_ms=10**12)))
        await space.append("t", 1, up.arrow(up.some(space, 5, age_ms=-(10**12))))
        assert ArchiveReport() == await archive(space, offload=inline)
        await asyncio.sleep(6.1 * up.HOUR_S)
        assert 10 == (await archive(space, offload=inline)).records

    simulate(main())


def test_a_topic_may_keep_out_of_the_archive() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t", 1, {"archive.enable": "false"})
        await space.append("t", 0, up.arrow(up.some(space, 5)))
        await asyncio.sleep(40 * up.HOUR_S)
        assert ArchiveReport() == await archive(space, offload=inline)
        assert 5 == (await archive(space, offload=inline, all=True)).records

    simulate(main())


def test_a_run_may_be_bounded_and_the_next_one_goes_on() -> None:
    async def main() -> None:
        space = await mixed(up.memory(), archive_bytes="2500")
        before = [await up.rows_of(space, partition=number) for number in range(2)]
        reports = [await archive(space, offload=inline, all=True, bytes_max=5_000) for _ in range(3)]
        assert all(0 < report.bytes_read < 12_000 and 2 == report.left for report in reports)
        late = await archive(space, offload=inline, all=True, deadline_s=space.chain.clock.elapsed_s())
        assert (0, 2) == (late.files, late.left)
        while (await archive(space, offload=inline, all=True, bytes_max=5_000)).left:
            pass
        await unharmed(space, before)

    simulate(main())


def test_what_has_not_begun_at_the_deadline_is_left_to_the_next_run() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        space = await mixed(network(bucket), archive_bytes="2500")
        before = [await up.rows_of(space, partition=number) for number in range(2)]
        slow = await up.opened(network(bucket, profile=FIXED), seed=2)
        deadline_s = slow.chain.clock.elapsed_s() + 1.5
        report = await archive(slow, offload=inline, all=True, memory_bytes_max=1, deadline_s=deadline_s)
        assert (2, 0) == (report.left, report.lost)
        assert 1 <= report.files <= 6
        assert slow.chain.clock.elapsed_s() < deadline_s + 1.5
        listed = {file.key for number in range(2) for file in await up.files_of(space, partition=number)}
        assert listed == await up.objects(space)
        await unharmed(space, before)

    simulate(main())


# -- what the log may hold ----------------------------------------------------------------------------


def test_trimmed_records_of_a_chunk_are_left_out() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t")
        for seed in range(3):
            await space.append("t", 0, up.arrow(up.some(space, 10, seed=seed)))
        await space.trim("t", 0, 13)
        before = await up.rows_of(space)
        assert 13 == before[0][0]
        await archive(space, offload=inline, all=True)
        assert before == await up.archived_rows(space) == await up.rows_of(space)
        await space.append("t", 0, up.arrow(up.some(space, 10, seed=9)))
        await space.append("t", 0, up.arrow(up.some(space, 10, seed=10)))
        await space.trim("t", 0, 35)
        await archive(space, offload=inline, all=True)
        assert [(35, 50)] == [(file.base, file.end) for file in await up.files_of(space)]
        await space.trim("t", 0, 50)
        assert 0 == (await archive(space, offload=inline, all=True)).files

    simulate(main())


def test_a_range_of_voided_reservations_alone_is_archived_as_an_empty_file() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        topic = (await space.create_topic("t")).id
        pid = (await space.writer.commit(ops=[InitProducer(tid="x")])).values["pid"]
        batch = replace(up.arrow(up.some(space, 3)), producer_id=pid, producer_epoch=0, sequence=0)
        held = [Append(topic=topic, partition=0, batch=batch)]
        await space.writer.commit(held, [Reserve(pid=pid, epoch=0, timeout_ms=60_000)])
        await space.writer.commit(ops=[EndReserve(pid=pid, epoch=0, commit=False)])
        await archive(space, offload=inline, all=True)
        assert [(0, 3, 0)] == [(file.base, file.end, file.count) for file in await up.files_of(space)]
        assert [] == await up.rows_of(space)
        await space.append("t", 0, up.arrow(up.some(space, 3)))
        before = await up.rows_of(space)
        await archive(space, offload=inline, all=True)
        assert before == await up.rows_of(space) == await up.archived_rows(space)

    simulate(main())


def test_a_topic_that_is_deleted_in_the_middle_of_a_run_is_left_alone() -> None:
    async def main() -> None:
        for again in (False, True):
            inner = up.memory()
            space = await mixed(inner, archive_bytes="2500")
            await space.create_topic("u")
            await space.append("u", 0, up.arrow(up.some(space, 5)))
            await space.drain()

            async def delete(store: Scripted, act: Any, space: Namespace = space, again: bool = again) -> Any:
                await space.delete_topic("t")
                if again:
                    await space.create_topic("t")
                    await space.append("t", 0, up.arrow(up.some(space, 7, seed=70)))
                return await act()

            for at in range(3):
                store = Scripted(inner)
                store.will("put", *[ok] * at, delete)
                report = await archive(await up.opened(store, seed=2), offload=inline, all=True)
                assert 0 == report.left
                await space.refresh()
                assert 5 == space.topic("u").partitions[0].archived
                if again:
                    await archive(space, offload=inline, all=True)
                    assert 7 == len(await up.archived_rows(space))
                break

    simulate(main())


def test_a_damaged_chunk_is_named_and_stops_its_partition_alone() -> None:
    async def main() -> None:
        store = up.memory()
        space = await up.opened(store)
        await space.create_topic("t", 2)
        for number in range(2):
            for seed in range(4):
                await space.append("t", number, up.arrow(up.some(space, 30, size=60, seed=seed), packed=False))
        await space.drain()
        entry = space.topic("t").partitions[0].tail[2]
        blob = await space.store.get(entry.obj)
        at = entry.pos + entry.len // 2
        await space.store.put(entry.obj, blob.data[:at] + bytes([blob.data[at] ^ 1]) + blob.data[at + 1 :])
        fresh = await up.opened(store, seed=2)
        with pytest.raises(Corrupt, match=rf"{entry.obj}.*\[60, 90\).*CRC32C"):
            await archive(fresh, offload=inline, all=True)
        assert [0, 120] == [partition.archived for partition in fresh.topic("t").partitions]
        assert 1 == len(await up.objects(fresh))

    simulate(main())


def test_a_chunk_that_is_no_batch_is_named() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t", 2)
        await space.append("t", 0, up.arrow(up.some(space, 5)))
        await space.append("t", 0, replace(up.arrow(up.some(space, 5)), count=6))
        await space.append("t", 1, blob())
        with pytest.raises(Corrupt, match=r"batch at offset 5 holds 5 records|Kafka|batch"):
            await archive(space, offload=inline, all=True)
        assert [0, 0] == [partition.archived for partition in space.topic("t").partitions]
        assert set() == await up.objects(space)

    simulate(main())


def test_records_that_are_missing_from_what_was_read_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        space = await mixed(up.memory(), 1)
        chunks = space.reader.chunks

        async def forgetful(*args: Any, **options: Any) -> AsyncIterator[Chunk]:
            async for chunk in chunks(*args, **options):
                if chunk.base != 35:
                    yield chunk

        monkeypatch.setattr(space.reader, "chunks", forgetful)
        with pytest.raises(Corrupt, match=r"\[0, 320\) should hold 320 records, and 315 were read"):
            await archive(space, offload=inline, all=True)
        assert (0, set()) == (space.topic("t").partitions[0].archived, await up.objects(space))

    simulate(main())


def test_a_topic_with_a_schema_has_typed_columns_by_the_version_in_force() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        topic = (await space.create_topic("t")).id
        await space.append("t", 0, json({"a": 1, "b": "no version yet"}))
        behind = await up.opened(space.bucket, seed=2)
        await set_schema(space, topic, 1, {"a": {"type": "integer", "format": "int32"}})
        await space.append("t", 0, json({"a": 2, "b": "unknown yet"}, {"a": 3}))
        wider = {"a": {"type": "integer"}, "b": {"type": "integer"}}
        await set_schema(space, topic, 2, wider)
        await space.append("t", 0, json({"a": 1 << 40, "b": 7}, None))
        await behind.append("t", 0, json({"a": "does not fit"}))  # checked by what it knows
        await archive(space, offload=inline, all=True)
        (file,) = await up.files_of(space)
        table = pq.read_table(pa.BufferReader((await space.store.get(file.key)).data))
        assert [None, 2, 3, 1 << 40, None, None] == table.column("a").to_pylist()
        assert [None, None, None, 7, None, None] == table.column("b").to_pylist()
        assert ["int64", "int64"] == [str(table.schema.field(name).type) for name in "ab"]
        assert await up.rows_of(space) == await up.archived_rows(space)

    simulate(main())


async def set_schema(space: Namespace, topic: int, version: int, properties: dict[str, Any]) -> None:
    definition = dumps({"type": "object", "properties": properties})
    columns = compile_schema("json", definition)
    await space.writer.commit(
        ops=[SetSchema(topic=topic, version=version, format="json", definition=definition, columns=columns)]
    )


def json(*values: dict[str, Any] | None) -> Batch:
    records = [Record(value=None if value is None else dumps(value).encode()) for value in values]
    return batch_of_records(records, default_timestamp=up.START_MS)


# -- how much it takes --------------------------------------------------------------------------------


def test_memory_is_bounded_however_large_the_partitions_are() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with await Namespace.open(store, "ns") as space:
            await space.create_topic("t", 2)
            for start in range(0, 100_000, 4_000):
                for number in range(2):
                    await space.append("t", number, up.big(2_000, 1_000, start=start + number))
        fresh = await Namespace.open(store, "ns")
        before, pool, peak = stored_bytes(store), pa.total_allocated_bytes(), 0

        def watch(what: str, done: int, total: int) -> None:
            nonlocal peak
            python = tracemalloc.get_traced_memory()[0] - (stored_bytes(store) - before)
            peak = max(peak, python + pa.total_allocated_bytes() - pool)

        bound = 96 * MIB
        tracemalloc.start()
        try:
            report = await archive(fresh, all=True, memory_bytes_max=bound, progress=watch)
        finally:
            tracemalloc.stop()
        assert (100_000, 0) == (report.records, report.left)
        assert 100_000_000 < report.bytes_written < 102_000_000
        assert report.memory_peak_bytes <= bound
        assert 8 * MIB < peak < bound

    asyncio.run(main())


def test_what_archiving_a_file_costs_in_requests_and_bytes() -> None:
    async def main() -> None:
        store = MeteredStore(up.memory())
        space = await up.opened(store, inline_bytes_max=300, snapshot_every=1_000)
        await space.create_topic("t")
        await asyncio.gather(*(space.append("t", 0, up.big(2_000, 1_000, start=start)) for start in range(24)))
        await space.drain()
        before = store.counts.copy()
        report = await archive(space, offload=inline, all=True)
        cost = store.counts - before
        # One object and one commit; the log is read in ranges of a segment; one look at the tip for each range, and
        # one before the upload.
        assert (1, 1, 0, 0, 0) == (cost.put, cost.put_conditional, cost.list, cost.head, cost.delete)
        assert cost.get <= 12
        assert 0.9 < report.bytes_read / report.bytes_written < 1.1
        assert 0 < cost.bytes_out - report.bytes_written < 2_000
        assert 2 == report.puts

    simulate(main())


def stored_bytes(store: MemoryStore) -> int:
    return sum(len(data) for data, _, _ in store._shelf.objects.values())


def test_a_file_of_what_does_not_compress_still_fits_an_object() -> None:
    async def main() -> None:
        space = await up.opened(up.memory())
        await space.create_topic("t", 1, {"archive.bytes": str(1 << 40)})
        for start in range(9):
            await space.append("t", 0, up.big(2_000, 4_000, start=start))
        report = await archive(space, offload=inline, all=True)
        files = await up.files_of(space)
        assert (18_000, 2) == (report.records, len(files))
        assert max(file.bytes for file in files) <= OBJECT_BYTES_MAX

    simulate(main())
