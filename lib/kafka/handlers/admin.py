"""Topics from outside: made, grown, trimmed, deleted.

Requests name many topics: each is a commit of its own, a few at a time, and gets an error of its own. There are no
replicas to place, so a replication factor and manual assignments are checked for sense and say how many partitions
there are to be; every topic answers a factor of 1.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from kio.schema.errors import ErrorCode

from headwater.api.access import INTERNAL
from headwater.api.names import check_topic
from headwater.errors import HeadwaterError, InvalidRequest, NotFound
from headwater.kafka import configs
from headwater.kafka.errors import Refusal, code_of, told
from headwater.kafka.handlers import Api
from headwater.kafka.model import Fields, Peer, Request
from headwater.kafka.names import NO_UUID, topic_by_uuid, topic_uuid
from headwater.limits import KAFKA_ADMIN_AT_ONCE, PARTITION_MAX
from headwater.log.state import State

T = TypeVar("T")

REPLICAS: Final = 1
UNDECIDED: Final = {  # these are about a topic, not about a batch
    "Unavailable": ErrorCode.request_timed_out,
    "Indeterminate": ErrorCode.request_timed_out,
}


async def for_each(items: Sequence[T], ask: Callable[[T], Awaitable[Fields]]) -> list[Fields]:
    """The answers in the items' order. A few are asked at once: their commits share manifests."""
    found: list[Fields] = []
    for start in range(0, len(items), KAFKA_ADMIN_AT_ONCE):
        found += await asyncio.gather(*(ask(item) for item in items[start : start + KAFKA_ADMIN_AT_ONCE]))
    return found


async def trouble_at_door(peer: Peer) -> HeadwaterError | None:
    """Look at the tip. What stands in the way is an error of each item: these answers have no other place for it."""
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        return error
    return None


# -- creating ------------------------------------------------------------------------------------------


async def create_topics(peer: Peer, request: Request) -> Fields:
    """CreateTopics (KIP-4; configs in the answer KIP-525, ids KIP-516)."""
    topics, check_only = request.fields["topics"], request.fields["validate_only"]
    twice = _twice(topic["name"] for topic in topics)

    async def create(topic: Fields) -> Fields:
        name = topic["name"]
        try:
            if name in twice:
                raise Refusal(ErrorCode.invalid_request, "Found multiple topics of this name in one request.")
            if trouble is not None:
                raise trouble
            return {"name": name, **await _created(peer, topic, check_only=check_only)}
        except HeadwaterError as error:
            return {"name": name, "configs": None, **told(error, **UNDECIDED)}

    trouble = await trouble_at_door(peer) if check_only else None
    return {"topics": await for_each(topics, create)}


async def _created(peer: Peer, topic: Fields, *, check_only: bool) -> Fields:
    name = _checked_name(topic["name"])
    if name in peer.namespace.state.names:
        await peer.namespace.refresh()  # another gateway may have deleted it
    if name in peer.namespace.state.names:
        raise Refusal(ErrorCode.topic_already_exists, f"Topic '{name}' already exists.")
    count = _wanted_partitions(topic, peer.gateway.settings.partitions_default)
    kept = _wanted_configs(topic["configs"])
    if check_only:
        if name.startswith(INTERNAL) or not peer.service.may("create", "cluster"):
            peer.service.check("create", "topic", name)
        return _made(peer, NO_UUID, count, kept)
    try:
        made = await peer.service.create_topic(name, count, kept)
    except InvalidRequest as error:  # names and configs are checked: what is left is the room for partitions
        raise Refusal(ErrorCode.invalid_partitions, error.message) from error
    return _made(peer, topic_uuid(peer.namespace, made.id), count, kept)


def _made(peer: Peer, uuid: bytes, count: int, kept: dict[str, str]) -> Fields:
    listed = [configs.described(config, kept.get(config.name)) for config in configs.TOPIC.values()]
    return {
        "topic_id": uuid,
        "error_code": ErrorCode.none,
        "num_partitions": count,
        "replication_factor": REPLICAS,
        "configs": listed,
    }


def _checked_name(name: str) -> str:
    try:
        return check_topic(name)
    except InvalidRequest as error:
        raise Refusal(ErrorCode.invalid_topic_exception, error.message) from error


