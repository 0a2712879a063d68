"""What archiving and tidying have in common: store files under names of one's own, and commit that they count.

Who deletes what, and when. A file that no operation named is its maker's alone. One that a refused operation named can
never take effect any more, so it goes at once. Of a silent store it is not known whether the operation took effect:
then the state is asked, and if that does not say yes, the files are left to the collector, which finds them by
their tip (R4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headwater.errors import Conflict, HeadwaterError, Indeterminate
from headwater.log import keys, parquet
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.log.state import Partition
from headwater.store.base import Body, size_of
from headwater.upkeep.budget import Budget
from headwater.upkeep.offload import Offload
from headwater.upkeep.packing import Ready

ANSWERS_MAX: Final = 4  # how often the store is asked what became of a swap


@dataclass(slots=True)
class Totals:
    """What was done so far, and what it took."""

    files: int = 0
    records: int = 0
    merged: int = 0
    pages: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    puts: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A partition, by the ids that the state knows it by."""

    topic: int
    number: int


@dataclass(slots=True)
class Swapper:
    """Stores files and swaps them for others. One per run; any number of tasks use it at once."""

    namespace: Namespace
    offload: Offload
    budget: Budget
    totals: Totals = field(default_factory=Totals)

    def partition(self, place: Place) -> Partition | None:
        """The partition as it is now; None if its topic was deleted."""
        return self.namespace.state.partition(place.topic, place.number)

    def topic_name(self, place: Place) -> str:
        """What the topic is called, or was. Raises ``Conflict`` if it was deleted."""
        found = self.namespace.state.topics.get(place.topic)
        if found is None:
            raise Conflict("The topic was deleted meanwhile.", reason="no_topic")
        return found.name

    async def store(self, place: Place, ready: Ready, cleaned_ms: int = 0) -> File:
        """Store a finished file under a name that nobody else makes. Cost: 1 PUT.

        The tip in its name is that of a moment ago: let there be a look at the tip in front of this call.
        """
        tip, nonce = self.namespace.state.seq, keys.fresh_name(self.namespace.chain.rng, 50)
        key = keys.archive_key(self.topic_name(place), place.number, ready.base, ready.end, tip, nonce)
        await self.put(key, memoryview(ready.built.data))
        return parquet.placed(ready.built, base=ready.base, end=ready.end, key=key, cleaned_ms=cleaned_ms)

    async def put(self, key: str, body: Body) -> None:
        """Store an object. Writing it again under its name changes nothing, so a silent store is asked again."""
        await self.namespace.chain.retry(lambda: self.namespace.store.put(key, body))
        self.totals.puts += 1
        self.totals.bytes_written += size_of(body)

    async def swap(self, op: SwapFiles, fresh: Sequence[str]) -> None:
        """Commit ``op``; ``fresh`` are the objects that were made for it.

        Raises:
            Conflict, NotFound, InvalidRequest: not applied, and ``fresh`` is deleted. Look at the state again.
            Indeterminate: nobody knows. ``fresh`` is left to the collector.
            Unavailable: not applied.

        Cost: 1 conditional PUT.
        """
        token = ""
        for _ in range(ANSWERS_MAX):
            try:
                await self.namespace.writer.commit(ops=[op], token=token)
            except Indeterminate as error:
                last = error
                if not error.token:
                    break
                token = error.token
            except HeadwaterError as error:
                if error.data.get("reason"):  # the fold has said no, and will never say otherwise
                    await self.discard(fresh)
                raise
            else:
                self.totals.puts += 1
                return
        await self.namespace.refresh()
        if not self._holds(op):
            raise last
        self.totals.puts += 1

    def _holds(self, op: SwapFiles) -> bool:
        """Whether the state lists what ``op`` made."""
        partition = self.namespace.state.partition(op.topic, op.partition)
        if partition is None or partition.archive is None:
            return False
        listed = {page.key for page in partition.archive.pages} | {file.key for file in partition.archive.files}
        made = {page.key for page in op.pages} | {file.key for file in op.files}
        return not listed.isdisjoint(made)

    async def discard(self, fresh: Sequence[str]) -> None:
        """Delete what no swap names. Whatever keeps us from it, the collector will find it by its tip."""
        if fresh:
            with contextlib.suppress(HeadwaterError):
                await self.namespace.store.delete(list(fresh))
