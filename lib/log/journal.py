"""The one place that writes manifests.

``Journal.put_next`` sends one manifest to the next slot of the chain and does not return before that slot
is decided. Everything that makes an append exactly-once against a real store is here:

R2. A conditional PUT whose answer was lost is sent again, the same bytes to the same slot, until the slot
    is decided; then the slot is read and the manifest's id compared. 412 (``AlreadyExists``): read the
    slot, it may hold our own write. 409 (``Raced``): the slot may be free; read, then send again. Timeouts,
    503 and refused connections say nothing about the slot either.
R5. The writer's half: if the tip was last certain more than an hour ago when the PUT is answered, the slot
    may be a recycled one. The boundary is listed; below it the answer proves nothing, and the memory of
    intent ids decides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.clock import Clock
from headwater.errors import (
    AlreadyExists,
    Conflict,
    HeadwaterError,
    Indeterminate,
    NotFound,
    Raced,
    StorageFull,
    Throttled,
    Unavailable,
)
from headwater.limits import BACKOFF_MS_MAX, BACKOFF_MS_MIN, MANIFEST_BYTES_MAX, WINDOW
from headwater.log import keys
from headwater.log.chain import Chain, read_manifest
from headwater.log.hedge import Hedge
from headwater.log.intents import FORMAT, Intent, Manifest, encode_manifest, new_id
from headwater.log.payload import Piece, assemble
from headwater.meters import families
from headwater.types import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A manifest to be: own intents with their inline bytes, and others' intents from published segments."""

    pieces: Sequence[Piece] = ()
    merged: Sequence[tuple[str, list[Intent]]] = ()  # segment key, its intents


