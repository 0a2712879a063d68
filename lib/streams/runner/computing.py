"""One micro-batch as CPU work: chunks become inputs, inputs a step, and the step batches. No store, no event loop.

It may run in a thread, one call at a time for each task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from headwater import tracing
from headwater.errors import HeadwaterError
from headwater.limits import TRACE_LINKS_MAX
from headwater.log import batch
from headwater.log.state import Schema
from headwater.streams.failures import OperatorFailed
from headwater.streams.frames import ENDED
from headwater.streams.model import Join, Process, Source
from headwater.streams.operator import Delta
from headwater.streams.runner import changelog, committing
from headwater.streams.runner.changelog import Line
from headwater.streams.runner.job import Job
from headwater.streams.runner.reading import Taken
from headwater.streams.serde.dead import dead_records, unreadable
from headwater.streams.serde.decode import Decoded, decode
from headwater.streams.serde.packing import unpack
from headwater.streams.task import Input, Mark, Task
from headwater.types import Batch


@dataclass(slots=True, kw_only=True)
class Computed:
    """What one micro-batch came to. ``is_news`` says that there is something to commit: ``batches``, by topic and
    partition, with those of the changelog at the end, and ``offsets``, the next ones to read.
    """

    batches: list[tuple[str, int, Batch]]
    offsets: dict[tuple[str, int], int]
    is_news: bool
    records: int
    nbytes: int
    rows_out: int
    changelog_bytes: int
    due_ms: int
    links: Sequence[Any] = ()  # to the spans that records came from


@dataclass(slots=True)
class Computer:
    """The pure part of a running task: the machine and what it has told others."""

    job: Job
    number: int
    task: Task
    schemas: Mapping[str, Sequence[Schema]]
    told: dict[str, Mark] = field(default_factory=dict)
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)  # wall time at which each source last brought something
    idle: set[str] = field(default_factory=set)
    absent: list[Input] = field(default_factory=list)
    writes_topology: bool = False
    carries: tuple[tuple[str, bytes], ...] = ()  # the context of this step, for headers of what it appends
    anchors: bool = False  # nothing was committed yet: where the job begins and when is to be remembered

    @property
    def unlogged(self) -> set[str]:
        """Operators that every task fills anew in each life, from global tables: their state is in no changelog."""
        joins = {
            name
            for name, node in self.job.nodes.items()
            # Of a table's join with a global table, what its rows met is its own state.
            if isinstance(node, Join) and node.kind == "global" and not node.is_table
        }
        return joins | {name for names in self.job.tables.values() for name in names}

    def pieces(self) -> Iterator[Line]:
        """The whole state, as pieces of a snapshot."""
        unlogged = self.unlogged
        whole = ((name, delta) for name, delta in self.task.snapshot() if name not in unlogged)
        return changelog.lines_of(whole, piece=True)

    def resume(self, progress: Mapping[str, Any] | None) -> None:
        """Go on where ``progress`` was written. Sources of which this task has no partition hold nothing back."""
        self.absent = [
            Input(source=name, watermark=ENDED, idle=True)
            for topic, names in self.job.sources.items()
            if self.number >= self.job.count(topic)
            for name in names
        ]
        said = (progress or {}).get("run", {})
        self.told = {name: Mark(*mark) for name, mark in said.get("told", {}).items()}
        self.seen = dict(said.get("seen", {}))
        self.idle = set(said.get("idle", ()))

    def compute(self, taken: Sequence[Taken], idle: Sequence[str], now_ms: int) -> Computed:
        """The next step. ``idle`` are sources that are silent now.

        Raises:
            OperatorFailed: nothing may be built on this task any more.
        """
        inputs, self.absent = self.absent, []
        dead: list[pa.RecordBatch] = []
        links: list[Any] = []
        records = nbytes = 0
        for part in taken:
            nbytes += part.nbytes
            for chunk in part.chunks:
                placed = batch.slice_from(chunk.decode(), part.start)
                records += placed.num_rows
                if len(links) < TRACE_LINKS_MAX and tracing.is_on():
                    links += tracing.links_of_column(placed.column("headers"))
                if placed.num_rows:
                    self._decode(part, placed, inputs, dead)
        inputs += [Input(source=name, idle=True) for name in idle]
        step = self.task.step(inputs, now_ms)
        for name in idle:
            self.idle.add(name)
        for part in taken:
            for name in self.job.sources.get(part.topic, ()):
                self.seen[name] = now_ms
                self.idle.discard(name)
        output = committing.encode_step(
            self.job, self.number, step, self.told, dead, time_ms=now_ms, carries=self.carries
        )
        offsets = {(part.topic, part.partition): part.next for part in taken if part.topic not in self.job.tables}
        self.offsets |= offsets
        unlogged = self.unlogged if self.job.tables else ()
        deltas = [(name, delta) for name, delta in step.deltas if name not in unlogged]
        is_news = bool(offsets or idle or output.batches or deltas or self.anchors)
        self.anchors = False
        lines = self._lines(deltas) if is_news else []
        written = changelog.batches_of(lines, now_ms)
        return Computed(
            batches=[*output.batches, *((self.job.changelog, self.number, made) for made in written)],
            offsets=dict(self.offsets),
            is_news=is_news,
            records=records,
            nbytes=nbytes,
            rows_out=output.rows,
            changelog_bytes=changelog.size_of(lines),
            due_ms=self.due_ms(),
            links=links[:TRACE_LINKS_MAX],
        )

    def progress(self) -> dict[str, Any]:
        """How far the task has come: offsets as well, so that state and place are known even without the group."""
        run = {
            "told": {name: [mark.watermark, mark.idle] for name, mark in self.told.items()},
            "seen": self.seen,
            "idle": sorted(self.idle),
            "offsets": [[topic, partition, offset] for (topic, partition), offset in self.offsets.items()],
        }
        return {**self.task.progress(), "run": run}

    def due_ms(self) -> int:
        """The wall time at which something happens even if nothing more is read: a source falls silent.

        0 if that may be at any time, since a processor has timers; -1 if never.
        """
        nodes = self.job.nodes
        if any(isinstance(node, Process) for node in nodes.values()):
            return 0
        due = [
            seen + node.idle
            for name, seen in self.seen.items()
            if name not in self.idle and isinstance(node := nodes.get(name), Source) and node.idle >= 0
            if node.kind == "stream"
        ]
        return min(due, default=-1)

    # -- the parts -------------------------------------------------------------------------------------

    def _lines(self, deltas: Sequence[tuple[str, Delta]]) -> list[Line]:
        lines = [changelog.topology_line(self.job.plan.document())] if self.writes_topology else []
        self.writes_topology = False
        lines += changelog.lines_of(deltas)
        return [*lines, changelog.progress_line(self.progress())]

    def _decode(self, part: Taken, placed: pa.RecordBatch, inputs: list[Input], dead: list[pa.RecordBatch]) -> None:
        node = self.job.repartitions.get(part.topic)
        if node is not None:
            inputs += repartitioned(node, placed)
            return
        is_global = part.topic in self.job.tables
        for name in self.job.tables[part.topic] if is_global else self.job.sources[part.topic]:
            source = self.job.nodes[name]
            assert isinstance(source, Source), name
            try:
                decoded = decode(source, self.schemas.get(part.topic, ()), placed)
            except HeadwaterError:
                raise
            except Exception as error:
                offsets: Any = placed.column("offset")
                raise OperatorFailed(
                    f"Source {name!r} of job {self.job.name!r} cannot read topic {part.topic!r}, partition "
                    f"{part.partition}, offsets [{offsets[0].as_py()}, {offsets[-1].as_py()}]: {error}",
                    operator=name,
                    topic=part.topic,
                    partition=part.partition,
                    offset=offsets[0].as_py(),
                ) from error
            if decoded.dead:
                dead += self._refused(source, part, decoded)
            if decoded.frame.height:
                inputs.append(Input(source=name, frame=decoded.frame, channel=part.partition if is_global else 0))

    def _refused(self, source: Source, part: Taken, decoded: Decoded) -> list[pa.RecordBatch]:
        """Records that cannot be read: dead letters, or the end of this task."""
        if self.job.dead_letters:
            return [dead_records(self.job.name, source, part.partition, decoded.dead)]
        raise unreadable(self.job.name, source, part.partition, decoded.dead[0])


def repartitioned(node: str, placed: pa.RecordBatch) -> list[Input]:
    """Records of a repartition topic: one input for each upstream task that is heard of, in the order of hearing."""
    frames: dict[int, list[pl.DataFrame]] = {}
    marks: dict[int, tuple[int | None, bool]] = {}
    keys: Any = placed.column("key")
    values: Any = placed.column("value")
    for row in range(placed.num_rows):
        said = msgspec.json.decode(keys[row].as_py())
        task = said["task"]
        known = marks.get(task, (None, False))[0]
        marks[task] = (said["wm"] if said["wm"] is not None else known, said["idle"])
        mine = frames.setdefault(task, [])
        if values[row].is_valid:
            mine.append(unpack(values[row].as_buffer()))
    return [
        Input(
            source=node,
            frame=pl.concat(mine, how="vertical") if mine else None,
            channel=task,
            watermark=marks[task][0],
            idle=marks[task][1],
        )
        for task, mine in frames.items()
    ]
