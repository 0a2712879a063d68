"""What clients of a log may never see, looked for in what they did see (the anomalies of Jepsen's Kafka workload).

Every value is written at most once. ``History`` has what was asked and answered, in the order of each client; ``check``
compares it with the log as it was read to the end afterwards, by a committed reader.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

Place = tuple[str, int]  # topic, partition


@dataclass(slots=True)
class Sent:
    """A value that a producer sent, in its order. ``offset`` is what it was told; -1: nothing, or an error."""

    producer: str
    place: Place
    value: int
    offset: int = -1
    transaction: str = ""


@dataclass(slots=True)
class Polled:
    """Records that one poll of a consumer gave, in order, under one assignment (0: none that it knew of)."""

    consumer: str
    assignment: int
    place: Place
    records: list[tuple[int, int]]  # offset, value
    group: str = ""
    asked_s: float = 0.0  # when the poll began
    given_s: float = 0.0  # … and when it had come back


@dataclass(slots=True)
class Owned:
    """A consumer owned a partition of its group from one time to another, as its callbacks said; ``how`` it ended."""

    group: str
    consumer: str
    place: Place
    start_s: float
    end_s: float
    how: str = "revoked"

    def __str__(self) -> str:
        return f"{self.consumer} ({self.start_s:.3f} to {self.end_s:.3f} s, {self.how})"


@dataclass(slots=True)
class Told:
    """A consumer's callback was called ("assigned", "revoked", "lost"), or the consumer closes."""

    at_s: float
    group: str
    consumer: str
    what: str
    places: list[Place]


@dataclass(slots=True)
class History:
    """All that clients did and saw.

    ``ends``: how each transaction ended, "commit", "abort", or "" for unknown. ``caught_up``: groups that were
    waited for.
    """

    sent: list[Sent] = field(default_factory=list)
    polled: list[Polled] = field(default_factory=list)
    owned: list[Owned] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    caught_up: set[str] = field(default_factory=set)
    log: dict[Place, list[tuple[int, int]]] = field(default_factory=dict)  # offset, value, read at the end


def timeline(history: History) -> list[str]:
    """What the groups' readers were told and given, by time: how an anomaly came about."""
    lines = [(each.at_s, f"{each.group} {each.consumer}: {each.what} {each.places}") for each in history.told]
    polls: dict[tuple[float, str, Place], list[Polled]] = defaultdict(list)
    for poll in history.polled:
        polls[poll.asked_s, poll.consumer, poll.place].append(poll)
    for (asked_s, consumer, place), each in polls.items():
        offsets = [offset for poll in each for offset, _ in poll.records]
        what = f"read {place}:{offsets[0]} to :{offsets[-1]} under assignment {each[0].assignment}"
        lines.append((each[0].given_s, f"{each[0].group} {consumer}: {what}, asked for at {asked_s:.3f} s"))
    return [f"{at_s:.3f} s {what}" for at_s, what in sorted(lines)]


def check(history: History) -> list[str]:
    """Every anomaly, in words. None: the history is that of a log."""
    return [
        *_lost_and_misplaced(history),
        *_duplicates(history),
        *_transactions(history),
        *_sends(history),
        *_polls(history),
        *_unread(history),
        *_assignments(history),
    ]


def _lost_and_misplaced(history: History) -> list[str]:
    """A write that was acknowledged is in the log, at the offset that was told."""
    found = []
    log = _by_offset(history)
    for sent in history.sent:
        if sent.offset < 0 or (sent.transaction and history.ends.get(sent.transaction) != "commit"):
            continue
        there = log[sent.place].get(sent.offset)
        if there != sent.value:
            found.append(f"lost write: {sent.value} was acknowledged at {sent.place}:{sent.offset}, which has {there}")
    return found


def _by_offset(history: History) -> dict[Place, dict[int, int]]:
    return defaultdict(dict, {place: dict(records) for place, records in history.log.items()})


