"""How long ago a commit was made, by the store's own clock (R7), remembered so that it is asked once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from headwater.errors import NotFound
from headwater.log import keys
from headwater.log.namespace import Namespace

AGES_KEPT: Final = 4_096  # commits; many partitions wait since the same one


class Ages:
    """Ages of commits of one namespace; kept by ``Namespace.shared``."""

    def __init__(self, namespace: Namespace) -> None:
        self.chain = namespace.chain
        self._known: OrderedDict[int, float] = OrderedDict()  # seq → elapsed s at which it was committed

    async def of(self, seq: int) -> float:
        """How old commit ``seq`` is, in ms; for ever, if its manifest was collected. Cost: 1 HEAD, once."""
        if seq not in self._known:
            self._known[seq] = self.chain.clock.elapsed_s() - await self._age_s(seq)
            while len(self._known) > AGES_KEPT:
                self._known.popitem(last=False)
        return (self.chain.clock.elapsed_s() - self._known[seq]) * 1_000

    async def _age_s(self, seq: int) -> float:
        key = keys.manifest_key(seq)
        home = self.chain.home(key, self.chain.state)
        try:
            stat = await self.chain.retry(lambda: home.head(key))
        except NotFound:
            return float("inf")  # R5: a manifest younger than a day is never deleted
        return max(0.0, (stat.date_ms - stat.modified_ms) / 1_000)
