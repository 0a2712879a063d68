"""What there is to say about groups, from the state alone: pure, and so free for the asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headwater.errors import NotFound
from headwater.log.state import Group, Member, Partition, Share, State

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
    subscribed = {topic for member in group.members.values() for topic in member.topics}
    wanted = {state.names[topic] for topic in subscribed if topic in state.names}
    found = {}
    for number in wanted | group.offsets.keys() | group.shares.keys():
        topic = state.topics.get(number)
        if topic is None:
            continue
        known, shares = group.offsets.get(number, {}), group.shares.get(number, {})
        places = range(len(topic.partitions)) if number in wanted else known.keys() | shares.keys()
        behind = 0
        for place in places:
            partition = topic.partitions[place]
            if place in shares:
                behind += share_lag(shares[place], partition)
            else:
                committed = known[place].offset if place in known else -1
                behind += max(0, partition.stable_end - max(committed, partition.start))
        found[topic.name] = behind, len(places)
    return found


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
    subscribed = {name for member in group.members.values() for name in member.topics}
    wanted = (
        {state.names[name] for name in subscribed if name in state.names} | group.offsets.keys() | group.shares.keys()
    )
    for topic in sorted((state.topics[topic] for topic in wanted if topic in state.topics), key=lambda t: t.name):
        known, shares = group.offsets.get(topic.id, {}), group.shares.get(topic.id, {})
        for number, partition in enumerate(topic.partitions):
            if number not in known and number not in shares and topic.name not in subscribed:
                continue
            committed = known[number].offset if number in known else -1
            end = partition.stable_end
            behind = max(0, end - max(committed, partition.start))
            if number in shares:
                committed, behind = shares[number].start, share_lag(shares[number], partition)
            yield Lag(
                group=group.name,
                topic=topic.name,
                partition=number,
                committed=committed,
                end=end,
                lag=behind,
                member=owners.get((topic.id, number), ""),
            )
