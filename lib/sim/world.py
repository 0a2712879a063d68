"""One seed, one world: processes, faults and time, all drawn from the seed, around the unmodified engine.

A world has a bucket, a few writers, readers, read-process-write loops and group members, each a process
of its own with a clock that is wrong in its own way. They crash and pause at any await, are started
again, and the way to the bucket loses, delays and repeats requests. Sweepers run the collector, so that
sleepers wake into recycled slots. At the end faults cease, a fresh reader reads everything, and ``checker``
judges what clients saw.

The engine's own numbers are as deployed, but for those that would need hours of commits to bite: the
window of R4 and the snapshot interval are small.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from headwater.errors import Corrupt, HeadwaterError, Indeterminate
from headwater.log import operations as ops
from headwater.log.chunk import Chunk
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim import actors, members
from headwater.sim.checker import Final, Violation, check
from headwater.sim.checker_groups import Club
from headwater.sim.faults import Burst, Faults, Process, SimBucket, SimStore
from headwater.sim.history import TP, Gap, History
from headwater.sim.latency import S3_EXPRESS, S3_STANDARD, Profile
from headwater.sim.loop import Deadlock, Overrun, SimClock, SimLoop, run, sim_loop
from headwater.types import Batch

DAY_S = 86_400.0
TOPICS = {"in": 2, "out": 2, "held": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a seed decides before anything runs."""

    seed: int
    profile: Profile
    faults: Faults
    active_s: float
    writers: int
    readers: int
    pipelines: int
    members: int
    reservers: int
    busybodies: int
    hasty: int
    crash_rate: float
    pause_rate: float
    long_sleep: bool
    skew_ms: int
    window: int
    options: Options

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """The plan of a seed. Kinds of trouble are left out at random, since absence finds bugs too."""
        rng = random.Random(f"plan-{seed}")
        active_s = rng.uniform(4.0, 16.0)
        bursts = tuple(
            Burst(start_s=start, end_s=start + rng.uniform(0.5, 4.0), share=rng.choice([0.5, 1.0]))
            for start in (rng.uniform(0, active_s) for _ in range(rng.choice([0, 0, 1, 2])))
        )
        faults = Faults.swarm(rng, rate_max=rng.choice([0.0, 0.05, 0.15]), false_503=0.0, bursts=bursts)
        long_sleep = rng.random() < 0.25
        return cls(
            seed=seed,
            profile=rng.choice([S3_STANDARD, S3_EXPRESS]),
            faults=replace(
                faults, timeout_s=rng.choice([1.0, 10.0]), until_s=active_s + (2 * DAY_S if long_sleep else 0)
            ),
            active_s=active_s,
            writers=rng.randint(1, 4),
            readers=rng.randint(1, 2),
            pipelines=rng.choice([0, 1, 2, 3]),
            members=rng.choice([0, 0, 2]),
            reservers=rng.choice([0, 0, 1, 2]),
            busybodies=rng.choice([0, 0, 1]),
            hasty=random.Random(f"hasty writers-{seed}").choice([0, 0, 1, 2]),
            crash_rate=rng.choice([0.0, 0.3, 0.8]),
            pause_rate=rng.choice([0.0, 0.4]),
            long_sleep=long_sleep,
            skew_ms=rng.choice([0, 1_000, 60_000]),
            window=rng.choice([6, 12, 512]),
            options=Options(
                threads=False,
                linger_ms=rng.choice([0.0, 0.0, 20.0]),
                hedge_ms=random.Random(f"hedge-{seed}").choice([0.0, 0.0, 5.0, 60.0]),
                inline_bytes_max=rng.choice([0, 40, 1 << 19]),
                snapshot_every=rng.choice([4, 16, 256]),
                commit_timeout_s=rng.choice([5.0, 30.0, 120.0]),
                store_retry_s=rng.choice([5.0, 60.0]),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a seed."""

    seed: int
    violations: list[Violation]
    digest: str
    events: int
    commits: int
    requests: int
    struck: dict[str, int]
    deeds: dict[str, int] = field(default_factory=dict)  # what happened, in worlds that count it


class World:
    """The stage on which actors run. ``handle`` gives a process its own view of the namespace."""

    store_type = SimStore

    def __init__(self, plan: Plan, loop: SimLoop, bucket: Callable[..., SimBucket] = SimBucket) -> None:
        self.plan = plan
        self.loop = loop
        self.rng = random.Random(f"world-{plan.seed}")
        self.bucket = bucket(loop, resolution_ms=self.rng.choice([1, 1_000]))
        self.history = History(loop.time)
        self.stores: list[SimStore] = []
        self.serial = 0
        self.ended = False
        self.crew = members.Crew.draw(plan.seed)
        self.roll = members.Roll()

    def process(self, name: str, *, mortal: bool = True) -> Process:
        """A new process, with the crash and the pauses that the seed has in store for it."""
        return Process(loop=self.loop, **self.fate(name, mortal=mortal))

    def fate(self, name: str, *, mortal: bool = True) -> dict[str, Any]:
        """What a process is called and when it dies and pauses, as ``Process`` takes it."""
        plan, rng = self.plan, self.rng
        crash_at = rng.randint(1, 150) if mortal and rng.random() < plan.crash_rate else None
        pauses = []
        if mortal and rng.random() < plan.pause_rate:
            pauses.append((rng.randint(1, 150), rng.choice([0.5, 5.0, 60.0])))
        if mortal and plan.long_sleep and rng.random() < 0.5:
            pauses.append((rng.randint(1, 120), 2.2 * DAY_S))
        self.serial += 1
        return {
            "name": f"{name}.{self.serial}",
            "crash_at": crash_at,
            "pauses": pauses,
            "on_crash": lambda dead: self.history.crash(dead.name),
        }

    async def handle(self, process: Process | None, *, calm: bool = False, name: str = "default") -> Namespace:
        """Open the namespace as ``process`` sees it."""
        plan, rng = self.plan, random.Random(self.rng.getrandbits(64))
        skew_ms = 0 if calm else rng.randint(-plan.skew_ms, plan.skew_ms)
        store = self.store_type(
            self.bucket,
            loop=self.loop,
            rng=rng,
            profile=plan.profile,
            faults=Faults() if calm else plan.faults,
            process=process,
        )
        self.stores.append(store)
        clock = SimClock(self.loop, start_ms=self.bucket.wall_ms(), skew_ms=skew_ms, process=process)
        return await Namespace.open(store, name, clock=clock, rng=rng, options=plan.options)

    def pack(self, uids: Sequence[str], padding: int = 0) -> Batch:
        """A batch of these records: its bytes are the uids, one a line, so that a history costs milliseconds."""
        data = "\n".join(uids).encode() + b" " * padding
        return Batch(codec="kafka2", data=data, count=len(uids), timestamp_min=0, timestamp_max=0)

    def unpack(self, chunk: Chunk) -> Iterable[tuple[int, str]]:
        """The offsets and uids of a chunk."""
        return enumerate(chunk.data.decode().rstrip(" ").split("\n"), chunk.base)

    def rest_s(self, rng: random.Random) -> float:
        """How long an actor rests between two acts."""
        slow = self.plan.long_sleep and self.loop.time() > self.plan.active_s
        return rng.expovariate(1 / 40_000.0) if slow else rng.expovariate(1 / 0.25)

    def over(self) -> bool:
        """Whether actors should come to an end."""
        return self.ended

    def struck(self) -> dict[str, int]:
        """The faults that struck, by kind."""
        found: dict[str, int] = {}
        for store in self.stores:
            for kind, count in store.struck.items():
                found[kind] = found.get(kind, 0) + count
        return found


def simulate(seed: int) -> Verdict:
    """Run the world of a seed to its end and judge it. The same seed gives the same verdict, anywhere."""
    plan = Plan.draw(seed)
    with small_window(plan.window), members.short_sessions():
        try:
            return run(_play(plan), rng=random.Random(f"loop-{seed}"), limit_s=30 * DAY_S)
        except (Deadlock, Overrun) as stuck:
            violation = Violation("stuck", f"The world came to no end: {stuck}")
            return Verdict(seed=seed, violations=[violation], digest="", events=0, commits=0, requests=0, struck={})


@contextmanager
def small_window(manifests: int) -> Iterator[None]:
    """Make R4's window small, so that lateness happens within seconds."""
    modules = [
        import_module(f"headwater.log.{name}")
        for name in ("state.fold", "state.groups", "queue", "following", "published", "journal")
    ]
    before = [module.WINDOW for module in modules]
    for module in modules:
        vars(module)["WINDOW"] = manifests
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            vars(module)["WINDOW"] = value


async def _play(plan: Plan) -> Verdict:
    world = World(plan, sim_loop())
    opener = await world.handle(None, calm=True)
    for name, partitions in TOPICS.items():
        await opener.create_topic(name, partitions)
    await opener.drain()
    cast = asyncio.gather(
        *(keep_running(world, name, act) for name, act in [*actors.cast(world), *members.cast(world)]),
        *(keep_running(world, f"sweeper{i}", actors.sweeper) for i in range(2)),
    )
    await world.loop.sleep(plan.active_s)
    if plan.long_sleep:
        await world.loop.sleep(3 * DAY_S)
    world.ended = True
    clubs = await members.settled(world) if world.crew.size else {}
    await cast
    violations = await _judge(world, clubs)
    counters = world.bucket.counters
    return Verdict(
        seed=plan.seed,
        violations=violations,
        digest=world.history.digest(),
        events=len(world.history.events),
        commits=sum("/manifest/" in key for key in world.bucket.keys),
        requests=counters.put + counters.get + counters.list + counters.delete,
        struck=world.struck(),
    )


async def keep_running(world: World, name: str, act: actors.Act) -> None:
    """Run an actor in a process; start it again in a new one when that dies."""
    for life in range(4):
        process = world.process(name, mortal=life < 3)
        task = process.spawn(_live(world, process, act), name="main")
        await asyncio.wait([task])
        if process.alive:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
            return
        await world.loop.sleep(world.rng.uniform(0.01, 3.0))


async def _live(world: World, process: Process, act: actors.Act) -> None:
    """The main of a process: open, act, drain. A process that cannot open tries again, as a supervisor would."""
    while True:
        try:
            log = await world.handle(process)
            break
        except HeadwaterError as error:
            if isinstance(error, Corrupt):
                raise
            await process.checkpoint()
            await world.loop.sleep(1.0)
    await act(world, process, log)
    await log.drain()


async def _judge(world: World, clubs: dict[str, Club]) -> list[Violation]:
    """Read everything with a fresh process, and hold the history against it."""
    try:
        log = await world.handle(None, calm=True)
        await expire(world, log)
        records: dict[TP, list[tuple[int, str]]] = {}
        for topic, partitions in TOPICS.items():
            for partition in range(partitions):
                tp = (topic, partition)
                records[tp] = await actors.read_all(world, log, tp)
                await _declare_gaps(world, log, tp)
        offsets: dict[tuple[str, TP], int] = {}
        for group in sorted(log.state.groups):
            for tp, committed in (await log.committed(group)).items():
                offsets[group, tp] = committed.offset
        await log.drain()
    except HeadwaterError as error:
        return [Violation("unreadable", f"The log cannot be read at the end: {type(error).__name__}: {error}")]
    for topic, partition in records:
        assert log.topic(topic).partitions[partition].start == 0
    return check(world.history, Final(records=records, offsets=offsets, clubs=clubs))


async def expire(world: World, log: Namespace) -> None:
    """Void what dead producers have reserved, once their time is up."""
    await world.loop.sleep(600.0)
    await log.refresh()
    for pid in [producer.id for producer in log.state.producers.values() if producer.is_busy]:
        try:
            await log.writer.commit(ops=[ops.ExpireReserve(pid=pid)])
        except Indeterminate:
            raise
        except HeadwaterError as error:
            world.history.note("judge", "expire", str(error))


async def _declare_gaps(world: World, log: Namespace, tp: TP) -> None:
    topic = log.topic(tp[0])
    async for entry in log.lookup.entries(topic.id, tp[1], 0):
        if entry.codec == "gap":
            assert tp[0] == "held", "only the reservers' topic has lawful gaps"
            world.history.declare(Gap(tp=tp, start=entry.base, end=entry.end))
