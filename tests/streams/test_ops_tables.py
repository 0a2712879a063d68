"""Tables, tables of tables, and what streams find in them, beside plain models: null, duplicate, deleted, any cut."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.streams.frames import TIME, WEIGHT, WM
from headwater.streams.model import Changelog, How, Join, Materialize, Source
from headwater.streams.operator import MAKERS, Context, Operator
from headwater.streams.ops import changelog, join, table
from tests.streams.helpers_ops import Life, frame_of, ordered

INT, TEXT = pl.Int64(), pl.String()
LEFT = {"k": INT, "a": TEXT}
RIGHT = {"r": INT, "a": TEXT, "b": INT}
BOTH = {"k": INT, "a": TEXT, "a_right": TEXT, "b": INT}
MODULES = (changelog, join, table)  # which register themselves


def source(schema: dict[str, Any], key: str) -> Operator:
    node = Source(name="t", topic="t", format="json", kind="table", schema=schema, keys=(key,))
    return MAKERS[Source](node, Context(task=0, inputs=[], tables=[]))


def joined(kind: Any, how: How, *, tables: tuple[bool, bool] = (True, True)) -> Operator:
    node = Join(name="j", kind=kind, how=how, left_on=("k",), right_on=("r",), schema=BOTH)
    return MAKERS[Join](node, Context(task=0, inputs=[LEFT, RIGHT], tables=tables))


def upserts(schema: dict[str, Any], rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Records of a topic: (key, values… or None for a tombstone)."""
    width = len(schema)
    return frame_of(
        schema,
        [
            (*row, number, 1) if len(row) == width else (row[0], *[None] * (width - 1), number, -1)
            for number, row in enumerate(rows)
        ],
    )


def apply(model: dict[Any, Any], rows: list[tuple[Any, ...]], width: int) -> None:
    for row in rows:
        if row[0] is None:
            continue
        if len(row) == width:
            model[row[0]] = row
        else:
            model.pop(row[0], None)


KEYS = st.one_of(st.none(), st.integers(0, 3))
VALUES = st.one_of(st.none(), st.sampled_from(["x", "y"]))
LEFTS = st.lists(st.one_of(st.tuples(KEYS, VALUES), st.tuples(KEYS)), max_size=6)
RIGHTS = st.lists(st.one_of(st.tuples(KEYS, VALUES, st.integers(0, 2)), st.tuples(KEYS)), max_size=6)
LIVES = st.sampled_from(["", "deltas", "snapshot"])


def live(life: Life, how: str) -> None:
    if how:
        life.reborn(snapshot=how == "snapshot")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(LEFTS, LIVES), max_size=8))
def test_a_table_is_its_newest_records(steps: list[Any]) -> None:
    life, model = Life(lambda: source(LEFT, "k")), {}
    for rows, how in steps:
        life.process(0, upserts(LEFT, rows))
        life.advance(0)
        live(life, how)
        apply(model, rows, 2)
        assert ordered(list(model.values())) == life.table()
        assert ordered(list(model.values())) == ordered(life.operator.query(None).rows())
        assert len(model) == life.operator.size().rows


def test_what_changes_nothing_is_silent() -> None:
    life = Life(lambda: source(LEFT, "k"))
    life.process(0, upserts(LEFT, [(1, "x"), (2, None)]))
    life.process(0, upserts(LEFT, [(2, None), (1, "y"), (1, "x"), (3,), (None, "x")]))
    assert 1 == len(life.given())
    life.advance(0)
    assert [[1, 2]] == [delta.frame.get_column("k").unique().sort().to_list() for delta in life.log]


def test_an_old_row_comes_before_the_new_one_and_both_at_the_time_of_the_change() -> None:
    life = Life(lambda: source(LEFT, "k"))
    life.process(0, upserts(LEFT, [(1, "x")]))
    life.process(0, frame_of(LEFT, [(1, "y", 77, 1)], wm=5))
    assert [(1, "x", 77, 5, -1), (1, "y", 77, 5, 1)] == life.given()[1].select(*LEFT, TIME, WM, WEIGHT).rows()


def test_a_stream_becomes_a_table_of_its_newest_rows_and_a_stream_of_changes_again() -> None:
    node = Materialize(name="m", parents=("s",), schema=LEFT, by=("k",), is_table=True)
    life = Life(lambda: MAKERS[Materialize](node, Context(task=0, inputs=[LEFT], tables=[False])))
    life.process(0, frame_of(LEFT, [(1, "x", 1, 1), (2, "y", 2, 1), (1, "z", 3, 1), (None, "n", 4, 1)]).drop(WEIGHT))
    assert [(1, "z"), (2, "y")] == life.table()
    back = Changelog(name="c", parents=("m",), schema={**LEFT, "deleted": pl.Boolean()}, by=("k",))
    changes = MAKERS[Changelog](back, Context(task=0, inputs=[LEFT], tables=[True]))
    frame = frame_of(LEFT, [(1, "x", 9, -1), (2, "y", 9, -1), (1, "z", 9, 1), (3, "w", 9, 1)])
    ((_, given_),) = changes.process(0, frame)
    assert [(1, "z", False), (2, "y", True), (3, "w", False)] == given_.select(*back.schema).sort("k").rows()
    assert WEIGHT not in given_.columns


def both_of(left: tuple[Any, ...] | None, right: tuple[Any, ...] | None) -> tuple[Any, ...]:
    key = left[0] if left else right[0] if right else None
    return (key, left[1] if left else None, *(right[1:] if right else (None, None)))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(get_args(How)), st.lists(st.tuples(LEFTS, RIGHTS, LIVES, st.booleans()), max_size=8))
