"""Judge archive, retention, compaction, collection, branches and reads of the past against what truly happened.

The truth is a ``Tale``; the accused are the commits of chores, the deletions, and what readers saw. Retention and
compaction may take what Kafka's semantics let them take, nothing else; nothing is deleted that a state within
``history.retention.ms`` needs; a look at the past shows the past.

A clock may be wrong by ``skew_ms``, so claims about time are held against the store's clock with that much grace.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from headwater.log import keys, snapshot
from headwater.log.config import FOREVER, TopicConfig
from headwater.log.state import State
from headwater.sim.checker import Violation
from headwater.sim.chronicle import MAIN, Place, RememberingBucket, Row, Step, Swap, Tale
from headwater.sim.history import TP

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "archive-changed": "a file holds a record that was never at that offset, or another one",
        "archive-lost": "a swap took a record that nothing supersedes",
        "archive-revived": "a record that was compacted away is back, or outlives the tombstone that hid it",
        "tombstone-early": "a tombstone went before delete.retention.ms",
        "retention-early": "the log start moved past a record that was to be kept",
        "as-of": "a look at an earlier commit shows something else than was true then",
        "as-of-refused": "a commit within history cannot be read",
        "read-wrong": "a reader saw a record that is not at that offset",
        "read-missed": "a reader passed over a record that is there",
        "ack-lost": "an acknowledged record is not where the answer said",
        "deleted-early": "an object was deleted that a state within history needs",
        "garbage": "an object that nobody needs outlived the grace",
        "branch-differs": "a branch does not begin as its origin was",
        "restless": "a collector with nothing to do writes or deletes something",
        "verify": "`headwater verify` finds damage",
    }
)

RESOLUTION_MS = 1_000  # of the store's clock


@dataclass(frozen=True, slots=True)
class Sight:
    """Records that a reader was given for offsets ``[start, end)``, as of ``commit`` or later."""

    namespace: str
    tp: TP
    commit: int
    start: int
    end: int
    rows: dict[int, Row]
    whole: bool = True  # False: an old file, so that what is missing proves nothing


@dataclass(frozen=True, slots=True)
class Cut:
    """A look at everything, or some partitions, as of ``commit``. ``error`` if it was refused as collected."""

    namespace: str
    commit: int
    ended_ms: int
    places: dict[TP, tuple[int, int, dict[int, Row]]] = field(default_factory=dict)  # log start, end, records
    offsets: dict[tuple[str, int, int], int] = field(default_factory=dict)  # by group, topic, partition
    error: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """An append that was acknowledged: where, in which commit."""

    namespace: str
    tp: TP
    commit: int
    base: int
    rows: tuple[tuple[bytes | None, bytes | None], ...]  # key, value


@dataclass(frozen=True, slots=True)
class Made:
    """A branch that was asked for. It exists if its ``latest`` does."""

    name: str
    origin: str
    commit: int
    topic: str = ""


@dataclass(slots=True)
class Statements:
    """What the actors of a world report."""

    sights: list[Sight] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    branches: list[Made] = field(default_factory=list)
    trims: dict[TP, int] = field(
        default_factory=dict
    )  # up to where somebody asked to trim a partition of the first one


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the world promises: history in ms, the error of clocks, when it ended by the store's clock."""

    history_ms: int
    skew_ms: int
    quiet_ms: int  # since when nobody but upkeep commits; what is older than that is garbage if it is not needed
    tidy: bool = True  # whether upkeep ran for long enough that garbage must be gone


