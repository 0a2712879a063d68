"""What pages show, as pure functions of a state: rows that are sorted, filtered and cut to a page.

Whether somebody may see a row is asked through ``sees``, of the rows of a page and no others where that will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Final, Generic, TypeVar

from headwater.api.access import INTERNAL
from headwater.console.commits import Commit
from headwater.groups.describe import lag, phase_of
from headwater.limits import CONSOLE_ROWS
from headwater.log.config import TopicConfig
from headwater.log.state import Group, Partition, Producer, State, Topic

T = TypeVar("T")
Sees = Callable[[str], bool]


def everything(name: str) -> bool:
    """What the owner sees: lists that are given this very function ask it nothing."""
    return True


PUT_USD: Final = 0.005 / 1_000  # S3 Standard, us-east-1
STORAGE_USD_GIB_MONTH: Final = 0.023
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Paged(Generic[T]):
    """A page of rows, and how many there are in all."""

    rows: Sequence[T]
    total: int
    number: int
    pages: int


def paged(rows: Sequence[T], number: int, size: int = CONSOLE_ROWS) -> Paged[T]:
    """Page ``number`` (from 1) of ``rows``; the last one if there are fewer."""
    pages = max(1, -(-len(rows) // size))
    number = min(max(1, number), pages)
    return Paged(rows[(number - 1) * size : number * size], len(rows), number, pages)


# -- topics --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """A topic in a list. Bytes are stored ones."""

    name: str
    partitions: int
    records: int
    hot_bytes: int
    archived_bytes: int
    policy: str
    schema: str
    stalled: int


def topic_row(topic: Topic) -> TopicRow:
    """One topic, summed over its partitions."""
    parts = topic.partitions
    return TopicRow(
        name=topic.name,
        partitions=len(parts),
        records=sum(part.stable_end - part.start for part in parts),
        hot_bytes=sum(part.hot_bytes for part in parts),
        archived_bytes=sum(map(archived_bytes, parts)),
        policy=topic.config.get("cleanup.policy", "delete"),
        schema=topic.schema.format if topic.schema else "",
        stalled=sum(bool(part.held) for part in parts),
    )


def archived_bytes(part: Partition) -> int:
    """Bytes of archive files, pages of files included."""
    if part.archive is None:
        return 0
    return sum(file.bytes for file in part.archive.files) + sum(page.bytes for page in part.archive.pages)


TOPIC_ORDERS: Final[dict[str, Callable[[TopicRow], Any]]] = {
    "name": lambda row: row.name,
    "records": lambda row: (-row.records, row.name),
    "bytes": lambda row: (-row.hot_bytes - row.archived_bytes, row.name),
    "partitions": lambda row: (-row.partitions, row.name),
}


def topics(state: State, sees: Sees, *, part: str, order: str, number: int, internal: bool) -> Paged[TopicRow]:
    """A page of topics whose name holds ``part``."""
    chosen = [
        topic
        for topic in state.topics.values()
        if part in topic.name and (internal or not topic.name.startswith(INTERNAL)) and sees(topic.name)
    ]
    if order == "name":
        # Only what is shown is summed.
        found = paged(sorted(chosen, key=lambda topic: topic.name), number)
        return Paged([topic_row(topic) for topic in found.rows], found.total, found.number, found.pages)
    return paged(sorted(map(topic_row, chosen), key=TOPIC_ORDERS[order]), number)


def settings(topic: Topic) -> list[tuple[str, str, bool]]:
    """Configs with their values; whether one was set, or is the default."""
    known = TopicConfig.of(topic.config)
    defaults = {
        "retention.ms": str(known.retention_ms),
        "retention.bytes": str(known.retention_bytes),
        "cleanup.policy": topic.config.get("cleanup.policy", "delete"),
        "max.message.bytes": str(known.max_message_bytes),
        "archive.ms": str(known.archive_ms),
        "archive.bytes": str(known.archive_bytes),
    }
    names = sorted(defaults.keys() | topic.config.keys())
    return [(name, topic.config.get(name, defaults.get(name, "")), name in topic.config) for name in names]


# -- groups --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group in a list."""

    name: str
    kind: str
    state: str
    members: int
    lag: int


def groups(state: State, sees: Sees, *, part: str, order: str, number: int) -> Paged[GroupRow]:
    """A page of groups whose name holds ``part``: the furthest behind first, or by name."""
    names = list(state.groups) if sees is everything else list(filter(sees, state.groups))
    if part:
        names = [name for name in names if part in name]
    if order == "name":
        names.sort()
    elif order == "members":
        names.sort(key=lambda name: (-len(state.groups[name].members), name))
    else:
        # Of 65,000 groups a page needs the first hundred: a heap finds them without sorting the rest.
        behind = lags(state)
        shown = paged(range(len(names)), number)
        first = nsmallest(shown.number * CONSOLE_ROWS, ((-behind[name], name) for name in names))
        rows = [_group_row(state, state.groups[name]) for _, name in first[(shown.number - 1) * CONSOLE_ROWS :]]
        return Paged(rows, shown.total, shown.number, shown.pages)
    cut = paged(names, number)
    return Paged([_group_row(state, state.groups[name]) for name in cut.rows], cut.total, cut.number, cut.pages)


