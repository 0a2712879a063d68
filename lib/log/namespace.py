"""A handle on one namespace: everything above the parts, everything below the clients.

chain ◄── journal ◄── committer ◄── writer        what is written
chain ◄── house, lookup ◄── reader                what is read
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headwater.clock import Clock, SystemClock, system_entropy
from headwater.errors import InvalidRequest, NotFound
from headwater.limits import METADATA_BYTES_MAX, NAME_BYTES_MAX, PARTITION_MAX
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log.chain import Chain
from headwater.log.committer import Committer
from headwater.log.config import check_namespace_config, check_topic_config
from headwater.log.house import House
from headwater.log.journal import Journal
from headwater.log.lookup import Lookup
from headwater.log.options import Options
from headwater.log.reader import Reader
from headwater.log.state import Committed, Outcome, State, Topic
from headwater.log.writer import Append, Writer
from headwater.store.base import ObjectStore
from headwater.store.prefixed import PrefixedStore
from headwater.store.probe import probe_conditional_writes
from headwater.types import Batch

if TYPE_CHECKING:
    from types import TracebackType

    from headwater.log.producer import Producer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where an acknowledged batch lies: offsets ``[base_offset, base_offset + count)``, as of manifest ``commit``."""

    topic: str
    partition: int
    base_offset: int
    count: int
    commit: int


