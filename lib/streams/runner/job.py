"""A job in a namespace: its plan, the topics it needs with their ids, and the checks before anything is read.

Internal topics are made by whoever comes first; that somebody else was faster is no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.errors import AlreadyExists, Conflict, NotFound
from headwater.log.namespace import Namespace
from headwater.log.state import State, Topic
from headwater.streams.failures import IncompatibleTopology
from headwater.streams.model import Node, Sink, Source, Spec
from headwater.streams.runner.account import PICTURE, picture
from headwater.streams.runner.remains import JOB, PAUSED

if TYPE_CHECKING:
    from headwater.streams.plan import Plan
    from headwater.streams.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker must know: nodes by topic, and topics by name, with ids that no namesake has.

    ``sources`` and ``repartitions`` are read by task *p* in partition *p* and have their offsets in the group;
    ``tables`` are read whole by each task, from the start.
    """

    name: str
    plan: Plan
    nodes: Mapping[str, Node]
    tasks: int
    sources: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[str, ...]]
    repartitions: Mapping[str, str]
    sinks: Mapping[str, str]  # node → topic
    changelog: str
    dead_letters: str
    topics: Mapping[str, Topic] = field(repr=False)

    @property
    def subscribed(self) -> list[str]:
        """The topics whose partitions are dealt out as tasks."""
        return sorted({*self.sources, *self.repartitions, self.changelog})

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self.topics[topic].partitions)

    def places(self, number: int) -> list[tuple[str, int]]:
        """The partitions that a task owns."""
        return [(topic, number) for topic in self.subscribed if number < self.count(topic)]

    def check(self, state: State) -> None:
        """Raise if a topic was deleted, made anew or grown since the job began."""
        for name, known in self.topics.items():
            found = state.topics.get(known.id)
            if found is None:
                raise NotFound(f"Topic {name!r} of job {self.name!r} was deleted while the job ran.", topic=name)
            counts = len(found.partitions), len(known.partitions)
            if counts[0] != counts[1] and name in self.subscribed:
                raise Conflict(
                    f"Topic {name!r} has {counts[0]} partitions now and had {counts[1]} when job {self.name!r} began: "
                    "its keys lie elsewhere, so its state would be wrong. Stop the job and give it a new name, or "
                    "reset it with `headwater streams reset`, which also lets its internal topics be made anew.",
                    topic=name,
                )


async def prepare(namespace: Namespace, topology: Topology | Spec) -> Job:
    """Check the topology against the namespace, and make the internal topics that do not exist.

    Raises:
        NotFound: a topic that it reads or writes does not exist. Create it.
        InvalidRequest: topics that are joined have different numbers of partitions.
        IncompatibleTopology: the job was run with another number of partitions.

    Cost: 1 GET; 1 commit for each internal topic that is made, and 1 if the topology looks otherwise than before.
    """
    from headwater.streams.describe import cards
    from headwater.streams.plan import make_plan

    spec: Spec = topology if isinstance(topology, Spec) else topology.build()
    state = await namespace.refresh()
    wanted = _external(spec)
    counts = {}
    for name, nodes in wanted.items():
        found = state.named(name)
        if found is None:
            raise NotFound(
                f"Topic {name!r} does not exist; job {spec.job!r} needs it for {', '.join(map(repr, nodes))}. "
                f"Create it with `headwater topic create {name}`.",
                topic=name,
            )
        counts[name] = len(found.partitions)
    plan = make_plan(spec, counts)
    job = _job(spec, plan)
    for name, made in plan.internal.items():
        await _make(namespace, job.name, name, made.partitions, made.config)
    await _tell(namespace, plan.changelog, picture(cards(plan.nodes)))
    names = {*wanted, *plan.internal}
    return _with_topics(job, {name: await namespace.find_topic(name) for name in names})


async def _make(namespace: Namespace, job: str, name: str, partitions: int, config: Mapping[str, str]) -> None:
    found = namespace.state.named(name)
    if found is None:
        try:
            await namespace.create_topic(name, partitions, {**config, JOB: job})
        except AlreadyExists:
            await namespace.refresh()
        found = namespace.topic(name)
    if len(found.partitions) != partitions:
        raise IncompatibleTopology(
            f"Job {job!r} was run with {len(found.partitions)} tasks (topic {name!r} has as many partitions) and its "
            f"sources make it {partitions} now: keys lie elsewhere, so its state would be wrong.",
            topic=name,
        )


async def _tell(namespace: Namespace, changelog: str, told: str) -> None:
    """Leave the topology's picture for whoever looks at the job, if it is another one than before."""
    if namespace.topic(changelog).config.get(PICTURE, "") != told:
        await namespace.alter_topic(changelog, {PICTURE: told or None})


def _external(spec: Spec) -> dict[str, list[str]]:
    """The topics of users, with the nodes that need them."""
    wanted: dict[str, list[str]] = {}
    for node in spec.nodes.values():
        if isinstance(node, Source | Sink):
            wanted.setdefault(node.topic, []).append(node.name)
    if spec.dead_letters:
        wanted.setdefault(spec.dead_letters, []).append("dead letters")
    return wanted


def _job(spec: Spec, plan: Plan) -> Job:
    nodes: Mapping[str, Node] = plan.nodes
    sources: dict[str, list[str]] = {}
    tables: dict[str, list[str]] = {}
    for node in nodes.values():
        if isinstance(node, Source):
            (tables if node.kind == "global" else sources).setdefault(node.topic, []).append(node.name)
    return Job(
        name=spec.job,
        plan=plan,
        nodes=nodes,
        tasks=plan.partitions,
        sources={topic: tuple(names) for topic, names in sources.items()},
        tables={topic: tuple(names) for topic, names in tables.items()},
        repartitions={topic: node for node, topic in plan.repartitions.items()},
        sinks={node.name: node.topic for node in nodes.values() if isinstance(node, Sink)},
        changelog=plan.changelog,
        dead_letters=spec.dead_letters,
        topics={},
    )


def _with_topics(job: Job, topics: Mapping[str, Topic]) -> Job:
    import dataclasses

    return dataclasses.replace(job, topics={name: _frozen(topic) for name, topic in topics.items()})


def _frozen(topic: Topic) -> Topic:
    """A copy of what must not change under us: the fold changes topics in place."""
    return Topic(id=topic.id, name=topic.name, created_ms=topic.created_ms, partitions=list(topic.partitions))


def is_paused(state: State, changelog: str) -> bool:
    """Whether somebody has paused the job."""
    found = state.named(changelog)
    return found is not None and found.config.get(PAUSED) == "true"


def committed(state: State, job: str, topic: str, partition: int) -> Any:
    """What the group has committed of a partition, or None."""
    group, found = state.groups.get(job), state.named(topic)
    if group is None or found is None:
        return None
    return group.offsets.get(found.id, {}).get(partition)