def _wanted_partitions(topic: Fields, default: int) -> int:
    count, factor, assignments = topic["num_partitions"], topic["replication_factor"], topic["assignments"]
    if assignments:
        if count != -1 or factor != -1:
            text = "A manual assignment says how many partitions and replicas there are: leave both numbers at -1."
            raise Refusal(ErrorCode.invalid_request, text)
        return _assigned(assignments)
    if factor == 0 or factor < -1:
        text = "Replication factor must be larger than 0, or -1 to use the default value."
        raise Refusal(ErrorCode.invalid_replication_factor, text)
    if count == 0 or count < -1 or count > PARTITION_MAX:
        text = f"A topic has 1 to {PARTITION_MAX} partitions (-1: {default}), not {count}."
        raise Refusal(ErrorCode.invalid_partitions, text)
    return default if count == -1 else int(count)


def _assigned(assignments: Sequence[Fields]) -> int:
    indexes = {each["partition_index"] for each in assignments}
    if len(indexes) < len(assignments) or indexes != set(range(len(indexes))):
        text = "Partitions should be a consecutive 0-based integer sequence, each of them once."
        raise Refusal(ErrorCode.invalid_replica_assignment, text)
    if len(indexes) > PARTITION_MAX:
        raise Refusal(ErrorCode.invalid_partitions, f"A topic has 1 to {PARTITION_MAX} partitions.")
    for each in assignments:
        _check_replicas(each["broker_ids"])
    return len(indexes)


def _check_replicas(brokers: Sequence[int]) -> None:
    if not brokers or len(set(brokers)) < len(brokers) or min(brokers) < 0:
        text = "A partition is assigned to one or more different brokers; which ones makes no difference here."
        raise Refusal(ErrorCode.invalid_replica_assignment, text)


def _wanted_configs(listed: Sequence[Fields]) -> dict[str, str]:
    wanted = {each["name"]: each["value"] for each in listed}
    nulls = [name for name, value in wanted.items() if value is None]
    if nulls:
        text = f"Null value not supported for topic configs: {', '.join(nulls)[:200]}"
        raise Refusal(ErrorCode.invalid_config, text)
    try:
        return {name: value for name, value in configs.checked(wanted).items() if value is not None}
    except InvalidRequest as error:
        raise Refusal(ErrorCode.invalid_config, error.message) from error


async def create_partitions(peer: Peer, request: Request) -> Fields:
    """CreatePartitions (KIP-195)."""
    topics, check_only = request.fields["topics"], request.fields["validate_only"]
    twice = _twice(topic["name"] for topic in topics)
    trouble = await trouble_at_door(peer)

    async def grow(topic: Fields) -> Fields:
        name = topic["name"]
        try:
            if name in twice:
                raise Refusal(ErrorCode.invalid_request, "Duplicate topic name.")
            if trouble is not None:
                raise trouble
            await _grown(peer, topic, check_only=check_only)
            return {"name": name, "error_code": ErrorCode.none}
        except HeadwaterError as error:
            return {"name": name, **told(error, **UNDECIDED)}

    return {"results": await for_each(topics, grow)}


async def _grown(peer: Peer, topic: Fields, *, check_only: bool) -> None:
    name, total, assignments = _checked_name(topic["name"]), topic["count"], topic["assignments"]
    peer.service.check("alter", "topic", name)
    present = len(peer.namespace.topic(name).partitions)
    if not present < total <= PARTITION_MAX:
        text = f"Topic {name} has {present} partitions and may have {PARTITION_MAX}; {total} would be no increase."
        raise Refusal(ErrorCode.invalid_partitions, text)
    if assignments is not None:
        if len(assignments) != total - present:
            text = f"{total - present} partitions are to be added, and {len(assignments)} are assigned."
            raise Refusal(ErrorCode.invalid_replica_assignment, text)
        for each in assignments:
            _check_replicas(each["broker_ids"])
    if check_only:
        return
    try:
        await peer.service.add_partitions(name, total)
    except InvalidRequest as error:  # somebody else has grown it meanwhile, or the namespace is full
        raise Refusal(ErrorCode.invalid_partitions, error.message) from error


