"""The function ``process``: a job by schedule or by notification, with the rights of its role, from its own package."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headwater.errors import InvalidRequest
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.streams import Topology, agg, col
from headwater.streams.failures import OperatorFailed
from headwater.streams.function import JobFunction, job
from headwater.streams.loading import load_topology
from headwater.streams.runner.worker import WorkerOptions
from headwater.upkeep.offload import inline
from tests.deploy.helpers_template import JOB, ROOT, GuardedStore, Stack
from tests.log.helpers import simulate

SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event"}
NOTIFIED = {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}
HERE = __name__
SLOW = Profile("slow", put=(400, 400), get=(100, 100), list=(150, 150))


def delays() -> Topology:
    """Late flights to one topic, how many there were by origin to another."""
    made = Topology("delays")
    schema = {"origin": pl.String(), "delay": pl.Int64(), "ts": pl.Int64()}
    late = made.stream("flights", schema=schema, time="ts").filter(col("delay") > 0)
    late.to("late", key="origin")
    late.group_by("origin").aggregate(n=agg.count(), total=agg.sum("delay")).to("by-origin")
    return made


THERE = delays()


def fragile() -> Topology:
    """Stops at the first record that is no JSON."""
    made = Topology("fragile")
    made.stream("flights", schema={"origin": pl.String()}).to("late")
    return made


class Context:
    """What the platform hands over."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def flights(start: int, count: int) -> pa.Table:
    rows = [
        json.dumps({"origin": f"A{n % 3}", "delay": n % 5 - 2, "ts": n}).encode() for n in range(start, start + count)
    ]
    return pa.table({"timestamp": pa.array(range(start, start + count), pa.timestamp("ms", "UTC")), "value": rows})


async def fill(store: ObjectStore, start: int, count: int, *, value: bytes | None = None) -> None:
    async with await Namespace.open(store, probe=False) as namespace:
        if namespace.state.named("flights") is None:
            for topic in ("flights", "late", "by-origin"):
                await namespace.create_topic(topic, 2)
        table = flights(start, count)
        if value is not None:
            table = table.set_column(1, "value", pa.array([value] * count))
        for partition in range(2):
            await namespace.append("flights", partition, encode_arrow(table))


async def told(store: ObjectStore) -> tuple[int, int]:
    """The number of the newest commit, and how many late flights were written."""
    async with await Namespace.open(store, probe=False) as namespace:
        return namespace.state.seq, sum(p.next for p in namespace.topic("late").partitions)


@contextlib.contextmanager
def handling(topology: str, store: ObjectStore) -> Iterator[JobFunction]:
    made = job(environment=environment(topology), store=store)
    try:
        yield made
    finally:
        made.close()


def environment(topology: str = "delays", store: str = "memory://unused") -> dict[str, str]:
    return {"HEADWATER_STORE": store, "HEADWATER_TOPOLOGY": f"{HERE}:{topology}"}


# -- what it does ------------------------------------------------------------------------------------------


def test_a_run_tells_cloudwatch_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryStore("process-figures")
    asyncio.run(fill(store, 0, 100))
    made = job(environment={**environment(), "HEADWATER_EMF": "basic"}, store=store)
    try:
        assert True is made(SCHEDULED, Context())["done"]
    finally:
        made.close()
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert "process" == line["Function"]
    assert line["JobRecords"] >= 200
    assert line["StoreRequests"] == line["StoreLatency"]["Count"] > 0


@pytest.mark.parametrize(("topology", "event"), [("delays", SCHEDULED), ("THERE", NOTIFIED)])
def test_an_event_processes_what_is_there_and_an_idle_one_writes_nothing(topology: str, event: object) -> None:
    store = MemoryStore(f"process-{topology}")
    asyncio.run(fill(store, 0, 100))
    with handling(topology, store) as handler:
        done = handler(event, Context())
        assert (True, "delays") == (done["done"], done["job"])
        before = asyncio.run(told(store))
        assert 80 == before[1]
        assert True is handler(event, Context())["done"]
        assert before == asyncio.run(told(store))
        asyncio.run(fill(store, 100, 50))
        assert handler(event, Context())["records"] >= 100  # those of its own repartition topic count too
    assert 120 == asyncio.run(told(store))[1]


def test_a_run_that_is_out_of_time_leaves_the_rest_to_the_next() -> None:
    async def main() -> None:
        bucket, clock = SimBucket(sim_loop()), SimClock(sim_loop())

        def store() -> SimStore:
            return SimStore(bucket, loop=sim_loop(), rng=random.Random(1), profile=SLOW)

        await fill(store(), 0, 100)
        outcomes = []
        for _ in range(50):
            handler = job(environment=environment(), store=store(), clock=clock, options=WorkerOptions(offload=inline))
            begun_s = sim_loop().time()
            outcomes.append((await handler.work(6.0))["done"])
            assert sim_loop().time() - begun_s <= 6.0 + 1.0
            if outcomes[-1]:
                break
            await clock.sleep(60.0)  # the schedule; a seat that could not be given up in time is free by then
        assert outcomes[-1]
        assert False in outcomes, "the bound is so wide that it is never met"
        assert 80 == (await told(store()))[1]

    simulate(main())