def lags(state: State) -> dict[str, int]:
    """Lag of every group over its committed offsets: what groups are ordered by.

    Cost: 0.2 us for each committed offset and each partition, so 65,000 groups with 4 offsets take some 60 ms.
    """
    bounds = {
        topic.id: [(part.start, part.stable_end if part.held else part.next) for part in topic.partitions]
        for topic in state.topics.values()
    }
    found = {}
    for name, group in state.groups.items():
        behind = 0
        for topic, places in group.offsets.items():
            if (parts := bounds.get(topic)) is not None:
                for number, committed in places.items():
                    start, end = parts[number]
                    at = committed.offset
                    if at < start:  # two comparisons are a third of what two calls of max() take
                        at = start
                    if at < end:
                        behind += end - at
        found[name] = behind
    return found


def lag_history(state: State, group: Group, commits: Sequence[Commit]) -> list[tuple[int, int]]:
    """Commit and lag, the oldest first, as far back as the ``commits`` (newest first) say where the group stood.

    Ends are counted back from now by what each commit appended. Where the group stood before the first commit of
    ``commits`` that moves it nobody says, so a partition counts from there on; one that was not moved stands still.
    """
    ends = {
        (topic, number): part.stable_end
        for topic in group.offsets
        if topic in state.topics
        for number, part in enumerate(state.topics[topic].partitions)
        if number in group.offsets[topic]
    }
    stood = {
        (topic, number): max(0, at.offset) for topic, places in group.offsets.items() for number, at in places.items()
    }
    found = []
    for commit in commits:
        found.append((commit.seq, sum(max(0, end - stood[place]) for place, end in ends.items() if place in stood)))
        for place, count in commit.grew.items():
            if place in ends:
                ends[place] -= count
        for place in commit.moved.get(group.name, {}):
            before = _stood(group.name, place, commits, commit.seq)
            if before is None:
                ends.pop(place, None)
            else:
                stood[place] = before
        if not ends:
            break
    return found[::-1]


def _stood(name: str, place: tuple[int, int], commits: Sequence[Commit], before: int) -> int | None:
    """What the group committed there last before commit ``before``, if ``commits`` say so."""
    moves = (c.moved[name] for c in commits if c.seq < before and name in c.moved)
    return next((places[place] for places in moves if place in places), None)


def _group_row(state: State, group: Group) -> GroupRow:
    return GroupRow(
        name=group.name,
        kind=group.kind or "–",
        state=phase_of(group),
        members=len(group.members),
        lag=sum(row.lag for row in lag(state, group.name)),
    )


# -- the overview --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What went in over a span of commits, and what that costs at list prices."""

    span_ms: int
    commits_per_s: float
    records_per_s: float
    bytes_per_s: float
    intents: float  # of each commit: more than one is company that shared a PUT
    usd_per_h: float
    usd_month: float
    topics: Sequence[tuple[str, float, float, float, float]]  # name, records/s, bytes/s, PUTs/h, dollars an hour


