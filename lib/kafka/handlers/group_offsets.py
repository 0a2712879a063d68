"""Offsets of groups: committed, fetched, deleted.

A commit's valid partitions are one intent: all of them move, or none. Who may move them is decided by the fold; what it
would refuse is found out here first, partition by partition, since Kafka's answers are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kio.schema.errors import ErrorCode

from headwater.errors import Fenced, HeadwaterError, InvalidRequest
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import (
    bury_in,
    check_may,
    enter,
    group_code,
    refused,
    standing,
    throttle_ms,
)
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.names import NO_UUID, topic_by_uuid, topic_uuid
from headwater.limits import INTENT_OPS_MAX, METADATA_BYTES_MAX
from headwater.log import operations as ops
from headwater.log.state import Group, State, Topic
from headwater.log.state.groups import generation_of, may_move, may_read, pending_offsets
from headwater.log.surely import commit_surely

OFFSET_MIN: Final = -2  # the start, and -1 the end: kafkajs commits them for a group that is to begin anew
OFFSET_MAX: Final = 2**62  # what the log's own integers can carry
TOPIC_ERRORS: Final = {"Forbidden": ErrorCode.topic_authorization_failed}

# -- commit ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """One partition of a commit, its answer so far, and what is to be written if nothing speaks against it."""

    answer: Fields
    entry: ops.OffsetEntry | None = None


async def offset_commit(peer: Peer, request: Request) -> Answer:
    """Move a group's offsets. Cost: 1 commit."""
    asked = request.fields
    try:
        await enter(peer, asked["group_id"])
        code = await commit_code(peer, request)
    except HeadwaterError as error:
        return refused_parts(request, group_code(error), throttle_ms(error))
    if code is not ErrorCode.none:
        return refused_parts(request, code)
    topics, parts = await commit_parts(peer, request)
    entries = [part.entry for part in parts if part.entry is not None]
    if entries:
        code = await _write(peer, request, entries)
        for part in parts:
            if part.entry is not None:
                part.answer["error_code"] = code
    return {"topics": topics}


async def commit_code(peer: Peer, request: Request) -> ErrorCode:
    """Whether the member may commit for its group, by the newest knowledge if not. Cost: nothing, or 1 GET.

    Of requests that have the fields of OffsetCommit or of TxnOffsetCommit.
    """
    code = _commit_code(peer.namespace.state, request.fields, request.version)
    if code is ErrorCode.none:
        return code
    await peer.namespace.refresh()
    if _generation(request.fields) < 0:
        await bury_in(peer, [request.fields["group_id"]])  # an admin moves the offsets of who is dead, perhaps
    return _commit_code(peer.namespace.state, request.fields, request.version)


def _commit_code(state: State, asked: Fields, version: int) -> ErrorCode:
    group, member = asked["group_id"], asked["member_id"]
    generation = _generation(asked)
    found = state.groups.get(group)
    if is_anonymous(asked):
        return ErrorCode.none
    if found is None or not found.members:
        if generation < 0:
            return ErrorCode.none  # offsets of whoever assigns partitions to itself
        if found is not None:
            return ErrorCode.unknown_member_id
        return ErrorCode.group_id_not_found if version >= 9 else ErrorCode.illegal_generation
    code = standing(state, group, member, asked["group_instance_id"] or "")
    if code is not ErrorCode.none:
        return code
    known = found.members[member]
    if found.kind == "consumer" and not known.protocols:
        return ErrorCode.none if 0 <= generation <= known.epoch else ErrorCode.stale_member_epoch
    if generation != generation_of(found, known):
        return ErrorCode.illegal_generation
    may_wait = "transactional_id" not in asked  # a producer takes the code for its end, so Kafka never says it to one
    return ErrorCode.rebalance_in_progress if may_wait and found.phase == "completing" else ErrorCode.none


def is_anonymous(asked: Fields) -> bool:
    """Whether a transaction's offsets come without a member, as before KIP-447: the transactional id fences them."""
    known = asked["member_id"] or asked["group_instance_id"]
    return "transactional_id" in asked and _generation(asked) < 0 and not known


