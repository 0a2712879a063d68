"""Worlds of stream processing: one job, and workers of it that come, freeze, die and are cut off, exactly once.

A seed draws a topology, what its writers send, and how it is run: by workers of many that share its tasks, by runs
that end and are cut off when they take too long, or by both in turn; with standby copies, snapshots and trims every
few records, and upkeep beside them. At the end faults cease and one calm run finishes the work. What the sinks hold,
what the group has committed and what a restore of the changelog gives must then be what one undisturbed process makes
of the same input log (``streams_judge``), and for some topologies what a model in plain Python says.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from headwater.errors import Corrupt, HeadwaterError, Indeterminate, InvalidRequest
from headwater.log import small
from headwater.log.chunk import Chunk
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember
from headwater.sim import keepers, members, streams_judge, streams_model
from headwater.sim.actors import Act, alarm, rest, rng_of
from headwater.sim.checker import Violation
from headwater.sim.chronicle import RememberingBucket
from headwater.sim.faults import CALM, Process, SimStore
from headwater.sim.loop import Deadlock, Overrun, SimLoop, run, sim_loop
from headwater.sim.streams_deeds import counted, go_on, in_calm, steward
from headwater.sim.streams_jobs import DEAD, JOB, PLAYS
from headwater.sim.streams_judge import TP, Kept
from headwater.sim.streams_plan import Events, StreamsPlan, plan_of
from headwater.sim.vault import small_archive
from headwater.sim.world import Plan, Verdict, World, keep_running, small_window
from headwater.streams.failures import OperatorFailed
from headwater.streams.model import Spec
from headwater.streams.runner.app import App, WorkerOptions, run_once
from headwater.streams.runner.job import Job, is_paused, prepare
from headwater.streams.runner.once import source_goals
from headwater.streams.runner.reading import DataLost
from headwater.streams.runner.restoring import Making, restore
from headwater.types import Record
from headwater.upkeep.offload import inline

T = TypeVar("T")

LIMIT_S = 86_400.0
LATE_S = 320.0  # after which no request that was sent in the time of faults is still on its way
FINISH_S = 3_600.0  # of calm; more than any session, silence and pause
MODULES = (  # that know bounds by name
    *(f"runner.{name}" for name in ("changelog", "committing", "reading", "standby", "stepping", "worker")),
    "state.spill",
)
TRIES = 6
ROUNDS = 2  # of calm runs
SPILL_BYTES = 8  # less than a row; all but the page in use are on disk
FATAL = (Corrupt, OperatorFailed, DataLost, InvalidRequest)  # nothing in these worlds is a reason for such an error


class DrowsyStore(SimStore):
    """A store before whose commits, or right behind them, a process falls asleep now and then: a zombie to be."""

    drowsy = 0.0

    async def _request(self, op: str, apply: Callable[..., T], *args: Any) -> T:
        process = self._process
        if op == "put_if_absent" and self._rng.random() < self.drowsy:
            seconds = self._rng.choice([2.0, 4.0, 8.0])
            self._loop.call_later(self._rng.choice([0.0, 0.0001]), process.pause, seconds)
            await self._loop.sleep(0.0)
        return await super()._request(op, apply, *args)


class River(World):
    """A world in which a job runs. ``deeds`` counts what happened."""

    store_type = DrowsyStore
    bucket: RememberingBucket

    def __init__(self, plan: Plan, streams: StreamsPlan, loop: SimLoop) -> None:
        super().__init__(plan, loop, RememberingBucket)
        self.streams = streams
        self.spec = spec_of(streams.play)
        self.events = Events(streams)
        self.deeds: Counter[str] = Counter()
        self.savepoints: list[int] = []
        self.spill = ""  # a folder, in worlds whose state outgrows memory

    def fate(self, name: str, *, mortal: bool = True) -> dict[str, Any]:
        """Workers are struck more often than others, and wake more often when others have taken over."""
        fate = super().fate(name, mortal=mortal)
        rng, plan = self.rng, self.plan
        if mortal and name.startswith("worker"):
            for _ in range(rng.randint(0, 5) if plan.pause_rate else 0):
                fate["pauses"].append((rng.randint(20, 500), rng.choice([0.5, 3.0, 5.0])))
            if fate["crash_at"] is not None and rng.random() < 0.5:
                fate["crash_at"] += rng.randint(0, 300)
        return fate

    async def handle(self, process: Process | None, *, calm: bool = False, name: str = "default") -> Namespace:
        """Open the namespace; workers are drowsy from then on."""
        log = await super().handle(process, calm=calm, name=name)
        store = self.stores[-1]
        assert isinstance(store, DrowsyStore), "a river has no others"
        store.drowsy = self.streams.drowsy if process is not None and process.name.startswith("worker") else 0.0
        return log

    def options(self, rng: random.Random) -> WorkerOptions:
        """How one worker behaves."""
        return WorkerOptions(
            num_standbys=self.streams.standbys,
            session_ms=self.streams.session_ms,
            batch_bytes=self.streams.batch_bytes,
            offload=inline,
            spill=self.spill,
            memory_max=SPILL_BYTES if self.spill else 0,
        )


@functools.cache
def spec_of(play: str) -> Spec:
    """The topology of a play. Pure data, so that all worlds may share it."""
    return PLAYS[play].build().build()


def simulate(seed: int) -> Verdict:
    """Run the world of a seed to its end and judge it. The same seed gives the same verdict, anywhere."""
    streams = StreamsPlan.draw(seed)
    plan = plan_of(seed)
    deeds: Counter[str] = Counter()
    small = small_window(plan.window), small_archive(), members.short_sessions(), small_limits(plan, streams)
    with ExitStack() as stack:
        for each in (*small, counted(deeds)):
            stack.enter_context(each)
        folder = stack.enter_context(TemporaryDirectory()) if streams.deed == "spill" else ""
        try:
            return run(_play(plan, streams, deeds, folder), rng=random.Random(f"loop-{seed}"), limit_s=LIMIT_S)
        except (Deadlock, Overrun) as stuck:
            violation = Violation("stuck", f"The world came to no end: {stuck}")
            return Verdict(seed=seed, violations=[violation], digest="", events=0, commits=0, requests=0, struck={})


@contextmanager
def small_limits(plan: Plan, streams: StreamsPlan) -> Iterator[None]:
    """Let bounds of the runner bite within a few records, and let it know of the small window."""
    modules = [vars(import_module(f"headwater.streams.{name}")) for name in MODULES]
    values = {**streams.limits, "WINDOW": plan.window}
    before = [(module, name, module[name]) for module in modules for name in values if name in module]
    for module, name, _ in before:
        module[name] = values[name]
    try:
        yield
    finally:
        for module, name, value in before:
            module[name] = value


# -- who plays --------------------------------------------------------------------------------------------


async def _play(plan: Plan, streams: StreamsPlan, deeds: Counter[str], folder: str) -> Verdict:
    world = River(plan, streams, sim_loop())
    world.deeds, world.spill = deeds, folder
    await _found(world)
    writing = [keep_running(world, f"writer-{topic}", writer(topic)) for topic in _written(streams)]
    working = [keep_running(world, f"worker{i}", worker) for i in range(streams.workers)]
    keeping = [keep_running(world, f"keeper{i}", keeper) for i in range(streams.keepers)]
    guiding = [keep_running(world, "steward", steward)] if streams.deed in ("pause", "reset", "restart") else []
    playing = asyncio.gather(*writing, *working, *keeping, *guiding)
    await world.loop.sleep(plan.active_s)
    world.ended = True
    await playing
    violations = await _judge(world)
    counters = world.bucket.counters
    return Verdict(
        seed=plan.seed,
        violations=violations,
        digest=f"{sorted(world.bucket.first)!r}",
        events=world.events.serial,
        commits=sum("/manifest/" in key for key in world.bucket.first),
        requests=counters.put + counters.get + counters.list + counters.delete,
        struck=world.struck(),
        deeds=dict(deeds),
    )


def _written(streams: StreamsPlan) -> list[str]:
    return [*streams.of.streams, *streams.of.live]


async def _found(world: River) -> None:
    """Make the topics, and fill the tables that are there before the job."""
    log = await world.handle(None, calm=True)
    play, count = world.streams.of, world.streams.partitions
    configs = {"archive.bytes": "200", "archive.ms": "1000"} if world.streams.archive else {}
    for topic in (*play.streams, *play.tables, *play.live):
        await log.create_topic(topic, count, configs)
    for number, topic in enumerate(play.sinks):
        await log.create_topic(topic, 1 if topic == DEAD else 1 + (count + number) % 3)
    for topic in (*play.tables, *play.live):
        for _ in range(4):
            for partition, records in world.events.batch(topic):
                await log.append(topic, partition, small.batch_of(records))
    await log.drain()


def writer(topic: str) -> Act:
    """Who sends events to a topic for as long as the world lasts."""

    async def act(stage: World, process: Process, log: Namespace) -> None:
        world, rng = cast(River, stage), rng_of(stage, process)
        while not world.over():
            for partition, records in world.events.batch(topic):
                await _send(world, log, topic, partition, records)
            await rest(world, process, rng)

    return act


async def _send(world: River, log: Namespace, topic: str, partition: int, records: list[Record]) -> None:
    """Append, and again under the same token while nobody knows."""
    made, token = small.batch_of(records), ""
    for _ in range(TRIES):
        try:
            await log.append(topic, partition, made, token=token)
            return
        except Indeterminate as error:
            token = error.token or token
            await world.loop.sleep(0.5)
        except HeadwaterError as error:
            alarm(error)
            return


async def worker(stage: World, process: Process, log: Namespace) -> None:
    """Runs the job for a while, as one of many or until what was there is done, and comes back."""
    world, rng = cast(River, stage), rng_of(stage, process)
    while not world.over():
        try:
            if rng.random() < world.streams.once:
                await _invoked(world, process, log, rng)
            else:
                await _serving(world, process, log, rng)
        except (TimeoutError, UnknownMember):
            world.deeds["runs given up"] += 1
        except HeadwaterError as error:
            if isinstance(error, FATAL):
                raise
            world.deeds[f"runs ended by {type(error).__name__}"] += 1
        await rest(world, process, rng)


async def _invoked(world: River, process: Process, log: Namespace, rng: random.Random) -> None:
    """One invocation of a function: it ends by itself, or the platform ends it and everything in its process."""
    kill = world.loop.call_later(world.streams.patience_s, _cut_off, world, process)
    try:
        await run_once(world.spec, log, options=world.options(rng))
        world.deeds["runs to the end"] += 1
    finally:
        kill.cancel()


def _cut_off(world: River, process: Process) -> None:
    if process.alive:
        world.deeds["runs cut off"] += 1
        process.crash()


async def _serving(world: River, process: Process, log: Namespace, rng: random.Random) -> None:
    app = await App.start(world.spec, log, world.options(rng))
    stop_s = world.loop.time() + rng.uniform(0.3, 1.0) * world.streams.stay_s
    waiting = asyncio.ensure_future(app.wait())
    while world.loop.time() < stop_s and not world.over() and not waiting.done():
        await asyncio.wait([waiting], timeout=0.5)
    if waiting.done():
        waiting.result()
    elif rng.random() < 0.3:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await app.abandon()  # a wait that had not begun has not done so (seed 63180)
        world.deeds["workers abandoned"] += 1
    else:
        app.worker.stop()
        await waiting
        world.deeds["workers stopped"] += 1


async def keeper(stage: World, process: Process, log: Namespace) -> None:
    """Upkeep beside the job."""
    world, rng = cast(River, stage), rng_of(stage, process)
    while not world.over():
        what = rng.choice(sorted(keepers.CHORES))
        try:
            await keepers.CHORES[what](log)
            world.deeds[f"upkeep: {what}"] += 1
        except HeadwaterError as error:
            alarm(error)
        await rest(world, process, rng)


# -- the end ----------------------------------------------------------------------------------------------


async def _judge(world: River) -> list[Violation]:
    """One calm run to the end; then everything is read and compared."""
    for store in world.stores:
        store.set_faults(CALM)
    log = await world.handle(None, calm=True)
    job = await prepare(log, world.spec)
    if world.streams.deed:
        await world.loop.sleep(LATE_S)
    violations = await in_calm(world, log)
    if world.streams.ends:
        for topic in world.streams.of.streams:
            for partition, records in world.events.last(topic):
                await log.append(topic, partition, small.batch_of(records))
    violations += await _finish(world, log, job)
    if violations:
        return violations
    found, inputs = await _left(world, log, job)
    if not world.streams.of.timeless:
        wanted = streams_judge.reference(job, world.streams.of, inputs, world.bucket.wall_ms())
        violations += streams_judge.compare(world.streams.of, found, wanted, repeats=world.streams.repeats)
    violations += streams_model.compare(world.streams, found, inputs)
    await log.drain()
    return violations


async def _finish(world: River, log: Namespace, job: Job) -> list[Violation]:
    """Run to the end; again if a dead writer's last request has landed meanwhile."""
    for _ in range(ROUNDS):
        goals = source_goals(await go_on(world, log), job)
        try:
            async with asyncio.timeout(FINISH_S):
                await run_once(world.spec, log, options=world.options(world.rng))
        except TimeoutError:
            return [Violation("stuck", f"A calm run came to no end within {FINISH_S} s.")]
        behind = await _behind(log, goals)
        if behind and not is_paused(log.state, job.changelog):
            return behind
        await world.loop.sleep(LATE_S)
    if not world.streams.of.timeless:  # else a source may fall idle behind the last run, and say so to the next one
        goals |= {place: log.reader.place(*place)[1].stable_end for place in _internal(job)}
    return await _behind(log, goals)


