"""What a job has in a namespace, found by its name alone: needs neither its code nor Polars. Pure.

All that is said about a job stands in configs of its changelog topic: whose it is, whether it is paused, the names of
savepoints, its picture, and what each task last told of itself (``account``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.errors import NotFound
from headwater.log.state import State, Topic
from headwater.streams.names import changelog_topic
from headwater.streams.runner.account import Figures, figures_key, figures_of

JOB: Final = "streams.job"  # a config of every internal topic: whose it is
PAUSED: Final = "streams.paused"  # a config of the changelog: "true" makes every worker of the job hold still
SAVEPOINT: Final = "streams.savepoint."  # a config of the changelog: a name for a commit
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a job has in a namespace, found by its name: its changelog, and what its group has committed."""

    job: str
    changelog: Topic
    offsets: Mapping[Place, int]
    repartitions: Sequence[str]

    @property
    def tasks(self) -> int:
        """How many tasks the job has."""
        return len(self.changelog.partitions)

    @property
    def sources(self) -> list[str]:
        """The topics that it reads, but for its own and global tables."""
        return sorted({topic for topic, _ in self.offsets} - {self.changelog.name, *self.repartitions})


def remains(state: State, job: str) -> Remains:
    """What there is of a job. Raises ``NotFound`` if nothing is."""
    found = state.named(changelog_topic(job))
    if found is None:
        raise NotFound(f"There is no job {job!r} here: it has no topic {changelog_topic(job)}.", job=job)
    group = state.groups.get(job)
    offsets = {
        (state.topics[topic].name, partition): committed.offset
        for topic, places in (group.offsets if group is not None else {}).items()
        if topic in state.topics
        for partition, committed in places.items()
    }
    own = {topic.name for topic in state.topics.values() if topic.config.get(JOB) == job}
    return Remains(job=job, changelog=found, offsets=offsets, repartitions=sorted(own - {found.name}))


def savepoints(found: Remains) -> dict[str, int]:
    """The commits that have a name."""
    configs = found.changelog.config
    return {name.removeprefix(SAVEPOINT): int(at) for name, at in sorted(configs.items()) if name.startswith(SAVEPOINT)}


def figures(found: Remains) -> list[Figures]:
    """What its tasks have told last, by task; those that have told nothing are left out."""
    told = (figures_of(found.changelog.config.get(figures_key(task), "")) for task in range(found.tasks))
    return [one for one in told if one is not None]
