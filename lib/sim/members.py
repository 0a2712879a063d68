"""Members of a consumer group in a world: the real coordinator, and processes that freeze, crash, sulk and leave.

A member reads what it owns from the committed offset on and commits what it has read. Now and then it sleeps
beyond its session and then goes on as if nothing had happened, or sits on what it is to release. When the world
calms down nobody does such things any more, and ``settled`` waits until the group is as it must be, or gives up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError, Indeterminate
from headwater.groups.coordinator import Coordinator, Heartbeat
from headwater.groups.describe import lag, named
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember
from headwater.sim.actors import Act, alarm, read, rng_of, settle
from headwater.sim.checker_groups import Club, assembled
from headwater.sim.faults import Process
from headwater.sim.history import TP, Beat, OffsetCommit, OffsetFetch, Read, Told

if TYPE_CHECKING:
    from headwater.sim.world import World

GROUP = "crew"
SHORT_SESSION_MS = 1_000  # least session of a world: takeovers are to happen within seconds
REST_S, REST_TRIES = 13.0, 5  # a whole group that lasts for two sessions once in a while is at rest
CALM_S = 400.0  # how long a group may take to be whole again: pauses last a minute, silences ten seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What a seed decides about its groups: one of each protocol, and one that changes it.

    Drawn apart from the rest of the plan.
    """

    consumers: int
    janitors: int
    session_ms: int
    rebalance_ms: int
    mischief: float
    classics: int
    movers: int

    @property
    def size(self) -> int:
        """How many members there are to be in all groups together."""
        return self.consumers + self.classics + self.movers

    @classmethod
    def draw(cls, seed: int) -> Crew:
        """The crew of a seed; in most worlds there is none."""
        rng = random.Random(f"bus-{seed}")
        return cls(
            consumers=rng.choice([0, 0, 0, 1, 2, 3, 5]),
            janitors=rng.choice([0, 0, 1]),
            session_ms=rng.choice([3_000, 6_000]),
            rebalance_ms=rng.choice([2_000, 20_000]),
            mischief=rng.choice([0.0, 0.05, 0.15]),
            classics=rng.choice([0, 0, 0, 1, 2, 3]),
            movers=rng.choice([0, 0, 0, 2, 3, 4]),
        )


class Roll:
    """Who is there: each process's consumer, by the name that it keeps over its lives."""

    def __init__(self) -> None:
        self.calm = asyncio.Event()
        self.dispersed = False
        self.consumers: dict[str, Consumer] = {}

    def living(self, group: str) -> list[Consumer]:
        """Consumers of a group whose processes neither are dead nor stand still."""
        return [
            known
            for known in self.consumers.values()
            if known.group == group and known.process.alive and not known.process.paused
        ]


def cast(world: World) -> list[tuple[str, Act]]:
    """Who plays in this world's groups."""
    from headwater.sim.classics import classic
    from headwater.sim.movers import mover

    crew = world.crew
    found: list[tuple[str, Act]] = [(f"consumer{i}", consumer) for i in range(crew.consumers)]
    found += [(f"classic{i}", classic) for i in range(crew.classics)]
    found += [(f"mover{i}", mover) for i in range(crew.movers)]
    return found + [(f"janitor{i}", janitor) for i in range(crew.janitors if found else 0)]


@contextmanager
def short_sessions() -> Iterator[None]:
    """Let sessions be so short that they end within the world's few seconds."""
    checks = vars(import_module("headwater.groups.checks"))
    before = checks["SESSION_MS_MIN"]
    checks["SESSION_MS_MIN"] = SHORT_SESSION_MS
    try:
        yield
    finally:
        checks["SESSION_MS_MIN"] = before


async def consumer(world: World, process: Process, log: Namespace) -> None:
    """A member for as long as the world has a use for it."""
    await Consumer(world, process, log).run()


async def janitor(world: World, process: Process, log: Namespace) -> None:
    """Sweeps now and then, as the maintenance function does."""
    rng, coordinator = rng_of(world, process), Coordinator(log)
    while not world.over():
        await _idle(world, process, rng.uniform(0.5, 8.0))
        try:
            await coordinator.sweep()
        except HeadwaterError as error:
            alarm(error)


async def settled(world: World) -> dict[str, Club]:
    """Wait until the groups are as they must be when nothing goes wrong any more, and tell how they are at the end."""
    observer = await world.handle(None, calm=True)
    world.roll.calm.set()
    clubs = await _whole(world, observer)
    if not list(assembled(clubs)):
        restless = await _restless(world, observer)
        clubs = {name: replace(club, restless=name in restless) for name, club in clubs.items()}
    world.roll.dispersed = True
    await observer.drain()
    return clubs