class Namespace:
    """One manifest chain: topics, groups and producers, and one total order over all their commits (P5).

    Make one per process with ``Namespace.open``; use it from any number of tasks; close it, or use it as an
    asynchronous context manager, so that nothing is in flight when the process ends (R10).
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str = "default",
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        options: Options | None = None,
    ) -> None:
        self.name = keys.check_namespace(name)
        self.bucket = store
        self._owns_store = False
        self.store = PrefixedStore(store, f"{name}/")
        rng = rng or system_entropy()
        writer = keys.fresh_name(rng, 50)
        self.chain = Chain(
            self.store,
            clock=clock or SystemClock(),
            rng=rng,
            options=options or Options(),
            sibling=lambda other: PrefixedStore(store, f"{keys.check_namespace(other)}/"),
        )
        self.chain.name = name
        self.journal = Journal(self.chain, writer=writer)
        self.committer = Committer(self.journal)
        self.house = House(self.chain, writer=writer)
        self.writer = Writer(self.committer)
        self.lookup = Lookup(self.chain, self.house)
        self.reader = Reader(self.chain, self.lookup)
        self._shared: dict[Callable[[Namespace], Any], Any] = {}

    @classmethod
    async def open(
        cls,
        store: ObjectStore,
        name: str = "default",
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        options: Options | None = None,
        owns_store: bool = False,
        probe: bool = True,
    ) -> Namespace:
        """A handle whose state is that of the bucket. A namespace begins to exist with its first commit.

        Without ``probe`` the store's conditional writes are taken on trust: for those who will make no first commit.

        Raises:
            InvalidRequest: the store fakes conditional writes (R8; probed before a namespace's first commit).
            Unauthorized, Forbidden, NotFound, Unavailable: the store cannot be read.

        Cost: 2 GETs, 2 LISTs and the manifests since the newest snapshot.
        """
        namespace = cls(store, name, clock=clock, rng=rng, options=options)
        namespace._owns_store = owns_store
        await namespace.chain.refresh()
        if probe and namespace.state.seq == 0:
            await probe_conditional_writes(store, rng=namespace.chain.rng)
        return namespace

    async def __aenter__(self) -> Namespace:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Return when nothing is in flight. A store that the caller has opened stays open."""
        await self.drain()
        if self._owns_store:
            await self.bucket.aclose()

    async def drain(self) -> None:
        """Return when no upload, commit or snapshot is on its way (R10)."""
        await self.writer.drain()
        await self.house.drain()

    def shared(self, make: Callable[[Namespace], T]) -> T:
        """``make(self)``, made once: what a layer above keeps for as long as this handle lives."""
        if make not in self._shared:
            self._shared[make] = make(self)
        return cast(T, self._shared[make])

    @property
    def state(self) -> State:
        """The fold as this process knows it. Read only; ``refresh`` brings it up to date."""
        return self.chain.state

    async def refresh(self) -> State:
        """The state with everything that was acknowledged anywhere before this call. Cost: 1 GET at the tip."""
        await self.chain.refresh()
        return self.chain.state

    # -- topics --------------------------------------------------------------------------------------

    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> Topic:
        """Create a topic. Raises ``AlreadyExists``, or ``InvalidRequest`` for a bad name or count."""
        keys.check_topic_name(name)
        if not 1 <= partitions <= PARTITION_MAX:
            raise InvalidRequest(f"A topic has 1 to {PARTITION_MAX} partitions, not {partitions}.")
        for config_name, value in (config or {}).items():
            check_topic_config(config_name, value)
        await self._change(ops.CreateTopic(name=name, partitions=partitions, config=dict(config or {})))
        return self.topic(name)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic: one commit, whatever its size. Its bytes are collected later."""
        await self._change(ops.DeleteTopic(topic=(await self.find_topic(name)).id))

    async def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to ``total`` partitions. Keys then map to other partitions, as in Kafka."""
        if not 1 <= total <= PARTITION_MAX:
            raise InvalidRequest(f"A topic has 1 to {PARTITION_MAX} partitions, not {total}.")
        await self._change(ops.AddPartitions(topic=(await self.find_topic(name)).id, total=total))

    async def alter_topic(self, name: str, config: Mapping[str, str | None]) -> None:
        """Set configs of a topic; ``None`` takes one back to its default. Raises ``InvalidRequest`` for a bad value."""
        for config_name, value in config.items():
            if value is not None:
                check_topic_config(config_name, value)
        await self._change(ops.AlterTopic(topic=(await self.find_topic(name)).id, config=dict(config)))

    async def alter_namespace(self, config: Mapping[str, str | None]) -> None:
        """Set configs of the namespace; ``None`` takes one back to its default. Raises ``InvalidRequest``."""
        for config_name, value in config.items():
            check_namespace_config(config_name, "-1" if value is None else value)
        await self._change(ops.AlterNamespace(config=dict(config)))

    async def trim(self, name: str, partition: int, before: int) -> None:
        """Move the log start forward to ``before`` (Kafka: DeleteRecords). Offsets below are gone for readers."""
        await self.find_topic(name)
        topic, _ = self.reader.place(name, partition)
        await self._change(ops.TrimLog(topic=topic.id, partition=partition, before=before))

    def topic(self, name: str) -> Topic:
        """The topic as this process knows it. Raises ``NotFound``."""
        found = self.state.named(name)
        if found is None:
            raise NotFound(f"There is no topic {name!r} in namespace {self.name!r}.", topic=name)
        return found

    async def find_topic(self, name: str) -> Topic:
        """The topic, after a look at the tip if this process does not know it yet."""
        if self.state.named(name) is None:
            await self.chain.refresh()
        return self.topic(name)

    # -- writing --------------------------------------------------------------------------------------

    async def append(self, topic: str, partition: int, batch: Batch, *, token: str = "") -> Appended:
        """Append one batch and return when it is in the bucket, at its place for ever. See ``Writer.commit``."""
        found = await self.find_topic(topic)
        outcome = await self.writer.commit([Append(topic=found.id, partition=partition, batch=batch)], token=token)
        return Appended(
            topic=topic, partition=partition, base_offset=outcome.bases[0], count=batch.count, commit=outcome.seq
        )

    async def append_many(
        self,
        batches: Sequence[tuple[str, int, Batch]],
        *,
        offsets: Mapping[str, Mapping[tuple[str, int], int]] | None = None,
        token: str = "",
    ) -> list[Appended]:
        """Append batches to many partitions, and commit group offsets with them: all or nothing, by one intent."""
        appends = [
            Append(topic=(await self.find_topic(topic)).id, partition=partition, batch=batch)
            for topic, partition, batch in batches
        ]
        commits = [await self.offsets_op(group, places) for group, places in (offsets or {}).items()]
        outcome = await self.writer.commit(appends, commits, token=token)
        return [
            Appended(topic=topic, partition=partition, base_offset=base, count=batch.count, commit=outcome.seq)
            for (topic, partition, batch), base in zip(batches, outcome.bases, strict=True)
        ]

    async def producer(self, transactional_id: str = "") -> Producer:
        """An idempotent producer, or with an id a transactional one that fences its predecessors. 1 commit."""
        from headwater.log.producer import Producer

        return await Producer.open(self, transactional_id)

    # -- groups ---------------------------------------------------------------------------------------

    async def commit_offsets(
        self,
        group: str,
        places: Mapping[tuple[str, int], int],
        *,
        generation: int = -1,
        member: str = "",
        metadata: str = "",
    ) -> None:
        """Set the group's next offset to read, by (topic, partition). Raises ``Fenced`` for an old generation."""
        await self._change(await self.offsets_op(group, places, generation, member, metadata))

    async def committed(self, group: str) -> dict[tuple[str, int], Committed]:
        """What the group has committed, by (topic, partition). Empty for a group that does not exist."""
        state = await self.refresh()
        found = state.groups.get(group)
        return {
            (state.topics[topic].name, partition): committed
            for topic, places in (found.offsets if found else {}).items()
            if topic in state.topics
            for partition, committed in places.items()
            if committed.offset >= 0
        }

    async def offsets_op(
        self,
        group: str,
        places: Mapping[tuple[str, int], int],
        generation: int = -1,
        member: str = "",
        metadata: str | Mapping[tuple[str, int], str] = "",
    ) -> ops.CommitOffsets:
        """The operation that commits offsets, checked, for use in a larger intent.

        ``metadata`` is for all of them, or for each by its place.
        """
        if not group or len(group.encode()) > NAME_BYTES_MAX:
            raise InvalidRequest(f"A group's name has 1 to {NAME_BYTES_MAX} bytes; {group[:40]!r} does not.")
        for noted in [metadata] if isinstance(metadata, str) else metadata.values():
            if len(noted) > METADATA_BYTES_MAX:
                raise InvalidRequest(f"Offset metadata has at most {METADATA_BYTES_MAX} characters, not {len(noted)}.")
        entries = []
        for (topic, partition), offset in places.items():
            found = await self.find_topic(topic)
            noted = metadata if isinstance(metadata, str) else metadata.get((topic, partition), "")
            if offset < 0:
                raise InvalidRequest(f"An offset is 0 or more, not {offset} (topic {topic!r}, partition {partition}).")
            entries.append(ops.OffsetEntry(found.id, partition, offset, noted))
        return ops.CommitOffsets(group=group, offsets=entries, generation=generation, member=member)

    async def _change(self, op: ops.AnyOp) -> Outcome:
        return await self.writer.commit(ops=[op])