def _generation(asked: Fields) -> int:
    found: int = asked["generation_id_or_member_epoch"] if "generation_id" not in asked else asked["generation_id"]
    return max(-1, found)


def refused_parts(request: Request, code: ErrorCode, throttle: int = 0) -> Fields:
    """The same for every partition of a commit."""
    topics = [
        _named(each, [{"partition_index": part["partition_index"], "error_code": code} for part in each["partitions"]])
        for each in request.fields["topics"]
    ]
    return {"topics": topics, "throttle_time": throttle}


def _named(asked: Fields, partitions: list[Fields]) -> Fields:
    """A topic of an answer, by the name or id that it was asked for with."""
    return {"name": asked["name"], "topic_id": asked.get("topic_id", NO_UUID), "partitions": partitions}


async def commit_parts(peer: Peer, request: Request) -> tuple[list[Fields], list[_Part]]:
    """Every partition of a commit, with what speaks against it by the newest knowledge. Cost: nothing, or 1 GET."""
    topics, parts = _judged(peer, request)
    if all(part.entry is not None for part in parts):
        return topics, parts
    await peer.namespace.refresh()
    return _judged(peer, request)


def _judged(peer: Peer, request: Request) -> tuple[list[Fields], list[_Part]]:
    topics, parts = [], []
    for each in request.fields["topics"]:
        topic = _topic(peer, request, each)
        mine = [_part(peer, request, topic, part) for part in each["partitions"]]
        if topic is None:
            for part in mine:
                part.answer["error_code"] = _unknown(request)
        elif not peer.service.may("read", "topic", topic.name):
            mine = [_Part({**part.answer, "error_code": ErrorCode.topic_authorization_failed}) for part in mine]
        parts += mine
        topics.append(_named(each, [part.answer for part in mine]))
    return topics, parts


def _topic(peer: Peer, request: Request, asked: Fields) -> Topic | None:
    if _by_id(request):
        return topic_by_uuid(peer.namespace, asked["topic_id"])
    return peer.namespace.state.named(asked["name"])


def _by_id(request: Request) -> bool:
    return request.version >= 10 and request.api in (8, 9)


def _unknown(request: Request) -> ErrorCode:
    return ErrorCode.unknown_topic_id if _by_id(request) else ErrorCode.unknown_topic_or_partition


def _part(peer: Peer, request: Request, topic: Topic | None, asked: Fields) -> _Part:
    index, offset, metadata = asked["partition_index"], asked["committed_offset"], asked["committed_metadata"] or ""
    answer: Fields = {"partition_index": index, "error_code": ErrorCode.none}
    if topic is None:
        return _Part(answer)
    code = ErrorCode.none
    if not 0 <= index < len(topic.partitions):
        code = ErrorCode.unknown_topic_or_partition
    elif len(metadata) > METADATA_BYTES_MAX:
        code = ErrorCode.offset_metadata_too_large
    elif not OFFSET_MIN <= offset <= OFFSET_MAX:
        code = ErrorCode.invalid_request
    elif not _owns(peer.namespace.state, request, topic.id, index):
        code = ErrorCode.stale_member_epoch
    if code is not ErrorCode.none:
        return _Part({**answer, "error_code": code})
    leader_epoch = max(-1, asked["committed_leader_epoch"])
    return _Part(answer, ops.OffsetEntry(topic.id, index, offset, metadata, leader_epoch))


def _owns(state: State, request: Request, topic: int, partition: int) -> bool:
    """Whether the fold would let a member of the consumer protocol move this offset (I5). Others move all or none."""
    group = state.groups.get(request.fields["group_id"])
    if is_anonymous(request.fields):
        return True
    if group is None or group.kind == "share" or not group.members:
        return True
    known = group.members.get(request.fields["member_id"])
    return known is not None and may_move(group, known, _generation(request.fields), topic, partition)


def commit_of(request: Request, entries: Sequence[ops.OffsetEntry]) -> ops.CommitOffsets:
    """What the fold is asked for. At most ``INTENT_OPS_MAX`` entries."""
    generation = _generation(request.fields)
    return ops.CommitOffsets(
        group=request.fields["group_id"],
        offsets=list(entries),
        generation=generation,
        member=request.fields["member_id"] if generation >= 0 else "",
    )


