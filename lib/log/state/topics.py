"""Topics, their partitions and schemas, log starts, and the floor below which segments and files are gone."""

from __future__ import annotations

from typing import Any

from headwater.errors import Unavailable
from headwater.limits import PARTITIONS_MAX, SCHEMAS_MAX
from headwater.log import columns
from headwater.log.operations import (
    AddPartitions,
    AlterNamespace,
    AlterTopic,
    BranchedFrom,
    CreateTopic,
    DeleteTopic,
    RaiseFloor,
    SetSchema,
    TrimLog,
)
from headwater.log.operations_base import Op
from headwater.log.state.appends import partition_of
from headwater.log.state.archive import trimmed
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Partition, Schema, State, Topic


def _create(change: Change, op: CreateTopic) -> None:
    state = change.state
    if op.name in state.names:
        raise Refused("exists", f"Topic {op.name!r} exists already.")
    _check_room(state, op.partitions)
    topic = Topic(
        id=state.next_topic,
        name=op.name,
        created_ms=state.time_ms,
        config=dict(op.config),
        partitions=[Partition() for _ in range(op.partitions)],
    )
    state.next_topic += 1
    state.topics[topic.id] = topic
    state.names[topic.name] = topic.id
    change.values["topic"] = topic.id
    change.topics.add(topic.name)
    change.on_refusal(_undo_create, state, topic)


def _undo_create(state: State, topic: Topic) -> None:
    del state.topics[topic.id], state.names[topic.name]
    state.next_topic -= 1


def _delete(change: Change, op: DeleteTopic) -> None:
    # A state change and no more: the bytes go later, in bounded steps. Whatever else mentions the id
    # (sequences, committed offsets) is dead, since ids are never used again.
    state = change.state
    topic = _topic(state, op.topic)
    del state.topics[topic.id], state.names[topic.name]
    entries = sum(len(p.tail) for p in topic.partitions)
    state.tail_entries -= entries
    change.topics.add(topic.name)
    change.on_refusal(_undo_delete, state, topic, entries)


def _undo_delete(state: State, topic: Topic, entries: int) -> None:
    # Topics stand in the order of their ids, so the state is again what it was, to the byte.
    state.topics = dict(sorted({**state.topics, topic.id: topic}.items()))
    state.names = {found.name: found.id for found in state.topics.values()}
    state.tail_entries += entries


def _add_partitions(change: Change, op: AddPartitions) -> None:
    topic = _topic(change.state, op.topic)
    now = len(topic.partitions)
    if op.total <= now:
        raise Refused("invalid", f"Topic {topic.name!r} has {now} partitions; {op.total} would not be more.")
    _check_room(change.state, op.total - now)
    change.on_refusal(setattr, topic, "partitions", topic.partitions)
    change.topics.add(topic.name)
    topic.partitions = topic.partitions + [Partition() for _ in range(op.total - now)]


def _alter(change: Change, op: AlterTopic) -> None:
    topic = _topic(change.state, op.topic)
    change.on_refusal(setattr, topic, "config", topic.config)
    merged = {**topic.config, **op.config}
    topic.config = {name: value for name, value in merged.items() if value is not None}


def _trim(change: Change, op: TrimLog) -> None:
    partition = partition_of(change.state, op.topic, op.partition)
    if op.before > partition.stable_end:
        raise Refused("out_of_range", f"The log ends at {partition.stable_end}; it cannot start at {op.before}.")
    change.set(partition, "start", max(partition.start, op.before))
    change.set(partition, "archive", trimmed(partition.archive, partition.start))


def _alter_namespace(change: Change, op: AlterNamespace) -> None:
    merged = {**change.state.config, **op.config}
    change.set(change.state, "config", {name: value for name, value in merged.items() if value is not None})


def _set_schema(change: Change, op: SetSchema) -> None:
    topic = _topic(change.state, op.topic)
    present = topic.schema
    if op.version != (present.version if present else 0) + 1:
        raise Refused("stale", f"Topic {topic.name!r} has version {present.version if present else 0} of its schema.")
    if len(topic.schemas) >= SCHEMAS_MAX:
        raise Refused("too_many", f"Topic {topic.name!r} has {SCHEMAS_MAX} versions of its schema.")
    if present and (present.format == "avro") != (op.format == "avro"):
        raise Refused("incompatible", f"The values of topic {topic.name!r} are {present.format}, and stay so.")
    reason = columns.refusal(present.columns if present else [], op.columns)
    if reason:
        raise Refused("incompatible", f"Topic {topic.name!r} cannot have this schema: {reason}")
    schema = Schema(op.version, change.state.seq, op.format, op.definition, op.columns)
    change.set(topic, "schemas", [*topic.schemas, schema])
    change.values["version"] = op.version


def _branched(change: Change, op: BranchedFrom) -> None:
    # Whoever comes here opened the name while it was empty. What it knows is void: the fold stops, and the process
    # starts again from the branch's snapshot.
    raise Unavailable(
        f"This namespace is a branch of {op.namespace!r} as of commit {op.seq}, and was not one when it was opened. "
        "Try again; if that does not help, making it was interrupted: run `headwater branch` with the same arguments."
    )


def _raise_floor(change: Change, op: RaiseFloor) -> None:
    state = change.state
    if op.floor > state.seq:
        raise Refused("invalid", f"The floor {op.floor} lies above this manifest, {state.seq}.")
    change.on_refusal(setattr, state, "floor", state.floor)
    state.floor = max(state.floor, op.floor)


def _topic(state: State, topic: int) -> Topic:
    found = state.topics.get(topic)
    if found is None:
        raise Refused("no_topic", f"There is no topic with id {topic}: it was deleted, or never created.")
    return found


def _check_room(state: State, more: int) -> None:
    present = sum(len(topic.partitions) for topic in state.topics.values())
    if present + more > PARTITIONS_MAX:
        raise Refused("invalid", f"The namespace has {present} partitions; {more} more would exceed {PARTITIONS_MAX}.")


OPERATIONS: dict[type[Op], Any] = {
    CreateTopic: _create,
    DeleteTopic: _delete,
    AddPartitions: _add_partitions,
    AlterTopic: _alter,
    TrimLog: _trim,
    AlterNamespace: _alter_namespace,
    SetSchema: _set_schema,
    BranchedFrom: _branched,
    RaiseFloor: _raise_floor,
}
