"""What an intent may wish for, as typed data: chunks to append, and operations on everything else.

All of it is decoded and checked by msgspec in one pass. An operation that this version does not know is
``UpgradeRequired`` (R9), never skipped; so a new one is a new format for older programs.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from headwater.limits import (
    ACLS_MAX,
    COLUMN_TYPE_MAX,
    COLUMNS_MAX,
    INTENT_OPS_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    PARTITION_MAX,
    SCHEMA_BYTES_MAX,
    SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN,
    SCRAM_SALT_MAX,
    SUBSCRIBED_MAX,
    TOPIC_NAME_MAX,
)
from headwater.log.operations_base import Count, MemberId, Name, Op, OrNone, Position, Positive, Subscribed, TopicName
from headwater.log.operations_shares import (
    AlterGroup,
    ClaimShare,
    ForgetShares,
    FreeShare,
    JoinShare,
    ResetShares,
    SettleShare,
)
from headwater.types import Codec

Records: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # of one chunk: no sum of them outgrows 64 bits
Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
Length: TypeAlias = Annotated[int, Meta(ge=1, le=2**40)]
Signed: TypeAlias = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Crc: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Sequence: TypeAlias = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Epoch: TypeAlias = Annotated[int, Meta(ge=-1, le=2**15 - 1)]
Partitions: TypeAlias = Annotated[int, Meta(ge=1, le=PARTITION_MAX)]
Metadata: TypeAlias = Annotated[str, Meta(max_length=METADATA_BYTES_MAX)]
KeyId: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{4,64}$")]
Operation: TypeAlias = Literal["all", "read", "write", "create", "delete", "alter", "describe", "cluster_action"]
Resource: TypeAlias = Literal["topic", "group", "cluster", "transactional_id"]
Pattern: TypeAlias = Literal["literal", "prefix"]
ScramMechanism: TypeAlias = Literal["SCRAM-SHA-256", "SCRAM-SHA-512"]
ScramKey: TypeAlias = Annotated[str, Meta(pattern="^([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)$")]  # a digest in base64
ObjectKey: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1_024)]
ValueFormat: TypeAlias = Literal["json", "avro", "arrow"]
IntentId: TypeAlias = Annotated[str, Meta(min_length=4, max_length=64)]


class Chunk(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A run of record batches of one partition, as bytes ``[pos, pos + len)`` of an object.

    ``obj`` is the segment's key; empty means the manifest that carries the intent. ``min`` and ``max``
    are timestamps in ms. ``pid``, ``epoch``, ``seq`` are the idempotent producer's, -1 without one.
    """

    topic: Count
    partition: Count
    count: Records
    codec: Codec
    pos: Bytes
    len: Length
    crc: Crc
    min: Signed
    max: Signed
    obj: str = ""
    pid: OrNone = -1
    epoch: Epoch = -1
    seq: Sequence = -1


class CreateTopic(Op, frozen=True):
    """Refused as ``exists`` if the name is taken."""

    name: TopicName
    partitions: Partitions
    config: dict[str, str] = field(default_factory=dict)


class DeleteTopic(Op, frozen=True):
    """Delete a topic and all its partitions; its id is never used again."""

    topic: Count


class AddPartitions(Op, frozen=True):
    """Partitions only grow: ``total`` must exceed the present count."""

    topic: Count
    total: Partitions


class AlterTopic(Op, frozen=True):
    """Set configs; a ``None`` value takes one back to its default."""

    topic: Count
    config: dict[str, str | None]


class TrimLog(Op, frozen=True):
    """Move the log start of a partition forward to ``before`` (Kafka: DeleteRecords)."""

    topic: Count
    partition: Count
    before: Count


class InitProducer(Op, frozen=True):
    """A fresh producer id, or the next epoch of the producer that owns ``tid`` (KIP-98, KIP-360).

    With ``pid`` and ``epoch`` the bump happens only if they are still the current ones.
    An open reservation of that producer is aborted. ``timeout_ms`` is what the owner of ``tid`` wants for its
    transactions (0: whatever they say themselves).

    ``again`` is for a producer without a ``tid`` that goes on under its ``pid`` and an ``epoch`` of its own choice, as
    Kafka's clients do: one that was forgotten, or that has given itself a new epoch. From then on its epochs count by
    partition, so what it has under way elsewhere under an older one is taken; and where nothing is known of what it has
    written its first batch may have any sequence.
    """

    tid: Name = ""
    pid: OrNone = -1
    epoch: Epoch = -1
    timeout_ms: Count = 0
    again: bool = False


class EndTransaction(Op, frozen=True):
    """Fences the whole intent by ``pid`` and ``epoch``, then bumps the epoch (KIP-890).

    A delayed request of this transaction can therefore never join the next one.
    """

    pid: Count
    epoch: Epoch


