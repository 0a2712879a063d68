"""Groups: committed offsets, who may move them, and how they end.

Membership is decided by ``members`` (KIP-848) and ``classic`` (join and sync); here is what both share.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from headwater.limits import MEMBERS_MAX, WINDOW
from headwater.log.operations import CommitOffsets, DeleteGroup, DeleteOffsets, ExpireOffsets, JoinClassic, OffsetEntry
from headwater.log.operations_base import Op
from headwater.log.state.appends import partition_of
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Committed, Group, GroupKind, Member, Pending, State


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
        if group.kind == "share":
            raise Refused("group_kind", f"Group {name!r} is a share group, and stays one until it is deleted.")
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


def check_not_departed(change: Change, name: str, member: str, as_of: int) -> None:
    """Refuse a join that was asked for before its member left: it would bring back what nobody answers for.

    Its caller may have heard of an earlier join and of its end, or be dead; whoever lives asks again, and knows more.
    """
    if as_of < 0:
        return
    state = change.state
    since = state.departed.get(_departed_key(name, member), -1)
    if as_of < since or as_of < state.seq - WINDOW:
        raise Refused(
            "unknown_member",
            f"The join of {member!r}, made at manifest {as_of}, came late: group {name!r} has let go of it since.",
        )


def depart(change: Change, name: str, member: str) -> None:
    """Remember for as long as an older join may still come in that the member has left."""
    state, key = change.state, _departed_key(name, member)
    if key in state.departed:  # it was back meanwhile, and moves to the end of the line
        change.set(state, "departed", {other: seq for other, seq in state.departed.items() if other != key})
    change.on_refusal(state.departed.pop, key)
    state.departed[key] = state.seq


def forget_departed(state: State) -> None:
    """Called for each manifest while there is anything to forget. Cost: what is forgotten."""
    while state.departed:
        oldest = next(iter(state.departed))
        if state.departed[oldest] >= state.seq - WINDOW:
            return
        del state.departed[oldest]


def _departed_key(group: str, member: str) -> str:
    return f"{len(group)}:{group}{member}"  # no two pairs share a key, whatever the names hold


def begin_join_phase(change: Change, group: Group, *, delay_ms: int = 0) -> None:
    """All classic members are to join again, within the longest time that one of them asked for, or in ``delay_ms``."""
    members = {n: structs.replace(m, joined=False) if m.protocols else m for n, m in group.members.items()}
    wait_ms = delay_ms or max(member.rebalance_ms for member in members.values() if member.protocols)
    change.set(group, "phase", "preparing")
    change.set(group, "delayed", delay_ms > 0)
    change.set(group, "deadline_ms", change.state.time_ms + wait_ms)
    change.set(group, "members", members)


def check_assignors(group: Group, op: JoinClassic, others: list[Member]) -> None:
    """Refuse a classic member that has no assignor in common with all the others, or is of another type."""
    if others and group.protocol_type != op.protocol_type:
        message = f"Group {op.group!r} is of protocol type {group.protocol_type!r}, not {op.protocol_type!r}."
        raise Refused("inconsistent_protocol", message)
    common = {name for name, _ in op.protocols}
    for member in others:
        common &= {name for name, _ in member.protocols}
    if not common:
        raise Refused("inconsistent_protocol", f"The members of group {op.group!r} share none of these assignors.")


def former(group: Group, member: str, instance: str) -> Member | None:
    """Whose place a joining member takes: its own, or that of its instance (KIP-345)."""
    known = group.members.get(member)
    return known or next((m for m in group.members.values() if instance and m.instance == instance), None)


def check_room(group: Group) -> None:
    """Refuse one more member than a group may have."""
    if len(group.members) >= MEMBERS_MAX:
        raise Refused("group_full", f"Group {group.name!r} has {MEMBERS_MAX} members, as many as a group may have.")


def replace(change: Change, group: Group, old: str, member: Member) -> None:
    """Put ``member`` where ``old`` stood, or at the end of the line."""
    members = {**group.members, old: member}
    if old != member.id:
        if old in group.members:
            depart(change, group.name, old)
        members = {(member.id if name == old else name): known for name, known in members.items()}
        target = {(member.id if name == old else name): places for name, places in group.target.items()}
        change.set(group, "target", target)
    change.set(group, "members", members)


def _commit(change: Change, op: CommitOffsets) -> None:
    group = _fenced_group(change, op)
    for entry in op.offsets:
        _move(change, group, entry.topic, entry.partition, entry)
    if group.pending:
        gone = {(entry.topic, entry.partition) for entry in op.offsets}
        _drop_pending(change, group, dict.fromkeys(gone, change.state.seq))


def _fenced_group(change: Change, op: CommitOffsets, pid: int = -1) -> Group:
    """The group, if these offsets may be moved by whoever asks, and the places exist.

    With ``pid`` they are part of a transaction of that producer. Without a member the transactional id alone says who
    may, as before KIP-447: each partition had its own. Nor does a group that waits for its leader's assignment refuse
    them, as in Kafka: Java's producer takes that refusal for its end.
    """
    anonymous = pid >= 0 and op.generation < 0 and not op.member
    group = found_or_new(change, op.group)
    if group.kind == "share":
        raise Refused("group_kind", f"Group {op.group!r} is a share group: its records are acknowledged one by one.")
    if not anonymous:
        _fence(group, op)
        if pid < 0 and group.members and group.phase == "completing" and holds_all(group, group.members[op.member]):
            raise Refused("rebalancing", f"Group {group.name!r} waits for its leader's assignment; commit after it.")
    for entry in op.offsets:
        partition_of(change.state, entry.topic, entry.partition)
    return group


def _move(change: Change, group: Group, topic: int, partition: int, to: OffsetEntry | Pending) -> None:
    places = group.offsets.setdefault(topic, {})
    change.on_refusal(_restore, group, topic, partition, places.get(partition))
    places[partition] = Committed(to.offset, to.metadata, to.leader_epoch, change.state.time_ms)


# -- of open transactions ----------------------------------------------------------------------------------


def pending_offsets(state: State, group: str) -> dict[int, set[int]]:
    """The partitions of the group, by topic, whose offset an open transaction may be about to move (KIP-447)."""
    found: dict[int, set[int]] = {}
    known = state.groups.get(group)
    for topics in known.pending.values() if known is not None else ():
        for topic, places in topics.items():
            found.setdefault(topic, set()).update(places)
    return found


def count(state: State, group: str, pid: int) -> int:
    """How many offsets of the group the producer's transaction holds."""
    known = state.groups.get(group)
    return sum(map(len, known.pending.get(pid, {}).values())) if known is not None else 0


