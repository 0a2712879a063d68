"""Groups: committed offsets, who may move them, and how they end.

Membership is decided by ``members`` (KIP-848) and ``classic`` (join and sync); here is what both share.
"""

from __future__ import annotations

from typing import Any

from headwater.log.operations import CommitOffsets, DeleteGroup, DeleteOffsets, ExpireOffsets, OffsetEntry, Op
from headwater.log.state.appends import partition_of
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Committed, Group, GroupKind, Member


def found(change: Change, name: str) -> Group:
    """The group, or a refusal."""
    group = change.state.groups.get(name)
    if group is None:
        raise Refused("no_group", f"There is no group {name!r}.")
    return group


def found_or_new(change: Change, name: str, kind: GroupKind = "") -> Group:
    """The group, made if it does not exist. A group with members keeps its kind; one without takes ``kind``."""
    groups = change.state.groups
    group = groups.get(name)
    if group is None:
        group = groups[name] = Group(name=name, kind=kind, emptied_ms=change.state.time_ms)
        change.on_refusal(groups.pop, name)
    elif kind and group.kind != kind:
        if group.members:
            raise Refused("group_kind", f"Group {name!r} has {group.kind} members; let them leave first.")
        change.set(group, "kind", kind)
    return group


def member_of(change: Change, name: str, member: str, kind: GroupKind = "") -> tuple[Group, Member]:
    """The group, of that kind if one is given, and its member, or a refusal."""
    group = change.state.groups.get(name)
    if group is None or member not in group.members:
        raise Refused("unknown_member", f"Group {name!r} has no member {member!r}: it left, or was expelled.")
    if kind and group.kind != kind:
        raise Refused("group_kind", f"Group {name!r} is of the {group.kind} protocol, not the {kind} one.")
    return group, group.members[member]


def replace(change: Change, group: Group, old: str, member: Member) -> None:
    """Put ``member`` where ``old`` stood, or at the end of the line."""
    members = {**group.members, old: member}
    if old != member.id:
        members = {(member.id if name == old else name): known for name, known in members.items()}
        target = {(member.id if name == old else name): places for name, places in group.target.items()}
        change.set(group, "target", target)
    change.set(group, "members", members)


def _commit(change: Change, op: CommitOffsets) -> None:
    state = change.state
    group = found_or_new(change, op.group)
    _fence(group, op.generation, op.member, op.offsets)
    for entry in op.offsets:
        partition_of(state, entry.topic, entry.partition)
        places = group.offsets.setdefault(entry.topic, {})
        change.on_refusal(_restore, group, entry.topic, entry.partition, places.get(entry.partition))
        places[entry.partition] = Committed(entry.offset, entry.metadata, entry.leader_epoch, state.time_ms)


def _fence(group: Group, generation: int, member: str, offsets: list[OffsetEntry]) -> None:
    """I5: while a group has members only one who owns a partition moves its offset."""
    if not group.members:
        if generation >= 0:
            raise Refused("fenced", f"Group {group.name!r} has no members any more; generation {generation} is over.")
        return
    known = group.members.get(member)
    if known is None or not 0 <= generation <= group.generation:
        raise _fenced(group, generation, member)
    if group.kind == "classic":
        if generation != group.generation:
            raise _fenced(group, generation, member)
        if group.phase == "completing":
            raise Refused("rebalancing", f"Group {group.name!r} waits for its leader's assignment; commit after it.")
        return
    for entry in offsets:
        since = _since(known, entry.topic, entry.partition)
        if since is None or since > generation:
            raise Refused(
                "fenced",
                f"Member {member!r} does not own partition {entry.partition} of topic {entry.topic} "
                f"in generation {generation} of group {group.name!r}.",
            )


def _fenced(group: Group, generation: int, member: str) -> Refused:
    return Refused(
        "fenced",
        f"Group {group.name!r} is at generation {group.generation}; "
        f"member {member!r} of generation {generation} may not commit offsets.",
    )


def _since(member: Member, topic: int, partition: int) -> int | None:
    """The generation since which the member owns the partition; what it is to give up is its own until it does."""
    owned = member.owned.get(topic, {}).get(partition)
    return member.revoking.get(topic, {}).get(partition) if owned is None else owned


def _restore(group: Group, topic: int, partition: int, known: Committed | None) -> None:
    places = group.offsets[topic]
    if known is not None:
        places[partition] = known
        return
    del places[partition]
    if not places:
        del group.offsets[topic]


def _delete_offsets(change: Change, op: DeleteOffsets) -> None:
    group = found(change, op.group)
    if group.members:
        raise Refused("group_busy", f"Group {op.group!r} has members; its offsets cannot be deleted under them.")
    gone = set(op.partitions)
    kept = {t: {p: c for p, c in places.items() if (t, p) not in gone} for t, places in group.offsets.items()}
    change.set(group, "offsets", {topic: places for topic, places in kept.items() if places})


def _expire(change: Change, op: ExpireOffsets) -> None:
    group, state = found(change, op.group), change.state
    idle_since = state.time_ms - op.idle_ms
    idle = not group.members and group.emptied_ms <= idle_since
    kept: dict[int, dict[int, Committed]] = {}
    for topic, places in group.offsets.items():
        if topic in state.topics:
            left = {p: c for p, c in places.items() if not (idle and c.time_ms <= idle_since)}
            if left:
                kept[topic] = left
    if idle and not kept:
        _forget(change, op.group)
    elif kept != group.offsets:
        change.set(group, "offsets", kept)
    else:
        raise Refused("not_expired", f"Group {op.group!r} has nothing that was idle for {op.idle_ms} ms.")


def _delete_group(change: Change, op: DeleteGroup) -> None:
    if found(change, op.group).members:
        raise Refused("group_busy", f"Group {op.group!r} has members and cannot be deleted.")
    _forget(change, op.group)


def _forget(change: Change, name: str) -> None:
    # A copy, so that a refusal puts the group back into its place.
    change.set(change.state, "groups", {other: group for other, group in change.state.groups.items() if other != name})


OPERATIONS: dict[type[Op], Any] = {
    CommitOffsets: _commit,
    DeleteOffsets: _delete_offsets,
    ExpireOffsets: _expire,
    DeleteGroup: _delete_group,
}