# -- deleting ------------------------------------------------------------------------------------------


async def delete_topics(peer: Peer, request: Request) -> Fields:
    """DeleteTopics, by name or by id (KIP-516)."""
    wanted = request.fields["topics"] if request.version >= 6 else _by_name(request.fields["topic_names"])
    trouble = await trouble_at_door(peer)
    found = [_named(peer, each) for each in wanted]
    twice = _twice(name for name in found if name)

    async def delete(item: tuple[Fields, str | None]) -> Fields:
        each, name = item
        asked = {"name": each["name"], "topic_id": each["topic_id"] or NO_UUID}
        try:
            if trouble is not None:
                raise trouble
            return {**asked, **await _deleted(peer, each, name, twice)}
        except HeadwaterError as error:
            return {**asked, **told(error, **UNDECIDED)}

    return {"responses": await for_each(list(zip(wanted, found, strict=True)), delete)}


def _by_name(names: Sequence[str]) -> list[Fields]:
    return [{"name": name, "topic_id": NO_UUID} for name in names]


def _named(peer: Peer, each: Fields) -> str | None:
    """The name of the topic that is meant, or None. Who may not describe a topic does not learn its name by its id."""
    if each["name"] is not None:
        return str(each["name"])
    topic = topic_by_uuid(peer.namespace, bytes(each["topic_id"] or NO_UUID))
    return topic.name if topic is not None and peer.service.may("describe", "topic", topic.name) else None


async def _deleted(peer: Peer, each: Fields, name: str | None, twice: set[str]) -> Fields:
    by_id = bytes(each["topic_id"] or NO_UUID) != NO_UUID
    if by_id and each["name"] is not None:
        raise Refusal(ErrorCode.invalid_request, "You may not specify both topic name and topic id.")
    if not by_id and each["name"] is None:
        raise Refusal(ErrorCode.invalid_request, "Neither topic name nor id were specified.")
    if name is None:
        raise Refusal(ErrorCode.unknown_topic_id, "This namespace has no topic of this id.")
    if name in twice:
        raise Refusal(ErrorCode.invalid_request, "Duplicate topic name.")
    peer.service.check("delete", "topic", name)
    topic = peer.namespace.state.named(name)
    if topic is None:
        raise NotFound(f"There is no topic {name!r} in this namespace.")
    await peer.service.delete_topic(name)
    return {"name": name, "topic_id": topic_uuid(peer.namespace, topic.id), "error_code": ErrorCode.none}


async def delete_records(peer: Peer, request: Request) -> Fields:
    """DeleteRecords (KIP-107): move log starts forward; -1 is the end."""

    async def trim(item: tuple[str, Fields]) -> Fields:
        name, each = item
        index = each["partition_index"]
        try:
            start = await peer.service.delete_records(name, index, each["offset"])
            return {"partition_index": index, "low_watermark": start, "error_code": ErrorCode.none}
        except HeadwaterError as error:
            code = _trim_code(error, name, index, peer.namespace.state)
            return {"partition_index": index, "low_watermark": -1, "error_code": code}

    items = [(topic["name"], each) for topic in request.fields["topics"] for each in topic["partitions"]]
    found = iter(await for_each(items, trim))
    return {
        "topics": [
            {"name": topic["name"], "partitions": [next(found) for _ in topic["partitions"]]}
            for topic in request.fields["topics"]
        ]
    }


def _trim_code(error: HeadwaterError, name: str, index: int, state: State) -> ErrorCode:
    """Who names a partition that cannot be, and who names an offset behind the end, break different rules."""
    known = state.named(name)
    if known is None or not 0 <= index < len(known.partitions):
        return code_of(error, **UNDECIDED, InvalidRequest=ErrorCode.unknown_topic_or_partition)
    return code_of(error, **UNDECIDED, InvalidRequest=ErrorCode.offset_out_of_range)


def _twice(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


APIS: Final = {
    19: Api(2, 7, create_topics),
    20: Api(1, 6, delete_topics),
    21: Api(0, 2, delete_records),
    37: Api(0, 3, create_partitions),
}