def reserve(change: Change, op: CommitOffsets, pid: int) -> str:
    """Keep the offsets for the end of the producer's transaction. The group's name."""
    group = _fenced_group(change, op, pid)
    topics = {topic: dict(places) for topic, places in group.pending.get(pid, {}).items()}
    for entry in op.offsets:
        place = Pending(entry.offset, entry.metadata, entry.leader_epoch, change.state.seq)
        topics.setdefault(entry.topic, {})[entry.partition] = place
    change.set(group, "pending", {**group.pending, pid: topics})
    return op.group


def release(change: Change, name: str, pid: int, *, commit: bool) -> None:
    """Move the group's offsets to what the producer has reserved, or forget that. Of what is gone, nothing."""
    state = change.state
    group = state.groups.get(name)
    if group is None or pid not in group.pending:
        return  # somebody deleted the group, and with it what was to become of it
    mine = group.pending[pid]
    change.set(group, "pending", {other: topics for other, topics in group.pending.items() if other != pid})
    if not commit:
        return
    moved: dict[tuple[int, int], int] = {}
    for topic, places in mine.items():
        for partition, place in places.items():
            if state.partition(topic, partition) is not None:
                _move(change, group, topic, partition, place)
                moved[topic, partition] = place.seq
    _drop_pending(change, group, moved)


def _drop_pending(change: Change, group: Group, moved: dict[tuple[int, int], int]) -> None:
    """What others reserved before (by manifest ``seq``) would take the group back: the later word wins, as in Kafka."""
    kept: dict[int, dict[int, dict[int, Pending]]] = {}
    for pid, topics in group.pending.items():
        for topic, places in topics.items():
            left = {p: place for p, place in places.items() if place.seq > moved.get((topic, p), -1)}
            if left:
                kept.setdefault(pid, {})[topic] = left
    if kept != group.pending:
        change.set(group, "pending", kept)


def holds_all(group: Group, member: Member) -> bool:
    """Whether the member may move any offset of the group in its generation, since only its peers know what is whose.

    So it is with classic members; if they are to join again because the group has changed its protocol, it is as it was
    under the former one.
    """
    if group.kind == "classic":
        return member.joined or not member.generation
    return member.is_awaited


def generation_of(group: Group, member: Member) -> int:
    """The generation in which a classic member has its partitions; -1 while it waits for one."""
    has_its_own = group.kind == "consumer" or (member.generation and not member.joined)
    return member.generation if has_its_own else group.generation


def may_move(group: Group, member: Member, generation: int, topic: int, partition: int) -> bool:
    """I5: whether the member, in the generation that it names, moves the offset of this partition."""
    if holds_all(group, member):
        return generation == generation_of(group, member)
    since = _since(member, topic, partition)
    return since is not None and since <= generation


def _fence(group: Group, op: CommitOffsets) -> None:
    """I5: while a group has members only one who owns a partition moves its offset."""
    generation, member = op.generation, op.member
    if not group.members:
        if generation >= 0:
            raise Refused("fenced", f"Group {group.name!r} has no members any more; generation {generation} is over.")
        return
    known = group.members.get(member)
    if known is None or not 0 <= generation <= group.generation:
        raise _fenced(group, generation, member)
    if holds_all(group, known):
        if generation != generation_of(group, known):
            raise _fenced(group, generation, member)
        return
    for entry in op.offsets:
        if not may_move(group, known, generation, entry.topic, entry.partition):
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
    group, topics = found(change, op.group), change.state.topics
    for name in {topics[topic].name for topic, _ in op.partitions if topic in topics}:
        if may_read(group, name):
            raise Refused("group_busy", f"Members of group {op.group!r} read topic {name!r}; let them leave it first.")
    gone = set(op.partitions)
    kept = {t: {p: c for p, c in places.items() if (t, p) not in gone} for t, places in group.offsets.items()}
    change.set(group, "offsets", {topic: places for topic, places in kept.items() if places})
    if group.pending:
        _drop_pending(change, group, dict.fromkeys(gone, change.state.seq))


def may_read(group: Group, topic: str) -> bool:
    """Whether a member subscribes to the topic, or may, since nobody but its peers knows what it subscribes to."""
    return any(topic in each.topics or (each.protocols and not each.portable) for each in group.members.values())


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
    if idle and not kept and not group.pending and not group.shares:
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
