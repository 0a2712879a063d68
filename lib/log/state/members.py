"""Membership by server-side assignment: KIP-848's protocol as a pure machine, with nobody coordinating.

Joins, releases and leaves commute, so group commit carries a hundred of them in a few manifests. What they do to a
group is gathered, and the group is rebalanced once, at the end of the manifest:

    generation + 1 ──► target = assignor(members, topics that exist) ──► reconcile

Reconciling: what a member owns beyond its target becomes *revoking*, and stays its own until it releases it; a free
partition is granted to the member whose target names it, once that member has nothing left to release. So at every
manifest a partition has at most one owner (I5), whatever members and their clocks believe. What is granted later than
its target moves the generation on as well: a member that names an older one has not heard of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from msgspec import structs

from headwater.log.operations import JoinGroup, LeaveGroup, ReleasePartitions
from headwater.log.operations_base import Op
from headwater.log.state import assignors, classic, migration, shares
from headwater.log.state.change import Change, Refused
from headwater.log.state.groups import check_not_departed, check_room, depart, former, found_or_new, member_of, replace
from headwater.log.state.model import Group, Member, State

Places: TypeAlias = dict[int, dict[int, int]]  # topic → partition → generation since which it is owned


class Touched:
    """What the applied intents of one manifest did to groups: which to rebalance, and which topics changed."""

    __slots__ = ("groups", "topics")

    def __init__(self) -> None:
        self.groups: dict[str, bool] = {}
        self.topics: set[str] = set()

    def add(self, change: Change) -> None:
        """Take over what an applied intent has touched."""
        for name, anew in change.groups.items():
            self.groups[name] = self.groups.get(name, False) or anew
        self.topics |= change.topics


def settle(state: State, touched: Touched) -> None:
    """Rebalance every group that was touched, or whose topics changed, once. Cost: nothing if nothing did."""
    for group in state.groups.values() if touched.topics else ():
        if any(not touched.topics.isdisjoint(member.topics) for member in group.members.values()):
            touched.groups[group.name] = True
    for name, anew in touched.groups.items():
        if name not in state.groups:
            continue  # deleted by a later intent
        group = state.groups[name]
        if group.kind == "classic":
            classic.settle(state, group)
            continue
        if group.kind == "share":
            shares.settle(state, group, anew=anew)
            continue
        if migration.is_open(group):
            migration.wait(group)
            continue
        if group.phase == "preparing":
            group.phase, group.deadline_ms, anew = "empty", 0, True
        if anew:
            _retarget(state, group)
        _reconcile(state, group, begun=anew)
        migration.tell(state, group)


def _join(change: Change, op: JoinGroup) -> None:
    check_not_departed(change, op.group, op.member, op.as_of)
    there = change.state.groups.get(op.group)
    if there is not None and there.kind == "classic" and there.members and op.epoch < 0:
        migration.promote(change, there)
    group = found_or_new(change, op.group, "consumer")
    known = group.members.get(op.member)
    if op.epoch >= 0 and known is None:
        member_of(change, op.group, op.member)  # refuses
    if op.epoch >= 0 and known is not None and known.protocols:
        raise Refused("group_kind", f"Member {op.member!r} of group {op.group!r} is of the classic protocol by now.")
    if op.assignor and op.assignor not in assignors.NAMES:
        raise Refused("invalid", f"The assignors are {', '.join(assignors.NAMES)}; {op.assignor!r} is none.")
    before = former(group, op.member, op.instance)
    if before is None:
        check_room(group)
    joined = Member(
        id=op.member,
        instance=op.instance,
        client=op.client,
        joined_ms=change.state.time_ms,
        session_ms=op.session_ms,
        rebalance_ms=op.rebalance_ms,
        topics=sorted(set(op.topics)),
        assignor=op.assignor,
    )
    if before is not None:
        # KIP-345: who comes back under an instance's name takes its place, and its old self is fenced by its id.
        joined = structs.replace(
            joined,
            joined_ms=before.joined_ms,
            epoch=before.epoch,
            owned=before.owned,
            revoking=before.revoking,
            revoking_ms=before.revoking_ms,
        )
    replace(change, group, before.id if before else op.member, joined)
    same = before is not None and (before.topics, before.assignor) == (joined.topics, joined.assignor)
    change.touch(op.group, anew=not same)


def _release(change: Change, op: ReleasePartitions) -> None:
    group, member = member_of(change, op.group, op.member, "consumer")
    gone = set(op.partitions)
    left: Places = {}
    for topic, places in member.revoking.items():
        for partition, since in places.items():
            if (topic, partition) not in gone or 0 <= op.epoch < since:
                left.setdefault(topic, {})[partition] = since
    revoking_ms = member.revoking_ms if left else 0
    replace(change, group, member.id, structs.replace(member, revoking=left, revoking_ms=revoking_ms))
    change.touch(op.group, anew=False)


def _leave(change: Change, op: LeaveGroup) -> None:
    group, member = member_of(change, op.group, op.member)
    change.set(group, "members", {name: known for name, known in group.members.items() if name != member.id})
    depart(change, op.group, op.member)
    change.set(group, "emptied_ms", change.state.time_ms)
    if group.kind == "classic":
        classic.left(change, group)
    elif group.kind == "consumer":
        migration.demote_if_classic(change, group)
    change.touch(op.group, anew=True)


def _retarget(state: State, group: Group) -> None:
    group.generation += 1
    members, before = list(group.members.values()), group.target
    named = {name for member in members for name in member.topics if name in state.names}
    topics = {name: (state.names[name], len(state.topics[state.names[name]].partitions)) for name in named}
    group.target = {}
    group.assignor = assignors.chosen(members) if members else ""
    if members:
        for name, places in assignors.assign(group.assignor, members, topics, before).items():
            mine: dict[int, list[int]] = {}
            for topic, partition in sorted(places):
                mine.setdefault(topic, []).append(partition)
            group.target[name] = mine


def _reconcile(state: State, group: Group, *, begun: bool) -> None:
    """Revoke what targets no longer name, then grant what is free: in a new generation, unless one has ``begun``."""
    # New dicts and members throughout, since an outcome or a reader may still hold the old ones.
    members = {name: _revoked(state, member, group) for name, member in group.members.items()}
    taken: set[tuple[int, int]] = set()
    for member in members.values():
        for held in (member.owned, member.revoking):
            for topic, places in held.items():
                for partition in places:
                    assert (topic, partition) not in taken, "I5: a partition has one owner"
                    taken.add((topic, partition))
    free: dict[str, list[tuple[int, int]]] = {}
    for name, member in members.items():
        target = {} if member.revoking else group.target.get(name, {})
        mine = [(t, p) for t, partitions in target.items() for p in partitions if (t, p) not in taken]
        if mine:
            free[name] = mine
            taken.update(mine)
    if free and not begun:
        group.generation += 1
    group.members = {name: _granted(member, free.get(name, ()), group) for name, member in members.items()}


def _granted(member: Member, places: Iterable[tuple[int, int]], group: Group) -> Member:
    """The member with these places, in the group's generation if it has nothing to give up."""
    if member.revoking:
        return member
    owned = {topic: dict(partitions) for topic, partitions in member.owned.items()}
    for topic, partition in places:
        owned.setdefault(topic, {})[partition] = group.generation
    return structs.replace(member, owned=owned, epoch=group.generation)


def _revoked(state: State, member: Member, group: Group) -> Member:
    """The member with what its target does not name moved from owned to revoking, less what was deleted."""
    target = group.target.get(member.id, {})
    wanted = {(topic, partition) for topic, places in target.items() for partition in places}
    owned: Places = {}
    revoking: Places = {topic: dict(places) for topic, places in member.revoking.items() if topic in state.topics}
    for topic, places in member.owned.items():
        if topic not in state.topics:
            continue
        for partition, since in places.items():
            side = owned if (topic, partition) in wanted else revoking
            side.setdefault(topic, {})[partition] = since
    return structs.replace(
        member,
        owned=owned,
        revoking=revoking,
        revoking_ms=(member.revoking_ms or state.time_ms) if revoking else 0,
    )


OPERATIONS: dict[type[Op], Any] = {
    JoinGroup: _join,
    ReleasePartitions: _release,
    LeaveGroup: _leave,
}
