"""What the state holds. Every field is decided by manifests alone, so all processes agree on it.

The classes are msgspec structs, so that a snapshot is the state itself, encoded; they are mutable,
since copying a state of 1,000 partitions for every commit would cost more than the commit. Only
``fold.apply`` (and ``log.index``, which moves chunk entries out to pages) may change them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

EntryCodec: TypeAlias = Literal["arrow", "kafka2", "gap"]


class Entry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A chunk at its place: offsets ``[base, base + count)`` are bytes ``[pos, pos + len)`` of an object.

    ``seq`` is the manifest that made it readable; an empty ``obj`` means that manifest itself. A ``gap``
    (an aborted reservation) holds offsets and no records. ``min`` and ``max`` are timestamps in ms.
    """

    base: int
    count: int
    codec: EntryCodec
    seq: int
    obj: str
    pos: int
    len: int
    crc: int
    min: int
    max: int

    @property
    def end(self) -> int:
        """One past the last offset."""
        return self.base + self.count


class Held(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A reserved range: it has its offsets and is not readable until its producer ends it."""

    pid: int
    entry: Entry


class Partition(Struct, forbid_unknown_fields=True):
    """Readable offsets are ``[start, stable_end)``; the next append gets ``next``."""

    start: int = 0
    next: int = 0
    bytes: int = 0  # stored bytes of all chunks ever committed
    held: list[Held] = []
    tail: list[Entry] = []  # chunks that no index page covers yet, by base offset

    @property
    def stable_end(self) -> int:
        """Readers stop here: at the first open reservation, else at the end (Kafka: last stable offset)."""
        return min((held.entry.base for held in self.held), default=self.next)


class Topic(Struct, forbid_unknown_fields=True):
    """Ids are never used again, so an append to a deleted topic cannot land in its namesake."""

    id: int
    name: str
    created_ms: int
    config: dict[str, str] = {}
    partitions: list[Partition] = []


class Sequences(Struct, array_like=True, forbid_unknown_fields=True):
    """The last batches of one producer in one partition: (first sequence, count, base offset), oldest first."""

    epoch: int
    batches: list[tuple[int, int, int]] = []


class Producer(Struct, forbid_unknown_fields=True):
    """``open`` are the partitions with reserved ranges, due by ``deadline_ms`` of manifest time."""

    id: int
    epoch: int = 0
    tid: str = ""
    last_ms: int = 0
    sequences: dict[int, dict[int, Sequences]] = {}
    open: list[tuple[int, int]] = []
    deadline_ms: int = 0


class Committed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A group's place in a partition: the next offset to read."""

    offset: int
    metadata: str
    leader_epoch: int
    time_ms: int


class Group(Struct, forbid_unknown_fields=True):
    """Membership is opaque to the log but for two facts: who is a member, and of which generation."""

    name: str
    generation: int = 0
    protocol: str = ""
    members: dict[str, dict[str, str]] = {}
    assignment: dict[str, list[tuple[int, int]]] = {}
    offsets: dict[int, dict[int, Committed]] = {}


class Outcome(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of an intent at manifest ``seq``. ``error`` is empty if it was applied.

    ``bases`` has the base offset of every append; ``values`` what operations answer (``topic``,
    ``pid``, ``epoch``). Deterministic: every process computes the same one.
    """

    seq: int
    error: str = ""
    message: str = ""
    bases: list[int] = []
    values: dict[str, int] = {}


class PageRef(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An index page: the chunk entries that manifests ``[first, last]`` made readable.

    Pages of one ``level`` are merged into one of the next, so there are few of them however long the log is.
    """

    first: int
    last: int
    level: int
    entries: int


class State(Struct, forbid_unknown_fields=True):
    """The fold of manifests 1..``seq``. Manifest 0 does not exist: it is the empty state."""

    seq: int = 0
    time_ms: int = 0
    format: int = 1
    floor: int = 0  # segments with a tip below this may not be committed any more (R4)
    next_topic: int = 1
    next_producer: int = 1
    topics: dict[int, Topic] = {}
    names: dict[str, int] = {}
    producers: dict[int, Producer] = {}  # least recently used first
    transactional: dict[str, int] = {}
    groups: dict[str, Group] = {}
    recent: dict[str, Outcome] = {}  # intent id -> its outcome, for WINDOW manifests, oldest first (R3)
    pages: list[PageRef] = []  # by manifest number, without holes, up to ``paged``
    paged: int = 0  # entries of manifests up to here are in pages, later ones in the tails
    tail_entries: int = 0

    def partition(self, topic: int, partition: int) -> Partition | None:
        """The partition, or None if there is no such topic or partition."""
        found = self.topics.get(topic)
        return found.partitions[partition] if found and partition < len(found.partitions) else None

    def named(self, name: str) -> Topic | None:
        """The topic of that name."""
        found = self.names.get(name)
        return None if found is None else self.topics[found]
