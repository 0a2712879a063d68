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

from headwater.log import batch
from headwater.log.chunk import Chunk
from headwater.sim.checker import Violation
from headwater.sim.streams_jobs import DEAD, Play
from headwater.streams.run.computing import Computer
from headwater.streams.run.job import Job
from headwater.streams.run.reading import Taken
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
    waiting = dict(inputs)
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
        waiting = dict(made)
        if not waiting:
            break
    for number, computer in computers.items():
        kept.states[number] = state_of(computer.task)
        kept.progress[number] = time_of(computer.task.progress())
    return kept


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


def state_of(task: Task) -> dict[str, list[str]]:
    """What users see of each state, in an order of its own."""
    found = {}
    for name, operator in task.operators.items():
        try:
            rows = operator.query(None)
        except NotImplementedError:
            continue
        found[name] = sorted(map(str, _plain(rows)))
    return found


def _plain(rows: pl.DataFrame) -> list[dict[str, Any]]:
    names = sorted(rows.columns)
    return rows.select(names).to_dicts()


def time_of(progress: Mapping[str, Any]) -> dict[str, Any]:
    """How far event time has come in a task."""
    return {name: progress[name] for name in ("feeds", "watermarks")}


# -- comparing ------------------------------------------------------------------------------------------


def compare(play: Play, found: Kept, wanted: Kept) -> list[Violation]:
    """Every difference that a user could see."""
    violations: list[Violation] = []
    for topic in play.rows:
        violations += _multisets(topic, rows_of(found, topic), rows_of(wanted, topic))
    if play.dead:
        violations += _multisets(DEAD, dead_of(found), dead_of(wanted))
    for topic in play.latest:
        violations += _tables(topic, latest_of(found, topic), latest_of(wanted, topic))
        violations += _growth(topic, play.grows, found)
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


def _multisets(topic: str, found: list[str], wanted: list[str]) -> list[Violation]:
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
