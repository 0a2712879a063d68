"""Members of share groups: ShareGroupHeartbeat and ShareGroupDescribe (KIP-932).

A member joins with epoch 0, stays, and leaves with -1, at any gateway. The assignment is in every answer, since no
gateway remembers what it said last.
"""

from __future__ import annotations

from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.groups.configs import share_config
from headwater.groups.describe import named, phase_of
from headwater.groups.share_members import join_share, stay_in_share
from headwater.kafka.errors import Refusal
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import (
    by_topic,
    check_standing,
    check_topics,
    coordinator_of,
    describe_each,
    enter,
    refused,
    tidy,
    to_describe,
)
from headwater.kafka.handlers.subscriptions import possible
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.rights import operations_of
from headwater.limits import KAFKA_GROUP_STALE_MS
from headwater.log.state import Member
from headwater.log.state.shares import ASSIGNOR

LEAVE, JOIN = -1, 0  # epochs that say what is wanted
_SPECIAL: Final = {
    "Fenced": ErrorCode.fenced_member_epoch,
    "Conflict": ErrorCode.group_id_not_found,  # there is one, of another kind
    "group_kind": ErrorCode.group_id_not_found,
}


async def share_group_heartbeat(peer: Peer, request: Request) -> Answer:
    """Join, stay in or leave. Cost: mostly nothing; see ``groups.share_members``."""
    asked = request.fields
    group, member, epoch = asked["group_id"], asked["member_id"], asked["member_epoch"]
    try:
        _check(asked)
        await enter(peer, group)
        if epoch == LEAVE:
            await check_standing(peer, group, member, "")
            await coordinator_of(peer).leave(group, member)
            return {"member_id": member, "member_epoch": LEAVE}
        check_topics(peer, asked["subscribed_topic_names"] or ())
        topics = possible(asked["subscribed_topic_names"])
        if epoch == JOIN:
            config = share_config(peer.namespace.state, group)
            beat = await join_share(
                coordinator_of(peer),
                group,
                member,
                topics or (),
                session_ms=config.session_ms,
                client=tidy(request.client),
            )
        else:
            beat = await stay_in_share(
                coordinator_of(peer),
                group,
                member,
                epoch=epoch,
                topics=topics,
                stale_ms=KAFKA_GROUP_STALE_MS,
            )
    except HeadwaterError as error:
        return refused(error, **_SPECIAL)
    return {
        "member_id": beat.member,
        "member_epoch": beat.epoch,
        "heartbeat_interval": share_config(peer.namespace.state, group).heartbeat_ms,
        "assignment": {"topic_partitions": by_topic(peer, beat.owned)},
    }


def _check(asked: Fields) -> None:
    """Raise ``Refusal`` for what makes no sense in itself."""
    if not asked["group_id"]:
        raise Refusal(ErrorCode.invalid_request, "A group has a name.")
    if not asked["member_id"]:
        raise Refusal(ErrorCode.invalid_request, "A member chooses its id, and keeps it.")
    if asked["member_epoch"] < LEAVE:
        raise Refusal(ErrorCode.invalid_request, f"An epoch is {LEAVE} or more, not {asked['member_epoch']}.")
    if asked["member_epoch"] == JOIN and not asked["subscribed_topic_names"]:
        raise Refusal(ErrorCode.invalid_request, "Who joins says what it subscribes to.")


async def share_group_describe(peer: Peer, request: Request) -> Answer:
    """Share groups, and what each member reads. Cost: 1 GET."""
    return await describe_each(peer, request.fields["group_ids"], lambda name: _described(peer, request, name))


def _described(peer: Peer, request: Request, name: str) -> Fields:
    wanted = request.fields["include_authorized_operations"]
    try:
        found = to_describe(peer, name, "share", "No share group is", list)
    except HeadwaterError as error:
        return {"group_id": name, **refused(error)}
    return {
        "group_id": name,
        "group_state": phase_of(found),
        "group_epoch": found.generation,
        "assignment_epoch": found.generation,
        "assignor_name": ASSIGNOR,
        "members": [_member(peer, member) for member in found.members.values()],
        "authorized_operations": operations_of(peer, "group", name, wanted=wanted),
    }


def _member(peer: Peer, member: Member) -> Fields:
    return {
        "member_id": member.id,
        "member_epoch": member.epoch,
        "client_id": member.client,
        "client_host": "",  # no gateway holds a member for longer than one request
        "subscribed_topic_names": member.topics,
        "assignment": {"topic_partitions": by_topic(peer, named(peer.namespace.state, member.owned))},
    }


APIS: Final = {
    76: Api(1, 1, share_group_heartbeat),
    77: Api(1, 1, share_group_describe),
}
