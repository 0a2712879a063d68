"""What an undisturbed run gives, and how what a world has left is held against it.

The reference reads the same input log in one process, each partition at once, with the same pure ``Task`` that every
runner has. It commits nothing and reads no clock, so nothing of a runner can go wrong in it: no batch, no fence, no
restore. What depends on the sizes of micro-batches or on who was first shows as a difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import polars as pl
import pyarrow as pa

from headwater.errors import InvalidRequest
from headwater.log import batch
from headwater.log.chunk import Chunk
from headwater.sim.checker import Violation
from headwater.sim.streams_jobs import DEAD, Play
from headwater.streams.frames import TIME
from headwater.streams.model import Join
from headwater.streams.runner.computing import Computer
from headwater.streams.runner.job import Job
from headwater.streams.runner.reading import Taken
from headwater.streams.task import Task

TP: TypeAlias = "tuple[str, int]"
ROUNDS_MAX = 20  # of records through repartition topics; a topology has fewer stages
SHOWN = 3  # differences that a violation names


@dataclass(slots=True)
class Kept:
    """What a run has left: the records of sinks, and for each task its state and how far time had come."""

    records: dict[TP, list[pa.RecordBatch]] = field(default_factory=lambda: defaultdict(list))
    states: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    progress: dict[int, Any] = field(default_factory=dict)


def reference(job: Job, play: Play, inputs: Mapping[TP, list[Chunk]], time_ms: int) -> Kept:
    """What the job makes of ``inputs`` if nothing ever goes wrong."""
    kept = Kept()
    computers = {
        number: Computer(job, number, Task(job.nodes, number, tasks=job.tasks, dead_letters=bool(job.dead_letters)), {})
        for number in range(job.tasks)
    }
    waiting = {place: [whole(place, chunks)] for place, chunks in inputs.items() if chunks}
    ends: dict[TP, int] = defaultdict(int)
    for _ in range(ROUNDS_MAX):
        made: dict[TP, list[Chunk]] = defaultdict(list)
        for number, computer in computers.items():
            taken = [
                Taken(topic, partition, 0, chunks[-1].end, chunks)
                for (topic, partition), chunks in sorted(waiting.items())
                if chunks and (partition == number or topic in job.tables)
            ]
            computed = computer.compute(taken, (), time_ms)
            for topic, partition, one in computed.batches:
                place = (topic, partition)
                chunk = _chunk(place, one, ends[place])
                ends[place] = chunk.end
                (made[place] if topic in job.repartitions else []).append(chunk)
                if topic in play.sinks:
                    kept.records[place].append(chunk.decode())
        waiting = {place: [whole(place, chunks)] for place, chunks in made.items() if chunks}
        if not waiting:
            break
    for number, computer in computers.items():
        kept.states[number] = state_of(computer.task, unlogged(job))
        kept.progress[number] = time_of(job, computer.task.progress())
    return kept


def whole(place: TP, chunks: Iterable[Chunk]) -> Chunk:
    """All of a partition as one chunk."""
    table = pa.Table.from_batches(decoded(chunks)).combine_chunks()
    return Chunk.of_rows(*place, table.to_batches()[0])


def _chunk(place: TP, made: Any, base: int) -> Chunk:
    return Chunk(
        topic=place[0],
        partition=place[1],
        base=base,
        count=made.count,
        codec=made.codec,
        data=bytes(made.data),
        timestamp_min=made.timestamp_min,
        timestamp_max=made.timestamp_max,
    )


def state_of(task: Task, without: Iterable[str] = ()) -> dict[str, list[str]]:
    """What each operator knows, as users see it; else, as of joins of streams, the rows that it would write down.

    ``without``: nodes whose state is in no changelog.
    """
    found = {}
    for name, operator in task.operators.items():
        if name in without:
            continue
        try:
            frames = [("", operator.query(None))]
        except (NotImplementedError, InvalidRequest):
            frames = _waiting(task, name)
        found[name] = sorted(f"{tag} {row}" for tag, frame in frames for row in _plain(frame))
    return found


def _waiting(task: Task, name: str) -> list[tuple[str, pl.DataFrame]]:
    """Rows that a join holds, without those that are over and that it lets go of when it pleases."""
    node, watermark = task.nodes[name], task.flows[name].watermark
    kept = []
    for delta in task.operators[name].snapshot():
        frame = delta.frame
        if isinstance(node, Join) and TIME in frame.columns:
            lasts = node.grace + (node.after if delta.tag.startswith("left") else node.before)
            frame = frame.filter(pl.col(TIME) + lasts >= watermark)
            kept.append((delta.tag, frame.drop("_id", strict=False)))
    return kept


def unlogged(job: Job) -> set[str]:
    """The nodes of tables that every task reads anew: their state is in no changelog."""
    tables = {name for names in job.tables.values() for name in names}
    return tables | {name for name, node in job.nodes.items() if isinstance(node, Join) and node.kind == "global"}


def _plain(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return rows.select(sorted(rows.columns)).to_dicts()


def time_of(job: Job, progress: Mapping[str, Any]) -> dict[str, Any]:
    """How far event time has come in a task; without that of global tables, which each life of a task reads anew.

    A job that has read nothing but them has nothing to commit, so no changelog need know of it.
    """
    tables = {name for names in job.tables.values() for name in names}
    return {
        what: {name: said for name, said in progress[what].items() if name not in tables}
        for what in ("feeds", "watermarks")
    }


# -- comparing ------------------------------------------------------------------------------------------


def compare(play: Play, found: Kept, wanted: Kept, *, repeats: bool = False) -> list[Violation]:
    """Every difference that a user could see.

    ``repeats``: the job was brought back to an earlier state. Its outputs stayed, so that what it wrote may be there
    more than once, and keys that were gone by now; never what it would not have written.
    """
    violations: list[Violation] = []
    for topic in play.rows:
        violations += _multisets(topic, rows_of(found, topic), rows_of(wanted, topic), repeats)
    if play.dead:
        violations += _multisets(DEAD, dead_of(found), dead_of(wanted), repeats)
    for topic in play.latest:
        newest, right = latest_of(found, topic), latest_of(wanted, topic)
        violations += _tables(topic, {at: newest[at] for at in newest if at in right} if repeats else newest, right)
        violations += [] if repeats else _growth(topic, play.grows, found)
    for number, states in wanted.states.items():
        for name, rows in states.items():
            difference = _difference(found.states[number].get(name, ()), rows)
            if difference:
                violations.append(Violation("state", f"task {number}, {name}: {difference}"))
        if found.progress.get(number) != wanted.progress[number]:
            detail = f"task {number}: {found.progress.get(number)} and not {wanted.progress[number]}"
            violations.append(Violation("event time", detail))
    return violations


def rows_of(kept: Kept, topic: str) -> list[str]:
    """The records of a sink of final results, each with its partition."""
    return [
        str((partition, *row))
        for partition, placed in _of(kept, topic)
        for row in zip(*_columns(placed, "key", "value", "timestamp"), strict=True)
    ]


def dead_of(kept: Kept) -> list[str]:
    """The dead letters: what failed and why, without the time at which somebody noticed."""
    return [
        str((key, value, sorted((each["key"], each["value"]) for each in headers or ())))
        for _, placed in _of(kept, DEAD)
        for key, value, headers in zip(*_columns(placed, "key", "value", "headers"), strict=True)
    ]


def latest_of(kept: Kept, topic: str) -> dict[tuple[int, bytes | None], bytes]:
    """The newest value of each key that has one, by partition and key."""
    found: dict[tuple[int, bytes | None], bytes | None] = {}
    for partition, placed in _of(kept, topic):
        for key, value in zip(*_columns(placed, "key", "value"), strict=True):
            found[partition, key] = value
    return {key: value for key, value in found.items() if value is not None}


def _growth(topic: str, name: str, kept: Kept) -> Iterable[Violation]:
    """Counts of what is never taken back that went down: somebody wrote what was over already."""
    before: dict[bytes | None, Any] = {}
    for _, placed in _of(kept, topic) if name else ():
        for key, value in zip(*_columns(placed, "key", "value"), strict=True):
            now = None if value is None else msgspec.json.decode(value)[name]
            if value is None or (key in before and now < before[key]):
                yield Violation("retraction", f"{topic}: {key!r} went from {before.get(key)} to {now}")
            before[key] = now


def _of(kept: Kept, topic: str) -> Iterable[tuple[int, pa.RecordBatch]]:
    for (name, partition), parts in sorted(kept.records.items()):
        if name == topic:
            for placed in parts:
                yield partition, placed


def _columns(placed: pa.RecordBatch, *names: str) -> list[list[Any]]:
    return [placed.column(name).to_pylist() for name in names]


def _multisets(topic: str, found: list[str], wanted: list[str], repeats: bool) -> list[Violation]:
    if repeats:
        have, want = Counter(found), Counter(wanted)
        found = list(Counter({row: min(count, want.get(row, count)) for row, count in have.items()}).elements())
    difference = _difference(found, wanted)
    return [Violation("output", f"{topic}: {difference}")] if difference else []


def _tables(topic: str, found: Mapping[Any, bytes], wanted: Mapping[Any, bytes]) -> list[Violation]:
    difference = _difference(map(str, found.items()), map(str, wanted.items()))
    return [Violation("table", f"{topic}: {difference}")] if difference else []


def _difference(found: Iterable[str], wanted: Iterable[str]) -> str:
    """What is there too often and what is missing, a few of each."""
    have, want = Counter(found), Counter(wanted)
    much, missing = sorted((have - want).elements()), sorted((want - have).elements())
    if not much and not missing:
        return ""
    return f"{len(much)} too many ({'; '.join(much[:SHOWN])}), {len(missing)} missing ({'; '.join(missing[:SHOWN])})"


def decoded(chunks: Iterable[Chunk]) -> list[pa.RecordBatch]:
    """Chunks as Arrow."""
    return [batch.slice_from(chunk.decode(), chunk.base) for chunk in chunks]
