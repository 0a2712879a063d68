"""The blocking face: readers, datasets, DuckDB, Polars, cuts of the past; and the examples of its docstrings."""

from __future__ import annotations

import asyncio
import doctest
import gc
import os
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater import replay
from headwater.errors import Corrupt, InvalidRequest, NotFound
from headwater.log import parquet
from headwater.log.batch import batch_of_records
from headwater.log.moments import commit_at
from headwater.log.namespace import Namespace
from headwater.log.operations import Column, SetSchema, SwapFiles
from headwater.log.parquet import FileBuilder, placed
from headwater.replay import face
from headwater.sim.loop import SimClock, sim_loop
from headwater.store import open_store
from headwater.types import Record
from headwater.upkeep.branch import branch
from tests.log.helpers import memory, opened, simulate
from tests.replay.helpers_replay import Twin, plain

NUMBERS = iter(range(10**9))
DEFINITION = '{"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}'


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://faces-{next(NUMBERS)}"
    return tmp_path.as_uri()


def filled(url: str, *, trim: int = 0) -> Twin:
    """Two partitions of 60 records each: partition 0 mostly archived, partition 1 half, and both with a hot tail."""

    async def fill() -> Twin:
        async with await Namespace.open(open_store(url), owns_store=True, rng=random.Random(1)) as log:
            made = await Twin.create(log)
            for number in (0, 1):
                await made.append(number, [Record(value=b"%d" % i, key=b"k", timestamp=100 * i) for i in range(60)])
            await made.archive(0, 50, cuts=[20, 40])
            await made.archive(1, 30)
            if trim:
                await made.trim(0, trim)
            return made

    return asyncio.run(fill())


def in_order(table: pa.Table) -> list[dict[str, Any]]:
    return plain(table.sort_by([("partition", "ascending"), ("offset", "ascending")]).to_batches())


# -- readers ---------------------------------------------------------------------------------------------


def test_the_examples_of_the_docstrings_are_true() -> None:
    url = f"memory://faces-{next(NUMBERS)}"

    async def fill() -> None:
        async with await Namespace.open(open_store(url), rng=random.Random(1)) as log:
            made = await Twin.create(log, "greetings", 1)
            words = [Record(value=word, timestamp=1) for word in (b"hello", b"world")]
            await made.append(0, words)
            other = await Twin.create(log, "archived", 1)
            await other.append(0, words)
            await other.archive(0, 2)

    asyncio.run(fill())
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for function in (face.replay, face.as_of, face.to_dataset, face.files, face.duckdb, face.polars):
        (example,) = doctest.DocTestFinder(recurse=False).find(function, globs={"url": url})
        assert len(example.examples) >= 2
        assert runner.run(example).failed == 0, function.__name__


def test_a_reader_gives_all_records_and_its_thread_ends(url: str) -> None:
    made = filled(url, trim=7)
    before = readers()
    assert made.expected() == plain(replay.replay(url, "t"))
    gc.collect()
    settle(before)


def test_a_reader_that_is_left_in_the_middle_lets_go(url: str) -> None:
    filled(url)
    before = readers()
    reader = replay.replay(url, "t")
    next(iter(reader))
    del reader
    gc.collect()
    settle(before)


def settle(threads: int) -> None:
    """Other threads end soon; nobody waits for them. Those that decode stay, one for each processor."""
    for thread in threading.enumerate():
        if thread.name == "headwater-replay":
            thread.join(10)
    assert readers() <= threads
    assert threading.active_count() - readers() <= (os.cpu_count() or 1)


def readers() -> int:
    """Threads, but for those that all replays of a process share."""
    return sum(not thread.name.startswith("headwater-decode") for thread in threading.enumerate())


def test_a_reader_works_inside_a_running_loop_as_in_a_notebook(url: str) -> None:
    made = filled(url)

    async def cell() -> list[dict[str, Any]]:
        return plain(replay.replay(url, "t", order="timestamp"))

    assert made.expected(order="timestamp") == asyncio.run(cell())


def test_errors_come_out_of_a_reader_as_they_are(url: str) -> None:
    made = filled(url)
    key = next(file.url for file in replay.files(url, "t")).partition("/default/")[2]

    async def damage() -> None:
        store = open_store(url)
        data = (await store.get(f"default/{key}")).data
        await store.put(f"default/{key}", data[:100] + b"????" + data[104:])
        await store.aclose()

    asyncio.run(damage())
    with pytest.raises(Corrupt, match=r"archive/topic=t/partition=0/.* is damaged"):
        replay.replay(url, "t").read_all()
    with pytest.raises(NotFound, match="no topic 'u'"):
        replay.replay(url, "u")
    assert made.expected(wanted=lambda row: row["partition"] == 1) == plain(replay.replay(url, "t", partitions=[1]))


def test_progress_ends_at_the_whole_range(url: str) -> None:
    filled(url, trim=7)
    told: list[replay.Progress] = []
    replay.replay(url, "t", progress=told.append).read_all()
    assert (told[-1].records, told[-1].done, told[-1].total) == (113, 113, 113)
    assert [now.done for now in told] == sorted(now.done for now in told)
    with pytest.raises(InvalidRequest, match="progress is None, True or a function"):
        replay.replay(url, "t", progress=3)  # type: ignore[arg-type]


