"""Jobs of stream processing, as the state shows them: each has a changelog, a group of its name, and sources. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.groups.describe import lag
from headwater.log.state import State
from headwater.streams.runner.control import remains, savepoints
from headwater.streams.runner.job import JOB, PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``changelog`` is records of its state's log; ``workers`` are (member, address, tasks)."""

    name: str
    state: str
    tasks: int
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
    own = {found.changelog.name, *found.repartitions}
    paused = found.changelog.config.get(PAUSED) == "true"
    return Job(
        name=name,
        state="paused" if paused else "running" if members else "stopped",
        tasks=found.tasks,
        workers=[(one.id, one.client, sorted(one.owned.get(found.changelog.id, {}))) for one in members],
        sources=found.sources,
        lag=sum(row.lag for row in lag(state, name) if row.topic not in own) if group is not None else 0,
        changelog=sum(part.next - part.start for part in found.changelog.partitions),
        savepoints=list(savepoints(found).items()),
    )
