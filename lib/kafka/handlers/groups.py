"""Groups of the classic protocol: find a coordinator, join, sync, stay, leave.

Any gateway coordinates any group, for one request at a time: who is in the group, its generation and its assignments
are in the log, and that members live is shown by leases in the bucket (``headwater.groups``). So a client is told that
the gateway that it asks is the coordinator, and may go to another one between any two requests.
"""

from __future__ import annotations

from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.groups.checks import REBALANCE_MS_MAX
from headwater.groups.classic import Joined, heartbeat_classic, join_classic, protocol_of, sync_classic
from headwater.kafka.errors import Refusal
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import (
    by_instance,
    check_standing,
    coordinator_of,
    enter,
    is_pending,
    new_member_id,
    refused,
    standing,
    tidy,
    told_apart,
)
from headwater.kafka.handlers.nearby import coordinator
from headwater.kafka.model import Answer, Fields, Later, Peer, Request
from headwater.limits import KAFKA_GROUP_STALE_MS, SESSION_MS_MAX, SESSION_MS_MIN
from headwater.log import keys
from headwater.log.state import State
from headwater.log.state.groups import generation_of

GROUP, TRANSACTION, SHARE = 0, 1, 2  # what a coordinator is looked for

# -- who coordinates --------------------------------------------------------------------------------------


async def find_coordinator(peer: Peer, request: Request) -> Answer:
    """This gateway, whatever the key, or one in the client's own zone: any gateway coordinates everything."""
    asked = request.fields
    await peer.gateway.fleet.look()
    if request.version < 4:
        return _coordinator(peer, request, asked["key"])
    return {"coordinators": [_coordinator(peer, request, key) for key in asked["coordinator_keys"]]}


def _coordinator(peer: Peer, request: Request, key: str) -> Fields:
    kind = request.fields["key_type"]
    code = _why_not(peer, kind, key)
    if code is not ErrorCode.none:
        return {"key": key, "node_id": -1, "host": "", "port": -1, "error_code": code, "error_message": code.name}
    node = coordinator(peer, request, key)
    return {"key": key, "node_id": node.id, "host": node.host, "port": node.port}


def _why_not(peer: Peer, kind: int, key: str) -> ErrorCode:
    may = peer.service.may
    if kind == GROUP:
        return ErrorCode.none if may("describe", "group", key) else ErrorCode.group_authorization_failed
    if kind == TRANSACTION:
        allowed = may("describe", "transactional_id", key)
        return ErrorCode.none if allowed else ErrorCode.transactional_id_authorization_failed
    if kind == SHARE:
        return ErrorCode.none if may("cluster_action", "cluster") else ErrorCode.cluster_authorization_failed
    return ErrorCode.invalid_request


# -- join --------------------------------------------------------------------------------------------------


async def join_group(peer: Peer, request: Request) -> Answer:
    """Join, and hear of the generation that begins when all have (KIP-62, KIP-345, KIP-394, KIP-814)."""
    return Later(_join_group(peer, request))


async def _join_group(peer: Peer, request: Request) -> Fields:
    try:
        return _joined(await _join(peer, request), request.version)
    except HeadwaterError as error:
        member = error.data.get("member", request.fields["member_id"])
        return {"member_id": member, **_refused(peer, request.fields, error)}


def _refused(peer: Peer, asked: Fields, error: HeadwaterError) -> Fields:
    who = asked["group_id"], asked["member_id"], asked["group_instance_id"]
    return refused(told_apart(error, peer, *who))


async def _join(peer: Peer, request: Request) -> Joined:
    asked = request.fields
    group, session_ms = asked["group_id"], asked["session_timeout"]
    await enter(peer, group)
    if not SESSION_MS_MIN <= session_ms <= SESSION_MS_MAX:
        message = f"A session lasts {SESSION_MS_MIN} to {SESSION_MS_MAX} ms, not {session_ms}."
        raise Refusal(ErrorCode.invalid_session_timeout, message)
    if not asked["protocol_type"] or not asked["protocols"]:
        raise Refusal(ErrorCode.inconsistent_group_protocol, "A member names its protocol type and its protocols.")
    rebalance_ms = asked["rebalance_timeout"]
    rebalance_ms = min(session_ms if rebalance_ms < 0 else max(rebalance_ms, 1), REBALANCE_MS_MAX)
    return await join_classic(
        coordinator_of(peer),
        group,
        await _member_id(peer, request),
        protocol_type=asked["protocol_type"],
        protocols=[(each["name"], each["metadata"]) for each in asked["protocols"]],
        instance=asked["group_instance_id"] or "",
        session_ms=session_ms,
        rebalance_ms=rebalance_ms,
        delay_ms=min(peer.gateway.settings.rebalance_delay_ms, rebalance_ms),
        client=tidy(request.client),
    )


async def _member_id(peer: Peer, request: Request) -> str:
    """The id to join under. Raises ``Refusal`` for one that the group has let go of, and for a first join without."""
    asked, clock = request.fields, peer.namespace.chain.clock
    member, instance = asked["member_id"], asked["group_instance_id"] or ""
    if not member:
        fresh = new_member_id(request.client, now_ms=clock.wall_ms(), rng=peer.namespace.chain.rng)
        if request.version >= 4 and not instance:
            # The client must hear its id before it takes a place in the group: an answer to a join that is lost would
            # leave a member that nobody is.
            raise Refusal(ErrorCode.member_id_required, "Join again with this member id.", member=fresh)
        return fresh
    if not instance and is_pending(member, clock.wall_ms()):
        return str(member)
    await check_standing(peer, asked["group_id"], member, instance)
    return str(member)


