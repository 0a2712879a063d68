"""The jobs of the worlds of stream processing: a small family in which every operator has its part.

Each is deterministic as the engine promises it: what its sinks and its state hold at the end is a function of the
input log alone. So tables that streams meet are written before the job begins, folds in Python do not care for order,
and no source ever counts as idle. Where one does, in ``idling``, all that is promised of its rows is that each counts
once: a window holds it, or it is late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from headwater.streams import Topology, agg, col, hopping, session, sliding, tumbling, when
from headwater.streams.process import Processor, ProcessorContext

JOB = "job"
IDLING = "idling"
DEAD = "dead"
DISORDER_MS = 2_000
BUCKET_MS = 5_000
WAIT_MS = 600_000  # longer than any record of a world is late
ROW = {"k": pl.String, "g": pl.String, "v": pl.Int64, "ts": pl.Int64, "id": pl.Int64}
NAME = {"k": pl.String, "label": pl.String, "ts": pl.Int64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A topology and what the judge must know of it.

    ``streams`` are written while the job runs, ``tables`` before it and ``live`` tables both before and meanwhile.
    Of a ``rows`` sink all records count, of a ``latest`` sink the newest of each key; ``grows`` names a field that
    never goes down there, as a count of what is never taken back.
    """

    build: Callable[[], Topology]
    streams: tuple[str, ...] = ("in",)
    tables: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    grows: str = ""
    dead: bool = False
    poison: bool = False
    timeless: bool = False  # wall time has its part in it, so that a model alone can judge it

    @property
    def sinks(self) -> tuple[str, ...]:
        """Every topic that the job writes, but for its own."""
        return (*self.rows, *self.latest, *((DEAD,) if self.dead else ()))


def _stream(made: Topology, topic: str = "in") -> Any:
    return made.stream(
        topic, schema=ROW, format="json", key=("k",), time="ts", out_of_order=f"{DISORDER_MS}ms", idle=-1, name=topic
    )


def picky(row: dict[str, Any]) -> dict[str, Any] | None:
    """A user's function: refuses some rows with an error, drops some, and changes the others."""
    if row["v"] is not None and row["v"] % 7 == 3:
        raise ValueError(f"cannot stand {row['v']}")
    return None if row["v"] == 8 else {**row, "v": (row["v"] or 0) * 2}


def tumbled() -> Topology:
    """Filter, a function that fails on some rows, another key, and the final results of tumbling windows."""
    made = Topology(JOB, dead_letters=DEAD)
    counted = (
        _stream(made)
        .filter(col("id") % 11 != 5)
        .map(picky, schema=ROW, name="picky")
        .group_by("g")
        .window(tumbling("10s", grace="1s"))
        .aggregate(n=agg.count(), total=agg.sum("v"), newest=agg.max("v"), name="windows", emit="final")
    )
    counted.to("out", key=("g", "window_start"), format="json")
    counted.late.to("late", key=("k",), format="json")
    return made


def hopped() -> Topology:
    """Every change of hopping windows, by the key that the records have."""
    made = Topology(JOB)
    (
        _stream(made)
        .select("k", "v", double=col("v").fill_null(0) * 2)
        .group_by("k")
        .window(hopping("10s", advance="5s", grace="2s"))
        .aggregate(n=agg.count(), total=agg.sum("double"), least=agg.min("v"), name="windows")
        .to("newest", key=("k", "window_start"), format="json")
    )
    return made


def sessions() -> Topology:
    """Sessions and what comes too late for them."""
    made = Topology(JOB)
    found = (
        _stream(made)
        .group_by("k")
        .window(session("3s", grace="1s"))
        .aggregate(n=agg.count(), total=agg.sum("v"), ids=agg.max("id"), name="sessions", emit="final")
    )
    found.to("out", key=("k", "window_start"), format="json")
    found.late.to("late", key=("k",), format="json")
    return made


def session_updates() -> Topology:
    """Sessions that grow and melt together before everybody's eyes, by another key."""
    made = Topology(JOB)
    (
        _stream(made)
        .group_by("g")
        .window(session("3s"))
        .aggregate(n=agg.count(), name="sessions")
        .to("newest", key=("g", "window_start"), format="json")
    )
    return made


def chained() -> Topology:
    """Windows over the final results of windows."""
    made = Topology(JOB)
    first = (
        _stream(made).group_by("g").window(tumbling("5s", grace="3s")).aggregate(n=agg.count(), name="small").suppress()
    )
    (
        first.with_columns(all=pl.lit("all"))
        .group_by("all")
        .window(tumbling("20s"))
        .aggregate(groups=agg.count(), n=agg.sum("n"), most=agg.max("n"), name="large", emit="final")
        .to("out", key=("window_start",), format="json")
    )
    return made


