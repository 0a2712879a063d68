"""What is done to jobs in a world, and what happens inside their runners, counted, so that none passes without it.

A steward pauses a job, keeps savepoints of it, and brings it back to one of them or to its beginning, whenever no
worker is there to forbid it. Once faults have ceased it is done again, where nothing may go wrong any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from headwater.errors import Conflict, Fenced, HeadwaterError, Indeterminate, NotFound
from headwater.log.namespace import Namespace
from headwater.log.operations import TrimLog
from headwater.log.outcomes import UnknownMember
from headwater.sim.actors import alarm, rest, rng_of
from headwater.sim.checker import Violation
from headwater.sim.faults import Process
from headwater.sim.streams_jobs import JOB
from headwater.streams.names import changelog_topic
from headwater.streams.runner import changelog, computing, control, stepping, worker
from headwater.streams.runner.app import run_once
from headwater.streams.runner.committing import Forgotten
from headwater.streams.runner.job import is_paused
from headwater.streams.runner.remains import remains
from headwater.streams.state import spill

if TYPE_CHECKING:
    import random

    from headwater.log.state import State
    from headwater.sim.streams import River
    from headwater.sim.world import World

CALM_TRIES = 5
CALM_REST_S = 20.0  # more than any session, so that whoever died is gone


async def steward(stage: World, process: Process, log: Namespace) -> None:
    """Who does to a job what its world has in mind, for as long as it lasts."""
    world, rng = cast("River", stage), rng_of(stage, process)
    while not world.over():
        try:
            await _do(world, log, rng)
        except HeadwaterError as error:
            alarm(error)
            world.deeds[f"{world.streams.deed}: {type(error).__name__}"] += 1
        await rest(world, process, rng)


async def _do(world: River, log: Namespace, rng: random.Random) -> None:
    deed = world.streams.deed
    if deed == "pause":
        await control.pause(log, JOB)
        world.deeds["pauses"] += 1
        await world.loop.sleep(rng.uniform(0.5, 4.0))
        await control.pause(log, JOB, paused=False)
    elif deed == "reset" and rng.random() < 0.5:
        await _reset(world, log)
    elif deed == "restart":
        if world.savepoints and rng.random() < 0.5:
            await _restart(world, log, rng)
        else:
            name = f"s{len(world.savepoints)}" if rng.random() < 0.5 else ""
            world.savepoints.append((await control.savepoint(log, JOB, name))["commit"])
            world.deeds["savepoints"] += 1


async def _reset(world: River, log: Namespace) -> None:
    sources = remains(await log.refresh(), JOB).sources
    await control.reset(log, JOB, {(topic, at): 0 for topic in sources for at in range(world.streams.partitions)})
    world.deeds["resets"] += 1


async def _restart(world: River, log: Namespace, rng: random.Random) -> None:
    await control.restart(log, JOB, rng.choice(world.savepoints))
    world.deeds["restarts"] += 1


async def in_calm(world: River, log: Namespace) -> list[Violation]:
    """The world's deed once more, when no fault and no worker can be in its way. A pause stays."""
    deed, rng = world.streams.deed, world.rng
    if deed == "pause":
        return await _paused(world, log)  # until ``go_on``
    if deed not in ("reset", "restart"):
        return []
    for _ in range(CALM_TRIES):
        await world.loop.sleep(CALM_REST_S)
        with suppress(Conflict, NotFound):  # members that died are not gone yet; or there never was anything to undo
            if deed == "reset":
                await _reset(world, log)
            elif world.savepoints:
                await _restart(world, log, rng)
            break
    return []


async def go_on(world: River, log: Namespace) -> State:
    """See to it that the job is not paused: a dead steward's pause is an intent that anybody may commit later."""
    state = await log.refresh()
    if is_paused(state, changelog_topic(JOB)):
        await control.pause(log, JOB, paused=False)
    return log.state


