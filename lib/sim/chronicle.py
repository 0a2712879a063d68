"""What truly happened in a bucket, whatever was deleted since: the judge's own copy of history.

``RememberingBucket`` keeps the first object that was ever stored under each key, and when each was deleted. From the
manifests among them a ``Tale`` folds a namespace once more, commit by commit, and knows of every commit which records
could be read then: from chunks as they were written and from archive files as they were made. It looks at no
index, page, snapshot or lookup of the engine, so what the engine serves from those can be held against it.

A slot is filled once: what is put there after the collector emptied it is a sleeper's stray (R5).
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.log import files, keys, small
from headwater.log.chunk import Chunk
from headwater.log.intents import Manifest, decode_manifest
from headwater.log.operations import File, FilePage, SwapFiles
from headwater.log.state import Archive, Origin, State, apply
from headwater.sim.faults import SimBucket
from headwater.sim.loop import SimLoop
from headwater.store.base import Stat

Place: TypeAlias = tuple[int, int]  # topic id, partition
MAIN = "default"


class Row(NamedTuple):
    """A record as it was sent."""

    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Kept:
    """The first object under a key, and when it was stored by the store's clock."""

    data: bytes
    at_ms: int


class RememberingBucket(SimBucket):
    """A bucket that forgets nothing before its judge."""

    def __init__(self, loop: SimLoop, **options: Any) -> None:
        super().__init__(loop, **options)
        self.first: dict[str, Kept] = {}
        self.deleted_ms: dict[str, int] = {}  # when an object went; strays in slots do not count

    def _write(self, key: str, data: bytes) -> Stat:
        self.first.setdefault(key, Kept(data, self.wall_ms()))
        return super()._write(key, data)

    def delete(self, keys: Any) -> None:
        for key in keys:
            if key in self.objects:
                self.deleted_ms.setdefault(key, self.wall_ms())
        super().delete(keys)

    def names(self, prefix: str) -> list[str]:
        """The keys below ``prefix`` that were ever used, in order."""
        return sorted(key for key in self.first if key.startswith(prefix))


@dataclass(frozen=True, slots=True)
class Swap:
    """A ``SwapFiles`` that took effect: which files held the range before and which hold it now."""

    seq: int
    at_ms: int
    op: SwapFiles
    before: list[File]
    after: list[File]


@dataclass(slots=True)
class Step:
    """What one commit did to a namespace."""

    seq: int
    at_ms: int
    manifest: Manifest
    swaps: list[Swap] = field(default_factory=list)


