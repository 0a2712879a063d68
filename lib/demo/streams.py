"""Stream processing, shown on the flights: three jobs, each exactly once, and each held to DuckDB over the raw files.

    departures ─► planes ─► per origin and hour of schedule ─► weather as of then ─► airport-hours
                                     └─► late-departures
    flights ─► arrival delay per destination, running ─► worst-airports
    departures ─► itself, by tail number ─► impossible-rotations

A job that has done all there is finds so by one GET; then only the check runs. A job whose sources were made anew, or
whose topology is another one, begins anew with empty topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import polars as pl

from headwater.clock import stopwatch_s
from headwater.demo import streams_check as check
from headwater.demo.run import MARK, Progress, is_complete, produce, refuse_others
from headwater.demo.source import PACKAGE, load
from headwater.demo.streams_source import PARTITIONS, departures, planes
from headwater.errors import NotFound
from headwater.limits import DEMO_LOOK_S, DEMO_RUNS_MAX
from headwater.log.namespace import Namespace
from headwater.store.base import ObjectStore
from headwater.streams import Topology, agg, col, run_once, tumbling
from headwater.streams.model import Schema, Sink
from headwater.streams.runner import control
from headwater.streams.runner.app import Report
from headwater.streams.runner.remains import remains
from headwater.streams.serde import json

MADE_OF: Final = "headwater.demo.of"  # the configuration that says which sources and topology an output is of
GRACE: Final = "2h"
MOMENT: Final = pl.Datetime("ms", "UTC")
DEPARTURE: Final[Schema] = {
    "carrier": pl.String(),
    "flight": pl.Int64(),
    "origin": pl.String(),
    "dest": pl.String(),
    "tailnum": pl.String(),
    "dep_delay": pl.Int64(),
    "air_time": pl.Int64(),
    "scheduled": MOMENT,
    "departed": MOMENT,
}
PLANE: Final[Schema] = {"tailnum": pl.String(), "year": pl.Int64(), "seats": pl.Int64()}
WEATHER: Final[Schema] = {
    "origin": pl.String(),
    "temp": pl.Float64(),
    "wind_speed": pl.Float64(),
    "precip": pl.Float64(),
    "visib": pl.Float64(),
}


@dataclass(slots=True, kw_only=True)
class JobFigures:
    """What a job did in this run, and what its check found. With no ``records`` it was done before."""

    job: str
    records: int = 0  # read, those of its own repartition topics too
    rows_out: int = 0
    commits: int = 0
    run_s: float = 0.0
    check_s: float = 0.0
    compared: dict[str, int] = field(default_factory=dict)  # rows that are DuckDB's, by topic
    written: dict[str, int] = field(default_factory=dict)  # records, by topic: of a table more than it has rows
    shown: list[dict[str, Any]] = field(default_factory=list)  # a few of them, for people


@dataclass(slots=True, kw_only=True)
class StreamFigures:
    """What the run did. ``produced`` names the source topics that were not there; times in seconds."""

    store: str
    namespace: str
    produced: list[str] = field(default_factory=list)
    produce_s: float = 0.0
    raw_s: float = 0.0  # DuckDB over the raw files
    jobs: list[JobFigures] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A topology, what it reads, and the topics that it writes with their configuration."""

    build: Callable[[], Topology]
    reads: tuple[str, ...]
    writes: Mapping[str, Mapping[str, str]]


# -- the topologies -----------------------------------------------------------------------------------------


def delays() -> Topology:
    """Departures per origin and hour of schedule, with who flew and in what weather.

    Event time is the schedule, and records come as flights leave: one that leaves ``GRACE`` after its hour, by the
    clock of its partition, goes to ``late-departures``. ``idle=0``: the data ends, so silence is the end.
    """
    t = Topology("demo-delays")
    columns = [name for name in DEPARTURE if name not in ("dest", "air_time")]
    flights = t.stream("departures", schema=DEPARTURE, columns=columns, key="origin", time="scheduled", idle=0)
    planes_now = t.table("planes", key="tailnum", schema=PLANE)
    known = flights.repartition("tailnum", name="by-plane").join(planes_now, on="tailnum", how="left", name="known")
    hours = (
        known.repartition("origin", name="by-origin")
        .group_by("origin", name="hours")
        .window(tumbling("1h", grace=GRACE))
        .aggregate(
            departures=agg.count(),
            delay=agg.mean("dep_delay"),
            worst=agg.max("dep_delay"),
            seats=agg.sum("seats"),
            planes=agg.count("year"),
            oldest=agg.min("year"),
        )
    )
    hours.late.select("origin", "carrier", "flight", "tailnum", "scheduled", "departed", "dep_delay").to(
        "late-departures", key="origin"
    )
    weather = t.stream("weather", schema=WEATHER, key="origin", idle=0)
    hours.suppress().join_asof(weather, on="origin", tolerance="2h", name="reported").to("airport-hours", key="origin")
    return t


