"""What writers wish for, as typed data, and its bytes: manifests, published segments, and their tags.

An ``Intent`` is one writer's all-or-nothing wish. It reaches the log inside a ``Manifest``, either put
there by its own writer or, after that writer has published it as a segment, by any other. Chunks and
operations are decoded and checked by msgspec in one pass; what does not fit is ``Corrupt``, and what
only a newer program could have written is ``UpgradeRequired`` (R9), never skipped.
"""

from __future__ import annotations

import base64
import random
from typing import Annotated, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from headwater.errors import Corrupt, InvalidRequest, UpgradeRequired
from headwater.limits import (
    ACLS_MAX,
    INTENT_APPENDS_MAX,
    INTENT_BYTES_MAX,
    INTENT_OPS_MAX,
    MANIFEST_INTENTS_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    PARTITION_MAX,
    SUBSCRIBED_MAX,
    TOPIC_NAME_MAX,
)
from headwater.log import frame
from headwater.types import Codec

FORMAT: Final = 1  # of manifests and segments; a higher one in the bucket means "upgrade first" (R9)

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**62)]
Records: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # of one chunk: no sum of them outgrows 64 bits
Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
Length: TypeAlias = Annotated[int, Meta(ge=1, le=2**40)]
Signed: TypeAlias = Annotated[int, Meta(ge=-(2**62), le=2**62)]
OrNone: TypeAlias = Annotated[int, Meta(ge=-1, le=2**62)]
Crc: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Sequence: TypeAlias = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Epoch: TypeAlias = Annotated[int, Meta(ge=-1, le=2**15 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
TopicName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TOPIC_NAME_MAX)]
Partitions: TypeAlias = Annotated[int, Meta(ge=1, le=PARTITION_MAX)]
Metadata: TypeAlias = Annotated[str, Meta(max_length=METADATA_BYTES_MAX)]
MemberId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
KeyId: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{4,64}$")]
Operation: TypeAlias = Literal["all", "read", "write", "create", "delete", "alter", "describe", "cluster_action"]
Resource: TypeAlias = Literal["topic", "group", "cluster", "transactional_id"]
Pattern: TypeAlias = Literal["literal", "prefix"]
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


class Op(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="op", tag=str.lower):
    """The base of all operations other than appends."""


class CreateTopic(Op, frozen=True):
    """Refused as ``exists`` if the name is taken."""

    name: TopicName
    partitions: Partitions
    config: dict[str, str] = {}


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
    An open reservation of that producer is aborted.
    """

    tid: Name = ""
    pid: OrNone = -1
    epoch: Epoch = -1


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
    """Open (``commit``) or void every range that ``pid`` has reserved, then bump the epoch."""

    pid: Count
    epoch: Epoch
    commit: bool


class ExpireReserve(Op, frozen=True):
    """Void the ranges of ``pid`` if their time is up by manifest time. Anybody may commit this."""

    pid: Count


class OffsetEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The next offset that a group will read of a partition, with the client's metadata."""

    topic: Count
    partition: Count
    offset: Count
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
    """

    group: Name
    member: MemberId
    topics: Annotated[list[TopicName], Meta(max_length=SUBSCRIBED_MAX)]
    epoch: OrNone = -1
    instance: Name = ""
    assignor: Name = ""
    session_ms: Count = 45_000
    rebalance_ms: Count = 300_000
    client: Name = ""


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
    ``delay_ms`` (Kafka: group.initial.rebalance.delay.ms).
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


class EndJoin(Op, frozen=True):
    """End the join phase that began after ``generation``, if its time is up. Anybody may commit this."""

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

    add: Annotated[list[AclRule], Meta(max_length=ACLS_MAX)] = []
    remove: Annotated[list[AclRule], Meta(max_length=ACLS_MAX)] = []


class SetKey(Op, frozen=True):
    """Store an API key's SHA-256 (hex). With ``scopes`` the key may do what they *and* its principal's ACLs allow."""

    key: KeyId
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    principal: Name
    scopes: Annotated[list[AclRule], Meta(max_length=100)] = []
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


class Once(Op, frozen=True):
    """Do the rest of this intent once for ``key``; a repetition gets the first outcome (Idempotency-Key).

    ``request`` is a fingerprint: the same key with another request is refused as ``key_reused``. Keys are
    remembered for ``ONCE_KEEP_MS`` of manifest time, the newest ``ONCE_MAX`` of them, and all for WINDOW manifests.
    """

    key: Annotated[str, Meta(min_length=1, max_length=64)]
    request: Annotated[str, Meta(max_length=64)]


class RaiseFloor(Op, frozen=True):
    """From now on no chunk of a segment whose tip is below ``floor`` may be committed (R4)."""

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
    | DeleteOffsets
    | ExpireOffsets
    | JoinGroup
    | ReleasePartitions
    | LeaveGroup
    | JoinClassic
    | EndJoin
    | SyncClassic
    | DeleteGroup
    | ChangeAcls
    | SetKey
    | RevokeKey
    | SetQuota
    | Once
    | RaiseFloor
)


class Intent(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One all-or-nothing wish. Operations apply before appends, each in order.

    ``tip`` is the newest manifest that its writer knew when it made (or last renewed) the intent: in a
    manifest above ``tip + WINDOW`` the intent is void (R4), and ids are remembered for as long (R3).
    """

    id: IntentId
    tip: Count
    appends: Annotated[list[Chunk], Meta(max_length=INTENT_APPENDS_MAX)] = []
    ops: Annotated[list[AnyOp], Meta(max_length=INTENT_OPS_MAX)] = []


