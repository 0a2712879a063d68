"""A share group in a world: processes that hand out records, and consumers that accept, release, reject and sulk.

    headwater sim --world shares

Each process has the real ``groups.shares.Shares`` over its own handle, and a few consumers that ask it alone, as
clients of a gateway do. Processes crash, freeze beyond their leases and come back as zombies, close in good order, and
are cut off; some freeze while a claim of theirs is on its way, and their connections are broken when they wake. Writers
append, and now and then the log's start moves. ``shares_judge`` sees every delivery and answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from headwater.errors import HeadwaterError
from headwater.groups import shares as claiming
from headwater.groups.share_partition import ACCEPT, REJECT, RELEASE, RENEW, Said
from headwater.groups.shares import Place, Shares
from headwater.limits import SHARE_CLAIM_MIN
from headwater.log import operations_shares as share_ops
from headwater.log.namespace import Namespace
from headwater.sim import faults, members
from headwater.sim.actors import Act, alarm, busybody, names_of, rest, rng_of, sweeper
from headwater.sim.checker import Violation
from headwater.sim.faults import Process, SimStore
from headwater.sim.loop import Deadlock, Overrun, run, sim_loop
from headwater.sim.shares_judge import Judge
from headwater.sim.world import DAY_S, Plan, Verdict, World, keep_running, small_window

GROUP, TOPIC, PARTITIONS = "queue", "in", 2
LIMIT, LOCK_MS = 3, 15_000
SLEEP_S = 20.0
DROWSY_RATE = 0.2  # of worlds in which processes fall asleep at commits …
NAP_RATE = 0.3  # … which is so many of their claims' …
NAP_S = 25.0  # long enough that another one has taken it for dead, freed its claims and handed out what they held
CALM_S = 900.0  # how long the rest of the records may take once nothing goes wrong any more


class DrowsyStore(SimStore):
    """A process's store that can let it fall asleep at its next commit.

    The commit is in the log then, and when the process wakes, its connections are broken: it must ask again for all
    that was on its way, while others have long taken it for dead.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._under_way: dict[asyncio.Future[Any], str] = {}
        self._sleeps: Callable[[], None] | None = None

    def serves(self, process: Process) -> bool:
        """Whether this is that process's."""
        return self._process is process

    def nap_at_the_next_commit(self, began: Callable[[], None]) -> None:
        """Call ``began``, break all connections and let the process sleep once a conditional write has landed."""
        self._sleeps = began

    def _send(self, op: str, answer: asyncio.Future[Any], *asked: Any) -> None:
        super()._send(op, answer, *asked)
        self._under_way[answer] = op
        answer.add_done_callback(lambda done: self._under_way.pop(done, None))

    def _land(self, answer: asyncio.Future[Any], back_s: float, apply: Callable[..., Any], *asked: Any) -> None:
        super()._land(answer, back_s, apply, *asked)
        if self._sleeps is None or self._under_way.get(answer) != "put_if_absent" or not self._process.alive:
            return
        self._sleeps()
        self._sleeps = None
        self._process.pause(NAP_S)
        for answer, op in list(self._under_way.items()):
            faults._settle(answer, faults._silence(op, NAP_S))


class Shared(World):
    """A world with a share group, what a seed decides about it, and a judge."""

    store_type = DrowsyStore

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, sim_loop())
        rng = random.Random(f"shares-{plan.seed}")
        self.judge = Judge(self.loop.time, LIMIT)
        self.gateways = rng.randint(1, 3)
        self.consumers = rng.randint(1, 3)
        self.sulk = rng.choice([0.0, 0.1, 0.4])  # how often a consumer says nothing until its lock is over
        self.think_s = rng.choice([0.3, 1.0, 8.0])
        self.trimmers = rng.choice([0, 0, 1])
        self.sleepy = rng.random() < 0.5
        self.naps = random.Random(f"naps-{plan.seed}")
        self.claim_min = SHARE_CLAIM_MIN
        self.nap_rate = 0.0
        if self.naps.random() < DROWSY_RATE:
            self.nap_rate, self.claim_min = NAP_RATE, self.naps.choice([1, 5])
            self.gateways, self.consumers = self.naps.randint(2, 3), self.naps.randint(3, 4)
            self.think_s = self.naps.choice([0.3, 1.0])
        self.topic = 0

    def fate(self, name: str, *, mortal: bool = True) -> dict[str, Any]:
        """As in other worlds, but that gateways fall asleep for longer than a lease, and wake before the world ends."""
        found = super().fate(name, mortal=mortal)
        pauses = [(at, min(seconds, SLEEP_S)) for at, seconds in found["pauses"]]
        if mortal and self.sleepy and name.startswith("gateway"):
            pauses.append((self.rng.randint(20, 300), SLEEP_S))
        return {**found, "pauses": pauses}