def test_what_stops_a_job_is_raised_and_logged_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryStore("process-fragile")
    asyncio.run(fill(store, 0, 1, value=b"no json"))
    with handling("fragile", store) as handler:
        with pytest.raises(OperatorFailed):
            handler(SCHEDULED, Context())
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert ("error", "fragile") == (line["level"], line["job"])
        assert ("flights", 0) == (line["error"]["topic"], line["error"]["offset"])
        with pytest.raises(OperatorFailed):
            handler(SCHEDULED, Context())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", "module:attribute"),
        ("no colon", "module:attribute"),
        ("no.such.module:x", "no module 'no.such.module'"),
        (f"{HERE}:nothing", "has no 'nothing'"),
        (f"{HERE}:HERE", "no topology but str"),
        (f"{HERE}:Context", "no topology but Context"),
    ],
)
def test_a_topology_that_is_not_there_is_named(place: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load_topology(place)


# -- its role --------------------------------------------------------------------------------------------------


def test_the_role_of_the_template_is_enough_and_all_of_it_is_needed() -> None:
    stack = Stack(ProcessTopology="jobs:delays")
    bucket, _, prefix = stack.store.removeprefix("s3://").partition("/")

    async def main() -> GuardedStore:
        inner = MemoryStore(clock=SimClock(sim_loop()))
        guarded = GuardedStore(inner, stack.policy(JOB), stack.bucket_policy(), f"arn:aws:s3:::{bucket}", prefix + "/")
        await fill(inner, 0, 100)
        handler = job(
            environment=environment(), store=guarded, clock=SimClock(sim_loop()), options=WorkerOptions(offload=inline)
        )
        assert True is (await handler.work(60.0))["done"]
        assert 80 == (await told(inner))[1]
        return guarded

    used = simulate(main())
    assert [] == used.refused
    assert {("PutObject", "lease"), ("DeleteObject", "lease"), ("PutObject", "manifest")} <= used.used


# -- its package -------------------------------------------------------------------------------------------------

JOBS = """
import polars as pl
from headwater.streams import Topology, agg, col

def delays():
    made = Topology("delays")
    schema = {"origin": pl.String(), "delay": pl.Int64(), "ts": pl.Int64()}
    late = made.stream("flights", schema=schema, time="ts").filter(col("delay") > 0)
    late.to("late", key="origin")
    late.group_by("origin").aggregate(n=agg.count()).to("by-origin")
    return made
"""
RUN = """
import json, sys
from functions.process.app import handler
print(json.dumps(handler({"source": "aws.events"})))
assert not {"numpy", "aiohttp", "boto3", "pandas"} & set(sys.modules)
"""


def interpreter() -> str:
    """The Python of the functions; skips without one."""
    found = subprocess.run(
        ["bash", "-c", "source infra/tools.sh; python_of 3.13"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("there is no Python 3.13, which the functions run on")
    return found.stdout.strip()


@pytest.mark.slow
def test_the_package_runs_a_job_and_fits(tmp_path: Path) -> None:
    python = interpreter()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "mine.py").write_text(JOBS)
    package = tmp_path / "package"
    path = os.pathsep.join([str(ROOT / ".localstack/sam/bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    built = subprocess.run(
        [ROOT / "infra/build", JOB, package],
        env={**os.environ, "JOBS": str(tmp_path / "jobs"), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stderr
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    assert size <= 262_144_000, "AWS takes 250 MiB of a function unzipped"

    url = f"file://{tmp_path / 'log'}"
    done = asyncio.run(_filled_and_run(url, [python, "-s", "-S", "-c", RUN], package))
    assert (True, "delays") == (done["done"], done["job"])
    assert 80 == done["late"]


async def _filled_and_run(url: str, command: list[str], package: Path) -> Any:
    from headwater.store import open_store

    store = open_store(url)
    await fill(store, 0, 100)
    variables = {"HEADWATER_STORE": url, "HEADWATER_TOPOLOGY": "mine:delays", "PYTHONPATH": str(package)}
    ran = subprocess.run(
        command, env={**os.environ, **variables}, cwd=package, capture_output=True, text=True, check=False
    )
    assert 0 == ran.returncode, ran.stderr
    return {**json.loads(ran.stdout.splitlines()[-1]), "late": (await told(store))[1]}


def test_without_jobs_the_package_holds_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JOBS"}
    subprocess.run([ROOT / "infra/build", JOB, tmp_path / "package"], env=environment, check=True, capture_output=True)
    files = [path.relative_to(tmp_path / "package") for path in (tmp_path / "package").rglob("*") if path.is_file()]
    assert [Path("functions/process/app.py")] == files
