"""A task: one partition's share of a topology, as a pure machine. Frames in; frames, deltas and watermarks out.

    step ─► sources: stamp each row with its watermark ─► operators, depth first ─► sinks, repartitions
         └► time: every operator hears its watermark, parents before children

The same machine runs in the test driver, in the simulation and in every runner. It knows neither offsets nor commits:
a runner feeds it what it has read and commits what comes out, all of it by one intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from headwater.errors import HeadwaterError
from headwater.streams.channels import Feed, lowest
from headwater.streams.failures import OperatorFailed
from headwater.streams.frames import ERROR, FAILED, LATE, MAIN, NEVER, OFFSET, SYSTEM, WM
from headwater.streams.model import Branch, Explode, Filter, Merge, Node, Repartition, Select, Sink, Source, Split
from headwater.streams.operator import MAKERS, Context, Delta, Operator, Size
from headwater.streams.ops import load

_TIMELESS = (Filter, Select, Explode, Split, Branch, Merge, Sink)  # nodes that look at each row by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a runner has read of one source: rows, a watermark, or the news that there is nothing.

    ``source`` is a ``Source`` or a ``Repartition`` node. ``channel`` is 0 for a topic and the upstream task for a
    repartition, whose frames bring their ``_wm`` and whose ``watermark`` holds after them.
    """

    source: str
    frame: pl.DataFrame | None = None
    channel: int = 0
    watermark: int | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """How far event time has come where a repartition begins; every partition of it is to hear this."""

    watermark: int
    idle: bool


@dataclass(slots=True)
class Step:
    """What one micro-batch did: ``sinks`` and ``repartitions`` by node, ``deltas`` in order with their node's name.

    ``failed`` are rows on which a user's function raised, by node, with the column ``_error``.
    """

    sinks: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    repartitions: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    deltas: list[tuple[str, Delta]] = field(default_factory=list)
    failed: list[tuple[str, pl.DataFrame]] = field(default_factory=list)


@dataclass(slots=True)
class Flow:
    """Counts of one node since the task began: rows in and out, and its watermark (ms)."""

    rows_in: int = 0
    rows_out: int = 0
    rows_late: int = 0
    watermark: int = NEVER


