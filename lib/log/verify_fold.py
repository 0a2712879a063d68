"""The fold half of ``verify``: all manifests again, and everything that was ever derived from them beside it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from headwater.errors import Corrupt, NotFound
from headwater.log import index, keys
from headwater.log.chain import Chain
from headwater.log.intents import Manifest, decode_manifest
from headwater.log.operations import EndReserve, ExpireReserve, InitProducer, SwapFiles
from headwater.log.state import Entry, Outcome, State, apply
from headwater.log.verify_bytes import Bytes
from headwater.log.verify_kept import Kept
from headwater.log.verify_pruned import Pruned
from headwater.log.verify_sums import Place, Spans, Sums, digest

if TYPE_CHECKING:
    from headwater.log.verify import Listing, Report
    from headwater.types import Progress

READ_MAX = 8  # manifests read at once
IDS_MAX = 500_000  # intent ids of each of two generations, for finding one with effect twice
RECENT_MAX = 4_096  # manifests whose entries are kept to check the tails of snapshots

_PARTS = (
    *("topics", "names", "producers", "transactional", "groups", "recent"),
    *("config", "origins", "acls", "keys", "quotas", "once"),
)
_NUMBERS = ("time_ms", "format", "floor", "next_topic", "next_producer")


class Refold:
    """Folds the chain beside its snapshots and pages, and reports what differs."""

    def __init__(self, chain: Chain, listing: Listing, report: Report, on_progress: Progress) -> None:
        self.chain = chain
        self.listing = listing
        self.report = report
        self.on_progress = on_progress
        self.live = Sums()
        self._spans = Spans(end for first, last, _ in listing.pages for end in (first - 1, last))
        self._recent: deque[tuple[int, list[tuple[Place, Entry]]]] = deque(maxlen=RECENT_MAX)
        self._ids: tuple[set[int], set[int]] = (set(), set())
        self._snapshots = set(listing.snapshots)
        self._pruned = Pruned(listing.pages)
        self._broken: set[int] = set()

    async def final_state(self, newest: State) -> State:
        """The state at the end of the chain, from the newest snapshot: it says what readers can still reach."""
        state = _copy(newest)
        while state.seq < self.report.last_manifest:
            manifest, _ = await self._read(state.seq + 1)
            if manifest is None:
                break
            apply(state, manifest)
        return state

    async def run(self, base: State, newest: State, reachable: Bytes, kept: Kept) -> State:
        """Fold from ``base`` on and check all the way. The state that readers should have, with ``newest``'s pages."""
        state = _copy(base)
        await kept.archive(base, now=False)
        kept.pages(base.pages, now=False)
        kept.pages(newest.pages, now=True)
        await self._check_known_chunks(base, 0, reachable, kept)
        while state.seq < (last := self.report.last_manifest):
            numbers = range(state.seq + 1, min(state.seq + READ_MAX, last) + 1)
            found = await asyncio.gather(*(self._read(seq) for seq in numbers))
            for seq, (manifest, data) in zip(numbers, found, strict=True):
                if manifest is None:
                    state = await self._skip(state, seq, reachable, kept)
                    break
                new = self._fold(state, manifest, newest.paged, kept)
                await reachable.check(new, {keys.manifest_key(seq): data})
                for place, entry in new:
                    if reachable.live(place, entry):
                        self.live.add(*place, entry)
                kept.entries(new, state)
                self._pruned.add(seq, new, state)
                if seq in self._snapshots:
                    await self._check_snapshot(state, seq, kept)
                self.on_progress(
                    "manifests", seq - self.report.first_manifest + 1, last - self.report.first_manifest + 1
                )
        await self._check_pages(state, newest)
        state.pages, state.paged = list(newest.pages), newest.paged
        return state

    # -- manifests ---------------------------------------------------------------------------------

    async def _read(self, seq: int) -> tuple[Manifest | None, bytes]:
        try:
            data = (await self.chain.retry(lambda: self.chain.store.get(keys.manifest_key(seq)))).data
            return decode_manifest(data, seq), data
        except NotFound:
            self.report.add(
                "hole", keys.manifest_key(seq), "The manifest is missing, and later ones or snapshots exist."
            )
        except Corrupt as error:
            self.report.add("manifest", keys.manifest_key(seq), str(error))
        return None, b""

    def _fold(self, state: State, manifest: Manifest, paged: int, kept: Kept) -> list[tuple[Place, Entry]]:
        """Fold one manifest, check its outcomes, and take out the entries that it made readable."""
        key, sums = keys.manifest_key(manifest.seq), self._spans.at(manifest.seq)
        if manifest.time < state.time_ms:
            self.report.add("time", key, f"Its time {manifest.time} lies before its predecessor's {state.time_ms}.")
        known = {intent.id for intent in manifest.intents if intent.id in state.recent}
        touched = _touched(state, manifest)
        ends = {place: part.next for place in touched if (part := state.partition(*place))}
        outcomes = apply(state, manifest)
        self._check_outcomes(manifest, outcomes, known, ends)
        for intent, outcome in zip(manifest.intents, outcomes, strict=True):
            for op in intent.ops if not outcome.error else ():
                if isinstance(op, SwapFiles):
                    kept.swapped(op)
        self.report.count("manifests")
        self.report.count("intents", len(manifest.intents))
        new: list[tuple[Place, Entry]] = []
        for place in touched:
            partition = state.partition(*place)
            if partition is None:
                continue
            fresh = [entry for entry in partition.tail if entry.seq == manifest.seq]
            new += [(place, entry) for entry in fresh]
            for entry in fresh:
                sums.add(*place, entry)
            if manifest.seq <= paged:
                partition.tail = []
        self._recent.append((manifest.seq, new))
        return new

    def _check_outcomes(
        self, manifest: Manifest, outcomes: list[Outcome], known: set[str], ends: dict[Place, int]
    ) -> None:
        """R3: an intent has effect once. I3: offsets are dense. P3: all of an intent's appends, or none."""
        key = keys.manifest_key(manifest.seq)
        for intent, outcome in zip(manifest.intents, outcomes, strict=True):
            if intent.id in known or outcome.error:
                continue
            known.add(intent.id)
            if self._seen(intent.id):
                self.report.add("twice", key, f"Intent {intent.id!r} has had effect in an earlier manifest already.")
            if len(outcome.bases) != len(intent.appends):
                self.report.add("torn", key, f"Of intent {intent.id!r} only {len(outcome.bases)} appends are visible.")
            for chunk, base in zip(intent.appends, outcome.bases, strict=False):
                place = (chunk.topic, chunk.partition)
                end = ends.get(place, 0)
                if base == end:
                    ends[place] = end + chunk.count
                elif base > end or chunk.seq < 0:  # a repeated sequence answers with its first offset
                    self.report.add("offsets", key, f"Intent {intent.id!r} got offset {base} where {end} comes next.")

    def _seen(self, intent_id: str) -> bool:
        old, young = self._ids
        mark = hash(intent_id)
        if mark in young or mark in old:
            return True
        young.add(mark)
        if len(young) >= IDS_MAX:
            self._ids = young, set()
        return False

    async def _skip(self, state: State, broken: int, reachable: Bytes, kept: Kept) -> State:
        """Go on behind a manifest that cannot be folded, at the next snapshot that can be read."""
        from headwater.log.verify import read_snapshot

        self.live.complete = False
        for seq in sorted(self._snapshots):
            found = await read_snapshot(self.chain, seq, self.report) if seq >= broken else None
            if found is not None:
                self.report.notes.append(
                    f"Manifests {broken} to {seq} were skipped: the fold went on from snapshot {seq}."
                )
                self._pruned.give_up(seq)
                await kept.archive(found, now=False)
                await self._check_known_chunks(found, broken, reachable, kept)
                return _copy(found)
        self.report.notes.append(
            f"Manifests {broken} to {self.report.last_manifest} could not be folded: no snapshot lies behind them."
        )
        self.report.last_manifest = state.seq
        return state

    # -- snapshots and pages -------------------------------------------------------------------------

    async def _check_snapshot(self, state: State, seq: int, kept: Kept) -> None:
        from headwater.log.verify import read_snapshot

        key, found = keys.snapshot_key(seq), await read_snapshot(self.chain, seq, self.report)
        if found is None:
            return
        self.report.count("snapshots")
        kept.pages(found.pages, now=False)
        wrong = [name for name in _NUMBERS if getattr(found, name) != getattr(state, name)]
        ours, theirs = _copy(state, tails=False), _copy(found, tails=False)
        wrong += [name for name in _PARTS if getattr(ours, name) != getattr(theirs, name)]
        if wrong:
            self.report.add("snapshot", key, f"It differs from the fold of the manifests in {', '.join(wrong)}.")
        self._check_tails(key, found)
        position = 0
        for ref in found.pages:
            if ref.first <= position or ref.last > found.paged:
                self.report.add("snapshot", key, f"Its page {ref.first} to {ref.last} overlaps another or the tails.")
            position = ref.last

    def _check_tails(self, key: str, found: State) -> None:
        """The entries that a snapshot holds itself are those of the manifests behind its pages."""
        if self._recent and self._recent[0][0] > found.paged + 1 and found.paged < found.seq:
            return  # further back than is remembered
        expected, actual = Sums(), Sums()
        for seq, entries in self._recent:
            for place, entry in entries if seq > found.paged else ():
                expected.add(*place, entry)
        for topic in found.topics.values():
            for number, partition in enumerate(topic.partitions):
                for entry in partition.tail:
                    actual.add(topic.id, number, entry)
        for place in {*expected.places(), *actual.places()}:
            if found.partition(*place) is not None and expected.of(*place) != actual.of(*place):
                self.report.add(
                    "snapshot", key, f"Its chunks of topic {place[0]}, partition {place[1]} are not the manifests'."
                )

    async def _check_pages(self, state: State, newest: State) -> None:
        for ref in newest.pages:
            key = keys.index_key(ref.first, ref.last, ref.pruned)
            own = self.chain.home(key, newest) is self.chain.store
            if own and (ref.first, ref.last, ref.pruned) not in self.listing.pages:
                self.report.add("missing", key, f"The index page does not exist and snapshot {newest.seq} needs it.")
        for done, (first, last, pruned) in enumerate(self.listing.pages):
            self.on_progress("pages", done, len(self.listing.pages))
            runs = await self._read_page(first, last, pruned, state)
            if runs is None:
                continue
            self.report.count("pages")
            if not pruned:
                self._check_page(first, last, runs, state)
            elif wrong := self._pruned.wrong((first, last, pruned), runs):
                where = ", ".join(f"topic {topic}, partition {number}" for topic, number in wrong[:3])
                key = keys.index_key(first, last, pruned)
                what = f"those of manifests {first} to {last} that were live as of commit {pruned}"
                self.report.add("index", key, f"Its chunks of {where} are not {what}.")

    def _check_page(self, first: int, last: int, runs: dict[Place, list[Entry]], state: State) -> None:
        if not self._spans.covers(first, last):
            return  # behind the boundary or a damage: nothing to compare with
        for place in {*runs, *self._spans.places(first, last)}:
            entries = runs.get(place, [])
            total = sum(digest(*place, entry) for entry in entries) % (1 << 64)
            if (total, len(entries)) == self._spans.over(first, last, place):
                continue
            # A topic that was deleted before the page was sealed is not in it, and nobody will ask for it.
            if state.partition(*place) is not None:
                key = keys.index_key(first, last)
                where = f"topic {place[0]}, partition {place[1]}"
                self.report.add("index", key, f"Its chunks of {where} are not those of manifests {first} to {last}.")

    async def _read_page(self, first: int, last: int, pruned: int, state: State) -> dict[Place, list[Entry]] | None:
        key = keys.index_key(first, last, pruned)
        try:
            data = (await self.chain.read(key, state=state)).data
            header, start = index.decode_header(data)
            if (header.first, header.last) != (first, last):
                raise Corrupt(f"It says that it covers manifests {header.first} to {header.last}.")
            return {
                (run.topic, run.partition): index.decode_run(run, data[start + run.pos : start + run.pos + run.len])
                for run in header.runs
            }
        except (Corrupt, NotFound) as error:
            self.report.add("index", key, str(error))
            return None

    async def _check_known_chunks(self, state: State, first: int, reachable: Bytes, kept: Kept) -> None:
        """Chunks of manifests from ``first`` on that cannot be folded are known from a snapshot's pages and tails."""
        kept.reservations(state)
        for ref in state.pages:
            if ref.last < first:
                continue
            runs = await self._read_page(ref.first, ref.last, ref.pruned, state)
            if runs is None:
                self.live.complete = False
            placed = [(place, entry) for place, run in (runs or {}).items() for entry in run if entry.seq >= first]
            self._note_known(placed, state, reachable, kept)
            await reachable.check(sorted(placed, key=lambda pair: (pair[1].obj, pair[1].pos)))
        for topic in state.topics.values():
            for number, partition in enumerate(topic.partitions):
                tail = [((topic.id, number), entry) for entry in partition.tail if entry.seq >= first]
                self._note_known(tail, state, reachable, kept)
                await reachable.check(tail)

    def _note_known(self, placed: list[tuple[Place, Entry]], state: State, reachable: Bytes, kept: Kept) -> None:
        kept.entries(placed, state)
        for place, entry in placed:
            if reachable.live(place, entry):
                self.live.add(*place, entry)


def _touched(state: State, manifest: Manifest) -> list[Place]:
    """The partitions in which the manifest may make chunks readable."""
    found: dict[Place, None] = {}
    for intent in manifest.intents:
        found.update(((chunk.topic, chunk.partition), None) for chunk in intent.appends)
        for op in intent.ops:
            if isinstance(op, EndReserve | ExpireReserve | InitProducer):
                pid = op.pid if not isinstance(op, InitProducer) or op.pid >= 0 else state.transactional.get(op.tid, -1)
                producer = state.producers.get(pid)
                found.update((place, None) for place in (producer.open if producer else ()))
    return list(found)


def _copy(state: State, *, tails: bool = True) -> State:
    copied = state.copied()
    if not tails:
        for topic in copied.topics.values():
            for partition in topic.partitions:
                partition.tail = []
    return copied
