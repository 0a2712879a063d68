"""Administration: topics, groups and their offsets, access rules, keys and quotas, under Kafka's names.

    async with Admin("s3://bucket/prefix") as admin:
        await admin.create_topics({"clicks": 6})
        print(await admin.lag("counts"))

It is a thin face over ``headwater.api.verbs.Verbs``; the data that it returns is described there. Several topics at
once are several commits: when one is refused the others are done, and the error is raised at the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from headwater.client.connection import Connection, ConnectOptions, shown
from headwater.client.records import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from headwater.client.subscription import place
from headwater.clock import Clock
from headwater.errors import InvalidRequest
from headwater.log.together import to_the_end

if TYPE_CHECKING:
    from types import TracebackType

    from headwater.api.verbs import (
        AclRule,
        GroupInfo,
        KeyInfo,
        Lag,
        NamespaceInfo,
        QuotaInfo,
        SchemaInfo,
        TopicInfo,
        Verbs,
        Where,
    )
    from headwater.client.transaction import OffsetsLike

TP = tuple[str, int]


class Admin:
    """Looks after a namespace. ``target`` and ``connection`` are as in ``Producer``."""

    def __init__(
        self,
        target: str | Verbs,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        **connection: Unpack[ConnectOptions],
    ) -> None:
        self._connection = Connection(target, clock=clock, rng=rng, **connection)

    def __repr__(self) -> str:
        return f"Admin({shown(self._connection._target)})"

    async def start(self) -> None:
        """Connect. ``async with`` does it."""
        await self._connection.open()

    async def stop(self) -> None:
        """Let go. A second call does nothing."""
        await self._connection.close()

    async def __aenter__(self) -> Admin:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _verbs(self) -> Verbs:
        return self._connection.verbs

    # -- topics -----------------------------------------------------------------------------------------------

    async def create_topics(
        self, topics: Mapping[str, int] | Iterable[str], *, config: Mapping[str, str] | None = None
    ) -> list[TopicInfo]:
        """Create topics by name, with so many partitions each (1 if no number is given). Raises ``AlreadyExists``."""
        wanted = topics if isinstance(topics, Mapping) else dict.fromkeys(topics, 1)
        return await to_the_end(self._verbs.create_topic(name, count, config) for name, count in wanted.items())

    async def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics with all their records. Raises ``NotFound``."""
        await to_the_end(self._verbs.delete_topic(name) for name in topics)

    async def list_topics(self) -> list[str]:
        """The names of all topics that may be described."""
        return [info.name for info in await self._verbs.topics()]

    async def describe_topics(self, topics: Iterable[str] | None = None) -> list[TopicInfo]:
        """Topics with their partitions, offsets and configs; all of them if none is named. Raises ``NotFound``."""
        if topics is None:
            return list(await self._verbs.topics())
        return await to_the_end(self._verbs.topic(name) for name in topics)

    async def create_partitions(self, totals: Mapping[str, int]) -> None:
        """Grow topics to so many partitions. Keys then map to other partitions, as in Kafka."""
        await to_the_end(self._verbs.add_partitions(name, total) for name, total in totals.items())

    async def alter_configs(self, configs: Mapping[str, Mapping[str, str | None]]) -> None:
        """Set configs of topics; None takes one back to its default."""
        await to_the_end(self._verbs.alter_topic(name, config) for name, config in configs.items())

    async def list_schemas(self, topic: str) -> list[SchemaInfo]:
        """All versions of a topic's schema, oldest first; none for a topic of opaque bytes."""
        return list(await self._verbs.schemas(topic))

    async def set_schema(self, topic: str, format: str, definition: Any, *, version: int = 0) -> SchemaInfo:  # noqa: A002
        """Give a topic a schema, or the next version of it: values are checked by it from then on.

        Args:
            topic: its name.
            format: how values are written: ``json``, ``avro`` or ``arrow``.
            definition: JSON Schema, an Avro schema, or column → type, as text or parsed; a dataclass, TypedDict,
                NamedTuple or ``msgspec.Struct`` for ``json``; a ``pyarrow.Schema`` for ``arrow``.
            version: the version that this is to be; 0 is whichever comes next.

        Raises:
            InvalidRequest: the definition cannot be expressed; the message names the path.
            Conflict: it cannot follow the present version, or ``version`` is taken.
        """
        from headwater.schemas.compile import definition_text

        return await self._verbs.set_schema(topic, format, definition_text(format, definition), version=version)

    async def delete_records(self, before: Mapping[TP, int]) -> dict[TopicPartition, int]:
        """Move the log starts of partitions forward to these offsets (-1: the end); where they are then."""
        starts = await to_the_end(self._verbs.delete_records(tp[0], tp[1], offset) for tp, offset in before.items())
        return dict(zip(map(place, before), starts, strict=True))

    async def list_offsets(self, partitions: Mapping[TP, Where]) -> dict[TopicPartition, OffsetAndTimestamp]:
        """The offsets of partitions at ``earliest``, ``latest``, or of the first record at or after a time in ms."""
        found = await to_the_end(self._verbs.offset_of(tp[0], tp[1], where) for tp, where in partitions.items())
        return {
            place(tp): OffsetAndTimestamp(at.offset, at.timestamp) for tp, at in zip(partitions, found, strict=True)
        }

    # -- groups -----------------------------------------------------------------------------------------------

    async def list_groups(self) -> list[GroupInfo]:
        """All groups."""
        return list(await self._verbs.groups())

    async def describe_groups(self, groups: Iterable[str]) -> list[GroupInfo]:
        """Groups with their members and what those own. Raises ``NotFound``."""
        return await to_the_end(self._verbs.group(name) for name in groups)

    async def delete_groups(self, groups: Iterable[str]) -> None:
        """Delete groups that have no members, with their offsets. Raises ``NotFound``, ``Conflict``."""
        await to_the_end(self._verbs.delete_group(name) for name in groups)

    async def list_group_offsets(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed."""
        found = await self._verbs.committed(group)
        return {place(tp): OffsetAndMetadata(each.offset, each.metadata) for tp, each in found.items()}

    async def alter_group_offsets(self, group: str, offsets: OffsetsLike) -> None:
        """Set the offsets of a group without members: all of them, by one commit. Raises ``Fenced`` if it has any."""
        from headwater.api.verbs import GroupOffset, GroupOffsets

        places = {tp: OffsetAndMetadata(at) if isinstance(at, int) else at for tp, at in offsets.items()}
        if places:
            wish = {(tp[0], tp[1]): GroupOffset(offset=at.offset, metadata=at.metadata) for tp, at in places.items()}
            await self._verbs.commit_offsets(GroupOffsets(group=group, offsets=wish))

    async def reset_group_offsets(
        self, group: str, to: Where, *, topics: Iterable[str] | None = None
    ) -> dict[TopicPartition, int]:
        """Set a group without members to ``earliest``, ``latest`` or a time in ms, in all partitions of these topics.

        Without ``topics``: in the partitions that it has committed. Returns the offsets. Raises ``Fenced`` if the
        group has members, ``InvalidRequest`` if it would not know of any partition.
        """
        if topics is None:
            places = [place(tp) for tp in await self._verbs.committed(group)]
        else:
            infos = await self.describe_topics(topics)
            places = [TopicPartition(info.name, each.partition) for info in infos for each in info.partitions]
        if not places:
            raise InvalidRequest(f"Group {group!r} has committed nothing; name the topics.")
        offsets = {tp: at.offset for tp, at in (await self.list_offsets(dict.fromkeys(places, to))).items()}
        await self.alter_group_offsets(group, offsets)
        return offsets

    async def delete_group_offsets(self, group: str, partitions: Sequence[TP]) -> None:
        """Forget a group's offsets of some partitions. Raises ``NotFound``, ``Conflict`` if it has members."""
        await self._verbs.delete_offsets(group, [(tp[0], tp[1]) for tp in partitions])

    async def lag(self, group: str | None = None) -> list[Lag]:
        """How far a group, or every group, is behind the end of the log."""
        return list(await self._verbs.lag(group))

    # -- access -----------------------------------------------------------------------------------------------

    async def list_acls(self) -> list[AclRule]:
        """All access rules."""
        return list(await self._verbs.acls())

    async def create_acls(self, rules: Sequence[AclRule]) -> None:
        """Add access rules, all at once. With the first one everything else is denied."""
        await self._verbs.change_acls(add=rules)

    async def delete_acls(self, rules: Sequence[AclRule]) -> None:
        """Take access rules away, all at once."""
        await self._verbs.change_acls(remove=rules)

    async def list_keys(self) -> list[KeyInfo]:
        """All API keys, without their secrets."""
        return list(await self._verbs.keys())

    async def create_key(
        self, principal: str, *, scopes: Sequence[AclRule] = (), expires_ms: int = 0
    ) -> tuple[KeyInfo, str]:
        """A new API key, and its token, which is shown this once."""
        return await self._verbs.create_key(principal, scopes=scopes, expires_ms=expires_ms)

    async def revoke_key(self, key: str) -> None:
        """Revoke an API key. Raises ``NotFound``."""
        await self._verbs.revoke_key(key)

    async def list_quotas(self) -> list[QuotaInfo]:
        """All quotas."""
        return list(await self._verbs.quotas())

    async def set_quota(
        self, principal: str, *, produce_bytes_per_s: int = -1, fetch_bytes_per_s: int = -1, requests_per_s: int = -1
    ) -> None:
        """Bound what a principal may use a second; -1 lifts a bound."""
        await self._verbs.set_quota(
            principal,
            produce_bytes_per_s=produce_bytes_per_s,
            fetch_bytes_per_s=fetch_bytes_per_s,
            requests_per_s=requests_per_s,
        )

    # -- transactions -----------------------------------------------------------------------------------------

    async def abort_transaction(self, producer: int, epoch: int) -> None:
        """Abort what ``producer`` has open under ``epoch``, and fence it (Kafka: abortTransaction, KIP-664).

        Raises:
            NotFound: there is no such producer. Conflict: it has nothing open.
            Fenced: it is at another epoch by now, so what was meant has ended already. Nothing was done.
        """
        await self._verbs.abort_producer(producer, epoch)

    # -- the namespace ----------------------------------------------------------------------------------------

    async def describe_namespace(self) -> NamespaceInfo:
        """The namespace with its configs."""
        return await self._verbs.describe_namespace()

    async def alter_namespace(self, config: Mapping[str, str | None]) -> None:
        """Set configs of the namespace, as ``history.retention.ms``; None takes one back to its default."""
        await self._verbs.alter_namespace(config)
