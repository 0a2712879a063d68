"""Worlds of long retention: archive, retention, compaction, collection, branches and looks at the past, at once.

The cast of every world is here too, with real batches, and beside it keepers that do the chores of upkeep in any
order, two of each at once, and die and sleep like everybody. In half of the worlds days pass: all meet a few times a
day, for a few seconds, so that sleepers wake into a log that was archived and collected meanwhile. At the end faults
cease, upkeep goes on alone until garbage must be gone, everything is read once more, and ``checker_archive`` holds
what was said against what was.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

from headwater.errors import HeadwaterError
from headwater.log import operations as ops
from headwater.log import small
from headwater.log.chunk import Chunk
from headwater.log.options import Options
from headwater.sim import actors, keepers
from headwater.sim.checker import Final, Violation, check
from headwater.sim.checker_archive import Court, Rules, Statements
from headwater.sim.chronicle import MAIN, RememberingBucket, rows_of
from headwater.sim.faults import CALM, Burst, Faults
from headwater.sim.history import TP, Gap
from headwater.sim.latency import S3_EXPRESS, S3_STANDARD
from headwater.sim.loop import Deadlock, Overrun, SimLoop, run, sim_loop
from headwater.sim.world import DAY_S, TOPICS, Plan, Verdict, World, expire, keep_running, small_window
from headwater.types import Batch, Record

DAY_MS = 86_400_000
LIMIT_S = 90 * DAY_S
VERIFY_EVERY = 4  # seeds: it costs about as much as the rest
QUIET_ROUNDS = 8  # of upkeep alone, more than a day apart: as much as the collector says that it needs
SMALL = {
    "FILES_MAX": 12,
    "LISTED_MAX": 6,
    "LISTED_KEPT": 3,
    "PAGE_FILES": 3,
    "MERGE_MIN": 3,
    "MERGE_GROWTH": 2,
    "MERGE_SURE": 5,
    "ROW_GROUP_ROWS": 8,
    "STRIDE_FILES": 2,
    "JOIN_BYTES": 3_000,
    "COLLECT_EVERY_MS": 60_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPlan:
    """What a seed decides beside the plan that every world has."""

    sessions: int  # 0: a world of seconds
    session_s: float
    history_ms: int
    keepers: int
    historians: int
    slow_readers: int
    keyed_writers: int
    brief_writers: int
    founders: int
    branchers: int
    settings: dict[str, dict[str, str]]  # configs by topic
    trims: bool
    tidy: bool

    @classmethod
    def draw(cls, seed: int) -> VaultPlan:
        """The plan of a seed."""
        rng = random.Random(f"vault-{seed}")
        sessions = rng.choice([0, 0, 4, 6, 8])
        session_s = rng.choice([DAY_S / 4, DAY_S / 2, DAY_S])
        size, ms = rng.choice([(0, 0), (200, 3_600_000), (20_000, 0), (40_000, 0)])
        archive = {"archive.bytes": str(size), "archive.ms": str(ms)}
        keyed = {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": rng.choice(["0", "0.3"]),
            "delete.retention.ms": rng.choice(["0", "2000", "40000000"]),
            "min.compaction.lag.ms": rng.choice(["0", "0", "1000"]),
        }
        brief = {"retention.ms": str(rng.choice([2_000, DAY_MS // 3]) if sessions else 2_000)}
        return cls(
            sessions=sessions,
            session_s=session_s,
            history_ms=rng.choice([DAY_MS, DAY_MS, 2 * DAY_MS]),
            keepers=rng.randint(1, 3),
            historians=rng.choice([0, 1, 1, 2]),
            slow_readers=rng.choice([0, 1, 1]),
            keyed_writers=rng.choice([0, 1, 2]),
            brief_writers=rng.choice([0, 1]),
            founders=rng.choice([0, 0, 1]),
            branchers=rng.choice([0, 0, 1]),
            settings={
                **dict.fromkeys(TOPICS, archive),
                keepers.KEYED[0]: archive | keyed,
                keepers.BRIEF[0]: archive | brief,
                keepers.FLEETING[0]: archive,
            },
            trims=rng.random() < 0.5,
            tidy=rng.random() < 0.4,
        )


def plan_of(seed: int, vault: VaultPlan) -> Plan:
    """The plan that every world has, as it suits worlds of days."""
    plan = Plan.draw(seed)
    rng = random.Random(f"vault-plan-{seed}")
    active_s = vault.sessions * vault.session_s + 2.0 if vault.sessions else rng.uniform(4.0, 12.0)
    bursts = tuple(
        Burst(start_s=start, end_s=start + rng.uniform(0.5, 4.0), share=rng.choice([0.5, 1.0]))
        for start in (_meeting(rng, vault) for _ in range(rng.choice([0, 0, 1, 2])))
    )
    return replace(
        plan,
        profile=rng.choice([S3_STANDARD, S3_EXPRESS]),
        faults=replace(
            Faults.swarm(rng, rate_max=rng.choice([0.0, 0.02, 0.08]), false_503=0.0, bursts=bursts),
            timeout_s=rng.choice([1.0, 10.0]),
            until_s=active_s,
        ),
        active_s=active_s,
        writers=rng.randint(1, 2),
        readers=1,
        pipelines=rng.choice([0, 0, 1]),
        members=0,
        reservers=rng.choice([0, 0, 1]),
        busybodies=rng.choice([0, 0, 1]),
        long_sleep=bool(vault.sessions) and rng.random() < 0.5,
        window=rng.choice([12, 512]),
        options=Options(
            threads=False,
            linger_ms=rng.choice([0.0, 0.0, 20.0]),
            inline_bytes_max=rng.choice([0, 150, 1 << 19]),
            snapshot_every=rng.choice([4, 16]),
            commit_timeout_s=rng.choice([5.0, 30.0, 120.0]),
            store_retry_s=rng.choice([5.0, 60.0]),
        ),
    )


def _meeting(rng: random.Random, vault: VaultPlan) -> float:
    return rng.randint(0, max(vault.sessions - 1, 0)) * vault.session_s + rng.uniform(0, 4.0)


class Vault(World):
    """A world with an archive. ``deeds`` counts what happened, so that no world passes in which nothing did."""

    bucket: RememberingBucket

    def __init__(self, plan: Plan, vault: VaultPlan, loop: SimLoop) -> None:
        super().__init__(plan, loop, RememberingBucket)
        self.vault = vault
        self.said = Statements()
        self.deeds: Counter[str] = Counter()

    def pack(self, uids: Sequence[str], padding: int = 0) -> Batch:
        """A real batch: values are the uids."""
        headers = (("padding", b" " * padding),) if padding else ()
        now_ms = self.bucket.wall_ms()
        return small.batch_of([Record(value=uid.encode(), timestamp=now_ms, headers=headers) for uid in uids])

    def unpack(self, chunk: Chunk) -> Iterable[tuple[int, str]]:
        return [(offset, (row.value or b"").decode()) for offset, row in rows_of(chunk)]

    def rest_s(self, rng: random.Random) -> float:
        """In worlds of days all rest until the next meeting after a few acts, and come a little late."""
        now_s, vault = self.loop.time(), self.vault
        if not vault.sessions or rng.random() < 0.8:
            return rng.expovariate(1 / 0.25)
        next_s = (math.floor(now_s / vault.session_s) + 1) * vault.session_s
        return next_s - now_s + rng.expovariate(1 / 0.5)

    def branches(self) -> list[str]:
        """The namespaces that exist beside the first one."""
        return [made.name for made in self.said.branches if f"{made.name}/latest" in self.bucket.objects]


def simulate(seed: int) -> Verdict:
    """Run the world of a seed to its end and judge it. The same seed gives the same verdict, anywhere."""
    vault = VaultPlan.draw(seed)
    plan = plan_of(seed, vault)
    with small_window(plan.window), small_archive():
        try:
            return run(_play(plan, vault), rng=random.Random(f"loop-{seed}"), limit_s=LIMIT_S)
        except (Deadlock, Overrun) as stuck:
            violation = Violation("stuck", f"The world came to no end: {stuck}")
            return Verdict(seed=seed, violations=[violation], digest="", events=0, commits=0, requests=0, struck={})


@contextmanager
def small_archive() -> Iterator[None]:
    """Make lists of files and row groups so small that a few records fill several."""
    modules = [import_module(f"headwater.{name}") for name in keepers.MODULES]
    before: list[tuple[ModuleType, str, int]] = []
    for module in modules:
        for name, value in SMALL.items():
            if name in vars(module):
                before.append((module, name, vars(module)[name]))
                vars(module)[name] = value
    try:
        yield
    finally:
        for module, name, value in before:
            vars(module)[name] = value


async def _play(plan: Plan, vault: VaultPlan) -> Verdict:
    world = Vault(plan, vault, sim_loop())
    opener = await world.handle(None, calm=True)
    for name, configs in vault.settings.items():
        await opener.create_topic(name, TOPICS.get(name, 1), configs)
    await opener.writer.commit(ops=[ops.AlterNamespace(config={"history.retention.ms": str(vault.history_ms)})])
    await opener.drain()
    tasks = asyncio.gather(
        *(keep_running(world, name, act) for name, act in [*actors.cast(world), *keepers.cast_of(world)])
    )
    await world.loop.sleep(plan.active_s)
    world.ended = True
    await tasks
    violations = await _judge(world)
    counters = world.bucket.counters
    return Verdict(
        seed=plan.seed,
        violations=violations,
        digest=world.history.digest(),
        events=len(world.history.events),
        commits=sum("/manifest/" in key for key in world.bucket.first),
        requests=counters.put + counters.get + counters.list + counters.delete,
        struck=world.struck(),
        deeds=dict(world.deeds),
    )


async def _judge(world: Vault) -> list[Violation]:
    """Let upkeep come to rest, read everything with fresh processes, and hold what was said against what was."""
    for store in world.stores:
        store.set_faults(CALM)
    quiet_ms = world.bucket.wall_ms()
    violations: list[Violation] = []
    try:
        log = await world.handle(None, calm=True)
        await expire(world, log)
        await log.drain()
        if world.vault.tidy:
            violations += await _tidy(world)
        for name in [MAIN, *world.branches()]:
            await _read_everything(world, name)
            violations += await keepers.verified(world, name) if world.plan.seed % VERIFY_EVERY == 0 else []
        final = await _final(world)
    except HeadwaterError as error:
        return [Violation("unreadable", f"The log cannot be read at the end: {type(error).__name__}: {error}")]
    _count(world)
    rules = Rules(
        history_ms=world.vault.history_ms, skew_ms=world.plan.skew_ms, quiet_ms=quiet_ms, tidy=world.vault.tidy
    )
    court = Court(world.bucket, world.said, rules)
    violations += court.judge()
    for tp, place in court.tales[MAIN].places().items():
        for start, end in court.tales[MAIN].gaps.get(place, ()):
            assert tp[0] == "held", "only the reservers' topic has lawful gaps"
            world.history.declare(Gap(tp=tp, start=start, end=end))
    return [*violations, *check(world.history, final)]


async def _tidy(world: Vault) -> list[Violation]:
    """Upkeep alone, until nothing is left to do; then it must write and delete nothing."""
    for _ in range(QUIET_ROUNDS):
        for name in [*world.branches()[::-1], MAIN]:
            log = await world.handle(None, calm=True, name=name)
            await keepers.all_chores(world, log)
            await log.drain()
        await world.loop.sleep(1.3 * DAY_S)
    counters = world.bucket.counters
    before = counters.put, counters.delete
    for name in [MAIN, *world.branches()]:
        log = await world.handle(None, calm=True, name=name)
        await keepers.chore(world, log, "collect")
        await log.drain()
    if (counters.put, counters.delete) != before:
        return [Violation("restless", f"PUTs and DELETEs went from {before} to {counters.put, counters.delete}")]
    return []


async def _read_everything(world: Vault, name: str) -> None:
    log = await world.handle(None, calm=True, name=name)
    cut = await keepers.cut_of(world, log, log.state, everything=True)
    world.said.cuts.append(cut)
    await log.drain()


async def _final(world: Vault) -> Final:
    """What the checker of every world wants to know."""
    log = await world.handle(None, calm=True)
    records: dict[TP, list[tuple[int, str]]] = {}
    for topic, partitions in TOPICS.items():
        for partition in range(partitions):
            records[topic, partition] = await actors.read_all(world, log, (topic, partition))
    offsets = {
        (group, tp): committed.offset
        for group in sorted(log.state.groups)
        for tp, committed in (await log.committed(group)).items()
    }
    await log.drain()
    return Final(records=records, offsets=offsets)


def _count(world: Vault) -> None:
    """What happened, for those who wonder whether anything did."""
    for key in world.bucket.deleted_ms:
        if (folder := key.split("/")[1]) in ("archive", "files", "segment", "manifest", "index", "snapshot"):
            world.deeds[f"deleted {folder}"] += 1
    for key in world.bucket.first:
        folder = key.split("/")[1]
        if folder in ("archive", "files", "boundary"):
            world.deeds[f"made {folder}"] += 1
    world.deeds["branches"] += len(world.branches())
    world.deeds["looks at the past"] += sum(not cut.error for cut in world.said.cuts)
    world.deeds["looks refused"] += sum(bool(cut.error) for cut in world.said.cuts)