def test_a_bar_is_drawn_on_a_terminal_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = filled(url)
    assert made.expected() == plain(replay.replay(url, "t", progress=True))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert made.expected() == plain(replay.replay(url, "t", progress=True))


# -- datasets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trim", [0, 7])
def test_a_dataset_is_the_topic(url: str, trim: int) -> None:
    made = filled(url, trim=trim)
    found = replay.to_dataset(url, "t")
    assert found.count_rows() == 120 - trim
    assert made.expected() == in_order(found.to_table())
    condition = (pc.field("partition") == 0) & (pc.field("offset") >= 45)
    wanted = made.expected(wanted=lambda row: row["partition"] == 0 and row["offset"] >= 45, columns=["offset"])
    assert wanted == sorted(found.to_table(["offset"], filter=condition).to_pylist(), key=lambda row: row["offset"])


def test_a_dataset_can_be_a_range_and_a_past(url: str) -> None:
    made = filled(url)
    start, end = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), {0: 44, 1: 60}
    found = replay.to_dataset(url, "t", start=start, end=end)
    wanted = made.expected(
        wanted=lambda row: row["timestamp"] >= 1_000 and row["offset"] < (60 if row["partition"] else 44)
    )
    assert wanted == in_order(found.to_table())
    past = sorted(made.past)[1]
    assert made.expected(commit=past) == in_order(replay.to_dataset(url, "t", as_of=past).to_table())


def test_a_scan_with_a_filter_on_offset_or_time_opens_no_other_file(url: str) -> None:
    filled(url)
    for file in replay.files(url, "t", partitions=[0], end=40):
        gone(url, file.url.partition("/default/")[2])
    found = replay.to_dataset(url, "t")
    assert found.count_rows(filter=(pc.field("partition") == 0) & (pc.field("offset") >= 40)) == 20
    late = pa.scalar(4_000, pa.timestamp("ms", "UTC"))
    assert found.count_rows(filter=pc.field("timestamp") >= late) == 40
    with pytest.raises(FileNotFoundError):
        found.to_table()


def gone(url: str, key: str) -> None:
    async def delete() -> None:
        store = open_store(url)
        await store.delete([f"default/{key}"])
        await store.aclose()

    asyncio.run(delete())


def test_duckdb_has_topics_as_tables(url: str) -> None:
    filled(url, trim=7)
    connection = replay.duckdb(url)
    found = connection.sql('SELECT partition, count(*), max("offset") FROM t GROUP BY 1 ORDER BY 1').fetchall()
    assert found == [(0, 53, 59), (1, 60, 59)]
    assert connection.sql('SELECT value FROM t WHERE partition = 1 AND "offset" = 12').fetchall() == [(b"12",)]
    connection.close()
    with pytest.raises(NotFound, match="no topic 'u'"):
        replay.duckdb(url, ["u"])


def test_polars_pushes_down_to_the_files(url: str) -> None:
    import polars as pl

    filled(url)
    for file in replay.files(url, "t", partitions=[0], end=40):
        gone(url, file.url.partition("/default/")[2])
    lazy = (
        replay.polars(url, "t").filter((pl.col("partition") == 0) & (pl.col("offset") >= 45)).select("offset", "value")
    )
    assert lazy.collect().height == 15


def test_files_are_listed_for_other_tools(url: str) -> None:
    filled(url, trim=7)
    found = replay.files(url, "t")
    assert [(file.partition, file.base, file.end, file.start) for file in found] == [
        (0, 0, 20, 7),
        (0, 20, 40, 20),
        (0, 40, 50, 40),
        (1, 0, 30, 0),
    ]
    assert all(file.url.startswith(url) and file.url.endswith(".parquet") for file in found)


# -- the past -----------------------------------------------------------------------------------------------


def test_a_cut_shows_all_topics_and_groups_of_one_commit(url: str) -> None:
    made = filled(url)

    async def more() -> tuple[int, int]:
        async with await Namespace.open(open_store(url), owns_store=True) as log:
            await log.commit_offsets("g", {("t", 0): 5})
            first = log.state.seq
            await log.create_topic("later")
            await log.commit_offsets("g", {("t", 0): 9})
            await log.trim("t", 0, 60)
            return first, log.state.seq

    first, last = asyncio.run(more())
    cut = replay.as_of(url, first)
    assert (cut.commit, cut.topics) == (first, ["t"])
    assert {place: committed.offset for place, committed in cut.groups["g"].items()} == {("t", 0): 5}
    assert made.expected() == plain(cut.replay("t"))
    assert made.expected() == in_order(cut.to_dataset("t").to_table())
    assert len(cut.files("t")) == 4
    assert cut.sql("SELECT count(*) AS n FROM t").read_all().to_pylist() == [{"n": 120}]
    assert f"commit {first}" in repr(cut)
    assert replay.as_of(url, datetime.now(UTC) + timedelta(days=1)).commit == last
    cut.close()
    with pytest.raises(InvalidRequest, match="closed"):
        cut.replay("t")


