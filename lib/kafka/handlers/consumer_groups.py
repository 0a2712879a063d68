"""Groups whose assignments are the service's: Kafka's consumer protocol (KIP-848).

One request does it all: join with epoch 0, stay, say what one owns, leave with -1 (or -2: a static member that will be
back). The machine is the fold's (``log.state.members``). Four things differ from Kafka's coordinator, of which a client
notices the second alone:

- A member's epoch moves as soon as nothing is left for it to give up, not with its next heartbeat. So one that is
  behind is told what is new, and only one that claims an epoch which it was never told is fenced.
- A static member that joins takes its place at once, and its old self is fenced, as in the classic protocol. Kafka
  answers UNRELEASED_INSTANCE_ID until the old one's session ends.
- The assignment is in every answer, since no gateway remembers what it said last.
- A partition that was given to a member and taken away again between two of its heartbeats is in the first answer and
  not in the second: clients say what they hold only when that has changed, so one that had never heard of the partition
  would never give it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.groups.checks import REBALANCE_MS_MAX
from headwater.groups.configs import HEARTBEAT, SESSION, consumer_config
from headwater.groups.coordinator import Coordinator, Heartbeat
from headwater.groups.describe import TP, named, phase_of
from headwater.kafka.errors import Refusal
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import (
    by_topic,
    check_standing,
    check_topics,
    coordinator_of,
    describe_each,
    enter,
    new_member_id,
    refused,
    tidy,
    to_describe,
    told_apart,
)
from headwater.kafka.handlers.subscriptions import companions, names_of, pattern_of, subscription
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.names import topic_by_uuid
from headwater.kafka.rights import operations_of
from headwater.limits import (
    KAFKA_GROUP_STALE_MS,
    KAFKA_HEARTBEAT_EACH_MS,
    KAFKA_HEARTBEAT_MS_MAX,
    KAFKA_HEARTBEAT_MS_MIN,
    SESSION_MS,
)
from headwater.log.state import Group, Member

LEAVE, LEAVE_FOR_A_WHILE, JOIN = -1, -2, 0  # epochs that say what is wanted
ASSIGNORS: Final = {"uniform": "cooperative-sticky", "range": "range"}  # Kafka's names, and ours
CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1  # a member's type
_SPECIAL: Final = {
    "Fenced": ErrorCode.fenced_member_epoch,
    "Conflict": ErrorCode.group_id_not_found,  # there is one, of the classic protocol
    "group_kind": ErrorCode.group_id_not_found,
}

# -- heartbeat ---------------------------------------------------------------------------------------------


async def consumer_group_heartbeat(peer: Peer, request: Request) -> Answer:
    """Join, stay in or leave. Cost: mostly nothing; see ``Coordinator.heartbeat`` and ``Coordinator.seen``."""
    asked = request.fields
    try:
        _check(asked, request.version)
        await enter(peer, asked["group_id"])
        if asked["member_epoch"] in (LEAVE, LEAVE_FOR_A_WHILE):
            return await _leave(peer, asked)
        check_topics(peer, asked["subscribed_topic_names"] or ())
        beat = await (_join if asked["member_epoch"] == JOIN else _stay)(peer, request)
    except HeadwaterError as error:
        who = asked["group_id"], asked["member_id"], asked["instance_id"]
        return refused(told_apart(error, peer, *who), **_SPECIAL)
    return {
        "member_id": beat.member,
        "member_epoch": beat.epoch,
        "heartbeat_interval": _interval_ms(peer, asked["group_id"]),
        "assignment": {"topic_partitions": by_topic(peer, sorted({*beat.owned, *_unheard(peer, asked, beat)}))},
    }


def _unheard(peer: Peer, asked: Fields, beat: Heartbeat) -> list[TP]:
    """What the member is to give up and was given only after the epoch that it has named.

    Of one that joins under the id that it has, or in its instance's place, that is all: what its former self had it may
    have forgotten, or not, if this request was long on its way.
    """
    epoch, state = asked["member_epoch"], peer.namespace.state
    if not beat.revoke:
        return []
    revoking = named(state, state.groups[beat.group].members[beat.member].revoking)
    return [place for place, since in revoking.items() if since > epoch]


def _check(asked: Fields, version: int) -> None:
    """Raise ``Refusal`` for what makes no sense in itself."""
    if not asked["group_id"]:
        raise _invalid("A group has a name.")
    if not asked["member_id"] and (version > 0 or asked["member_epoch"] != JOIN):
        raise _invalid("A member chooses its id, and keeps it.")
    if asked["instance_id"] == "":
        raise _invalid("An instance id is not empty.")
    if asked["member_epoch"] < LEAVE_FOR_A_WHILE:
        raise _invalid(f"An epoch is {LEAVE_FOR_A_WHILE} or more, not {asked['member_epoch']}.")
    if asked["member_epoch"] == LEAVE_FOR_A_WHILE and not asked["instance_id"]:
        raise _invalid("Only a static member leaves for a while.")
    if asked["server_assignor"] and asked["server_assignor"] not in ASSIGNORS:
        message = f"The assignors are {', '.join(ASSIGNORS)}; {asked['server_assignor'][:40]!r} is none."
        raise Refusal(ErrorCode.unsupported_assignor, message)
    if asked["member_epoch"] != JOIN:
        return
    if asked["rebalance_timeout"] <= 0:
        raise _invalid("Who joins says how long it takes to give up partitions (rebalance timeout).")
    if asked["topic_partitions"] is None or asked["topic_partitions"]:
        raise _invalid("Who joins owns no partitions, and says so.")
    if asked["subscribed_topic_names"] is None and not asked["subscribed_topic_regex"]:
        raise _invalid("Who joins says what it subscribes to.")


def _invalid(message: str) -> Refusal:
    return Refusal(ErrorCode.invalid_request, message)


async def _join(peer: Peer, request: Request) -> Heartbeat:
    asked, chain = request.fields, peer.namespace.chain
    group, instance = asked["group_id"], asked["instance_id"] or ""
    member = asked["member_id"] or new_member_id(request.client, now_ms=chain.clock.wall_ms(), rng=chain.rng)
    topics = await subscription(peer, asked, None)
    return await coordinator_of(peer).heartbeat(
        group,
        member,
        topics=topics,
        others=companions(peer, asked, (), topics),
        instance=instance,
        assignor=ASSIGNORS[asked["server_assignor"]] if asked["server_assignor"] else "",
        session_ms=consumer_config(peer.namespace.state, group, SESSION) or SESSION_MS,
        rebalance_ms=min(asked["rebalance_timeout"], REBALANCE_MS_MAX),
        client=tidy(request.client),
        joining=True,
    )


async def _stay(peer: Peer, request: Request) -> Heartbeat:
    asked, coordinator = request.fields, coordinator_of(peer)
    group, member, epoch = asked["group_id"], asked["member_id"], asked["member_epoch"]
    await check_standing(peer, group, member, asked["instance_id"] or "")
    # What it has let go of can only be told by what it was asked for, perhaps by another gateway.
    stale_ms = KAFKA_GROUP_STALE_MS if asked["topic_partitions"] is None else 0
    known = await coordinator.seen(group, member, "consumer", epoch=epoch, stale_ms=stale_ms)
    topics = await subscription(peer, asked, known.topics)
    return await coordinator.heartbeat(
        group,
        member,
        topics=topics,
        others=companions(peer, asked, known.topics, topics),
        released=_released(peer, coordinator, known, asked),
        assignor=ASSIGNORS[asked["server_assignor"]] if asked["server_assignor"] else "",
        epoch=epoch,
        stale_ms=KAFKA_GROUP_STALE_MS,
    )


def _released(peer: Peer, coordinator: Coordinator, known: Member, asked: Fields) -> list[TP]:
    """What it is to give up and does not own any more."""
    if asked["topic_partitions"] is None or not known.revoking:
        return []
    owned = {
        (topic.name, partition)
        for each in asked["topic_partitions"]
        if (topic := topic_by_uuid(peer.namespace, each["topic_id"])) is not None
        for partition in each["partitions"]
    }
    return [place for place in named(coordinator.namespace.state, known.revoking) if place not in owned]


async def _leave(peer: Peer, asked: Fields) -> Fields:
    group, member, epoch = asked["group_id"], asked["member_id"], asked["member_epoch"]
    await check_standing(peer, group, member, asked["instance_id"] or "")
    if epoch == LEAVE:
        await coordinator_of(peer).leave(group, member)
    # A static member that leaves for a while keeps its partitions until it is back or its session ends.
    return {"member_id": member, "member_epoch": epoch}


def _interval_ms(peer: Peer, group: str) -> int:
    """When the next heartbeat is due. The lease needs fewer; this is how soon a member hears of a rebalance."""
    own_ms = consumer_config(peer.namespace.state, group, HEARTBEAT)
    if own_ms is not None:
        return own_ms
    wanted_ms = KAFKA_HEARTBEAT_EACH_MS * len(peer.gateway.connections)
    return min(max(wanted_ms, KAFKA_HEARTBEAT_MS_MIN), KAFKA_HEARTBEAT_MS_MAX)


# -- describe ------------------------------------------------------------------------------------------------


async def consumer_group_describe(peer: Peer, request: Request) -> Answer:
    """Groups of this protocol: what each member owns, and what it is to own. Cost: 1 GET."""
    return await describe_each(peer, request.fields["group_ids"], lambda name: _described(peer, request, name))


def _described(peer: Peer, request: Request, name: str) -> Fields:
    wanted = request.fields["include_authorized_operations"]
    try:
        found = to_describe(peer, name, "consumer", "Not of the consumer protocol is group", names_of)
    except HeadwaterError as error:
        return {"group_id": name, **refused(error)}
    ours = {ours: kafkas for kafkas, ours in ASSIGNORS.items()}
    assignor = found.assignor or ASSIGNORS["uniform"]
    return {
        "group_id": name,
        "group_state": phase_of(found),
        "group_epoch": found.generation,
        "assignment_epoch": found.generation,
        "assignor_name": ours.get(assignor, assignor),
        "members": [_member(peer, found, member) for member in found.members.values()],
        "authorized_operations": operations_of(peer, "group", name, wanted=wanted),
    }


def _member(peer: Peer, group: Group, member: Member) -> Fields:
    state = peer.namespace.state
    held = [*named(state, member.owned), *named(state, member.revoking)]
    target: Mapping[int, Mapping[int, int]] = {
        topic: dict.fromkeys(partitions, 0) for topic, partitions in group.target.get(member.id, {}).items()
    }
    return {
        "member_id": member.id,
        "instance_id": member.instance or None,
        "member_epoch": member.epoch,
        "client_id": member.client,
        "client_host": "",  # no gateway holds a member for longer than one request
        "subscribed_topic_names": names_of(member.topics),
        "subscribed_topic_regex": pattern_of(member.topics) or None,
        "assignment": {"topic_partitions": by_topic(peer, sorted(held))},
        "target_assignment": {"topic_partitions": by_topic(peer, named(state, target))},
        "member_type": CLASSIC_MEMBER if member.protocols else CONSUMER_MEMBER,
    }


APIS: Final = {
    68: Api(0, 1, consumer_group_heartbeat),
    69: Api(0, 1, consumer_group_describe),
}
