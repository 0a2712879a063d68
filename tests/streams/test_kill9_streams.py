"""A job whose process is killed every few seconds, on a real S3 server, ends as one that nobody has disturbed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater.log import batch
from headwater.log.namespace import Namespace
from headwater.store import open_store
from headwater.types import Batch, Record
from tests.contract.servers import ACCESS_KEY, SECRET_KEY, S3Server, servers

pytest.importorskip("polars")

JOB = """
import polars as pl

from headwater.streams import Topology, agg, tumbling

made = Topology("hourly", dead_letters="dead")


def strict(row):
    if row["v"] == 13:
        raise ValueError("unlucky")
    return row


SCHEMA = {"k": pl.String, "g": pl.String, "v": pl.Int64, "ts": pl.Int64}
windows = (
    made.stream("in", schema=SCHEMA, format="json", key=("k",), time="ts", out_of_order="2s", idle=-1)
    .map(strict, schema=SCHEMA)
    .group_by("g")
    .window(tumbling("10s", grace="1s"))
    .aggregate(n=agg.count(), total=agg.sum("v"))
)
windows.suppress().to("out", key=("g", "window_start"), format="json")
"""
PARTITIONS = 2
ROUNDS = 4  # of killing
LIFE_S = 1.5  # that a process has from its first commit until it is killed
BEGIN_S_MAX = 30.0
BATCH = 400
DISORDER_MS = 2_000


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers(tmp_path_factory.mktemp("s3")) as started:
        yield started.get("seaweedfs")


class Source:
    """Rows in time, somewhat out of order, and what the job must make of all that were sent."""

    def __init__(self) -> None:
        self.rng = random.Random(9)
        self.now_ms = 1_700_000_000_000
        self.marks = [-(2**62)] * PARTITIONS
        self.windows: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.unlucky = 0

    def batch(self, partition: int) -> list[Record]:
        """The next records of a partition."""
        return [self._record(partition) for _ in range(BATCH)]

    def last(self, partition: int) -> list[Record]:
        """A record behind all windows."""
        self.now_ms += 3_600_000
        return [self._record(partition)]

    def _record(self, partition: int) -> Record:
        self.now_ms += self.rng.randint(0, 20)
        row = {"k": "k", "g": f"g{self.rng.randint(0, 9)}", "v": self.rng.randint(0, 99)}
        row["ts"] = at = self.now_ms - self.rng.randint(0, DISORDER_MS)
        if row["v"] == 13:
            self.unlucky += 1
        else:
            self.windows[row["g"], at - at % 10_000].append(row["v"])
        self.marks[partition] = max(self.marks[partition], at - DISORDER_MS)
        return Record(key=b"k", value=json.dumps(row).encode(), timestamp=at)

    def closed(self) -> list[tuple[str, int, int]]:
        """Group, rows and total of every window that is over."""
        reached = min(self.marks)
        return sorted((g, len(vs), sum(vs)) for (g, start), vs in self.windows.items() if start + 11_000 <= reached)


@pytest.mark.servers
def test_a_job_killed_every_few_seconds_ends_with_the_same_output(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    url = seaweed.url("streams/p", "obstore")
    (tmp_path / "hourly.py").write_text(JOB)
    source = Source()
    killed = asyncio.run(_disturbed(url, tmp_path, source))
    with _run(url, tmp_path, "--once") as done:
        _, complaints = done.communicate(timeout=60)
    assert (0, "") == (done.returncode, complaints.decode() if done.returncode else "")
    outputs, dead = asyncio.run(_left(url))
    assert ROUNDS == killed
    assert source.closed() == outputs
    assert source.unlucky == dead


async def _disturbed(url: str, folder: Path, source: Source) -> int:
    """Write, and let processes begin, commit and die meanwhile. How many were alive when they were killed."""
    killed = 0
    async with await Namespace.open(open_store(url), "default", owns_store=True) as log:
        await log.create_topic("in", PARTITIONS)
        await log.create_topic("out", 1)
        await log.create_topic("dead", 1)
        for _ in range(ROUNDS):
            before = await _committed(log)
            with _run(url, folder) as process:
                until_s = time.monotonic() + BEGIN_S_MAX
                begun = False
                while time.monotonic() < until_s and process.poll() is None:
                    for partition in range(PARTITIONS):
                        await log.append("in", partition, _batch(source.batch(partition)))
                    if not begun and await _committed(log) > before:
                        begun, until_s = True, time.monotonic() + LIFE_S
                    await asyncio.sleep(0.05)
                killed += begun and process.poll() is None
                process.kill()
        for partition in range(PARTITIONS):
            await log.append("in", partition, _batch(source.last(partition)))
    return killed


async def _committed(log: Namespace) -> int:
    return sum(committed.offset for committed in (await log.committed("hourly")).values())


def _batch(records: list[Record]) -> Batch:
    return batch.batch_of_records(records, default_timestamp=0)


def _run(url: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A worker under a name that it keeps, so that the next one need not wait for its session to end."""
    words = ["-m", "headwater.cli.main", "streams", "run", "hourly:made", "--instance", "one", "--store", url, *options]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def _left(url: str) -> tuple[list[tuple[str, int, int]], int]:
    """The results, sorted, and the number of dead letters."""
    async with await Namespace.open(open_store(url), "default", owns_store=True) as log:
        rows = [json.loads(value) for value in await _values(log, "out", 0)]
        dead = len(await _values(log, "dead", 0))
    return sorted((row["g"], row["n"], row["total"]) for row in rows), dead


async def _values(log: Namespace, topic: str, partition: int) -> Sequence[Any]:
    found: list[Any] = []
    position = 0
    while True:
        fetched = await log.reader.fetch(topic, partition, position, bytes_max=1 << 24)
        if not fetched.chunks:
            return found
        for chunk in fetched.chunks:
            found += chunk.decode().column("value").to_pylist()
        position = fetched.next_offset