class Court:
    """Every broken promise that is found. Afterwards ``tales`` are at their ends, for other questions.

    Cost: a second fold of each namespace, and every file is read once.
    """

    def __init__(self, bucket: RememberingBucket, said: Statements, rules: Rules) -> None:
        self.bucket = bucket
        self.said = said
        self.rules = rules
        self.found: list[Violation] = []
        self.tales: dict[str, Tale] = {}
        self.names: dict[str, list[tuple[int, dict[TP, Place]]]] = {}  # partitions by name, since which commit
        self.aged: dict[str, list[tuple[int, int]]] = {}  # snapshots: number, and when it was stored

    def judge(self) -> list[Violation]:
        """Every broken promise, once."""
        self.hear(Tale(self.bucket))
        return [*self.found, *self.sights(), *self.acks(), *self.deletions(), *self.garbage()]

    # -- commit by commit ----------------------------------------------------------------------------

    def hear(self, tale: Tale) -> None:
        """Fold a namespace and, where they leave it, its branches."""
        self.tales[tale.name] = tale
        self.names[tale.name] = [(tale.state.seq, tale.places())]
        self.aged[tale.name] = [
            (keys.parse_numbered_key(key.partition("/")[2]), self.bucket.first[key].at_ms)
            for key in self.bucket.names(f"{tale.name}/{keys.SNAPSHOTS}")
        ]
        starts = _starts(tale.state)
        self._at(tale)
        for step in tale.steps():
            for swap in step.swaps:
                self.found += self._swap(tale, swap)
            now = _starts(tale.state)
            self.found += self._trims(tale, step, starts, now)
            starts = now
            if tale.places() != self.names[tale.name][-1][1]:
                self.names[tale.name].append((step.seq, tale.places()))
            self._at(tale)

    def _at(self, tale: Tale) -> None:
        """What was said of this very commit, and the branches that begin here."""
        for cut in self.said.cuts:
            if (cut.namespace, cut.commit) == (tale.name, tale.state.seq) and not cut.error:
                self.found += self._cut(tale, cut)
        for made in self.said.branches:
            if (made.origin, made.commit) == (tale.name, tale.state.seq):
                self._branch(tale, made)

    def _swap(self, tale: Tale, swap: Swap) -> Iterator[Violation]:
        op, place = swap.op, (swap.op.topic, swap.op.partition)
        rows, kept = tale.rows.get(place, {}), tale.kept.get(place, [])
        inside = kept[bisect_left(kept, op.base) : bisect_left(kept, op.end)]
        after = {offset: row for file in swap.after for offset, row in tale.records(file).items()}
        where = f"{tale.name} commit {swap.seq}, partition {place}"
        for offset, row in after.items():
            if rows.get(offset) != row:
                yield Violation("archive-changed", f"{where}: offset {offset} is {row}, was {rows.get(offset)}")
        if back := sorted(set(after) - set(inside)):
            yield Violation("archive-revived", f"{where}: {back} had been compacted away")
        for file in swap.after:
            if len(tale.records(file)) != file.count:
                yield Violation("archive-changed", f"{where}: {file.key} says {file.count} records")
        partition = tale.state.partition(*place)
        start = op.end if partition is None else partition.start
        gone = [offset for offset in inside if offset not in after]
        tale.kept[place] = [offset for offset in kept if not op.base <= offset < op.end or offset in after]
        yield from self._dropped(tale, swap, where, [offset for offset in gone if offset >= start])

    def _dropped(self, tale: Tale, swap: Swap, where: str, gone: list[int]) -> Iterator[Violation]:
        place = (swap.op.topic, swap.op.partition)
        topic, partition = tale.state.topics.get(place[0]), tale.state.partition(*place)
        if not gone or topic is None or partition is None:
            return
        config, rows = TopicConfig.of(topic.config), tale.rows[place]
        latest = {row.key: offset for offset, row in sorted(rows.items()) if offset < partition.stable_end}
        for offset in gone:
            row = rows[offset]
            if config.compact and row.key is not None and latest[row.key] > offset:
                continue
            if not config.compact or row.key is None or row.value is not None:
                yield Violation("archive-lost", f"{where}: {row} at {offset} is gone")
                continue
            cleaned = next((file.cleaned_ms for file in swap.before if file.base <= offset < file.end), 0)
            if not cleaned or cleaned + config.delete_retention_ms > swap.at_ms + self.rules.skew_ms + RESOLUTION_MS:
                yield Violation("tombstone-early", f"{where}: {row} at {offset}, cleaned at {cleaned}, {swap.at_ms}")
            older = [o for o in tale.kept[place] if partition.start <= o < offset and rows[o].key == row.key]
            if older:
                yield Violation("archive-revived", f"{where}: {older} outlive the tombstone of {row.key!r} at {offset}")

    def _trims(self, tale: Tale, step: Step, before: dict[Place, int], now: dict[Place, int]) -> Iterator[Violation]:
        for place, start in now.items():
            was = before.get(place, 0)
            if start == was:
                continue
            topic = tale.state.topics[place[0]]
            config, asked = TopicConfig.of(topic.config), self.said.trims.get((topic.name, place[1]), 0)
            if config.retention_bytes != FOREVER:
                continue
            for offset in tale.kept.get(place, [])[bisect_left(tale.kept.get(place, []), was) :]:
                if offset >= start:
                    break
                if offset < asked:
                    continue
                until = tale.rows[place][offset].timestamp + config.retention_ms
                if config.retention_ms == FOREVER or until > step.at_ms + self.rules.skew_ms + RESOLUTION_MS:
                    yield Violation("retention-early", f"{tale.name} commit {step.seq}: {place} offset {offset}")

    def _cut(self, tale: Tale, cut: Cut) -> Iterator[Violation]:
        places = tale.places()
        for tp, (start, end, rows) in cut.places.items():
            place = places.get(tp)
            partition = None if place is None else tale.state.partition(*place)
            if place is None or partition is None:
                yield Violation("as-of", f"{tale.name} as of {cut.commit}: there was no {tp}")
                continue
            if (start, end) != (partition.start, partition.stable_end):
                bounds = (partition.start, partition.stable_end)
                yield Violation("as-of", f"{tale.name} as of {cut.commit}: {tp} was {bounds}, not {(start, end)}")
            expected = {offset: tale.rows[place][offset] for offset in tale.visible(place)}
            if rows != expected:
                wrong = sorted(o for o in {*rows, *expected} if rows.get(o) != expected.get(o))
                yield Violation("as-of", f"{tale.name} as of {cut.commit}: {tp} differs at {wrong}")
        if cut.places and cut.offsets != offsets_of(tale.state):
            yield Violation("as-of", f"{tale.name} as of {cut.commit}: {cut.offsets}, not {offsets_of(tale.state)}")

    def _branch(self, tale: Tale, made: Made) -> None:
        stored = self.bucket.first.get(f"{made.name}/{keys.snapshot_key(made.commit)}")
        if f"{made.name}/{keys.LATEST}" not in self.bucket.first or stored is None:
            return
        state = snapshot.decode(stored.data, made.commit)
        for (topic, number), place in tale.places().items():
            if made.topic and topic != made.topic:
                continue
            mine, its = tale.state.partition(*place), state.partition(*place)
            assert mine is not None
            same = its is not None and (its.start, its.next, its.archive) == (mine.start, mine.next, mine.archive)
            if not same:
                detail = f"{made.name} of {tale.name} at {made.commit}: {topic}-{number} began as {its}, not {mine}"
                self.found.append(Violation("branch-differs", detail))
        if not made.topic and offsets_of(state) != offsets_of(tale.state):
            self.found.append(Violation("branch-differs", f"{made.name} at {made.commit}: {offsets_of(state)}"))
        self.hear(tale.branch(made.name, state))

    # -- what readers and writers said ---------------------------------------------------------------------

    def place(self, namespace: str, tp: TP, commit: int) -> Place | None:
        """Which partition bore that name as of a commit."""
        found = None
        for since, places in self.names.get(namespace, ()):
            if since > commit:
                break
            found = places.get(tp)
        return found

    def sights(self) -> Iterator[Violation]:
        for sight in self.said.sights:
            place = self.place(sight.namespace, sight.tp, sight.commit)
            where = f"{sight.namespace} as of {sight.commit}: {sight.tp} from {sight.start} to {sight.end}"
            if place is None:
                yield Violation("read-wrong", f"{where}: there was no such partition")
                continue
            tale = self.tales[sight.namespace]
            rows = tale.rows.get(place, {})
            if wrong := [offset for offset, row in sight.rows.items() if rows.get(offset) != row]:
                yield Violation("read-wrong", f"{where}: {wrong[:5]} of {len(sight.rows)} records differ")
            if sight.whole:
                kept = tale.kept.get(place, [])
                there = kept[bisect_left(kept, sight.start) : bisect_left(kept, sight.end)]
                if missed := [offset for offset in there if offset not in sight.rows]:
                    yield Violation("read-missed", f"{where}: {missed} were passed over")
        for cut in self.said.cuts:
            if cut.error and self._readable_until(cut.namespace, cut.commit) > cut.ended_ms:
                yield Violation("as-of-refused", f"{cut.namespace} as of {cut.commit}: {cut.error}")

    def acks(self) -> Iterator[Violation]:
        for ack in self.said.acks:
            place = self.place(ack.namespace, ack.tp, ack.commit)
            rows = self.tales[ack.namespace].rows.get(place, {}) if place and ack.namespace in self.tales else {}
            found = [rows.get(ack.base + i) for i in range(len(ack.rows))]
            if [row and (row.key, row.value) for row in found] != list(ack.rows):
                yield Violation("ack-lost", f"{ack.namespace} commit {ack.commit}: {ack.tp} at {ack.base}: {found}")

    # -- what was deleted ----------------------------------------------------------------------------------

    def _readable_until(self, namespace: str, commit: int) -> float:
        """Until when the state after ``commit`` may be asked for: until a later snapshot is as old as history."""
        return self._aged(namespace, commit + 1)

    def _aged(self, namespace: str, commit: int) -> float:
        """When the first snapshot of ``commit`` or later is as old as history."""
        stored = [at_ms for seq, at_ms in self.aged.get(namespace, ()) if seq >= commit]
        return min(stored, default=math.inf) + self.rules.history_ms

    def needed_until(self) -> dict[str, float]:
        """Object → until when the states that may be read need it."""
        found: dict[str, float] = {}
        for name, tale in self.tales.items():
            for commit, dead in tale.died:
                until = self._aged(name, commit)
                for key in dead:
                    found[key] = max(found.get(key, 0.0), until)
            found |= dict.fromkeys(tale.needed(), math.inf)
        return found

    def deletions(self) -> Iterator[Violation]:
        until = self.needed_until()
        for key, at_ms in self.bucket.deleted_ms.items():
            if until.get(key, 0.0) > at_ms + RESOLUTION_MS:
                yield Violation("deleted-early", f"{key} at {at_ms}, needed until {until[key]}")
            name, _, rest = key.partition("/")
            if rest.startswith(keys.MANIFESTS) and name in self.tales:
                aged = self._aged(name, keys.parse_numbered_key(rest))
                if aged > at_ms + RESOLUTION_MS:
                    yield Violation("deleted-early", f"{key} at {at_ms}, part of history until {aged}")

    def garbage(self) -> Iterator[Violation]:
        if not self.rules.tidy:
            return
        needed = self.needed_until()
        for name in self.tales:
            if self._has_unfinished_branches(name):
                continue  # what they would need stays until they are dropped
            boundary = self._boundary(name)
            pages = self._pages()
            ranges = [keys.parse_index_key(key)[:2] for key in pages]
            first = 1 if name != MAIN else 0  # that of a branch says that its name is taken
            for key in [key for key in self.bucket.keys if key.startswith(f"{name}/")]:
                folder = key.partition("/")[2].partition("/")[0] + "/"
                if self.bucket.objects[key].modified_ms > self.rules.quiet_ms or needed.get(key, 0.0) == math.inf:
                    continue
                rest = key.partition("/")[2]
                left = folder in (keys.SEGMENTS, keys.ARCHIVE, keys.FILE_PAGES)
                left |= (
                    folder in (keys.MANIFESTS, keys.SNAPSHOTS) and first < keys.parse_numbered_key(rest) < boundary - 1
                )
                left |= folder == keys.BOUNDARIES and keys.parse_numbered_key(rest) < boundary
                left |= folder == keys.INDEXES and rest not in pages and not _may_be_made_again(rest, ranges)
                if left:
                    yield Violation("garbage", f"{key}, boundary {boundary}, needed until {needed.get(key)}")

    def _has_unfinished_branches(self, name: str) -> bool:
        """Whether a pin is left of a branch whose maker died."""
        pins = [keys.parse_branch_key(key.partition("/")[2])[1] for key in self._living(name, keys.BRANCHES)]
        return any(not self._living(pinned, keys.BOUNDARIES) for pinned in pins)

    def _boundary(self, name: str) -> int:
        found = [keys.parse_numbered_key(key.partition("/")[2]) for key in self._living(name, keys.BOUNDARIES)]
        return max(found, default=1)

    def _pages(self) -> set[str]:
        """The names of index pages in snapshots. A page stays, too, if a branch has one of its name."""
        found = set()
        for name in self.tales:
            for key in self._living(name, keys.SNAPSHOTS):
                state = snapshot.decode(self.bucket.objects[key].data, keys.parse_numbered_key(key.partition("/")[2]))
                found |= {keys.index_key(page.first, page.last, page.pruned) for page in state.pages}
        return found

    def _living(self, name: str, folder: str) -> list[str]:
        return [key for key in self.bucket.keys if key.startswith(f"{name}/{folder}")]


def offsets_of(state: State) -> dict[tuple[str, int, int], int]:
    """What groups have committed."""
    return {
        (group.name, topic, partition): committed.offset
        for group in state.groups.values()
        for topic, places in group.offsets.items()
        for partition, committed in places.items()
    }


def _starts(state: State) -> dict[Place, int]:
    return {
        (topic.id, number): partition.start
        for topic in state.topics.values()
        for number, partition in enumerate(topic.partitions)
    }


def _may_be_made_again(key: str, named: list[tuple[int, int]]) -> bool:
    """Whether a merge of pages that are named would find this one and name it."""
    first, last, pruned = keys.parse_index_key(key)
    return not pruned and any(first <= a and b <= last and (a, b) != (first, last) for a, b in named)
