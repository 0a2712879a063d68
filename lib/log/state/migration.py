"""Classic members in a consumer group: how a group changes its protocol while its members are restarted one by one.

    classic ──somebody joins by KIP-848──► consumer, preparing ──all classic members have joined again──► consumer
       ▲                                                                                                     │
       └──────────────────── the last member of KIP-848 has left; all join again ────────────────────────────┘

While the group is preparing nobody knows what its classic members hold, so nothing is granted; each says what it still
claims when it joins (KIP-429), or that it has let go of all. From then on they own partitions as the others do, and
hear of them by join and sync: a join releases what it no longer claims, and is told (``told``) what the member owns at
the end of its manifest. Whenever that is not what it owns any more its heartbeat says so, and it joins again.
Source: KIP-848, "Online Migration".
"""

from __future__ import annotations

from msgspec import structs

from headwater.log.operations import JoinClassic
from headwater.log.state.change import Change, Refused
from headwater.log.state.groups import begin_join_phase, check_assignors, check_room, former, replace
from headwater.log.state.model import Group, Member, State


def promote(change: Change, group: Group) -> None:
    """Make a consumer group of a classic one that has members, or refuse."""
    members = group.members.values()
    if group.protocol_type != "consumer" or not all(member.portable for member in members):
        raise Refused(
            "group_kind",
            f"Group {group.name!r} has classic members whose topics only they know, so nobody of another protocol can "
            "be among them; let them leave first.",
        )
    told = {m.id: structs.replace(m, generation=m.generation or group.generation, owned={}, revoking={}, revoking_ms=0)
            for m in members}  # fmt: skip
    change.set(group, "members", told)
    change.set(group, "kind", "consumer")
    change.set(group, "generation", group.generation + 1)
    change.set(group, "leader", "")
    change.set(group, "protocol", "")
    begin_join_phase(change, group)


def demote_if_classic(change: Change, group: Group) -> None:
    """Make a classic group of a consumer group whose members are all classic, now that others have left it.

    Until they have joined again they keep what they own.
    """
    if not group.members:
        change.set(group, "phase", "empty")
        change.set(group, "deadline_ms", 0)
        return
    if not all(member.protocols for member in group.members.values()):
        return
    change.set(group, "kind", "classic")
    change.set(group, "target", {})
    change.set(group, "assignor", "")
    members = {name: structs.replace(m, generation=max(0, m.generation)) for name, m in group.members.items()}
    change.set(group, "members", members)
    begin_join_phase(change, group)


def join(change: Change, group: Group, op: JoinClassic) -> None:
    """A classic member joins a consumer group that has members, or joins again."""
    if op.protocol_type != "consumer" or op.topics is None:
        message = f"Group {op.group!r} has members of the consumer protocol; let them leave first."
        raise Refused("group_kind", message)
    before = former(group, op.member, op.instance)
    check_assignors(group, op, [m for m in group.members.values() if m is not before and m.protocols])
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
        protocols=list(op.protocols),
        joined=True,
        portable=True,
        generation=-1,
    )
    if before is not None:
        joined = _in_the_place_of(change.state, group, before, joined, op)
    same = before is not None and before.topics == joined.topics and not before.is_awaited
    change.set(group, "protocol_type", op.protocol_type)
    replace(change, group, before.id if before else op.member, joined)
    demote_if_classic(change, group)
    change.touch(op.group, anew=not same)


def _in_the_place_of(state: State, group: Group, before: Member, joined: Member, op: JoinClassic) -> Member:
    """What ``before`` owns it owns; what it was to give up is released, unless it still holds it.

    A join that was sent before the member was told of anything since says nothing of what it holds by now.
    """
    owned, revoking, epoch, claims = before.owned, before.revoking, before.epoch, set(op.claims)
    if before.is_awaited:
        taken = {
            (topic, partition)
            for member in group.members.values()
            for topic, places in member.owned.items()
            for partition in places
        }
        owned, epoch = {}, group.generation
        for topic, partition in sorted(claims - taken):
            if state.partition(topic, partition) is not None:
                owned.setdefault(topic, {})[partition] = group.generation
    elif revoking and not 0 <= op.as_of < before.told_seq:
        kept = {topic: {p: since for p, since in places.items() if (topic, p) in claims}
                for topic, places in revoking.items()}  # fmt: skip
        revoking = {topic: places for topic, places in kept.items() if places}
    return structs.replace(
        joined,
        joined_ms=before.joined_ms,
        epoch=epoch,
        owned=owned,
        revoking=revoking,
        revoking_ms=before.revoking_ms if revoking else 0,
    )


def is_open(group: Group) -> bool:
    """Whether a consumer group still waits for classic members to join again: nobody knows what those hold."""
    return group.phase == "preparing" and any(member.is_awaited for member in group.members.values())


def wait(group: Group) -> None:
    """Nothing is granted yet; but whoever is to give up nothing has reached the group's generation."""
    group.members = {
        name: member if member.revoking else structs.replace(member, epoch=group.generation)
        for name, member in group.members.items()
    }


def tell(state: State, group: Group) -> None:
    """Classic members that have joined in this manifest hear in this generation of what they own by now."""
    for name, member in group.members.items():
        if member.generation < 0:
            heard = {"told": _places(member), "told_seq": state.seq, "generation": group.generation}
            group.members[name] = structs.replace(member, **heard)


def knows_all(member: Member) -> bool:
    """Whether a classic member of a consumer group was told what it owns now, and has nothing left to give up."""
    return not member.revoking and member.told == _places(member)


def _places(member: Member) -> dict[int, list[int]]:
    """What the member owns, by topic."""
    return {topic: sorted(places) for topic, places in member.owned.items()}
