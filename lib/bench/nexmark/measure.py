"""The measuring, in a process of its own on one core: in process, through the log, and DuckDB, in turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headwater.bench.nexmark import batch, inprocess, log
from headwater.bench.nexmark.generator import Generator
from headwater.bench.nexmark.queries import QUERIES


def measure(generator: Generator, names: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Rates by query: events a second in process and of DuckDB by CPU time, through the log by the wall clock.

    Raises ``batch.Different`` if some result is not DuckDB's.
    """
    pin()
    return asyncio.run(_measure(generator, names, rounds))


def pin() -> None:
    """Hold this process to the first core that it may use, where the system can do that, and Arrow to one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)


async def _measure(generator: Generator, names: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    frames = list(generator.frames(inprocess.FRAME_ROWS))
    known = batch.Batch(frames)
    found: dict[str, dict[str, Any]] = {}
    async with log.written(frames) as namespace:
        for name in names:
            query = QUERIES[name]
            expected, batch_s = known.run(query, rounds)
            ours_s = log_s = float("inf")
            for round_ in range(rounds):
                ours = inprocess.run(query, generator, frames)
                ours_s = min(ours_s, ours.seconds)
                if round_ == 0:
                    batch.check(query, expected, ours.frames)
            through = await log.run(query, generator, namespace)
            batch.check(query, expected, through.frames)
            log_s = min(log_s, through.seconds)
            found[name] = {
                "events_per_s": round(generator.events / ours_s),
                "events_per_s_log": round(generator.events / log_s),
                "events_per_s_batch": round(generator.events / batch_s),
                "rows": expected.height,
                "checked": True,
            }
    return found
