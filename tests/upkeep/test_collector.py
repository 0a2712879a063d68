"""The collector takes what nobody can come to need, leaves everything else, and comes to rest."""

from __future__ import annotations

import random

import msgspec
import pytest

from headwater.errors import NotFound
from headwater.limits import COLLECT_GRACE_MS
from headwater.log import frame, keys
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.operations import AlterNamespace, EndReserve, File, InitProducer, Reserve, SwapFiles
from headwater.log.options import Options
from headwater.log.writer import Append
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.upkeep.branch import Pin, branch, drop_branch
from headwater.upkeep.collector import CollectReport, collect, next_due_ms
from tests.log.helpers import blob, keys_under, simulate

HOUR_S = 3_600.0
DAY_S = 86_400.0
LIMIT_S = 400 * DAY_S
INLINE, SEGMENT = 10, 2_000  # bytes of a batch that rides in its manifest, and of one that does not


async def opened(store: object, name: str = "main", *, seed: int = 1, **options: object) -> Namespace:
    chosen = Options(**{"inline_bytes_max": 1_000, "snapshot_every": 10, **options})  # type: ignore[arg-type]
    clock = SimClock(sim_loop())
    return await Namespace.open(store, name, clock=clock, rng=random.Random(seed), options=chosen)  # type: ignore[arg-type]


def bucket() -> MemoryStore:
    return MemoryStore(clock=SimClock(sim_loop()))


async def passed(days: float) -> None:
    await sim_loop().sleep(days * DAY_S)


async def maintained(space: Namespace, days: int) -> list[CollectReport]:
    """A run every day."""
    reports = []
    for _ in range(days):
        await passed(1)
        reports.append(await collect(space))
    return reports


async def archived(space: Namespace, topic: str, partition: int, end: int, nonce: str = "abcdefgh") -> str:
    """Pretend to have archived everything below ``end``: a file that nobody reads here."""
    found = space.topic(topic)
    base = found.partitions[partition].archived
    key = keys.archive_key(topic, partition, base, end, space.state.seq, nonce)
    await space.store.put(key, b"file")
    file = File(base=base, end=end, count=end - base, key=key, bytes=4, crc=1, footer=1, min=1, max=2)
    await space.writer.commit(ops=[SwapFiles(topic=found.id, partition=partition, base=base, end=end, files=[file])])
    return key


async def replaced(space: Namespace, topic: str, was: str, nonce: str) -> str:
    """Pretend to have compacted the one file of a partition."""
    found = space.topic(topic)
    end = found.partitions[0].archived
    key = keys.archive_key(topic, 0, 0, end, space.state.seq, nonce)
    await space.store.put(key, b"fil")
    file = File(base=0, end=end, count=1, key=key, bytes=3, crc=1, footer=1, min=1, max=2)
    await space.writer.commit(ops=[SwapFiles(topic=found.id, partition=0, base=0, end=end, was=[was], files=[file])])
    return key


async def offsets(space: Namespace, topic: str = "t", partition: int = 0) -> list[int]:
    """Every offset that can be read from chunks, each checked by its CRC."""
    await space.refresh()
    place = space.topic(topic).partitions[partition]
    found: list[int] = []
    async for chunk in space.reader.chunks(topic, partition, place.hot):
        found += range(chunk.base, chunk.base + chunk.count)
    return found


def live(main: object) -> None:
    simulate(main, limit_s=LIMIT_S)  # type: ignore[arg-type]