def chained_sessions() -> Topology:
    """Windows over sessions, which end long before they are known to be over."""
    made = Topology(JOB)
    found = (
        _stream(made)
        .group_by("k")
        .window(session("2s", grace="3s"))
        .aggregate(n=agg.count(), name="sessions", emit="final")
        .to_stream()
    )
    (
        found.with_columns(all=pl.lit("all"))
        .group_by("all")
        .window(tumbling("10s"))
        .aggregate(sessions=agg.count(), n=agg.sum("n"), name="windows", emit="final")
        .to("out", key=("window_start",), format="json")
    )
    return made


def chained_joins() -> Topology:
    """Windows over rows that waited for a partner, and for the newest one."""
    made = Topology(JOB)
    left, right = _stream(made), _stream(made, "other")
    found = left.join(right, on="g", before="3s", after="1s", how="left", grace="1s", name="pairs")
    (
        found.select("g", met=col("id_right").is_not_null())
        .group_by("met")
        .window(tumbling("10s"))
        .aggregate(n=agg.count(), name="met", emit="final")
        .to("out", key=("met", "window_start"), format="json")
    )
    newest = left.join_asof(right, on="k", tolerance="20s", grace="3s", name="newest")
    (
        newest.group_by("k")
        .window(hopping("10s", advance="5s"))
        .aggregate(n=agg.count(), total=agg.sum("v_right"), name="windows", emit="final")
        .to("late", key=("k", "window_start"), format="json")
    )
    return made


def processed() -> Topology:
    """A processor with state and timers of event time."""
    made = Topology(JOB)
    schema = {"g": pl.String, "n": pl.Int64, "total": pl.Int64, "at": pl.Int64}
    (
        _stream(made)
        .repartition("g")
        .process(Buckets, schema=schema, store="buckets", name="buckets")
        .to("out", key=("g",), format="json")
    )
    return made


class Buckets(Processor):
    """Counts of five seconds, put out when time has passed them: what a window does, by hand.

    It waits so long that no record is late, so batches make no difference.
    """

    def init(self, context: ProcessorContext) -> None:
        self.context = context
        self.buckets = context.state("buckets")
        context.schedule(f"{BUCKET_MS}ms", "event", self.close_until)

    def process(self, frame: pl.DataFrame, context: ProcessorContext) -> None:
        for row in frame.iter_rows(named=True):
            end = row["_time"] - row["_time"] % BUCKET_MS + BUCKET_MS
            key = (end, row["g"])
            n, total = self.buckets.get(key, (0, 0))
            self.buckets[key] = (n + 1, total + (row["v"] or 0))

    def close_until(self, at_ms: int) -> None:
        """Put out what is over, and forget it."""
        over = sorted((key for key in self.buckets if key[0] + WAIT_MS <= at_ms), key=str)
        sums = [(key, self.buckets.pop(key)) for key in over]
        rows = [{"g": key[1], "at": key[0], "n": n, "total": total} for key, (n, total) in sums]
        if rows:
            schema = {"g": pl.String, "n": pl.Int64, "total": pl.Int64, "at": pl.Int64}
            self.context.forward(pl.DataFrame(rows, schema=schema).with_columns(_time=pl.col("at")))


def enriched() -> Topology:
    """A stream meets a table that was there before, and is counted for ever by what it found."""
    made = Topology(JOB)
    names = made.table("names", schema=NAME, format="json", key=("k",), time="ts", store="names")
    (
        _stream(made)
        .join(names, on="k", how="left", name="enriched")
        .with_columns(label=col("label").fill_null("nobody"))
        .group_by("label")
        .aggregate(n=agg.count(), total=agg.sum("v"), last=agg.max("ts"), name="counts")
        .to("newest", key=("label",), format="json")
    )
    return made


def everywhere() -> Topology:
    """A table that every task has whole, a split and a merge."""
    made = Topology(JOB)
    names = made.global_table("names", schema=NAME, format="json", key=("k",), store="names")
    split = _stream(made).split({"big": col("v") > 5, "small": col("v") <= 5})
    big = split["big"].with_columns(size=pl.lit("big"))
    small = split["small"].with_columns(size=when(col("v") > 2).then(pl.lit("middle")).otherwise(pl.lit("small")))
    merged = big.merge(small)
    merged.join(names, on="k", how="inner", name="known").to("out", key=("k",), format="json")
    merged.group_by("size").aggregate(n=agg.count(), name="sizes").to("newest", key=("size",), format="json")
    return made


def pairs() -> Topology:
    """Two streams whose rows meet if they are near in time."""
    made = Topology(JOB)
    left, right = _stream(made), _stream(made, "other")
    found = left.join(right, on="k", within="4s", how="inner", grace="1s", name="pairs")
    found.select("k", "id", "id_right").to("out", key=("k",), format="json")
    return made


def unpaired() -> Topology:
    """Two streams over another key; what has found nobody comes when nobody can come any more."""
    made = Topology(JOB)
    left, right = _stream(made), _stream(made, "other")
    found = left.join(right, on="g", before="3s", after="1s", how="left", grace="1s", name="pairs")
    found.select("g", "id", "id_right").to("out", key=("g",), format="json")
    return made


