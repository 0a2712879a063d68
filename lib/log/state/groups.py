"""Groups: committed offsets, fenced by generation, and membership as one compare-and-set.

The coordinator's protocols (classic and KIP-848) are machines of their own above this. What must be
agreed on is small: which generation is current, who is in it, and what was committed under it.
"""

from __future__ import annotations

from typing import Any

from headwater.log.intents import CommitOffsets, DeleteGroup, DeleteOffsets, Op, SetGroup
from headwater.log.state.appends import partition_of
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Committed, Group, State


def _commit(change: Change, op: CommitOffsets) -> None:
    state = change.state
    group = _found_or_new(change, op.group)
    _fence(group, op.generation, op.member)
    for entry in op.offsets:
        partition_of(state, entry.topic, entry.partition)
        places = group.offsets.setdefault(entry.topic, {})
        change.on_refusal(_restore, group, entry.topic, entry.partition, places.get(entry.partition))
        places[entry.partition] = Committed(entry.offset, entry.metadata, entry.leader_epoch, state.time_ms)


def _fence(group: Group, generation: int, member: str) -> None:
    """I5: while a group has members only a member of the current generation moves its offsets."""
    if group.members:
        if generation != group.generation or member not in group.members:
            raise Refused(
                "fenced",
                f"Group {group.name!r} is at generation {group.generation}; "
                f"member {member!r} of generation {generation} may not commit offsets.",
            )
    elif generation >= 0:
        raise Refused("fenced", f"Group {group.name!r} has no members any more; generation {generation} is over.")


def _restore(group: Group, topic: int, partition: int, known: Committed | None) -> None:
    places = group.offsets[topic]
    if known is not None:
        places[partition] = known
        return
    del places[partition]
    if not places:
        del group.offsets[topic]


def _delete_offsets(change: Change, op: DeleteOffsets) -> None:
    group = _found(change, op.group)
    if group.members:
        raise Refused("group_busy", f"Group {op.group!r} has members; its offsets cannot be deleted under them.")
    before = group.offsets
    change.on_refusal(setattr, group, "offsets", before)
    gone = set(op.partitions)
    kept = {t: {p: c for p, c in places.items() if (t, p) not in gone} for t, places in before.items()}
    group.offsets = {topic: places for topic, places in kept.items() if places}


def _set_group(change: Change, op: SetGroup) -> None:
    group = _found_or_new(change, op.group)
    if group.generation != op.expect:
        raise Refused("stale", f"Group {op.group!r} is at generation {group.generation}, not {op.expect}.")
    if op.generation <= op.expect:
        raise Refused("invalid", f"Generation {op.generation} does not follow {op.expect}.")
    for name in ("generation", "protocol", "members", "assignment"):
        change.on_refusal(setattr, group, name, getattr(group, name))
    group.generation = op.generation
    group.protocol = op.protocol
    group.members = op.members
    group.assignment = op.assignment


def _delete_group(change: Change, op: DeleteGroup) -> None:
    group = _found(change, op.group)
    if group.members:
        raise Refused("group_busy", f"Group {op.group!r} has members and cannot be deleted.")
    # A copy, so that a refusal puts the group back into its place.
    change.on_refusal(setattr, change.state, "groups", dict(change.state.groups))
    del change.state.groups[op.group]


def _found(change: Change, name: str) -> Group:
    group = change.state.groups.get(name)
    if group is None:
        raise Refused("no_group", f"There is no group {name!r}.")
    return group


def _found_or_new(change: Change, name: str) -> Group:
    groups = change.state.groups
    group = groups.get(name)
    if group is None:
        group = groups[name] = Group(name=name)
        change.on_refusal(_undo_new, change.state, name)
    return group


def _undo_new(state: State, name: str) -> None:
    del state.groups[name]


OPERATIONS: dict[type[Op], Any] = {
    CommitOffsets: _commit,
    DeleteOffsets: _delete_offsets,
    SetGroup: _set_group,
    DeleteGroup: _delete_group,
}
