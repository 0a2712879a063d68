"""What the tests of the runner share: one job of all kinds of output, events for it, and what must come out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl

from headwater.log import batch
from headwater.log.namespace import Namespace
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, sim_loop
from headwater.streams import Topology, agg, col, tumbling
from headwater.streams.runner.app import Report, WorkerOptions, run_once
from headwater.types import Record
from headwater.upkeep.offload import inline
from tests.log.helpers import network, opened

OPTIONS = WorkerOptions(offload=inline)
SCHEMA = {"k": pl.String, "at": pl.Int64, "v": pl.Int64}
SECOND = 1_000
WINDOW = 10 * SECOND
QUICK = Profile("quick", put=(5, 30), get=(2, 15), list=(10, 40))

Row = dict[str, Any]


def job(name: str = "job", *, key: str = "k") -> Topology:
    """Every event that is not negative to ``copy``, counts in windows to ``final``, and for ever to ``latest``."""
    topology = Topology(name)
    events = topology.stream("in", schema=SCHEMA, time="at", out_of_order="2s", idle="1h")
    good = events.filter(col("v") >= 0)
    good.to("copy", format="json")
    grouped = good.group_by(key)
    windowed = grouped.window(tumbling("10s")).aggregate(n=agg.count(), total=agg.sum("v"))
    windowed.suppress().to("final", key=key, format="json")
    grouped.aggregate(n=agg.count(), total=agg.sum("v"), name="forever", store="forever").to("latest", format="json")
    return topology


async def bucket(partitions: int = 3) -> Namespace:
    """A namespace with the topics that the job needs, on a store whose requests take a few milliseconds."""
    namespace = await opened(network(profile=QUICK))
    await topics(namespace, partitions)
    return namespace


async def topics(namespace: Namespace, partitions: int = 3) -> None:
    """The topics that the job needs."""
    await namespace.create_topic("in", partitions)
    for name in ("copy", "final", "latest"):
        await namespace.create_topic(name, 2)


def events(rng: random.Random, count: int, *, start: int = 0, keys: int = 5) -> list[Row]:
    """Events of about one a millisecond, up to two seconds out of order."""
    return [
        {"k": f"k{rng.randrange(keys)}", "at": start + at * 100 + rng.randrange(2 * SECOND), "v": rng.randrange(-1, 9)}
        for at in range(count)
    ]


async def put(namespace: Namespace, partition: int, rows: Sequence[Row | bytes], *, topic: str = "in") -> None:
    """Append rows as JSON; bytes as they are."""
    records = [Record(value=row if isinstance(row, bytes) else orjson.dumps(row)) for row in rows]
    made = batch.batch_of_records(records, default_timestamp=namespace.chain.clock.wall_ms())
    await namespace.append(topic, partition, made)


async def ended(namespace: Namespace, *, at: int = 10_000_000) -> None:
    """Event time passes far beyond all windows, in every partition."""
    for partition in range(len(namespace.topic("in").partitions)):
        await put(namespace, partition, [{"k": "end", "at": at, "v": 0}])


async def read(namespace: Namespace, topic: str) -> list[tuple[bytes | None, Row | None]]:
    """Every record of a topic that is there now."""
    found: list[tuple[bytes | None, Row | None]] = []
    await namespace.refresh()
    for partition, place in enumerate(namespace.topic(topic).partitions):
        async for chunk in namespace.reader.chunks(topic, partition, place.start):
            placed = chunk.decode()
            for key, value in zip(placed.column("key").to_pylist(), placed.column("value").to_pylist(), strict=True):
                found.append((key, None if value is None else orjson.loads(value)))
    return found


async def copied(namespace: Namespace) -> Counter[tuple[Any, ...]]:
    """What the stateless output has."""
    return Counter((row["k"], row["at"], row["v"]) for _, row in await read(namespace, "copy") if row)


async def finals(namespace: Namespace) -> Counter[tuple[Any, ...]]:
    """What the windows came to, by key and start; ends of event time are left out."""
    rows = [row for _, row in await read(namespace, "final") if row and row["k"] != "end"]
    return Counter((row["k"], str(row["window_start"]), row["n"], row["total"]) for row in rows)


async def latest(namespace: Namespace) -> dict[str, tuple[int, int]]:
    """The table: the last row of each key."""
    found = {}
    for _, row in await read(namespace, "latest"):
        if row and row["k"] != "end":
            found[row["k"]] = (row["n"], row["total"])
    return found


def expected_copies(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    """By a plain program."""
    return Counter((row["k"], row["at"], row["v"]) for row in rows if row["v"] >= 0)


def expected_latest(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """By a plain program."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row["v"] >= 0:
            n, total = found.get(row["k"], (0, 0))
            found[row["k"]] = (n + 1, total + row["v"])
    return found


def expected_windows(rows: Sequence[Row]) -> dict[tuple[str, int], tuple[int, int]]:
    """By a plain program, if nothing is late."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        if row["v"] >= 0:
            place = (row["k"], row["at"] // WINDOW * WINDOW)
            n, total = found.get(place, (0, 0))
            found[place] = (n + 1, total + row["v"])
    return found


async def once(namespace: Namespace, topology: Topology | None = None, **settings: Any) -> Report:
    """One run to the end."""
    options = WorkerOptions(**{"offload": inline, **settings})
    return await run_once(topology or job(), namespace, options=options)


async def another(namespace: Namespace, seed: int, **rest: Any) -> Namespace:
    """A second process over the same bucket."""
    return await opened(namespace.bucket, seed=seed, clock=SimClock(sim_loop()), **rest)


async def until(condition: Any, *, limit_s: float = 120.0) -> None:
    """Let virtual time pass until ``condition()`` is true."""
    waited = 0.0
    while not condition():
        assert waited < limit_s, "it did not come true in time"
        await sim_loop().sleep(0.1)
        waited += 0.1
