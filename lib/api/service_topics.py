"""Topics: what there are, where they begin and end, and how they are made, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.api import access
from headwater.api.names import check_config, check_number, check_place, check_topic
from headwater.api.service_base import ServiceBase, verb
from headwater.api.verbs import ColumnInfo, OffsetAt, PartitionInfo, SchemaInfo, TopicInfo, Where
from headwater.errors import InvalidRequest, NotFound
from headwater.limits import PARTITION_MAX, SCHEMAS_MAX
from headwater.log import operations as ops
from headwater.log.state import Schema, State, Topic


class TopicVerbs(ServiceBase):
    """The verbs of topics."""

    @verb
    async def topics(self) -> Sequence[TopicInfo]:
        await self.enter(fresh=True)
        state = self._state
        names = sorted(name for name in state.names if not name.startswith(access.INTERNAL))
        return [described(state, name) for name in names if self.may("describe", "topic", name)]

    @verb
    async def topic(self, name: str) -> TopicInfo:
        check_topic(name)
        await self.enter(fresh=True)
        self.check("describe", "topic", name)
        return described(self._state, name)

    @verb
    async def offset_of(self, topic: str, partition: int, where: Where = "latest") -> OffsetAt:
        check_place(topic, partition)
        if where not in ("earliest", "latest"):
            check_number("time in ms (or earliest, or latest)", where)  # type: ignore[arg-type]
        await self.enter(fresh=not isinstance(where, int))  # a search by time looks at the tip itself
        self.check("describe", "topic", topic)
        if isinstance(where, int):
            found = await self._space.reader.offset_at(topic, partition, where)
            if found is not None:
                return OffsetAt(offset=found[0], timestamp=found[1])
        _, place = self._space.reader.place(topic, partition)
        # The latest offset is where readers stop: behind an open reservation nothing can be read yet.
        return OffsetAt(offset=place.start if where == "earliest" else place.stable_end)

    @verb
    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicInfo:
        check_topic(name)
        check_number("number of partitions", partitions, 1, PARTITION_MAX)
        wanted = {key: str(value) for key, value in check_config(config or {}).items()}
        await self.enter()
        if name.startswith(access.INTERNAL) or not self.may("create", "cluster"):
            self.check("create", "topic", name)
        op = ops.CreateTopic(name=name, partitions=partitions, config=wanted)
        await self._change(op, "create", "topic", name, partitions=partitions, config=wanted)
        return described(self._state, name)

    @verb
    async def delete_topic(self, name: str) -> None:
        found = await self._mine("delete", name)
        await self._change(ops.DeleteTopic(topic=found.id), "delete", "topic", name)

    @verb
    async def add_partitions(self, name: str, total: int) -> None:
        check_number("number of partitions", total, 1, PARTITION_MAX)
        found = await self._mine("alter", name)
        await self._change(ops.AddPartitions(topic=found.id, total=total), "add_partitions", "topic", name, total=total)

    @verb
    async def alter_topic(self, name: str, config: Mapping[str, str | None]) -> None:
        wanted = check_config(config, unset=True)
        if not wanted:
            raise InvalidRequest("There is nothing to alter: name at least one config.")
        found = await self._mine("alter", name)
        await self._change(ops.AlterTopic(topic=found.id, config=wanted), "alter", "topic", name, config=wanted)

    @verb
    async def schemas(self, topic: str) -> Sequence[SchemaInfo]:
        check_topic(topic)
        await self.enter(fresh=True)
        self.check("describe", "topic", topic)
        return [_schema(each) for each in self._space.topic(topic).schemas]

    @verb
    async def set_schema(self, topic: str, format: str, definition: str, *, version: int = 0) -> SchemaInfo:  # noqa: A002
        from headwater.schemas.change import planned  # most processes never set one

        check_number("version", version, 0, SCHEMAS_MAX)
        if not isinstance(definition, str):
            raise InvalidRequest(f"A definition is JSON text, not {type(definition).__name__}.")
        found = await self._mine("alter", topic)
        await self._space.refresh()
        op = planned(self._space.topic(found.name), format, definition, version)
        if op is not None:
            await self._change(op, "set_schema", "topic", topic, version=op.version, format=op.format)
        newest = self._space.topic(topic).schema
        assert newest is not None
        return _schema(newest)

    @verb
    async def delete_records(self, name: str, partition: int, before: int) -> int:
        check_place(name, partition)
        check_number("new log start (-1: the end)", before, -1)
        await self._mine("delete", name)
        await self._space.refresh()
        found, place = self._space.reader.place(name, partition)
        start = place.stable_end if before < 0 else before
        if start > place.start:
            op = ops.TrimLog(topic=found.id, partition=partition, before=start)
            await self._change(op, "trim", "topic", name, partition=partition, before=start)
            _, place = self._space.reader.place(name, partition)
        return place.start

    async def _mine(self, operation: ops.Operation, name: str) -> Topic:
        """The topic, if the principal may do that with it."""
        check_topic(name)
        await self.enter()
        self.check(operation, "topic", name)
        return await self._space.find_topic(name)


def _schema(found: Schema) -> SchemaInfo:
    columns = [ColumnInfo(name=each.name, type=each.type, nullable=each.nullable) for each in found.columns]
    return SchemaInfo(
        version=found.version,
        format=found.format,
        definition=found.definition,
        columns=columns,
        commit=found.seq,
    )


def described(state: State, name: str) -> TopicInfo:
    """The topic as of ``state``. Raises ``NotFound``."""
    found = state.named(name)
    if found is None:
        raise NotFound(f"There is no topic {name!r} in this namespace.", topic=name)
    partitions = [
        PartitionInfo(partition=number, log_start=place.start, end=place.next, stable_end=place.stable_end)
        for number, place in enumerate(found.partitions)
    ]
    return TopicInfo(
        name=found.name,
        id=found.id,
        created_ms=found.created_ms,
        config=dict(found.config),
        partitions=partitions,
        commit=state.seq,
    )
