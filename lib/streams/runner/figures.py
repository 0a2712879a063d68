"""What a worker counts in the process's metrics: rows by operator, micro-batches, and how its tasks begin and end.

Counters grow by step, so that they never go back when a task moves to another worker; what is a size or a distance
(state, lag, watermarks) is looked up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from headwater.meters import Meters, Sample, families
from headwater.streams.frames import ENDED, NEVER

if TYPE_CHECKING:
    from headwater.streams.runner.worker import Worker
    from headwater.streams.task import Flow

SIZED_S = 5.0  # state that changes is measured so often at most: it may lie in thousands of panes
FAILURES = ("OperatorFailed", "DataLost", "IncompatibleTopology")  # what ends a task and its job for good
Seen = tuple[int, int, int]  # rows in, out and late


class Figures:
    """The counters of one job in one process, whichever tasks it has."""

    def __init__(self, meters: Meters, namespace: str, job: str) -> None:
        self._meters = meters
        self._labels = (namespace, job)
        self._records = meters.counter(families.STREAMS_RECORDS, namespace, job)
        self._batches = meters.histogram(families.STREAMS_BATCH_SECONDS, namespace, job)
        self._commits = meters.histogram(families.STREAMS_COMMIT_SECONDS, namespace, job)
        self._starts = meters.counter(families.STREAMS_STARTS, namespace, job)
        for outcome in FAILURES:  # from 0 on: Prometheus sees no increase in a series that begins at 1
            meters.counter(families.STREAMS_ENDS, namespace, job, outcome)

    def started(self) -> None:
        """A task begins."""
        self._starts.add()

    def ended(self, error: BaseException | None) -> None:
        """A task has ended, by ``error`` or since it was given up."""
        outcome = "ok" if error is None else type(error).__name__
        self._meters.counter(families.STREAMS_ENDS, *self._labels, outcome).add()

    def computed(self, seconds: float, records: int) -> None:
        """A micro-batch of so many records took so long."""
        self._batches.observe(seconds)
        self._records.add(records)

    def committed(self, seconds: float) -> None:
        """Its commit took so long."""
        self._commits.observe(seconds)

    def flowed(self, flows: Mapping[str, Flow], seen: dict[str, Seen]) -> None:
        """Count what has come since ``seen``, which is what this found last time for the same task.

        Cost: about 1 us for each operator through which rows went.
        """
        for name, flow in flows.items():
            now, before = (flow.rows_in, flow.rows_out, flow.rows_late), seen.get(name, (0, 0, 0))
            if now == before:
                continue
            seen[name] = now
            labels = (*self._labels, name)
            self._meters.counter(families.STREAMS_ROWS_IN, *labels).add(now[0] - before[0])
            self._meters.counter(families.STREAMS_ROWS_OUT, *labels).add(now[1] - before[1])
            if now[2] > before[2]:
                self._meters.counter(families.STREAMS_ROWS_LATE, *labels).add(now[2] - before[2])


def looked_up(worker: Worker) -> Iterator[Sample]:
    """Lag, watermarks, state and tasks as they are now; for ``Meters.collect``. Cost: as ``metrics.of_worker``."""
    labels = (worker.namespace.name, worker.job.name)
    running = [task for task in worker.tasks.values() if task.is_running]
    yield Sample(families.STREAMS_TASKS, (*labels, "running"), len(running))
    yield Sample(families.STREAMS_TASKS, (*labels, "restoring"), len(worker.tasks) - len(running))
    yield Sample(families.STREAMS_TASKS, (*labels, "standby"), len(worker.standbys))
    lowest: dict[str, int] = {}
    for task in running:
        if task.reading is not None:
            for lane in list(task.reading.lanes.values()):
                yield Sample(families.STREAMS_LAG, (*labels, lane.topic), lane.lag)
        if task.computer is None:
            continue
        if not task.lock.locked():  # nobody computes, and so nobody changes the state while it is measured
            task.sizes = task.computer.task.sizes()
        for name, size in task.sizes.items():
            yield Sample(families.STREAMS_STATE, (*labels, name), size.bytes + size.spilled)
        for name, flow in task.computer.task.flows.items():
            if NEVER < flow.watermark < ENDED:
                lowest[name] = min(lowest.get(name, flow.watermark), flow.watermark)
    now_ms = worker.namespace.chain.clock.wall_ms()
    for name, watermark in lowest.items():
        yield Sample(families.STREAMS_WATERMARK, (*labels, name), (now_ms - watermark) / 1_000)
