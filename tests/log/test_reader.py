"""The read path: every offset, the long poll, what vanished, what was changed, and how much is held in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headwater.errors import Corrupt, InvalidRequest, NotFound, OffsetOutOfRange
from headwater.log import keys
from headwater.log.batch import batch_of_records, records_of
from headwater.log.chunk import Chunk
from headwater.log.operations import CreateTopic, EndReserve, InitProducer, Reserve, TrimLog
from headwater.log.options import Options
from headwater.log.polling import POLL_S_MIN
from headwater.log.reader import Fetched
from headwater.log.writer import Append
from headwater.sim.loop import sim_loop
from headwater.types import Batch, Record
from tests.log.helpers import Parts, blob, keys_under, memory, simulate, still_running
from tests.log.helpers_store import Scripted, dawdling, ok, slow


class Desk:
    """One process with a topic of two partitions, and a second one to read."""

    def __init__(self, options: Options | None = None) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)
        self.options = options
        self.parts = Parts(self.store, options=options)

    async def start(self) -> Desk:
        await self.parts.chain.refresh()
        await self.parts.writer.commit(ops=[CreateTopic(name="t", partitions=2)])
        return self

    async def append(self, *batches: Batch, partition: int = 0) -> list[int]:
        wanted = [Append(topic=1, partition=partition, batch=batch) for batch in batches]
        return (await self.parts.writer.commit(wanted)).bases

    async def other(self, options: Options | None = None) -> Parts:
        parts = Parts(self.store, writer="w2", seed=2, options=options or self.options)
        await parts.chain.refresh()
        return parts

    async def fetch(self, offset: int, **options: Any) -> Fetched:
        return await self.parts.reader.fetch("t", options.pop("partition", 0), offset, **options)


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]], options: Options | None = None) -> None:
    async def start() -> None:
        await main(await Desk(options).start())

    simulate(start())


def spans(fetched: Fetched) -> list[tuple[int, int]]:
    return [(chunk.base, chunk.end) for chunk in fetched.chunks]


# -- offsets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2_000])
def test_a_fetch_from_any_offset_begins_with_the_chunk_that_holds_it(size: int) -> None:
    async def main(desk: Desk) -> None:
        for i, count in enumerate((3, 1, 5)):
            await desk.append(blob(count, size, fill=i))
        for reader in (desk.parts.reader, (await desk.other()).reader):
            for offset in range(9):
                fetched = await reader.fetch("t", 0, offset)
                first = fetched.chunks[0]
                assert first.base <= offset < first.end
                assert (9, 9, 9, 0) == (
                    fetched.next_offset, fetched.high_watermark, fetched.stable_end, fetched.log_start,
                )  # fmt: skip
                assert all(bytes([c.base and {3: 1, 4: 2}[c.base]]) * size == c.data for c in fetched.chunks)
            assert ([], 9) == (spans(await reader.fetch("t", 0, 9)), (await reader.fetch("t", 0, 9)).next_offset)

    at_a_desk(main, Options(inline_bytes_max=1_000))


def test_an_empty_partition_gives_nothing_and_stays_where_it_is() -> None:
    async def main(desk: Desk) -> None:
        fetched = await desk.fetch(0)
        assert ([], 0, 0, 0) == (spans(fetched), fetched.next_offset, fetched.high_watermark, fetched.log_start)

    at_a_desk(main)


def test_an_offset_out_of_range_carries_the_valid_range() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(blob(10))
        await desk.parts.writer.commit(ops=[TrimLog(topic=1, partition=0, before=4)])
        for offset in (0, 3, 11, 2**62):
            with pytest.raises(OffsetOutOfRange) as caught:
                await desk.fetch(offset)
            assert (4, 10) == (caught.value.log_start, caught.value.high_watermark)
        assert [(0, 10)] == spans(await desk.fetch(4))
        assert [] == spans(await desk.fetch(10))
        with pytest.raises(InvalidRequest):
            await desk.fetch(-1)

    at_a_desk(main)


def test_an_unknown_topic_or_partition_is_not_found() -> None:
    async def main(desk: Desk) -> None:
        for topic, partition in (("u", 0), ("t", 2), ("t", -1)):
            with pytest.raises(NotFound):
                await desk.parts.reader.fetch(topic, partition, 0)
            with pytest.raises(NotFound):
                await desk.parts.reader.offset_at(topic, partition, 0)
            with pytest.raises(NotFound):
                assert [] == [c async for c in desk.parts.reader.chunks(topic, partition, 0)]

    at_a_desk(main)


@pytest.mark.parametrize(("bytes_max", "chunks"), [(0, 1), (1, 1), (100, 1), (199, 1), (200, 2), (299, 2), (10**9, 5)])
def test_at_most_so_many_bytes_but_at_least_one_chunk(bytes_max: int, chunks: int) -> None:
    async def main(desk: Desk) -> None:
        for _ in range(5):
            await desk.append(blob(1, 100))
        fetched = await desk.fetch(0, bytes_max=bytes_max)
        assert (chunks, chunks) == (len(fetched.chunks), fetched.next_offset)

    at_a_desk(main)


@pytest.mark.parametrize("size", [10, 2_000])
def test_a_reader_waits_before_a_reservation_and_skips_the_gap_that_it_leaves(size: int) -> None:
    async def main(desk: Desk) -> None:
        pid = (await desk.parts.writer.commit(ops=[InitProducer(tid="x")])).values["pid"]
        await desk.append(blob(2, size, fill=1))
        numbered = blob(3, size, fill=2, producer_id=pid, producer_epoch=0)
        await desk.parts.writer.commit(
            [Append(topic=1, partition=0, batch=numbered)], [Reserve(pid=pid, epoch=0, timeout_ms=5)]
        )
        await desk.append(blob(4, size, fill=3))
        fetched = await desk.fetch(0)
        assert ([(0, 2)], 2, 9) == (spans(fetched), fetched.stable_end, fetched.high_watermark)
        for offset in (2, 3, 5, 9):
            assert ([], offset) == (spans(await desk.fetch(offset)), (await desk.fetch(offset)).next_offset)
        await desk.parts.writer.commit(ops=[EndReserve(pid=pid, epoch=0, commit=False)])
        assert [(0, 2), (5, 9)] == spans(await desk.fetch(0))
        assert [(5, 9)] == spans(await desk.fetch(3))
        numbered = blob(3, size, fill=2, producer_id=pid, producer_epoch=1)
        await desk.parts.writer.commit(
            [Append(topic=1, partition=1, batch=numbered)], [Reserve(pid=pid, epoch=1, timeout_ms=5)]
        )
        await desk.parts.writer.commit(ops=[EndReserve(pid=pid, epoch=1, commit=True)])
        (chunk,) = (await desk.fetch(0, partition=1)).chunks
        assert bytes([2]) * size == chunk.data

    at_a_desk(main, Options(inline_bytes_max=1_000))


def test_a_fetch_at_a_gap_alone_moves_on() -> None:
    async def main(desk: Desk) -> None:
        pid = (await desk.parts.writer.commit(ops=[InitProducer(tid="x")])).values["pid"]
        batch = blob(3, producer_id=pid, producer_epoch=0)
        await desk.parts.writer.commit(
            [Append(topic=1, partition=0, batch=batch)], [Reserve(pid=pid, epoch=0, timeout_ms=5)]
        )
        await desk.parts.writer.commit(ops=[EndReserve(pid=pid, epoch=0, commit=False)])
        fetched = await desk.fetch(1, wait_ms=10_000)
        assert ([], 3) == (spans(fetched), fetched.next_offset)
        assert 0 == desk.parts.clock.elapsed_s()
        assert [] == [c async for c in desk.parts.reader.chunks("t", 0, 0)]

    at_a_desk(main)


# -- the long poll ------------------------------------------------------------------------------------------


def test_a_long_poll_wakes_at_once_for_a_commit_of_its_own_process() -> None:
    async def main(desk: Desk) -> None:
        waiting = asyncio.ensure_future(desk.fetch(0, wait_ms=60_000))
        await sim_loop().sleep(5)
        await desk.append(blob())
        assert [(0, 1)] == spans(await waiting)
        assert 5.0 == pytest.approx(desk.parts.clock.elapsed_s())

    at_a_desk(main)


def test_a_long_poll_does_not_look_for_what_its_own_process_is_about_to_commit() -> None:
    """A look would hold it up: it would hear of the commit when the look is over."""

    async def main(desk: Desk) -> None:
        await desk.parts.chain.refresh()
        desk.store.will("put_if_absent", slow(sim_loop(), 0.5))
        desk.store.always["get"] = slow(sim_loop(), 30.0)
        desk.store.calls.clear()
        appending = asyncio.ensure_future(desk.append(blob()))
        assert [(0, 1)] == spans(await desk.fetch(0, wait_ms=60_000, fresh=False))
        assert 0.5 == pytest.approx(desk.parts.clock.elapsed_s())
        assert 0 == desk.store.calls["get"]
        await appending

    at_a_desk(main)


def test_a_long_poll_looks_for_others_while_its_own_process_waits_in_vain() -> None:
    async def main(desk: Desk) -> None:
        away = await desk.other()
        desk.store.always["put_if_absent"] = dawdling(ok, 100.0)
        appending = asyncio.ensure_future(away.writer.commit([Append(topic=1, partition=1, batch=blob())]))
        await sim_loop().sleep(0.1)
        desk.store.always.clear()
        await desk.append(blob())
        assert [(0, 1)] == spans(await away.reader.fetch("t", 0, 0, wait_ms=60_000, fresh=False))
        assert 5.0 > desk.parts.clock.elapsed_s()
        appending.cancel()

    at_a_desk(main)


def test_a_long_poll_finds_a_commit_of_another_process_within_its_pause() -> None:
    async def main(desk: Desk) -> None:
        reader = (await desk.other()).reader
        desk.store.calls.clear()
        waiting = asyncio.ensure_future(reader.fetch("t", 0, 0, wait_ms=60_000))
        await sim_loop().sleep(20)
        assert desk.store.calls["get"] < 40
        await desk.append(blob())
        assert [(0, 1)] == spans(await waiting)
        assert desk.parts.clock.elapsed_s() < 21.1

    at_a_desk(main)


def test_a_reader_of_another_process_has_a_commit_as_soon_as_one_look_has_found_it() -> None:
    """It waited for a second one, which proved that there was no more."""

    async def main(desk: Desk) -> None:
        reader = (await desk.other()).reader
        desk.store.always["get"] = slow(sim_loop(), 0.03)
        waiting = asyncio.ensure_future(reader.fetch("t", 0, 0, wait_ms=60_000, fresh=False))
        await desk.append(blob())
        assert [(0, 1)] == spans(await waiting)
        assert POLL_S_MIN + 0.03 == pytest.approx(desk.parts.clock.elapsed_s())

    at_a_desk(main)


@pytest.mark.parametrize("readers", [1, 20])
def test_readers_of_a_quiet_partition_look_no_more_often_than_others_commit(readers: int) -> None:
    async def main(desk: Desk) -> None:
        reader = (await desk.other()).reader
        desk.store.always["get"] = slow(sim_loop(), 0.03)
        waiting = [asyncio.ensure_future(reader.fetch("t", 0, 0, wait_ms=10_000, fresh=False)) for _ in range(readers)]
        desk.store.calls.clear()
        for _ in range(100):
            await sim_loop().sleep(0.1)
            await desk.append(blob(), partition=1)
        assert not any(spans(each) for each in await asyncio.gather(*waiting))
        assert desk.store.calls["get"] <= 220

    at_a_desk(main)


def test_a_long_poll_ends_empty_when_its_time_is_up() -> None:
    async def main(desk: Desk) -> None:
        waiting = asyncio.ensure_future(desk.fetch(0, wait_ms=3_000))
        await sim_loop().sleep(1)
        await desk.append(blob(), partition=1)  # not ours
        assert [] == spans(await waiting)
        assert 3.0 == pytest.approx(desk.parts.clock.elapsed_s(), abs=0.01)

    at_a_desk(main)


def test_a_fetch_that_is_not_fresh_costs_no_request_for_the_tip() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(blob())
        await desk.parts.chain.refresh()
        desk.store.calls.clear()
        await desk.fetch(1, fresh=False)
        assert {} == dict(desk.store.calls)
        await desk.fetch(1)
        assert {"get": 1} == dict(desk.store.calls)

    at_a_desk(main)


def test_a_tailing_reader_gets_data_and_metadata_in_one_get() -> None:
    async def main(desk: Desk) -> None:
        reader = (await desk.other()).reader
        await desk.append(blob(), blob())
        desk.store.calls.clear()
        assert 2 == len((await reader.fetch("t", 0, 0)).chunks)
        assert desk.store.calls["get"] <= 3  # the manifest, and the search for its successors

    at_a_desk(main)


def test_neighbouring_chunks_of_a_segment_are_one_request() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(*(blob(1, 2_000, fill=i) for i in range(6)))
        reader = (await desk.other()).reader
        await reader.fetch("t", 0, 6)
        desk.store.calls.clear()
        fetched = await reader.fetch("t", 0, 0, fresh=False)
        assert ([0, 1, 2, 3, 4, 5], 1) == ([c.data[0] for c in fetched.chunks], desk.store.calls["get"])

    at_a_desk(main, Options(inline_bytes_max=1_000))


# -- by time ---------------------------------------------------------------------------------------------------


def timed(*times: int) -> Batch:
    return batch_of_records([Record(value=b"v", timestamp=time) for time in times], default_timestamp=0)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (0, (0, 10)), (10, (0, 10)), (11, (1, 30)), (30, (1, 30)), (31, (3, 40)), (40, (3, 40)), (41, (5, 90)),
        (90, (5, 90)), (91, None),
    ],
)  # fmt: skip
def test_the_first_offset_at_or_after_a_time_is_exact_inside_a_batch(timestamp: int, expected: Any) -> None:
    async def main(desk: Desk) -> None:
        await desk.append(timed(10, 30, 20))
        await desk.append(timed(40))
        await desk.append(timed(15, 90, 50))
        for _ in range(2):
            assert expected == await desk.parts.reader.offset_at("t", 0, timestamp)
            await desk.parts.house.snapshot()
        assert None is await desk.parts.reader.offset_at("t", 1, timestamp)

    at_a_desk(main)


def test_a_search_by_time_heeds_the_log_start() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(timed(10, 20, 30))
        await desk.append(timed(15))
        await desk.parts.writer.commit(ops=[TrimLog(topic=1, partition=0, before=2)])
        assert (2, 30) == await desk.parts.reader.offset_at("t", 0, 5)
        await desk.parts.writer.commit(ops=[TrimLog(topic=1, partition=0, before=3)])
        assert (3, 15) == await desk.parts.reader.offset_at("t", 0, 5)

    at_a_desk(main)


def test_records_come_back_as_they_went_in() -> None:
    async def main(desk: Desk) -> None:
        records = [Record(value=f"v{i}".encode(), key=b"k", timestamp=i, headers=(("h", b"x"),)) for i in range(5)]
        await desk.append(batch_of_records(records, default_timestamp=0))
        (chunk,) = (await desk.fetch(2)).chunks
        found = list(records_of("t", 0, chunk.decode()))
        assert [(r.value, r.key, r.timestamp, r.headers) for r in records] == [
            (r.value, r.key, r.timestamp, r.headers) for r in found
        ]
        assert [0, 1, 2, 3, 4] == [r.offset for r in found]

    at_a_desk(main)


def test_a_chunk_with_another_number_of_records_than_the_log_says_is_corrupt() -> None:
    async def main(desk: Desk) -> None:
        good = timed(1, 2, 3)
        wrong = Batch(codec="arrow", data=good.data, count=2, timestamp_min=1, timestamp_max=3)
        await desk.append(wrong)
        (chunk,) = (await desk.fetch(0)).chunks
        with pytest.raises(Corrupt, match="holds 3 records and the log says 2"):
            chunk.decode()

    at_a_desk(main)


# -- what vanished and what was changed (R6) ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "flipped", "cut"])
def test_broken_bytes_are_corrupt_and_name_the_object(how: str) -> None:
    async def main(desk: Desk) -> None:
        await desk.append(blob(3, 2_000), blob(4, 2_000))
        (key,) = await keys_under(desk.truth, "segment/")
        data = bytearray((await desk.truth.get(key)).data)
        reader = (await desk.other()).reader
        if how == "missing":
            await desk.truth.delete([key])
        else:
            data[-1] ^= 1
            await desk.truth.put(key, bytes(data) if how == "flipped" else bytes(data[:-1]))
        for fetch in (
            lambda: reader.fetch("t", 0, 0),
            lambda: reader.fetch("t", 0, 5),
        ):
            with pytest.raises(Corrupt) as caught:
                await fetch()
            assert key in str(caught.value)
            assert key == caught.value.data["key"]
        if how == "flipped":
            assert "[3, 7)" in str(caught.value)
            assert [(0, 3)] == spans(await reader.fetch("t", 0, 0, bytes_max=1))

    at_a_desk(main, Options(inline_bytes_max=1_000))


def test_a_page_that_was_merged_away_sends_the_reader_back_to_the_state() -> None:
    async def main(desk: Desk) -> None:
        reader = await desk.other()
        for i in range(40):
            await desk.append(blob(1, fill=i))
            if i % 3 == 0:
                await desk.parts.house.snapshot()
                await reader.chain.refresh()
                await reader.chain.adopt_pages()
                if i == 15:
                    old = {keys.index_key(ref.first, ref.last) for ref in reader.chain.state.pages}
        kept = {keys.index_key(ref.first, ref.last) for ref in desk.parts.chain.state.pages}
        assert old - kept
        gone = [key for key in await keys_under(desk.truth, "index/") if key not in kept]
        await desk.truth.delete(gone)
        assert 40 == len((await reader.reader.fetch("t", 0, 0)).chunks)

    at_a_desk(main)


def test_a_page_that_is_gone_for_good_is_corrupt() -> None:
    async def main(desk: Desk) -> None:
        await desk.append(blob())
        await desk.parts.house.snapshot()
        reader = (await desk.other()).reader
        (key,) = await keys_under(desk.truth, "index/")
        await desk.truth.delete([key])
        with pytest.raises(Corrupt) as caught:
            await reader.fetch("t", 0, 0)
        assert key in str(caught.value)
        with pytest.raises(Corrupt):
            await reader.offset_at("t", 0, 0)

    at_a_desk(main)


def test_a_hole_in_the_index_is_corrupt_and_never_skipped() -> None:
    """A reader went on behind the hole, or waited before it for ever, and lost its records without a word."""

    async def main(desk: Desk) -> None:
        for _ in range(4):
            await desk.append(blob(2))
        tail = desk.parts.chain.state.topics[1].partitions[0].tail
        whole = list(tail)
        for gone in (0, 1, 3):
            tail[:] = whole[:gone] + whole[gone + 1 :]
            with pytest.raises(Corrupt, match=rf"\[{2 * gone}, {2 * gone + 2}\)"):
                await desk.fetch(0)
            with pytest.raises(Corrupt):
                assert [] == [c async for c in desk.parts.reader.chunks("t", 0, 0)]
        tail[:] = whole
        assert 8 == (await desk.fetch(0)).next_offset

    at_a_desk(main)


# -- whole ranges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_chunks_give_a_range_whole_and_in_order(seed: int) -> None:
    async def main(desk: Desk) -> None:
        rng = random.Random(seed)
        for i in range(80):
            await desk.append(*(blob(rng.choice([1, 3]), rng.choice([10, 2_000]), fill=i) for _ in range(2)))
            if rng.random() < 0.1:
                await desk.parts.house.snapshot()
        reader = (await desk.other()).reader
        end = (await reader.fetch("t", 0, 0)).high_watermark
        for start, stop in ((0, None), (end // 3, end // 2), (end, None), (5, 6), (7, 7)):
            found: list[Chunk] = [c async for c in reader.chunks("t", 0, start, stop, bytes_max=8_000)]
            wanted = range(start, end if stop is None else stop)
            covered = [offset for c in found for offset in range(c.base, c.end)]
            assert covered == list(range(covered[0], covered[-1] + 1)) if covered else not wanted
            assert set(wanted) <= set(covered)
            assert all(c.end > start and c.base < (end if stop is None else stop) for c in found)

    at_a_desk(main, Options(inline_bytes_max=1_000))


@pytest.mark.parametrize("budget", [40_000, 100_000])
def test_bytes_read_ahead_are_bounded_by_the_setting(budget: int) -> None:
    async def main(desk: Desk) -> None:
        for i in range(100):
            await desk.append(blob(1, 5_000, fill=i))
        parts = await desk.other(Options(read_ahead_bytes_max=budget))
        await parts.chain.refresh()
        desk.store.always["get"] = slow(sim_loop(), 0.1)
        desk.store.bytes_peak = 0
        seen = 0
        async for chunk in parts.reader.chunks("t", 0, 0):
            seen += 1
            assert 5_000 == len(chunk.data)
            await sim_loop().sleep(0.01)
        assert (100, True) == (seen, desk.store.bytes_peak <= budget)

    at_a_desk(main, Options(inline_bytes_max=1_000))


def test_a_reader_that_stops_early_leaves_nothing_in_flight() -> None:
    async def main(desk: Desk) -> None:
        for i in range(20):
            await desk.append(blob(1, 5_000, fill=i))
        await desk.parts.writer.drain()
        desk.store.always["get"] = slow(sim_loop(), 0.1)
        stream = desk.parts.reader.chunks("t", 0, 0, bytes_max=20_000)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert [] == still_running(sim_loop())

    at_a_desk(main, Options(inline_bytes_max=1_000))
