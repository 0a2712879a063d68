"""A plan: a topology for topics of so many partitions. Pure.

Rows that already lie where they must are not sent anywhere: with one partition every repartition is cut out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from headwater.errors import InvalidRequest
from headwater.streams import agg, model
from headwater.streams.model import Node, Repartition, Sink, Source, Spec
from headwater.streams.names import changelog_topic, repartition_topic

INTERNAL = {"archive.enable": "false", "retention.ms": "-1"}  # trimmed by its owner, read by nobody else


@dataclass(frozen=True, slots=True)
class Internal:
    """A topic that the job makes for itself."""

    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a runner needs to know: nodes with parents first, and topics.

    ``partitions`` is the number of tasks. ``repartitions`` gives the topic of each repartition that is left.
    """

    spec: Spec
    partitions: int
    nodes: Mapping[str, Node]
    repartitions: Mapping[str, str]
    changelog: str
    internal: Mapping[str, Internal]

    @property
    def stateful(self) -> tuple[str, ...]:
        """The nodes that keep state."""
        return tuple(name for name, node in self.nodes.items() if is_stateful(node))

    def document(self) -> dict[str, Any]:
        """What a successor's state must fit, and which topics it writes as tables, as plain data.

        It goes with the changelog.
        """
        state = {name: _state(self.nodes[name], self.nodes) for name in self.stateful}
        return {"partitions": self.partitions, "state": state, "tables": self._tables()}

    def _tables(self) -> list[str]:
        """The topics that get changes of tables: the newest record of each key counts there."""
        sinks = [node for node in self.nodes.values() if isinstance(node, Sink)]
        return sorted({node.topic for node in sinks if any(self.nodes[parent].is_table for parent in node.parents)})

    def incompatible(self, old: Mapping[str, Any]) -> list[str]:
        """Why state that an earlier plan has left, by its ``document``, cannot serve this one; empty if it can.

        A node that is new begins empty, and state of one that is gone is dropped.
        """
        reasons = []
        if old["partitions"] != self.partitions:
            reasons.append(f"the job had {old['partitions']} tasks and would have {self.partitions}")
        mine = self.document()["state"]
        for name, before in old["state"].items():
            now = mine.get(name)
            if now is None:
                continue
            reasons += [
                f"{name!r}: {what} was {_shown(before.get(what))} and is {_shown(now.get(what))}"
                for what in sorted({*before, *now})
                if before.get(what) != now.get(what)
            ]
        return reasons


def make_plan(spec: Spec, partitions: Mapping[str, int]) -> Plan:
    """The plan for topics of so many ``partitions``, by name.

    Raises ``InvalidRequest`` for sources that meet in a join or table and are cut differently.
    """
    tasks = max((partitions[node.topic] for node in _sources(spec.nodes)), default=1)
    _check_copartitioned(spec, partitions, tasks)
    nodes = dict(spec.nodes) if tasks > 1 else _cut(spec.nodes)
    cut = [name for name, node in nodes.items() if isinstance(node, Repartition)]
    repartitions = {name: repartition_topic(spec.job, name) for name in cut}
    changelog = changelog_topic(spec.job)
    internal = {topic: Internal(tasks, INTERNAL) for topic in (changelog, *repartitions.values())}
    return Plan(
        spec=spec,
        partitions=tasks,
        nodes=nodes,
        repartitions=repartitions,
        changelog=changelog,
        internal=internal,
    )


def is_stateful(node: Node) -> bool:
    """Whether the node's operator keeps anything from one micro-batch to the next."""
    if isinstance(node, Source):
        return node.kind != "stream"
    return isinstance(node, model.Aggregate | model.Reduce | model.Materialize | model.Process | model.Join)


def _sources(nodes: Mapping[str, Node]) -> list[Source]:
    return [node for node in nodes.values() if isinstance(node, Source) and node.kind != "global"]


def _check_copartitioned(spec: Spec, partitions: Mapping[str, int], tasks: int) -> None:
    """Rows that meet without a repartition between them must lie by one rule: the same keys, and as many partitions."""
    for node in spec.nodes.values():
        if not isinstance(node, model.Join) or node.kind == "global" or tasks == 1:
            continue
        for source in _feeding(node.parents, spec.nodes):
            if partitions[source.topic] != tasks:
                raise InvalidRequest(
                    f"Join {node.name!r} needs topic {source.topic!r} in {tasks} partitions, one for each task; "
                    f"it has {partitions[source.topic]}. Add partitions before there is data, or call repartition(…).",
                    operator=node.name,
                    topic=source.topic,
                )


def _feeding(parents: tuple[str, ...], nodes: Mapping[str, Node]) -> list[Source]:
    """The sources whose partitions reach a node as they are."""
    reached, open_ = dict.fromkeys(parents), list(parents)
    while open_:
        node = nodes[open_.pop()]
        if not isinstance(node, Repartition):
            open_ += [parent for parent in node.parents if parent not in reached]
            reached |= dict.fromkeys(node.parents)
    return _sources({name: nodes[name] for name in reached})


def _cut(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes without repartitions."""
    instead: dict[str, str] = {}
    kept: dict[str, Node] = {}
    for name, node in nodes.items():
        parents = tuple(instead.get(parent, parent) for parent in node.parents)
        if isinstance(node, Repartition):
            instead[name] = parents[0]
        else:
            kept[name] = node if parents == node.parents else dataclasses.replace(node, parents=parents)
    return kept


def _state(node: Node, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """What the state of a node depends on."""
    found: dict[str, Any] = {"kind": type(node).__name__, "schema": _types(node.schema)}
    for name in ("by", "keys", "emit", "how", "left_on", "right_on"):
        if hasattr(node, name):
            value = getattr(node, name)
            found[name] = list(value) if isinstance(value, tuple) else value
    if isinstance(node, model.Aggregate | model.Reduce) and node.window is not None:
        found["window"] = {name: value for name, value in dataclasses.asdict(node.window).items() if name != "grace"}
    if isinstance(node, model.Aggregate):
        inputs = dict(nodes[node.parents[0]].schema)
        found["aggregates"] = {name: agg.described(each, name, inputs) for name, each in node.aggs}
    if isinstance(node, model.Join):
        found["kind"] = f"Join {node.kind}"
        found["inputs"] = [_types(nodes[parent].schema) for parent in node.parents]
    return found


def _types(schema: model.Schema) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in schema.items()}


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()