async def _write(peer: Peer, request: Request, entries: Sequence[ops.OffsetEntry]) -> ErrorCode:
    """Commit the entries, and make sure of the outcome if the store falls silent over it."""
    asked = request.fields
    changes = [
        commit_of(request, entries[start : start + INTENT_OPS_MAX]) for start in range(0, len(entries), INTENT_OPS_MAX)
    ]
    try:
        await commit_surely(peer.namespace, changes)
    except Fenced:
        # Somebody was first; the state tells by now who.
        code = _commit_code(peer.namespace.state, asked, request.version)
        return ErrorCode.stale_member_epoch if code is ErrorCode.none else code
    except HeadwaterError as error:
        return group_code(error, InvalidRequest=ErrorCode.invalid_commit_offset_size)
    return ErrorCode.none


# -- fetch -------------------------------------------------------------------------------------------------


async def offset_fetch(peer: Peer, request: Request) -> Answer:
    """What groups have committed. Cost: 1 GET."""
    asked = request.fields
    trouble: HeadwaterError | None = None
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        trouble = error
    if request.version < 8:
        return _one_group(_fetched(peer, request, {**_WITHOUT_MEMBER, **asked}, trouble), request.version)
    # A group that is named twice is answered once: nothing is gained by saying its offsets a thousand times.
    groups = {each["group_id"]: each for each in asked["groups"]}
    throttle = throttle_ms(trouble) if trouble is not None else 0
    found = [_fetched(peer, request, each, trouble) for each in groups.values()]
    return {"groups": found, "throttle_time": throttle}


_WITHOUT_MEMBER: Final[Fields] = {"member_id": None, "member_epoch": -1}


def _one_group(found: Fields, version: int) -> Fields:
    """The answer of versions that know of one group; the first of them has no place for the group's error."""
    return found if version >= 2 else {"topics": found["topics"]}


def _fetched(peer: Peer, request: Request, asked: Fields, trouble: HeadwaterError | None) -> Fields:
    group = asked["group_id"]
    try:
        if trouble is not None:
            raise trouble
        check_may(peer, group, "describe")
    except HeadwaterError as error:
        return _group_refused(request, asked, group_code(error))
    found = peer.namespace.state.groups.get(group)
    code = _fetch_code(found, asked)
    if code is not ErrorCode.none:
        return _group_refused(request, asked, code)
    wanted = asked["topics"]
    if wanted is None:
        wanted = [topic for topic in _all_topics(peer, found) if peer.service.may("describe", "topic", topic["name"])]
    # Whoever wants stable offsets waits for the end of the transactions that are about to move them (KIP-447).
    pending = pending_offsets(peer.namespace.state, group) if request.fields["require_stable"] else {}
    return {"group_id": group, "topics": [_fetched_topic(peer, request, found, each, pending) for each in wanted]}


def _fetch_code(found: Group | None, asked: Fields) -> ErrorCode:
    """Members of the consumer protocol say who they are. A member that is behind still asks for what is its own."""
    member, epoch = asked["member_id"], asked["member_epoch"]
    if found is None or found.kind != "consumer" or (not member and epoch < 0):
        return ErrorCode.none
    known = found.members.get(member or "")
    if known is None:
        return ErrorCode.unknown_member_id
    newest = generation_of(found, known) if known.protocols else known.epoch
    return ErrorCode.stale_member_epoch if epoch > newest else ErrorCode.none


def _group_refused(request: Request, asked: Fields, code: ErrorCode) -> Fields:
    topics: list[Fields] = []
    if request.version < 2:
        topics = [
            _named(each, [_row(index, code=code) for index in each["partition_indexes"]])
            for each in asked["topics"] or ()
        ]
    return {"group_id": asked["group_id"], "topics": topics, "error_code": code}