def flow(state: State, commits: Sequence[Commit], now_ms: int, sees: Sees) -> Flow:
    """Rates over the last hour, or as far as ``commits`` reach back. Each commit is a PUT, each merged segment one.

    The PUTs of a commit are its topics', in proportion to the bytes that each has in it; those of a commit without
    records are nobody's. A topic's dollars are its PUTs.
    """
    recent = [commit for commit in commits if commit.time_ms > now_ms - HOUR_MS]
    span_ms = max(1_000, now_ms - min((commit.time_ms for commit in recent), default=now_ms))
    seconds = span_ms / 1_000
    by_topic: dict[int, tuple[int, int, float]] = {}
    puts = 0
    for commit in recent:
        own = 1 + commit.merged
        puts += own
        for topic, (records, size) in commit.by_topic.items():
            known = by_topic.get(topic, (0, 0, 0.0))
            share = own * size / max(1, commit.bytes)
            by_topic[topic] = known[0] + records, known[1] + size, known[2] + share
    hours = span_ms / HOUR_MS
    usd_per_h = puts * PUT_USD / hours
    named = [
        (state.topics[topic].name, records / seconds, size / seconds, share / hours, share * PUT_USD / hours)
        for topic, (records, size, share) in by_topic.items()
        if topic in state.topics and sees(state.topics[topic].name)
    ]
    stored = sum(part.hot_bytes + archived_bytes(part) for topic in state.topics.values() for part in topic.partitions)
    return Flow(
        span_ms=span_ms,
        commits_per_s=len(recent) / seconds,
        records_per_s=sum(commit.records for commit in recent) / seconds,
        bytes_per_s=sum(commit.bytes for commit in recent) / seconds,
        intents=sum(commit.intents for commit in recent) / max(1, len(recent)),
        usd_per_h=usd_per_h,
        usd_month=stored / 2**30 * STORAGE_USD_GIB_MONTH,
        topics=sorted(named, key=lambda row: -row[2])[:10],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A producer with something open, and what waits for its end."""

    pid: int
    epoch: int
    tid: str
    deadline_ms: int
    overdue: bool
    places: Sequence[str]
    groups: Sequence[str]


def transactions(state: State, now_ms: int, sees: Sees) -> list[Transaction]:
    """Open transactions, the longest overdue first."""
    found = [
        Transaction(
            pid=producer.id,
            epoch=producer.epoch,
            tid=producer.tid,
            deadline_ms=producer.deadline_ms,
            overdue=producer.deadline_ms < now_ms,
            places=[f"{state.topics[topic].name}-{p}" for topic, p in producer.open if topic in state.topics],
            groups=list(producer.groups),
        )
        for producer in state.producers.values()
        if producer.is_busy and sees(producer.tid)
    ]
    return sorted(found, key=lambda one: one.deadline_ms)


@dataclass(frozen=True, slots=True)
class HeldRecords:
    """Records that wait for a producer's end, by place."""

    records: int
    places: Sequence[tuple[str, int]]


def held_by(state: State, pid: int) -> HeldRecords:
    """What of the open transaction of ``pid`` nobody can read yet."""
    found = []
    for topic, number in state.producers[pid].open:
        if (partition := state.partition(topic, number)) is not None:
            count = sum(held.entry.count for held in partition.held if held.pid == pid)
            found.append((f"{state.topics[topic].name}-{number}", count))
    return HeldRecords(sum(count for _, count in found), found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerRow:
    """A producer. ``last`` is the newest sequence and place that its present epoch has written, if any."""

    id: int
    tid: str
    epoch: int
    last_ms: int
    partitions: int
    last: Sequence[tuple[str, int]]
    fenced: int  # epochs before this one: whoever still has one is refused
    busy: bool


def producer_row(state: State, producer: Producer) -> ProducerRow:
    """One of a page's: the newest batch of each partition tells the last sequence."""
    known = [
        (f"{state.topics[topic].name}-{number}", written.batches[-1][0] + written.batches[-1][1] - 1, written.epoch)
        for topic, places in producer.sequences.items()
        if topic in state.topics
        for number, written in places.items()
        if written.batches
    ]
    return ProducerRow(
        id=producer.id,
        tid=producer.tid,
        epoch=producer.epoch,
        last_ms=producer.last_ms,
        partitions=len(known),
        last=[(place, sequence) for place, sequence, epoch in known if epoch == producer.epoch][:3],
        fenced=producer.epoch,
        busy=producer.is_busy,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRow:
    """How far the archiver has come in a topic. ``waiting`` records are in chunks alone."""

    name: str
    records: int
    archived: int
    waiting: int
    hot_bytes: int
    archived_bytes: int


def archiving(state: State, sees: Sees, number: int) -> Paged[ArchiveRow]:
    """A page of topics, those with the most hot bytes first."""
    rows = [_archive_row(topic) for topic in state.topics.values() if sees(topic.name)]
    return paged(sorted(rows, key=lambda row: (-row.hot_bytes, row.name)), number)


def _archive_row(topic: Topic) -> ArchiveRow:
    parts = topic.partitions
    records = sum(part.stable_end - part.start for part in parts)
    waiting = sum(max(0, part.stable_end - part.hot) for part in parts)
    return ArchiveRow(
        name=topic.name,
        records=records,
        archived=records - waiting,
        waiting=waiting,
        hot_bytes=sum(part.hot_bytes for part in parts),
        archived_bytes=sum(map(archived_bytes, parts)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRow:
    """A group that has committed offsets in a topic: in how many partitions, and its lag there."""

    group: str
    state: str
    members: int
    partitions: int
    lag: int


def readers(state: State, topic: Topic, sees: Sees) -> Paged[ReaderRow]:
    """The groups that read a topic, the furthest behind first: the first page of them."""
    bounds = [(part.start, part.stable_end) for part in topic.partitions]
    found = []
    for name, group in state.groups.items():
        places = group.offsets.get(topic.id)
        if places and sees(name):
            behind = sum(max(0, bounds[at][1] - max(one.offset, bounds[at][0])) for at, one in places.items())
            found.append((-behind, name))
    cut = paged(sorted(found), 1)
    rows = [
        ReaderRow(
            group=name,
            state=phase_of(state.groups[name]),
            members=len(state.groups[name].members),
            partitions=len(state.groups[name].offsets[topic.id]),
            lag=-behind,
        )
        for behind, name in cut.rows
    ]
    return Paged(rows, cut.total, cut.number, cut.pages)
