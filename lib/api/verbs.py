"""The verbs of the service: what can be asked of a namespace, whoever asks and by whatever way.

``Verbs`` is the one interface between edges and the log. ``headwater.api.service`` implements it over a
``Namespace``, with access rules and quotas; ``headwater.client.http`` implements it over function URLs; the HTTP
layer and the clients are written against it and so cannot tell the two apart. Errors are those of
``headwater.errors``. Batches are opaque bytes (``headwater.types.Batch``) in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from headwater.groups.coordinator import Heartbeat
from headwater.groups.describe import GroupInfo, Lag, MemberInfo
from headwater.limits import REBALANCE_MS, SESSION_MS
from headwater.log.chunk import Chunk
from headwater.log.namespace import Appended
from headwater.log.operations import AclRule
from headwater.log.reader import Fetched
from headwater.types import Batch

__all__ = [
    "AclRule",
    "Appended",
    "Batch",
    "Chunk",
    "Fetched",
    "GroupInfo",
    "Heartbeat",
    "Lag",
    "MemberInfo",
    "Verbs",
]

TP: TypeAlias = tuple[str, int]
Where: TypeAlias = int | Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """Offsets ``[log_start, end)``; readers stop at ``stable_end`` (they differ behind an open reservation)."""

    partition: int
    log_start: int
    end: int
    stable_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic as of manifest ``commit``."""

    name: str
    id: int
    created_ms: int
    config: Mapping[str, str]
    partitions: Sequence[PartitionInfo]
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    """A typed column of a topic; ``type`` in Arrow's words, as in ``list<item: int32>``."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaInfo:
    """One version of a topic's schema, since manifest ``commit``; ``definition`` is JSON text."""

    version: int
    format: Literal["json", "avro", "arrow"]
    definition: str
    columns: Sequence[ColumnInfo]
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetAt:
    """An offset that was looked up; ``timestamp`` is its record's in ms, -1 where none was looked at."""

    offset: int
    timestamp: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerId:
    """Who an idempotent producer is (KIP-98)."""

    id: int
    epoch: int
    transactional_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffset:
    """A group's place in a partition: the next offset to read."""

    offset: int
    metadata: str = ""
    committed_ms: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffsets:
    """Offsets to commit for a group, fenced by member and generation if it has members (-1: it has none)."""

    group: str
    offsets: Mapping[TP, GroupOffset]
    member: str = ""
    generation: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a transaction did: where each batch lies, as of manifest ``commit``, and the producer's next epoch."""

    appended: Sequence[Appended]
    commit: int
    producer: ProducerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Stored bytes that can be read without us: a presigned GET of exactly these bytes, good until ``expires_ms``.

    ``codec`` is that of a batch whose offsets are ``base``, ``base + 1``, …, or ``parquet``: a whole archive file,
    with a column ``offset``.
    """

    url: str
    headers: Mapping[str, str]
    base: int
    count: int
    codec: str
    length: int
    crc32c: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Ranges from an offset on, and where to go on."""

    ranges: Sequence[Range]
    next_offset: int
    log_start: int
    high_watermark: int
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A presigned PUT for a batch too large for a function. The body is ``prefix`` and then the batch's bytes."""

    id: str
    url: str
    headers: Mapping[str, str]
    prefix: bytes
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """An API key without its secret."""

    key: str
    principal: str
    created_ms: int
    expires_ms: int
    scopes: Sequence[AclRule] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaInfo:
    """What a principal may use, per second; -1: no bound."""

    principal: str
    produce_bytes_per_s: int = -1
    fetch_bytes_per_s: int = -1
    requests_per_s: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """The namespace as of manifest ``commit``, which was made at ``time_ms``."""

    name: str
    config: Mapping[str, str]
    commit: int
    time_ms: int