class Journal:
    """Writes manifests for one process, and folds each slot as soon as it is decided."""

    def __init__(self, chain: Chain, *, writer: str) -> None:
        self.chain = chain
        self.writer = writer
        self._clock: Clock = chain.clock
        self._rng: random.Random = chain.rng
        self.hedge = Hedge(chain.options.hedge_ms / 1_000, self._hedged)
        self.lost = 0  # slots that were somebody else's, since the start

    async def put_next(self, draft: Draft, *, deadline_s: float) -> bool:
        """PUT the next manifest. True: it is committed and folded. False: the slot was someone else's, now folded.

        Every byte that the draft names is stored already or rides along, so no reader meets a dangling
        reference (I2). ``deadline_s`` is on ``Clock.elapsed_s``.

        Raises:
            Indeterminate: the deadline passed with the slot undecided. The manifest may yet take effect.
            Unavailable: the deadline passed and every sending was turned away. Not applied.

        Cost: 1 conditional PUT, 2 if it takes longer than ``options.hedge_ms``; 1 GET more if the slot was taken; 1
        LIST more after an hour of silence.
        """
        before, seq = self.chain.now(), self.chain.state.seq + 1
        manifest, parts, size = self._build(draft, seq)
        self.chain.sent_s = before[1]
        try:
            found = await self._decide(seq, manifest, parts, deadline_s)
        finally:
            self.chain.sent_s = None
        self._count(manifest, won=found is None)
        try:
            if found is None:
                return await self._won(manifest, parts, size, before)
            if self.chain.is_stale():
                await self._slept(seq)
            elif seq == self.chain.state.seq + 1:
                self.chain.fold(read_manifest(found, seq), len(found), [found])
            return False
        except Indeterminate:
            raise
        except HeadwaterError as error:
            raise self._unknown(seq, error) from error

    def _count(self, manifest: Manifest, *, won: bool) -> None:
        self.lost += not won
        meters, name = self.chain.options.meters, self.chain.name
        meters.counter(families.COMMITS if won else families.COMMITS_LOST, name).add()
        if won:
            meters.histogram(families.COMMIT_INTENTS, name).observe(len(manifest.intents))

    def _hedged(self) -> None:
        self.chain.options.meters.counter(families.COMMITS_HEDGED, self.chain.name).add()

    async def _won(self, manifest: Manifest, parts: list[Buffer], size: int, before: tuple[int, float]) -> bool:
        """The slot holds our manifest. Whether that makes it a commit (R5). Readers of this process have its bytes."""
        seq = manifest.seq
        if self.chain.is_stale() and seq < await self.chain.read_boundary():
            await self._slept(seq)
            return False
        if self.chain.fold(manifest, size, parts):
            self.chain.known(before)
        elif self.chain.state.seq < seq:
            await self.chain.refresh()  # another task has started again from a snapshot meanwhile
        return True

    def _build(self, draft: Draft, seq: int) -> tuple[Manifest, list[Buffer], int]:
        state = self.chain.state
        time_ms = max(self._clock.wall_ms(), state.time_ms)
        identity = new_id(self._rng)

        def build(intents: list[Intent]) -> Manifest:
            named = [intent for _, group in draft.merged for intent in group]
            return Manifest(
                v=FORMAT,
                kind="manifest",
                seq=seq,
                id=identity,
                writer=self.writer,
                time=time_ms,
                intents=intents + named,
                merged=[key for key, _ in draft.merged],
            )

        manifest, parts, size = assemble(draft.pieces, state.seq, build, encode_manifest)
        assert size <= MANIFEST_BYTES_MAX, "the committer bounds what goes into a manifest"
        return manifest, parts, size

    async def _decide(self, seq: int, manifest: Manifest, parts: list[Buffer], deadline_s: float) -> bytes | None:
        """None once the slot holds this manifest, else the bytes that it holds instead (R2)."""
        key, pause_ms, sent = keys.manifest_key(seq), float(BACKOFF_MS_MIN), False
        while True:
            try:
                await self.hedge.send(lambda: self.chain.store.put_if_absent(key, parts))
                return None
            except (AlreadyExists, Raced) as error:
                # From here until the slot is read it may hold our own bytes, whatever the answer said.
                last: HeadwaterError = error
                sent = True
            except StorageFull as error:
                if sent:
                    raise self._unknown(seq, error) from error
                raise
            except (Unavailable, Throttled) as error:
                last = error
            except Indeterminate as error:
                last, sent = error, True
            except HeadwaterError as error:
                if not sent:
                    raise
                raise self._unknown(seq, error) from error
            if isinstance(last, Conflict):
                try:
                    holder = await self.chain.read_slot(seq)
                except HeadwaterError as error:
                    raise self._unknown(seq, error) from error
                if holder is not None:
                    return None if read_manifest(holder, seq).id == manifest.id else holder
            pause_s = self._rng.uniform(0, pause_ms) / 1_000
            if isinstance(last, Throttled):
                pause_s += last.retry_after_ms / 1_000
            if self._clock.elapsed_s() + pause_s > deadline_s:
                if sent:
                    raise self._unknown(seq, last) from last
                return await self._turned_away(seq, manifest, last)
            await self._clock.sleep(pause_s)
            pause_ms = min(pause_ms * 2, BACKOFF_MS_MAX)

    async def _turned_away(self, seq: int, manifest: Manifest, last: HeadwaterError) -> bytes | None:
        """Every sending was turned away. The slot has the last word; if it cannot be read, nobody knows."""
        try:
            holder = (await self.chain.store.get(keys.manifest_key(seq))).data
        except NotFound:
            raise Unavailable(f"Manifest {seq} was turned away until the deadline: {last}") from last
        except HeadwaterError as error:
            raise self._unknown(seq, error) from error
        return None if read_manifest(holder, seq).id == manifest.id else holder

    async def _slept(self, seq: int) -> None:
        """The PUT was answered behind the boundary: a recycled slot, or a commit whose answer we slept over.

        Both look the same from here, so nothing is deleted: a stray below the boundary is read by nobody, and
        the collector knows it by its having no reference. Whether it was a commit, the memory of ids tells.
        """
        await self.chain.refresh()
        if seq + WINDOW <= self.chain.state.seq:
            raise Indeterminate(
                f"This process slept while manifest {seq} was on its way; {self.chain.state.seq - seq} commits later "
                "nobody remembers whether it took effect. Read the log to see."
            )

    def _unknown(self, seq: int, last: HeadwaterError) -> Indeterminate:
        return Indeterminate(f"Manifest {seq} was sent and the store has not said what became of it: {last}")
