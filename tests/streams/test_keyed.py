"""A keyed store beside a dict: frames of upserts and deletes, lookups, lives, collisions, pages on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.streams.state.hashed import HASH, merged
from headwater.streams.state.keyed import DEAD, FOUND, Keyed

SCHEMA: dict[str, pl.DataType] = {"k": pl.Int64(), "s": pl.String(), "v": pl.Int64()}
Model = dict[tuple[Any, ...], Any]


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={**SCHEMA, DEAD: pl.Boolean()}, orient="row")


def put(store: Keyed, model: Model, rows: list[tuple[Any, ...]]) -> None:
    """Store the last row of each key, as operators do."""
    last = {row[:2]: row for row in rows}
    alive = sum(not row[3] for row in last.values())
    dead = len(last) - alive
    known = sum(key in model for key in last)
    gone = sum(row[3] and key in model for key, row in last.items())
    store.put(frame_of(list(last.values())), alive - (known - gone) - gone)
    for key, row in last.items():
        model.pop(key, None)
        if not row[3]:
            model[key] = row[2]
    assert dead >= gone


KEYS = st.tuples(st.integers(0, 6), st.sampled_from(["a", "b"]))
ROWS = st.lists(st.tuples(KEYS, st.integers(0, 9) | st.none(), st.booleans()), max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(ROWS, st.lists(KEYS, max_size=5), st.sampled_from(["", "deltas", "snapshot"])), max_size=8),
    st.sampled_from([64, 2, 1]),
    st.sampled_from([1, 5, 1_000]),
)
def test_a_store_is_its_model_over_many_lives(steps: list[Any], bits: int, recent: int) -> None:
    def made() -> Keyed:
        return Keyed(("k", "s"), SCHEMA, bits=bits, recent_rows=recent)

    store, model, log = made(), {}, []
    for rows, asked, life in steps:
        put(store, model, [(*key, value, dead) for key, value, dead in rows])
        log += store.deltas()
        if life:
            if life == "snapshot":
                log = list(store.snapshot())
            store = made()
            for delta in log:
                store.restore(delta.frame)
            store.restored()
        wanted = pl.DataFrame([*asked, (None, "a")], schema={"other": pl.Int64(), "s": pl.String()}, orient="row")
        expected = [(model.get(key), key in model) for key in [*asked, (None, "a")]]
        assert expected == store.find(wanted, ["other", "s"]).select("v", FOUND).rows()
        assert len(model) == len(store)
    assert sorted(model) == sorted(row[:2] for row in store.query(None).rows())


def test_deltas_hold_the_touched_keys_and_nothing_else() -> None:
    store = Keyed(("k",), {"k": pl.Int64(), "v": pl.Int64()})
    store.put(pl.DataFrame({"k": range(1_000), "v": range(1_000)}).with_columns(pl.lit(value=False).alias(DEAD)), 1_000)
    assert [1_000] == [delta.frame.height for delta in store.deltas()]
    store.put(pl.DataFrame({"k": [1, 2], "v": [1, 1], DEAD: [False, False]}), 0)
    store.put(pl.DataFrame({"k": [2, 3], "v": [2, 2], DEAD: [True, False]}), -1)
    (delta,) = store.deltas()
    assert [(1, 1, False), (2, 2, True), (3, 2, False)] == delta.frame.sort("k").rows()
    assert [] == store.deltas()


def test_a_null_is_a_key_like_others_only_where_that_was_said() -> None:
    rows = pl.DataFrame({"k": [None, 1], "v": [7, 8], DEAD: [False, False]}, schema_overrides={"k": pl.Int64})
    for nulls in (False, True):
        store = Keyed(("k",), {"k": pl.Int64(), "v": pl.Int64()}, nulls=nulls)
        store.put(rows, 2)
        assert [nulls, True] == store.find(rows).get_column(FOUND).to_list()


def test_keys_of_every_kind_are_found() -> None:
    frame = pl.DataFrame({"f": [0.0, float("nan"), 1.5], "b": [b"", b"\0", b"x"], "l": [[], [1], [1, 2]]})
    for key in ("f", "b", "l"):
        store = Keyed((key,), dict(frame.schema))
        store.put(frame.with_columns(pl.lit(value=False).alias(DEAD)), 3)
        assert store.find(frame).get_column(FOUND).all()
    store = Keyed(("f",), dict(frame.schema))
    store.put(frame.with_columns(pl.lit(value=False).alias(DEAD)), 3)
    assert [True] == store.find(pl.DataFrame({"f": [-0.0]})).get_column(FOUND).to_list()


def test_a_store_without_a_key_has_one_row() -> None:
    store = Keyed((), {"v": pl.Int64()})
    store.put(pl.DataFrame({"v": [1], DEAD: [False]}), 1)
    store.put(pl.DataFrame({"v": [2], DEAD: [False]}), 0)
    assert [(2,)] == [row for page in store.all() for row in page.rows()]
    assert [(2, True)] * 2 == store.find(pl.DataFrame({"x": [1, 2]})).rows()


def test_a_query_takes_keys_of_another_integer_type(tmp_path: Path) -> None:
    store = Keyed(("k",), {"k": pl.Int64(), "v": pl.Int64()}, memory_max=1 << 20, spill=str(tmp_path))
    store.put(pl.DataFrame({"k": [1, 2], "v": [3, 4], DEAD: [False, False]}), 2)
    assert [(2, 4)] == store.query(pl.DataFrame({"k": [2, 9, 2]}, schema={"k": pl.UInt8})).rows()


def test_levels_merge_by_key_even_where_keys_share_a_hash() -> None:
    old = pl.DataFrame({"k": [1, 2, 3], "v": [10, 20, 30], HASH: [7, 7, 9]}, schema_overrides={HASH: pl.UInt64})
    new = pl.DataFrame({"k": [1, 4], "v": [11, 41], HASH: [7, 9]}, schema_overrides={HASH: pl.UInt64})
    assert [(2, 20), (1, 11), (3, 30), (4, 41)] == merged(old, new, ["k"]).select("k", "v").rows()
    alone = new.head(1)
    assert [(1, 11), (3, 30)] == merged(old.filter(pl.col("k") != 2), alone, ["k"]).select("k", "v").rows()


def test_an_empty_frame_finds_nothing_in_a_store_of_many_pages(tmp_path: Path) -> None:
    """Seed 60730 of the simulation: a table whose new rows were all late asked for none of them."""
    store = Keyed(("k",), {"k": pl.Int64(), "v": pl.Int64()}, memory_max=1 << 20, spill=str(tmp_path))
    count = 200_000
    rows = pl.DataFrame({"k": range(count), "v": range(count)})
    store.put(rows.with_columns(pl.lit(value=False).alias(DEAD)), count)
    assert len(list(store.all())) > 1
    for least in (0, 1):  # with no recent rows, and with some
        found = store.find(rows.clear())
        assert (["v", FOUND], 0) == (found.columns, found.height)
        assert [(7, True)] == store.find(rows.slice(7, 1)).rows()
        store.put(rows.slice(least, 1).with_columns(pl.lit(value=False).alias(DEAD)), 0)