def worst() -> Topology:
    """The running mean of arrival delays per destination: a table, whose updates are the topic.

    Nothing waits for time, so ``idle=-1``: a run that finds all read has nothing else to look after.
    """
    t = Topology("demo-worst")
    flights = t.stream("flights", schema={"dest": pl.String(), "arr_delay": pl.Int64()}, idle=-1)
    landed = flights.filter(col("arr_delay").is_not_null())
    by_airport = landed.repartition("dest", name="by-airport").group_by("dest", name="airports")
    by_airport.aggregate(flights=agg.count(), delay=agg.mean("arr_delay")).to("worst-airports")
    return t


def rotations() -> Topology:
    """Pairs of flights under one tail number of which the second departs while the first must still be in the air.

    That is: ``departed < departed_next < departed + air_time``. No flight of the data is in the air for 12 hours.
    """
    t = Topology("demo-rotations")
    departed = t.stream("departures", schema=DEPARTURE, key="origin", time="departed", idle=0)
    flights = departed.repartition("tailnum", name="by-plane")
    first = flights.filter(col("air_time").is_not_null()).select(
        "tailnum", "carrier", "flight", "origin", "dest", "departed",
        landed=col("departed") + pl.duration(minutes=col("air_time")),
    )  # fmt: skip
    second = flights.select("tailnum", "carrier", "flight", "origin", "departed")
    pairs = first.join(second, on="tailnum", after="12h", suffix="_next", name="pairs")
    pairs.filter((col("departed") < col("departed_next")) & (col("departed_next") < col("landed"))).to(
        "impossible-rotations", key="tailnum"
    )
    return t


JOBS: Final = (
    Job(
        build=delays,
        reads=("departures", "planes", "weather"),
        writes={"airport-hours": {}, "late-departures": {}},
    ),
    Job(build=worst, reads=("flights",), writes={"worst-airports": {"cleanup.policy": "compact"}}),
    Job(build=rotations, reads=("departures",), writes={"impossible-rotations": {}}),
)


# -- the run ------------------------------------------------------------------------------------------------


async def run(store: ObjectStore, namespace: str, *, limit: int | None, on_progress: Progress) -> StreamFigures:
    """Produce what is missing, run the three jobs, and hold their outputs to DuckDB over the raw files.

    A second call finds all done, and checks again.

    Raises:
        DataMissing: the extra ``demo`` is not installed.
        NotOurs: somebody else has a topic of one of the names.
        Mismatch: what was read is not what DuckDB finds.
    """
    figures = StreamFigures(store=store.url, namespace=namespace)
    async with await Namespace.open(store, namespace) as log:
        refuse_others(log, [topic for job in JOBS for topic in (*job.reads, *job.writes)])
        await _produce_missing(log, figures, limit, on_progress)
        asked = asyncio.get_running_loop().create_task(asyncio.to_thread(_ask_duckdb, limit))
        try:
            for job in JOBS:
                figures.jobs.append(await _run_job(log, job, on_progress))
            truth, figures.raw_s = await asked
        finally:
            await asyncio.gather(asked, return_exceptions=True)
        for job, done in zip(JOBS, figures.jobs, strict=True):
            await _check(log, job, truth, done)
    return figures


def _ask_duckdb(limit: int | None) -> tuple[check.Expected, float]:
    started = stopwatch_s()
    return check.expected(limit), stopwatch_s() - started


async def _produce_missing(log: Namespace, figures: StreamFigures, limit: int | None, on_progress: Progress) -> None:
    sources = await asyncio.to_thread(load, limit)
    sources += [await asyncio.to_thread(departures, sources[0]), await asyncio.to_thread(planes)]
    missing = [source for source in sources if not is_complete(log, source)]
    if missing:
        started = stopwatch_s()
        await produce(log, missing, on_progress)
        await log.drain()
        figures.produced = [source.topic for source in missing]
        figures.produce_s = stopwatch_s() - started


