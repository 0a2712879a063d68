from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headwater.demo import streams
from headwater.demo import streams_check as check
from headwater.demo.check import Mismatch
from headwater.demo.run import MARK, NotOurs
from headwater.demo.source import PACKAGE, load
from headwater.demo.streams import StreamFigures, run
from headwater.demo.streams_source import departures, planes
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore
from headwater.streams.model import Source
from headwater.streams.runner import control

LIMIT = 3_000  # flights, and weather reports
FOUND = {"airport-hours": 171, "late-departures": 33, "worst-airports": 89, "impossible-rotations": 0}


@pytest.fixture(scope="module", autouse=True)
def _files_are_read_once() -> Iterator[None]:
    """Every run reads the raw files twice, once for the log and once for DuckDB; a module of tests may remember."""
    sources, found = functools.cache(load), functools.cache(check.expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "load", lambda limit: list(sources(limit)))
        patch.setattr(check, "expected", found)
        yield


def demo(store: MemoryStore, limit: int | None = LIMIT) -> StreamFigures:
    return asyncio.run(run(store, "default", limit=limit, on_progress=lambda *_: None))


def compared(figures: StreamFigures) -> dict[str, int]:
    return {topic: rows for job in figures.jobs for topic, rows in job.compared.items()}


@pytest.fixture(scope="module")
def truth() -> check.Expected:
    return check.expected(LIMIT)


@pytest.fixture(scope="module")
def done() -> MemoryStore:
    store = MemoryStore()
    demo(store)
    return store


def test_every_row_of_the_jobs_is_duckdbs_and_a_second_run_only_checks() -> None:
    store = MemoryStore()
    first, second = demo(store), demo(store)
    assert ["flights", "weather", "departures", "planes"] == first.produced
    assert [] == second.produced
    assert FOUND == compared(first) == compared(second)
    assert all(job.records > 0 and job.commits > 0 for job in first.jobs)
    assert [(0, 0, 0)] * 3 == [(job.records, job.rows_out, job.commits) for job in second.jobs]
    assert [job.shown for job in first.jobs] == [job.shown for job in second.jobs]


@pytest.mark.slow
def test_the_whole_year_is_duckdbs() -> None:
    expected = {"airport-hours": 19_426, "late-departures": 4_907, "worst-airports": 104, "impossible-rotations": 117}
    figures = demo(MemoryStore(), None)
    assert expected == compared(figures)
    assert ("CAE", 106) == (figures.jobs[1].shown[0]["dest"], figures.jobs[1].shown[0]["flights"])


def test_sources_that_are_made_anew_begin_the_jobs_anew() -> None:
    store = MemoryStore()
    demo(store)
    again = demo(store, LIMIT + 500)
    assert ["flights", "weather", "departures"] == again.produced
    assert compared(again)["airport-hours"] > FOUND["airport-hours"]
    assert all(job.records > 0 for job in again.jobs)


def test_a_beginning_that_was_interrupted_is_done_again() -> None:
    store = MemoryStore()
    demo(store)

    async def interrupt() -> None:
        async with await Namespace.open(store) as log:
            await log.delete_topic("late-departures")
            await log.create_topic("late-departures", 3, {MARK: PACKAGE})  # without the mark of what it is of

    asyncio.run(interrupt())
    again = demo(store)
    assert FOUND == compared(again)
    assert [True, False, False] == [job.records > 0 for job in again.jobs]


def test_a_job_that_was_reset_by_hand_begins_anew_with_empty_outputs() -> None:
    store = MemoryStore()
    demo(store)

    async def reset() -> None:
        async with await Namespace.open(store) as log:
            await control.reset(log, "demo-worst", {("flights", partition): 0 for partition in range(6)})

    asyncio.run(reset())
    again = demo(store)
    assert FOUND == compared(again)
    assert [False, True, False] == [job.records > 0 for job in again.jobs]


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_a_run_that_was_cut_off_anywhere_is_taken_up_and_nothing_counts_twice(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "DEMO_LOOK_S", 0.02)
    store, seen = MemoryStore(), 0

    def cut_off(what: str, *_: object) -> None:
        nonlocal seen
        seen += what == "run"
        if seen == looks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run(store, "default", limit=LIMIT, on_progress=cut_off))
    assert FOUND == compared(demo(store))


