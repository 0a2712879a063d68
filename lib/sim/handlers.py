"""Worlds of functions: clients over HTTP events, real handlers in environments that freeze, time out and vanish.

Everything between a client's JSON and the bucket is the code that is deployed: events, routes, the service, the
engine. A seed decides the faults of the store, the platform's whims, and what clients do. What holds then:

- what ``checker`` says of records, transactions and readers, as in every world;
- a handler that has answered has no request under way (R10);
- a member that is told of a partition after another was told of it has it by a later generation: no two live
  members own one partition; nobody commits offsets of what it lost; who sends heartbeats in time stays a member;
- when faults end, every request succeeds, and every partition has exactly one owner.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from headwater.api import runtime
from headwater.api.app import App
from headwater.api.http import handle
from headwater.api.routes import EVERYTHING
from headwater.errors import HeadwaterError
from headwater.log import small
from headwater.log.namespace import Namespace
from headwater.sim import actors, clients
from headwater.sim.checker import Final, Violation, check
from headwater.sim.faults import CALM
from headwater.sim.history import TP
from headwater.sim.loop import Deadlock, Overrun, SimClock, SimLoop, run, sim_loop
from headwater.sim.members import short_sessions
from headwater.sim.platform import CountingStore, Environment, Event, Handler, Platform
from headwater.sim.world import DAY_S, Plan, Verdict, World, keep_running, small_window
from headwater.store.impatient import ImpatientStore

TOPIC = "web"
PARTITIONS: tuple[TP, ...] = ((TOPIC, 0), (TOPIC, 1), (TOPIC, 2))
CALM_S = 20.0  # after faults end: every client has asked for something by then
WHOLE_S = 600.0  # how long a group may take to be whole: writes land minutes late, and dead members have sessions
HEARD_S = 10.0  # who was told something so lately lives


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What a seed decides about functions and their clients, beside the world's own plan."""

    clients: int
    readers: int
    members: int
    timeout_s: float
    loss: float
    janitors: int

    @classmethod
    def draw(cls, seed: int) -> FleetPlan:
        """The plan of a seed."""
        rng = random.Random(f"fleet-{seed}")
        return cls(
            clients=rng.randint(1, 4),
            readers=rng.randint(0, 2),
            members=rng.choice([0, 0, 2, 3]),
            timeout_s=rng.choice([3.0, 10.0, 30.0]),
            loss=rng.choice([0.0, 0.02, 0.1]),
            janitors=rng.choice([0, 1]),
        )


class Fleet(World):
    """A world whose processes are environments of functions, and whose actors are clients outside."""

    def __init__(self, plan: Plan, fleet: FleetPlan, loop: SimLoop) -> None:
        super().__init__(plan, loop)
        self.fleet = fleet
        self.calm = False
        self.awake = asyncio.Event()  # when it is calm
        self.broken: list[Violation] = []
        self.topic = TOPIC
        self.told: dict[str, tuple[float, tuple[TP, ...]]] = {}  # what members were told last, and when
        self.platform = Platform(
            loop, self.rng, create=self._environment, start=self._start, timeout_s=fleet.timeout_s, loss=fleet.loss
        )

    def settle(self) -> None:
        """From now on nothing new goes wrong."""
        self.calm = True
        self.awake.set()
        self.platform.lose_nothing()
        for store in self.stores:
            store.set_faults(CALM)

    async def rest(self, rng: random.Random, mean_s: float = 0.5) -> None:
        """What a client does between two requests; in worlds that sleep for days it sleeps with them."""
        slow = self.plan.long_sleep and not self.calm and self.loop.time() > self.plan.active_s
        seconds = rng.expovariate(1 / (40_000.0 if slow else mean_s))
        if not slow:
            await self.loop.sleep(seconds)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self.awake.wait(), seconds)

    def place(self, rng: random.Random) -> TP:
        """A partition."""
        return rng.choice(PARTITIONS)

    def places(self, rng: random.Random) -> list[TP]:
        """One or several partitions."""
        return rng.sample(PARTITIONS, rng.randint(1, len(PARTITIONS)))

    async def whole(self) -> list[Violation]:
        """Wait until living members have been told of every partition, each of them once; what is wrong if not."""
        until_s = self.loop.time() + WHOLE_S
        while True:
            since_s = self.loop.time() - HEARD_S
            held = sorted(tp for at_s, owned in self.told.values() if at_s >= since_s for tp in owned)
            if held == sorted(PARTITIONS):
                return []
            if self.loop.time() > until_s:
                return [Violation("unowned", f"In the calm living members hold {held}: {self.told}")]
            await self.loop.sleep(1.0)

    def _environment(self) -> Environment:
        return Environment(loop=self.loop, **self.fate("function", mortal=not self.calm))

    def _start(self, environment: Environment) -> Handler:
        """As ``runtime.Function``: nothing is opened before the first event, and nothing goes on after an answer."""
        left_s = self.fleet.timeout_s - min(runtime.MARGIN_S_MAX, self.fleet.timeout_s * runtime.MARGIN_PART)
        app: App | None = None

        async def handler(event: Event) -> Event:
            nonlocal app
            start_s = self.loop.time()
            app = app or self._app(environment, left_s * runtime.SERVE_PART)
            # Called like this, no request draws an id from the environment's randomness.
            answer = await handle(event, app, budget_s=left_s * runtime.SERVE_PART, request_id="simulated")
            try:
                async with asyncio.timeout(max(0.0, left_s - (self.loop.time() - start_s))):
                    await app.drain()
            except TimeoutError:
                await self.loop.cancel(environment)
                app = None
            await environment.checkpoint()  # a process that stands still says nothing, whatever its timers did
            return answer

        return handler

    def _app(self, environment: Environment, budget_s: float) -> App:
        plan, rng = self.plan, self.entropy()
        skew_ms = rng.randint(-plan.skew_ms, plan.skew_ms)
        clock = SimClock(self.loop, start_ms=self.bucket.wall_ms(), skew_ms=skew_ms, process=environment)
        faults = CALM if self.calm else plan.faults
        store = CountingStore(
            self.bucket, loop=self.loop, rng=rng, profile=plan.profile, faults=faults, process=environment
        )
        self.stores.append(store)
        environment.stores.append(store)
        options = replace(
            plan.options,
            commit_timeout_s=min(plan.options.commit_timeout_s, budget_s * runtime.COMMIT_PART),
            store_retry_s=min(plan.options.store_retry_s, budget_s * runtime.RETRY_PART),
        )
        return runtime.app_for(
            EVERYTHING,
            runtime.Settings(store=store.url, auth="none"),
            store=ImpatientStore(store, budget_s * runtime.STORE_PART),
            clock=clock,
            rng=rng,
            options=options,
            log=self._log,
        )

    def entropy(self) -> random.Random:
        """Randomness of one environment, which no other one shares: a restored copy asks its kernel anew (R10)."""
        return random.Random(self.rng.getrandbits(64))

    def _log(self, line: str) -> None:
        """A line of a function's log: news is that of a mistake of ours (500)."""
        if orjson.loads(line)["event"] == "mistake":
            self.broken.append(Violation("mistake", f"A handler met an error of its own: {line.strip()}"))


