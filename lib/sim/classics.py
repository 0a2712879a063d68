"""Members of a group by Kafka's classic protocol in a world: they join, wait for each other, sync, read and commit.

They go through the same mischief as the other members. Each generation has one assignment, which its leader has
made; who is told of a rebalance gives everything up and joins again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from headwater.errors import Fenced, HeadwaterError
from headwater.groups.classic import Joined, heartbeat_classic, join_classic, sync_classic
from headwater.log.namespace import Namespace
from headwater.log.outcomes import Rebalancing
from headwater.log.state import State
from headwater.sim.actors import INPUTS, OUTPUTS
from headwater.sim.faults import Process
from headwater.sim.history import TP, Beat, Told
from headwater.sim.members import Consumer

if TYPE_CHECKING:
    from headwater.sim.world import World

OLD = "old crew"
PLACES: tuple[TP, ...] = (*INPUTS, *OUTPUTS)


async def classic(world: World, process: Process, log: Namespace) -> None:
    """A member for as long as the world has a use for it."""
    await Classic(world, process, log).run()


def assigned(state: State) -> Mapping[str, list[TP]]:
    """What the present generation's leader has given to each member."""
    members = state.groups[OLD].members if OLD in state.groups else {}
    return {name: _places(base64.b64decode(member.assignment)) for name, member in members.items()}


class Classic(Consumer):
    """One process's member: it holds all or nothing of a generation."""

    group = OLD
    each = False

    def __init__(self, world: World, process: Process, log: Namespace) -> None:
        super().__init__(world, process, log)
        self.topics = ["in", "out"]

    async def _turn(self) -> None:
        if not self.member:
            self.lives += 1
            self.member = f"{self.process.name}-{self.lives}"
        if self.epoch < 0:
            await self._join()
            return
        for tp in list(self.held):
            await self._consume(tp)
        if not self.calm and self.rng.random() < self.world.crew.mischief:
            await self._mischief()
            self.topics = ["in", "out"]
            return
        try:
            await heartbeat_classic(self.coordinator, OLD, self.member, self.epoch)
        except (Rebalancing, Fenced):
            self._drop()

    async def _join(self) -> None:
        """Join and sync as one call of the history: only then is anything held again."""
        crew, history = self.world.crew, self.world.history
        what = Beat(group=OLD, member=self.member, owner=self.owner, joining=True, released=PLACES)
        call = history.invoke(self.process.name, what)
        try:
            joined = await join_classic(
                self.coordinator,
                OLD,
                self.member,
                protocol_type="consumer",
                protocols=[("range", b"")],
                instance=self.name if self.static else "",
                session_ms=crew.session_ms,
                rebalance_ms=crew.rebalance_ms,
                delay_ms=min(500, crew.rebalance_ms),
            )
            data = await sync_classic(self.coordinator, OLD, self.member, joined.generation, _assignments(joined))
        except HeadwaterError as error:
            history.unknown(call, type(error).__name__)
            raise
        self.epoch = joined.generation
        self.held = dict.fromkeys(_places(data), self.epoch)
        history.ok(call, Told(generation=self.epoch, owned=tuple(self.held.items())))

    def _drop(self) -> None:
        self.epoch, self.held, self.places = -1, {}, {}


def _assignments(joined: Joined) -> dict[str, bytes]:
    """What a leader gives: every partition to one member, in turn."""
    names = [member.member for member in joined.members]
    return {name: orjson.dumps(PLACES[at :: len(names)]) for at, name in enumerate(names)}


def _places(data: bytes) -> list[TP]:
    return [(topic, partition) for topic, partition in orjson.loads(data or b"[]")]