def test_a_row_that_nobody_wrote_is_found_in_the_topic() -> None:
    store = MemoryStore()
    demo(store)

    async def plant() -> None:
        async with await Namespace.open(store) as log:
            rows = pa.table({"timestamp": [0], "key": ["EWR"], "value": ['{"origin":"EWR","flight":1}']})
            await log.append("late-departures", 0, encode_arrow(rows))

    asyncio.run(plant())
    with pytest.raises(
        Mismatch, match=r"'late-departures': 34 rows, and DuckDB finds 33 .* only here is .*'flight': 1"
    ):
        demo(store)


def output(store: MemoryStore, topic: str) -> pl.DataFrame:
    async def read() -> pl.DataFrame:
        schemas = {name: schema for job in streams.JOBS for name, schema in streams.outputs(job.build())}
        async with await Namespace.open(store) as log:
            return await streams.read_rows(log, topic, schemas[topic])

    return asyncio.run(read())


@pytest.mark.parametrize("topic", ["airport-hours", "late-departures"])
@pytest.mark.parametrize("change", ["missing", "twice", "value"])
def test_the_check_sees(done: MemoryStore, truth: check.Expected, topic: str, change: str) -> None:
    found = output(done, topic)
    assert FOUND[topic] == check.hold(topic, found, truth)
    wrong = {"missing": found.slice(1), "twice": pl.concat([found, found.slice(3, 1)]), "value": changed(found)}
    with pytest.raises(Mismatch, match=f"Topic '{topic}'"):
        check.hold(topic, wrong[change], truth)


def changed(found: pl.DataFrame) -> pl.DataFrame:
    """One number of one row is another."""
    column = next(name for name, dtype in found.schema.items() if dtype == pl.Int64())
    seventh = pl.int_range(pl.len()) == 7
    return found.with_columns(pl.when(seventh).then(pl.col(column) + 1).otherwise(pl.col(column)).alias(column))


def test_an_update_that_goes_back_is_seen(done: MemoryStore, truth: check.Expected) -> None:
    found = output(done, "worst-airports")
    assert found.height > FOUND["worst-airports"], "a running table says more than its end"
    with pytest.raises(Mismatch, match="no more flights"):
        check.hold("worst-airports", found.reverse(), truth)


def test_somebody_elses_topic_of_that_name_is_not_touched() -> None:
    store = MemoryStore()

    async def other() -> None:
        async with await Namespace.open(store) as log:
            await log.create_topic("planes")

    asyncio.run(other())
    with pytest.raises(NotOurs, match="'planes'"):
        demo(store)


@pytest.mark.parametrize("job", streams.JOBS, ids=lambda job: job.build().job)
def test_no_job_waits_for_the_clock_on_the_wall(job: streams.Job) -> None:
    """With a minute of patience for a silent source, a run a minute later was not done but had that to note."""
    nodes = job.build().build().nodes.values()
    assert {node.idle for node in nodes if isinstance(node, Source) and node.kind == "stream"} <= {0, -1}


def test_departures_come_as_they_leave_and_not_as_they_are_scheduled() -> None:
    source = departures(load(LIMIT)[0])
    times = source.times.to_pylist()
    assert sorted(times) == times
    scheduled: list[Any] = source.table.column("scheduled").to_pylist()
    assert sorted(scheduled) != scheduled
    assert 0 == source.table.column("dep_delay").null_count


def test_planes_are_numbers_where_the_register_has_numbers() -> None:
    properties = planes().schema()["properties"]
    assert [["string", "null"], ["integer", "null"]] == [properties[name]["type"] for name in ("tailnum", "seats")]