def _all_topics(peer: Peer, found: Group | None) -> list[Fields]:
    """All places of which the group has an offset, as if they had been asked for."""
    state = peer.namespace.state
    return [
        {
            "name": state.topics[topic].name,
            "topic_id": topic_uuid(peer.namespace, topic),
            "partition_indexes": sorted(places),
        }
        for topic, places in (found.offsets if found is not None else {}).items()
        if topic in state.topics
    ]


def _fetched_topic(
    peer: Peer, request: Request, found: Group | None, asked: Fields, pending: Mapping[int, Collection[int]]
) -> Fields:
    topic = _topic(peer, request, asked)
    code = ErrorCode.none
    if topic is None:
        code = ErrorCode.unknown_topic_id if _by_id(request) else ErrorCode.none
        may = peer.service.may("describe", "topic", asked["name"]) if not _by_id(request) else True
    else:
        may = peer.service.may("describe", "topic", topic.name)
    if not may:
        code = ErrorCode.topic_authorization_failed
    if code is not ErrorCode.none or topic is None:
        return _named(asked, [_row(index, code=code) for index in asked["partition_indexes"]])
    known = found.offsets.get(topic.id, {}) if found is not None else {}
    waiting = pending.get(topic.id, ())
    rows = [
        _row(index, code=ErrorCode.unstable_offset_commit) if index in waiting else _row(index, known.get(index))
        for index in asked["partition_indexes"]
    ]
    return _named(asked, rows)


def _row(index: int, known: Any = None, *, code: ErrorCode = ErrorCode.none) -> Fields:
    return {
        "partition_index": index,
        "committed_offset": -1 if known is None else known.offset,
        "committed_leader_epoch": -1 if known is None else known.leader_epoch,
        "metadata": "" if known is None else known.metadata,
        "error_code": code,
    }


# -- delete ------------------------------------------------------------------------------------------------


async def offset_delete(peer: Peer, request: Request) -> Answer:
    """Forget offsets of a group, of topics that none of its members subscribes to. Cost: 1 GET, 1 commit."""
    asked = request.fields
    group = asked["group_id"]
    try:
        await enter(peer, group, "delete", fresh=True)
        await bury_in(peer, [group])
    except HeadwaterError as error:
        return refused(error)
    found = peer.namespace.state.groups.get(group)
    if found is None:
        return {"error_code": ErrorCode.group_id_not_found}
    topics, wanted = [], []
    for each in asked["topics"]:
        code = _delete_code(peer, found, each["name"])
        rows = []
        for part in each["partitions"]:
            index = part["partition_index"]
            rows.append({"partition_index": index, "error_code": code or _missing(peer, each["name"], index)})
            if not rows[-1]["error_code"]:
                wanted.append((each["name"], index, rows[-1]))
        topics.append({"name": each["name"], "partitions": rows})
    for start in range(0, len(wanted), INTENT_OPS_MAX):
        some = wanted[start : start + INTENT_OPS_MAX]
        code = await _deleted(peer, group, sorted({(topic, index) for topic, index, _ in some}))
        for _, _, row in some:
            row["error_code"] = code
    return {"error_code": ErrorCode.none, "topics": topics}


def _delete_code(peer: Peer, found: Group, topic: str) -> ErrorCode:
    if not peer.service.may("read", "topic", topic):
        return ErrorCode.topic_authorization_failed
    return ErrorCode.group_subscribed_to_topic if may_read(found, topic) else ErrorCode.none


def _missing(peer: Peer, topic: str, partition: int) -> ErrorCode:
    found = peer.namespace.state.named(topic)
    exists = found is not None and 0 <= partition < len(found.partitions)
    return ErrorCode.none if exists else ErrorCode.unknown_topic_or_partition


async def _deleted(peer: Peer, group: str, places: Sequence[tuple[str, int]]) -> ErrorCode:
    try:
        await peer.service.delete_offsets(group, places)
    except InvalidRequest as error:
        return group_code(error)
    except HeadwaterError as error:
        return group_code(error, **TOPIC_ERRORS)
    return ErrorCode.none


APIS: Final = {
    8: Api(2, 10, offset_commit),
    9: Api(1, 10, offset_fetch),
    47: Api(0, 0, offset_delete),
}