class Manifest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Commit number ``seq``: the ordered intents that it makes true.

    ``id`` is unique to this very PUT (R2: equal bodies would have equal ETags). ``time`` is the larger
    of the writer's clock and the predecessor's time, in ms (R7). ``merged`` names the published
    segments whose intents were taken in.
    """

    v: Positive
    kind: str
    seq: Positive
    id: IntentId
    writer: str
    time: Count
    intents: Annotated[list[Intent], Meta(max_length=MANIFEST_INTENTS_MAX)]
    merged: list[str] = []


class SegmentHeader(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A segment's line. With ``intents`` it is published: anyone may commit them. Without, it is only bytes."""

    v: Positive
    kind: str
    writer: str
    intents: Annotated[list[Intent], Meta(max_length=MANIFEST_INTENTS_MAX)] = []


class _Versioned(Protocol):
    @property
    def v(self) -> int: ...


_T = TypeVar("_T")
_V = TypeVar("_V", bound=_Versioned)
_encoder = msgspec.json.Encoder()
_intents = msgspec.json.Decoder(Intent)
_manifests = msgspec.json.Decoder(Manifest)
_segments = msgspec.json.Decoder(SegmentHeader)


def check_intent(intent: Intent) -> int:
    """How many bytes the intent's own JSON has, if every process will be able to read it.

    Raises:
        InvalidRequest: a value is out of bounds or of the wrong type, or the intent is too large.

    Cost: an encoding and a decoding, some microseconds for a small intent.
    """
    try:
        encoded = _encoder.encode(intent)
        _intents.decode(encoded)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"The request cannot be stored: {error}.") from error
    if len(encoded) > INTENT_BYTES_MAX:
        raise InvalidRequest(
            f"The request needs {len(encoded)} bytes beside its records; at most {INTENT_BYTES_MAX} fit one commit."
        )
    return len(encoded)


def header_cost(intents: list[Intent]) -> int:
    """How many bytes the intents add to a manifest's line."""
    return len(_encoder.encode(intents))


def encode_manifest(manifest: Manifest, payload_bytes: int, base: int | None = None) -> bytes:
    """The manifest's line; the payload follows it."""
    return frame.encode(_encoder.encode(manifest), payload_bytes, base)


def decode_manifest(data: bytes, seq: int) -> Manifest:
    """The manifest in ``data``, which was read at slot ``seq``. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, base = frame.decode(data)
    manifest = decode_header(_manifests, line, f"manifest {seq}")
    if manifest.kind != "manifest" or manifest.seq != seq:
        raise Corrupt(f"Slot {seq} holds a {manifest.kind} numbered {manifest.seq}.")
    for intent in manifest.intents:
        for chunk in intent.appends:
            # I2: a manifest never names bytes that are not there.
            if not chunk.obj and (chunk.pos < base or chunk.pos + chunk.len > len(data)):
                raise Corrupt(f"Manifest {seq} names inline bytes [{chunk.pos}, {chunk.pos + chunk.len}) outside.")
    return manifest


def encode_segment(header: SegmentHeader, payload_bytes: int, base: int | None = None) -> bytes:
    """The segment's line; the payload follows it."""
    return frame.encode(_encoder.encode(header), payload_bytes, base)


def decode_segment(data: bytes, *, whole: bool = True) -> SegmentHeader:
    """The header of a segment, from all of it or from its beginning. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, _ = frame.decode(data, whole=whole)
    header = decode_header(_segments, line, "segment")
    if header.kind != "segment":
        raise Corrupt(f"A segment's key holds a {header.kind}.")
    return header


def decode_header(decoder: msgspec.json.Decoder[_V], line: bytes, what: str) -> _V:
    """The line of ``what``, an object of a format that we know. Raises ``Corrupt`` or ``UpgradeRequired`` (R9)."""
    decoded = decode_known(decoder, line, what)
    if decoded.v > FORMAT:
        raise UpgradeRequired(f"The {what} has format {decoded.v}; this program knows up to {FORMAT}.")
    return decoded


# What msgspec says of a field, a tag, an enum's word or an array's element that the types do not have.
_NEWER: Final = ("unknown field", "Invalid value", "Invalid enum value", "`array` of at most length")


def decode_known(decoder: msgspec.json.Decoder[_T] | msgspec.msgpack.Decoder[_T], data: bytes, what: str) -> _T:
    """``data``, whose CRC is right, so that some writer meant it. Raises ``Corrupt`` or ``UpgradeRequired`` (R9)."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        newer = any(sign in str(error) for sign in _NEWER) or _version(data) > FORMAT
        kind = UpgradeRequired if newer else Corrupt
        raise kind(f"The {what} does not fit format {FORMAT}: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"The {what} cannot be read: {error}.") from error


def _version(line: bytes) -> int:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    version = found.get("v") if isinstance(found, dict) else None
    return version if isinstance(version, int) else 0


def new_id(rng: random.Random) -> str:
    """A fresh identity of 72 random bits, 12 characters."""
    return base64.urlsafe_b64encode(rng.getrandbits(72).to_bytes(9, "big")).decode()
