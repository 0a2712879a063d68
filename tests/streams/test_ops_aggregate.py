"""Aggregates beside a plain-Python model: late, out of order, double and null rows, in any cut, with any restart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.streams import Topology, agg, hopping, session, sliding, tumbling
from headwater.streams.model import Window
from headwater.streams.ops import windowed
from headwater.streams.plan import make_plan
from headwater.streams.task import Input, Step, Task

Row = tuple[str | None, int | None, int]
DISORDER = 5
ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(-5, 5)), st.integers(0, 120)),
    min_size=1,
    max_size=40,
)
WINDOWS = [
    tumbling(10, grace=3),
    tumbling(7, offset=2),
    hopping(12, 4, grace=2),
    hopping(9, 3),
    session(6, grace=2),
    sliding(8, grace=1),
]
END = ("end", 0, 10_000)  # a row that closes everything before it


def topology(window: Window | None, emit: str = "final") -> Topology:
    made = Topology("job")
    stream = made.stream(
        "in", schema={"k": pl.String, "v": pl.Int64}, key="k", out_of_order=DISORDER, idle=-1, format="frame"
    )
    grouped = stream.group_by("k")
    grouped = grouped if window is None else grouped.window(window)
    table = grouped.aggregate(
        n=agg.count(),
        nv=agg.count("v"),
        total=agg.sum("v"),
        least=agg.min("v"),
        most=agg.max("v"),
        emit=emit,  # type: ignore[arg-type]
        name="sums",
    )
    table.to("out", key=("k",) if window is None else ("k", "window_start"))
    if window is not None:
        table.late.to("late")
    return made


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"k": k, "v": v, "_time": t} for k, v, t in rows], schema={"k": pl.String, "v": pl.Int64, "_time": pl.Int64}
    )


def restarted(task: Task, log: list[tuple[str, Any]], nodes: Any) -> Task:
    """A successor, from the changelog alone."""
    other = Task(nodes)
    for name, delta in log:
        other.restore(name, delta)
    other.restored(task.progress())
    return other


def play(made: Topology, rows: Sequence[Row], cuts: Sequence[int], restarts: Sequence[bool]) -> dict[str, list[Any]]:
    """All that reaches each sink, with rows cut into frames, and the task made anew after some of them."""
    nodes = make_plan(made.build(), {"in": 1}).nodes
    task, log, found = Task(nodes), [], defaultdict(list)
    at = 0
    for number, cut in enumerate([*cuts, len(rows)]):
        step: Step = task.step([Input(source="in", frame=frame_of(rows[at:cut]))] if cut > at else [])
        at = max(at, cut)
        log += step.deltas
        for sink, frames in step.sinks.items():
            found[nodes[sink].topic] += [row for each in frames for row in each.to_dicts()]  # type: ignore[attr-defined]
        if number < len(restarts) and restarts[number]:
            if number % 2:
                log = list(task.snapshot())
            task = restarted(task, log, nodes)
    return found


def stamped(rows: Sequence[Row]) -> list[tuple[str | None, int | None, int, int]]:
    newest, found = -(10**9), []
    for k, v, t in rows:
        found.append((k, v, t, newest - DISORDER))
        newest = max(newest, t)
    return found


def values(held: Sequence[int | None]) -> tuple[int, int, int, int | None, int | None]:
    known = [v for v in held if v is not None]
    return len(held), len(known), sum(known), min(known, default=None), max(known, default=None)


def model(window: Window, rows: Sequence[Row]) -> tuple[set[Any], list[Any]]:
    """Final results {(k, start, end, values)} of everything that closes before END, and late rows."""
    held: dict[Any, list[int | None]] = defaultdict(list)
    late, kept = [], []
    for k, v, t, wm in stamped(rows):
        if window.kind in ("tumbling", "hopping"):
            last = (t - window.offset) // window.advance * window.advance + window.offset
            starts = [last - back for back in range(0, window.size, window.advance)]
            open_ = [start for start in starts if start + window.size + window.grace > wm]
            for start in open_:
                held[k, start, start + window.size].append(v)
            if not open_:
                late.append((k, v, t))
        elif t + window.grace < wm:
            late.append((k, v, t))
        else:
            kept.append((k, v, t))
    if window.kind == "sliding":
        for k, _, t in kept:
            held[k, t - window.size, t + 1] = [v for o, v, u in kept if o == k and t - window.size <= u <= t]
    if window.kind == "session":
        runs: dict[Any, list[list[tuple[int, int | None]]]] = defaultdict(list)
        for k, v, t in sorted(kept, key=lambda row: row[2]):
            mine = runs[k]
            if mine and t - mine[-1][-1][0] <= window.gap:
                mine[-1].append((t, v))
            else:
                mine.append([(t, v)])
        for k, found in runs.items():
            for run in found:
                held[k, run[0][0], run[-1][0] + window.gap] = [v for _, v in run]
    return {(k, start, end, values(vs)) for (k, start, end), vs in held.items() if k != "end"}, late


def seen(row: dict[str, Any]) -> Any:
    span = tuple(round(row[name].timestamp() * 1_000) for name in ("window_start", "window_end"))
    return (row["k"], *span, (row["n"], row["nv"], row["total"], row["least"], row["most"]))


CUTS = st.lists(st.integers(0, 41), max_size=6).map(sorted)
RESTARTS = st.lists(st.booleans(), max_size=6)
FEW = st.sampled_from([1, 3, 16])  # panes that are looked at one by one; more are summed up at once


@given(st.sampled_from(WINDOWS), ROWS, CUTS, RESTARTS, FEW)
def test_final_results_are_those_of_the_model(
    window: Window, rows: list[Row], cuts: list[int], restarts: list[bool], few: int
) -> None:
    rows = [*rows, END]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed, "FILTERS_MAX", few)
        found = play(topology(window), rows, [min(cut, len(rows)) for cut in cuts], restarts)
    results, late = model(window, rows)
    assert results == {seen(row) for row in found["out"]}
    assert len(results) == len(found["out"])
    assert late == [(row["k"], row["v"], row["_time"]) for row in found["late"]]


@given(st.sampled_from(WINDOWS), ROWS, CUTS, RESTARTS, FEW)
def test_updates_end_with_the_final_results_and_take_back_what_they_said(
    window: Window, rows: list[Row], cuts: list[int], restarts: list[bool], few: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed, "FILTERS_MAX", few)
        found = play(topology(window, "update"), rows, [min(cut, len(rows)) for cut in cuts], restarts)
    results, _ = model(window, rows)
    said: dict[Any, int] = defaultdict(int)
    for row in found["out"]:
        said[seen(row)] += row["_weight"]
    assert all(weight in (0, 1) for weight in said.values())
    now = {row for row, weight in said.items() if weight}
    if window.kind == "sliding":  # results come once they are final
        assert now <= results
    else:
        assert results == now


@given(ROWS, CUTS, RESTARTS)
def test_groups_without_windows_are_kept_for_ever(rows: list[Row], cuts: list[int], restarts: list[bool]) -> None:
    found = play(topology(None, "update"), rows, [min(cut, len(rows)) for cut in cuts], restarts)
    held: dict[Any, list[int | None]] = defaultdict(list)
    for k, v, _ in rows:
        held[k].append(v)
    said: dict[Any, int] = defaultdict(int)
    for row in found["out"]:
        said[row["k"], row["n"], row["nv"], row["total"], row["least"], row["most"]] += row["_weight"]
    assert {(k, *values(vs)) for k, vs in held.items()} == {row for row, weight in said.items() if weight}
    assert all(weight in (0, 1) for weight in said.values())


def test_closed_windows_leave_no_trace() -> None:
    for window in WINDOWS:
        for emit in ("final", "update"):
            nodes = make_plan(topology(window, emit).build(), {"in": 1}).nodes
            task = Task(nodes)
            for moment in range(0, 200_000, 1_000):
                task.step([Input(source="in", frame=frame_of([("a", 1, moment), ("b", 2, moment)]))])
            assert task.operators["sums"].size().rows <= 10, (window, emit)


def test_a_year_of_hours_in_one_frame_is_summed_up_and_put_out_at_once() -> None:
    """A job that caught up with 8,760 windows of a few rows each paid milliseconds for every one of them."""
    nodes = make_plan(topology(tumbling(10)).build(), {"in": 1}).nodes
    task, hours = Task(nodes), 8_760
    rows = [(key, hour, hour * 10) for hour in range(hours) for key in ("a", "b")]
    step = task.step([Input(source="in", frame=frame_of([*rows, ("end", 0, 100_000)]))])
    (frames,) = step.sinks.values()
    assert [("sums", windowed.PARTIAL), ("sums", "closed")] == [(name, delta.tag) for name, delta in step.deltas]
    (frame,) = frames
    expected = [(key, hour * 10, hour) for hour in range(hours) for key in ("a", "b")]
    starts = frame.get_column("window_start").dt.epoch("ms")
    assert expected == sorted(zip(frame["k"], starts, frame["total"], strict=True), key=lambda row: (row[1], row[0]))
    assert sorted(starts) == starts.to_list(), "the oldest first"


AGGREGATES = {
    "first": (agg.first("v"), lambda rows: min(rows, key=lambda row: row[1])[0]),
    "last": (agg.last("v"), lambda rows: max(reversed(rows), key=lambda row: row[1])[0]),
    "mean": (agg.mean("v"), lambda rows: sum(v for v, _ in rows) / len(rows)),
    "unique": (agg.n_unique("v"), lambda rows: len({v for v, _ in rows})),
    "all": (agg.collect("v"), lambda rows: [v for v, _ in rows]),
    "at_most": (agg.arg_max("v", "w"), lambda rows: max(rows, key=lambda row: -row[0] % 4)[0]),
    "at_least": (agg.arg_min("v", "w"), lambda rows: min(rows, key=lambda row: -row[0] % 4)[0]),
}


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 20)), min_size=1, max_size=30), st.integers(1, 30))
def test_every_aggregate_is_what_its_name_says(rows: list[tuple[int, int]], cut: int) -> None:
    made = Topology("job")
    stream = made.stream("in", schema={"k": pl.String, "v": pl.Int64, "w": pl.Int64}, key="k", format="frame")
    stream.group_by("k").aggregate(**{name: each for name, (each, _) in AGGREGATES.items()}).to("out")
    task = Task(make_plan(made.build(), {"in": 1}).nodes)
    frame = pl.DataFrame([{"k": "a", "v": v, "w": -v % 4, "_time": t} for v, t in rows])
    last: dict[str, Any] = {}
    for part in (frame.head(cut), frame.slice(cut)):
        if part.height:
            for frames in task.step([Input(source="in", frame=part)]).sinks.values():
                last = frames[-1].filter(pl.col("_weight") > 0).to_dicts()[-1] if frames[-1].height else last
    for name, (_, wanted) in AGGREGATES.items():
        assert wanted(rows) == last[name], name