def test_manifests_go_after_a_day_and_those_that_hold_live_chunks_stay() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(15):
            await space.append("t", 0, blob(size=INLINE))
        for _ in range(14):
            await space.append("t", 0, blob(size=SEGMENT))
        await space.drain()
        last = space.state.seq
        await collect(space)
        assert last == len(await keys_under(space.store, keys.MANIFESTS))
        await maintained(space, 3)
        assert [keys.manifest_key(seq) for seq in range(2, 17)] == await keys_under(space.store, keys.MANIFESTS)
        assert 14 == len(await keys_under(space.store, keys.SEGMENTS))
        assert [keys.boundary_key(last + 1)] == await keys_under(space.store, keys.BOUNDARIES)
        assert [keys.snapshot_key(last)] == await keys_under(space.store, keys.SNAPSHOTS)
        cold = await opened(space.bucket, seed=2)
        assert list(range(29)) == await offsets(space) == await offsets(cold)
        await cold.append("t", 0, blob(size=SEGMENT))
        assert list(range(30)) == await offsets(space)

    live(main())


def test_trimmed_archived_and_deleted_data_is_gone_within_the_grace_and_then_there_is_silence() -> None:
    async def main() -> None:
        metered = MeteredStore(bucket())
        space = await opened(metered)
        for name in ("t", "u", "v"):
            await space.create_topic(name)
        for i in range(30):
            for name in ("t", "u", "v"):
                await space.append(name, 0, blob(size=INLINE if i % 2 else SEGMENT))
        await space.trim("t", 0, 30)
        file = await archived(space, "u", 0, 30)
        await space.delete_topic("v")
        await space.drain()
        ended_ms = space.chain.clock.wall_ms()
        while space.chain.clock.wall_ms() < ended_ms + COLLECT_GRACE_MS + DAY_S * 1_000:
            await sim_loop().sleep(HOUR_S)
            await collect(space)
        assert [] == await keys_under(space.store, keys.MANIFESTS)
        assert [] == await keys_under(space.store, keys.SEGMENTS)
        assert [file] == await keys_under(space.store, keys.ARCHIVE)
        before = metered.counts.copy()
        reports = await maintained(space, 3)
        counts = metered.counts - before
        assert [(True, None)] * 3 == [(report.rested, report.next_due_ms) for report in reports]
        assert (0, 0, 0) == (counts.put, counts.put_conditional, counts.delete)
        # After a day a process starts anew (R5): 3 GETs and 2 LISTs. The rest: the hint, the snapshots, the boundary.
        assert (12, 12) == (counts.get, counts.list)
        assert None is await next_due_ms(space)

    live(main())


def test_bytes_that_nobody_committed_go_when_the_floor_has_passed_them() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        await space.append("t", 0, blob(size=SEGMENT))
        batch = blob(size=SEGMENT)
        staged = await space.writer.stage([Append(topic=space.topic("t").id, partition=0, batch=batch)])
        assert 2 == len(await keys_under(space.store, keys.SEGMENTS))
        begun_ms = space.chain.clock.wall_ms()
        while len(await keys_under(space.store, keys.SEGMENTS)) > 1:
            await sim_loop().sleep(HOUR_S)
            await collect(space)
        assert DAY_S * 2_000 < space.chain.clock.wall_ms() - begun_ms <= COLLECT_GRACE_MS + DAY_S * 1_000
        with pytest.raises(NotFound, match="staged at tip"):
            await space.writer.commit_staged(staged, [], [], token="", intent_id="late-one")
        commits = space.state.seq
        await maintained(space, 10)
        assert commits == space.state.seq
        assert [0] == await offsets(space)

    live(main())


def test_an_open_transaction_of_less_than_a_day_loses_nothing() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        await maintained(space, 4)
        topic = space.topic("t").id
        staged = await space.writer.stage([Append(topic=topic, partition=0, batch=blob(size=SEGMENT))])
        for _ in range(20):
            await sim_loop().sleep(HOUR_S)
            await collect(space)
        await space.writer.commit_staged(staged, [], [], token="", intent_id="in-time")
        assert [0] == await offsets(space)

    live(main())