class Verbs(Protocol):
    """What a principal can ask of one namespace. Every verb checks access first and says what became of it."""

    namespace: str

    async def aclose(self) -> None:
        """Return when nothing is in flight, and let go of connections."""
        ...

    # -- topics ----------------------------------------------------------------------------------

    async def topics(self) -> Sequence[TopicInfo]:
        """All topics that the caller may describe, by name; internal ones (``__…``) are left out."""
        ...

    async def topic(self, name: str) -> TopicInfo:
        """One topic. Raises ``NotFound``."""
        ...

    async def offset_of(self, topic: str, partition: int, where: Where = "latest") -> OffsetAt:
        """The offset at ``earliest``, ``latest``, or of the first record at or after a time in ms (else the end)."""
        ...

    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Raises ``AlreadyExists``, ``InvalidRequest``."""
        ...

    async def delete_topic(self, name: str) -> None: ...

    async def add_partitions(self, name: str, total: int) -> None: ...

    async def alter_topic(self, name: str, config: Mapping[str, str | None]) -> None: ...

    async def schemas(self, topic: str) -> Sequence[SchemaInfo]:
        """All versions of a topic's schema, oldest first; none for a topic of opaque bytes."""
        ...

    async def set_schema(self, topic: str, format: str, definition: str, *, version: int = 0) -> SchemaInfo:  # noqa: A002
        """Make a definition the newest version (``version``, or whichever is next); a repetition changes nothing.

        Values are checked by it from then on. Raises ``InvalidRequest`` with the path of what cannot be expressed,
        ``Conflict`` for a version that is taken, or a definition that cannot follow the present one.
        """
        ...

    async def delete_records(self, name: str, partition: int, before: int) -> int:
        """Move the log start to ``before`` (-1: the end); answers the log start."""
        ...

    # -- writing -----------------------------------------------------------------------------------

    async def produce(
        self, batches: Sequence[tuple[str, int, Batch]], *, token: str = "", once: str = "", request: str = ""
    ) -> Sequence[Appended]:
        """Append batches, all or nothing; batches with a producer id are idempotent by sequence.

        ``token`` is an ``Indeterminate``'s of the same call; ``once`` an Idempotency-Key and ``request`` its
        request's fingerprint (``Conflict`` if the key came with another one). Partitions and counts belong to the
        request, so whoever chooses a partition for a repetition chooses the same. A principal's keys are its own.
        """
        ...

    async def init_producer(self, transactional_id: str = "", *, current: ProducerId | None = None) -> ProducerId:
        """A fresh producer, or the next epoch of the transactional id's, which fences its predecessors."""
        ...

    async def transact(
        self,
        producer: ProducerId,
        batches: Sequence[tuple[str, int, Batch]],
        offsets: Sequence[GroupOffsets] = (),
        *,
        token: str = "",
    ) -> Written:
        """A transaction in one request: all batches and offsets become visible by one intent, or nothing does."""
        ...

    async def begin(self, producer: ProducerId, *, timeout_ms: int = 60_000) -> str:
        """Begin a transaction of several requests; its id. Nothing of it is visible before ``commit``."""
        ...

    async def add(
        self, transaction: str, batches: Sequence[tuple[str, int, Batch]], offsets: Sequence[GroupOffsets] = ()
    ) -> None:
        """Add batches and offsets to an open transaction: stored, and named by no manifest."""
        ...

    async def commit(self, transaction: str) -> Written:
        """Make it all visible. A second call answers the same."""
        ...

    async def abort(self, transaction: str) -> None:
        """Forget it. A second call does nothing; after ``commit`` it is a ``Conflict``."""
        ...

    async def upload(self, topic: str, partition: int, length: int) -> Upload:
        """Where to PUT a batch of ``length`` bytes, as an Arrow IPC stream."""
        ...

    async def append_upload(self, upload: str, *, token: str = "", producer: ProducerId | None = None,
                            sequence: int = -1) -> Appended:  # fmt: skip
        """Check the uploaded batch and append it to the partition that it was meant for."""
        ...

    # -- reading -----------------------------------------------------------------------------------

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        bytes_max: int = 8 << 20,
        wait_ms: float = 0,
        as_of: int | None = None,
    ) -> Fetched:
        """See ``Reader.fetch``. With ``as_of`` the log ends where it ended at that commit."""
        ...

    async def ranges(self, topic: str, partition: int, offset: int, *, bytes_max: int = 64 << 20) -> Ranges:
        """What ``fetch`` would read, as presigned URLs. ``InvalidRequest`` on a store that cannot presign."""
        ...

    # -- groups ------------------------------------------------------------------------------------

    async def heartbeat(
        self,
        group: str,
        member: str,
        *,
        topics: Sequence[str] | None = None,
        released: Sequence[TP] = (),
        instance: str = "",
        assignor: str = "",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        client: str = "",
        joining: bool = False,
        renew: bool = True,
    ) -> Heartbeat:
        """Join (``joining``), stay in, and hear what the member owns. See ``groups.Coordinator.heartbeat``.

        Raises ``UnknownMember`` if the group has let go of this member: join under a new id.
        """
        ...

    async def leave(self, group: str, member: str) -> None: ...

    async def commit_offsets(self, offsets: GroupOffsets) -> None:
        """Raises ``Fenced`` for what the member does not own (any more)."""
        ...

    async def committed(self, group: str) -> Mapping[TP, GroupOffset]: ...

    async def groups(self) -> Sequence[GroupInfo]: ...

    async def group(self, name: str) -> GroupInfo: ...

    async def lag(self, group: str | None = None) -> Sequence[Lag]:
        """Of one group, or of all that the caller may describe, from the fold alone."""
        ...

    async def delete_group(self, name: str) -> None: ...

    async def delete_offsets(self, group: str, partitions: Sequence[TP]) -> None: ...

    # -- access ------------------------------------------------------------------------------------

    async def acls(self) -> Sequence[AclRule]: ...

    async def change_acls(self, add: Sequence[AclRule] = (), remove: Sequence[AclRule] = ()) -> None: ...

    async def create_key(
        self, principal: str, *, scopes: Sequence[AclRule] = (), expires_ms: int = 0
    ) -> tuple[KeyInfo, str]:
        """A new API key and its token, which is shown this once."""
        ...

    async def keys(self) -> Sequence[KeyInfo]: ...

    async def revoke_key(self, key: str) -> None: ...

    async def quotas(self) -> Sequence[QuotaInfo]:
        """Every quota that was set, by principal."""
        ...

    async def set_quota(
        self, principal: str, *, produce_bytes_per_s: int = -1, fetch_bytes_per_s: int = -1, requests_per_s: int = -1
    ) -> None: ...

    async def abort_producer(self, producer: int, epoch: int) -> None:
        """Void what ``producer`` has reserved under ``epoch``, and fence it: its next request is refused (KIP-664).

        Raises:
            NotFound: there is no such producer. Conflict: it has nothing open.
            Fenced: it is at another epoch by now, so what was meant has ended already. Nothing was done.
        """
        ...

    async def describe_namespace(self) -> NamespaceInfo: ...

    async def alter_namespace(self, config: Mapping[str, str | None]) -> None:
        """Set configs of the namespace; None takes one back to its default. Raises ``InvalidRequest``."""
        ...
