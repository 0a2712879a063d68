"""``bench contention``: many uncoordinated writers on one namespace, in simulated time.

Closed loop: each of N writers is a process of its own with one batch in flight; as soon as it is
acknowledged the next one is sent. The store is simulated with the latency profiles of DESIGN section 4;
the engine is the real one. In the same run the naive optimistic loop (each batch is one conditional PUT
of the next manifest, retried until it wins) is measured as the baseline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from headwater.clock import stopwatch_s
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import PROFILES, ZERO, Profile
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.types import Batch

WARM_UP_S = 2.0
PARTITIONS = 16
RECORD = Batch(codec="kafka2", data=b"x" * 100, count=1, timestamp_min=0, timestamp_max=0)

Step: TypeAlias = Callable[[], Awaitable[object]]
Opened: TypeAlias = tuple[Step, Step]  # append one batch and return when it is acknowledged; drain
Open: TypeAlias = Callable[[SimStore, SimClock, random.Random, Options, int], Awaitable[Opened]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What N writers got: batches a second, latency of a batch, requests a batch."""

    batches: int
    seconds: float
    latencies_ms: list[float]
    put: float
    get: float
    list: float
    manifests: int

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        done = sorted(self.latencies_ms)
        return {
            "batches": self.batches,
            "batches_per_s": round(self.batches / self.seconds, 2),
            "p50_ms": round(quantile(done, 0.50), 1),
            "p99_ms": round(quantile(done, 0.99), 1),
            "max_ms": round(done[-1], 1),
            "put_per_batch": round(self.put, 4),
            "get_per_batch": round(self.get, 3),
            "list_per_batch": round(self.list, 4),
            "manifests": self.manifests,
        }


async def open_writer(store: SimStore, clock: SimClock, rng: random.Random, options: Options, number: int) -> Opened:
    """Writer ``number``: a namespace handle of its own, as every process has one."""
    log = await Namespace.open(store, clock=clock, rng=rng, options=options)
    return lambda: log.append("t", number % PARTITIONS, RECORD), log.drain


def measure(
    writers: int,
    profile: str,
    *,
    seconds: float,
    seed: int,
    cooperative: bool = True,
    open_one: Open = open_writer,
) -> Result:
    """Run ``writers`` closed loops for ``seconds`` of simulated time, after a warm-up that does not count."""
    work = _measure(writers, PROFILES[profile], seconds, seed, cooperative, open_one)
    return run(work, rng=random.Random(seed), steps_max=1 << 62)


def span_s(writers: int) -> float:
    """Simulated seconds that suit so many writers: long enough for a tail, short enough to wait for."""
    return max(4.0, min(300.0, 1_000.0 / writers))


def bench(writers: int, profile: str, *, seconds: float = 0.0, seed: int = 1, naive: bool = True) -> dict[str, Any]:
    """The report of ``headwater bench contention``. Without ``seconds`` the length suits the number of writers."""
    span = seconds or span_s(writers)
    began = stopwatch_s()
    report = {
        "bench": "contention",
        "writers": writers,
        "profile": profile,
        "simulated_s": span,
        "seed": seed,
        "profile_put_p50_ms": PROFILES[profile].put[0],
        **measure(writers, profile, seconds=span, seed=seed).as_dict(),
    }
    if naive:
        # The naive loop's tail is long: it needs time to show itself, and little of ours to simulate.
        longer = max(span, 60.0)
        report["naive"] = measure(writers, profile, seconds=longer, seed=seed, cooperative=False).as_dict()
    report["wall_s"] = round(stopwatch_s() - began, 1)
    return report


def quantile(done: list[float], q: float) -> float:
    """The q-quantile of a sorted list."""
    return done[min(len(done) - 1, int(q * len(done)))] if done else float("nan")


async def _measure(
    writers: int, profile: Profile, seconds: float, seed: int, cooperative: bool, open_one: Open
) -> Result:
    loop = sim_loop()
    bucket = SimBucket(loop)
    rng = random.Random(seed)
    first = await Namespace.open(SimStore(bucket, loop=loop, rng=rng, profile=ZERO), clock=SimClock(loop), rng=rng)
    await first.create_topic("t", PARTITIONS)
    # No snapshots: their few requests belong to nobody's batch and would blur the figures.
    options = Options(cooperative=cooperative, snapshot_every=1 << 40, snapshot_bytes=1 << 60)
    start_s = loop.time() + WARM_UP_S
    end_s = start_s + seconds
    latencies: list[float] = []
    in_window = 0
    before: dict[str, int] = {}

    async def write(number: int) -> None:
        nonlocal in_window
        own = random.Random(f"{seed}-{number}")
        store = SimStore(bucket, loop=loop, rng=own, profile=profile)
        append, drain = await open_one(store, SimClock(loop), own, options, number)
        while loop.time() < end_s:
            sent_s = loop.time()
            if not before and sent_s >= start_s:
                before.update(bucket.counters.as_dict())
            await append()
            if before and sent_s >= start_s:
                latencies.append((loop.time() - sent_s) * 1_000)
                in_window += loop.time() <= end_s
        await drain()

    # Everyone finishes the batch that is in flight at the end, so that requests and batches are of the same set.
    await asyncio.gather(*(write(number) for number in range(writers)))
    after = bucket.counters.as_dict()

    def per_batch(kind: str) -> float:
        return (after[kind] - before[kind]) / len(latencies)

    return Result(
        batches=in_window,
        seconds=seconds,
        latencies_ms=latencies,
        put=per_batch("put"),
        get=per_batch("get"),
        list=per_batch("list"),
        manifests=sum(1 for key in bucket.keys if "/manifest/" in key),
    )