def test_a_time_is_the_last_commit_at_or_before_it() -> None:
    async def main() -> None:
        log = await opened(memory())
        clock = SimClock(sim_loop())
        times = [(0, 0)]
        for number in range(1, 40):
            await clock.sleep(random.Random(number).choice([0, 1, 60]))
            await log.create_topic(f"t{number}")
            times.append((log.state.seq, log.state.time_ms))
        for seq, time_ms in times[1:]:
            expected = max(other for other, at in times if at <= time_ms)
            assert await commit_at(log.chain, time_ms) == expected
            assert await commit_at(log.chain, time_ms - 1) == max(other for other, at in times if at <= time_ms - 1)
            assert expected >= seq
        await log.close()

    simulate(main())


def test_a_branch_is_replayed_with_the_files_of_its_origin(url: str) -> None:
    made = filled(url)

    async def fork() -> None:
        async with await Namespace.open(open_store(url), owns_store=True) as log:
            await branch(log, "twig")
        async with await Namespace.open(open_store(url), "twig", owns_store=True) as twig:
            await twig.append("t", 0, batch_of_records([Record(value=b"own", timestamp=1)], default_timestamp=0))

    asyncio.run(fork())
    own = {"partition": 0, "offset": 60, "timestamp": 1, "key": None, "value": b"own", "headers": []}
    expected = sorted([*made.expected(), own], key=lambda row: (row["partition"], row["offset"]))
    assert expected == plain(replay.replay(url, "t", namespace="twig"))
    assert expected == in_order(replay.to_dataset(url, "t", namespace="twig").to_table())
    assert made.expected() == plain(replay.replay(url, "t"))


# -- schemas ---------------------------------------------------------------------------------------------------


@pytest.fixture
def evolved(url: str) -> str:
    """One file without typed columns, one of version 1, and a hot tail; the newest version is wider, with one more."""

    def json(*numbers: int) -> list[Record]:
        return [Record(value=b'{"n": %d, "s": "x%d"}' % (n, n), timestamp=n) for n in numbers]

    async def fill() -> None:
        async with await Namespace.open(open_store(url), owns_store=True, rng=random.Random(1)) as log:
            made = await Twin.create(log, "t", 1)
            topic = log.topic("t").id
            await made.append(0, json(0, 1))
            await made.archive(0, 2)
            first, second = [Column("n", "int32")], [Column("n", "int64"), Column("s", "string")]
            await log._change(SetSchema(topic=topic, version=1, format="json", definition=DEFINITION, columns=first))
            await made.append(0, json(2, 3))
            builder = FileBuilder(first)
            rows = made.parts[0].kept()[2:]
            builder.add(
                pa.table(
                    {
                        "offset": [2, 3],
                        "timestamp": pa.array([2, 3]).cast(pa.timestamp("ms", "UTC")),
                        "key": pa.nulls(2),
                        "value": [row["value"] for row in rows],
                        "headers": pa.nulls(2),
                        "n": pa.array([2, 3], pa.int32()),
                    }
                )
            )
            built = builder.finish()
            file = placed(built, base=2, end=4, key=(await made.file(0, 2, 4)).key)
            await log.store.put(file.key, bytes(built.data))
            await log._change(SwapFiles(topic=topic, partition=0, base=2, end=4, files=[file]))
            await log._change(SetSchema(topic=topic, version=2, format="json", definition=DEFINITION, columns=second))
            await made.append(0, [*json(4), Record(value=None, timestamp=5)])

    asyncio.run(fill())
    return url


def test_typed_columns_are_those_of_the_newest_version(evolved: str) -> None:
    table = replay.replay(evolved, "t", columns=["offset", "n", "s"]).read_all()
    assert table.schema.field("n").type == pa.int64()
    expected = [
        (0, None, None),
        (1, None, None),
        (2, 2, None),
        (3, 3, None),
        (4, 4, "x4"),
        (5, None, None),
    ]
    assert [(row["offset"], row["n"], row["s"]) for row in table.to_pylist()] == expected
    found = replay.replay(evolved, "t", columns=["offset"], filter=[("n", ">=", 3)]).read_all()
    assert found.to_pylist() == [{"offset": 3}, {"offset": 4}]


def test_typed_columns_are_there_for_sql_too(evolved: str) -> None:
    connection = replay.duckdb(evolved)
    assert connection.sql("SELECT sum(n), max(s), count(*) FROM t").fetchall() == [(9, "x4", 6)]
    assert connection.sql('SELECT "offset" FROM t WHERE n >= 3 ORDER BY 1').fetchall() == [(3,), (4,)]
    connection.close()


def test_row_groups_in_which_a_typed_filter_cannot_hold_are_left_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 4)
    made = filled(url)
    found = plain(replay.replay(url, "t", filter=(pc.field("value") == b"33")))
    assert made.expected(wanted=lambda row: row["value"] == b"33") == found
