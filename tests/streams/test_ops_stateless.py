"""Operators that forget, functions and folds, held against plain Python, however rows are cut into micro-batches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from headwater.streams import TestDriver as Driver
from headwater.streams import Topology, col, hopping, lit, tumbling

ROW = {"k": pl.String, "v": pl.Int64, "ts": pl.Int64}
Row = dict[str, Any]
SIZES = (1, 3, 100)


def rows_of(seed: int, count: int = 60) -> list[Row]:
    rng = random.Random(f"stateless-{seed}")
    return [
        {"k": rng.choice(["a", "b", "c", None]), "v": rng.choice([None, *range(10)]), "ts": at * 100}
        for at in range(count)
    ]


def ran(build: Callable[[Any], dict[str, Any] | Any], rows: list[Row], size: int, **options: Any) -> Driver:
    t = Topology("job", **options)
    made = build(t.stream("in", schema=ROW, time="ts", name="in"))
    for topic, stream in made.items() if isinstance(made, dict) else [("out", made)]:
        stream.to(topic)
    driver = Driver(t)
    for some in _cut(rows, size):
        driver.pipe("in", some)
    driver.end()
    return driver


def _cut(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def doubled(row: Row) -> Row | None:
    if row["v"] == 3:
        raise ValueError("three")
    return None if row["v"] == 8 else {"k": row["k"], "v": (row["v"] or 0) * 2}


def repeated(row: Row) -> list[Row]:
    if row["v"] == 3:
        raise ValueError("three")
    return [{"k": row["k"], "v": at} for at in range((row["v"] or 0) % 4)]


MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[Row], list[Row]]]] = {
    "filter": (lambda s: s.filter(col("v") > 4), lambda row: [row] if (row["v"] or 0) > 4 else []),
    "select": (lambda s: s.select("k", w=col("v") + 1), lambda row: [{"k": row["k"], "w": _plus(row["v"], 1)}]),
    "with_columns": (
        lambda s: s.with_columns(v=col("v") + 1, one=lit(1)),
        lambda row: [{**row, "v": _plus(row["v"], 1), "one": 1}],
    ),
    "drop": (lambda s: s.drop("v"), lambda row: [{"k": row["k"], "ts": row["ts"]}]),
    "rename": (lambda s: s.rename({"v": "w"}), lambda row: [{"k": row["k"], "w": row["v"], "ts": row["ts"]}]),
    "explode": (
        lambda s: s.select("k", each=pl.concat_list("v", "ts")).explode("each"),
        lambda row: [{"k": row["k"], "each": row["v"]}, {"k": row["k"], "each": row["ts"]}],
    ),
    "map_batches": (
        lambda s: s.map_batches(lambda frame: frame.filter(pl.col("v") > 4), schema=ROW),
        lambda row: [row] if (row["v"] or 0) > 4 else [],
    ),
}


def _plus(value: int | None, more: int) -> int | None:
    return None if value is None else value + more


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", MODELS)
def test_rows_come_out_as_a_plain_function_makes_them(what: str, size: int) -> None:
    build, model = MODELS[what]
    rows = rows_of(size)
    assert [made for row in rows for made in model(row)] == ran(build, rows, size).read("out")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fn", [doubled, repeated])
def test_rows_on_which_a_function_raises_are_dead_and_the_others_go_on(fn: Callable[[Row], Any], size: int) -> None:
    rows, wanted, dead = rows_of(size), [], 0
    for row in rows:
        try:
            made = fn(row)
        except ValueError:
            dead += 1
            continue
        wanted += made if isinstance(made, list) else [made] if made is not None else []
    schema = {"k": pl.String, "v": pl.Int64}

    def build(stream: Any) -> Any:
        return stream.map(fn, schema=schema) if fn is doubled else stream.flat_map(fn, schema=schema)

    driver = ran(build, rows, size, dead_letters="dead")
    assert wanted == driver.read("out")
    letters = driver.read_records("dead")
    assert dead == len(letters)
    assert {b"ValueError"} == {dict(each.headers)["__streams.errors.exception"] for each in letters}


@pytest.mark.parametrize("size", SIZES)
def test_a_row_goes_to_the_first_branch_that_takes_it(size: int) -> None:
    rows = rows_of(size)

    def build(stream: Any) -> Any:
        found = stream.split({"big": col("v") > 6, "some": col("v") > 3, "rest": lit(True)})
        return {**found, "both": found["big"].merge(found["some"])}

    driver = ran(build, rows, size)
    assert [row for row in rows if (row["v"] or 0) > 6] == driver.read("big")
    assert [row for row in rows if 3 < (row["v"] or 0) <= 6] == driver.read("some")
    assert [row for row in rows if row["v"] is None or row["v"] <= 3] == driver.read("rest")
    both = sorted(driver.read("both"), key=lambda row: int(row["ts"]))
    assert [row for row in rows if (row["v"] or 0) > 3] == both


def joined(old: Row, new: Row) -> Row:
    """Not the same in another order."""
    return {"k": old["k"], "v": ((old["v"] or 0) * 7 + (new["v"] or 0)) % 1_000, "ts": new["ts"]}


@pytest.mark.parametrize("size", SIZES)
def test_a_fold_is_what_functools_makes_of_the_rows_of_each_group(size: int) -> None:
    rows = rows_of(size)
    held: dict[str | None, Row] = {}
    for row in rows:
        held[row["k"]] = joined(held[row["k"]], row) if row["k"] in held else row
    driver = ran(lambda s: s.group_by("k").reduce(joined, store="folds"), rows, size)
    found = {row["k"]: row for row in driver.store("folds").to_dicts()}
    assert held == found


def test_a_row_that_a_fold_refuses_in_one_window_counts_in_none() -> None:
    def fussy(old: Row, new: Row) -> Row:
        if old["v"] > 10:
            raise ValueError("too much")
        return {**new, "v": old["v"] + new["v"]}

    topology = Topology("job", dead_letters="dead")
    events = topology.stream("in", schema={"k": str, "v": int, "ts": int}, time="ts", out_of_order="5s")
    events.group_by("k").window(hopping("2s", "1s")).reduce(fussy, emit="final").to("out")
    driver = Driver(topology)
    # The third row lies in [0, 2), which takes it, and in [1, 3), which holds 20 already.
    driver.pipe("in", [{"k": "a", "v": 1, "ts": 0}, {"k": "a", "v": 20, "ts": 2_000}, {"k": "a", "v": 3, "ts": 1_500}])
    driver.end()
    assert [(-1, 1), (0, 1), (1, 20), (2, 20)] == [
        (int(row["window_start"].timestamp()), row["v"]) for row in driver.read("out")
    ]
    assert [b'{"k":"a","v":3,"ts":1500}'] == [record.value for record in driver.read_records("dead")]


@pytest.mark.parametrize("size", SIZES)
def test_a_fold_in_windows_gives_each_window_once(size: int) -> None:
    rows = rows_of(size)
    held: dict[tuple[int, str | None], Row] = {}
    for row in rows:
        at = (row["ts"] // 1_000, row["k"])
        held[at] = joined(held[at], row) if at in held else row
    driver = ran(lambda s: s.group_by("k").window(tumbling("1s")).reduce(joined, emit="final"), rows, size)
    found = {(int(row["window_start"].timestamp()), row["k"]): row for row in driver.read("out")}
    assert {at: row["v"] for at, row in held.items()} == {at: row["v"] for at, row in found.items()}
