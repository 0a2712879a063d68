"""Jobs of stream processing, as the state shows them: each has a changelog, a group of its name, and sources. Pure.

What a job computes stands in its changelog's configs, where its tasks leave it (``streams.runner.account``): so it is
there with no worker to ask, as of any commit, and without the libraries that jobs are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.console.views import archived_bytes
from headwater.groups.describe import lag
from headwater.log.state import State
from headwater.streams.runner.account import PICTURE, Figures, Told, figures_key, figures_of, picture_of, summed
from headwater.streams.runner.remains import JOB, PAUSED, remains, savepoints
from headwater.streams.svg import drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task: its lag in sources, and what waits between its operators; ``nbytes`` of its state's log, as stored."""

    number: int
    worker: str
    lag: int
    between: int
    changelog: int
    nbytes: int
    told: Figures | None
    watermark: int | None  # ms: the lowest at the ends of the topology, so what it writes is whole up to there

    @property
    def state_bytes(self) -> int:
        """Its operators' state in memory and on disk."""
        return sum(one.state_bytes for one in self.told.operators.values()) if self.told is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator over all tasks, with the kind and the note that its picture has."""

    name: str
    kind: str
    note: str
    told: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``changelog`` is records of its state's log; ``workers`` are (member, address, tasks).

    ``repartitions`` are topics between its operators, of which each task reads and writes some. Operators were as they
    are shown between ``told_first_ms`` and ``told_last_ms``, and count since ``since_ms``.
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
    operators: Sequence[OperatorRow]
    since_ms: int
    told_first_ms: int
    told_last_ms: int
    svg: str  # safe to be put into a page: every text in it is escaped; "" if nothing is known

    @property
    def watermark(self) -> int | None:
        """The lowest of its tasks, ms."""
        return min((task.watermark for task in self.tasks if task.watermark is not None), default=None)

    @property
    def state_bytes(self) -> int:
        """The state of all tasks."""
        return sum(task.state_bytes for task in self.tasks)


def jobs(state: State) -> list[Job]:
    """All jobs, by name."""
    names = {topic.config[JOB] for topic in state.topics.values() if JOB in topic.config}
    return [job(state, name) for name in sorted(names)]


def job(state: State, name: str) -> Job:
    """One of them. Raises ``NotFound``."""
    found, group = remains(state, name), state.groups.get(name)
    configs = found.changelog.config
    members = list(group.members.values()) if group is not None else []
    owners = {at: one.id for one in members for at in one.owned.get(found.changelog.id, {})}
    rows = lag(state, name) if group is not None else []
    between = set(found.repartitions)
    own = {found.changelog.name, *between}
    cards = picture_of(configs.get(PICTURE, ""))
    inner = {parent for card in cards for parent in card.parents}  # the rest are ends; without a picture, all
    figures = [figures_of(configs.get(figures_key(number), "")) for number in range(found.tasks)]
    tasks = [
        Task(
            number=number,
            worker=owners.get(number, ""),
            lag=sum(row.lag for row in rows if row.partition == number and row.topic not in own),
            between=sum(row.lag for row in rows if row.partition == number and row.topic in between),
            changelog=part.next - part.start,
            nbytes=part.hot_bytes + archived_bytes(part),
            told=figures[number],
            watermark=_lowest(figures[number], inner),
        )
        for number, part in enumerate(found.changelog.partitions)
    ]
    told = [task.told for task in tasks if task.told is not None]
    return Job(
        name=name,
        state="paused" if configs.get(PAUSED) == "true" else "running" if members else "stopped",
        tasks=tasks,
        repartitions=found.repartitions,
        workers=[(one.id, one.client, sorted(one.owned.get(found.changelog.id, {}))) for one in members],
        sources=found.sources,
        lag=sum(row.lag for row in rows if row.topic not in own),
        changelog=sum(task.changelog for task in tasks),
        savepoints=list(savepoints(found).items()),
        operators=_operators({card.name: (card.kind, card.note) for card in cards}, summed(told)),
        since_ms=min((one.since_ms for one in told), default=0),
        told_first_ms=min((one.at_ms for one in told), default=0),
        told_last_ms=max((one.at_ms for one in told), default=0),
        svg=drawn(name, cards, styled=False) if cards else "",
    )


def _lowest(told: Figures | None, inner: set[str]) -> int | None:
    marks = [one.watermark for name, one in told.operators.items() if name not in inner] if told is not None else []
    return min((mark for mark in marks if mark is not None), default=None)


def _operators(known: dict[str, tuple[str, str]], told: dict[str, Told]) -> list[OperatorRow]:
    """In the order of the picture, parents first; what was told by an older topology comes last."""
    order = {name: at for at, name in enumerate(known)}
    names = sorted(told, key=lambda name: order.get(name, len(order)))
    kinds = [known.get(name, ("", "")) for name in names]
    return [
        OperatorRow(name=name, kind=kind, note=note, told=told[name])
        for name, (kind, note) in zip(names, kinds, strict=True)
    ]
