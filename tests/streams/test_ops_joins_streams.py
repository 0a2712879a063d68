"""Joins of two streams, and as-of joins, beside a plain model of them."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.streams.frames import ENDED, LATE, NEVER, TIME, WM
from headwater.streams.model import How, Join
from headwater.streams.operator import Context, Operator
from headwater.streams.ops import join_asof
from headwater.streams.ops.join_asof import AsOfJoin
from headwater.streams.ops.join_stream import StreamStreamJoin
from headwater.streams.state import buffer
from tests.streams.helpers_ops import Life, ordered, stamped

INT = pl.Int64()
LEFT = {"k": INT, "a": INT}
RIGHT = {"k": INT, "b": INT}
RESULT = {"k": INT, "a": INT, "b": INT}
END = ENDED // 2


def join(how: How, *, before: int, after: int, grace: int) -> Join:
    return Join(
        name="j",
        kind="stream",
        how=how,
        left_on=("k",),
        right_on=("k",),
        before=before,
        after=after,
        grace=grace,
        schema=RESULT,
    )


def make(node: Join, bits: int = 64) -> Operator:
    return StreamStreamJoin(node, Context(task=0, inputs=[LEFT, RIGHT], tables=[False, False]), bits=bits)


def modelled(node: Join, left: list[Any], right: list[Any]) -> tuple[list[Any], list[Any]]:
    """Results and late rows, from rows (key, value, time, watermark)."""

    def window(side: int, time: int) -> int:
        return time + (node.before if side else node.after) + node.grace + 1

    late = [(k, v, None, t, wm) for k, v, t, wm in left if window(0, t) <= wm]
    late += [(k, None, v, t, wm) for k, v, t, wm in right if window(1, t) <= wm]
    lefts = [row for row in left if window(0, row[2]) > row[3]]
    rights = [row for row in right if window(1, row[2]) > row[3]]
    results, met = [], set()
    for (i, (k, a, t, wm)), (j, (o, b, u, other)) in itertools.product(enumerate(lefts), enumerate(rights)):
        if k is None or k != o or not -node.before <= u - t <= node.after:
            continue
        if wm < window(1, u) and other < window(0, t):
            results.append((k, a, b, max(t, u), max(wm, other) - max(node.before, node.after) - node.grace))
            met |= {("l", i), ("r", j)}
    if node.how != "inner":
        results += [(k, a, None, t, t) for i, (k, a, t, _) in enumerate(lefts) if ("l", i) not in met]
    if node.how == "outer":
        results += [(k, None, b, t, t) for i, (k, b, t, _) in enumerate(rights) if ("r", i) not in met]
    return ordered(results), ordered(late)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[int, int | None, int, int]], list[int]]:
    """Rows (side, key, value, time) as they arrive, and where they are cut into steps."""
    keys = st.one_of(st.none(), st.integers(0, 2))
    rows = draw(st.lists(st.tuples(st.integers(0, 1), keys, st.integers(0, 3), st.integers(0, 12)), max_size=40))
    drift = draw(st.integers(0, 3))
    rows = [(side, key, value, time + number * drift) for number, (side, key, value, time) in enumerate(rows)]
    cuts = draw(st.lists(st.integers(0, len(rows)), max_size=8))
    return rows, sorted(cuts)


def lived(
    life: Life, rows: Any, cuts: list[int], sides: list[pl.DataFrame], disorder: tuple[int, int], data: st.DataObject
) -> None:
    """Give an operator all rows in steps, with a new life between some of them, and then let all time pass."""
    done = [0, 0]
    for begin, end in itertools.pairwise([0, *cuts, len(rows)]):
        for side in data.draw(st.permutations([0, 1])):
            count = sum(row[0] == side for row in rows[begin:end])
            life.process(side, sides[side][done[side] : done[side] + count])
            done[side] += count
        # What a task would hear: the newest time of each side so far, less its disorder.
        reached = [
            sides[side].get_column(TIME)[: done[side]].max() - disorder[side] if done[side] else NEVER  # type: ignore[operator]
            for side in (0, 1)
        ]
        life.advance(min(reached))
        match data.draw(st.sampled_from(["go on", "deltas", "snapshot"])):
            case "deltas":
                life.reborn(snapshot=False)
            case "snapshot":
                life.reborn(snapshot=True)
    life.advance(END)


@settings(max_examples=150, deadline=None)
@given(
    streams(),
    st.sampled_from(get_args(How)),
    st.tuples(st.integers(-3, 8), st.integers(0, 8), st.integers(0, 6)).filter(lambda each: each[0] + each[1] >= 0),
    st.tuples(st.integers(0, 6), st.integers(0, 6)),
    st.sampled_from([64, 1]),
    st.data(),
)
def test_a_join_of_streams_is_its_model_however_rows_are_cut(
    given_: Any, how: How, reach: tuple[int, int, int], disorder: tuple[int, int], bits: int, data: st.DataObject
) -> None:
    rows, cuts = given_
    node = join(how, before=reach[0], after=reach[1], grace=reach[2])
    sides = [
        stamped(schema, [row[1:] for row in rows if row[0] == side], disorder[side])
        for side, schema in enumerate((LEFT, RIGHT))
    ]
    expected = modelled(node, *([] if not side.height else side.rows() for side in sides))
    life = Life(lambda: make(node, bits))
    lived(life, rows, cuts, sides, disorder, data)
    assert expected == (life.rows(), life.rows(LATE))
    assert 0 == life.operator.size().rows


def test_a_row_without_a_partner_is_given_when_its_window_and_grace_are_over_and_not_before() -> None:
    life = Life(lambda: make(join("left", before=10, after=10, grace=5)))
    life.process(0, stamped(LEFT, [(1, 1, 100)], 0))
    life.advance(115)
    assert [] == life.rows()
    life.advance(116)
    assert [(1, 1, None, 100, 100)] == life.rows()
    life.advance(200)
    assert 1 == len(life.rows())


def test_results_are_never_behind_what_those_below_have_heard() -> None:
    node = join("outer", before=10, after=3, grace=5)
    operator = make(node)
    assert 15 == operator.behind
    rows = [(1, n, n * 2 - n % 3) for n in range(100)]
    life = Life(lambda: operator)
    for n in range(0, 100, 10):
        heard = life.watermark - operator.behind
        before = sum(frame.height for frame in life.given())
        for side, schema in enumerate((LEFT, RIGHT)):
            life.process(side, stamped(schema, rows, 2)[n : n + 10])
        life.advance(int(rows[n + 9][2]) - 2)
        given_ = pl.concat(life.given())[before:]
        assert given_.filter((pl.col(WM) < heard) | (pl.col(WM) > pl.col(TIME))).is_empty()


def test_a_hot_key_makes_its_pairs_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "STREAMS_PAIRS_MAX", 1_000)
    life = Life(lambda: make(join("inner", before=10, after=10, grace=0)))
    life.process(0, stamped(LEFT, [(1, n, 100) for n in range(2_500)], 0))
    life.process(1, stamped(RIGHT, [(1, n, 100) for n in range(7)], 0))
    heights = [frame.height for frame in life.given()]
    assert 7 * 2_500 == sum(heights)
    assert max(heights) <= 2_000


def test_times_of_all_ages_meet_in_one_buffer() -> None:
    life = Life(lambda: make(join("inner", before=1, after=1, grace=2**40)))
    times = [0, 2**30, 7, 2**39, -(2**39), 2**30 + 1]
    life.process(0, stamped(LEFT, [(1, n, time) for n, time in enumerate(times)], 2**41))
    life.process(1, stamped(RIGHT, [(1, n, time) for n, time in enumerate(times)], 2**41))
    assert [(0, 0), (1, 1), (1, 5), (2, 2), (3, 3), (4, 4), (5, 1), (5, 5)] == [row[1:3] for row in life.rows()]


def test_a_join_of_streams_is_no_table() -> None:
    with pytest.raises(InvalidRequest, match="'j'"):
        make(join("inner", before=1, after=1, grace=0)).query(None)


# -- as of -------------------------------------------------------------------------------------------


def as_of(how: How, *, tolerance: int, grace: int) -> Join:
    return Join(
        name="j",
        kind="asof",
        how=how,
        left_on=("k",),
        right_on=("k",),
        tolerance=tolerance,
        grace=grace,
        schema=RESULT,
    )


def make_as_of(node: Join) -> Operator:
    return AsOfJoin(node, Context(task=0, inputs=[LEFT, RIGHT], tables=[False, False]))


def modelled_as_of(node: Join, left: list[Any], right: list[Any]) -> tuple[list[Any], list[Any]]:
    """Results and late rows, from rows (key, value, time, watermark)."""
    late = [(k, v, None, t, wm) for k, v, t, wm in left if t + node.grace < wm]
    late += [(k, None, v, t, wm) for k, v, t, wm in right if t + node.grace < wm]
    results = []
    for k, a, t, wm in left:
        if t + node.grace < wm:
            continue
        best = None
        for o, b, u, other in right:
            near = u <= t and (node.tolerance < 0 or t - u <= node.tolerance)
            if k is not None and k == o and near and u + node.grace >= other and (best is None or u >= best[0]):
                best = u, b
        if best is not None or node.how == "left":
            results.append((k, a, best[1] if best else None, t, t))
    return ordered(results), ordered(late)


@settings(max_examples=150, deadline=None)
@given(
    streams(),
    st.sampled_from(["inner", "left"]),
    st.integers(-1, 10),
    st.integers(0, 6),
    st.tuples(st.integers(0, 6), st.integers(0, 6)),
    st.data(),
)
def test_an_as_of_join_is_its_model_however_rows_are_cut(
    given_: Any, how: How, tolerance: int, grace: int, disorder: tuple[int, int], data: st.DataObject
) -> None:
    rows, cuts = given_
    node = as_of(how, tolerance=tolerance, grace=grace)
    sides = [
        stamped(schema, [row[1:] for row in rows if row[0] == side], disorder[side])
        for side, schema in enumerate((LEFT, RIGHT))
    ]
    expected = modelled_as_of(node, *([] if not side.height else side.rows() for side in sides))
    life = Life(lambda: make_as_of(node))
    lived(life, rows, cuts, sides, disorder, data)
    assert expected == (life.rows(), life.rows(LATE))


def test_old_rows_of_the_right_side_shrink_to_one_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_asof, "STREAMS_RECENT_ROWS_MIN", 10)
    life = Life(lambda: make_as_of(as_of("left", tolerance=-1, grace=0)))
    for time in range(100):
        life.process(1, stamped(RIGHT, [(key, time, time) for key in range(3)], 0))
        life.advance(time)
    assert life.operator.size().rows < 50
    life.process(0, stamped(LEFT, [(2, 7, 99)], 0))
    life.advance(END)
    assert [(2, 7, 99, 99, 99)] == life.rows()


def test_a_row_meets_nothing_before_all_that_it_could_meet_has_come() -> None:
    life = Life(lambda: make_as_of(as_of("left", tolerance=5, grace=2)))
    life.process(0, stamped(LEFT, [(1, 1, 100), (None, 2, 100)], 0))
    life.process(1, stamped(RIGHT, [(1, 1, 94), (1, 2, 96)], 0))
    life.advance(102)
    life.process(1, stamped(RIGHT, [(1, 3, 100)], 0))
    assert [] == life.rows()
    life.advance(103)
    assert [(None, 2, None, 100, 100), (1, 1, 3, 100, 100)] == life.rows()