def simulate(seed: int) -> Verdict:
    """Run the world of a seed to its end and judge it. The same seed gives the same verdict, anywhere."""
    drawn = Plan.draw(seed)
    plan = replace(
        drawn, long_sleep=False, active_s=drawn.active_s * 2 + 30.0, faults=replace(drawn.faults, until_s=60.0)
    )
    with small_window(plan.window), members.short_sessions():
        try:
            return run(_play(plan), rng=random.Random(f"loop-{seed}"), limit_s=DAY_S)
        except (Deadlock, Overrun) as stuck:
            violation = Violation("stuck", f"The world came to no end: {stuck}")
            return Verdict(seed=seed, violations=[violation], digest="", events=0, commits=0, requests=0, struck={})


async def _play(plan: Plan) -> Verdict:
    world = Shared(plan)
    with claims_of_at_least(world.claim_min):
        return await _played(world)


@contextmanager
def claims_of_at_least(records: int) -> Iterator[None]:
    """Make claims so small that there are many."""
    module = vars(claiming)
    before = module["SHARE_CLAIM_MIN"]
    module["SHARE_CLAIM_MIN"] = records
    try:
        yield
    finally:
        module["SHARE_CLAIM_MIN"] = before


async def _played(world: Shared) -> Verdict:
    plan = world.plan
    opener = await world.handle(None, calm=True)
    world.topic = (await opener.create_topic(TOPIC, PARTITIONS)).id
    config = {
        "share.auto.offset.reset": "earliest",
        "share.delivery.count.limit": str(LIMIT),
        "share.record.lock.duration.ms": str(LOCK_MS),
    }
    join = share_ops.JoinShare(group=GROUP, member="somebody", topics=[TOPIC])
    await opener.writer.commit(ops=[share_ops.AlterGroup(group=GROUP, config=dict(config)), join])
    await opener.drain()
    cast: list[tuple[str, Act]] = [(f"gateway{i}", gateway) for i in range(world.gateways)]
    cast += [(f"writer{i}", writer) for i in range(min(plan.writers, 2))]
    cast += [(f"busybody{i}", busybody) for i in range(plan.busybodies)]
    cast += [(f"trimmer{i}", trimmer) for i in range(world.trimmers)] + [("sweeper", sweeper)]
    playing = asyncio.gather(*(keep_running(world, name, act) for name, act in cast))
    await world.loop.sleep(plan.active_s)
    world.ended = True
    await playing
    observer = await world.handle(None, calm=True)
    await _drained(world, observer)
    await observer.drain()
    counters = world.bucket.counters
    return Verdict(
        seed=plan.seed,
        violations=world.judge.violations,
        digest=world.judge.digest(),
        events=world.judge.events,
        commits=sum("/manifest/" in key for key in world.bucket.keys),
        requests=counters.put + counters.get + counters.list + counters.delete,
        struck=world.struck(),
        deeds=dict(world.judge.deeds),
    )


def places(world: Shared) -> list[Place]:
    """All that the group shares."""
    return [(GROUP, world.topic, partition) for partition in range(PARTITIONS)]


# -- who plays -------------------------------------------------------------------------------------------


async def gateway(world: World, process: Process, log: Namespace) -> None:
    """A process that hands out records, for as long as the world has a use for it."""
    assert isinstance(world, Shared)
    rng = rng_of(world, process)
    while not world.over():
        shares = Shares(log)
        world.judge.opened(process, shares)
        for_s = rng.uniform(5.0, 60.0)
        names = [f"{process.name}-{rng.getrandbits(32):x}" for _ in range(world.consumers)]
        tasks = [asyncio.ensure_future(consumer(world, process, shares, name, for_s)) for name in names]
        await asyncio.gather(*tasks)
        await shares.close()
        world.judge.closed(process)
        await rest(world, process, rng)


async def consumer(world: Shared, process: Process, shares: Shares, name: str, for_s: float) -> None:
    """Takes records, thinks about them, and says what became of them, or does not."""
    rng = random.Random(f"{world.plan.seed}-{name}")
    until_s = world.loop.time() + for_s
    while not world.over() and world.loop.time() < until_s:
        place = rng.choice(places(world))
        try:
            taken = await take(world, process, shares, name, place, rng.choice([1, 3, 50]))
            await process.checkpoint()
            await world.loop.sleep(rng.expovariate(1 / world.think_s))
            await process.checkpoint()
            if rng.random() < 0.05:
                shares.release(GROUP, name)
                world.judge.deeds["released all"] += 1
                continue
            for base, end in cut(rng, taken):
                if rng.random() >= world.sulk:
                    await say(world, process, shares, name, place, base, end, rng)
        except HeadwaterError as error:
            alarm(error)
            await world.loop.sleep(0.5)


