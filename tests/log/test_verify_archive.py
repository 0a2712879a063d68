"""Each kind of damage to the archive, to pruned pages and to what history needs is reported as exactly that."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from headwater.log import files, index, keys, snapshot
from headwater.log.batch import batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.operations import File
from headwater.log.options import Options
from headwater.log.verify import Report, verify
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.store.prefixed import PrefixedStore
from headwater.types import Record
from headwater.upkeep.archiver import archive
from headwater.upkeep.branch import branch
from headwater.upkeep.collector import collect
from headwater.upkeep.offload import inline
from tests.log.helpers import keys_under, simulate

DAY_S = 86_400.0
LIMIT_S = 60 * DAY_S
PAIR = [Record(key=b"k", value=b"v", timestamp=5), Record(key=b"l", value=b"w", timestamp=9)]
ONE = batch_of_records(PAIR, default_timestamp=5)

Work = Callable[[Namespace], Awaitable[None]]


async def opened(store: MemoryStore, name: str = "main") -> Namespace:
    options = Options(inline_bytes_max=0, snapshot_every=10)
    return await Namespace.open(store, name, clock=SimClock(sim_loop()), rng=random.Random(1), options=options)


async def checked(space: Namespace) -> Report:
    view = PrefixedStore(space.bucket, f"{space.name}/")
    return await verify(view, clock=space.chain.clock, rng=random.Random(2))


async def a_life(space: Namespace) -> None:
    """Archived below, hot above; something trimmed, and something deleted."""
    await space.create_topic("t", 2)
    await space.create_topic("u")
    for i in range(24):
        await space.append("t", i % 2, ONE)
    await space.append("u", 0, ONE)
    await archive(space, offload=inline, all=True)
    await space.trim("t", 1, 3)
    for i in range(12):
        await space.append("t", i % 2, ONE)
    await space.delete_topic("u")
    await space.house.snapshot()


def reported(damage: Work | None, *, collected: bool = False) -> Report:
    async def main() -> Report:
        space = await opened(MemoryStore(clock=SimClock(sim_loop())))
        await a_life(space)
        for _ in range(6 if collected else 0):
            await sim_loop().sleep(DAY_S)
            await collect(space)
        await space.drain()
        if damage is not None:
            await damage(space)
        return await checked(space)

    return simulate(main(), limit_s=LIMIT_S)


def kinds(report: Report) -> set[str]:
    return {problem.kind for problem in report.problems}


@pytest.mark.parametrize("collected", [False, True])
def test_an_archived_and_collected_life_is_clean(collected: bool) -> None:
    report = reported(None, collected=collected)
    assert [] == report.problems
    assert (2, 48) == (report.counts["files"], report.counts["archived_records"])
    assert {} == report.orphans
    assert (report.counts["history"] > 0) is not collected


async def file_of(space: Namespace) -> str:
    return (await keys_under(space.store, "archive/topic=t/partition=0/"))[0]


async def lost_file(space: Namespace) -> None:
    await space.store.delete([await file_of(space)])


async def cut_file(space: Namespace) -> None:
    key = await file_of(space)
    data = (await space.store.get(key)).data
    await space.store.put(key, data[:-1])


async def flipped_file(space: Namespace) -> None:
    key = await file_of(space)
    data = bytearray((await space.store.get(key)).data)
    data[len(data) // 3] ^= 1
    await space.store.put(key, bytes(data))


async def lost_segment_of_the_present(space: Namespace) -> None:
    entry = space.state.topics[1].partitions[0].tail[-1:] or None
    key = entry[0].obj if entry else (await keys_under(space.store, keys.SEGMENTS))[-1]
    await space.store.delete([key])


async def lost_segment_of_the_past(space: Namespace) -> None:
    await space.store.delete([(await keys_under(space.store, keys.SEGMENTS))[0]])


async def lost_page(space: Namespace) -> None:
    ref = space.state.pages[-1]
    await space.store.delete([keys.index_key(ref.first, ref.last, ref.pruned)])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lost_file, {"missing"}),
        (cut_file, {"range"}),
        (flipped_file, {"crc"}),
        (lost_segment_of_the_present, {"missing"}),
        (lost_segment_of_the_past, {"missing"}),
        (lost_page, {"missing", "index"}),
    ],
)
def test_each_damage_is_reported_as_what_it_is(damage: Work, expected: set[str]) -> None:
    report = reported(damage)
    assert expected == kinds(report)


def with_archive(change: Callable[[list[File]], None]) -> Work:
    """Let the newest snapshot say something else of the files of partition 0, as a wrong fold would."""

    async def damage(space: Namespace) -> None:
        seq = space.state.seq
        state = snapshot.decode((await space.store.get(keys.snapshot_key(seq))).data, seq)
        found = state.topics[1].partitions[0].archive
        assert found is not None
        change(found.files)
        for old in await keys_under(space.store, keys.SNAPSHOTS):
            await space.store.delete([old])
        await space.store.put(keys.snapshot_key(seq), snapshot.encode(state))
        await space.store.delete(await keys_under(space.store, keys.MANIFESTS))
        await space.store.put(keys.boundary_key(seq + 1), b"{}\n")

    return damage


def field(**changes: int) -> Callable[[list[File]], None]:
    def change(found: list[File]) -> None:
        found[0] = msgspec.structs.replace(found[0], **changes)

    return change


def half(found: list[File]) -> None:
    found[0] = msgspec.structs.replace(found[0], end=found[0].end - 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (field(count=3), {"decode"}),
        (field(footer=40), {"decode"}),
        (field(min=4), {"times"}),
        (field(max=10), {"times"}),
        (field(crc=1), {"crc"}),
        (field(bytes=7), {"range"}),
        (half, {"archive", "offsets"}),
        (lambda found: found.clear(), {"archive"}),
        (field(base=1), {"archive", "offsets"}),
    ],
)
def test_an_entry_that_says_something_else_of_a_file_is_reported_as_that(
    change: Callable[[list[File]], None], expected: set[str]
) -> None:
    report = reported(with_archive(change))
    assert expected == kinds(report)


def test_a_pruned_page_that_lacks_a_live_chunk_or_holds_a_dead_one_is_reported() -> None:
    def damaged(change: Callable[[dict[tuple[int, int], list[index.Entry]], list[index.Entry]], None]) -> Work:
        async def damage(space: Namespace) -> None:
            await space.trim("t", 0, space.topic("t").partitions[0].next)  # every second chunk
            dead = runs_of(await space.house.load_page(space.state.pages[-1]))[1, 0]
            assert 1 <= await space.house.prune()
            ref = next(ref for ref in space.state.pages if ref.pruned and ref.entries)
            key = keys.index_key(ref.first, ref.last, ref.pruned)
            runs = runs_of((await space.store.get(key)).data)
            change(runs, dead)
            runs = {place: run for place, run in runs.items() if run}
            await space.store.put(key, index.encode(ref, runs))

        return damage

    def runs_of(data: bytes) -> dict[tuple[int, int], list[index.Entry]]:
        header, base = index.decode_header(data)
        return {
            (run.topic, run.partition): index.decode_run(run, data[base + run.pos : base + run.pos + run.len])
            for run in header.runs
        }

    def nothing(runs: dict[tuple[int, int], list[index.Entry]], dead: list[index.Entry]) -> None:
        """The page as it is."""

    def lacks(runs: dict[tuple[int, int], list[index.Entry]], dead: list[index.Entry]) -> None:
        next(iter(runs.values())).pop()

    def holds(runs: dict[tuple[int, int], list[index.Entry]], dead: list[index.Entry]) -> None:
        runs.setdefault((1, 0), []).insert(0, dead[0])

    assert set() == kinds(reported(damaged(nothing)))
    assert "index" in kinds(reported(damaged(lacks)))
    assert {"index"} == kinds(reported(damaged(holds)))


def test_orphans_are_told_by_kind_with_their_bytes() -> None:
    async def strays(space: Namespace) -> None:
        await space.store.put(keys.segment_key(1, "zz0", 1), b"12345")
        await space.store.put(keys.archive_key("t", 0, 0, 9, 1, "zzzzzzzz"), b"123")
        await space.store.put(keys.file_page_key(1, 1, 0, "zzzzzzzz"), b"1234")
        await space.store.put(keys.index_key(1, 2), index.encode(index.PageRef(1, 2, 0, 0), {}))
        await space.store.put(keys.manifest_key(2), b"123456")
        await space.store.put(keys.snapshot_key(2), b"1")
        await space.store.put(keys.boundary_key(1), b"12")

    report = reported(strays, collected=True)
    assert {"segments": (1, 5), "files": (1, 3), "file_pages": (1, 4), "manifests": (1, 6)} == {
        kind: found for kind, found in report.orphans.items() if kind not in ("pages", "snapshots", "boundaries")
    }
    assert (1, 1, 1) == tuple(report.orphans[kind][0] for kind in ("pages", "snapshots", "boundaries"))
    assert [] == [problem for problem in report.problems if problem.kind != "snapshot"]
    assert report.counts["orphans"] == 7


def test_a_list_of_files_that_is_lost_or_wrong_is_reported() -> None:
    def listed(damage: Callable[[bytes], bytes | None]) -> Work:
        async def work(space: Namespace) -> None:
            seq = space.state.seq
            state = snapshot.decode((await space.store.get(keys.snapshot_key(seq))).data, seq)
            found = state.topics[1].partitions[0].archive
            assert found is not None
            key = keys.file_page_key(1, 1, 0, "aaaaaaaa")
            page, data = files.encode(found.files, key)
            found.pages, found.files = [page], []
            await space.store.delete(
                [*await keys_under(space.store, keys.SNAPSHOTS), *await keys_under(space.store, keys.MANIFESTS)]
            )
            await space.store.put(keys.snapshot_key(seq), snapshot.encode(state))
            await space.store.put(keys.boundary_key(seq + 1), b"{}\n")
            changed = damage(data)
            if changed is not None:
                await space.store.put(key, changed)

        return work

    assert set() == kinds(reported(listed(lambda data: data)))
    assert {"missing"} == kinds(reported(listed(lambda data: None)))
    assert {"archive"} == kinds(reported(listed(lambda data: data[:-1])))
    assert {"archive"} == kinds(reported(listed(lambda data: data[:-1] + bytes([data[-1] ^ 1]))))


def test_a_branch_is_checked_in_the_folders_of_its_origins_too() -> None:
    async def main() -> None:
        space = await opened(MemoryStore(clock=SimClock(sim_loop())))
        await a_life(space)
        await branch(space, "copy")
        copy = await opened(space.bucket, "copy")  # type: ignore[arg-type]
        await copy.append("t", 0, ONE)
        await copy.drain()
        report = await checked(copy)
        assert [] == report.problems
        assert 2 == report.counts["files"]
        assert [note for note in (await checked(space)).notes if "copy" in note]
        await space.store.delete([await file_of(space)])
        assert {"missing"} == kinds(await checked(copy))

    simulate(main(), limit_s=LIMIT_S)
