"""What goes wrong under a replay: vanished and damaged objects, deleted records, bad requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.errors import Corrupt, HeadwaterError, InvalidRequest, NotFound, OffsetOutOfRange
from headwater.log import parquet
from headwater.log.namespace import Namespace
from headwater.replay import Commit, Replay, open_replay
from headwater.replay.columns import shape_of
from headwater.store.base import Blob
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.types import Record
from headwater.upkeep.offload import inline
from tests.replay.helpers_replay import Twin, plain


def records(count: int, size: int = 3) -> list[Record]:
    return [Record(value=bytes([65 + i % 26]) * size, key=b"%d" % (i % 5), timestamp=10 * i) for i in range(count)]


@asynccontextmanager
async def twin(store: Any = None, partitions: int = 1) -> AsyncIterator[Twin]:
    async with await Namespace.open(store or MemoryStore(), "ns", rng=random.Random(1)) as log:
        yield await Twin.create(log, partitions=partitions)


async def archived(made: Twin, count: int, cuts: Sequence[int] = ()) -> list[str]:
    """``count`` records in files; the keys of these."""
    await made.append(0, records(count))
    await made.archive(0, count, cuts)
    return [file.key for file in made.listed(0)]


class Slow(MeteredStore):
    """A store that calls ``before`` with every key that is read."""

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        await self.before(key)
        return await super().get(key, start=start, end=end)

    async def before(self, key: str) -> None:
        """Nothing yet."""


# -- objects that vanish (R6) --------------------------------------------------------------------------


def test_files_that_are_compacted_and_collected_under_a_replay_cost_no_record_and_repeat_none() -> None:
    async def main() -> None:
        async with twin() as made:
            old = await archived(made, 40, cuts=[10, 20, 30])
            opened = await open_replay(made.log, "t", offload=inline)
            expected = made.expected()
            await made.compact(0, 0, 4, lambda offset: True)
            await made.log.store.delete(old)
            assert expected == plain([batch async for batch in opened.batches()])

    asyncio.run(main())


def test_a_file_that_vanishes_in_the_middle_is_looked_up_again_at_the_next_offset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headwater.replay.archive.REPLAY_FILES_AHEAD", 1)

    async def main() -> None:
        async with twin() as made:
            old = await archived(made, 40, cuts=[10, 20, 30])
            expected = made.expected()
            opened = await open_replay(made.log, "t", offload=inline, memory_bytes=1 << 20)
            found = []
            async for batch in opened.batches():
                found.append(batch)
                if len(found) == 1:
                    await made.compact(0, 0, 4, lambda offset: True)
                    await made.log.store.delete(old)
            assert expected == plain(found)
            assert len(found) >= 2

    asyncio.run(main())


def test_chunks_that_are_archived_and_collected_under_a_replay_are_read_from_the_files() -> None:
    async def main() -> None:
        bucket = MemoryStore()
        async with twin(bucket) as made:
            await made.append(0, records(30, size=40_000))  # too large to ride in the manifest
            opened = await open_replay(made.log, "t", offload=inline)
            await made.archive(0, 30)
            await made.log.store.delete([stat.key async for stat in made.log.store.list("segment/")])
            assert made.expected() == plain([batch async for batch in opened.batches()])

    asyncio.run(main())


def test_a_file_that_is_gone_for_good_is_corrupt_and_named() -> None:
    async def main() -> None:
        async with twin() as made:
            (key,) = await archived(made, 10)
            await made.log.store.delete([key])
            with pytest.raises(Corrupt, match="headwater verify") as caught:
                await made.replayed(offload=inline)
            assert key in str(caught.value)

    asyncio.run(main())


def test_a_past_whose_files_are_collected_says_so() -> None:
    async def main() -> None:
        async with twin() as made:
            (key,) = await archived(made, 10)
            past = made.log.state.seq
            await made.compact(0, 0, 1, lambda offset: offset > 5)
            await made.log.store.delete([key])
            with pytest.raises(NotFound, match=r"can no longer be read.*history\.retention\.ms"):
                await made.replayed(as_of=past, offload=inline)
            assert made.expected() == await made.replayed(offload=inline)

    asyncio.run(main())


def test_records_that_are_deleted_under_a_replay_are_an_error_and_not_left_out() -> None:
    async def main() -> None:
        async with twin() as made:
            old = await archived(made, 20, cuts=[10])
            opened = await open_replay(made.log, "t", offload=inline)
            await made.trim(0, 15)
            await made.log.store.delete(old[:1])
            with pytest.raises(OffsetOutOfRange, match="were deleted while they were replayed"):
                [batch async for batch in opened.batches()]

    asyncio.run(main())


# -- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["directory", "memory"])
def test_any_damaged_byte_of_a_file_is_noticed(where: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path, fsync=False) if where == "directory" else MemoryStore()

    async def main() -> None:
        async with twin(store) as made:
            (key,) = await archived(made, 50)
            data = (await made.log.store.get(key)).data
            for at in range(0, len(data), max(1, len(data) // 60)):
                await made.log.store.put(key, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
                with pytest.raises(Corrupt) as caught:
                    await made.replayed(offload=inline)
                assert key in str(caught.value)
            await made.log.store.put(key, data)
            assert made.expected() == await made.replayed(offload=inline)

    asyncio.run(main())


@pytest.mark.parametrize("where", ["directory", "memory"])
def test_a_file_that_was_cut_is_corrupt(where: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path, fsync=False) if where == "directory" else MemoryStore()

    async def main() -> None:
        async with twin(store) as made:
            (key,) = await archived(made, 50)
            data = (await made.log.store.get(key)).data
            for size in (0, 7, len(data) // 2, len(data) - 1):
                await made.log.store.put(key, data[:size])
                with pytest.raises(Corrupt, match="was cut"):
                    await made.replayed(offload=inline)

    asyncio.run(main())


def test_part_of_a_file_is_checked_page_by_page(tmp_path: Path) -> None:
    async def main() -> None:
        async with twin(LocalStore(tmp_path, fsync=False)) as made:
            noise = random.Random(3)
            await made.append(0, [Record(value=noise.randbytes(100), timestamp=1) for _ in range(1_000)])
            await made.archive(0, 1_000)
            key = made.listed(0)[0].key
            data = (await made.log.store.get(key)).data
            refused = 0
            for at in range(8, len(data), len(data) // 20):
                await made.log.store.put(key, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
                try:
                    assert made.expected(columns=["value"]) == await made.replayed(columns=["value"], offload=inline)
                except Corrupt:
                    refused += 1
            assert refused > 15  # nearly all of the file is values

    asyncio.run(main())


# -- requests that make no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"columns": ["valu"]}, InvalidRequest, "no column 'valu'; it has partition, offset"),
        ({"columns": []}, InvalidRequest, "at least one column"),
        ({"columns": ["key", "key"]}, InvalidRequest, "2 times"),
        ({"filter": [("nothing", "=", 1)]}, InvalidRequest, "filter does not fit topic 't'"),
        ({"filter": [("offset", "~", 1)]}, InvalidRequest, "filter does not fit"),
        ({"filter": [("timestamp", ">", "noon")]}, InvalidRequest, "filter does not fit"),
        ({"filter": 7}, InvalidRequest, "filter does not fit"),
        ({"partitions": [1]}, NotFound, "partitions 0 to 0, and no partition 1"),
        ({"partitions": [0, 0]}, InvalidRequest, "twice"),
        ({"partitions": ["0"]}, InvalidRequest, "not '0'"),
        ({"start": 8, "end": 3}, InvalidRequest, "the start lies behind the end"),
        ({"start": datetime(2020, 1, 2), "end": datetime(2020, 1, 1)}, InvalidRequest, "lies behind"),  # noqa: DTZ001
        ({"start": 11}, OffsetOutOfRange, r"\[0, 10\); 11 is outside"),
        ({"start": -1}, InvalidRequest, "0 or more"),
        ({"start": "soon"}, InvalidRequest, "no place in a topic"),
        ({"start": 1.5}, InvalidRequest, "no place in a topic"),
        ({"start": {3: 0}}, NotFound, "no partition 3"),
        ({"start": {"0": 0}}, InvalidRequest, "by partition"),
        ({"start": Commit(10_000)}, NotFound, "has not been made yet"),
        ({"as_of": 10_000}, NotFound, "has not been made yet"),
        ({"as_of": -1}, InvalidRequest, "from 0 on"),
        ({"as_of": 0}, NotFound, "no topic 't' in namespace 'ns' at commit 0"),
        ({"as_of": "yesterday"}, InvalidRequest, "a datetime"),
        ({"order": "key"}, InvalidRequest, "'partition' or 'timestamp'"),
        ({"memory_bytes": 10}, InvalidRequest, "at least 1048576 bytes"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_read(
    options: dict[str, Any], kind: type[HeadwaterError], says: str
) -> None:
    async def main() -> Replay:
        async with twin() as made:
            await made.append(0, records(10))
            return await open_replay(made.log, "t", **options)

    with pytest.raises(kind, match=says):
        asyncio.run(main())


def test_a_topic_that_does_not_exist_is_named_beside_those_that_do() -> None:
    async def main() -> Replay:
        async with twin() as made:
            return await open_replay(made.log, "u")

    with pytest.raises(NotFound, match="no topic 'u' in namespace 'ns'; there are: t"):
        asyncio.run(main())


# -- what is read, and what is held ---------------------------------------------------------------------------


def test_only_files_row_groups_and_columns_that_can_matter_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr("headwater.replay.archive.REPLAY_WHOLE_BYTES", 0)
    monkeypatch.setattr("headwater.replay.pieces.REPLAY_PIECE_BYTES", 0)
    store = MeteredStore(MemoryStore())

    async def cost(made: Twin, **options: Any) -> tuple[int, int]:
        before = store.counts.copy()
        await made.replayed(offload=inline, **options)
        took = store.counts - before
        return took.get - 1, took.bytes_in

    async def main() -> None:
        noise = random.Random(3)
        async with twin(store) as made:
            rows = [Record(value=noise.randbytes(2_000), timestamp=10 * i) for i in range(1_000)]
            await made.append(0, rows)
            await made.archive(0, 1_000, cuts=[250, 500, 750])
            everything = await cost(made)
            assert everything[0] == 4 + 12
            assert (await cost(made, start=510, end=520))[0] == 2  # a footer and a row group
            assert (await cost(made, filter=[("offset", "==", 300)]))[0] == 2
            assert (await cost(made, filter=[("partition", "==", 7)])) == (0, 0)
            assert (await cost(made, filter=[("value", "==", rows[600].value)]))[0] <= 4 + 12
            few = await cost(made, columns=["offset", "timestamp"])
            assert few[1] < everything[1] / 5

    asyncio.run(main())


def test_a_remote_file_that_is_wanted_whole_is_fetched_once_in_parts_and_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr("headwater.replay.archive.REPLAY_WHOLE_BYTES", 0)
    monkeypatch.setattr("headwater.replay.archive.REPLAY_PART_BYTES", 300_000)
    store = MeteredStore(MemoryStore())

    async def main() -> None:
        noise = random.Random(3)
        async with twin(store) as made:
            rows = [Record(value=noise.randbytes(2_000), timestamp=10 * i) for i in range(1_000)]
            await made.append(0, rows)
            await made.archive(0, 1_000)
            (file,) = made.listed(0)
            before = store.counts.copy()
            found = await made.replayed(offload=inline)
            took = store.counts - before
            assert [row.value for row in rows] == [each["value"] for each in found]
            assert (2 + 5, True) == (took.get, took.bytes_in < file.bytes + 100_000)  # the tip, a footer, five parts
            flipped = bytearray((await store.inner.get(f"ns/{file.key}")).data)
            flipped[file.bytes // 2] ^= 1
            await store.inner.put(f"ns/{file.key}", bytes(flipped))
            with pytest.raises(Corrupt, match="CRC32C"):
                await made.replayed(offload=inline)

    asyncio.run(main())


def test_a_replay_holds_about_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 256)
    from headwater.replay import pieces

    held: list[int] = []
    started = pieces._started

    def watched(piece: Any, budget: Any) -> Any:
        running = started(piece, budget)
        held.append(budget.used)
        return running

    monkeypatch.setattr(pieces, "_started", watched)

    async def main() -> None:
        noise = random.Random(3)
        async with twin() as made:
            for _ in range(32):
                await made.append(0, [Record(value=noise.randbytes(1_000), timestamp=1) for _ in range(256)])
            await made.archive(0, 4_096)
            for memory_bytes in (1 << 20, 4 << 20):
                held.clear()
                assert made.expected() == await made.replayed(offload=inline, memory_bytes=memory_bytes)
                assert len(held) > 16
                # Until the first piece is decoded nobody knows what one takes; then the budget holds.
                assert max(held[3:]) <= memory_bytes

    asyncio.run(main())


def test_a_slow_consumer_of_a_large_archive_keeps_memory_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1 << 20)
    size, memory_bytes = 48 << 20, 8 << 20

    async def main() -> None:
        noise = random.Random(3)
        async with twin(LocalStore(tmp_path, fsync=False)) as made:
            for _ in range(size >> 20):
                await made.append(0, [Record(value=noise.randbytes(1_024), timestamp=1) for _ in range(1_024)])
            await made.archive(0, 1_024 * (size >> 20), cuts=range(0, 1_024 * (size >> 20), 12_288))
            before, peak, given = pa.total_allocated_bytes(), 0, 0
            opened = await open_replay(made.log, "t", memory_bytes=memory_bytes)
            async for batch in opened.batches():
                given += batch.nbytes
                await asyncio.sleep(0.002)  # time for what is read ahead to pile up, if it would
                peak = max(peak, pa.total_allocated_bytes() - before)
            assert given > size
            # Two more row groups at most: the one given out, and the one that is being put together.
            assert peak < memory_bytes + (3 << 20)

    asyncio.run(main())


def test_the_text_of_a_filter_names_every_column_that_it_uses() -> None:
    async def main() -> tuple[str, ...]:
        async with twin() as made:
            condition = pc.field("key").is_null() | ~pc.field("value").isin([b"x"])
            return shape_of(made.log.topic("t"), ["offset"], condition).needed

    assert asyncio.run(main()) == ("offset", "key", "value")
