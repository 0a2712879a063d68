"""Jobs of stream processing, as the state shows them: each has a changelog, a group of its name, and sources. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.console.views import archived_bytes, hot_bytes
from headwater.groups.describe import lag
from headwater.log.state import State
from headwater.streams.runner.control import remains, savepoints
from headwater.streams.runner.job import JOB, PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task: its lag in sources, and what waits between its operators; ``nbytes`` of its state's log, as stored."""

    number: int
    worker: str
    lag: int
    between: int
    changelog: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``changelog`` is records of its state's log; ``workers`` are (member, address, tasks).

    ``repartitions`` are topics between its operators, of which each task reads and writes some.
    """

    name: str
    state: str
    tasks: Sequence[Task]
    repartitions: Sequence[str]
    workers: Sequence[tuple[str, str, Sequence[int]]]
    sources: Sequence[str]
    lag: int
    changelog: int
    savepoints: Sequence[tuple[str, int]]


def jobs(state: State) -> list[Job]:
    """All jobs, by name."""
    names = {topic.config[JOB] for topic in state.topics.values() if JOB in topic.config}
    return [job(state, name) for name in sorted(names)]


def job(state: State, name: str) -> Job:
    """One of them. Raises ``NotFound``."""
    found, group = remains(state, name), state.groups.get(name)
    members = list(group.members.values()) if group is not None else []
    owners = {at: one.id for one in members for at in one.owned.get(found.changelog.id, {})}
    rows = lag(state, name) if group is not None else []
    between = set(found.repartitions)
    own = {found.changelog.name, *between}
    tasks = [
        Task(
            number=number,
            worker=owners.get(number, ""),
            lag=sum(row.lag for row in rows if row.partition == number and row.topic not in own),
            between=sum(row.lag for row in rows if row.partition == number and row.topic in between),
            changelog=part.next - part.start,
            nbytes=hot_bytes(part) + archived_bytes(part),
        )
        for number, part in enumerate(found.changelog.partitions)
    ]
    paused = found.changelog.config.get(PAUSED) == "true"
    return Job(
        name=name,
        state="paused" if paused else "running" if members else "stopped",
        tasks=tasks,
        repartitions=found.repartitions,
        workers=[(one.id, one.client, sorted(one.owned.get(found.changelog.id, {}))) for one in members],
        sources=found.sources,
        lag=sum(row.lag for row in rows if row.topic not in own),
        changelog=sum(task.changelog for task in tasks),
        savepoints=list(savepoints(found).items()),
    )