async def _whole(world: World, observer: Namespace) -> dict[str, Club]:
    """The groups when there is nothing to say against them, or after ``CALM_S``."""
    until_s = world.loop.time() + CALM_S
    while True:
        await world.loop.sleep(2.0)
        await observer.refresh()
        clubs = _clubs(world, observer)
        there = sum(len(club.living) for club in clubs.values())
        if there == world.crew.size and not list(assembled(clubs)):
            return clubs
        if world.loop.time() > until_s:
            return clubs


async def _restless(world: World, observer: Namespace) -> set[str]:
    """Groups that change again and again. What is late may land once more, but not every time."""
    restless = {name for name, club in _clubs(world, observer).items() if club.living}
    for _ in range(REST_TRIES):
        before = {name: observer.state.groups[name].generation for name in restless}
        await world.loop.sleep(REST_S)
        await observer.refresh()
        restless = {name for name in restless if observer.state.groups[name].generation != before[name]}
    return restless


def _clubs(world: World, observer: Namespace) -> dict[str, Club]:
    """The groups that this world has, as they are now."""
    from headwater.sim.classics import OLD, assigned
    from headwater.sim.movers import MOVERS, owned

    clubs = {}
    if world.crew.consumers:
        found = observer.state.groups.get(GROUP)
        members = found.members if found else {}
        clubs[GROUP] = _club(
            world, observer, GROUP, {name: list(named(observer.state, m.owned)) for name, m in members.items()}
        )
    if world.crew.classics:
        clubs[OLD] = _club(world, observer, OLD, assigned(observer.state))
    if world.crew.movers:
        clubs[MOVERS] = _club(world, observer, MOVERS, owned(observer.state))
    return clubs


def _club(world: World, observer: Namespace, group: str, owned: Mapping[str, Sequence[TP]]) -> Club:
    state, living = observer.state, world.roll.living(group)
    topics = {topic for known in living for topic in known.topics if topic in state.names}
    counts = {topic: len(observer.topic(topic).partitions) for topic in topics}
    return Club(
        living={known.member or f"{known.process.name} (no member)": tuple(sorted(known.held)) for known in living},
        owned={name: tuple(places) for name, places in owned.items()},
        wanted=tuple((topic, p) for topic, count in sorted(counts.items()) for p in range(count)),
        lag={(row.topic, row.partition): row.lag for row in (lag(state, group) if group in state.groups else ())},
    )


