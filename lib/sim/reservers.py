"""Actors whose transactions reserve: offsets first, visible later, as the gateway's clients do it.

Old ones keep their epoch from one transaction to the next, newer ones get the next one with each end (KIP-890). They
ask again for an end whose answer they have, and that the opposite be done, which must not be.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwater.errors import Conflict, Fenced, HeadwaterError, Indeterminate
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownProducer
from headwater.log.producer import Producer
from headwater.log.reserving import Reserving, expire_overdue
from headwater.log.writer import Append as AppendRequest
from headwater.sim import actors
from headwater.sim.faults import Process
from headwater.sim.history import TP, Transaction

if TYPE_CHECKING:
    from headwater.sim.world import World

HELD: TP = ("held", 0)
MARKED: TP = ("in", 0)


@dataclass(slots=True)
class _Life:
    """One process of a reserver: who it is, and what it numbers its records with."""

    world: World
    process: Process
    log: Namespace
    rng: random.Random
    tid: str
    producer: Producer
    bump: bool
    sequence: int = 0
    base: int = -1

    def adopt(self, found: tuple[int, int]) -> None:
        """Go on under the id and epoch that an end has answered; sequences begin anew with each epoch."""
        if found != (self.producer.id, self.producer.epoch):
            self.producer.id, self.producer.epoch = found
            self.sequence = 0

    @property
    def group(self) -> str:
        return f"held-{self.tid}"

    @property
    def open(self) -> Reserving:
        return Reserving(self.log, self.tid, self.producer.id, self.producer.epoch)


async def reserver(world: World, process: Process, log: Namespace) -> None:
    """Takes offsets first and opens or voids them later."""
    rng, names, tid = actors.rng_of(world, process), actors.names_of(process), process.name.split(".")[0]
    producer = await actors.producer_of(world, log, tid)
    if producer is None:
        return
    life = _Life(world, process, log, rng, tid, producer, bump=rng.random() < 0.5)
    while not world.over():
        uids = names(rng.randint(1, 3))
        marks = ((MARKED, rng.randint(0, 9)),) if rng.random() < 0.6 else ()
        what = Transaction(
            producer=f"pid{life.producer.id}",
            sends=((HELD, tuple(uids)),),
            epoch=life.producer.epoch,
            group=life.group if marks else "",
            offsets=marks,
        )
        call = world.history.invoke(process.name, what)
        is_well = await _reserve(life, call, uids, dict(marks))
        if not is_well or not await _end(life, call, commit=rng.random() < 0.7):
            renewed = await actors.producer_of(world, log, tid)
            if renewed is None:
                return
            life.producer, life.sequence = renewed, 0
        if rng.random() < 0.2:
            await _tidy(life)
        await actors.rest(world, process, rng)


async def _reserve(life: _Life, call: int, uids: list[str], marks: dict[TP, int]) -> bool:
    """Records and offsets take their places. If not, nothing of it is readable, and from here on it never will be."""
    log, producer = life.log, life.producer
    numbered = replace(
        life.world.pack(uids), producer_id=producer.id, producer_epoch=producer.epoch, sequence=life.sequence
    )
    wish = ops.Reserve(pid=producer.id, epoch=producer.epoch, timeout_ms=life.rng.choice([500, 60_000]))
    try:
        topic = (await log.find_topic(HELD[0])).id
        held = await log.writer.commit([AppendRequest(topic=topic, partition=0, batch=numbered)], [wish])
        life.base, life.sequence = held.bases[0], life.sequence + len(uids)
        if marks:
            if life.rng.random() < 0.5:
                await _move(life, {MARKED: life.rng.randint(100, 109)})  # the later word on the same place counts
            if life.rng.random() < 0.2:
                _delay(life, life.open.moving([await log.offsets_op(life.group, {MARKED: life.rng.randint(200, 209)})]))
                await _move(life, {MARKED: life.rng.randint(300, 309)})
            await _move(life, marks)
        await actors.rest(life.world, life.process, life.rng)
    except HeadwaterError as error:
        actors.alarm(error)
        life.world.history.fail(call, type(error).__name__)
        return False
    return True


async def _move(life: _Life, marks: dict[TP, int]) -> None:
    """Send, and send again as a client does that knows of no intents."""
    commit = await life.log.offsets_op(life.group, marks)
    for _ in range(actors.RETRIES):
        try:
            return await life.open.move([commit])
        except Indeterminate as error:
            last = error
            await life.world.loop.sleep(0.5)
    raise last


async def _end(life: _Life, call: int, *, commit: bool) -> bool:
    """Commit or abort, again and again while nobody knows. Whether the producer may go on."""
    history, in_doubt = life.world.history, False
    if not commit:
        history.fail(call, "Aborted")
    if life.rng.random() < 0.2:
        _delay(life, life.open.ending(commit=commit, bump=life.bump))
        in_doubt = True  # it may come through though every later request is turned away
    for _ in range(actors.RETRIES):
        before = life.open
        try:
            found = await before.end(commit=commit, bump=life.bump)
        except Indeterminate:
            in_doubt = True
            await life.world.loop.sleep(0.5)
            continue
        except HeadwaterError as error:
            actors.alarm(error)
            if commit:
                actors.not_applied(life.world, call, error, in_doubt)
            return False
        if commit:
            history.ok(call, life.base)
        life.adopt(found)
        await _insist(life, before, found, commit=commit)
        return True
    if commit:
        history.unknown(call, "Indeterminate")
    return False


def _delay(life: _Life, wishes: list[ops.AnyOp]) -> None:
    """A request whose answer the client gave up: its intent is still under way, and comes through at any time."""

    async def later() -> None:
        await life.world.loop.sleep(life.rng.expovariate(1.0))
        try:
            await life.log.writer.commit(ops=wishes)
        except HeadwaterError as error:
            actors.alarm(error)

    life.process.spawn(later(), name="later")


async def _insist(life: _Life, before: Reserving, found: tuple[int, int], *, commit: bool) -> None:
    """Ask again for what was done, and for its opposite."""
    for same in (True, False):
        if life.rng.random() < 0.7:
            continue
        try:
            again = await before.end(commit=commit == same, bump=life.bump)
        except Conflict as error:
            is_fenced = isinstance(error, Fenced | UnknownProducer)
            assert is_fenced or not same, "an end may be asked for again"
        except HeadwaterError as error:
            actors.alarm(error)
        else:
            assert same, "an end cannot be taken back"
            assert again == found, "a repeated end returns the first answer"


async def _tidy(life: _Life) -> None:
    """Void what is overdue, as gateways and upkeep do."""
    try:
        await expire_overdue(life.log, 10)
    except HeadwaterError as error:
        actors.alarm(error)