def _duplicates(history: History) -> list[str]:
    places: dict[int, list[tuple[Place, int]]] = defaultdict(list)
    for place, records in history.log.items():
        for offset, value in records:
            places[value].append((place, offset))
    return [f"duplicate: {value} is at {where}" for value, where in sorted(places.items()) if len(where) > 1]


def _transactions(history: History) -> list[str]:
    """All of a transaction is visible, or nothing; of an aborted one nothing, to any reader."""
    visible = {value for records in history.log.values() for _, value in records}
    seen = visible | {value for poll in history.polled for _, value in poll.records}
    parts: dict[str, list[int]] = defaultdict(list)
    for sent in history.sent:
        if sent.transaction:
            parts[sent.transaction].append(sent.value)
    found = []
    for name, values in sorted(parts.items()):
        there = [value for value in values if value in visible]
        if history.ends.get(name) == "abort" and (leaked := [value for value in values if value in seen]):
            found.append(f"aborted read: {leaked} of transaction {name}, which was aborted")
        elif there and len(there) < len(values):
            missing = sorted(set(values) - visible)
            found.append(f"torn transaction: {name} shows {len(there)} of {len(values)} values; missing {missing[:5]}")
    return found


def _sends(history: History) -> list[str]:
    """What one producer sent to one partition lies in that order."""
    last: dict[tuple[str, Place], Sent] = {}
    found = []
    for sent in history.sent:
        if sent.offset < 0:
            continue
        before = last.get((sent.producer, sent.place))
        if before is not None and before.offset >= sent.offset:
            found.append(
                f"non-monotonic send: {sent.producer} got {before.offset} and then {sent.offset} at {sent.place}"
            )
        last[sent.producer, sent.place] = sent
    return found


def _polls(history: History) -> list[str]:
    """Under one assignment a consumer sees a partition's records in order, and leaves none out."""
    last: dict[tuple[str, int, Place], int] = {}
    offsets = {place: sorted(offset for offset, _ in records) for place, records in history.log.items()}
    found = []
    log = _by_offset(history)
    for poll in history.polled:
        for offset, value in poll.records:
            if log[poll.place].get(offset) != value:
                found.append(f"wrong read: {poll.consumer} read {value} at {poll.place}:{offset}")
            if not poll.assignment:
                continue
            key = (poll.consumer, poll.assignment, poll.place)
            before = last.get(key)
            if before is not None and offset <= before:
                found.append(f"non-monotonic poll: {poll.consumer} read {poll.place}:{before} and then :{offset}")
            elif before is not None:
                at = offsets.get(poll.place, [])
                between = at[bisect_right(at, before) : bisect_left(at, offset)]
                if between:
                    found.append(
                        f"poll skip: {poll.consumer} went from {poll.place}:{before} to :{offset}, past {between[:5]}"
                    )
            last[key] = offset
    return found


def _unread(history: History) -> list[str]:
    """A group of readers that was waited for has seen every record, whichever of its members it came to."""
    seen: dict[str, set[int]] = defaultdict(set)
    for poll in history.polled:
        seen[poll.group].update(value for _, value in poll.records)
    found = []
    for group in sorted(history.caught_up):
        for place, records in history.log.items():
            if left := [offset for offset, value in records if value not in seen[group]]:
                found.append(f"unread: no member of {group} read {place}:{left[:5]}, {len(left)} in all")
    return found


def _assignments(history: History) -> list[str]:
    """No partition has two owners of one group at the same time."""
    found = []
    by_place: dict[tuple[str, Place], list[Owned]] = defaultdict(list)
    for owned in history.owned:
        by_place[owned.group, owned.place].append(owned)
    for (group, place), spans in sorted(by_place.items()):
        spans.sort(key=lambda each: each.start_s)
        for one, two in pairwise(spans):
            if one.consumer != two.consumer and two.start_s < one.end_s:
                found.append(f"wrong assignment: {one} and {two} of {group} both owned {place}")
    return found