def _joined(joined: Joined, version: int) -> Fields:
    # A static leader that came back is not to assign anew. Before version 9 the only way to say so is that it does not
    # lead (KIP-814).
    spared = joined.assigned and joined.leader == joined.member
    hidden = spared and version < 9
    members = [
        {"member_id": each.member, "group_instance_id": each.instance or None, "metadata": each.metadata}
        for each in (() if hidden else joined.members)
    ]
    return {
        "generation_id": joined.generation,
        "protocol_type": joined.protocol_type,
        "protocol_name": joined.protocol,
        "leader": "" if hidden else joined.leader,
        "skip_assignment": spared,
        "member_id": joined.member,
        "members": members,
    }


# -- sync ----------------------------------------------------------------------------------------------------


async def sync_group(peer: Peer, request: Request) -> Answer:
    """The leader gives the assignments, and every member gets its own."""
    return Later(_sync_group(peer, request))


async def _sync_group(peer: Peer, request: Request) -> Fields:
    asked = request.fields
    group, member = asked["group_id"], asked["member_id"]
    try:
        await enter(peer, group)
        await check_standing(peer, group, member, asked["group_instance_id"] or "")
        _check_protocol(peer.namespace.state, asked)
        given = {each["member_id"]: each["assignment"] for each in asked["assignments"]}
        assignment = await sync_classic(coordinator_of(peer), group, member, asked["generation_id"], given)
    except HeadwaterError as error:
        return _refused(peer, asked, error)
    found = peer.namespace.state.groups.get(group)
    known = found.members.get(member) if found else None
    return {
        "protocol_type": found.protocol_type if found else None,
        "protocol_name": protocol_of(found, known) if found and known else None,
        "assignment": assignment,
    }


def _check_protocol(state: State, asked: Fields) -> None:
    """Raise ``Refusal`` if the member takes part in another protocol than its group (KIP-559)."""
    found = state.groups.get(asked["group_id"])
    known = found.members.get(asked["member_id"]) if found else None
    if found is None or known is None or generation_of(found, known) != asked["generation_id"]:
        return  # another error says so
    for kind, ours in (("protocol_type", found.protocol_type), ("protocol_name", protocol_of(found, known))):
        if asked[kind] is not None and asked[kind] != ours:
            message = f"The {kind.replace('_', ' ')} of group {found.name!r} is {ours!r}, not {asked[kind][:40]!r}."
            raise Refusal(ErrorCode.inconsistent_group_protocol, message)


# -- stay and leave --------------------------------------------------------------------------------------------


async def heartbeat(peer: Peer, request: Request) -> Answer:
    """Stay in the group. Cost: mostly nothing; see ``Coordinator.seen``."""
    asked = request.fields
    group, member = asked["group_id"], asked["member_id"]
    try:
        await enter(peer, group)
        await check_standing(peer, group, member, asked["group_instance_id"] or "")
        generation = asked["generation_id"]
        await heartbeat_classic(coordinator_of(peer), group, member, generation, stale_ms=KAFKA_GROUP_STALE_MS)
    except HeadwaterError as error:
        return _refused(peer, asked, error)
    return {}


async def leave_group(peer: Peer, request: Request) -> Answer:
    """Members leave, of either protocol, by id or by instance (KIP-345). Cost: 1 GET, 1 commit, 1 DELETE."""
    asked = request.fields
    alone = request.version < 3
    members = [{"member_id": asked["member_id"], "group_instance_id": None}] if alone else asked["members"]
    try:
        await enter(peer, asked["group_id"], fresh=True)
        left = await _leave(peer, asked["group_id"], members)
    except HeadwaterError as error:
        return refused(error)
    return {"error_code": left[0]["error_code"] if alone else ErrorCode.none, "members": left}


async def _leave(peer: Peer, group: str, members: list[Fields]) -> list[Fields]:
    coordinator, reasons, answers = coordinator_of(peer), {}, []
    for each in members:
        member, code = _leaving(peer.namespace.state, group, each)
        if code is ErrorCode.none and member in reasons:
            code = ErrorCode.unknown_member_id  # named twice: it is gone by now
        if code is ErrorCode.none:
            reasons[member] = tidy(each.get("reason")) or "it left"
        shown = {"member_id": each["member_id"], "group_instance_id": each["group_instance_id"], "error_code": code}
        answers.append(shown)
    await coordinator.expel(group, reasons)
    for member in reasons:
        coordinator.leases.forget(group, member)
    await coordinator.leases.drop([keys.lease_key(group, member) for member in reasons])
    return answers


def _leaving(state: State, group: str, asked: Fields) -> tuple[str, ErrorCode]:
    """The member that is meant, and why it cannot leave."""
    member, instance = asked["member_id"], asked["group_instance_id"] or ""
    if instance and not member:
        owner = by_instance(state.groups.get(group), instance)
        return (owner.id, ErrorCode.none) if owner is not None else ("", ErrorCode.unknown_member_id)
    return member, standing(state, group, member, instance)


APIS: Final = {
    10: Api(0, 6, find_coordinator),
    11: Api(0, 9, join_group),
    12: Api(0, 4, heartbeat),
    13: Api(0, 5, leave_group),
    14: Api(0, 5, sync_group),
}