async def take(
    world: Shared, process: Process, shares: Shares, name: str, place: Place, most: int
) -> list[tuple[int, int]]:
    """Acquire what there is, at most so many offsets: as a gateway does, the bytes first and then the locks."""
    await shares.namespace.refresh()
    if shares.available(place) is None and shares.may_claim(place):
        if world.naps.random() < world.nap_rate and not world.over():
            _nap(world, process)
        await shares.claim(place, most)
    found = shares.available(place)
    if found is None:
        return []
    end = min(found[1], found[0] + most)
    await shares.namespace.reader.fetch(TOPIC, place[2], found[0], bytes_max=200, fresh=False)
    acquired = shares.acquire(place, name, found[0], end)
    for each in acquired:
        world.judge.delivered(process, place, each.base, each.end, each.count)
    return [(each.base, each.end) for each in acquired]


def _nap(world: Shared, process: Process) -> None:
    """Let the process fall asleep at its next commit."""

    def began() -> None:
        world.judge.deeds["naps"] += 1

    for store in world.stores:
        if isinstance(store, DrowsyStore) and store.serves(process):
            store.nap_at_the_next_commit(began)


async def say(
    world: Shared, process: Process, shares: Shares, name: str, place: Place, base: int, end: int, rng: random.Random
) -> None:
    """One word about some records, and the judge hears of the answer."""
    kind = rng.choice([ACCEPT] * 6 + [RELEASE, RELEASE, REJECT, RENEW])
    await shares.acknowledge(place, name, [Said(base, end, kind)])
    world.judge.said(place, base, end, kind)


def cut(rng: random.Random, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same offsets in other pieces."""
    found = []
    for base, end in taken:
        middle = rng.randint(base, end)
        found += [(a, b) for a, b in ((base, middle), (middle, end)) if a < b]
    return found


async def writer(world: World, process: Process, log: Namespace) -> None:
    """Appends; whether it is once or twice matters to other worlds."""
    rng, names = rng_of(world, process), names_of(process)
    while not world.over():
        try:
            await log.append(TOPIC, rng.randrange(PARTITIONS), world.pack(names(rng.choice([1, 3, 200]))))
        except HeadwaterError as error:
            alarm(error)
        await rest(world, process, rng)


async def trimmer(world: World, process: Process, log: Namespace) -> None:
    """Moves the log's start, as retention does."""
    assert isinstance(world, Shared)
    rng = rng_of(world, process)
    while not world.over():
        await world.loop.sleep(rng.uniform(5.0, 30.0))
        await process.checkpoint()
        partition = rng.randrange(PARTITIONS)
        try:
            await log.refresh()
            place = log.topic(TOPIC).partitions[partition]
            await log.trim(TOPIC, partition, place.start + (place.next - place.start) // 3)
        except HeadwaterError as error:
            alarm(error)


# -- the end ---------------------------------------------------------------------------------------------


async def _drained(world: Shared, log: Namespace) -> None:
    """Accept all that is left, and see that nothing is."""
    shares, process = Shares(log), world.process("last", mortal=False)
    world.judge.opened(process, shares)
    until_s = world.loop.time() + CALM_S
    while world.loop.time() < until_s:
        idle = True
        for place in places(world):
            for base, end in await take(world, process, shares, "last", place, 10_000):
                await shares.acknowledge(place, "last", [Said(base, end, ACCEPT)])
                world.judge.said(place, base, end, ACCEPT)
                idle = False
        await log.refresh()
        if idle and all(_is_done(log, place) for place in places(world)):
            break
        await world.loop.sleep(1.0 if idle else 0.0)
    await shares.close()
    await log.refresh()
    for place in places(world):
        share, partition = (
            log.state.groups[GROUP].shares.get(place[1], {}).get(place[2]),
            log.state.partition(*place[1:]),
        )
        assert partition is not None
        world.judge.ended(place, share, partition)


def _is_done(log: Namespace, place: Place) -> bool:
    share, partition = log.state.groups[GROUP].shares.get(place[1], {}).get(place[2]), log.state.partition(*place[1:])
    return share is not None and partition is not None and share.start >= partition.next
