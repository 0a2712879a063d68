"""Archiving changes where records lie, and nothing else, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace

from headwater.log.operations import EndReserve, InitProducer, Reserve
from headwater.log.writer import Append
from headwater.store.memory import MemoryStore
from headwater.upkeep.archiver import ArchiveReport, archive
from headwater.upkeep.offload import inline
from tests.log.helpers import simulate
from tests.upkeep import helpers_upkeep as up


async def mixed(store: MemoryStore, partitions: int = 2):  # type: ignore[no-untyped-def]
    """A topic with chunks of both codecs, packed and not, inline and in segments."""
    space = await up.opened(store)
    await space.create_topic("t", partitions)
    for number in range(partitions):
        for i in range(4):
            await space.append("t", number, up.arrow(up.some(space, 5, seed=i)))
            await space.append("t", number, up.arrow(up.some(space, 30, size=60, seed=i), packed=False))
            await space.append("t", number, up.kafka2(up.some(space, 5, seed=50 + i)))
            await space.append("t", number, up.kafka2(up.some(space, 40, seed=90 + i), compression="gzip"))
    return space


def test_records_are_the_same_before_and_after() -> None:
    async def main() -> None:
        store = MemoryStore()
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
        space = await mixed(MemoryStore())
        await archive(space, offload=inline, all=True)
        seq = space.state.seq
        assert ArchiveReport() == await archive(space, offload=inline, all=True)
        assert seq == space.state.seq

    simulate(main())


def test_readers_stop_where_they_did_and_a_reservation_is_never_archived() -> None:
    async def main() -> None:
        space = await up.opened(MemoryStore())
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