def test_a_reservation_keeps_its_bytes_until_it_is_released_and_after() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t", 2)
        outcome = await space.writer.commit(ops=[InitProducer(tid="x")])
        pid, epoch = outcome.values["pid"], outcome.values["epoch"]
        topic = space.topic("t").id
        for partition, size in ((0, INLINE), (1, SEGMENT)):
            held = blob(size=size, producer_id=pid, producer_epoch=epoch)
            reserve = Reserve(pid=pid, epoch=epoch, timeout_ms=10**9)
            await space.writer.commit([Append(topic=topic, partition=partition, batch=held)], [reserve])
        await maintained(space, 6)
        assert 1 == len(await keys_under(space.store, keys.SEGMENTS))
        assert 1 == len(await keys_under(space.store, keys.MANIFESTS))
        await space.writer.commit(ops=[EndReserve(pid=pid, epoch=epoch, commit=True)])
        await maintained(space, 6)
        cold = await opened(space.bucket, seed=2)
        assert ([0], [0]) == (await offsets(cold, "t", 0), await offsets(cold, "t", 1))

    live(main())


def test_a_replaced_file_stays_as_long_as_history_reaches_and_then_goes() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.writer.commit(ops=[AlterNamespace(config={"history.retention.ms": str(5 * 86_400_000)})])
        await space.create_topic("t")
        await space.append("t", 0, blob(count=3, size=SEGMENT))
        old = await archived(space, "t", 0, 3)
        then = space.state.seq
        new = await replaced(space, "t", old, "bcdefghi")
        await maintained(space, 5)
        assert [old] == [file.key for file in (await state_at(space.chain, then)).topics[1].partitions[0].archive.files]  # type: ignore[union-attr]
        assert sorted([old, new]) == await keys_under(space.store, keys.ARCHIVE)
        await maintained(space, 7)
        assert [new] == await keys_under(space.store, keys.ARCHIVE)
        with pytest.raises(NotFound, match="can no longer be read"):
            await state_at((await opened(space.bucket, seed=2)).chain, then)

    live(main())


def test_a_history_for_ever_keeps_everything_until_it_is_shortened() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.writer.commit(ops=[AlterNamespace(config={"history.retention.ms": "-1"})])
        await space.create_topic("t")
        for _ in range(25):
            await space.append("t", 0, blob(size=INLINE))
        await space.trim("t", 0, 25)
        await space.drain()
        before = await keys_under(space.store, "")
        reports = await maintained(space, 30)
        assert before == await keys_under(space.store, "")
        assert [None] * 30 == [report.next_due_ms for report in reports]
        await space.writer.commit(ops=[AlterNamespace(config={"history.retention.ms": None})])
        await maintained(space, 4)
        assert [] == await keys_under(space.store, keys.MANIFESTS)

    live(main())


def test_a_lengthened_history_counts_at_once_and_what_was_collected_stays_so() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(20):
            await space.append("t", 0, blob(size=INLINE))
            await sim_loop().sleep(4 * HOUR_S)
            await collect(space)
        boundary = (await collect(space)).boundary
        assert boundary > 1
        await space.writer.commit(ops=[AlterNamespace(config={"history.retention.ms": str(30 * 86_400_000)})])
        reports = await maintained(space, 20)
        assert {boundary} == {report.boundary for report in reports}
        assert boundary < (await maintained(space, 20))[-1].boundary

    live(main())


def test_a_dry_run_says_what_would_go_and_changes_nothing() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(25):
            await space.append("t", 0, blob(size=SEGMENT))
        await space.trim("t", 0, 25)
        await space.drain()
        await collect(space)
        await passed(1.5)
        before = await keys_under(space.store, "")
        planned = await collect(space, dry_run=True)
        assert before == await keys_under(space.store, "")
        done = await collect(space)
        assert planned.deleted == done.deleted
        assert planned.freed == done.freed
        assert planned.objects == len(set(before) - set(await keys_under(space.store, "")))

    live(main())