async def _run_job(log: Namespace, job: Job, on_progress: Progress) -> JobFigures:
    topology = job.build()
    figures = JobFigures(job=topology.job)
    started = stopwatch_s()
    await _begin(log, job, topology)
    # The first run reads all; that a source has ended is noticed behind that, in this run or in the next one.
    for _ in range(DEMO_RUNS_MAX):
        report = await _watched(log, job, topology, on_progress)
        figures.records += report.records
        figures.rows_out += report.rows_out
        figures.commits += report.commits
        if not report.commits:
            break
    figures.run_s = stopwatch_s() - started
    return figures


async def _watched(log: Namespace, job: Job, topology: Topology, on_progress: Progress) -> Report:
    """A run of the job, while which ``on_progress`` hears how much of the sources is committed."""
    running = asyncio.get_running_loop().create_task(run_once(topology, log))
    total = sum(place.next for topic in job.reads for place in log.topic(topic).partitions)
    try:
        while not running.done():
            await asyncio.wait([running], timeout=DEMO_LOOK_S)
            on_progress("run", topology.job, sum(_committed(log, job, topology).values()), total)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return running.result()


def _committed(log: Namespace, job: Job, topology: Topology) -> dict[tuple[str, int], int]:
    """How far the job has read its sources, as of the state that is known."""
    try:
        offsets = remains(log.state, topology.job).offsets
    except NotFound:
        return {}  # it never ran
    return {place: offset for place, offset in offsets.items() if place[0] in job.reads}


async def _check(log: Namespace, job: Job, truth: check.Expected, figures: JobFigures) -> None:
    started = stopwatch_s()
    for topic, schema in outputs(job.build()):
        found = await read_rows(log, topic, schema)
        figures.written[topic] = found.height
        figures.compared[topic] = await asyncio.to_thread(check.hold, topic, found, truth)
        figures.shown = figures.shown or check.most_telling(topic, found)
    figures.check_s = stopwatch_s() - started


def outputs(topology: Topology) -> Iterator[tuple[str, Schema]]:
    """The topics that a job writes, with the columns of their values."""
    for node in topology.build().nodes.values():
        if isinstance(node, Sink):
            yield node.topic, node.schema


async def read_rows(log: Namespace, topic: str, schema: Schema) -> pl.DataFrame:
    """All rows of a topic, partition after partition, each in the order of its log."""
    parts = [pl.DataFrame(schema=schema)]
    for partition in range(len(log.topic(topic).partitions)):
        async for chunk in log.reader.chunks(topic, partition, 0):
            values = pl.from_arrow(chunk.decode().column("value"))
            assert isinstance(values, pl.Series)
            rows, failures = json.read(values.cast(pl.String()), schema)
            assert not failures, failures
            parts.append(rows)
    return pl.concat(parts)


# -- to begin anew ------------------------------------------------------------------------------------------


async def _begin(log: Namespace, job: Job, topology: Topology) -> None:
    """Make the outputs, unless they are there and of these sources and this topology.

    Else the job forgets its state first: outputs bear the mark last, so whatever interrupts this, the next run does it
    again.
    """
    made_of = _made_of(log, job, topology)
    found = [log.state.named(topic) for topic in job.writes]
    is_ours = all(topic is not None and topic.config.get(MADE_OF) == made_of for topic in found)
    if is_ours and not _was_reset(log, job, topology):
        return
    for topic in job.writes:
        if log.state.named(topic) is not None:
            await log.delete_topic(topic)
    with contextlib.suppress(NotFound):  # it never ran
        # A source that was made anew is not among these: of it nothing is committed, so the job begins at its start.
        known = remains(log.state, topology.job).sources
        places = {(topic, partition): 0 for topic in known for partition in range(len(log.topic(topic).partitions))}
        await control.reset(log, topology.job, places)
    for topic, config in job.writes.items():
        await log.create_topic(topic, PARTITIONS, {MARK: PACKAGE, MADE_OF: made_of, **config})


def _was_reset(log: Namespace, job: Job, topology: Topology) -> bool:
    """Whether somebody made the job begin anew, as ``headwater streams reset`` does, which lets its outputs stay."""
    has_written = any(place.next for topic in job.writes for place in log.topic(topic).partitions)
    return has_written and not any(_committed(log, job, topology).values())


def _made_of(log: Namespace, job: Job, topology: Topology) -> str:
    """What tells an output of these sources and this topology from others."""
    ids = " ".join(f"{topic}={log.topic(topic).id}" for topic in job.reads)
    return hashlib.sha256(f"{ids}\n{topology.describe()}".encode()).hexdigest()
