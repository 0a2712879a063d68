"""A topology as text, in the form that Kafka Streams' TopologyDescription has, and what is drawn of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from headwater.streams import model
from headwater.streams.cards import Card
from headwater.streams.duration import shown
from headwater.streams.model import Node, Repartition, Sink, Source, Spec, Window
from headwater.streams.names import repartition_topic
from headwater.streams.plan import is_stateful


def described(spec: Spec) -> str:
    """Sub-topologies with their sources, operators, stores and sinks, one line a node."""
    lines = [f"Job: {spec.job}"]
    children = children_of(spec.nodes)
    for number, names in enumerate(stages(spec.nodes)):
        lines.append(f"  Sub-topology: {number}")
        for name in names:
            node = spec.nodes[name]
            if isinstance(node, Repartition) and name != names[0] and node.parents[0] in names:
                topic = repartition_topic(spec.job, name)
                lines.append(f"    Repartition: {name} (topic {topic}, by {', '.join(node.by)})")
            elif isinstance(node, Repartition):
                lines.append(f"    Source: {name} (topic {repartition_topic(spec.job, name)})")
            else:
                lines.append(f"    {kind_of(node)}: {name}{_detail(node)}")
            if isinstance(node, Repartition) or not node.parents:
                arrows = [child for child in children[name] if child in names]
            else:
                lines.append(f"      <-- {', '.join(node.parents)}")
                arrows = children[name]
            if arrows:
                lines.append(f"      --> {', '.join(arrows)}")
    if spec.dead_letters:
        lines.append(f"  Dead letters: {spec.dead_letters}")
    return "\n".join(lines)


def cards(nodes: Mapping[str, Node]) -> list[Card]:
    """What is drawn of each node, in their order."""
    stage_of: dict[str, int] = {}
    for number, names in enumerate(stages(nodes)):
        for name in names:
            # A repartition is in both that it joins, and is drawn in the one that it begins.
            if not isinstance(nodes[name], Repartition) or nodes[name].parents[0] not in names:
                stage_of[name] = number
    return [_card(node, stage_of.get(name, 0)) for name, node in nodes.items()]


def _card(node: Node, stage: int) -> Card:
    note = note_of(node)
    if isinstance(node, model.Join) and node.kind == "stream":
        note += f", within {shown(max(node.before, node.after))}"
    is_topic = isinstance(node, Source | Sink | Repartition)
    return Card(
        name=node.name,
        kind=kind_of(node),
        note=note,
        shape="topic" if is_topic else "state" if is_stateful(node) else "node",
        parents=tuple(node.parents),
        stage=stage,
        is_source=isinstance(node, Source),
        columns=tuple((name, str(dtype)) for name, dtype in node.schema.items()),
    )


def stages(nodes: Mapping[str, Node]) -> list[list[str]]:
    """The nodes of each sub-topology: what is connected without a repartition. A repartition is in both that it joins.

    Upstream ones come first, but where rows come back to a stage that they have left.
    """
    home: dict[str, int] = {}
    merged: dict[int, int] = {}

    def root(stage: int) -> int:
        while merged.get(stage, stage) != stage:
            stage = merged[stage]
        return stage

    for number, (name, node) in enumerate(nodes.items()):
        home[name] = number
        if isinstance(node, Repartition):
            continue
        for parent in node.parents:
            merged[max(root(home[parent]), root(number))] = min(root(home[parent]), root(number))
    found: dict[int, list[str]] = {}
    for name, node in nodes.items():
        if isinstance(node, Repartition):
            found.setdefault(root(home[node.parents[0]]), []).append(name)
        found.setdefault(root(home[name]), []).append(name)
    above: dict[int, set[int]] = {stage: set() for stage in found}
    for name, node in nodes.items():
        if isinstance(node, Repartition):
            above[root(home[name])].add(root(home[node.parents[0]]))
    return [list(dict.fromkeys(found[stage])) for stage in _upstream_first(above)]


def _upstream_first(above: Mapping[int, set[int]]) -> list[int]:
    """Stages behind those that they read; of those that are free, and of those in a circle, the oldest first."""
    ordered: list[int] = []
    waiting = sorted(above)
    while waiting:
        free = (stage for stage in waiting if above[stage] <= {*ordered, stage})
        ordered.append(next(free, waiting[0]))
        waiting.remove(ordered[-1])
    return ordered


def children_of(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """Who reads each node."""
    children: dict[str, list[str]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        for parent in node.parents:
            children[parent].append(name)
    return children


def kind_of(node: Node) -> str:
    """What a node is called."""
    if isinstance(node, Source):
        return {"stream": "Source", "table": "Table", "global": "Global table"}[node.kind]
    if isinstance(node, model.Join):
        return {"stream": "Join", "table": "Table join", "tables": "Join of tables", "global": "Global join"}.get(
            node.kind, "As-of join"
        )
    if isinstance(node, model.Select):
        return "With columns" if node.keep else "Select"
    if isinstance(node, model.Apply):
        return {"map": "Map", "flat_map": "Flat map", "batch": "Map batches"}[node.mode]
    return {"Changelog": "To stream", "Materialize": "To table"}.get(type(node).__name__, type(node).__name__)


def note_of(node: Node) -> str:
    """What is worth knowing of a node, in a few words."""
    match node:
        case Source() | Sink():
            return f"topic {node.topic}, {node.format}"
        case model.Aggregate():
            made = f"by {', '.join(node.by)}: {', '.join(name for name, _ in node.aggs)}"
            return made + (f", {window_of(node.window)}" if node.window else "")
        case model.Reduce() | model.Materialize():
            return f"by {', '.join(node.by)}"
        case model.Join():
            on = ", ".join(
                left if left == right else f"{left} = {right}"
                for left, right in zip(node.left_on, node.right_on, strict=True)
            )
            return f"{node.how}, on {on}"
        case model.Filter():
            return plain(node.expr)
        case model.Select():
            return ", ".join(node.schema)
        case model.Repartition():
            return f"by {', '.join(node.by)}"
        case model.Branch():
            return node.output
        case _:
            return ""


def plain(expr: pl.Expr) -> str:
    """An expression as a reader would write it: Polars' own text without the marks of its parser."""
    text = str(expr)
    marks = (r'col\("([^"]*)"\)', r"\1"), (r"dyn \w+: ", ""), (r"\(([^()\s]*)\)", r"\1")
    for pattern, instead in (*marks, *[(r"(?<!\w)\(\[([^\[\]]*)\]\)", r"(\1)")] * 3):
        text = re.sub(pattern, instead, text)
    # Brackets that hold the whole are none of a list, and say nothing.
    inner = text[1:-1]
    return inner if text.startswith("[") and text.endswith("]") and "[" not in inner and "]" not in inner else text


def window_of(window: Window) -> str:
    """A window in words."""
    what = {
        "tumbling": f"tumbling {shown(window.size)}",
        "hopping": f"hopping {shown(window.size)} every {shown(window.advance)}",
        "sliding": f"sliding {shown(window.size)}",
        "session": f"sessions with a gap of {shown(window.gap)}",
    }[window.kind]
    return what + (f", grace {shown(window.grace)}" if window.grace else "")


def _detail(node: Node) -> str:
    parts = [note_of(node)] if note_of(node) else []
    if is_stateful(node):
        parts.append(f"store {getattr(node, 'store', '') or node.name}")
    return f" ({'; '.join(parts)})" if parts else ""
