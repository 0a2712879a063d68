"""Share groups (KIP-932): members that share partitions, and which records are done with, as a pure machine.

A record is locked for one consumer by the process that handed it out, in its memory alone. The fold knows who hands
out what: a process *claims* a run of offsets, and nobody else hands them out until it has said what became of them, has
given them back, or is gone.

                     ClaimShare                    SettleShare
    nobody's, free ────────────► held by a claim ──────────────► done, never delivered again
          ▲                           │   ▲  └── delivered so often, and held on
          └── SettleShare (free) ─────┤   └── SettleShare
          └── FreeShare: the holder is gone

So any number of processes serve one share-partition, each its own runs, and no offset is ever held by two claims. A
claim's number is never used again, and whoever was freed of a claim is fenced by it. What is done stays done.

Membership commutes as in ``members``. A partition may be several members' (KIP-932, simple assignor), so nothing is
ever revoked, and a member has its target as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from headwater.limits import GROUP_CONFIGS_MAX, MEMBERS_MAX, SHARE_SPANS_MAX
from headwater.log.operations_base import Op
from headwater.log.operations_shares import (
    AlterGroup,
    ClaimShare,
    ForgetShares,
    FreeShare,
    JoinShare,
    ResetShares,
    SettleShare,
    ShareMark,
)
from headwater.log.state.appends import partition_of
from headwater.log.state.change import Change, Refused
from headwater.log.state.groups import check_not_departed, found, found_or_new, replace
from headwater.log.state.model import Group, Member, Share, Span, State
from headwater.log.state.spans import changed, joined, over

DONE: Final = -1  # a span's count when it is never delivered again
ASSIGNOR: Final = "simple"


# -- members ---------------------------------------------------------------------------------------------


def settle(state: State, group: Group, *, anew: bool) -> None:
    """Give every member its partitions, and forget what was deleted. Called once at the end of a manifest."""
    if anew:
        group.generation += 1
        members = list(group.members.values())
        names = {name for member in members for name in member.topics if name in state.names}
        topics = {name: (state.names[name], len(state.topics[state.names[name]].partitions)) for name in names}
        group.assignor = ASSIGNOR if members else ""
        group.target = simple(members, topics)
        group.members = {
            name: structs.replace(member, epoch=group.generation, owned=_owned(group, name))
            for name, member in group.members.items()
        }
    if any(topic not in state.topics for topic in group.shares):
        group.shares = {topic: places for topic, places in group.shares.items() if topic in state.topics}


def simple(members: Sequence[Member], topics: Mapping[str, tuple[int, int]]) -> dict[str, dict[int, list[int]]]:
    """Every partition to a member at least, and every member to a partition of each topic that it subscribes to.

    ``topics`` are (id, partitions) by name.
    """
    target: dict[str, dict[int, list[int]]] = {member.id: {} for member in members}
    for name in sorted(topics):
        topic, count = topics[name]
        readers = [member.id for member in members if name in member.topics]
        for turn in range(max(count, len(readers)) if readers else 0):
            target[readers[turn % len(readers)]].setdefault(topic, []).append(turn % count)
    return target


def _owned(group: Group, member: str) -> dict[int, dict[int, int]]:
    return {topic: dict.fromkeys(places, group.generation) for topic, places in group.target[member].items()}


def _join(change: Change, op: JoinShare) -> None:
    check_not_departed(change, op.group, op.member, op.as_of)
    group = _share_group_or_new(change, op.group)
    known = group.members.get(op.member)
    if known is None and len(group.members) >= MEMBERS_MAX:
        raise Refused("group_full", f"Group {op.group!r} has {MEMBERS_MAX} members, as many as a group may have.")
    joined_member = Member(
        id=op.member,
        client=op.client,
        joined_ms=known.joined_ms if known else change.state.time_ms,
        session_ms=op.session_ms,
        topics=sorted(set(op.topics)),
        epoch=known.epoch if known else 0,
        owned=known.owned if known else {},
    )
    replace(change, group, op.member, joined_member)
    change.touch(op.group, anew=known is None or known.topics != joined_member.topics)


# -- records ---------------------------------------------------------------------------------------------


def _share_group_or_new(change: Change, name: str) -> Group:
    before = change.state.groups.get(name)
    if before is not None and before.kind != "share" and (before.offsets or before.pending):
        raise Refused("group_kind", f"Group {name!r} has committed offsets; delete it before it can share.")
    return found_or_new(change, name, "share")


def _share_group(change: Change, name: str, *, empty: bool = False) -> Group:
    group = found(change, name)
    if group.kind != "share":
        raise Refused("group_kind", f"Group {name!r} is no share group.")
    if empty and group.members:
        raise Refused("group_busy", f"Group {name!r} has members; what it has shared cannot be changed under them.")
    return group


def _share(change: Change, group: str, topic: int, partition: int) -> Share:
    share = _share_group(change, group).shares.get(topic, {}).get(partition)
    if share is None:
        raise Refused("gone", f"Group {group!r} has not begun partition {partition} of topic {topic}.")
    return share


def _put(change: Change, group: Group, topic: int, partition: int, share: Share) -> None:
    places = {**group.shares.get(topic, {}), partition: share}
    change.set(group, "shares", {**group.shares, topic: places})


def _claim(change: Change, op: ClaimShare) -> None:
    group = _share_group(change, op.group)
    place = partition_of(change.state, op.topic, op.partition)
    share = group.shares.get(op.topic, {}).get(op.partition)
    if share is None:
        if op.start < 0:
            raise Refused("gone", f"Group {op.group!r} has not begun partition {op.partition} of topic {op.topic}.")
        share = Share(epoch=change.state.seq, start=op.start, next=op.start)
        _put(change, group, op.topic, op.partition, share)
    number = max(share.claims + 1, change.state.seq)
    spans = _trimmed(share, place.start)
    begin = max(share.next, place.start)
    taken = _take_free(spans, op.records, number)
    room = op.locks - sum(span.end - span.base for span in taken.spans if not span.is_done)
    fresh = max(min(op.records - taken.records, room, place.stable_end - begin), 0)
    if len(taken.spans) >= SHARE_SPANS_MAX:
        fresh = 0  # what is there must be settled first
    taken.spans.append(Span(begin, begin + fresh, 0, number))
    taken.records += fresh
    _keep(change, share, taken.spans, begin + fresh)
    if taken.records:
        change.set(share, "claims", number)
        change.set(share, "holders", {**share.holders, number: op.holder})
    change.values.update(claim=number, records=taken.records)


def _trimmed(share: Share, floor: int) -> list[Span]:
    """The spans, of which those that nobody holds are done below ``floor``: there are no records any more."""
    spans = share.spans
    if share.start < floor:
        spans = changed(spans, share.start, floor, _lost)
        spans = joined([*spans, Span(share.next, floor, DONE)])
    return spans


def _lost(span: Span) -> Span:
    return span if span.claim else Span(span.base, span.end, DONE)


class _Taken:
    """Spans after a part of them was claimed, and how many offsets that were."""

    __slots__ = ("records", "spans")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.records = 0


def _take_free(spans: list[Span], records: int, number: int) -> _Taken:
    taken = _Taken()
    for span in spans:
        size = min(span.end - span.base, records - taken.records)
        if not span.is_free or size <= 0:
            taken.spans.append(span)
            continue
        taken.spans.append(Span(span.base, span.base + size, span.count, number))
        if span.base + size < span.end:
            taken.spans.append(Span(span.base + size, span.end, span.count))
        taken.records += size
    return taken


def _settle(change: Change, op: SettleShare) -> None:
    share = _share(change, op.group, op.topic, op.partition)
    spans = share.spans
    for mark in op.marks:
        _check_held(share, spans, op, mark)
        spans = changed(spans, mark.base, mark.end, _marked(mark))
    _keep(change, share, spans, share.next)


def _marked(mark: ShareMark) -> Any:
    def becomes(span: Span) -> Span:
        if mark.count < 0:
            return Span(span.base, span.end, DONE)
        # Deliveries that are known are never forgotten, whoever counts them.
        return Span(span.base, span.end, max(mark.count, span.count), 0 if mark.free else span.claim)

    return becomes


def _check_held(share: Share, spans: list[Span], op: SettleShare, mark: ShareMark) -> None:
    first, last = over(spans, mark.base, mark.end)
    held = spans[first:last]
    whole = bool(held) and held[0].base <= mark.base < mark.end <= held[-1].end
    if not whole or share.holders.get(mark.claim) != op.holder or any(span.claim != mark.claim for span in held):
        raise Refused(
            "fenced",
            f"{op.holder!r} does not hold offsets {mark.base} to {mark.end - 1} of partition {op.partition} of topic "
            f"{op.topic} for group {op.group!r} under claim {mark.claim} any more.",
        )


def _free(change: Change, op: FreeShare) -> None:
    share = _share(change, op.group, op.topic, op.partition)
    gone = {claim for claim in op.claims if share.holders.get(claim) == op.holder}
    if gone:
        spans = [Span(s.base, s.end, s.count) if s.claim in gone else s for s in share.spans]
        _keep(change, share, joined(spans), share.next)


def _keep(change: Change, share: Share, spans: list[Span], following: int) -> None:
    """Move the start over what is done, and forget claims that hold nothing any more."""
    spans = joined(spans)
    start = share.start
    while spans and spans[0].is_done:
        start = spans.pop(0).end
    held = {span.claim for span in spans}
    change.set(share, "spans", spans)
    change.set(share, "start", start if spans else following)
    change.set(share, "next", following)
    change.set(share, "holders", {claim: who for claim, who in share.holders.items() if claim in held})


# -- for admins ------------------------------------------------------------------------------------------


def _reset(change: Change, op: ResetShares) -> None:
    _share_group_or_new(change, op.group)
    group = _share_group(change, op.group, empty=True)
    for topic, partition, start in op.starts:
        partition_of(change.state, topic, partition)
        before = group.shares.get(topic, {}).get(partition)
        claims = before.claims if before is not None else 0
        share = Share(epoch=change.state.seq, start=start, next=start, claims=claims)
        _put(change, group, topic, partition, share)


def _forget(change: Change, op: ForgetShares) -> None:
    group = _share_group(change, op.group, empty=True)
    gone = set(op.topics)
    change.set(group, "shares", {topic: places for topic, places in group.shares.items() if topic not in gone})


def _alter(change: Change, op: AlterGroup) -> None:
    known = change.state.group_configs
    config = {**known.get(op.group, {}), **op.config}
    kept = {name: value for name, value in config.items() if value is not None}
    if op.group not in known and len(known) >= GROUP_CONFIGS_MAX:
        raise Refused("too_many", f"{GROUP_CONFIGS_MAX} groups have configs of their own, as many as there may be.")
    others = {name: value for name, value in known.items() if name != op.group}
    change.set(change.state, "group_configs", {**others, op.group: kept} if kept else others)


OPERATIONS: dict[type[Op], Any] = {
    JoinShare: _join,
    ClaimShare: _claim,
    SettleShare: _settle,
    FreeShare: _free,
    ResetShares: _reset,
    ForgetShares: _forget,
    AlterGroup: _alter,
}
