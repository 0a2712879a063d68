"""Walk a namespace and check every invariant, trusting nothing but the manifests.

    list ──► what is there: the chain without holes, snapshots, index pages, segments
    fold ──► all manifests again, from nothing (or, behind a boundary, from the oldest snapshot)
               every snapshot equals the fold at its number; every page holds what the manifests say;
               no intent has effect twice; a commit's appends have dense offsets, all or none of them
    bytes ─► every chunk that a reader can still reach: object there, header right, CRC32C, count, times
    archive ► every file that a reader can still reach: there, size, CRC32C, footer, count, offsets, times; the files of
               a partition meet end to end, from its log start to where its chunks begin
    index ─► the pages and tails that readers use cover [what is archived, end) of every partition, once
    names ─► what the oldest readable state or any commit since names is there; the rest are orphans, by kind

Nothing is written. Memory: the state, the names of all objects but manifests, a sum for each partition and index page,
`WATCHED_MAX` entries, and the objects in flight (at most `OBJECTS_MAX`). Cost: reads every object about once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headwater.clock import Clock
from headwater.errors import Corrupt, NotFound
from headwater.log import keys, snapshot
from headwater.log.chain import Chain
from headwater.log.house import House
from headwater.log.lookup import Lookup
from headwater.log.options import Options
from headwater.log.state import Entry, State
from headwater.log.verify_bytes import Bytes
from headwater.log.verify_files import Files
from headwater.log.verify_fold import Refold
from headwater.log.verify_kept import Kept
from headwater.log.verify_sums import Sums, digest
from headwater.store.base import ObjectStore
from headwater.store.prefixed import PrefixedStore
from headwater.types import Progress

PROBLEMS_MAX = 1_000  # listed; all are counted
LOOKS_MAX = 3  # how often it looks again if something is missing and a collector was at work
NUMBERS_MAX = 5  # missing manifests named one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One broken invariant, and the object to look at."""

    kind: str
    key: str
    message: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found. ``problems`` are broken invariants, ``notes`` are facts worth knowing."""

    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    notes: list[str] = field(default_factory=list)
    first_manifest: int = 0
    last_manifest: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    orphans: dict[str, tuple[int, int]] = field(default_factory=dict)  # kind: objects and bytes that nothing names

    @property
    def clean(self) -> bool:
        """Whether every invariant holds."""
        return not self.problem_count

    def add(self, kind: str, key: str, message: str) -> None:
        """Note a broken invariant, once."""
        problem = Problem(kind=kind, key=key, message=message)
        if problem in self.problems:
            return
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    def count(self, what: str, more: int = 1) -> None:
        """Add to a figure."""
        self.counts[what] = self.counts.get(what, 0) + more

    def as_dict(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "first_manifest": self.first_manifest,
            "last_manifest": self.last_manifest,
            **self.counts,
            "orphans_by_kind": {kind: {"objects": n, "bytes": size} for kind, (n, size) in self.orphans.items()},
            "problem_count": self.problem_count,
            "problems": [{"kind": p.kind, "key": p.key, "message": p.message} for p in self.problems],
            "notes": self.notes,
        }


@dataclass(slots=True)
class Listing:
    """What lies in the namespace: numbers, and the sizes of what something must name, or else it is an orphan."""

    manifests: list[int] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    pages: list[tuple[int, int, int]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    branches: list[str] = field(default_factory=list)
    boundary: int = 1
    latest: bool = False


async def verify(
    store: ObjectStore, *, clock: Clock, rng: random.Random, on_progress: Progress = lambda *_: None
) -> Report:
    """Check the namespace that ``store`` shows (keys relative to it), as of when the listing began.

    Raises what the store raises when it cannot be read at all; everything else is in the report.
    """
    chain = Chain(store, clock=clock, rng=rng, options=Options(), sibling=_siblings(store))
    for _ in range(LOOKS_MAX):
        report = Report()
        await _verify(chain, report, on_progress)
        if report.clean or await chain.read_boundary() <= report.first_manifest:
            break
    else:
        report.notes.append("A collector is at work: what is missing may have been collected meanwhile. Run it again.")
    return report


def _siblings(store: ObjectStore) -> Callable[[str], ObjectStore] | None:
    """How the other namespaces of the bucket are reached, if this is a view of one: branches share objects."""
    if not isinstance(store, PrefixedStore):
        return None
    return lambda name: PrefixedStore(store.inner, f"{name}/")


async def _verify(chain: Chain, report: Report, on_progress: Progress) -> None:
    listing = await _list(chain, report)
    if not listing.manifests and not listing.snapshots:
        report.notes.append("The namespace has no commits.")
        return
    _check_chain(listing, report)
    base, newest = await _base_and_newest(chain, listing, report)
    refold = Refold(chain, listing, report, on_progress)
    final = await refold.final_state(newest)
    reachable, kept = Bytes(chain, final, report), Kept(chain, final, listing.boundary)
    folded = await refold.run(base, newest, reachable, kept)
    await Files(chain, final, report, on_progress).check()
    await _check_latest(chain, listing, report)
    await _check_index(chain, folded, final, refold.live, report, on_progress)
    await kept.archive(final, now=True)
    kept.reservations(final)
    await kept.report(listing, report)
    _note_orphans(listing, report)


async def _list(chain: Chain, report: Report) -> Listing:
    listing = Listing()
    async for stat in chain.store.list(""):
        try:
            _file(listing, stat.key, stat.size)
        except Corrupt as error:
            report.notes.append(f"{stat.key!r} is no object of ours: {error}")
        report.count("objects")
        report.count("object_bytes", stat.size)
    listing.pages.sort()
    return listing


def _file(listing: Listing, key: str, size: int) -> None:
    if key.startswith(keys.MANIFESTS):
        seq = keys.parse_numbered_key(key)
        listing.manifests.append(seq)
        if seq >= listing.boundary:  # boundaries come first in a listing
            return
    elif key.startswith(keys.SNAPSHOTS):
        listing.snapshots.append(keys.parse_numbered_key(key))
    elif key.startswith(keys.INDEXES):
        listing.pages.append(keys.parse_index_key(key))
    elif key.startswith(keys.SEGMENTS):
        keys.parse_segment_key(key)
    elif key.startswith(keys.ARCHIVE):
        keys.parse_archive_key(key)
    elif key.startswith(keys.FILE_PAGES):
        keys.parse_file_page_key(key)
    elif key.startswith(keys.BOUNDARIES):
        listing.boundary = max(listing.boundary, keys.parse_numbered_key(key))
    elif key.startswith(keys.BRANCHES):
        listing.branches.append(keys.parse_branch_key(key)[1])
        return
    elif key == keys.LATEST:
        listing.latest = True
        return
    elif key in (keys.COLLECTED, keys.MAINTAINED, keys.BELL) or key.startswith((keys.LEASES, *keys.DOCUMENTS)):
        return
    else:
        raise Corrupt("its name has no known form")
    listing.sizes[key] = size


def _check_chain(listing: Listing, report: Report) -> None:
    """The chain has no holes from the boundary on, and no snapshot knows more than it."""
    report.first_manifest = listing.boundary
    there = [seq for seq in listing.manifests if seq >= listing.boundary]
    report.last_manifest = there[-1] if there else listing.boundary - 1
    expected = listing.boundary
    for seq in there:
        _missing(report, expected, seq)
        expected = seq + 1
    if listing.snapshots and listing.snapshots[-1] > report.last_manifest:
        _missing(report, report.last_manifest + 1, listing.snapshots[-1] + 1)


def _missing(report: Report, first: int, end: int) -> None:
    for seq in range(first, min(end, first + NUMBERS_MAX)):
        report.add("hole", keys.manifest_key(seq), "The manifest is missing, and later ones or snapshots exist.")
    if end - first > NUMBERS_MAX:
        key = keys.manifest_key(first + NUMBERS_MAX)
        report.add("hole", key, f"This manifest and all up to {end - 1} are missing.")


async def _base_and_newest(chain: Chain, listing: Listing, report: Report) -> tuple[State, State]:
    """Where the fold begins, and the newest snapshot that can be read (each empty if there is none)."""
    newest = State()
    for seq in reversed(listing.snapshots):
        found = await read_snapshot(chain, seq, report)
        if found is not None:
            newest = found
            break
    if listing.boundary == 1:
        return State(), newest
    for seq in listing.snapshots:
        found = await read_snapshot(chain, seq, report) if seq >= listing.boundary - 1 else None
        if found is not None:
            return found, newest
    report.add(
        "boundary",
        keys.boundary_key(listing.boundary),
        f"Manifests below {listing.boundary} are deleted and no snapshot from there on can be read.",
    )
    return State(), newest


async def read_snapshot(chain: Chain, seq: int, report: Report) -> State | None:
    """The snapshot, or a problem in the report."""
    key = keys.snapshot_key(seq)
    try:
        return snapshot.decode((await chain.retry(lambda: chain.store.get(key))).data, seq)
    except (Corrupt, NotFound) as error:
        report.add("snapshot", key, str(error))
        return None


async def _check_latest(chain: Chain, listing: Listing, report: Report) -> None:
    if not listing.latest:
        if listing.snapshots:
            report.notes.append("There are snapshots and no 'latest': cold starts are slow until the next snapshot.")
        return
    try:
        named = snapshot.decode_latest((await chain.retry(lambda: chain.store.get(keys.LATEST))).data)
    except (Corrupt, NotFound) as error:
        report.add("latest", keys.LATEST, str(error))
        return
    if named and named not in listing.snapshots and named + 1 >= listing.boundary:
        greatest = listing.snapshots[-1] if listing.snapshots else 0
        # One that was written after our listing is younger than all we have seen; look before blaming.
        if named < greatest or await read_snapshot(chain, named, Report()) is None:
            report.add("latest", keys.LATEST, f"It names {keys.snapshot_key(named)}, which does not exist.")


async def _check_index(
    chain: Chain, folded: State, final: State, live: Sums, report: Report, on_progress: Progress
) -> None:
    """I3 as readers meet it: entries cover [log start, end) without hole or overlap, and are those of the manifests."""
    chain.state = folded
    lookup = Lookup(chain, House(chain, writer="verify"))
    places = [(topic, number) for topic in final.topics.values() for number in range(len(topic.partitions))]
    report.count("topics", len(final.topics))
    report.count("partitions", len(places))
    for done, (topic, number) in enumerate(places):
        on_progress("index", done, len(places))
        place = folded.partition(topic.id, number)
        if place is None:
            continue
        where = f"Topic {topic.name!r}, partition {number}"
        try:
            entries = [entry async for entry in lookup.entries(topic.id, number, place.hot) if entry.end > place.hot]
        except (Corrupt, NotFound) as error:
            report.add("index", str(error.data.get("key", "")), f"{where}: the index cannot be read: {error}")
            continue
        total = sum(digest(topic.id, number, entry) for entry in entries) % (1 << 64)
        covered = sorted([*entries, *(held.entry for held in place.held)], key=lambda entry: entry.base)
        _check_dense(where, covered, place.hot, place.next, report)
        if live.complete and (total, len(entries)) != live.of(topic.id, number):
            report.add("index", "", f"{where}: pages and tails do not name the chunks that the manifests name.")


def _check_dense(where: str, entries: list[Entry], start: int, end: int, report: Report) -> None:
    position = start
    for at, entry in enumerate(entries):
        key = entry.obj or keys.manifest_key(entry.seq)
        if entry.base > position or (entry.base < position and at):
            what = "a hole" if entry.base > position else "an overlap"
            report.add(
                "offsets",
                key,
                f"{where}: {what} between offsets {min(position, entry.base)} and {max(position, entry.base)}.",
            )
        position = max(position, entry.end)
    if position != end:
        report.add("offsets", "", f"{where}: chunks end at offset {position} and the log at {end}.")


def _note_orphans(listing: Listing, report: Report) -> None:
    objects, size = (sum(part) for part in zip((0, 0), *report.orphans.values(), strict=True))
    report.count("segments", sum(key.startswith(keys.SEGMENTS) for key in listing.sizes))
    report.count("orphans", objects)
    report.count("orphan_bytes", size)
    if objects:
        kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, (count, _) in sorted(report.orphans.items()))
        report.notes.append(
            f"{objects} objects with {size} bytes are named by nothing that can be read ({kinds}): aborted or "
            "unfinished work, or what the next collections take."
        )
    if report.counts.get("history"):
        report.notes.append(
            f"{report.counts['history']} objects with {report.counts['history_bytes']} bytes are kept for reads as of "
            "earlier commits alone (history.retention.ms)."
        )
    if listing.branches:
        report.notes.append(f"Branches share objects of this namespace: {', '.join(sorted(listing.branches))}.")