class Consumer:
    """One process's member: who it is, what it holds, and where it reads."""

    group = GROUP
    each = True  # whether partitions or the whole group are fenced

    def __init__(self, world: World, process: Process, log: Namespace) -> None:
        self.world, self.process, self.log = world, process, log
        self.coordinator = Coordinator(log)
        self.rng = rng_of(world, process)
        self.name = process.name.split(".")[0]
        habits = random.Random(f"{world.plan.seed}-{self.name}")
        self.static = habits.random() < 0.3
        self.topics: list[str] = habits.choice([["in"], ["in"], ["in", "out"], ["in", "out", "nowhere"]])
        self.lives = 0
        self.member = ""
        self.epoch = -1
        self.held: dict[TP, int] = {}
        self.giving: dict[TP, int] = {}
        self.places: dict[TP, int] = {}
        self.interval_ms = 1_000
        world.roll.consumers[self.name] = self

    @property
    def owner(self) -> str:
        """As whom it is known: a static member is the same in all its lives."""
        return self.name if self.static else f"{self.process.name}-{self.lives}"

    @property
    def calm(self) -> bool:
        return self.world.roll.calm.is_set()

    async def run(self) -> None:
        while not self.world.roll.dispersed:
            try:
                await self._turn()
            except UnknownMember:
                self._forget()
            except HeadwaterError as error:
                alarm(error)
            await _idle(self.world, self.process, self.rng.uniform(0.2, 1.0) * self.interval_ms / 1_000)

    async def _turn(self) -> None:
        if not self.member:
            await self._join()
            return
        for tp in list(self.held):
            await self._consume(tp)
        if not self.calm and self.rng.random() < self.world.crew.mischief:
            await self._mischief()
        elif self.member:
            stubborn = not self.calm and self.rng.random() < 0.3
            await self._beat(released=() if stubborn else tuple(sorted(self.giving)))

    async def _join(self) -> None:
        self.lives += 1
        self.member = f"{self.process.name}-{self.lives}"
        for _ in range(3):
            try:
                await self._beat(joining=True)
                return
            except Indeterminate:
                continue  # under the same id: nobody knows whether it is in
            except HeadwaterError:
                break
        self._forget()

    async def _beat(self, *, joining: bool = False, released: tuple[TP, ...] = ()) -> None:
        crew = self.world.crew
        what = Beat(
            group=self.group,
            member=self.member,
            owner=self.owner,
            joining=joining,
            released=released,
        )
        call = self.world.history.invoke(self.process.name, what)
        try:
            beat = await self.coordinator.heartbeat(
                self.group,
                self.member,
                topics=self.topics,
                released=released,
                instance=self.name if self.static else "",
                session_ms=crew.session_ms,
                rebalance_ms=crew.rebalance_ms,
                joining=joining,
            )
        except HeadwaterError as error:
            self.world.history.unknown(call, type(error).__name__)
            raise
        self._hear(beat)
        revoke = tuple((tp, since) for tp, since in self.giving.items() if since >= 0)
        told = Told(generation=beat.generation, owned=tuple(self.held.items()), revoke=revoke)
        self.world.history.ok(call, told)

    def _hear(self, beat: Heartbeat) -> None:
        since = {**self.giving, **self.held}
        self.held = dict(beat.owned)
        self.giving = {tp: since[tp] for tp in beat.revoke if tp in since}
        # What it never held it owes from an earlier life, or has heard of by half: that is given up as well.
        self.giving |= {tp: -1 for tp in beat.revoke if tp not in since}
        self.places = {tp: place for tp, place in self.places.items() if self.held.get(tp) == since.get(tp)}
        self.epoch, self.interval_ms = beat.epoch, beat.interval_ms

    async def _consume(self, tp: TP) -> None:
        history, me, seek = self.world.history, self.process.name, tp not in self.places
        if not seek and self._at_end(tp) and self.rng.random() < 0.9:
            return  # as far as the last heartbeat has shown there is nothing to read
        if seek:
            call = history.invoke(me, OffsetFetch(group=self.group, tp=tp))
            try:
                committed = (await self.log.committed(self.group)).get(tp)
            except HeadwaterError as error:
                history.unknown(call, type(error).__name__)
                raise
            history.ok(call, committed.offset if committed else None)
            self.places[tp] = committed.offset if committed else 0
        start = self.places[tp]
        call = history.invoke(me, Read(reader=f"{me}/{self.group}", tp=tp, start=start, seek=seek))
        try:
            got = await read(self.world, self.log, tp, start, bytes_max=self.rng.choice([1, 200, 1 << 20]), wait_ms=0)
        except HeadwaterError as error:
            history.unknown(call, type(error).__name__)
            del self.places[tp]
            raise
        history.ok(call, got)
        self.places[tp] = got.next
        if got.next > start and not await self._commit(tp, got.next):
            del self.places[tp]

    def _at_end(self, tp: TP) -> bool:
        found = self.log.state.named(tp[0])
        return found is not None and found.partitions[tp[1]].stable_end <= self.places[tp]

    async def _commit(self, tp: TP, offset: int) -> bool:
        what = OffsetCommit(
            group=self.group, offsets=((tp, offset),), owner=self.owner, generation=self.held[tp], each=self.each
        )
        call = self.world.history.invoke(self.process.name, what)

        async def send(token: str) -> None:
            op = await self.log.offsets_op(self.group, {tp: offset}, self.epoch, self.member)
            await self.log.writer.commit(ops=[op], token=token)

        return await settle(self.world, call, send)

    async def _mischief(self) -> None:
        crew, draw = self.world.crew, self.rng.random()
        if draw < 0.5:  # and then on, as a zombie that believes to hold what it held
            await _idle(self.world, self.process, self.rng.uniform(0.5, 3.0) * crew.session_ms / 1_000)
        elif draw < 0.7:
            member = self.member
            self._forget()
            await self.coordinator.leave(self.group, member)
        elif draw < 0.85:
            self.topics = self.rng.choice([["in"], ["out"], ["in", "out"]])
        else:  # lose heart, and come back as somebody else without a word
            self._forget()

    def _forget(self) -> None:
        self.member, self.epoch = "", -1
        self.held, self.giving, self.places = {}, {}, {}


async def _idle(world: World, process: Process, seconds: float) -> None:
    """Wait; in worlds that sleep for days, long enough to sleep with them, but not into the calm."""
    await process.checkpoint()
    roll = world.roll
    if world.plan.long_sleep and not roll.calm.is_set() and world.loop.time() > world.plan.active_s:
        seconds = max(seconds, 40_000.0)
    if roll.calm.is_set():
        await world.loop.sleep(seconds)
    else:
        with suppress(TimeoutError):
            await asyncio.wait_for(roll.calm.wait(), seconds)
    await process.checkpoint()
