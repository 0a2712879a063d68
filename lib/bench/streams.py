"""``bench streams``: the kernels of stream processing on one core, and the restore of their state.

Each kernel counts rows and sums a value by key, in micro-batches of 100,000 rows: 100,000 events a second of event
time, 10^5 keys, up to 5 s out of order. ``held`` commits nothing, as a job that commits once a window does;
``committed`` takes the deltas of every micro-batch, as a runner does. ``restored`` is the state of a table of 10^6 keys
from a snapshot's frames, ``restored … log`` the same from the changelog of a job that has ended, in a directory: what a
worker waits for. ``flat`` is how many rows the state held after each tenth of the run: whether it grows.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from typing import Any, Final

from headwater.clock import cpu_s
from headwater.streams.model import Window

BATCH: Final = 100_000
KEYS: Final = 100_000
RESTORED: Final = 1_000_000
RESTORES: Final = 5  # of which the best counts: one takes a tenth of a second


def bench(batches: int = 60, *, rounds: int = 2, seed: int = 1) -> dict[str, Any]:
    """Rates in rows (or keys) a second of CPU time, best of the rounds. Polars has one thread unless it is in use."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    from headwater.streams import hopping, session, sliding, tumbling

    made = {keys: _frames(batches, seed, keys == "utf8") for keys in ("int64", "utf8")}
    windows: list[tuple[str, str, Window, int]] = [
        ("tumbling 10 s", "int64", tumbling("10s"), batches),
        ("tumbling 10 s", "utf8", tumbling("10s"), batches),
        ("hopping 10 s every 2 s", "int64", hopping("10s", "2s"), batches // 2),
        ("session, gap 2 s", "int64", session("2s"), batches // 4),
        ("sliding 10 s", "int64", sliding("10s"), batches // 4),
    ]
    results = []
    for name, keys, window, count in windows:
        frames = made[keys][: max(count, 1)]
        row: dict[str, Any] = {"kernel": name, "keys": keys}
        for mode in ("held", "committed"):
            best, flat = 0.0, list[int]()
            for _ in range(rounds):
                rate, flat = _play(window, keys, frames, commits=mode == "committed")
                best = max(best, rate)
            row[f"{mode}_rows_per_s"] = round(best)
            row["flat"] = flat
        results.append(row)
    return {
        "results": results,
        "restored_keys_per_s": round(max(_restore(seed) for _ in range(rounds))),
        "restored_keys_per_s_log": round(asyncio.run(_restore_through_log(seed, max(rounds, RESTORES)))),
    }


def _frames(batches: int, seed: int, utf8: bool) -> list[Any]:
    import polars as pl

    rng = random.Random(seed)
    frames = []
    for number in range(batches):
        keys = pl.Series("k", rng.choices(range(KEYS), k=BATCH), dtype=pl.Int64)
        late = pl.Series("_time", rng.choices(range(5_000), k=BATCH), dtype=pl.Int64)
        time = pl.arange(0, BATCH, eager=True) // (BATCH // 1_000) + number * 1_000 - late
        name = ("key-" + keys.cast(pl.String)).alias("k") if utf8 else keys
        frames.append(pl.DataFrame({"k": name, "v": pl.arange(0, BATCH, eager=True), "_time": time}))
    return frames


def _task(window: Window | None, keys: str) -> Any:
    from headwater.streams.plan import make_plan
    from headwater.streams.task import Task

    return Task(make_plan(_job(window, keys).build(), {"in": 1}).nodes)


def _job(window: Window | None, keys: str) -> Any:
    import polars as pl

    from headwater.streams import Topology, agg

    job = Topology("bench")
    schema = {"k": pl.String if keys == "utf8" else pl.Int64, "v": pl.Int64}
    grouped = job.stream("in", schema=schema, key="k", out_of_order="5s", format="frame").group_by("k")
    aggs: dict[str, Any] = {"n": agg.count(), "total": agg.sum("v")}
    if window is None:
        grouped.aggregate(name="sums", **aggs).to("out", format="frame")
    else:
        grouped.window(window).aggregate(name="sums", **aggs).suppress().to("out")
    return job


def _play(window: Window, keys: str, frames: list[Any], *, commits: bool) -> tuple[float, list[int]]:
    from headwater.streams.task import Input

    task, flat, spent = _task(window, keys), [], 0.0
    for number, frame in enumerate(frames):
        began = cpu_s()
        task.step([Input(source="in", frame=frame)], commits=commits)
        spent += cpu_s() - began
        if number % max(len(frames) // 10, 1) == 0:
            flat.append(task.operators["sums"].size().rows)
    return sum(frame.height for frame in frames) / spent, flat


def _table(seed: int) -> Any:
    import polars as pl

    keys = list(range(RESTORED))
    random.Random(seed).shuffle(keys)
    return pl.DataFrame({"k": keys, "v": keys, "_time": keys})


def _restore(seed: int) -> float:
    from headwater.streams.task import Input

    task = _task(None, "int64")
    task.step([Input(source="in", frame=_table(seed))])
    pieces = list(task.snapshot())
    other = _task(None, "int64")
    began = cpu_s()
    for name, delta in pieces:
        other.restore(name, delta)
    other.restored(task.progress())
    spent = cpu_s() - began
    assert other.operators["sums"].size().rows == RESTORED, "all keys are back"
    return RESTORED / spent


async def _restore_through_log(seed: int, rounds: int) -> float:
    """Keys a second: reading, decoding and sorting what a job has left in its changelog."""
    import pyarrow as pa

    from headwater.log.batch import encode_arrow
    from headwater.log.namespace import Namespace
    from headwater.store import open_store
    from headwater.streams import run_once
    from headwater.streams.runner.job import prepare
    from headwater.streams.runner.restoring import Making, restore
    from headwater.streams.serde.packing import pack
    from headwater.upkeep.offload import in_thread

    best = 0.0
    with tempfile.TemporaryDirectory(prefix="headwater-restore-") as folder:
        async with await Namespace.open(open_store(f"file://{folder}"), "bench", owns_store=True) as log:
            await log.create_topic("in", 1)
            await log.create_topic("out", 1)
            for value in pack(_table(seed)):
                frames = pa.table({"value": pa.array([value], pa.binary())})
                rows = encode_arrow(frames, compression=None, default_timestamp=0)
                await log.append("in", 0, rows)
            await run_once(_job(None, "int64"), log)
        for _ in range(rounds):
            async with await Namespace.open(open_store(f"file://{folder}"), "bench", owns_store=True) as log:
                making = Making(job=await prepare(log, _job(None, "int64")))
                began = cpu_s()
                copy = await restore(log, making, 0, None, offload=in_thread)
                await in_thread(copy.task.restored, copy.progress)
                best = max(best, RESTORED / (cpu_s() - began))
                assert copy.task.operators["sums"].size().rows == RESTORED, "all keys are back"
                making.discard(copy.task)
    return best
