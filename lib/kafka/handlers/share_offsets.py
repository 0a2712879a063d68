"""How far share groups have come, and beginning anew: Describe-, Alter- and DeleteShareGroupOffsets (KIP-932)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError, NotFound
from headwater.groups.describe import share_lag
from headwater.kafka.errors import Refusal
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_configs import audited
from headwater.kafka.handlers.group_rules import bury_in, check_may, enter, group_code, refused, throttle_ms
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.names import LEADER_EPOCH, NO_UUID, topic_uuid
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log.operations import Operation
from headwater.log.state import Group, Share, Topic

_NO_OFFSET: Final = -1
_SPECIAL: Final = {"group_kind": ErrorCode.group_id_not_found, "no_group": ErrorCode.group_id_not_found}


# -- describing ----------------------------------------------------------------------------------------------


async def describe_share_group_offsets(peer: Peer, request: Request) -> Answer:
    """Start offsets, and how many records behind them are not done with. Cost: 1 GET."""
    asked = request.fields["groups"]
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        told = {"error_code": group_code(error), "error_message": error.message}
        groups = [{"group_id": each["group_id"], **told} for each in asked]
        return {"groups": groups, "throttle_time": throttle_ms(error)}
    return {"groups": [_group(peer, each) for each in asked]}


def _group(peer: Peer, asked: Fields) -> Fields:
    name = asked["group_id"]
    try:
        check_may(peer, name, "describe")
        group = _share_group(peer, name)
    except HeadwaterError as error:
        return {"group_id": name, "error_code": group_code(error), "error_message": error.message}
    state = peer.namespace.state
    if asked["topics"] is None:
        named = {
            state.topics[topic].name: sorted(places) for topic, places in group.shares.items() if topic in state.topics
        }
        wanted = {topic: places for topic, places in named.items() if peer.service.may("describe", "topic", topic)}
    else:
        wanted = {each["topic_name"]: each["partitions"] for each in asked["topics"]}
    return {"group_id": name, "topics": [_topic(peer, group, topic, places) for topic, places in wanted.items()]}


def _share_group(peer: Peer, name: str) -> Group:
    group = peer.namespace.state.groups.get(name)
    if group is None or group.kind != "share":
        raise Refusal(ErrorCode.group_id_not_found, f"There is no share group {name!r}.")
    return group


def _topic(peer: Peer, group: Group, name: str, places: Sequence[int]) -> Fields:
    topic = peer.namespace.state.named(name)
    if not peer.service.may("describe", "topic", name):
        code = ErrorCode.topic_authorization_failed
    else:
        code = ErrorCode.none if topic is not None else ErrorCode.unknown_topic_or_partition
    if topic is None or code is not ErrorCode.none:
        rows = [{"partition_index": each, "start_offset": _NO_OFFSET, "error_code": code} for each in places]
        return {"topic_name": name, "topic_id": NO_UUID, "partitions": rows}
    shares = group.shares.get(topic.id, {})
    rows = [_place(shares.get(each), each, topic) for each in places]
    return {"topic_name": name, "topic_id": topic_uuid(peer.namespace, topic.id), "partitions": rows}


def _place(share: Share | None, number: int, topic: Topic) -> Fields:
    if not 0 <= number < len(topic.partitions):
        code = ErrorCode.unknown_topic_or_partition
        return {"partition_index": number, "start_offset": _NO_OFFSET, "error_code": code}
    if share is None:
        return {"partition_index": number, "start_offset": _NO_OFFSET, "lag": _NO_OFFSET}
    partition = topic.partitions[number]
    return {
        "partition_index": number,
        "start_offset": max(share.start, partition.start),
        "leader_epoch": LEADER_EPOCH,
        "lag": share_lag(share, partition),
    }


# -- altering and deleting -------------------------------------------------------------------------------


async def alter_share_group_offsets(peer: Peer, request: Request) -> Answer:
    """Begin share-partitions anew at an offset; the group has no members meanwhile, and need not exist yet.

    Cost: 1 commit.
    """
    asked = request.fields
    starts: list[tuple[int, int, int]] = []

    def row(topic: Topic | None, code: ErrorCode, wanted: Fields) -> Fields:
        rows = []
        for each in wanted["partitions"]:
            number, start = each["partition_index"], each["start_offset"]
            missing = topic is not None and not 0 <= number < len(topic.partitions)
            found = ErrorCode.unknown_topic_or_partition if missing else code
            found = ErrorCode.invalid_request if found is ErrorCode.none and start < 0 else found
            rows.append({"partition_index": number, "error_code": found})
            if topic is not None and found is ErrorCode.none:
                starts.append((topic.id, number, start))
        return {"partitions": rows}

    def op() -> ops.AnyOp | None:
        return share_ops.ResetShares(group=asked["group_id"], starts=starts) if starts else None

    return await _changed(peer, asked, "read", "reset_shares", row, op)


async def delete_share_group_offsets(peer: Peer, request: Request) -> Answer:
    """Forget how far a group has come in topics; it has no members meanwhile. Cost: 1 commit."""
    asked = request.fields
    gone: list[int] = []

    def row(topic: Topic | None, code: ErrorCode, wanted: Fields) -> Fields:
        if topic is not None:
            gone.append(topic.id)
        return {"error_code": code}

    def op() -> ops.AnyOp | None:
        return share_ops.ForgetShares(group=asked["group_id"], topics=gone) if gone else None

    return await _changed(peer, asked, "delete", "forget_shares", row, op)


async def _changed(
    peer: Peer,
    asked: Fields,
    operation: Operation,
    action: str,
    row: Callable[[Topic | None, ErrorCode, Fields], Fields],
    op: Callable[[], ops.AnyOp | None],
) -> Fields:
    """Look each topic up, and make the change of those that are there by one commit."""
    try:
        await enter(peer, asked["group_id"], operation, fresh=True)
        await bury_in(peer, [asked["group_id"]])
        if action != "reset_shares" or asked["group_id"] in peer.namespace.state.groups:
            _share_group(peer, asked["group_id"])
        responses = []
        for wanted in asked["topics"]:
            name = wanted["topic_name"]
            topic, code = _readable(peer, name)
            uuid = topic_uuid(peer.namespace, topic.id) if topic is not None else NO_UUID
            responses.append({"topic_name": name, "topic_id": uuid, **row(topic, code, wanted)})
        change = op()
        if change is not None:
            await audited(peer, change, action, asked["group_id"])
    except NotFound as error:
        return refused(error, NotFound=ErrorCode.unknown_topic_or_partition, **_SPECIAL)
    except HeadwaterError as error:
        return refused(error, **_SPECIAL)
    return {"responses": responses}


def _readable(peer: Peer, name: str) -> tuple[Topic | None, ErrorCode]:
    if not peer.service.may("read", "topic", name):
        return None, ErrorCode.topic_authorization_failed
    topic = peer.namespace.state.named(name)
    return topic, ErrorCode.none if topic is not None else ErrorCode.unknown_topic_or_partition


APIS: Final = {
    90: Api(0, 1, describe_share_group_offsets),
    91: Api(0, 0, alter_share_group_offsets),
    92: Api(0, 0, delete_share_group_offsets),
}