def simulate(seed: int) -> Verdict:
    """Run the world of a seed to its end and judge it. The same seed gives the same verdict, anywhere."""
    plan = replace(Plan.draw(seed), reservers=0, busybodies=0, members=0, pipelines=0)
    with small_window(max(plan.window, 12)), short_sessions():
        try:
            return run(_play(plan, FleetPlan.draw(seed)), rng=random.Random(f"loop-{seed}"), limit_s=30 * DAY_S)
        except (Deadlock, Overrun) as stuck:
            violation = Violation("stuck", f"The world came to no end: {stuck}")
            return Verdict(seed=seed, violations=[violation], digest="", events=0, commits=0, requests=0, struck={})


async def _play(plan: Plan, fleet_plan: FleetPlan) -> Verdict:
    fleet = Fleet(plan, fleet_plan, sim_loop())
    opener = await fleet.handle(None, calm=True)
    await opener.create_topic(TOPIC, len(PARTITIONS))
    await opener.drain()
    cast = asyncio.gather(*(act(fleet, name) for name, act in clients.cast(fleet)))
    sweepers = asyncio.gather(*(keep_running(fleet, f"sweeper{i}", actors.sweeper) for i in range(2)))
    await fleet.loop.sleep(plan.active_s + (3 * DAY_S if plan.long_sleep else 0.0))
    fleet.settle()
    await fleet.loop.sleep(CALM_S + fleet_plan.timeout_s)
    violations = await fleet.whole() if fleet_plan.members else []
    fleet.ended = True
    await asyncio.gather(cast, sweepers)
    violations += fleet.broken + await _judge(fleet)
    if fleet.platform.late:
        violations.append(Violation("in-flight", f"Answered with a request under way: {fleet.platform.late}"))
    counters = fleet.bucket.counters
    return Verdict(
        seed=plan.seed,
        violations=violations,
        digest=fleet.history.digest(),
        events=len(fleet.history.events),
        commits=sum("/manifest/" in key for key in fleet.bucket.keys),
        requests=counters.put + counters.get + counters.list + counters.delete,
        struck=fleet.struck() | {"killed": fleet.platform.killed},
    )


async def _judge(fleet: Fleet) -> list[Violation]:
    """Read everything with a fresh process, and hold the history against it."""
    try:
        log = await fleet.handle(None, calm=True)
        records = {tp: await _read_all(log, tp) for tp in PARTITIONS}
        offsets = {
            (group, tp): committed.offset
            for group in sorted(log.state.groups)
            for tp, committed in (await log.committed(group)).items()
        }
        await log.drain()
    except HeadwaterError as error:
        return [Violation("unreadable", f"The log cannot be read at the end: {type(error).__name__}: {error}")]
    return check(fleet.history, Final(records=records, offsets=offsets))


async def _read_all(log: Namespace, tp: TP) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    async for chunk in log.reader.chunks(*tp, 0):
        if chunk.codec == "arrow":  # upkeep has archived it
            rows = chunk.decode()
            pairs: Any = zip(rows.column("offset").to_pylist(), rows.column("value").to_pylist(), strict=True)
            found += [(offset, (value or b"").decode().strip('"')) for offset, value in pairs]
            continue
        records = small.records_in(chunk.data)
        assert records is not None, "clients send a few records at a time"
        found += [(chunk.base + i, (r.value or b"").decode().strip('"')) for i, r in enumerate(records)]
    return found
