"""What a job leaves in the metrics of its process."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headwater.log.options import Options
from headwater.meters import Distribution, Meters
from headwater.sim.loop import sim_loop
from headwater.streams import Topology
from headwater.streams.failures import OperatorFailed
from headwater.streams.runner.app import App, run
from tests.log.helpers import network, opened, simulate
from tests.streams import helpers_runner as h


def cells(meters: Meters, name: str) -> dict[tuple[str, ...], Any]:
    """By the labels after the namespace and the job."""
    found = meters.snapshot()[f"headwater_streams_{name}"].cells
    assert {"job"} >= {key[1] for key in found}
    return {key[2:]: cell.count if isinstance(cell, Distribution) else cell for key, cell in found.items()}


def test_rows_batches_state_lag_and_watermarks_are_those_that_the_worker_tells() -> None:
    meters = Meters()

    async def work() -> None:
        namespace = await opened(network(profile=h.QUICK), options=Options(meters=meters))
        await h.topics(namespace, 2)
        for partition in range(2):
            await h.put(namespace, partition, h.events(random.Random(partition), 40))
        app = await App.start(h.job(), namespace, h.OPTIONS)
        await sim_loop().sleep(30)
        tasks = app.metrics()["tasks"].values()
        for what in ("rows_in", "rows_out", "rows_late"):
            told: dict[tuple[str], float] = {}
            for task in tasks:
                for name, operator in task["operators"].items():
                    told[name,] = told.get((name,), 0.0) + operator[what]
            assert {name: count for name, count in told.items() if count} == {
                name: count for name, count in cells(meters, what).items() if count
            }
        assert {(): float(sum(task["records"] for task in tasks))} == cells(meters, "records")
        assert {(): sum(task["commits"] for task in tasks)} == cells(meters, "commit_seconds")
        assert cells(meters, "batch_seconds")[()] >= cells(meters, "commit_seconds")[()]
        assert {("running",): 2.0, ("restoring",): 0.0, ("standby",): 0.0} == cells(meters, "tasks")
        assert {0.0} == set(cells(meters, "lag_records").values())
        sizes = [
            task["operators"]["forever"]["state"]["bytes"] for task in tasks if task["operators"]["forever"]["state"]
        ]
        assert float(sum(sizes)) == cells(meters, "state_bytes")["forever",]
        lag_s = cells(meters, "watermark_lag_seconds")
        lowest = min(task["operators"]["in"]["watermark"] for task in tasks)
        assert (namespace.chain.clock.wall_ms() - lowest) / 1_000 == pytest.approx(lag_s["in",], abs=1)
        await app.stop()
        assert {(): 2.0} == cells(meters, "task_starts")
        assert {("ok",): 2.0} == {key: count for key, count in cells(meters, "task_ends").items() if count}
        assert {} == cells(meters, "tasks"), "a worker that has left tells nothing of now"

    simulate(work())


def test_a_task_that_fails_ends_by_the_name_of_its_error() -> None:
    meters = Meters()

    async def work() -> None:
        namespace = await opened(network(profile=h.QUICK), options=Options(meters=meters))
        await h.topics(namespace, 1)
        topology = Topology("job")
        topology.stream("in", schema=h.SCHEMA, time="at").to("copy", format="json")
        await h.put(namespace, 0, [b"no JSON at all"])
        with pytest.raises(OperatorFailed):
            await run(topology, namespace, options=h.OPTIONS)
        ends = cells(meters, "task_ends")
        assert {("OperatorFailed",): 1.0, ("DataLost",): 0.0, ("IncompatibleTopology",): 0.0} == ends

    simulate(work())