def test_a_run_without_time_stops_and_the_next_one_goes_on() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(25):
            await space.append("t", 0, blob(size=SEGMENT))
        await space.trim("t", 0, 25)
        await space.drain()
        await passed(1)
        await collect(space)
        await passed(1.1)
        stopped = await collect(space, deadline_s=space.chain.clock.elapsed_s() - 1)
        assert (False, 0) == (stopped.complete, len([k for k in stopped.deleted if k != "manifests"]))
        assert [0] == [stopped.next_due_ms - space.chain.clock.wall_ms()]  # type: ignore[operator]
        assert (await collect(space)).complete
        raised = keys.manifest_key(space.state.seq)  # bytes wait for the floor
        assert [raised] == await keys_under(space.store, keys.MANIFESTS)

    live(main())


def test_a_foreign_object_is_left_alone() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        foreign = ["manifest/zzz", "segment/what", "archive/notes.txt", "files/x", "readme"]
        for key in foreign:
            await space.store.put(key, b"x")
        await maintained(space, 6)
        assert set(foreign) <= set(await keys_under(space.store, ""))

    live(main())


def test_a_branch_keeps_what_it_shares_and_dropping_it_frees_that() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for i in range(12):
            await space.append("t", 0, blob(size=INLINE if i % 2 else SEGMENT))
        await branch(space, "copy")
        copy = await opened(space.bucket, "copy", seed=3)
        await branch(copy, "deep")
        await space.trim("t", 0, 12)
        await copy.append("t", 0, blob(size=SEGMENT))
        await copy.trim("t", 0, 12)
        for _ in range(12):
            await passed(1)
            for each in (space, copy):
                await collect(each)
        deep = await opened(space.bucket, "deep", seed=4)
        assert list(range(12)) == await offsets(deep)
        assert [12] == await offsets(copy)
        assert [] == await offsets(space)
        assert 6 == len(await keys_under(space.store, keys.SEGMENTS))
        await drop_branch(copy, "deep")
        await space.append("t", 0, blob(size=INLINE))
        for _ in range(12):
            await passed(1)
            for each in (space, copy):
                await collect(each)
        assert [] == await keys_under(space.store, keys.SEGMENTS)
        assert [12] == await offsets(copy)
        assert [keys.manifest_key(1)] == (await keys_under(copy.store, keys.MANIFESTS))[:1]  # its name is taken

    live(main())


def pin(seq: int, name: str) -> bytes:
    return frame.encode(msgspec.json.encode(Pin(1, "branch", name, seq)), 0)


def test_a_branch_that_was_never_finished_keeps_what_it_would_need_until_it_is_dropped() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(3):
            await space.append("t", 0, blob(size=SEGMENT))
        at = space.state.seq
        await space.store.put(keys.branch_key(at, "ghost"), pin(at, "ghost"))
        for _ in range(20):
            await space.append("t", 0, blob(size=SEGMENT))
        await space.trim("t", 0, 23)
        reports = await maintained(space, 9)
        assert ("ghost",) in [report.unfinished for report in reports]
        assert 3 == len(await keys_under(space.store, keys.SEGMENTS))
        assert at == len(await keys_under(space.store, keys.MANIFESTS))
        assert reports[-1].rested
        await drop_branch(space, "ghost")
        await space.append("t", 0, blob(size=INLINE))
        await maintained(space, 5)
        assert [] == await keys_under(space.store, keys.SEGMENTS)

    live(main())


def test_a_branch_that_was_pinned_too_late_keeps_nothing() -> None:
    async def main() -> None:
        space = await opened(bucket())
        await space.create_topic("t")
        for _ in range(20):
            await space.append("t", 0, blob(size=SEGMENT))
        await maintained(space, 3)
        await space.store.put(keys.branch_key(3, "late"), pin(3, "late"))
        await space.trim("t", 0, 20)
        reports = await maintained(space, 9)
        assert {()} == {report.unfinished for report in reports}
        assert [] == await keys_under(space.store, keys.SEGMENTS)

    live(main())


def test_an_empty_namespace_costs_two_lists_and_gets_nothing() -> None:
    async def main() -> None:
        space = await opened(bucket())
        assert CollectReport(rested=True) == await collect(space)
        assert [] == await keys_under(space.store, "")

    live(main())
