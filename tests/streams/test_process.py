"""Processors: state that comes back, timers that do not depend on micro-batches, and rows that are forwarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from headwater.errors import InvalidRequest
from headwater.streams import Processor, Topology
from headwater.streams.frames import ENDED, TIME
from headwater.streams.plan import make_plan
from headwater.streams.task import Input, OperatorFailed, Step, Task

SCHEMA = {"k": pl.String(), "v": pl.Int64()}
OUT = {"k": pl.String(), "n": pl.Int64()}
Row = tuple[int, str, int]  # event time, k, v


class Counts(Processor):
    """Counts each key, tells the counts by the second of event time, and forgets a key that said -1."""

    def init(self, context: Any) -> None:
        self.context = context
        self.counts = context.state("counts")
        context.schedule("10s", "event", self.tell)

    def process(self, frame: pl.DataFrame, context: Any) -> None:
        for key, value in frame.select("k", "v").iter_rows():
            if value == -1:
                self.counts.pop(key, None)
            else:
                self.counts[key] = {"n": self.counts.get(key, {"n": 0})["n"] + 1}

    def tell(self, at_ms: int) -> None:
        rows = [{"k": key, "n": row["n"]} for key, row in sorted(self.counts.items())]
        self.context.forward(pl.DataFrame(rows, schema=OUT))


def task(make: Callable[[], Any] = Counts, *, dead_letters: bool = False) -> Task:
    topology = Topology("job")
    topology.stream("in", schema=SCHEMA).process(make, schema=OUT, name="p").to("out", name="sink")
    return Task(make_plan(topology.build(), {"in": 1, "out": 1}).nodes, dead_letters=dead_letters)


def rows(*given: Row) -> pl.DataFrame:
    schema = {TIME: pl.Int64(), "k": pl.String(), "v": pl.Int64(), "_key": pl.Binary(), "_offset": pl.Int64()}
    return pl.DataFrame([(*row, None, at) for at, row in enumerate(given)], schema=schema, orient="row")


def step(one: Task, *given: Row, now_ms: int = 0) -> Step:
    return one.step([Input(source="in", frame=rows(*given))] if given else [], now_ms)


def told(steps: Sequence[Step]) -> list[tuple[int, str, int]]:
    return [row for each in steps for frame in each.sinks.get("sink", []) for row in frame.select(TIME, *OUT).rows()]


def test_a_timer_is_called_for_each_multiple_that_the_watermark_passes() -> None:
    one = task()
    steps = [step(one, (1_000, "a", 1)), step(one, (2_000, "b", 1), (9_999, "a", 1))]
    assert [] == told(steps)
    assert [(10_000, "a", 3), (10_000, "b", 1), (20_000, "a", 3), (20_000, "b", 1)] == told(
        [step(one, (25_000, "a", 1))]
    )
    assert [] == told([step(one)])


def test_timers_are_aligned_whatever_the_first_micro_batch_holds() -> None:
    events: list[Row] = [(at * 700, "a", 1) for at in range(100)]
    times = []
    for size in (1, 7, 100):
        one = task()
        steps = [step(one, *events[start : start + size]) for start in range(0, 100, size)]
        times.append([at for at, _, _ in told(steps)])
    assert [list(range(10_000, 70_000, 10_000))] * 3 == times


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_timer_does_not_care_whose_rows_come_first(order: tuple[int, int]) -> None:
    """Seed 20470 of the worlds of streams: the first row to come was an hour ahead, and nothing was called before."""
    topology = Topology("job")
    topology.stream("in", schema=SCHEMA).repartition("k", name="by-k").process(Counts, schema=OUT, name="p").to(
        "out", name="sink"
    )
    one = Task(make_plan(topology.build(), {"in": 2, "out": 1}).nodes, tasks=2)
    sent: list[list[Row]] = [[(1_000, "a", 1), (12_000, "a", 1)], [(3_600_000, "b", 1)]]
    frames = [rows(*given).drop("_key", "_offset").with_columns(_wm=pl.lit(0, pl.Int64)) for given in sent]
    steps = [one.step([Input(source="by-k", frame=frames[each], channel=each, watermark=0)]) for each in order]
    steps += [one.step([Input(source="by-k", channel=each, watermark=25_000)]) for each in order]
    assert [10_000, 20_000] == sorted({at for at, _, _ in told(steps)})


def test_a_timer_that_was_called_is_not_called_again_for_late_rows() -> None:
    one = task()
    steps = [step(one, (1_000, "a", 1), (25_000, "a", 1)), step(one, (2_000, "a", 1)), step(one, (26_000, "a", 1))]
    assert [(10_000, "a", 2), (20_000, "a", 2)] == told(steps)


def test_state_and_timers_come_back_from_deltas() -> None:
    one = task()
    deltas = []
    for given in ([(1_000, "a", 1), (2_000, "b", 1)], [(3_000, "a", 1), (4_000, "b", -1)], [(5_000, "c", 1)]):
        deltas += step(one, *given).deltas
    two = task()
    for name, delta in deltas:
        two.restore(name, delta)
    two.restored(one.progress())
    assert [(10_000, "a", 2), (10_000, "c", 2)] == told([step(two, (11_000, "c", 1))])


def test_a_snapshot_gives_the_same_state_as_its_deltas() -> None:
    one = task()
    step(one, (1_000, "a", 1), (2_000, "b", 1), (3_000, "b", -1), (4_000, "c", 1))
    two = task()
    for name, delta in one.snapshot():
        two.restore(name, delta)
    two.restored(one.progress())
    assert one.operators["p"].query(None).rows() == two.operators["p"].query(None).rows()
    assert one.operators["p"].size() == two.operators["p"].size()
    assert [] == list(two.operators["p"].deltas())
    assert told([step(one, (11_000, "d", 1))]) == told([step(two, (11_000, "d", 1))])


def test_a_step_that_changes_nothing_has_no_delta() -> None:
    one = task()
    step(one, (1_000, "a", 1))
    assert [] == step(one).deltas


def test_a_query_finds_rows_by_key() -> None:
    one = task()
    step(one, (1_000, "a", 1), (2_000, "b", 1))
    found = one.operators["p"].query(pl.DataFrame({"key": ["b"]}))
    assert [("counts", '"b"', '{"n":1}')] == found.rows()


def test_wall_timers_are_called_once_however_long_nothing_happened() -> None:
    called: list[int] = []

    class Wall(Processor):
        def init(self, context: Any) -> None:
            context.schedule("1s", "wall", called.append)

        def process(self, frame: pl.DataFrame, context: Any) -> None:
            context.forward(frame.select("k", pl.col("v").alias("n")))

    one = task(Wall)
    for now_ms in (100, 900, 1_000, 1_500, 9_999, 10_000):
        step(one, now_ms=now_ms)
    assert [1_000, 9_000, 10_000] == called


def test_a_cancelled_timer_is_silent() -> None:
    called: list[int] = []

    class Once(Processor):
        def init(self, context: Any) -> None:
            self.timer = context.schedule(10, "event", self.call)

        def process(self, frame: pl.DataFrame, context: Any) -> None:
            return

        def call(self, at_ms: int) -> None:
            called.append(at_ms)
            self.timer.cancel()

    one = task(Once)
    step(one, (1, "a", 1), (1_000, "a", 1))
    assert [10] == called


def test_a_jump_of_time_by_years_is_a_bounded_number_of_calls() -> None:
    called: list[int] = []

    class Often(Processor):
        def init(self, context: Any) -> None:
            context.schedule(1, "event", called.append)

        def process(self, frame: pl.DataFrame, context: Any) -> None:
            return

    one = task(Often)
    step(one, (0, "a", 1), (10**12, "a", 1))
    assert (1_000, 10**12) == (len(called), called[-1])
    one.step([Input(source="in", watermark=ENDED)])
    assert 1_000 == len(called)


def test_rows_keep_their_own_time_if_they_are_forwarded_with_it() -> None:
    class Pass(Processor):
        def process(self, frame: pl.DataFrame, context: Any) -> None:
            context.forward(frame.with_columns(pl.col("v").alias("n")))
            context.forward(pl.DataFrame({"k": ["sum"], "n": [frame["v"].sum()]}))

    one = task(Pass)
    assert [(5, "a", 1), (3, "b", 2), (5, "sum", 3)] == told([step(one, (5, "a", 1), (3, "b", 2))])


@pytest.mark.parametrize(
    "frame", [pl.DataFrame({"k": ["a"]}), [{"k": "a"}], pl.DataFrame({"k": ["a"], "n": ["not a number"]})]
)
def test_what_does_not_fit_the_schema_is_an_error_that_names_the_operator(frame: Any) -> None:
    class Wrong(Processor):
        def process(self, given: pl.DataFrame, context: Any) -> None:
            context.forward(frame)

    with pytest.raises((InvalidRequest, OperatorFailed), match="'p'"):
        step(task(Wrong), (1, "a", 1))


def test_an_exception_of_a_processor_stops_the_task_and_names_it() -> None:
    class Fails(Processor):
        def process(self, given: pl.DataFrame, context: Any) -> None:
            raise RuntimeError("no more")

    with pytest.raises(OperatorFailed, match="'p' of task 0 failed: RuntimeError: no more"):
        step(task(Fails), (1, "a", 1))


class Fussy(Counts):
    """Counts, forwards what it takes, and raises at 13, in the middle of it."""

    def process(self, frame: pl.DataFrame, context: Any) -> None:
        for row in frame.select("k", "v").iter_slices(1):
            super().process(row, context)
            context.forward(row.select("k", n="v"))
            if row.item(0, "v") == 13:
                raise ValueError("unlucky")


def test_rows_on_which_a_processor_raises_go_to_the_dead_letters_and_leave_no_trace() -> None:
    one = task(Fussy, dead_letters=True)
    given = [(5, "a", 1), (6, "b", 13), (7, "a", 2), (8, "c", 13), (9, "d", 3)]
    made = step(one, *given)
    assert [("a", 1), ("a", 2), ("d", 3)] == [(k, n) for _, k, n in told([made])]
    assert [("b", 13, 1), ("c", 13, 3)] == [
        row for name, frame in made.failed if name == "p" for row in frame.select("k", "v", "_offset").rows()
    ]
    assert {"ValueError: unlucky"} == {error for _, frame in made.failed for error in frame["_error"]}
    counts = {row["key"]: row["row"] for row in one.operators["p"].query(None).to_dicts()}
    assert {'"a"': '{"n":2}', '"d"': '{"n":1}'} == counts
    again = task(Fussy, dead_letters=True)
    for name, delta in made.deltas:
        again.restore(name, delta)
    again.restored(one.progress())
    assert one.operators["p"].query(None).equals(again.operators["p"].query(None)), "in the same order as well"


def test_without_a_topic_for_dead_letters_a_processor_that_raises_ends_the_task() -> None:
    with pytest.raises(OperatorFailed, match="ValueError: unlucky"):
        step(task(Fussy), (6, "b", 13))


def test_a_timer_begins_in_init_alone() -> None:
    class Late(Processor):
        def process(self, given: pl.DataFrame, context: Any) -> None:
            context.schedule("1s", "event", print)

    with pytest.raises(InvalidRequest, match=r"outside of init\(\)"):
        step(task(Late), (1, "a", 1))


def test_what_make_makes_is_a_processor() -> None:
    with pytest.raises(InvalidRequest, match="makes a dict"):
        task(dict)


def test_state_holds_tuples_numbers_and_bytes_as_keys_and_copies_rows() -> None:
    found: dict[Any, Any] = {}

    class Keeps(Processor):
        def process(self, given: pl.DataFrame, context: Any) -> None:
            state = context.state()
            state[("a", 1)] = [1, 2]
            state[7] = "seven"
            state[b"x"] = None
            state[("a", 1)].append(3)  # a copy: not kept
            found.update(state)
            del state[7]
            found["len"] = len(state)
            with pytest.raises(InvalidRequest, match="State cannot hold object"):
                state["o"] = object()
            with pytest.raises(KeyError):
                del state["nothing"]

    step(task(Keeps), (1, "a", 1))
    assert {("a", 1): [1, 2], 7: "seven", b"x": None, "len": 2} == found
