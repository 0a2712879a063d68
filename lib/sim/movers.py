"""Members that change their protocol from life to life, in one group: some classic, some of KIP-848, in a world.

The group so becomes what its members are, forth and back, while they go through the same mischief as the others. Eager
ones let go of everything before they join, cooperative ones go on holding it, and say so (KIP-429).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.errors import Fenced, HeadwaterError
from headwater.groups import consumer_protocol
from headwater.groups.classic import Joined, heartbeat_classic, join_classic, sync_classic
from headwater.groups.describe import named
from headwater.log.namespace import Namespace
from headwater.log.outcomes import Rebalancing
from headwater.log.state import State
from headwater.sim.faults import Process
from headwater.sim.history import TP, Beat, Told
from headwater.sim.members import Consumer

if TYPE_CHECKING:
    from headwater.sim.world import World

MOVERS = "movers"
TOPICS = ("in", "out")


async def mover(world: World, process: Process, log: Namespace) -> None:
    """A member for as long as the world has a use for it."""
    await Mover(world, process, log).run()


def owned(state: State) -> Mapping[str, list[TP]]:
    """What each member owns, as the fold or the present generation's leader has it."""
    found = state.groups.get(MOVERS)
    if found is None or found.kind == "consumer":
        return {name: list(named(state, member.owned)) for name, member in (found.members if found else {}).items()}
    return {
        name: consumer_protocol.decode_assignment(base64.b64decode(member.assignment))
        for name, member in found.members.items()
    }


class Mover(Consumer):
    """One process's member. ``classic`` says how it speaks in this life, ``eager`` how it joins if it does."""

    group = MOVERS

    def __init__(self, world: World, process: Process, log: Namespace) -> None:
        super().__init__(world, process, log)
        self.topics = list(TOPICS)
        self.classic = self.eager = False

    async def _turn(self) -> None:
        if not self.member:
            self.classic, self.eager = self.rng.random() < 0.5, self.rng.random() < 0.5
            if self.classic:
                self.lives += 1
                self.member = f"{self.process.name}-{self.lives}"
        if not self.classic:
            await super()._turn()
            self.topics = list(TOPICS)  # whatever mischief it has thought of
            return
        self.interval_ms = 1_000
        if self.epoch < 0:
            await self._join_classic()
            return
        for tp in list(self.held):
            await self._consume(tp)
        if not self.calm and self.rng.random() < self.world.crew.mischief:
            await self._mischief()
            self.topics = list(TOPICS)
        elif self.member:
            await self._beat_classic()

    async def _beat_classic(self) -> None:
        """Who hears of a rebalance is a member, and holds what it held, until it joins again."""
        history = self.world.history
        call = history.invoke(self.process.name, Beat(group=MOVERS, member=self.member, owner=self.owner))
        told = Told(generation=self.epoch, owned=tuple(self.held.items()))
        try:
            await heartbeat_classic(self.coordinator, MOVERS, self.member, self.epoch)
        except Rebalancing:
            history.ok(call, told)
            self.epoch = -1
            return
        except HeadwaterError as error:
            self._refused(call, error)
            return
        history.ok(call, told)

    async def _join_classic(self) -> None:
        """Join and sync as one call of the history; what is claimed is held all the time."""
        crew, history = self.world.crew, self.world.history
        claims = [] if self.eager else sorted(self.held)
        gone = tuple(tp for tp in (*self.held, *self.giving) if tp not in claims)
        what = Beat(group=MOVERS, member=self.member, owner=self.owner, joining=True, released=gone)
        call = history.invoke(self.process.name, what)
        self.held = {tp: since for tp, since in self.held.items() if tp in claims}
        try:
            joined = await join_classic(
                self.coordinator,
                MOVERS,
                self.member,
                protocol_type=consumer_protocol.TYPE,
                protocols=[("range", consumer_protocol.encode_subscription(self.topics, claims))],
                instance=self.name if self.static else "",
                session_ms=crew.session_ms,
                rebalance_ms=crew.rebalance_ms,
                delay_ms=min(500, crew.rebalance_ms),
            )
            given = _assignments(self.log.state, joined)
            data = await sync_classic(self.coordinator, MOVERS, self.member, joined.generation, given)
        except HeadwaterError as error:
            self._refused(call, error)
            return
        self.epoch = joined.generation
        since = self._since()
        self.held = {tp: since.get(tp, self.epoch) for tp in consumer_protocol.decode_assignment(data)}
        self.places = {tp: place for tp, place in self.places.items() if tp in self.held and tp in claims}
        history.ok(call, Told(generation=self.epoch, owned=tuple(self.held.items())))
        if set(claims) - set(self.held):
            self.epoch = -1  # what it has lost may go to others once it has said so

    def _since(self) -> Mapping[TP, int]:
        """Since when the member owns what it owns, if the fold knows: for the history, as no classic client hears it.

        A static member that comes back by KIP-848 is told of it, and that may be before it was told as a classic one.
        """
        found = self.log.state.groups.get(MOVERS)
        known = found.members.get(self.member) if found is not None and found.kind == "consumer" else None
        return named(self.log.state, known.owned) if known is not None else {}

    def _refused(self, call: int, error: HeadwaterError) -> None:
        """Whose generation is over holds nothing any more. Anything else is raised again."""
        self.world.history.unknown(call, type(error).__name__)
        if not isinstance(error, Fenced):
            raise error
        self._drop()

    def _drop(self) -> None:
        self.epoch, self.held, self.places = -1, {}, {}


def _assignments(state: State, joined: Joined) -> dict[str, bytes]:
    """What a leader gives: every partition to one member, in turn, but none that another one has not let go of."""
    claims: dict[TP, set[str]] = {}
    for member in joined.members:
        said = consumer_protocol.decode_subscription(member.metadata)
        for tp in said.claims if said else ():
            claims.setdefault(tp, set()).add(member.member)
    places = [
        (topic, partition)
        for topic in TOPICS
        if topic in state.names
        for partition in range(len(state.topics[state.names[topic]].partitions))
    ]
    names = [member.member for member in joined.members]
    given: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for at, tp in enumerate(places if names else ()):
        name = names[at % len(names)]
        if claims.get(tp, set()) <= {name}:
            given[name].setdefault(tp[0], []).append(tp[1])
    return {name: consumer_protocol.encode_assignment(mine, 1) for name, mine in given.items()}