class Tale:
    """One namespace, commit by commit. ``steps`` moves it on; between two steps it may be asked."""

    def __init__(self, bucket: RememberingBucket, name: str = MAIN) -> None:
        self.bucket = bucket
        self.name = name
        self.state = State()
        self.rows: dict[Place, dict[int, Row]] = {}  # everything that was ever readable
        self.objects: dict[Place, dict[int, str]] = {}  # and in which object it was written
        self.kept: dict[Place, list[int]] = {}  # the offsets that compaction has left
        self.gaps: dict[Place, list[tuple[int, int]]] = {}  # of aborted reservations
        self.died: list[tuple[int, frozenset[str]]] = []  # at which commit which objects ceased to be needed
        self._read: dict[str, dict[int, Row]] = {}  # archive files

    def branch(self, name: str, state: State) -> Tale:
        """The tale of a branch that begins here, with the ``state`` that its snapshot says."""
        made = Tale(self.bucket, name)
        made.state = state
        for partition in _partitions(state):
            place = partition[0]
            made.rows[place] = dict(self.rows.get(place, {}))
            made.objects[place] = dict(self.objects.get(place, {}))
            made.kept[place] = list(self.kept.get(place, ()))
            partition[1].tail = []  # it is known already
        made._read = self._read
        return made

    def steps(self) -> Iterator[Step]:
        """Fold the commits that were ever made, one after another."""
        needed = self.needed()
        while (found := self.bucket.first.get(self._slot(self.state.seq + 1))) is not None:
            manifest = decode_manifest(found.data, self.state.seq + 1)
            step = Step(manifest.seq, found.at_ms, manifest)
            swapped = [op for intent in manifest.intents for op in intent.ops if isinstance(op, SwapFiles)]
            before = {
                (op.topic, op.partition): copy.deepcopy(place.archive)
                for op in swapped
                if (place := self.state.partition(op.topic, op.partition)) is not None
            }
            outcomes = apply(self.state, manifest)
            fresh = self._take_in()
            for intent, outcome in zip(manifest.intents, outcomes, strict=True):
                for op in intent.ops:
                    if isinstance(op, SwapFiles) and not outcome.error and outcome.seq == manifest.seq:
                        step.swaps.append(self._swap(step, op, before[op.topic, op.partition]))
            yield step
            # Only now: the judge has taken from ``kept`` what a swap has dropped.
            if any(intent.ops for intent in manifest.intents):
                now = self.needed()
                if needed - now:
                    self.died.append((manifest.seq, needed - now))
                needed = now
            else:
                needed |= fresh

    def visible(self, place: Place) -> list[int]:
        """The offsets of a partition that have records which can be read now."""
        partition = self.state.partition(*place)
        if partition is None:
            return []
        kept = self.kept.get(place, [])
        return kept[bisect_left(kept, partition.start) : bisect_left(kept, partition.stable_end)]

    def places(self) -> dict[tuple[str, int], Place]:
        """The partitions that there are now, by name."""
        return {
            (topic.name, number): (topic.id, number)
            for topic in self.state.topics.values()
            for number in range(len(topic.partitions))
        }

    def needed(self) -> frozenset[str]:
        """The objects, with their folders, that this very state is read from; without manifests that led to it."""
        found: set[str] = set()
        for place, partition in _partitions(self.state):
            hot = partition.hot
            offsets = self.kept.get(place, [])
            objects = self.objects.get(place, {})
            found.update(objects[o] for o in offsets[bisect_left(offsets, hot) :])
            found.update(self.home(held.entry.obj) for held in partition.held if held.entry.obj)
            found.update(self._slot(held.entry.seq) for held in partition.held if not held.entry.obj)
            if partition.archive is not None:
                found.update(self.home(page.key) for page in partition.archive.pages)
                found.update(self.home(file.key) for file in self.listed(partition.archive))
        return frozenset(found)

    def listed(self, archive: Archive | None, base: int = 0, end: int = 1 << 62) -> list[File]:
        """The files of an archive in ``[base, end)``, those of its pages too."""
        if archive is None:
            return []
        found: list[File] = []
        for page in archive.pages:
            found += self.of_page(page)
        found += archive.files
        return [file for file in found if file.end > base and file.base < end]

    def of_page(self, page: FilePage) -> list[File]:
        """The files that a page lists."""
        return files.decode(page, self.bucket.first[self.home(page.key)].data)

    def records(self, file: File) -> dict[int, Row]:
        """What a file holds."""
        key = self.home(file.key)
        known = self._read.get(key)
        if known is None:
            table = pq.read_table(pa.BufferReader(self.bucket.first[key].data), partitioning=None)
            columns = [table.column(name) for name in ("timestamp", "key", "value")]
            times: Any = columns[0].cast(pa.int64()).to_pylist()
            offsets: Any = table.column("offset").to_pylist()
            rows = map(Row, times, columns[1].to_pylist(), columns[2].to_pylist())
            known = self._read[key] = dict(zip(offsets, rows, strict=True))
        return known

    def home(self, key: str) -> str:
        """The object's full key: that of a branch may lie in its origin's folder."""
        return f"{home_of(key, self.state.origins, self.name)}/{key}"

    def written_ms(self, seq: int) -> int | None:
        """When the commit was made; None if it was not."""
        found = self.bucket.first.get(self._slot(seq))
        return None if found is None else found.at_ms

    def _slot(self, seq: int) -> str:
        return self.home(keys.manifest_key(seq))

    def _swap(self, step: Step, op: SwapFiles, before: Archive | None) -> Swap:
        listed = [file for page in op.pages for file in self.of_page(page)] + op.files
        return Swap(step.seq, step.at_ms, op, self.listed(before, op.base, op.end), listed)

    def _take_in(self) -> frozenset[str]:
        """Note what became readable, which is what stands in the tails: nothing is sealed here. In which objects."""
        fresh = set()
        for place, partition in _partitions(self.state):
            for entry in partition.tail:
                if entry.codec == "gap":
                    self.gaps.setdefault(place, []).append((entry.base, entry.end))
                    continue
                key = self.home(entry.obj) if entry.obj else self._slot(entry.seq)
                fresh.add(key)
                data = self.bucket.first[key].data[entry.pos : entry.pos + entry.len]
                found = small.records_in(data)
                assert found is not None, "actors send a few records at a time"
                assert len(found) == entry.count, "a batch holds what its chunk says"
                kept = self.kept.setdefault(place, [])
                at = bisect_right(kept, entry.base)
                kept[at:at] = range(entry.base, entry.end)
                for offset, record in enumerate(found, entry.base):
                    self.rows.setdefault(place, {})[offset] = Row(record.timestamp, record.key, record.value)
                    self.objects.setdefault(place, {})[offset] = key
            partition.tail = []
        self.state.tail_entries = 0
        return frozenset(fresh)


def home_of(key: str, origins: list[Origin], name: str) -> str:
    """The namespace in whose folder an object lies that ``name``, which comes from ``origins``, needs."""
    age = keys.age_of(key)
    return next((origin.namespace for origin in origins if age <= origin.seq), name)


def _partitions(state: State) -> list[tuple[Place, Any]]:
    return [
        ((topic.id, number), partition)
        for topic in state.topics.values()
        for number, partition in enumerate(topic.partitions)
    ]


def rows_of(chunk: Chunk) -> list[tuple[int, Row]]:
    """The records of a chunk at their offsets."""
    if chunk.codec == "kafka2":
        found = small.records_in(chunk.data)
        assert found is not None, "actors send a few records at a time"
        return [(offset, Row(r.timestamp, r.key, r.value)) for offset, r in enumerate(found, chunk.base)]
    return rows_in(chunk.decode())


def rows_in(placed: pa.RecordBatch) -> list[tuple[int, Row]]:
    """Placed records as plain data."""
    times: Any = placed.column("timestamp").cast(pa.int64()).to_pylist()
    offsets: Any = placed.column("offset").to_pylist()
    rows = map(Row, times, placed.column("key").to_pylist(), placed.column("value").to_pylist())
    return list(zip(offsets, rows, strict=True))
