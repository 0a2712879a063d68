"""What a job holds while it runs for long: whether it grows, in four runs that try to make it.

- ``windows``: tumbling windows that expire, 10^5 keys, up to 5 s out of order.
- ``skew``: the same, with nine rows in ten of one key.
- ``stalled``: behind a repartition one of two upstream tasks says nothing, and falls idle after 30 s; what waits for it
  is given out then, and never again so much.
- ``slow sink``: a job over a store that takes the time of S3 for each request reads a topic that is full: what it has
  read ahead is the worker's budget, and what was under way.

Three count rows of state after each second of event time, and are the same in every run with one seed; the last one
counts bytes, as time goes by. ``bound`` is what the parameters allow; to be above it is an error.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final
from xml.sax.saxutils import escape

from headwater.clock import SystemClock

KEYS: Final = 100_000
WINDOW_S, LATE_S, IDLE_S = 10, 5, 30
BUDGET: Final = 256 << 10  # bytes that the worker with the slow sink may read ahead
CHUNK: Final = 256 << 10  # bytes of one batch of its topic …
CHUNKS: Final = 96  # … which holds 24 MiB: far more than may be read ahead
SLOW_S: Final = 4.0
SAMPLE_S: Final = 0.05


def bench(seconds: int = 300, *, rows: int = 10_000, seed: int = 1) -> dict[str, Any]:
    """Series of what was held, by run: ``rows`` a second for ``seconds`` of event time, and a few of the slow sink.

    Cost: 20 s.
    """
    open_rows = (WINDOW_S + LATE_S + 2) * rows  # of a window, of what may come late, and of the newest second
    series = {
        "windows": (_windows(seconds, rows, seed, skewed=False), open_rows, "rows"),
        "skew": (_windows(seconds, rows, seed, skewed=True), open_rows, "rows"),
        "stalled": (_stalled(seconds, rows, seed), open_rows + IDLE_S * rows, "rows"),
        # One fetch of each lane may be under way when the budget is used up, and holds half of what a lane may.
        "slow sink": (asyncio.run(_slow_sink(seed)), BUDGET + _lane_bytes(), "bytes"),
    }
    return {
        "seconds": seconds,
        "runs": {
            name: {"unit": unit, "bound": bound, "most": max(held), "holds": max(held) <= bound, "held": held}
            for name, (held, bound, unit) in series.items()
        },
    }


def _lane_bytes() -> int:
    from headwater.limits import STREAMS_LANE_BYTES

    return STREAMS_LANE_BYTES // 2


def _frame(rng: random.Random, second: int, rows: int, *, skewed: bool) -> Any:
    import polars as pl

    keys = [0 if skewed and rng.random() < 0.9 else rng.randrange(KEYS) for _ in range(rows)]
    times = [second * 1_000 + at * 1_000 // rows - rng.randrange(LATE_S * 1_000) for at in range(rows)]
    return pl.DataFrame({"k": keys, "v": keys, "_time": times})


def _job(partitions: int, *, key: str = "") -> Any:
    import polars as pl

    from headwater.streams import Topology, agg, tumbling
    from headwater.streams.plan import make_plan

    job = Topology("memory")
    rows = job.stream("in", schema={"k": pl.Int64, "v": pl.Int64}, key=key or None, out_of_order=f"{LATE_S}s")
    counts = rows.group_by("k").window(tumbling(f"{WINDOW_S}s")).aggregate(n=agg.count(), name="counts")
    counts.suppress().to("out")
    return make_plan(job.build(), {"in": partitions})


def _windows(seconds: int, rows: int, seed: int, *, skewed: bool) -> list[int]:
    from headwater.streams.task import Input, Task

    rng, task, held = random.Random(seed), Task(_job(1).nodes), []
    for second in range(seconds):
        task.step([Input(source="in", frame=_frame(rng, second, rows, skewed=skewed))])
        held.append(task.operators["counts"].size().rows)
    return held


def _stalled(seconds: int, rows: int, seed: int) -> list[int]:
    """Task 0 of two, which hears from itself, and from task 1 after ``IDLE_S`` only that it is idle."""
    import polars as pl

    from headwater.streams.task import Input, Task

    plan = _job(2)
    source = next(iter(plan.repartitions))
    rng, task, held = random.Random(seed), Task(plan.nodes, 0, tasks=2), []
    for second in range(seconds):
        mark = (second - LATE_S) * 1_000
        frame = _frame(rng, second, rows, skewed=False).with_columns(pl.lit(mark, pl.Int64).alias("_wm"))
        given = [Input(source=source, frame=frame, channel=0, watermark=mark)]
        if second == IDLE_S:
            given.append(Input(source=source, channel=1, idle=True))
        task.step(given)
        held.append(task.operators["counts"].size().rows)
    return held


async def _slow_sink(seed: int) -> list[int]:
    """Bytes read ahead, every ``SAMPLE_S``."""
    from headwater.bench.slow import SlowStore
    from headwater.log import batch
    from headwater.log.namespace import Namespace
    from headwater.sim.latency import S3_STANDARD
    from headwater.store import open_store
    from headwater.streams import Topology
    from headwater.streams.runner.app import App, WorkerOptions
    from headwater.types import Record

    clock, store, rng = SystemClock(), open_store("memory://streams-memory"), random.Random(seed)
    held: list[int] = []
    async with await Namespace.open(store, "memory") as fast:
        for topic in ("in", "out"):
            await fast.create_topic(topic, 1)
        records = [Record(value=rng.randbytes(1_000)) for _ in range(CHUNK // 1_000)]
        for _ in range(CHUNKS):
            await fast.append("in", 0, batch.batch_of_records(records, default_timestamp=0))
        job = Topology("slow")
        job.stream("in").to("out", format="bytes")
        slow = SlowStore(store, S3_STANDARD, clock=clock, rng=rng)
        async with await Namespace.open(slow, "memory") as log:
            app = await App.start(job, log, WorkerOptions(batch_bytes=CHUNK, buffer_bytes=BUDGET))
            until_s = clock.elapsed_s() + SLOW_S
            while clock.elapsed_s() < until_s:
                held.append(int(app.metrics()["buffered_bytes"]))
                await clock.sleep(SAMPLE_S)
            await app.abandon()
    await store.aclose()
    return held


# -- the picture -----------------------------------------------------------------------------------------

_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 720, 120, 90, 40, 60


def drawn(report: dict[str, Any]) -> str:
    """The series as an SVG, one below the other, each with its bound. Pure: one report gives one text."""
    runs = list(report["runs"].items())
    height = _TOP + len(runs) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}" height="{height}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (name, run) in enumerate(runs):
        parts += _panel(_TOP + number * (_HEIGHT + _GAP), name, run)
    return "\n".join([*parts, "</svg>\n"])


def _panel(top: int, name: str, run: dict[str, Any]) -> list[str]:
    held, bound, bottom = run["held"], run["bound"], top + _HEIGHT
    scale = _HEIGHT / (max(bound, run["most"], 1) * 1.1)
    step = _WIDTH / max(len(held) - 1, 1)
    line = " ".join(f"{_LEFT + at * step:.1f},{bottom - value * scale:.1f}" for at, value in enumerate(held))
    limit = bottom - bound * scale
    title = f"{escape(name)}: {run['unit']} held, at most {run['most']:,} of {bound:,}"
    return [
        f'<text x="{_LEFT}" y="{top - 10}" font-weight="600">{title}</text>',
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#888"/>',
        f'<path d="M{_LEFT} {limit:.1f}h{_WIDTH}" stroke="#c33" stroke-dasharray="6 4"/>',
        f'<text x="{_LEFT - 8}" y="{limit + 4:.1f}" text-anchor="end" fill="#c33">{bound:,}</text>',
        f'<text x="{_LEFT - 8}" y="{bottom + 4}" text-anchor="end">0</text>',
        f'<polyline points="{line}" fill="none" stroke="#246" stroke-width="1.5"/>',
    ]