def test_a_table_of_two_tables_is_their_join_after_every_frame(how: How, steps: list[Any]) -> None:
    life = Life(lambda: joined("tables", how))
    tables = (source(LEFT, "k"), source(RIGHT, "r"))
    left: dict[Any, Any] = {}
    right: dict[Any, Any] = {}
    for lefts, rights, life_how, swapped in steps:
        sides = [(0, LEFT, lefts, left), (1, RIGHT, rights, right)]
        for port, schema, rows, model in reversed(sides) if swapped else sides:
            frame = upserts(schema, rows)
            for _, changes in tables[port].process(0, frame) if frame.height else ():
                life.process(port, changes)
            apply(model, rows, len(schema))
            keys = {"inner": left.keys() & right.keys(), "left": left.keys(), "outer": left.keys() | right.keys()}[how]
            expected = ordered([both_of(left.get(key), right.get(key)) for key in keys])
            assert expected == life.table()
        life.advance(0)
        live(life, life_how)
        assert expected == ordered(life.operator.query(None).rows())
        asked = life.operator.query(pl.DataFrame({"k": [0, 9]}))
        assert [row for row in expected if row[0] == 0] == asked.rows()


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["inner", "left"]),
    st.sampled_from(["table", "global"]),
    st.lists(st.tuples(st.lists(st.tuples(KEYS, VALUES), max_size=5), RIGHTS, LIVES), max_size=8),
)
def test_a_stream_finds_the_row_that_its_table_has_just_then(how: How, kind: str, steps: list[Any]) -> None:
    life = Life(lambda: joined(kind, how, tables=(False, True)))
    table_, right, expected = source(RIGHT, "r"), {}, []
    for rows, rights, life_how in steps:
        frame = upserts(RIGHT, rights)
        for _, changes in table_.process(0, frame) if frame.height else ():
            life.process(1, changes)
        apply(right, rights, 3)
        life.process(0, frame_of(LEFT, [(*row, 7, 1) for row in rows], wm=3).drop(WEIGHT))
        life.advance(0)
        live(life, life_how)
        for row in rows:
            found = right.get(row[0]) if row[0] is not None else None
            if found or how == "left":
                expected.append((*both_of(row, found), 7, 3))
        assert len(right) == life.operator.size().rows
    assert ordered(expected) == life.rows()
    assert ordered(list(right.values())) == ordered(life.operator.query(None).rows())


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["inner", "left"]), st.lists(st.tuples(LEFTS, RIGHTS, LIVES), max_size=8))
def test_a_table_takes_back_what_it_found_in_a_global_table(how: How, steps: list[Any]) -> None:
    life = Life(lambda: joined("global", how))
    tables = (source(LEFT, "k"), source(RIGHT, "r"))
    left: dict[Any, Any] = {}
    right: dict[Any, Any] = {}
    met: dict[Any, Any] = {}
    for lefts, rights, life_how in steps:
        frame = upserts(RIGHT, rights)
        for _, changes in tables[1].process(0, frame) if frame.height else ():
            life.process(1, changes)
        apply(right, rights, 3)
        frame = upserts(LEFT, lefts)
        for _, changes in tables[0].process(0, frame) if frame.height else ():
            life.process(0, changes)
        before = dict(left)
        apply(left, lefts, 2)
        for key in before.keys() | left.keys():
            if before.get(key) != left.get(key):
                met.pop(key, None)
                if key in left and (how == "left" or key in right):
                    met[key] = both_of(left[key], right.get(key))
        assert ordered(list(met.values())) == life.table()
        life.advance(0)
        live(life, life_how)
        if life_how:  # the global table is read anew
            rows = tables[1].query(None).rows()
            if rows:
                life.process(1, upserts(RIGHT, rows))
        assert ordered(list(met.values())) == ordered(life.operator.query(None).rows())


def test_a_join_that_wants_a_column_of_neither_side_is_refused() -> None:
    node = Join(name="j", kind="table", how="left", left_on=("k",), right_on=("r",), schema={"z": INT})
    with pytest.raises(InvalidRequest, match="'z'"):
        MAKERS[Join](node, Context(task=0, inputs=[LEFT, RIGHT], tables=[False, True]))


def test_a_key_column_of_the_right_is_shown_where_the_schema_has_it() -> None:
    node = Join(name="j", kind="table", how="left", left_on=("k",), right_on=("r",), schema={"k": INT, "r": INT})
    operator = MAKERS[Join](node, Context(task=0, inputs=[LEFT, RIGHT], tables=[False, True]))
    list(operator.process(1, frame_of(RIGHT, [(1, "x", 1, 0, 1)])))
    ((_, given_),) = operator.process(0, frame_of(LEFT, [(1, "x", 0, 1), (2, "y", 0, 1)]))
    assert [(1, 1), (2, None)] == given_.select("k", "r").rows()


def test_a_spilled_table_gives_the_same_changes(tmp_path: Any) -> None:
    node = Source(name="t", topic="t", format="json", kind="table", schema=LEFT, keys=("k",))
    small = Context(task=0, inputs=[], tables=[], memory_max=1 << 19, spill=str(tmp_path))
    lives = [
        Life(lambda context=context: MAKERS[Source](node, context))
        for context in (small, Context(task=0, inputs=[], tables=[]))
    ]
    for start, step in itertools.product(range(0, 120_000, 40_000), (1, 3)):
        keys = pl.int_range(start, start + 40_000, step, eager=True)
        frame = pl.DataFrame({"k": keys, "a": pl.Series([f"value {step}"]).new_from_index(0, keys.len())}).with_columns(
            pl.lit(0, dtype=pl.Int64).alias(TIME), pl.lit(0, dtype=pl.Int64).alias(WM)
        )
        for life in lives:
            life.process(0, frame)
    assert lives[0].operator.size().spilled
    assert pl.concat(lives[0].given()).equals(pl.concat(lives[1].given()))
