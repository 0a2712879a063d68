"""What must stay: the horizon of a namespace, and every object that a state names.

The horizon is a snapshot so old that nobody is promised anything from before it. Being dead is for ever: a chunk that
is archived or trimmed, a file that was replaced, a topic that was deleted never comes back. So what the state at the
horizon does not name, no later state can come to need, except for objects that were made later; and those are known by
the numbers in their keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from headwater.errors import Corrupt, NotFound
from headwater.log import files, index, keys, snapshot
from headwater.log.chain import Chain, naming, owner_of, read_manifest
from headwater.log.intents import branched_from, decode_hint
from headwater.log.operations import FilePage
from headwater.log.state import Entry, PageRef, Partition, State, apply
from headwater.store.base import Stat

LOOK_AGAIN_MAX: Final = 3  # how often what another collector has just taken away is looked for anew
LINE_BYTES_GUESS: Final = 16 * 1024  # the line of a snapshot: 300 pages fit


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot in a listing, and when the store says that it was written."""

    seq: int
    modified_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a run goes by. ``now_ms`` is the store's clock (C8), which alone judges how old things are."""

    snapshots: tuple[Seen, ...] = ()
    boundary: int = 1
    now_ms: int = 0

    @property
    def newest(self) -> Seen | None:
        return self.snapshots[-1] if self.snapshots else None

    def aged(self, age_ms: int) -> list[int]:
        """The snapshots at least so old, the newest first, down to the boundary."""
        old = [seen.seq for seen in self.snapshots if seen.modified_ms + age_ms <= self.now_ms]
        return [seq for seq in reversed(old) if seq + 1 >= self.boundary]


async def survey(chain: Chain) -> Survey:
    """Cost: 2 LISTs, and 1 more for every 1,000 snapshots."""
    boundary = await chain.read_boundary()
    stats = await chain.listed(keys.SNAPSHOTS)
    seen = tuple(Seen(keys.parse_numbered_key(stat.key), stat.modified_ms) for stat in stats)
    return Survey(snapshots=seen, boundary=boundary, now_ms=max((stat.date_ms for stat in stats), default=0))


async def load(chain: Chain, seq: int) -> State:
    """The state in a snapshot; the empty one for 0. Raises ``NotFound`` or ``Corrupt``."""
    if seq == 0:
        return State()
    key = keys.snapshot_key(seq)
    blob = await chain.retry(lambda: chain.store.get(key))
    with naming(key):
        return snapshot.decode(blob.data, seq)


async def pages_of(chain: Chain, seq: int) -> list[PageRef]:
    """The index pages that a snapshot names. Cost: 1 GET of its line. Raises ``NotFound`` or ``Corrupt``."""
    key = keys.snapshot_key(seq)
    size = LINE_BYTES_GUESS
    while True:
        end = size
        data = (await chain.retry(lambda: chain.store.get(key, end=end))).data  # noqa: B023 - called at once
        with naming(key):
            size = snapshot.header_bytes(data)
            if size <= end:
                return snapshot.pages_named(data, seq)


# -- what a state names -------------------------------------------------------------------------------


