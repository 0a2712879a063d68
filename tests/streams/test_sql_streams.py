"""SQL over streams becomes the verbs that one would write by hand, and refuses the rest by name."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from headwater.errors import InvalidRequest
from headwater.streams import Topology, sql
from headwater.streams.plan import make_plan
from headwater.streams.task import Input, Task, without_system

ROWS = [("a", 5, 1_000), ("b", 7, 2_000), ("a", 1, 11_000), ("a", 9, 12_000), ("b", 2, 50_000)]


def sources() -> dict[str, Any]:
    t = Topology("job")
    return {
        "bids": t.stream("bids", schema={"k": pl.String, "v": pl.Int64}, key="k", format="frame"),
        "names": t.table("names", schema={"k": pl.String, "name": pl.String}, key="k", format="frame"),
    }


def answer(query: str) -> list[dict[str, Any]]:
    given = sources()
    made = sql(query, **given)
    made.to("out", key=("k",) if "k" in made.schema else None)
    nodes = make_plan(made._topology.build(), {"bids": 1, "names": 1}).nodes
    task = Task(nodes)
    names = pl.DataFrame({"k": ["a"], "name": ["Ada"], "_time": [0], "_weight": pl.Series([1], dtype=pl.Int8)})
    rows = pl.DataFrame([{"k": k, "v": v, "_time": t} for k, v, t in ROWS])
    inputs = [Input(source="bids", frame=rows)]
    if "names" in nodes:
        inputs.insert(0, Input(source="names", frame=names))
    step = task.step(inputs)
    frames = [each for frames in step.sinks.values() for each in frames]
    kept = [each.filter(pl.col("_weight") > 0) if "_weight" in each.columns else each for each in frames]
    return without_system(pl.concat(kept)).to_dicts() if kept else []


def test_rows_are_filtered_and_computed() -> None:
    assert [{"k": "b", "twice": 14}, {"k": "a", "twice": 18}] == answer(
        "SELECT k, v * 2 AS twice FROM bids WHERE v BETWEEN 6 AND 10"
    )
    assert 5 == len(answer("SELECT * FROM bids"))


def test_windows_are_final_or_change() -> None:
    final = answer(
        "SELECT k, count(*) AS n, sum(v) AS total FROM bids GROUP BY k, TUMBLE(INTERVAL '10' SECOND) EMIT FINAL"
    )
    assert {("a", 1, 5), ("b", 1, 7), ("a", 2, 10)} == {(row["k"], row["n"], row["total"]) for row in final}
    changes = answer(
        "SELECT k, window_start, max(v) - min(v) AS spread FROM bids GROUP BY k, TUMBLE(INTERVAL 10 SECONDS)"
    )
    assert 4 == len(changes)
    assert [8] == [row["spread"] for row in changes if row["spread"]]


def test_hops_and_sessions_and_having() -> None:
    hops = answer(
        "SELECT k, count(*) AS n FROM bids GROUP BY k, HOP(INTERVAL '5' SECOND, INTERVAL '10' SECOND) "
        "HAVING count(*) > 1 EMIT FINAL"
    )
    assert [("a", 2), ("a", 2)] == [(row["k"], row["n"]) for row in hops]
    sessions = answer("SELECT k, count(*) AS n FROM bids GROUP BY k, SESSION(INTERVAL '2' SECOND) EMIT FINAL")
    assert {("a", 1), ("b", 1), ("a", 2)} == {(row["k"], row["n"]) for row in sessions}


def test_a_stream_meets_a_table() -> None:
    inner = answer("SELECT bids.k, name, v FROM bids JOIN names ON bids.k = names.k")
    assert [("a", "Ada", 5), ("a", "Ada", 1), ("a", "Ada", 9)] == [(row["k"], row["name"], row["v"]) for row in inner]
    left = answer("SELECT b.k, n.name FROM bids AS b LEFT JOIN names AS n ON n.k = b.k")
    assert 2 == [row["name"] for row in left].count(None)


def test_what_stands_in_quotes_stays_as_it_is() -> None:
    assert {"SESSION (x"} == {row["s"] for row in answer("SELECT k, 'SESSION (x' AS s FROM bids")}


def test_groups_without_a_window_are_tables() -> None:
    found = answer("SELECT k, avg(v) AS mean, count(DISTINCT v) AS n, arg_max(v, v) AS most FROM bids GROUP BY k")
    assert {("a", 5.0, 3, 9), ("b", 4.5, 2, 7)} == {(row["k"], row["mean"], row["n"], row["most"]) for row in found}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELEC k FROM bids", "no SQL"),
        ("SELECT k FROM nothing", "no source 'nothing'"),
        ("SELECT k FROM bids ORDER BY k", "no ORDER"),
        ("SELECT k FROM bids LIMIT 1", "no LIMIT"),
        ("SELECT count(*) FROM bids", "GROUP BY"),
        ("SELECT k, count(*) FROM bids GROUP BY k EMIT FINAL", "window"),
        ("SELECT k, count(*) FROM bids GROUP BY k, TUMBLE(10)", "INTERVAL"),
        ("SELECT k, median(v) FROM bids GROUP BY k", "aggregate"),
        ("SELECT nope FROM bids", "nope"),
        ("SELECT k FROM bids JOIN names ON bids.k > names.k", "equal columns"),
        ("DELETE FROM bids", "one SELECT"),
        ("SELECT * FROM bids LEFT ANTI JOIN names ON bids.k = names.k", "inner or LEFT"),
        ("SELECT * FROM bids SEMI JOIN names ON bids.k = names.k", "inner or LEFT"),
        ("SELECT names.v FROM bids JOIN names ON bids.k = names.k", "both sides have 'v'"),
        ("SELECT k, count(DISTINCT v, k) AS n FROM bids GROUP BY k", "one expression"),
        ("SELECT k, count(*) AS n FROM bids GROUP BY k, TUMBLE(INTERVAL 'x' SECOND)", "intervals"),
        ("SELECT k, count(*) AS n FROM bids GROUP BY k, TUMBLE(INTERVAL '1.5' SECOND)", "intervals"),
    ],
)
def test_what_is_not_covered_is_named(query: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        sql(query, **sources())
