"""Groups as admin tools see them: listed, described, deleted."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.groups.classic import metadata_of
from headwater.groups.describe import phase_of
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.admin import for_each
from headwater.kafka.handlers.group_rules import (
    bury_in,
    check_may,
    coordinator_of,
    describe_each,
    group_code,
    refused,
)
from headwater.kafka.handlers.nearby import lists
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.rights import operations_of
from headwater.log.state import Group, Member

KINDS: Final = {
    "consumer": "Consumer",
    "classic": "Classic",
    "share": "Share",
    "": "Classic",
}  # "": Kafka's simple group


async def list_groups(peer: Peer, request: Request) -> Answer:
    """All groups that the client may see, of some states or types (KIP-518, KIP-848). Cost: 1 GET."""
    asked = request.fields
    try:
        state = await peer.service.enter(fresh=True)
        await coordinator_of(peer).bury_all()
        await peer.gateway.fleet.look()
    except HeadwaterError as error:
        return refused(error)
    states = {name.lower() for name in asked["states_filter"]}
    kinds = {name.lower() for name in asked["types_filter"]}
    sees_all = peer.service.may("describe", "cluster")
    groups = []
    for name in sorted(name for name in state.groups if lists(peer, name)):
        listed = _listed(state.groups[name])
        if states and listed["group_state"].lower() not in states:
            continue
        if kinds and listed["group_type"].lower() not in kinds:
            continue
        if sees_all or peer.service.may("describe", "group", name):
            groups.append(listed)
    return {"groups": groups}


def _listed(group: Group) -> Fields:
    return {
        "group_id": group.name,
        "protocol_type": group.kind if group.kind in ("consumer", "share") else group.protocol_type,
        "group_state": phase_of(group),
        "group_type": KINDS[group.kind],
    }


async def describe_groups(peer: Peer, request: Request) -> Answer:
    """Groups of the classic protocol, with what only their members understand. Cost: 1 GET."""
    return await describe_each(peer, request.fields["groups"], lambda name: _described(peer, request, name))


def _described(peer: Peer, request: Request, name: str) -> Fields:
    wanted = request.fields["include_authorized_operations"]
    try:
        check_may(peer, name, "describe")
    except HeadwaterError as error:
        return {"group_id": name, **refused(error)}
    found = peer.namespace.state.groups.get(name)
    if found is None or found.kind in ("consumer", "share"):
        what = "There is no group" if found is None else "Not of the classic protocol is group"
        # Before version 6 a group that is not there was a dead one (KIP-1043).
        known = {"group_id": name, "group_state": "Dead", "error_message": f"{what} {name!r}."}
        return known | ({"error_code": ErrorCode.group_id_not_found} if request.version >= 6 else {})
    is_stable = found.phase == "stable" and bool(found.members)
    return {
        "group_id": name,
        "group_state": phase_of(found),
        "protocol_type": found.protocol_type,
        "protocol_data": found.protocol if is_stable else "",
        "members": [_member(found, member, is_stable=is_stable) for member in found.members.values()],
        "authorized_operations": operations_of(peer, "group", name, wanted=wanted),
    }


def _member(group: Group, member: Member, *, is_stable: bool) -> Fields:
    return {
        "member_id": member.id,
        "group_instance_id": member.instance or None,
        "client_id": member.client,
        "client_host": "",  # no gateway holds a member for longer than one request
        "member_metadata": metadata_of(member, group.protocol) if is_stable else b"",
        "member_assignment": _bytes(member.assignment) if is_stable else b"",
    }


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""  # put there by something that is no edge of ours


async def delete_groups(peer: Peer, request: Request) -> Answer:
    """Groups without members are forgotten, with their offsets. Cost: 1 commit each, in shared manifests."""

    async def one(name: str) -> Fields:
        try:
            if peer.service.may("delete", "group", name):
                await bury_in(peer, [name])
            await peer.service.delete_group(name)
        except HeadwaterError as error:
            return {"group_id": name, "error_code": group_code(error, InvalidRequest=ErrorCode.invalid_group_id)}
        return {"group_id": name, "error_code": ErrorCode.none}

    return {"results": await for_each(list(dict.fromkeys(request.fields["groups_names"])), one)}


APIS: Final = {
    15: Api(0, 6, describe_groups),
    16: Api(0, 5, list_groups),
    42: Api(0, 2, delete_groups),
}
