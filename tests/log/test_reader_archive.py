"""Reading across the archive: files first, then chunks, and gaps where compaction left them."""

from __future__ import annotations

import pytest

from headwater.errors import Corrupt, NotFound, OffsetOutOfRange
from headwater.log import batch, keys
from headwater.log.history import state_at
from headwater.log.operations import SwapFiles
from headwater.store.memory import MemoryStore
from headwater.types import Record
from tests.log.helpers import simulate
from tests.log.helpers_archive import archive, compact, filled, opened, value, walk


@pytest.mark.parametrize("bytes_max", [1, 100, 1 << 20])
def test_every_offset_is_read_from_files_and_then_from_chunks(bytes_max: int) -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        await archive(log, 0, 6, 12, 21)
        await log.house.snapshot()
        await log.append("t", 0, batch.batch_of_records([Record(value=value(30), timestamp=300)], default_timestamp=0))
        dead = range(2, 9)  # the manifests of the offsets below 21
        await store.delete([f"default/{keys.manifest_key(seq)}" for seq in dead])
        cold = await opened(store, 2)
        for start in range(31):
            expected = list(range(start, 31))
            assert (expected, [value(n) for n in expected]) == await walk(cold, start, bytes_max=bytes_max)

    simulate(main())


def test_compacted_ranges_have_gaps_and_no_reader_trips_over_them() -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        files = await archive(log, 0, 6, 12, 21)
        kept = [1, 2, 7, 8, 9, 15]
        await compact(log, files, kept)
        for start in range(30):
            expected = [n for n in [*kept, *range(21, 30)] if n >= start]
            for bytes_max in (1, 1 << 20):
                assert (expected, [value(n) for n in expected]) == await walk(log, start, bytes_max=bytes_max)
        (chunk,) = (await log.reader.fetch("t", 0, 0)).chunks
        assert (1, 6, 16) == (chunk.base, chunk.count, chunk.end)
        assert "arrow" == chunk.codec

    simulate(main())


def test_a_file_in_which_nothing_is_left_is_passed_over() -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        files = await archive(log, 0, 6, 12)
        await compact(log, files[:1], [])
        fetched = await log.reader.fetch("t", 0, 0)
        assert ([6], 12) == ([chunk.base for chunk in fetched.chunks], fetched.next_offset)
        await compact(log, files[1:], [])
        fetched = await log.reader.fetch("t", 0, 3)
        assert ([], 12) == (fetched.chunks, fetched.next_offset)
        assert (list(range(12, 30)), [value(n) for n in range(12, 30)]) == await walk(log, 0)

    simulate(main())


def test_a_time_is_found_in_files_and_in_chunks() -> None:
    async def main() -> None:
        log = await filled(MemoryStore())
        files = await archive(log, 0, 6, 12, 21)
        await compact(log, files[1:2], [8])
        assert (0, 0) == await log.reader.offset_at("t", 0, -5)
        assert (4, 40) == await log.reader.offset_at("t", 0, 35)
        assert (8, 80) == await log.reader.offset_at("t", 0, 61)
        assert (12, 120) == await log.reader.offset_at("t", 0, 81)
        assert (25, 250) == await log.reader.offset_at("t", 0, 250)
        assert None is await log.reader.offset_at("t", 0, 291)
        await log.trim("t", 0, 5)
        assert (5, 50) == await log.reader.offset_at("t", 0, 0)

    simulate(main())


def test_trimmed_files_are_out_of_range() -> None:
    async def main() -> None:
        log = await filled(MemoryStore())
        await archive(log, 0, 6, 12)
        await log.trim("t", 0, 8)
        with pytest.raises(OffsetOutOfRange):
            await log.reader.fetch("t", 0, 7)
        assert list(range(8, 30)) == (await walk(log, 8))[0]

    simulate(main())


def test_as_of_a_commit_everything_reads_as_it_did_then() -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        hot = log.state.seq
        await log.house.snapshot()
        files = await archive(log, 0, 6, 12, 21)
        archived = log.state.seq
        await compact(log, files, [20])
        await log.trim("t", 0, 20)
        assert [20, *range(21, 30)] == (await walk(log, 20))[0]
        for commit in (hot, archived):
            then = await state_at(log.chain, commit)
            assert list(range(30)) == (await walk(log, 0, state=then))[0]
        then = await state_at(log.chain, archived + 1)
        assert [20, *range(21, 30)] == (await walk(log, 0, state=then))[0]

    simulate(main())


def test_a_file_that_vanished_sends_the_reader_to_the_newest_state() -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        files = await archive(log, 0, 6, 12)
        sleeper = await opened(store, 2)
        then = await state_at(sleeper.chain, sleeper.state.seq)
        await compact(log, files, [4, 5])
        await store.delete([f"default/{file.key}" for file in files])
        fetched = await sleeper.reader.fetch("t", 0, 0, fresh=False)
        assert [4, 5] == fetched.chunks[0].decode().column("offset").to_pylist()
        with pytest.raises(NotFound, match=r"history\.retention\.ms"):
            await sleeper.reader.fetch("t", 0, 0, state=then)

    simulate(main())


def test_a_file_that_is_lost_for_good_is_corrupt_and_named() -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        (file,) = await archive(log, 0, 6)
        await store.delete([f"default/{file.key}"])
        with pytest.raises(Corrupt, match="archive/topic=t"):
            await log.reader.fetch("t", 0, 0)
        assert 6 == (await log.reader.fetch("t", 0, 6)).chunks[0].base

    simulate(main())


def test_old_files_are_found_through_their_page() -> None:
    from headwater.log import files as lists

    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        files = await archive(log, 0, 6, 12, 21)
        page, data = lists.encode(files[:2], keys.file_page_key(log.state.seq, 1, 0, "aaaa"))
        await log.store.put(page.key, data)
        was = [file.key for file in files[:2]]
        await log.writer.commit(ops=[SwapFiles(topic=1, partition=0, base=0, end=12, was=was, pages=[page])])
        cold = await opened(store, 2)
        assert list(range(30)) == (await walk(cold, 0))[0]
        assert (7, 70) == await cold.reader.offset_at("t", 0, 65)

    simulate(main())