class Reserve(Op, frozen=True):
    """The appends of this intent take their offsets now and become visible with ``EndReserve``."""

    pid: Count
    epoch: Epoch
    timeout_ms: Count


class EndReserve(Op, frozen=True):
    """Open (``commit``) or void every range that ``pid`` has reserved, and its offsets, then bump the epoch.

    Without ``bump`` the producer goes on under its epoch and sequences, as Kafka's clients did before KIP-890. A
    repetition changes nothing and is answered the same; with the other ``commit`` it is refused as ``ended``. With
    ``after`` it comes after so many ends and moves of offsets of this producer, and is refused as ``stale`` later.
    With ``brings`` the intent brings batches of the transaction with it: it is no repetition, whatever went before.
    """

    pid: Count
    epoch: Epoch
    commit: bool
    bump: bool = True
    after: OrNone = -1
    brings: bool = False


class ExpireReserve(Op, frozen=True):
    """Void what ``pid`` has reserved if its time is up by manifest time. Anybody may commit this."""

    pid: Count


class OffsetEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The next offset that a group will read of a partition, with the client's metadata.

    Kafka's clients may commit -1 or -2, too: whoever reads next begins at the end, or at the start, or as its own rule
    says. It is kept for them; to everybody else the group has committed nothing there.
    """

    topic: Count
    partition: Count
    offset: Position
    metadata: Metadata = ""
    leader_epoch: OrNone = -1


class CommitOffsets(Op, frozen=True):
    """Fenced by ``member`` and ``generation`` while the group has members (I5); -1 when it has none.

    In a ``consumer`` group a member moves the offsets of a partition that it has owned without a break since
    ``generation``; in a ``classic`` one all members move all offsets under the current generation.
    """

    group: Name
    offsets: Annotated[list[OffsetEntry], Meta(max_length=INTENT_OPS_MAX)]
    generation: OrNone = -1
    member: Name = ""


class ReserveOffsets(Op, frozen=True):
    """Offsets of an open transaction: they move with ``EndReserve``, or not at all (KIP-98, KIP-447).

    Fenced like ``CommitOffsets``, now and not at the end. A later commit of the same place by others wins. ``after``
    as for ``EndReserve``.
    """

    pid: Count
    epoch: Epoch
    timeout_ms: Count
    offsets: CommitOffsets
    after: OrNone = -1


class DeleteOffsets(Op, frozen=True):
    """Forget a group's committed offsets of some partitions. Refused while the group has members."""

    group: Name
    partitions: Annotated[list[tuple[Count, Count]], Meta(max_length=INTENT_OPS_MAX)]


class ExpireOffsets(Op, frozen=True):
    """Forget what a group committed and left idle for ``idle_ms`` of manifest time, and a group that holds nothing.

    Anybody may commit this (Kafka: offsets.retention.minutes). Offsets of deleted topics go at once. Refused as
    ``not_expired`` if nothing is that old.
    """

    group: Name
    idle_ms: Count


class JoinGroup(Op, frozen=True):
    """Join a ``consumer`` group, or with ``epoch`` change what one of its members subscribes to (KIP-848).

    ``member`` is fresh for each life of a member, so a dead one cannot come back. ``topics`` are names, and may
    not exist yet. A new member with the ``instance`` of an old one takes its place and fences it (KIP-345).
    ``as_of`` is the manifest up to which the joiner knew the group: a join that was long on its way brings back
    nobody who has left since (-1, of programs that do not say it: not looked at).
    """

    group: Name
    member: MemberId
    topics: Annotated[list[Subscribed], Meta(max_length=SUBSCRIBED_MAX)]
    epoch: OrNone = -1
    instance: Name = ""
    assignor: Name = ""
    session_ms: Count = 45_000
    rebalance_ms: Count = 300_000
    client: Name = ""
    as_of: OrNone = -1


class ReleasePartitions(Op, frozen=True):
    """The member has let go of ``partitions`` that it was told to revoke: others may have them now (KIP-848).

    With ``epoch``, the member's when it let go, only of those that it has owned since then or before: a release that
    was long on its way takes away nothing that the member was given again meanwhile.
    """

    group: Name
    member: MemberId
    partitions: Annotated[list[tuple[Count, Count]], Meta(max_length=INTENT_OPS_MAX)]
    epoch: OrNone = -1


class LeaveGroup(Op, frozen=True):
    """The member is gone: it left, or somebody saw its lease expire (``reason`` is for people)."""

    group: Name
    member: MemberId
    reason: Name = ""


