"""What a changelog comes to when it is read again: deltas, snapshots, torn ones, and ones that replace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headwater.errors import Corrupt
from headwater.log import batch
from headwater.log.namespace import Namespace
from headwater.sim.loop import sim_loop
from headwater.streams.model import Node, Source
from headwater.streams.operator import Context, Delta, Operator, Outputs, operator
from headwater.streams.runner import changelog
from headwater.streams.runner.app import App, WorkerOptions
from headwater.streams.runner.changelog import Copy, Line, Weight, batches_of, effective, lines_of
from headwater.streams.task import Task
from headwater.upkeep.offload import inline
from tests.log.helpers import simulate
from tests.streams import helpers_runner as h


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes(Node):
    """A node of this test: it writes down the rows that it is given."""


@operator(Notes)
class NotesOperator(Operator):
    """Keeps numbers in the order in which they came."""

    def __init__(self, node: Notes, context: Context) -> None:
        self.rows: list[int] = []

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        return ()

    def restore(self, delta: Delta) -> None:
        if delta.tag == "forget":
            self.rows.clear()
        else:
            self.rows += delta.frame.get_column("x").to_list()


NODES: dict[str, Node] = {
    "in": Source(name="in", topic="in", format="json"),
    "notes": Notes(name="notes", parents=("in",)),
}


def delta(*numbers: int, tag: str = "more") -> tuple[str, Delta]:
    return "notes", Delta(tag, pl.DataFrame({"x": list(numbers)}, schema={"x": pl.Int64}))


def placed(lines: Sequence[Line], start: int = 0) -> pa.RecordBatch:
    """Lines as they are read from the log."""
    parts = [batch.decode(made.codec, made.data, start) for made in batches_of(lines, 1)]
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def copy_of(*parts: Sequence[Line], start: int = 0) -> Copy:
    copy = Copy(lambda: Task(NODES), start)
    for part in parts:
        copy.take(placed(part, copy.position))
    return copy


def rows(copy: Copy) -> list[int]:
    found: Any = copy.task.operators["notes"]
    kept: list[int] = found.rows
    return kept


def snapshot(*numbers: int, replace: bool = False) -> list[Line]:
    return [
        changelog.begin_line(replace=replace),
        *lines_of([delta(*numbers)], piece=True),
        changelog.end_line(),
        changelog.progress_line({"at": "snapshot"}),
    ]


def written(*numbers: int) -> list[Line]:
    return [*lines_of([delta(*numbers)]), changelog.progress_line({"at": numbers[-1]})]


def test_deltas_are_applied_in_order_and_the_last_progress_holds() -> None:
    copy = copy_of(written(1, 2), written(3))
    assert [1, 2, 3] == rows(copy)
    assert {"at": 3} == copy.progress
    assert 4 == copy.position


def test_who_has_read_the_deltas_skips_the_snapshot() -> None:
    copy = copy_of(written(1, 2), snapshot(1, 2), written(3))
    assert [1, 2, 3] == rows(copy)


def test_who_begins_with_a_snapshot_takes_it() -> None:
    copy = copy_of(snapshot(1, 2), written(3), start=100)
    assert [1, 2, 3] == rows(copy)
    assert {"at": 3} == copy.progress


def test_a_torn_snapshot_is_ignored_and_what_its_heir_wrote_is_not() -> None:
    torn = snapshot(1, 2)[:2]
    copy = copy_of(written(1, 2), torn, written(3), snapshot(1, 2, 3), written(4))
    assert [1, 2, 3, 4] == rows(copy)
    assert copy.whole


def test_a_copy_is_not_whole_inside_the_snapshot_that_it_begins_with() -> None:
    copy = copy_of(snapshot(1, 2)[:2], start=100)
    assert not copy.whole
    copy.take(placed([changelog.end_line()], copy.position))
    assert copy.whole


def test_a_snapshot_that_replaces_makes_all_before_it_void() -> None:
    copy = copy_of(written(1, 2), snapshot(7, replace=True), written(8))
    assert [7, 8] == rows(copy)
    empty = copy_of(written(1, 2), [changelog.begin_line(replace=True), changelog.end_line()])
    assert [] == rows(empty)
    assert None is empty.progress


def test_records_that_were_read_already_are_not_applied_twice() -> None:
    copy = Copy(lambda: Task(NODES), 0)
    both = placed([*written(1), *written(2)])
    copy.take(both.slice(0, 2))
    copy.take(both)
    assert [1, 2] == rows(copy)


def test_state_of_a_node_that_there_is_no_more_is_dropped() -> None:
    line = Line(b"gone\0more", next(iter(lines_of([delta(9)]))).value)
    assert [1] == rows(copy_of([line], written(1)))


def test_a_record_that_nobody_wrote_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="whose key is b'nonsense'"):
        copy_of([Line(b"nonsense", b"")])


def test_what_is_effective_restores_the_same_and_is_whole() -> None:
    parts = [written(1, 2), snapshot(1, 2)[:2], written(3), snapshot(1, 2, 3), written(4)]
    lines = [line for part in parts for line in part]
    pieces, progress, topology = effective([placed(lines)])
    assert None is topology
    assert progress is not None
    again = copy_of([changelog.begin_line(replace=True), *pieces, changelog.end_line(), progress])
    assert [1, 2, 3, 4] == rows(again)
    assert {"at": 4} == again.progress


def test_a_snapshot_is_due_when_the_changes_outweigh_it() -> None:
    weight = Weight()
    weight.add(1)
    assert not weight.is_due
    weight.add(9 << 20)
    assert weight.is_due
    weight.snapshot_is(100 << 20)
    weight.add(99 << 20)
    assert not weight.is_due
    weight.add(2 << 20)
    assert weight.is_due


def test_many_commits_weigh_something_however_little_they_say() -> None:
    weight = Weight()
    for _ in range(600):
        weight.add(10)
    assert weight.is_due


# -- in a job --------------------------------------------------------------------------------------------


def changelog_of(namespace: Namespace) -> list[tuple[int, int]]:
    return [(place.start, place.next) for place in namespace.topic("job-changelog").partitions]


async def run_on(namespace: Namespace, rng: random.Random, times: int) -> list[h.Row]:
    made: list[h.Row] = []
    for number in range(times):
        some = h.events(rng, 20, start=number * 2_000)
        made += some
        await h.put(namespace, number % 2, some)
        await h.once(namespace)
    return made


def test_snapshots_trim_the_changelog_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "STREAMS_CHANGELOG_BYTES_MIN", 1)

    async def main() -> None:
        namespace = await h.bucket(2)
        rows = await run_on(namespace, random.Random(1), 6)
        assert all(start > 0 for start, _ in changelog_of(namespace))
        assert h.expected_latest(rows) == await h.latest(namespace)

    simulate(main())


def test_a_standby_takes_over_and_restores_only_the_rest() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        rng = random.Random(2)
        options = WorkerOptions(offload=inline, num_standbys=1, session_ms=6_000)
        first = await App.start(h.job(), await h.another(namespace, 11), options)
        second = await App.start(h.job(), await h.another(namespace, 12), options)
        await h.until(lambda: len(first.worker.tasks) == len(second.worker.tasks) == 1)
        rows: list[h.Row] = []
        for number in range(20):
            some = h.events(rng, 20, start=number * 2_000, keys=50)
            rows += some
            await h.put(namespace, number % 2, some)
            await sim_loop().sleep(1)
        (number,) = first.worker.tasks
        await h.until(lambda: number in second.worker.standbys and second.worker.standbys[number].lag == 0)
        assert second.worker.standbys[number].copy is not None
        kept = second.worker.standbys[number].copy.rows
        await first.abandon()
        await h.until(lambda: len(second.worker.tasks) == 2 and all(t.is_running for t in second.worker.tasks.values()))
        assert kept > 0
        assert second.worker.tasks[number].counts.restored_rows < kept
        await second.stop()
        await h.once(namespace)
        assert h.expected_latest(rows) == await h.latest(namespace)

    simulate(main())


def test_a_standby_that_the_log_has_left_behind_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "STREAMS_CHANGELOG_BYTES_MIN", 1)

    async def main() -> None:
        namespace = await h.bucket(2)
        options = WorkerOptions(offload=inline, num_standbys=1)
        first = await App.start(h.job(), await h.another(namespace, 11), options)
        second = await App.start(h.job(), await h.another(namespace, 12), options)
        await h.until(lambda: len(first.worker.tasks) == len(second.worker.tasks) == 1)
        rows: list[h.Row] = []
        for number in range(10):
            some = h.events(random.Random(number), 20, start=number * 2_000)
            rows += some
            await h.put(namespace, number % 2, some)
            await sim_loop().sleep(0.5)
        await first.stop()
        await h.until(lambda: len(second.worker.tasks) == 2)
        await sim_loop().sleep(10)
        await second.stop()
        assert h.expected_latest(rows) == await h.latest(namespace)

    simulate(main())
