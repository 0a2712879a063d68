"""Judge what groups have told their members: one owner at a time, nobody lost, nobody forgotten.

Members and their clocks may believe what they like. A partition is held since a generation, and generations only
rise; so whoever was answered with a newer one before another *asked* has it, and the other one must hear so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from headwater.sim.history import TP, Beat, Event, OffsetCommit, Told, What

Found: TypeAlias = tuple[str, str, tuple[Event, ...]]
Held: TypeAlias = tuple[int, str, Event | None]  # since, by whom, and how that became known

GROUP_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "two-owners": "a partition of a group was held by two members at the same time",
        "lost-member": "a member that lives and is heard is not in its group",
        "ghost-member": "a member that is gone for long is still in its group",
        "restless": "a group does not come to rest, although nothing is wrong any more",
        "unowned": "a partition that members subscribe to is nobody's",
        "misled": "a member was told something else than what it owns",
        "stuck": "members do not get to the end of a partition, although nothing is wrong any more",
    }
)
NOBODY: Held = (-1, "", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Club:
    """A group when nothing has gone wrong for long: what its living members were told, and what the fold says.

    ``wanted`` is what the living subscribe to; ``lag`` how many records of it are not committed. ``restless``: its
    generation went on changing.
    """

    living: Mapping[str, tuple[TP, ...]]
    owned: Mapping[str, tuple[TP, ...]]
    wanted: tuple[TP, ...]
    lag: Mapping[TP, int]
    restless: bool = False


def ownership(events: Sequence[Event], calls: Mapping[int, What | None]) -> Iterator[Found]:
    """What was told to members, and what they could commit, against what had been told before they asked."""
    newest: dict[tuple[str, TP], Held] = {}
    known: dict[int, dict[tuple[str, TP], Held]] = {}  # the same when a call began
    holding: dict[tuple[str, str], dict[TP, int]] = {}  # what a member was told last, less what it has released
    doubts: dict[int, list[Found]] = {}  # what is wrong if a call is answered
    for event in events:
        what = calls.get(event.call)
        if not isinstance(what, Beat | OffsetCommit) or event.kind not in ("invoke", "ok"):
            continue
        if event.kind == "invoke":
            known[event.seq] = dict(newest)
            if isinstance(what, Beat):
                kept = holding.get((what.group, what.member), {})
                # Who joins may have been expelled, and begins anew.
                doubts[event.seq] = [] if what.joining else list(_taken(what, kept, newest, event))
                holding[what.group, what.member] = {tp: g for tp, g in kept.items() if tp not in what.released}
        elif isinstance(what, OffsetCommit):
            yield from _committed(what, known[event.call], (events[event.call], event))
        elif isinstance(event.answer, Told):
            yield from doubts[event.call]
            held = {**dict(event.answer.owned), **dict(event.answer.revoke)}
            yield from _held(what, held, known[event.call], newest, (events[event.call], event))
            holding[what.group, what.member] = held


def _committed(what: OffsetCommit, known: Mapping[tuple[str, TP], Held], those: tuple[Event, Event]) -> Iterator[Found]:
    """A commit that began when a newer owner had been told of the partition is to be refused."""
    for tp, _ in what.offsets if what.each and what.generation is not None else ():
        since, owner, told = known.get((what.group, tp), NOBODY)
        if what.generation is not None and what.generation < since:
            detail = f"{what.owner} of {what.generation} committed {tp}, which {owner} had since {since}"
            yield "zombie-commit", detail, _those(told, *those)


def _taken(what: Beat, kept: Mapping[TP, int], newest: Mapping[tuple[str, TP], Held], event: Event) -> Iterator[Found]:
    """What somebody else had been told of before this member asked, although it had not released it.

    Only if it is answered, since then it was a member all the time.
    """
    for tp, since in kept.items():
        other = newest.get((what.group, tp), NOBODY)
        if other[0] > since and other[1] != what.owner:
            detail = f"{what.owner} held {tp} since {since} and did not release it, and {other[1]} since {other[0]}"
            yield "two-owners", detail, _those(other[2], event)


def _held(
    what: Beat,
    held: Mapping[TP, int],
    known: Mapping[tuple[str, TP], Held],
    newest: dict[tuple[str, TP], Held],
    those: tuple[Event, Event],
) -> Iterator[Found]:
    for tp, since in held.items():
        key = what.group, tp
        before, now = known.get(key, NOBODY), newest.get(key, NOBODY)
        if since < before[0] or (since == now[0] and what.owner != now[1]):
            other = before if since < before[0] else now
            detail = f"{what.owner} holds {tp} since {since}, and {other[1]} since {other[0]}"
            yield "two-owners", detail, _those(other[2], *those)
        newest[key] = max(now, (since, what.owner, those[1]), key=lambda one: one[0])


def assembled(clubs: Mapping[str, Club]) -> Iterator[Found]:
    """Every living member is in its group and knows what it owns; every partition has one owner and no lag."""
    for name, club in clubs.items():
        for member, told in club.living.items():
            if member not in club.owned:
                yield "lost-member", f"{name}: {member} lives and is not in the group", ()
            elif sorted(told) != sorted(club.owned[member]):
                yield "misled", f"{name}: {member} owns {club.owned[member]} and was told {told}", ()
        # Where nobody lives nobody expels: that is then for maintenance, or for whoever joins next.
        for member in sorted(club.owned.keys() - club.living.keys()) if club.living else ():
            yield "ghost-member", f"{name}: {member} is gone and still in the group", ()
        for tp in club.wanted:
            owners = [member for member, places in club.owned.items() if tp in places]
            if len(owners) != 1:
                yield ("two-owners" if owners else "unowned"), f"{name}: {tp} is owned by {owners or 'nobody'}", ()
            if club.lag.get(tp, 0) > 0:
                yield "stuck", f"{name}: {club.lag[tp]} records of {tp} are not committed", ()
        if club.restless:
            yield "restless", f"{name} began one generation after another", ()


def _those(*events: Event | None) -> tuple[Event, ...]:
    return tuple(event for event in events if event is not None)