class JoinClassic(Op, frozen=True):
    """Kafka's JoinGroup: ``protocols`` are (name, metadata in base64), the preferred one first.

    A join phase ends when all known members have joined, or after ``rebalance_ms``; of a new group not before
    ``delay_ms`` (Kafka: group.initial.rebalance.delay.ms). ``as_of``: as in ``JoinGroup``.

    ``topics`` are those that the metadata names, None if it is not that of a Kafka consumer; with them the member may
    be in one group with members of KIP-848's protocol. ``claims`` are partitions, by topic id, that it has not let go
    of to join (KIP-429).
    """

    group: Name
    member: MemberId
    protocol_type: Name
    protocols: Annotated[list[tuple[Name, str]], Meta(min_length=1, max_length=64)]
    instance: Name = ""
    session_ms: Count = 45_000
    rebalance_ms: Count = 300_000
    delay_ms: Count = 0
    client: Name = ""
    as_of: OrNone = -1
    topics: Annotated[list[TopicName], Meta(max_length=SUBSCRIBED_MAX)] | None = None
    claims: Annotated[list[tuple[Count, Count]], Meta(max_length=INTENT_OPS_MAX)] = field(default_factory=list)


class EndJoin(Op, frozen=True):
    """End the join phase that began after ``generation``, or the wait for what its leader assigns, if its time is up.

    Anybody may commit this.
    """

    group: Name
    generation: Count


class SyncClassic(Op, frozen=True):
    """Kafka's SyncGroup of the leader: each member's assignment, in base64."""

    group: Name
    member: MemberId
    generation: Count
    assignments: dict[str, str]


class DeleteGroup(Op, frozen=True):
    """Refused while the group has members."""

    group: Name


