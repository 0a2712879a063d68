"""What the handlers of groups share: whom they let in, ids of members, and Kafka's codes for our errors.

Nobody is refused by old knowledge. A gateway answers from what it has folded; before it refuses a member it looks at
the tip, since the member may have come here from another gateway a moment ago.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.names import check_name
from headwater.errors import HeadwaterError, InvalidRequest, Throttled
from headwater.groups.coordinator import Coordinator
from headwater.groups.describe import TP
from headwater.kafka.errors import Refusal, code_of
from headwater.kafka.model import Fields, Peer
from headwater.kafka.names import topic_uuid
from headwater.limits import KAFKA_ADMIN_AT_ONCE, KAFKA_MEMBER_PENDING_MS, NAME_BYTES_MAX
from headwater.log.operations import Operation
from headwater.log.outcomes import UnknownMember
from headwater.log.state import Group, Member, State
from headwater.log.state.model import GroupKind
from headwater.log.together import to_the_end

UUID_CHARS: Final = 36

_REASONS: Final = {
    "no_group": ErrorCode.group_id_not_found,
    "group_busy": ErrorCode.non_empty_group,
    "group_full": ErrorCode.group_max_size_reached,
    "group_kind": ErrorCode.inconsistent_group_protocol,
    "inconsistent_protocol": ErrorCode.inconsistent_group_protocol,
}


def group_code(error: HeadwaterError, **special: ErrorCode) -> ErrorCode:
    """Kafka's code for an error about a group. ``special`` as for ``errors.code_of``, and by the fold's reasons.

    Where the store does not answer clients look for a coordinator again, and so find another gateway if this one is
    the one that is cut off; what they then repeat is done once.
    """
    reason = str(error.data.get("reason", ""))
    code = special.get(reason) or _REASONS.get(reason)
    if code is not None:
        return code
    known = {
        "Forbidden": ErrorCode.group_authorization_failed,
        "Fenced": ErrorCode.illegal_generation,
        "Throttled": ErrorCode.coordinator_not_available,
        "Unavailable": ErrorCode.coordinator_not_available,
        "Indeterminate": ErrorCode.coordinator_not_available,
    }
    return code_of(error, **{**known, **special})


def throttle_ms(error: HeadwaterError) -> int:
    """How long the client should be silent."""
    return error.retry_after_ms if isinstance(error, Throttled) else 0


def refused(error: HeadwaterError, **special: ErrorCode) -> Fields:
    """An answer that says nothing but what went wrong."""
    code = group_code(error, **special)
    return {"error_code": code, "error_message": error.message, "throttle_time": throttle_ms(error)}


async def enter(peer: Peer, group: str, operation: Operation = "read", *, fresh: bool = False) -> None:
    """One request about a group, by somebody who may. Raises ``Refusal``, ``Throttled``. Cost: nothing, or 1 GET."""
    try:
        check_name("group's name", group)
    except InvalidRequest as error:
        raise Refusal(ErrorCode.invalid_group_id, error.message) from error
    await peer.service.enter(fresh=fresh)
    check_may(peer, group, operation)


def check_may(peer: Peer, group: str, operation: Operation) -> None:
    """Raise ``Refusal`` unless the client may do that with the group."""
    if not peer.service.may(operation, "group", group):
        message = f"Principal {peer.principal!r} may not {operation} group {group!r}."
        raise Refusal(ErrorCode.group_authorization_failed, message)


def coordinator_of(peer: Peer) -> Coordinator:
    """The coordinator that this process is, for all groups of the listener's namespace."""
    return peer.namespace.shared(Coordinator)


async def bury_in(peer: Peer, groups: Iterable[str]) -> None:
    """Have the groups let go of members whose sessions are over, where no other member is left to see to it.

    A store that does not answer is no reason to say nothing of a group. Cost: see ``Coordinator.bury``.
    """
    coordinator, state = coordinator_of(peer), peer.namespace.state
    names = [name for name in groups if name in state.groups and state.groups[name].members]
    for start in range(0, len(names), KAFKA_ADMIN_AT_ONCE):
        some = names[start : start + KAFKA_ADMIN_AT_ONCE]
        try:
            await to_the_end([coordinator.bury(name) for name in some])
        except HeadwaterError:
            return


async def describe_each(peer: Peer, names: Iterable[str], described: Callable[[str], Fields]) -> Fields:
    """An answer with each group once, as ``described``, after the dead have been buried. Cost: 1 GET."""
    wanted = dict.fromkeys(names)
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        shown = {"error_code": group_code(error), "error_message": error.message}
        return {"groups": [{"group_id": name, **shown} for name in wanted], "throttle_time": throttle_ms(error)}
    await bury_in(peer, (name for name in wanted if peer.service.may("describe", "group", name)))
    return {"groups": [described(name) for name in wanted]}


