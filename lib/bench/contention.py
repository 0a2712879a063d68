"""``bench contention``: many uncoordinated writers on one namespace, in simulated time.

Closed loop: each of N writers is a process of its own with one batch in flight; as soon as it is
acknowledged the next one is sent. The store is simulated with the latency profiles of DESIGN section 4;
the engine is the real one. In the same run the naive optimistic loop (each batch is one conditional PUT
of the next manifest, retried until it wins) is measured as the baseline.

With ``requests_per_s`` the writers are gateways instead, whose clients send at that pace together, whatever becomes of
what they have sent; each gathers its clients' batches for ``KAFKA_LINGER_MS``. With ``pause_s`` one more sends a
request now and then, as a function does that is called now and then, or a gateway that only commits offsets.

One seed's tail says little, since few slow requests make it: ``seeds`` runs are pooled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from headwater.clock import stopwatch_s
from headwater.errors import InvalidRequest
from headwater.limits import KAFKA_LINGER_MS
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.writer import Append
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import PROFILES, ZERO, Profile
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.types import Batch

WARM_UP_S = 2.0
PARTITIONS = 16
CLIENTS = 10  # of a gateway
GATEWAYS_S = 40.0
SPORADIC_MIN = 40  # requests of a writer that sends now and then, to make a median of
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
    sporadic_ms: Sequence[float] = ()  # latencies of a writer that sends now and then

    @classmethod
    def pooled(cls, runs: Sequence[Result]) -> Result:
        """As if all of them were one longer run."""
        count = sum(len(run.latencies_ms) for run in runs)

        def mean(per_batch: Callable[[Result], float]) -> float:
            return sum(per_batch(run) * len(run.latencies_ms) for run in runs) / count

        return cls(
            batches=sum(run.batches for run in runs),
            seconds=sum(run.seconds for run in runs),
            latencies_ms=[ms for run in runs for ms in run.latencies_ms],
            put=mean(lambda run: run.put),
            get=mean(lambda run: run.get),
            list=mean(lambda run: run.list),
            manifests=sum(run.manifests for run in runs),
            sporadic_ms=tuple(ms for run in runs for ms in run.sporadic_ms),
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        done, sporadic = sorted(self.latencies_ms), sorted(self.sporadic_ms)
        told = {
            "sporadic_batches": len(sporadic),
            "sporadic_p50_ms": round(quantile(sporadic, 0.50), 1),
            "sporadic_p90_ms": round(quantile(sporadic, 0.90), 1),
            "sporadic_max_ms": round(quantile(sporadic, 1.00), 1),
        }
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
            **(told if sporadic else {}),
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

    async def write(process: _Process, window: _Window) -> None:
        append, drain = await open_one(process.store, process.clock, process.rng, options, process.number)
        while window.is_open:
            sent_s = window.sent()
            await append()
            window.acknowledged(sent_s)
        await drain()

    options = replace(_OPTIONS, cooperative=cooperative)
    return run(_measure(writers, PROFILES[profile], seconds, seed, write), rng=random.Random(seed), steps_max=1 << 62)


def measure_gateways(
    writers: int,
    profile: str,
    *,
    requests_per_s: float,
    seconds: float,
    seed: int,
    pause_s: float = 0.0,
    hears: bool = False,
) -> Result:
    """As ``measure``, for gateways whose clients send ``requests_per_s`` in all.

    With ``pause_s`` one more sends one batch about so many seconds after the last one was acknowledged. Who ``hears``
    knows the tip by then, as where clients fetch.
    """
    sporadic_ms: list[float] = []

    async def write_now_and_then(process: _Process, window: _Window) -> None:
        log = await Namespace.open(process.store, clock=process.clock, rng=process.rng, options=options)
        await process.clock.sleep(WARM_UP_S)
        while True:
            await process.clock.sleep(pause_s * process.rng.uniform(0.5, 1.5))
            if hears:
                await log.chain.refresh()
            if not window.is_open:
                await log.drain()
                return
            sent_s = sim_loop().time()
            await log.append("t", 0, RECORD)
            sporadic_ms.append((sim_loop().time() - sent_s) * 1_000)

    async def write(process: _Process, window: _Window) -> None:
        log = await Namespace.open(process.store, clock=process.clock, rng=process.rng, options=options)
        topic, sent = log.state.names["t"], 0
        while window.is_open:
            sent_s = window.sent()
            append = Append(topic=topic, partition=sent % PARTITIONS, batch=RECORD)
            begun = log.writer.begin([append], caller=sent % CLIENTS)
            assert begun is not None, "more than the buffers of the writers hold"
            begun.add_done_callback(partial(window.acknowledged, sent_s))
            sent += 1
            await process.clock.sleep(writers / requests_per_s)
        await log.drain()

    options = replace(_OPTIONS, linger_ms=KAFKA_LINGER_MS)

    async def write_as(process: _Process, window: _Window) -> None:
        await (write if process.number < writers else write_now_and_then)(process, window)

    measuring = _measure(writers + (pause_s > 0), PROFILES[profile], seconds, seed, write_as)
    found = run(measuring, rng=random.Random(seed), steps_max=1 << 62)
    return replace(found, sporadic_ms=sporadic_ms)


def span_s(writers: int) -> float:
    """Simulated seconds that suit so many writers: long enough for a tail, short enough to wait for."""
    return max(4.0, min(300.0, 1_000.0 / writers))


def bench(
    writers: int,
    profile: str,
    *,
    seconds: float = 0.0,
    seed: int = 1,
    seeds: int = 1,
    naive: bool = True,
    requests_per_s: float = 0.0,
    pause_s: float = 0.0,
) -> dict[str, Any]:
    """The report of ``headwater bench contention``: ``seeds`` runs from ``seed`` on, pooled.

    Without ``seconds`` their length suits the number of writers.
    """
    if pause_s and not requests_per_s:
        raise InvalidRequest("One that writes now and then is measured beside gateways: say --requests-per-s, too.")
    span = seconds or (max(GATEWAYS_S, SPORADIC_MIN * pause_s) if requests_per_s else span_s(writers))
    began = stopwatch_s()
    every = range(seed, seed + seeds)
    one = partial(measure_gateways, requests_per_s=requests_per_s, pause_s=pause_s) if requests_per_s else measure
    found = Result.pooled([one(writers, profile, seconds=span, seed=each) for each in every])
    report = {
        "bench": "contention",
        "writers": writers,
        "profile": profile,
        "simulated_s": span,
        "seed": seed,
        "seeds": seeds,
        "profile_put_p50_ms": PROFILES[profile].put[0],
        "requests_per_s": requests_per_s,
        **found.as_dict(),
    }
    if naive and not requests_per_s:
        # The naive loop's tail is long: it needs time to show itself, and little of ours to simulate.
        longer = max(span, 60.0)
        alone = [measure(writers, profile, seconds=longer, seed=each, cooperative=False) for each in every]
        report["naive"] = Result.pooled(alone).as_dict()
    report["wall_s"] = round(stopwatch_s() - began, 1)
    return report


def quantile(done: list[float], q: float) -> float:
    """The q-quantile of a sorted list."""
    return done[min(len(done) - 1, int(q * len(done)))] if done else float("nan")


@dataclass(frozen=True, slots=True)
class _Process:
    """A writer, before it has opened anything."""

    number: int
    store: SimStore
    clock: SimClock
    rng: random.Random


class _Window:
    """What was sent between ``start_s`` and ``end_s``."""

    def __init__(self, bucket: SimBucket, start_s: float, end_s: float) -> None:
        self.latencies_ms: list[float] = []
        self.batches = 0  # acknowledged before the end
        self.before: dict[str, int] = {}  # requests up to the start
        self._bucket = bucket
        self._start_s, self._end_s = start_s, end_s

    @property
    def is_open(self) -> bool:
        return sim_loop().time() < self._end_s

    def sent(self) -> float:
        """A batch is about to be sent: when."""
        now_s = sim_loop().time()
        if not self.before and now_s >= self._start_s:
            self.before = self._bucket.counters.as_dict()
        return now_s

    def acknowledged(self, sent_s: float, _: object = None) -> None:
        if self.before and sent_s >= self._start_s:
            now_s = sim_loop().time()
            self.latencies_ms.append((now_s - sent_s) * 1_000)
            self.batches += now_s <= self._end_s


_Write: TypeAlias = Callable[[_Process, _Window], Awaitable[None]]
# No snapshots: their few requests belong to nobody's batch and would blur the figures.
_OPTIONS = Options(snapshot_every=1 << 40, snapshot_bytes=1 << 60)


async def _measure(writers: int, profile: Profile, seconds: float, seed: int, write: _Write) -> Result:
    loop = sim_loop()
    bucket = SimBucket(loop)
    rng = random.Random(seed)
    first = await Namespace.open(SimStore(bucket, loop=loop, rng=rng, profile=ZERO), clock=SimClock(loop), rng=rng)
    await first.create_topic("t", PARTITIONS)
    start_s = loop.time() + WARM_UP_S
    window = _Window(bucket, start_s, start_s + seconds)

    async def begin(number: int) -> None:
        own = random.Random(f"{seed}-{number}")
        store = SimStore(bucket, loop=loop, rng=own, profile=profile)
        await write(_Process(number, store, SimClock(loop), own), window)

    # Everyone finishes what is in flight at the end, so that requests and batches are of the same set.
    await asyncio.gather(*(begin(number) for number in range(writers)))
    after, before = bucket.counters.as_dict(), window.before

    def per_batch(kind: str) -> float:
        return (after[kind] - before[kind]) / len(window.latencies_ms)

    return Result(
        batches=window.batches,
        seconds=seconds,
        latencies_ms=window.latencies_ms,
        put=per_batch("put"),
        get=per_batch("get"),
        list=per_batch("list"),
        manifests=sum(1 for key in bucket.keys if "/manifest/" in key),
    )
