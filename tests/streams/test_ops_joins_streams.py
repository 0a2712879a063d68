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
from headwater.streams.ops.join_stream import StreamStreamJoin
from headwater.streams.state import buffer
from tests.streams.helpers_ops import Life, ordered, stamped

I = pl.Int64()
LEFT = {"k": I, "a": I}
RIGHT = {"k": I, "b": I}
RESULT = {"k": I, "a": I, "b": I}
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


@settings(max_examples=300, deadline=None)
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