def check_topics(peer: Peer, topics: Iterable[str]) -> None:
    """Refuse members that subscribe to topics of which they may not know. Raises ``Refusal``."""
    for topic in topics:
        if not peer.service.may("describe", "topic", topic):
            message = f"Principal {peer.principal!r} may not describe topic {topic!r}."
            raise Refusal(ErrorCode.topic_authorization_failed, message)


def to_describe(
    peer: Peer, name: str, kind: GroupKind, otherwise: str, topics_of: Callable[[Sequence[str]], Iterable[str]]
) -> Group:
    """The group of that kind, if the client may know of it and of all topics that its members read.

    ``otherwise`` begins the sentence on a group of another kind. Raises ``Refusal``, or ``Forbidden``.
    """
    check_may(peer, name, "describe")
    found = peer.namespace.state.groups.get(name)
    if found is None or found.kind != kind:
        what = "There is no group" if found is None else otherwise
        raise Refusal(ErrorCode.group_id_not_found, f"{what} {name!r}.")
    for topic in sorted({topic for member in found.members.values() for topic in topics_of(member.topics)}):
        if not peer.service.may("describe", "topic", topic):
            message = f"Group {name!r} has topics that principal {peer.principal!r} may not describe."
            raise Refusal(ErrorCode.topic_authorization_failed, message)
    return found


def by_topic(peer: Peer, places: Iterable[TP]) -> list[Fields]:
    """Partitions as members are told of them."""
    found: dict[str, list[int]] = {}
    for topic, partition in places:
        found.setdefault(topic, []).append(partition)
    names = peer.namespace.state.names
    return [
        {
            "topic_id": topic_uuid(peer.namespace, names[topic]),
            "topic_name": topic,
            "partitions": partitions,
        }
        for topic, partitions in found.items()
        if topic in names
    ]


# -- members --------------------------------------------------------------------------------------------


def by_instance(group: Group | None, instance: str) -> Member | None:
    """The static member of that instance (KIP-345)."""
    members = group.members.values() if group is not None and instance else ()
    return next((member for member in members if member.instance == instance), None)


def standing(state: State, group: str, member: str, instance: str) -> ErrorCode:
    """Whether the group knows this member under this instance; ``none`` if it does."""
    found = state.groups.get(group)
    if instance:
        owner = by_instance(found, instance)
        if owner is None:
            return ErrorCode.unknown_member_id
        return ErrorCode.none if owner.id == member else ErrorCode.fenced_instance_id
    return ErrorCode.none if found is not None and member in found.members else ErrorCode.unknown_member_id


async def check_standing(peer: Peer, group: str, member: str, instance: str) -> None:
    """Raise ``Refusal`` unless the group knows the member, by the newest knowledge. Cost: nothing, or 1 GET."""
    if standing(peer.namespace.state, group, member, instance) is ErrorCode.none:
        return
    code = standing(await peer.namespace.refresh(), group, member, instance)
    if code is not ErrorCode.none:
        is_fenced = code is ErrorCode.fenced_instance_id
        what = f"Instance {instance!r} is another member by now." if is_fenced else "It left, or was expelled."
        raise Refusal(code, f"Group {group!r} has no member {member!r}. {what}")


def told_apart(error: HeadwaterError, peer: Peer, group: str, member: str, instance: str | None) -> HeadwaterError:
    """The error, or that another one is this instance by now: told that it is unknown, a static member would come back.

    Then two with one instance id would take each other's place for ever.
    """
    if not isinstance(error, UnknownMember) or not instance:
        return error
    if standing(peer.namespace.state, group, member, instance) is not ErrorCode.fenced_instance_id:
        return error
    return Refusal(ErrorCode.fenced_instance_id, f"Instance {instance!r} of group {group!r} is another member by now.")


def new_member_id(client: str, *, now_ms: int, rng: random.Random) -> str:
    """An id for a member that has none: its client id and a UUID of version 7, which tells when it was given out."""
    bits = (now_ms & (1 << 48) - 1) << 80 | 7 << 76 | rng.getrandbits(12) << 64 | 2 << 62 | rng.getrandbits(62)
    digits = f"{bits:032x}"
    uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return f"{tidy(client, NAME_BYTES_MAX - UUID_CHARS - 1)}-{uuid}"


def is_pending(member: str, now_ms: int) -> bool:
    """Whether the id was given out lately, by any gateway, so that its owner may be about to join (KIP-394).

    An older one that no group knows is that of a member whose group has let go of it. The gateways' clocks may be
    apart by as much as an id is good for.
    """
    uuid = member[-UUID_CHARS:]
    parts = uuid.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12] or not parts[2].startswith("7"):
        return False
    try:
        given_ms = int(parts[0] + parts[1], 16)
    except ValueError:
        return False
    return abs(now_ms - given_ms) <= KAFKA_MEMBER_PENDING_MS


def tidy(text: str | None, bytes_max: int = NAME_BYTES_MAX) -> str:
    """Text of a client that only people read, made fit to be kept."""
    clean = "".join(char for char in text or "" if char.isprintable())
    return clean.encode("utf-8", "ignore")[:bytes_max].decode("utf-8", "ignore")
