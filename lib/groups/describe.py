"""What there is to say about groups, from the state alone: pure, and so free for the asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headwater.errors import NotFound
from headwater.log.state import Group, Member, Partition, Share, State, Topic

TP: TypeAlias = tuple[str, int]
Places: TypeAlias = Mapping[int, Mapping[int, int]]

_PHASES = {"preparing": "PreparingRebalance", "completing": "CompletingRebalance", "stable": "Stable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInfo:
    """A member as its group knows it."""

    member: str
    instance: str
    client: str
    epoch: int
    topics: Sequence[str]
    owned: Sequence[TP]
    revoking: Sequence[TP]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """A group, its members, and how far it has come. ``state`` is Kafka's word: ``Empty``, ``Stable``, …"""

    group: str
    kind: str
    state: str
    generation: int
    assignor: str
    members: Sequence[MemberInfo] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Records between a group's committed offset and the end of a partition. ``committed`` -1: nothing is."""

    group: str
    topic: str
    partition: int
    committed: int
    end: int
    lag: int
    member: str = ""


def group_info(state: State, name: str) -> GroupInfo:
    """The group as of ``state``. Raises ``NotFound``."""
    group = _group(state, name)
    return GroupInfo(
        group=name,
        kind=group.kind,
        state=phase_of(group),
        generation=group.generation,
        assignor=group.protocol if group.kind == "classic" else group.assignor,
        members=[_member(state, member) for member in group.members.values()],
    )


def lag(state: State, name: str | None = None) -> list[Lag]:
    """How far a group, or every group, is behind, by topic and partition.

    Of partitions with a committed offset, and of all partitions of topics that members subscribe to. The end is
    where readers stop (Kafka: last stable offset); what retention took away is not counted as lag. Of a share group
    ``committed`` is where it starts, and what it is done with beyond that is no lag either.

    Raises:
        NotFound: there is no group of that name.
    """
    groups = [_group(state, name)] if name is not None else [state.groups[known] for known in sorted(state.groups)]
    return [row for group in groups for row in _lags(state, group)]


def lag_by_topic(state: State, name: str) -> dict[str, tuple[int, int]]:
    """The ``lag`` of one group, summed over the partitions of each topic, and how many partitions these are.

    Raises what ``lag`` raises. Cost: 1 us a partition.
    """
    group = _group(state, name)
    return {
        topic.name: (sum(_behind(group, topic, number)[2] for number in numbers), len(numbers))
        for topic, numbers in _read_by(state, group)
    }


def share_lag(share: Share, partition: Partition) -> int:
    """How many offsets of a share-partition are not done with (KIP-1226)."""
    start = max(share.start, partition.start)
    done = sum(max(span.end - max(span.base, start), 0) for span in share.spans if span.is_done)
    return max(partition.stable_end - start - done, 0)


def unsettled(group: Group, member: Member) -> bool:
    """Whether the member still owes a release, or waits for a partition that its target names."""
    if member.revoking:
        return True
    target = group.target.get(member.id, {})
    return any(partition not in member.owned.get(topic, {}) for topic, places in target.items() for partition in places)


def named(state: State, places: Places) -> dict[TP, int]:
    """Places by topic name; those of deleted topics are left out."""
    found = {
        (state.topics[topic].name, partition): since
        for topic, partitions in places.items()
        if topic in state.topics
        for partition, since in partitions.items()
    }
    return dict(sorted(found.items()))


def _group(state: State, name: str) -> Group:
    found = state.groups.get(name)
    if found is None:
        raise NotFound(f"There is no group {name!r}.", group=name)
    return found


def phase_of(group: Group) -> str:
    """Kafka's word for where the group stands."""
    if not group.members:
        return "Empty"
    if group.kind == "classic":
        return _PHASES.get(group.phase, "Empty")
    if group.phase == "preparing":
        return "Assigning"  # it waits for its classic members
    return "Reconciling" if any(unsettled(group, member) for member in group.members.values()) else "Stable"


def _member(state: State, member: Member) -> MemberInfo:
    return MemberInfo(
        member=member.id,
        instance=member.instance,
        client=member.client,
        epoch=member.epoch,
        topics=list(member.topics),
        owned=list(named(state, member.owned)),
        revoking=list(named(state, member.revoking)),
    )


def _lags(state: State, group: Group) -> Iterator[Lag]:
    owners = {
        (topic, partition): member.id
        for member in group.members.values()
        for held in (member.owned, member.revoking)
        for topic, places in held.items()
        for partition in places
    }
    for topic, numbers in _read_by(state, group):
        for number in numbers:
            committed, end, behind = _behind(group, topic, number)
            yield Lag(
                group=group.name,
                topic=topic.name,
                partition=number,
                committed=committed,
                end=end,
                lag=behind,
                member=owners.get((topic.id, number), ""),
            )


def _read_by(state: State, group: Group) -> Iterator[tuple[Topic, Sequence[int]]]:
    """The topics that the group reads or has read, by name, and which of their partitions."""
    subscribed = {
        state.names[name] for member in group.members.values() for name in member.topics if name in state.names
    }
    wanted = subscribed | group.offsets.keys() | group.shares.keys()
    for topic in sorted((state.topics[number] for number in wanted if number in state.topics), key=lambda t: t.name):
        if topic.id in subscribed:
            yield topic, range(len(topic.partitions))
        else:
            yield topic, sorted(group.offsets.get(topic.id, {}).keys() | group.shares.get(topic.id, {}).keys())


def _behind(group: Group, topic: Topic, number: int) -> tuple[int, int, int]:
    """Of a partition: what is committed (-1: nothing; of a share group its start), where readers stop, and the lag."""
    partition, share = topic.partitions[number], group.shares.get(topic.id, {}).get(number)
    if share is not None:
        return share.start, partition.stable_end, share_lag(share, partition)
    known, end = group.offsets.get(topic.id, {}).get(number), partition.stable_end
    committed = -1 if known is None else max(-1, known.offset)
    return committed, end, max(0, end - max(committed, partition.start))
