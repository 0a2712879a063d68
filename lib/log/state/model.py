"""What the state holds. Every field is decided by manifests alone, so all processes agree on it.

The classes are msgspec structs, so that a snapshot is the state itself, encoded; they are mutable,
since copying a state of 1,000 partitions for every commit would cost more than the commit. Only
``fold.apply`` (and ``log.index``, which moves chunk entries out to pages) may change them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from headwater.log.operations import AclRule, Column, File, FilePage, ValueFormat

EntryCodec: TypeAlias = Literal["arrow", "kafka2", "gap"]
GroupKind: TypeAlias = Literal["", "consumer", "classic", "share"]
Phase: TypeAlias = Literal["empty", "preparing", "completing", "stable"]


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


class Archive(Struct, forbid_unknown_fields=True):
    """The columnar files of one partition: they hold its offsets below ``end``, and chunks those from there on.

    ``pages`` and then ``files`` meet end to end, by base offset. Offsets below ``clean`` are compacted.
    """

    end: int = 0
    clean: int = 0
    pages: list[FilePage] = []
    files: list[File] = []


class Partition(Struct, forbid_unknown_fields=True):
    """Readable offsets are ``[start, stable_end)``; the next append gets ``next``."""

    start: int = 0
    next: int = 0
    bytes: int = 0  # stored bytes of all chunks ever committed
    held: list[Held] = []
    tail: list[Entry] = []  # chunks that no index page covers yet, by base offset
    archive: Archive | None = None

    @property
    def archived(self) -> int:
        """Offsets below this are read from the archive; chunks that hold them are dead."""
        return 0 if self.archive is None else self.archive.end

    @property
    def hot(self) -> int:
        """The first offset that can be read from chunks: entries that end at or below it are dead."""
        return max(self.start, self.archived)

    @property
    def hot_bytes(self) -> int:
        """Stored bytes of the chunks that readers still need.

        Of those that an index page covers the state knows nothing but the offsets: they count at the partition's mean
        size, so the figure is an estimate where there are some. Cost: 0.1 us a chunk of the tail.
        """
        hot = self.hot
        spilled = max(0, (self.tail[0].base if self.tail else self.next) - hot)
        return sum(entry.len for entry in self.tail if entry.base >= hot) + spilled * self.bytes // max(1, self.next)

    def bytes_from(self, offset: int, most: int) -> int:
        """Bytes of the chunks from the one that holds ``offset`` on, or ``most`` if they are more, or not in the tail.

        Cost: 0.1 us a chunk that counts.
        """
        first = bisect_right(self.tail, offset, key=_base) - 1
        if first < 0 or offset < self.archived:
            return most
        size = 0
        for at in range(first, len(self.tail)):
            size += self.tail[at].len
            if size >= most:
                return most
        return size

    @property
    def stable_end(self) -> int:
        """Readers stop here: at the first open reservation, else at the end (Kafka: last stable offset)."""
        return min((held.entry.base for held in self.held), default=self.next)


def _base(entry: Entry) -> int:
    return entry.base


class Schema(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of how a topic's values are written, since manifest ``seq``."""

    version: int
    seq: int
    format: ValueFormat
    definition: str
    columns: list[Column]


class Topic(Struct, forbid_unknown_fields=True):
    """Ids are never used again, so an append to a deleted topic cannot land in its namesake."""

    id: int
    name: str
    created_ms: int
    config: dict[str, str] = {}
    partitions: list[Partition] = []
    schemas: list[Schema] = []  # by version

    @property
    def schema(self) -> Schema | None:
        """The newest version, or None for a topic of opaque bytes."""
        return self.schemas[-1] if self.schemas else None


class Sequences(Struct, array_like=True, forbid_unknown_fields=True):
    """The last batches of one producer in one partition: (first sequence, count, base offset), oldest first."""

    epoch: int
    batches: list[tuple[int, int, int]] = []


