"""Membership by join and sync: Kafka's classic protocol as a pure machine.

    empty ──join──► preparing ──all joined, or the deadline──► completing ──leader's sync──► stable
                        ▲                                          │                           │
                        └────────── a member joins, changes its protocols, or leaves ──────────┘
                                    … or the leader has not assigned by the deadline, and goes

The leader computes the assignment; to the fold it is base64 text. A phase's deadline is manifest time, and anybody
may say that it is over (``EndJoin``), so no process has to stay alive for a rebalance to end.
Source: KIP-62, KIP-134 (initial delay), KIP-345 (static members), KIP-394 (member ids before joining).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import structs

from headwater.log.operations import EndJoin, JoinClassic, SyncClassic
from headwater.log.operations_base import Op
from headwater.log.state import migration
from headwater.log.state.change import Change, Refused
from headwater.log.state.groups import (
    begin_join_phase,
    check_assignors,
    check_not_departed,
    check_room,
    former,
    found,
    found_or_new,
    member_of,
    replace,
)
from headwater.log.state.model import Group, Member, State


def settle(state: State, group: Group) -> None:
    """End the join phase if all that it waited for have joined. Called once at the end of a manifest."""
    if group.phase == "preparing" and not group.delayed and all(m.joined for m in group.members.values()):
        _complete(state, group)


def left(change: Change, group: Group) -> None:
    """A member is gone: the rest join again, and an empty group rests."""
    if not group.members:
        _set(change, group, phase="empty", leader="", protocol="", delayed=False, deadline_ms=0)
        change.set(group, "generation", group.generation + 1)
    elif group.phase != "preparing":
        begin_join_phase(change, group)


def _join(change: Change, op: JoinClassic) -> None:
    check_not_departed(change, op.group, op.member, op.as_of)
    known_group = change.state.groups.get(op.group)
    if known_group is not None and known_group.kind == "consumer" and known_group.members:
        migration.join(change, known_group, op)
        return
    group = found_or_new(change, op.group, "classic")
    known, before = group.members.get(op.member), former(group, op.member, op.instance)
    check_assignors(group, op, [member for member in group.members.values() if member is not before])
    if before is None:
        check_room(group)
    joined = Member(
        id=op.member,
        instance=op.instance,
        client=op.client,
        joined_ms=before.joined_ms if before else change.state.time_ms,
        session_ms=op.session_ms,
        rebalance_ms=op.rebalance_ms,
        protocols=list(op.protocols),
        joined=True,
        assignment=before.assignment if before else "",
        topics=sorted(set(op.topics or ())),
        portable=op.topics is not None,
    )
    change.set(group, "protocol_type", op.protocol_type)
    if before is not None and group.leader == before.id:
        change.set(group, "leader", op.member)
    was_empty = not group.members
    replace(change, group, before.id if before else op.member, joined)
    change.touch(op.group, anew=True)
    if group.phase == "preparing":
        return
    if before is not None and before.protocols == joined.protocols and _may_stay(group, known, joined):
        return
    begin_join_phase(change, group, delay_ms=op.delay_ms if was_empty else 0)
    replace(change, group, op.member, joined)


def _may_stay(group: Group, known: Member | None, joined: Member) -> bool:
    """Whether a repeated join changes nothing: an answer that was lost, or a static member that came back."""
    if group.phase == "completing":
        return known is not None  # the leader is assigning to ids, and has heard of the old one
    return known is None or group.leader != joined.id  # a known leader that joins again wants a rebalance


def _end_join(change: Change, op: EndJoin) -> None:
    group, now = found(change, op.group), change.state.time_ms
    if not is_waiting(group) or group.generation != op.generation:
        raise Refused("stale", f"Group {op.group!r} has no join phase after generation {op.generation}.")
    if now < group.deadline_ms:
        raise Refused("not_expired", f"The join phase of group {op.group!r} lasts {group.deadline_ms - now} ms more.")
    if group.phase == "completing":
        # Its leader lives, or its session would have ended, and assigns nothing: the others go on without it.
        change.set(group, "members", {n: m for n, m in group.members.items() if n != group.leader})
        change.set(group, "emptied_ms", now)
        left(change, group)
        change.touch(op.group, anew=True)
        return
    # A static member that is late keeps its place until its session ends (KIP-345).
    # Not so while the group changes its protocol, since nobody knows what it holds.
    stays = group.kind == "classic"
    here = {n: m for n, m in group.members.items() if not m.is_awaited or (m.instance and stays)}
    change.set(group, "members", here)
    if not here:
        change.set(group, "emptied_ms", now)
    if group.kind == "consumer":
        migration.demote_if_classic(change, group)
        change.touch(op.group, anew=True)
        return
    if not here:
        left(change, group)
        return
    for name in ("phase", "generation", "protocol", "leader", "delayed", "deadline_ms"):
        change.set(group, name, getattr(group, name))
    _complete(change.state, group)


def is_waiting(group: Group) -> bool:
    """Whether the group waits, until ``deadline_ms``, for members to join or for its leader to assign."""
    return group.phase == "preparing" or (group.phase == "completing" and group.deadline_ms > 0)


def _complete(state: State, group: Group) -> None:
    members = list(group.members.values())
    if not members:
        return
    common = set.intersection(*({name for name, _ in member.protocols} for member in members))
    votes = Counter(next(name for name, _ in member.protocols if name in common) for member in members)
    group.protocol = min(votes, key=lambda name: (-votes[name], name))
    if group.leader not in group.members or not group.members[group.leader].joined:
        group.leader = next((member.id for member in members if member.joined), members[0].id)
    group.generation += 1
    group.phase, group.delayed = "completing", False
    group.deadline_ms = state.time_ms + max(member.rebalance_ms for member in members)
    group.members = {
        name: structs.replace(
            member, assignment="", epoch=0, generation=0, owned={}, revoking={}, revoking_ms=0, told={}
        )
        for name, member in group.members.items()
    }


def _sync(change: Change, op: SyncClassic) -> None:
    group, _ = member_of(change, op.group, op.member, "classic")
    if op.generation != group.generation:
        raise Refused("fenced", f"Group {op.group!r} is at generation {group.generation}, not {op.generation}.")
    if group.phase == "preparing":
        raise Refused("rebalancing", f"Group {op.group!r} is rebalancing: join again.")
    if group.leader != op.member:
        raise Refused("invalid", f"Only the leader of group {op.group!r} gives assignments; {op.member!r} is not it.")
    if group.phase == "stable":
        return  # the leader did not hear the answer
    _set(change, group, phase="stable", deadline_ms=0)
    given = op.assignments
    members = {n: structs.replace(m, assignment=given.get(n, "")) for n, m in group.members.items()}
    change.set(group, "members", members)


def _set(change: Change, group: Group, **fields: object) -> None:
    for name, value in fields.items():
        change.set(group, name, value)


OPERATIONS: dict[type[Op], Any] = {
    JoinClassic: _join,
    EndJoin: _end_join,
    SyncClassic: _sync,
}
