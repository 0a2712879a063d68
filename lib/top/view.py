"""What is shown, as a pure function of two looks at the state: totals say what there is, differences what flows.

The state holds offsets, groups and commits already, so a look costs the one GET that asks for a newer manifest, however
many groups there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.groups.describe import lag, phase_of
from headwater.log.state import State, Topic


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one moment, by the looker's own clock in seconds: offsets and bytes by topic id, lag by group."""

    at_s: float
    commit: int
    topics: dict[int, tuple[int, int]]
    lags: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """``records`` can be read, ``archived`` of them from the archive; rates are of appends, in stored bytes."""

    name: str
    partitions: int
    records: int
    archived: int
    hot_bytes: int
    records_per_s: float
    bytes_per_s: float
    stalled: int  # partitions whose readers wait for an open transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """``lag_per_s`` is negative while it catches up; ``eta_s`` is then when it will have, else None."""

    name: str
    state: str
    members: int
    lag: int
    lag_per_s: float
    eta_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The namespace in one line."""

    commit: int
    time_ms: int
    commits_per_s: float
    records_per_s: float
    bytes_per_s: float
    producers: int
    transactions: int
    overdue: int  # transactions past their deadline
    members: int
    lag: int


@dataclass(frozen=True, slots=True)
class View:
    """All of it: topics by name, groups by name."""

    overview: Overview
    topics: Sequence[TopicRow]
    groups: Sequence[GroupRow]


def sample(state: State, at_s: float) -> Sample:
    """Totals as of ``at_s``. Cost: one walk over partitions and committed offsets."""
    topics = {
        topic.id: (sum(part.next for part in topic.partitions), sum(part.bytes for part in topic.partitions))
        for topic in state.topics.values()
    }
    lags = dict.fromkeys(state.groups, 0)
    for row in lag(state):
        lags[row.group] += row.lag
    return Sample(at_s, state.seq, topics, lags)


def view_of(state: State, now: Sample, before: Sample, *, now_ms: int) -> View:
    """What is to be shown of ``state``, whose totals are ``now``; rates are over the time since ``before``."""
    topics = [_topic(topic, now, before) for topic in state.topics.values()]
    groups = [_group(state, name, now, before) for name in state.groups]
    busy = [producer for producer in state.producers.values() if producer.is_busy]
    overview = Overview(
        commit=state.seq,
        time_ms=state.time_ms,
        commits_per_s=_rate(now.commit - before.commit, now, before),
        records_per_s=sum(row.records_per_s for row in topics),
        bytes_per_s=sum(row.bytes_per_s for row in topics),
        producers=len(state.producers),
        transactions=len(busy),
        overdue=sum(producer.deadline_ms < now_ms for producer in busy),
        members=sum(row.members for row in groups),
        lag=sum(row.lag for row in groups),
    )
    by_name = sorted(topics, key=lambda row: row.name), sorted(groups, key=lambda row: row.name)
    return View(overview, *by_name)


def _topic(topic: Topic, now: Sample, before: Sample) -> TopicRow:
    records, size = now.topics[topic.id]
    # A topic that was not there before has got all that it holds since.
    records_before, size_before = before.topics.get(topic.id, (0, 0))
    parts = topic.partitions
    return TopicRow(
        name=topic.name,
        partitions=len(parts),
        records=sum(part.stable_end - part.start for part in parts),
        archived=sum(max(0, part.archived - part.start) for part in parts),
        hot_bytes=sum(part.hot_bytes for part in parts),
        records_per_s=_rate(records - records_before, now, before),
        bytes_per_s=_rate(size - size_before, now, before),
        stalled=sum(bool(part.held) for part in parts),
    )


def _group(state: State, name: str, now: Sample, before: Sample) -> GroupRow:
    group, behind = state.groups[name], now.lags[name]
    change = _rate(behind - before.lags.get(name, behind), now, before)
    return GroupRow(
        name=name,
        state=phase_of(group),
        members=len(group.members),
        lag=behind,
        lag_per_s=change,
        eta_s=0.0 if not behind else (behind / -change if change < 0 else None),
    )


def _rate(count: int, now: Sample, before: Sample) -> float:
    seconds = now.at_s - before.at_s
    return count / seconds if seconds > 0 else 0.0