async def _paused(world: River, log: Namespace) -> list[Violation]:
    """A paused job reads nothing, however much there is."""
    await control.pause(log, JOB)
    before = await _offsets(log)
    await run_once(world.spec, log, options=world.options(world.rng))
    after = await _offsets(log)
    world.deeds["pauses held"] += 1
    return [] if before == after else [Violation("pause", f"A paused job went on from {before} to {after}.")]


async def _offsets(log: Namespace) -> dict[tuple[str, int], int]:
    found = remains(await log.refresh(), JOB)
    return {place: offset for place, offset in found.offsets.items() if place[0] in found.sources}


@contextmanager
def counted(deeds: Counter[str]) -> Iterator[None]:
    """Count while the block lasts: commits and how they end, restores, snapshots, whole and torn, trims, and spills."""
    settle, restore = vars(stepping)["settle"], vars(stepping)["restore"]
    line, begin = changelog.Copy._line, changelog.Copy._begin
    snapshot, start = stepping.TaskRunner._snapshot, worker.Worker._begin
    spilling, compute = spill.Pages._spill, computing.Computer.compute

    async def settled(namespace: Any, appends: Any, changes: Any) -> Any:
        try:
            outcome = await settle(_Watched(namespace, deeds), appends, changes)
        except (Fenced, UnknownMember, Forgotten) as error:
            deeds[f"commits: {type(error).__name__}"] += 1
            raise
        deeds["commits"] += 1
        deeds["commits without input"] += not appends
        deeds["trims"] += sum(isinstance(op, TrimLog) for op in changes)
        return outcome

    def read(self: Any, key: bytes, value: Any) -> Any:
        goes_on = key.startswith(changelog.PIECE) or key in (changelog.END, changelog.PROGRESS, changelog.TOPOLOGY)
        deeds["torn snapshots met"] += self._inside and not goes_on
        return line(self, key, value)

    def begun(self: Any, said: Any, first: bool) -> None:
        deeds["snapshots skipped"] += not first
        deeds["snapshots restored"] += first
        begin(self, said, first)

    async def restored(namespace: Any, making: Any, number: int, copy: Any, **options: Any) -> Any:
        deeds["restores from standbys"] += copy is not None
        found = await restore(namespace, making, number, copy, **options)
        deeds["restores"] += 1
        deeds["restores of state"] += found.rows > 0
        return found

    async def snapped(self: Any) -> None:
        deeds["snapshots begun"] += 1
        await snapshot(self)
        deeds["snapshots"] += 1

    async def started(self: Any, number: int, fence: Any) -> None:
        deeds["tasks taken"] += 1
        await start(self, number, fence)

    def spilled(self: Any, page: Any) -> None:
        deeds["pages spilled"] += 1
        spilling(self, page)

    def computed(self: Any, taken: Any, idle: Any, now_ms: int) -> Any:
        deeds["sources idle"] += len(idle)
        return compute(self, taken, idle, now_ms)

    with _patched(
        (spill.Pages, "_spill", spilled),
        (computing.Computer, "compute", computed),
        (stepping, "settle", settled),
        (stepping, "restore", restored),
        (changelog.Copy, "_line", read),
        (changelog.Copy, "_begin", begun),
        (stepping.TaskRunner, "_snapshot", snapped),
        (worker.Worker, "_begin", started),
    ):
        yield


class _Watched:
    """A namespace whose indeterminate commits are counted."""

    def __init__(self, namespace: Any, deeds: Counter[str]) -> None:
        self._namespace = namespace
        self._deeds = deeds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._namespace, name)

    @property
    def writer(self) -> Any:
        """Itself, as what it is asked for is ``commit`` alone."""
        return self

    async def commit(self, *args: Any, **options: Any) -> Any:
        """The writer's, with a look at how it ends."""
        try:
            return await self._namespace.writer.commit(*args, **options)
        except Indeterminate:
            self._deeds["commits: Indeterminate"] += 1
            raise
        except HeadwaterError as error:
            self._deeds[f"attempts: {type(error).__name__}"] += 1
            raise


@contextmanager
def _patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    before = [(place, name, vars(place)[name]) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