def _internal(job: Job) -> list[TP]:
    return [(topic, number) for topic in job.repartitions for number in range(job.count(topic))]


async def _behind(log: Namespace, goals: dict[TP, int]) -> list[Violation]:
    """Partitions whose committed offset is not where it should be."""
    committed = await log.committed(JOB)
    offsets = {place: committed[place].offset if place in committed else 0 for place in goals}
    return [
        Violation("offset", f"{place}: committed {offsets[place]}, and the log ends at {goal}")
        for place, goal in goals.items()
        if offsets[place] != goal
    ]


async def _left(world: River, log: Namespace, job: Job) -> tuple[Kept, dict[TP, list[Chunk]]]:
    """What the sinks and the changelog hold, and the input that it was made of."""
    await log.refresh()
    kept, inputs = Kept(), {}
    for topic in {*job.sources, *job.tables, *world.streams.of.sinks}:
        for partition in range(job.count(topic)):
            chunks = await read(log, (topic, partition))
            if topic in world.streams.of.sinks:
                kept.records[topic, partition] = streams_judge.decoded(chunks)
            else:
                inputs[topic, partition] = chunks
    making = Making(job=job)
    for number in range(job.tasks):
        copy = await restore(log, making, number, None, offload=inline)
        copy.task.restored(copy.progress)
        kept.states[number] = streams_judge.state_of(copy.task, streams_judge.unlogged(job))
        kept.progress[number] = streams_judge.time_of(job, copy.task.progress())
    return kept, inputs


async def read(log: Namespace, place: TP) -> list[Chunk]:
    """Everything in a partition."""
    found: list[Chunk] = []
    position = 0
    while True:
        fetched = await log.reader.fetch(*place, position, bytes_max=1 << 22)
        if not fetched.chunks:
            return found
        found += fetched.chunks
        position = fetched.next_offset