def newest() -> Topology:
    """Each row meets the newest one before it."""
    made = Topology(JOB)
    left, right = _stream(made), _stream(made, "other")
    found = left.join_asof(right, on="k", tolerance="20s", grace="1s", name="newest")
    found.select("k", "id", "v_right").to("out", key=("k",), format="json")
    return made


def of_table() -> Topology:
    """Counts over a table: rows that change leave one group and enter another."""
    made = Topology(JOB)
    places = made.table("live", schema=NAME, format="json", key=("k",), time="ts", store="places")
    places.group_by("label").aggregate(n=agg.count(), name="counts").to("newest", key=("label",), format="json")
    return made


def of_tables() -> Topology:
    """Two tables joined, and a stream that is made one."""
    made = Topology(JOB)
    places = made.table("live", schema=NAME, format="json", key=("k",), time="ts", store="places")
    last = _stream(made).select("k", "v").to_table("k", store="last", name="last")
    places.join(last, on="k", how="left", name="both").select("k", "label", "v").to("newest", key=("k",), format="json")
    return made


def looked_up() -> Topology:
    """Rows as they come, with what a table says of them."""
    made = Topology(JOB)
    names = made.table("names", schema=NAME, format="json", key=("k",), time="ts", store="names")
    _stream(made).join(names, on="k", how="left", name="known").to("out", key=("k",), format="json")
    return made


def two_tables() -> Topology:
    """Two tables that change, with what either has."""
    made = Topology(JOB)
    left = made.table("live", schema=NAME, format="json", key=("k",), time="ts", store="left")
    right = made.table("live2", schema=NAME, format="json", key=("k",), time="ts", store="right")
    left.join(right, on="k", how="outer", name="both").to("newest", key=("k",), format="json")
    return made


def reduced() -> Topology:
    """A fold in Python that does not care for order."""
    made = Topology(JOB)
    (
        _stream(made)
        .select("k", "v", "id")
        .filter(col("v").is_not_null())
        .group_by("k")
        .reduce(add, name="sums")
        .to("newest", key=("k",), format="json")
    )
    return made


def add(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The sum of two rows."""
    return {"k": old["k"], "v": old["v"] + new["v"], "id": max(old["id"], new["id"])}


def idling() -> Topology:
    """Windows of streams whose silent partitions hold nothing back: which rows are late is a matter of luck."""
    made = Topology(JOB)
    rows = made.stream(
        "in", schema=ROW, format="json", key=("k",), time="ts", out_of_order=f"{DISORDER_MS}ms", idle="1s", name="in"
    )
    counted = (
        rows.group_by("g").window(tumbling("10s", grace="1s")).aggregate(n=agg.count(), name="windows", emit="final")
    )
    counted.to("out", key=("g", "window_start"), format="json")
    counted.late.to("late", key=("k",), format="json")
    return made


def slid() -> Topology:
    """Each row with the ten seconds before it."""
    made = Topology(JOB)
    (
        _stream(made)
        .group_by("k")
        .window(sliding("10s", grace="1s"))
        .aggregate(n=agg.count(), total=agg.sum("v"), name="slides", emit="final")
        .to("out", key=("k",), format="json")
    )
    return made


PLAYS: dict[str, Play] = {
    "tumbled": Play(build=tumbled, rows=("out", "late"), dead=True, poison=True),
    "hopped": Play(build=hopped, latest=("newest",), grows="n"),
    "sessions": Play(build=sessions, rows=("out", "late")),
    "session updates": Play(build=session_updates, latest=("newest",)),
    "chained": Play(build=chained, rows=("out",)),
    "chained sessions": Play(build=chained_sessions, rows=("out",)),
    "chained joins": Play(build=chained_joins, streams=("in", "other"), rows=("out", "late")),
    "processed": Play(build=processed, rows=("out",)),
    "enriched": Play(build=enriched, tables=("names",), latest=("newest",), grows="n"),
    "everywhere": Play(build=everywhere, tables=("names",), rows=("out",), latest=("newest",), grows="n"),
    "pairs": Play(build=pairs, streams=("in", "other"), rows=("out",)),
    "unpaired": Play(build=unpaired, streams=("in", "other"), rows=("out",)),
    "newest": Play(build=newest, streams=("in", "other"), rows=("out",)),
    "of table": Play(build=of_table, streams=(), live=("live",), latest=("newest",)),
    "of tables": Play(build=of_tables, live=("live",), latest=("newest",)),
    "looked up": Play(build=looked_up, tables=("names",), rows=("out",)),
    "two tables": Play(build=two_tables, streams=(), live=("live", "live2"), latest=("newest",)),
    "reduced": Play(build=reduced, latest=("newest",), grows="id"),
    "slid": Play(build=slid, rows=("out",)),
    IDLING: Play(build=idling, rows=("out", "late"), timeless=True),
}