class Marks:
    """Keys that must stay, as 64-bit hashes in a set: about 70 MB for each million.

    Two keys with one hash would make an object stay that nobody needs; never the other way round.
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, key: str) -> None:
        self._hashes.add(hash(key))

    def __contains__(self, key: str) -> bool:
        return hash(key) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)


async def mark(chain: Chain, state: State, marks: Marks, name: str = "") -> None:
    """Mark every object of the namespace ``name`` that ``state`` names; empty for the state's own.

    Named are the index pages, the segments and manifests of live chunks and of open reservations, and the files and
    file pages of the archive. A reservation is an entry that is released later, perhaps behind the horizon.

    Raises:
        NotFound: a page is gone. Another collector has moved on, or the snapshot is no good.
        Corrupt: a page is damaged.

    Cost: 1 GET a page; 1 to 2 µs of CPU an entry. Memory: one page, and the marks.
    """
    marker = _Marker(state, marks, name)
    for ref in state.pages:
        await _mark_page(chain, state, ref, marker)
    for topic in state.topics.values():
        for partition in topic.partitions:
            _mark_entries(partition.tail, partition.hot, marker)
            _mark_entries((held.entry for held in partition.held), -1, marker)
            await _mark_archive(chain, state, partition, marker)
        await chain.clock.sleep(0)


@dataclass(slots=True)
class _Marker:
    state: State
    marks: Marks
    name: str
    last: str = ""

    def add(self, key: str) -> None:
        if key != self.last and (not self.state.origins or owner_of(key, self.state) == self.name):
            self.marks.add(key)
        self.last = key


def _mark_entries(entries: Iterable[Entry], hot: int, marker: _Marker) -> None:
    add = marker.add
    for entry in entries:
        if entry.end > hot and entry.codec != "gap":
            add(entry.obj or keys.manifest_key(entry.seq))


async def _mark_page(chain: Chain, state: State, ref: PageRef, marker: _Marker) -> None:
    key = keys.index_key(ref.first, ref.last, ref.pruned)
    data = (await chain.read(key, state=state)).data
    marker.add(key)
    with naming(key):
        header, base = index.decode_header(data)
        for run in header.runs:
            partition = state.partition(run.topic, run.partition)
            if partition is None or run.end <= partition.hot:
                continue
            entries = index.decode_run(run, data[base + run.pos : base + run.pos + run.len])
            _mark_entries(entries, partition.hot, marker)
            await chain.clock.sleep(0)


async def _mark_archive(chain: Chain, state: State, partition: Partition, marker: _Marker) -> None:
    archive = partition.archive
    if archive is None:
        return
    for file in archive.files:
        marker.add(file.key)
    for page in archive.pages:
        marker.add(page.key)
        for listed in await listed_in(chain, page, state):
            marker.add(listed)


async def listed_in(chain: Chain, page: FilePage, state: State) -> list[str]:
    """The keys of the files that a page lists. Raises ``NotFound`` or ``Corrupt``."""
    data = (await chain.read(page.key, state=state)).data
    with naming(page.key):
        return [file.key for file in files.decode(page, data)]


# -- branches -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Family:
    """What the branches of a namespace, and theirs, need of it.

    ``members`` are those that exist, each with its horizon. ``unfinished`` are those that are being made, or whose
    making broke off, from before the horizon.
    """

    members: list[tuple[Chain, int]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


async def mark_branches(chain: Chain, horizon: int, marks: Marks, name: str) -> Family:
    """Mark what the branches of the namespace ``name`` need of it, and theirs, and so on.

    A branch needs what the state at its own horizon names; that is the snapshot below its boundary, since its collector
    takes the same care. One that is not finished needs what the state at its pin names, and all that leads to that
    state; if this was at or behind ``horizon``, it is kept anyway.

    Cost: 1 LIST; for each branch 2 LISTs, 1 GET, and 1 GET for each of its index pages.
    """
    family = Family()
    waiting = [(chain, name, horizon)]
    while waiting:
        parent, parent_name, limit = waiting.pop()
        for seq, child_name in await _pins(parent):
            child = Chain(
                parent.other(child_name),
                clock=parent.clock,
                rng=parent.rng,
                options=parent.options,
                sibling=parent.sibling,
            )
            state = await _marked(child, marks, name)
            if state is None:
                own = "" if parent is chain else name
                wanted = seq < limit and not await _is_other(child, parent_name, seq)
                if wanted and await _marked_at(parent, seq, marks, own):
                    family.unfinished.append(child_name)
            elif any((origin.namespace, origin.seq) == (parent_name, seq) for origin in state.origins):
                family.members.append((child, state.seq))
                waiting.append((child, child_name, state.seq))
    return family


async def _marked_at(chain: Chain, seq: int, marks: Marks, name: str) -> bool:
    """Mark what a branch of commit ``seq`` will need, and the snapshot and manifests that lead there.

    False if they are gone. Then the branch was pinned too late, and its maker found the boundary above it: had it been
    there in time, every collector since would have kept them.
    """
    below = [seen.seq for seen in (await survey(chain)).snapshots if seen.seq <= seq]
    first = below[-1] if below else 0
    try:
        state = await load(chain, first)
        while state.seq < seq:
            data = await chain.read_slot(state.seq + 1)
            if data is None:
                return False
            apply(state, read_manifest(data, state.seq + 1))
        await mark(chain, state, marks, name)
    except (NotFound, Corrupt):
        return False
    if not name:
        marks.add(keys.snapshot_key(first))
        for number in range(first + 1, seq + 1):
            marks.add(keys.manifest_key(number))
    return True


async def _pins(chain: Chain) -> list[tuple[int, str]]:
    return [keys.parse_branch_key(stat.key) for stat in await chain.listed(keys.BRANCHES)]


async def _marked(child: Chain, marks: Marks, name: str) -> State | None:
    """The state at the horizon of a branch, once all that it names is marked; None if there is none yet."""
    for _ in range(LOOK_AGAIN_MAX):
        boundary = await child.read_boundary()
        if boundary == 1:
            return None
        try:
            state = await load(child, boundary - 1)
            await mark(child, state, marks, name)
        except NotFound:
            continue  # its own collector has moved on, or it is being dropped
        return state
    return None


async def _is_other(child: Chain, parent: str, seq: int) -> bool:
    """Whether the name of a branch that was never finished belongs to another namespace by now."""
    data = await child.read_slot(1)
    if data is None:
        return False
    op = branched_from(data)
    return op is None or (op.namespace, op.seq) != (parent, seq)


# -- the hint -----------------------------------------------------------------------------------------


class Collected(Struct, frozen=True, forbid_unknown_fields=True):
    """The line of ``collected``: everything below ``boundary`` was swept, with a floor raised as far as ``aged``.

    At ``again_ms`` by the store's clock there is more to do for a sweep with these very numbers; 0 for never. ``kept``
    snapshots below the horizon stay for unfinished branches; any others are strays.
    """

    v: int
    kind: str
    boundary: int
    aged: int
    again_ms: int = 0
    kept: int = 0


_hints = msgspec.json.Decoder(Collected)


async def read_collected(chain: Chain) -> tuple[Collected, int] | None:
    """The hint of the last complete sweep, and when it was written. Cost: 1 GET."""
    try:
        blob = await chain.retry(lambda: chain.store.get(keys.COLLECTED))
        return decode_hint(_hints, blob.data, "hint 'collected'"), blob.stat.modified_ms
    except (NotFound, Corrupt):
        return None


async def stats_under(chain: Chain, prefix: str, goes_on: Callable[[Stat], bool]) -> AsyncIterator[Stat]:
    """What lies under a prefix, as long as ``goes_on``; a listing that broke off is taken up where it was."""
    last, ended = "", False
    while not ended:
        stats = await chain.listed(prefix, start_after=last, limit=PAGE_KEYS)
        ended = len(stats) < PAGE_KEYS
        for stat in stats:
            if not goes_on(stat):
                return
            yield stat
            last = stat.key


PAGE_KEYS: Final = 1_000  # of one LIST, as S3 answers