class AclRule(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """Kafka's ACL binding. ``name`` is literal or a prefix; ``*`` stands for everything, in ``principal`` too."""

    principal: Name
    operation: Operation
    resource: Resource
    name: Name
    pattern: Pattern = "literal"
    allow: bool = True


class ChangeAcls(Op, frozen=True):
    """Add rules and remove rules; adding a known one or removing an unknown one changes nothing."""

    add: Annotated[list[AclRule], Meta(max_length=ACLS_MAX)] = field(default_factory=list)
    remove: Annotated[list[AclRule], Meta(max_length=ACLS_MAX)] = field(default_factory=list)


class SetKey(Op, frozen=True):
    """Store an API key's SHA-256 (hex). With ``scopes`` the key may do what they *and* its principal's ACLs allow."""

    key: KeyId
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    principal: Name
    scopes: Annotated[list[AclRule], Meta(max_length=100)] = field(default_factory=list)
    expires_ms: Count = 0


class RevokeKey(Op, frozen=True):
    """Forget an API key. Refused as ``no_key`` if there is none."""

    key: KeyId


class SetQuota(Op, frozen=True):
    """A principal's bounds a second, for each serving process (Kafka: for each broker); -1 lifts one.

    ``*`` is for everyone without one of their own.
    """

    principal: Name
    produce_bytes_per_s: OrNone = -1
    fetch_bytes_per_s: OrNone = -1
    requests_per_s: OrNone = -1


class SetScram(Op, frozen=True):
    """What proves that a client knows ``user``'s password (RFC 5802), in the place of an older one.

    Never the password, nor the salted one: ``stored_key`` checks a proof, ``server_key`` signs the answer. Base64.
    """

    user: Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    mechanism: ScramMechanism
    salt: Annotated[str, Meta(pattern="^[A-Za-z0-9+/]+={0,2}$", max_length=SCRAM_SALT_MAX)]
    iterations: Annotated[int, Meta(ge=SCRAM_ITERATIONS_MIN, le=SCRAM_ITERATIONS_MAX)]
    stored_key: ScramKey
    server_key: ScramKey


class DropScram(Op, frozen=True):
    """Forget ``user``'s password for ``mechanism``. Refused as ``no_user`` if there is none."""

    user: Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    mechanism: ScramMechanism


class Once(Op, frozen=True):
    """Do the rest of this intent once for ``key``; a repetition gets the first outcome (Idempotency-Key).

    ``request`` is a fingerprint: the same key with another request is refused as ``key_reused``. Keys are
    remembered for ``ONCE_KEEP_MS`` of manifest time, the newest ``ONCE_MAX`` of them, and all for WINDOW manifests.
    """

    key: Annotated[str, Meta(min_length=1, max_length=64)]
    request: Annotated[str, Meta(max_length=64)]


class File(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file of the archive: all records of the offsets ``[base, end)`` that are kept, ``count`` of them.

    ``bytes`` and ``crc`` (CRC32C) are the whole object's; its last ``footer`` bytes are Parquet's footer, length and
    magic included. ``min`` and ``max`` are timestamps in ms. ``cleaned_ms`` is when compaction first went over these
    offsets (0: never): from then on tombstones are kept for ``delete.retention.ms``. ``footer_crc`` is the CRC32C of
    the footer, which has no checksum of its own and is not parsed unchecked (0: there is none).
    """

    base: Count
    end: Positive
    count: Count
    key: ObjectKey
    bytes: Length
    crc: Crc
    footer: Length
    min: Signed
    max: Signed
    cleaned_ms: Count = 0
    footer_crc: Crc = 0


class FilePage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An object that lists ``files`` neighbouring files of one partition, which hold ``[base, end)``.

    ``count`` and ``bytes`` are sums over the files, ``min`` and ``max`` the extremes of their timestamps, ``size`` and
    ``crc`` those of the object itself.
    """

    base: Count
    end: Positive
    count: Count
    key: ObjectKey
    bytes: Count
    min: Signed
    max: Signed
    files: Positive
    size: Length
    crc: Crc


class SwapFiles(Op, frozen=True):
    """From now on ``pages`` and then ``files`` hold the offsets ``[base, end)`` of a partition.

    ``was`` are the keys of the pages and files that held them so far, in order: none if this is new in the archive. If
    others hold them meanwhile, the operation is refused as ``stale``: somebody else did this work, or a part of it.
    What lies above ``end`` stays as it is. Records are moved, dropped by compaction, never changed (P1). ``clean`` says
    that offsets below it have been compacted; -1 leaves that mark where it is.
    """

    topic: Count
    partition: Count
    base: Count
    end: Positive
    was: Annotated[list[ObjectKey], Meta(max_length=INTENT_OPS_MAX)] = field(default_factory=list)
    pages: Annotated[list[FilePage], Meta(max_length=INTENT_OPS_MAX)] = field(default_factory=list)
    files: Annotated[list[File], Meta(max_length=INTENT_OPS_MAX)] = field(default_factory=list)
    clean: OrNone = -1


class Column(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A typed column of a topic: its ``type`` in Arrow's words, as in ``list<item: int32>`` (see ``log.columns``)."""

    name: Annotated[str, Meta(min_length=1, max_length=TOPIC_NAME_MAX)]
    type: Annotated[str, Meta(min_length=1, max_length=COLUMN_TYPE_MAX)]
    nullable: bool = True


class SetSchema(Op, frozen=True):
    """Give a topic the next ``version`` of its schema: how values are written, and the columns they become.

    Refused as ``stale`` unless ``version`` is one above the present one (the first is 1), and as ``incompatible``
    unless every column of the present one is there under its name with the same or a wider type, and new ones are
    nullable.
    ``definition`` is the schema as it was given, for people and for decoders.
    """

    topic: Count
    version: Positive
    format: ValueFormat
    definition: Annotated[str, Meta(max_length=SCHEMA_BYTES_MAX)]
    columns: Annotated[list[Column], Meta(min_length=1, max_length=COLUMNS_MAX)]


class AlterNamespace(Op, frozen=True):
    """Set configs of the namespace, as ``AlterTopic`` sets those of a topic."""

    config: dict[str, str | None]


class BranchedFrom(Op, frozen=True):
    """Manifest 1 of a branch: the slot is taken, and the state begins with the snapshot of commit ``seq``.

    It lies below the branch's boundary, so nobody folds it who opened the branch once it was made; whoever does,
    because it opened the name while it was empty, must start again. With ``topic`` the branch has that one alone.
    """

    namespace: Name
    seq: Positive
    topic: Annotated[str, Meta(max_length=TOPIC_NAME_MAX)] = ""


class RaiseFloor(Op, frozen=True):
    """From now on nothing whose name has a tip below ``floor`` may be committed: no segment, no file (R4)."""

    floor: Count


AnyOp: TypeAlias = (
    CreateTopic
    | DeleteTopic
    | AddPartitions
    | AlterTopic
    | TrimLog
    | InitProducer
    | EndTransaction
    | Reserve
    | EndReserve
    | ExpireReserve
    | CommitOffsets
    | ReserveOffsets
    | DeleteOffsets
    | ExpireOffsets
    | JoinGroup
    | ReleasePartitions
    | LeaveGroup
    | JoinClassic
    | EndJoin
    | SyncClassic
    | DeleteGroup
    | JoinShare
    | ClaimShare
    | SettleShare
    | FreeShare
    | ResetShares
    | ForgetShares
    | AlterGroup
    | ChangeAcls
    | SetKey
    | RevokeKey
    | SetQuota
    | SetScram
    | DropScram
    | Once
    | SwapFiles
    | SetSchema
    | AlterNamespace
    | BranchedFrom
    | RaiseFloor
)
