"""What a worker says about itself, as plain data: for ``app.metrics()``, ``/metrics.json`` and the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.streams.frames import ENDED, NEVER

if TYPE_CHECKING:
    from headwater.streams.runner.stepping import TaskRunner
    from headwater.streams.runner.worker import Worker


def of_worker(worker: Worker) -> dict[str, Any]:
    """All of it. Times in ms since 1970 UTC or in ms; a watermark is null before anything was seen."""
    return {
        "job": worker.job.name,
        "member": worker.seat.member,
        "address": worker.options.address,
        "commit": worker.namespace.state.seq,
        "paused": worker.setting.paused,
        "assigned": worker.rebalances,
        "buffered_bytes": worker.setting.budget.used,
        "tasks": {str(number): of_task(task) for number, task in sorted(worker.tasks.items())},
        "standbys": {
            str(number): {"lag": standby.lag, "rows": standby.copy.rows if standby.copy is not None else 0}
            for number, standby in sorted(worker.standbys.items())
        },
    }


def of_task(task: TaskRunner) -> dict[str, Any]:
    """One task: what it did, how far it is, and its operators."""
    counts, computer, reading = task.counts, task.computer, task.reading
    found: dict[str, Any] = {
        "state": "running" if task.is_running else "restoring",
        "records": counts.records,
        "bytes": counts.bytes,
        "rows_out": counts.rows_out,
        "commits": counts.commits,
        "snapshots": counts.snapshots,
        "restored_rows": counts.restored_rows,
        "restore_ms": round(counts.restore_s * 1_000, 3),
        "commit_ms": latency(counts.commit_s),
        "lag": {},
        "operators": {},
    }
    if reading is not None:
        found["lag"] = {f"{lane.topic}-{lane.partition}": lane.lag for lane in reading.lanes.values()}
        found["skipped"] = sum(lane.skipped for lane in reading.lanes.values())
    if computer is not None:
        sizes = computer.task.sizes()
        for name, flow in computer.task.flows.items():
            operator: dict[str, Any] = {
                "rows_in": flow.rows_in,
                "rows_out": flow.rows_out,
                "rows_late": flow.rows_late,
                "watermark": flow.watermark if NEVER < flow.watermark < ENDED else None,
            }
            if name in sizes:
                size = sizes[name]
                operator["state"] = {"rows": size.rows, "bytes": size.bytes, "spilled_bytes": size.spilled}
            found["operators"][name] = operator
    return found


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """The middle and the tail of the last commits, in ms; empty before the first."""
    known = sorted(seconds)
    if not known:
        return {}
    return {
        "p50": round(known[len(known) // 2] * 1_000, 3),
        "p99": round(known[min(len(known) - 1, len(known) * 99 // 100)] * 1_000, 3),
        "last": round(seconds[-1] * 1_000, 3),
    }


class Tally:
    """Sums over all tasks that a worker had, also those that have ended."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._seen: dict[int, TaskRunner] = {}
        worker.listeners.append(self._look)

    @property
    def records(self) -> int:
        """Records that were read."""
        return sum(task.counts.records for task in self._seen.values())

    @property
    def rows_out(self) -> int:
        """Records that were appended to topics other than the changelog."""
        return sum(task.counts.rows_out for task in self._seen.values())

    @property
    def commits(self) -> int:
        """Micro-batches that were committed."""
        return sum(task.counts.commits for task in self._seen.values())

    def _look(self) -> None:
        for task in self._worker.tasks.values():
            self._seen[id(task)] = task