class Task:
    """Task ``number`` of a job, over the nodes of its plan, parents first.

    Args:
        nodes: the plan's nodes by name; a ``Repartition`` among them ends one stage and begins the next.
        number: the partition that this task owns of every topic.
        tasks: how many tasks the job has: what a repartition hears from.
        spill: a folder for state that outgrows ``memory_max`` bytes an operator; without one it stays in memory.
        dead_letters: whether rows that a function refuses go to ``Step.failed``; else the first one is an error.

    Raises ``OperatorFailed`` from ``step``; the task is of no use then: make it anew from its changelog.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        number: int = 0,
        *,
        tasks: int = 1,
        spill: str = "",
        memory_max: int = 0,
        dead_letters: bool = False,
    ) -> None:
        load()
        self.nodes = nodes
        self.number = number
        self.flows = {name: Flow() for name in nodes}
        self.operators: dict[str, Operator] = {}
        self.feeds: dict[str, Feed] = {}
        self._dead_letters = dead_letters
        self._children = _children(nodes)
        self._below = {name: _below(name, nodes, self._children) for name in nodes}
        holding = _holding(nodes)
        for name, node in nodes.items():
            if isinstance(node, Source):
                self.feeds[name] = Feed(out_of_order=node.out_of_order, holds=name in holding)
            elif isinstance(node, Repartition):
                self.feeds[name] = Feed(expected=tasks, holds=name in holding)
            if _operates(node):
                context = Context(
                    task=number,
                    inputs=[nodes[parent].schema for parent in node.parents],
                    tables=[nodes[parent].is_table for parent in node.parents],
                    spill=f"{spill}/{name}" if spill else "",
                    memory_max=getattr(node, "memory_max", 0) or memory_max,
                    dead_letters=dead_letters,
                    read=_read(nodes[child] for child, _ in self._children[name]),
                )
                self.operators[name] = MAKERS[type(node)](node, context)
        self._timely = {name for name in nodes if self._asks_for_time(name)}

    # -- one micro-batch -----------------------------------------------------------------------------

    def step(self, inputs: Sequence[Input], now_ms: int = 0, *, commits: bool = True) -> Step:
        """Take what was read and let time pass; tables before streams, else in the given order.

        With no input only time passes. A step that ``commits`` nothing leaves its deltas to one that does.
        ``now_ms`` is wall time, which nothing but wall-clock timers sees.
        """
        step = Step()
        for given in sorted(inputs, key=lambda each: self.feeds[each.source].holds):
            self._take(given, step)
        self._pass_time(step, now_ms)
        for name, operator in self.operators.items() if commits else ():
            for delta in operator.deltas():
                step.deltas.append((name, delta))
        return step

    def _asks_for_time(self, name: str) -> bool:
        """Whether a node, or any of its stage below it, cares what is late; so does whatever another stage does."""
        reached = [name, *self._below[name]]
        fed = {child for each in reached for child, _ in self._children[each]} | {name} & self.operators.keys()
        return not all(isinstance(self.nodes[each], _TIMELESS) for each in fed)

    def _take(self, given: Input, step: Step) -> None:
        feed, name = self.feeds[given.source], given.source
        has_rows = given.frame is not None and given.frame.height > 0
        if given.frame is not None and has_rows:
            floor = max((self.flows[below].watermark for below in self._below[name]), default=NEVER)
            if isinstance(self.nodes[name], Source):
                frame = feed.stamp(given.channel, given.frame, floor, exact=name in self._timely)
            else:
                frame = given.frame.with_columns(pl.col(WM).clip(lower_bound=floor))
            self.flows[name].rows_in += frame.height
            if name in self.operators:
                self._run(name, 0, frame, step)
            else:
                self._emit(name, MAIN, frame, step)
        if has_rows or given.watermark is not None or given.idle:
            feed.hear(given.channel, given.watermark, given.idle)

    def _run(self, name: str, port: int, frame: pl.DataFrame, step: Step) -> None:
        """One frame through one operator, and what it gives through those below."""
        with self._blamed(name):
            for output, made in self.operators[name].process(port, frame):
                self._emit(name, output, made, step)

    def _emit(self, name: str, output: str, frame: pl.DataFrame, step: Step) -> None:
        if not frame.height:
            return
        flow = self.flows[name]
        if output == FAILED:
            self._refuse(name, frame, step)
            return
        if output == MAIN:
            flow.rows_out += frame.height
        elif output == LATE:
            flow.rows_late += frame.height
        for child, port in self._children[name]:
            node = self.nodes[child]
            if isinstance(node, Branch):
                if node.output == output:
                    self.flows[child].rows_in += frame.height
                    self._emit(child, MAIN, frame, step)
            elif output == MAIN:
                self.flows[child].rows_in += frame.height
                if isinstance(node, Sink):
                    step.sinks.setdefault(child, []).append(frame)
                elif isinstance(node, Repartition):
                    step.repartitions.setdefault(child, []).append(frame)
                else:
                    self._run(child, port, frame, step)

    def _refuse(self, name: str, frame: pl.DataFrame, step: Step) -> None:
        if not self._dead_letters:
            row = frame.row(0, named=True)
            offset = row.get(OFFSET)
            at = "" if offset is None else f", offset {offset}"
            raise OperatorFailed(
                f"Operator {name!r} of task {self.number} failed on a row{at}: {row[ERROR]}.",
                operator=name,
                partition=self.number,
                offset=offset,
            )
        step.failed.append((name, frame))

    def _pass_time(self, step: Step, now_ms: int) -> None:
        """Every node hears how far event time has come; what windows give flows on before their children hear."""
        reached: dict[str, tuple[int, bool, bool]] = {}
        for name, node in self.nodes.items():
            above = lowest(reached[parent] for parent in node.parents)
            if isinstance(node, Repartition):
                step.marks[name] = Mark(above[0], above[2])
            if name in self.feeds:
                feed = self.feeds[name]
                above = feed.advance(), feed.holds, feed.is_idle or not feed.holds
            flow = self.flows[name]
            flow.watermark = max(flow.watermark, above[0])
            behind = self.operators[name].behind if name in self.operators else 0
            reached[name] = flow.watermark - behind, *above[1:]
            if name in self.operators:
                with self._blamed(name):
                    for output, made in self.operators[name].advance(flow.watermark, now_ms):
                        self._emit(name, output, made, step)

    @contextmanager
    def _blamed(self, name: str) -> Iterator[None]:
        """Whatever an operator raises becomes its failure; what one below it raised is that one's already."""
        try:
            yield
        except HeadwaterError:
            raise
        except Exception as error:
            raise OperatorFailed(
                f"Operator {name!r} of task {self.number} failed: {type(error).__name__}: {error}",
                operator=name,
                partition=self.number,
            ) from error

    # -- state ---------------------------------------------------------------------------------------

    def snapshot(self) -> Iterator[tuple[str, Delta]]:
        """The whole state of all operators, in pieces, with their node's names."""
        for name, operator in self.operators.items():
            for delta in operator.snapshot():
                yield name, delta

    def restore(self, name: str, delta: Delta) -> None:
        """Take back a delta, or a piece of a snapshot. State of a node that there is no more is dropped."""
        operator = self.operators.get(name)
        if operator is not None:
            operator.restore(delta)

    def restored(self, progress: Mapping[str, Any] | None) -> None:
        """All deltas are back; ``progress`` is what the last of them came with."""
        for operator in self.operators.values():
            operator.restored()
        if progress:
            for name, document in progress["feeds"].items():
                if name in self.feeds:
                    self.feeds[name].resume(document)
            for name, watermark in progress["watermarks"].items():
                if name in self.flows:
                    self.flows[name].watermark = watermark

    def progress(self) -> dict[str, Any]:
        """How far event time has come, as plain data: goes with every commit, next to the deltas."""
        return {
            "feeds": {name: feed.document() for name, feed in self.feeds.items()},
            "watermarks": {name: self.flows[name].watermark for name in self.operators},
        }

    def sizes(self) -> dict[str, Size]:
        """What the state of each operator takes, without those that have none."""
        sizes = {name: operator.size() for name, operator in self.operators.items()}
        return {name: size for name, size in sizes.items() if size.rows or size.bytes or size.spilled}

    def close(self) -> None:
        """Let go of files."""
        for operator in self.operators.values():
            operator.close()


