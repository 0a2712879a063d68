"""A journal over a store that does as a script says, with a rival at hand: for the tests of R2, R5 and hedging."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from headwater.log import keys
from headwater.log.intents import Intent, decode_manifest
from headwater.log.journal import Draft
from headwater.log.operations import CreateTopic
from headwater.log.options import Options
from headwater.log.payload import Piece
from tests.log.helpers import Parts, manifest, memory, simulate, stored
from tests.log.helpers_store import Scripted


class Desk:
    """A journal over a scripted store, caught up."""

    def __init__(self, options: Options | None = None) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)
        self.parts = Parts(self.store, writer="w1", options=options)
        self.chain = self.parts.chain

    async def put(self, *what: Any, name: str = "mine", deadline_s: float = 30.0) -> bool:
        ops = list(what) or [CreateTopic(name=f"topic-{name}", partitions=1)]
        draft = Draft(pieces=[Piece(intent=Intent(id=name, tip=0, ops=ops))])
        return await self.parts.journal.put_next(draft, deadline_s=self.parts.clock.elapsed_s() + deadline_s)

    async def rival(self, seq: int = 1, name: str = "rival", time: int = 0) -> None:
        """Somebody else takes the slot."""
        ops = [CreateTopic(name=name, partitions=1)]
        made = manifest(seq, Intent(id=name, tip=seq - 1, ops=ops), writer="w2", time=time)
        await self.truth.put_if_absent(keys.manifest_key(seq), stored(made))

    async def slot(self, seq: int = 1) -> str:
        """Who holds a slot: the id of its first intent."""
        data = (await self.truth.get(keys.manifest_key(seq))).data
        return decode_manifest(data, seq).intents[0].id

    @property
    def puts(self) -> int:
        return self.store.calls["put_if_absent"]


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]], options: Options | None = None) -> None:
    """Run ``main`` at a desk whose calls are counted from then on."""

    async def start() -> None:
        desk = Desk(options)
        await desk.chain.refresh()
        desk.store.calls.clear()
        await main(desk)

    simulate(start())