class Ended(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a producer's last act under an identity ended, so that its repetition gets the same answer.

    ``pid`` and ``epoch`` are those that it was asked for with; the producer may have others since.
    """

    pid: int
    epoch: int
    how: Literal["commit", "abort", "renew"]


class Producer(Struct, forbid_unknown_fields=True):
    """``open`` are the partitions with reserved ranges, ``groups`` those with reserved offsets.

    They are due by ``deadline_ms`` of manifest time. ``ended`` is how the last transaction ended, until the next one
    holds something.
    """

    id: int
    epoch: int = 0
    tid: str = ""
    last_ms: int = 0
    sequences: dict[int, dict[int, Sequences]] = {}
    open: list[tuple[int, int]] = []
    deadline_ms: int = 0
    timeout_ms: int = 0  # of its transactions, as its owner wanted; 0: each says its own
    groups: list[str] = []
    ended: Ended | None = None
    steps: int = 0  # ends, and moves of offsets, under any epoch: a request that comes late knows of fewer
    again: bool = False  # it keeps its own count (see ``InitProducer``): epochs are those of its partitions

    @property
    def is_busy(self) -> bool:
        """Whether a transaction is open that holds something."""
        return bool(self.open or self.groups)


class Committed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A group's place in a partition: the next offset to read."""

    offset: int
    metadata: str
    leader_epoch: int
    time_ms: int


class Pending(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place that an open transaction will give to a group, added by manifest ``seq``."""

    offset: int
    metadata: str
    leader_epoch: int
    seq: int


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One member of a group, in one of its lives. Frozen: an operation puts a new one in its place.

    ``consumer``: ``owned`` and ``revoking`` are topic id → partition → the generation since which the member owns
    it; what is revoking is still its own until it releases it. ``epoch`` is the generation whose target it has
    reached; it lags while something is revoking. ``classic``: ``protocols``, ``joined``, ``assignment``. A member with
    ``protocols`` in a ``consumer`` group speaks the classic protocol there: ``told`` is what it heard that it owns, in
    ``generation`` (-1: it is still to hear), at manifest ``told_seq``. ``portable`` says that its ``topics`` are known,
    so that it may be there.
    """

    id: str
    instance: str = ""
    client: str = ""
    joined_ms: int = 0
    session_ms: int = 45_000
    rebalance_ms: int = 300_000
    topics: list[str] = []
    assignor: str = ""
    epoch: int = 0
    owned: dict[int, dict[int, int]] = {}
    revoking: dict[int, dict[int, int]] = {}
    revoking_ms: int = 0  # manifest time at which the first of them was to be revoked; 0 without any
    protocols: list[tuple[str, str]] = []
    joined: bool = False  # in the join phase that is open
    assignment: str = ""
    portable: bool = False
    generation: int = 0
    told: dict[int, list[int]] = {}
    told_seq: int = 0

    @property
    def is_awaited(self) -> bool:
        """Whether it is a classic member that is still to join, or to join again."""
        return bool(self.protocols) and not self.joined


class Span(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Offsets ``[base, end)`` of a share-partition, delivered ``count`` times so far (-1: never again).

    ``claim`` is the claim that holds them; 0 if nobody does.
    """

    base: int
    end: int
    count: int = 0
    claim: int = 0

    @property
    def is_done(self) -> bool:
        """Whether it is never delivered again."""
        return self.count < 0

    @property
    def is_free(self) -> bool:
        """Whether anybody may claim it."""
        return self.count >= 0 and not self.claim


class Share(Struct, forbid_unknown_fields=True):
    """How far a share group has come in one partition (KIP-932).

    ``spans`` meet end to end and hold ``[start, next)``; below all is done, above nobody has claimed anything.
    ``holders`` has who holds what is claimed, by claim. ``epoch`` is the manifest that made it or began it anew.
    """

    epoch: int
    start: int
    next: int
    claims: int = 0  # the number of the last claim: none is used twice
    holders: dict[int, str] = {}
    spans: list[Span] = []


class Group(Struct, forbid_unknown_fields=True):
    """``generation`` numbers targets and later grants (consumer: KIP-848's group epoch), or join phases (classic).

    A consumer group is ``preparing`` while it waits for its classic members (see ``migration``), else ``empty``.
    """

    name: str
    kind: GroupKind = ""  # "" while nobody has joined
    generation: int = 0
    members: dict[str, Member] = {}  # in the order of joining
    target: dict[str, dict[int, list[int]]] = {}  # consumer: member → topic → partitions, as of ``generation``
    assignor: str = ""
    emptied_ms: int = 0  # manifest time at which the last member went
    phase: Phase = "empty"
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    delayed: bool = False  # the open join phase lasts until its deadline, even if all have joined
    deadline_ms: int = 0  # of the open join phase, manifest time
    offsets: dict[int, dict[int, Committed]] = {}
    pending: dict[int, dict[int, dict[int, Pending]]] = {}  # of open transactions: by producer, topic, partition
    shares: dict[int, dict[int, Share]] = {}  # share: by topic, partition


class ApiKey(Struct, frozen=True, forbid_unknown_fields=True):
    """``hash`` is the SHA-256 of the secret; ``expires_ms`` is 0 for never."""

    hash: str
    principal: str
    created_ms: int
    scopes: list[AclRule] = []
    expires_ms: int = 0


class Quota(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bounds a second for each serving process; -1 is none."""

    produce_bytes_per_s: int = -1
    fetch_bytes_per_s: int = -1
    requests_per_s: int = -1


class Scram(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of a password for one mechanism of SCRAM; salt and keys are base64. See ``SetScram``."""

    salt: str
    iterations: int
    stored_key: str
    server_key: str


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


class Done(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a ``Once`` key stands for: its request's fingerprint, when it was done, and with what outcome."""

    request: str
    time_ms: int
    outcome: Outcome


class PageRef(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An index page: the chunk entries that manifests ``[first, last]`` made readable.

    Pages of one ``level`` are merged into one of the next, so there are few of them however long the log is. Entries
    that were dead in the state after manifest ``pruned`` are left out (0: none are), so that state must be known to
    whoever reads the page.
    """

    first: int
    last: int
    level: int
    entries: int
    pruned: int = 0


class Origin(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a branch comes from: what manifests up to ``seq`` made readable lies in ``namespace``."""

    namespace: str
    seq: int


class State(Struct, forbid_unknown_fields=True):
    """The fold of manifests 1..``seq``. Manifest 0 does not exist: it is the empty state."""

    seq: int = 0
    time_ms: int = 0
    format: int = 1
    floor: int = 0  # segments and files with a tip below this may not be committed any more (R4)
    config: dict[str, str] = {}
    origins: list[Origin] = []  # of a branch: by number, the oldest first
    next_topic: int = 1
    next_producer: int = 1
    topics: dict[int, Topic] = {}
    names: dict[str, int] = {}
    producers: dict[int, Producer] = {}  # least recently used first
    transactional: dict[str, int] = {}
    groups: dict[str, Group] = {}
    acls: list[AclRule] = []  # sorted
    keys: dict[str, ApiKey] = {}
    quotas: dict[str, Quota] = {}
    group_configs: dict[str, dict[str, str]] = {}  # of groups that exist, or may come to
    scram: dict[str, dict[str, Scram]] = {}  # by user and mechanism
    departed: dict[str, int] = {}  # who left a group, and at which manifest, for WINDOW manifests, oldest first
    once: dict[str, Done] = {}  # oldest first
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

    def copied(self) -> State:
        """All of it anew: a fold that goes on changes nothing in the copy. Cost: an encoding and a decoding."""
        return _states.decode(_encoder.encode(self))


_encoder = msgspec.json.Encoder()
_states = msgspec.json.Decoder(State)