def _operates(node: Node) -> bool:
    if isinstance(node, Source):
        return node.kind != "stream"
    return not isinstance(node, Sink | Repartition | Branch)


def _holding(nodes: Mapping[str, Node]) -> set[str]:
    """The nodes that a stream feeds, near or far, so that their time counts; a table only answers."""
    found: set[str] = set()
    for name, node in nodes.items():  # parents first
        is_stream = isinstance(node, Source) and node.kind == "stream"
        if is_stream or not found.isdisjoint(node.parents):
            found.add(name)
    return found


def _children(nodes: Mapping[str, Node]) -> dict[str, list[tuple[str, int]]]:
    children: dict[str, list[tuple[str, int]]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        for port, parent in enumerate(node.parents):
            children[parent].append((name, port))
    return children


def _below(name: str, nodes: Mapping[str, Node], children: Mapping[str, Sequence[tuple[str, int]]]) -> list[str]:
    """The nodes of the same stage that are fed by ``name``."""
    found: dict[str, None] = {}
    open_ = [child for child, _ in children[name]]
    while open_:
        child = open_.pop()
        if child not in found and not isinstance(nodes[child], Repartition):
            found[child] = None
            open_ += [below for below, _ in children[child]]
    return list(found)


def _read(children: Iterable[Node]) -> frozenset[str] | None:
    """The columns that all of these look at; None if one may look at any."""
    read: set[str] = set()
    for node in children:
        if not isinstance(node, Select) or node.keep:
            return None
        read.update(name for expr in node.exprs for name in expr.meta.root_names())
    return frozenset(read)


def without_system(frame: pl.DataFrame) -> pl.DataFrame:
    """The user's columns of a frame."""
    return frame.drop([name for name in SYSTEM if name in frame.columns])
