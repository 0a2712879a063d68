"""Runs a topology without a store, a group or a clock: for tests (Kafka Streams' ``TopologyTestDriver``, KIP-247).

    driver = TestDriver(topology)
    driver.pipe("flights", [{"origin": "JFK", "delay": 12.0, "ts": 0}])
    driver.end()
    assert [{"origin": "JFK", "n": 1}] == driver.read("delays-per-hour")

Records go through the formats of their topics, through repartitions and the same tasks as in every runner, with as many
partitions as the test wants; so what it says is what a job will say. Nothing runs but inside a call.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import pyarrow as pa

from headwater.errors import InvalidRequest, NotFound
from headwater.log import partitioner
from headwater.streams.duration import Duration, millis
from headwater.streams.frames import ENDED, NEVER
from headwater.streams.model import Sink, Source, Spec
from headwater.streams.operator import Delta
from headwater.streams.plan import make_plan
from headwater.streams.serde.dead import dead_records, dead_rows, unreadable
from headwater.streams.serde.decode import decode
from headwater.streams.serde.encode import encode_by_partition
from headwater.streams.serde.keys import key_array, key_frame
from headwater.streams.serde.packing import pack, unpack
from headwater.streams.serde.records import parted, placed_at, records_of
from headwater.streams.task import Input, Mark, Step, Task, without_system
from headwater.streams.topology import Topology
from headwater.types import Record

Row = dict[str, Any]
_UNHEARD: Final = Mark(NEVER, False)


class TestDriver:
    """All tasks of a topology, in this process.

    Args:
        topology: what is tested.
        partitions: of every topic; also the number of tasks.
        now_ms: wall-clock time at the beginning (ms). It moves by ``advance`` alone.

    Values in Avro are piped as JSON, since what a topic's schema refuses is not the topology's affair.
    """

    __test__ = False  # no test, whatever its name says to pytest

    def __init__(self, topology: Topology | Spec, *, partitions: int = 1, now_ms: int = 0) -> None:
        self.spec = topology.build() if isinstance(topology, Topology) else topology
        sources = [node for node in self.spec.nodes.values() if isinstance(node, Source)]
        self.plan = make_plan(self.spec, {node.topic: partitions for node in sources})
        self.now_ms = now_ms
        self.tasks = [self._task(number) for number in range(self.plan.partitions)]
        self._nodes = {name: _plain(node) for name, node in self.plan.nodes.items()}
        self._partitions = partitions
        self._offsets: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._written: defaultdict[str, list[tuple[int, pa.RecordBatch]]] = defaultdict(list)
        self._taken: defaultdict[str, int] = defaultdict(int)  # batches of a topic that were read
        self._told: dict[tuple[int, str], Mark] = {}
        self._seen: dict[tuple[int, str], int] = {}
        self._deltas: list[list[tuple[str, str, list[bytes]]]] = [[] for _ in self.tasks]

    # -- in --------------------------------------------------------------------------------------------

    def pipe(
        self,
        topic: str,
        rows: pl.DataFrame | Sequence[Row | bytes] | Row | bytes,
        *,
        time: int | datetime | None = None,
        key: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Write records to a source topic, and run until nothing is left to do.

        Args:
            topic: what a source of the topology reads.
            rows: rows of its schema; bytes are values as they are, for what is no row.
            time: the records' timestamp (ms or a datetime); the driver's wall-clock time by default.
            key: the record key; by default it is made of the source's ``key`` columns.
            partition: where they go; by default the key decides, and records without one go to partition 0.

        Raises:
            NotFound: no source reads the topic.
            InvalidRequest: rows that do not have its schema.
            OperatorFailed: as a job would; the driver is of no use any more.
        """
        source = self._source(topic)
        at = self.now_ms if time is None else _millis(time)
        for given in _runs(rows):
            values = _values(source, given)
            keys = _keys(source, given) if key is None else pa.array([key] * len(values), pa.binary())
            self._append(topic, keys, values, at, partition)

    def delete(self, topic: str, *keys: Row, time: int | datetime | None = None) -> None:
        """Write records without a value: of a table they delete the rows with these key columns."""
        source = self._source(topic)
        if not source.key:
            raise InvalidRequest(f"Topic {topic!r} is read as a stream without a key, so nothing can be deleted.")
        schema = {name: source.whole[name] for name in source.key}
        made = key_array(_frame(list(keys), schema, topic), source.key)
        at = self.now_ms if time is None else _millis(time)
        self._append(topic, made, pa.nulls(len(made), pa.binary()), at, None)

    def advance(self, duration: Duration) -> None:
        """Let wall-clock time pass: timers are called, and partitions that were silent for long become idle."""
        self.now_ms += millis(duration, "duration")
        inputs: dict[int, list[Input]] = {}
        for name, node in self.plan.nodes.items():
            for number in range(len(self.tasks)):
                silent = self.now_ms - self._seen.get((number, name), 0)
                if isinstance(node, Source) and node.kind == "stream" and 0 <= node.idle <= silent:
                    inputs.setdefault(number, []).append(Input(source=name, idle=True))
        self._run(inputs or {number: [] for number in range(len(self.tasks))})

    def advance_event_time(self, to: int | datetime) -> None:
        """Let event time come to ``to`` (ms or a datetime) in every partition, as if records had said so."""
        at = _millis(to)
        sources = [name for name, node in self.plan.nodes.items() if isinstance(node, Source)]
        inputs = [Input(source=name, watermark=at) for name in sources]
        self._run(dict.fromkeys(range(len(self.tasks)), inputs))

    def end(self) -> None:
        """Let event time end: every window closes and says its last."""
        self.advance_event_time(ENDED)

    def restart(self, *, snapshot: bool = False) -> None:
        """Make all tasks anew from what they have put into the changelog, or from a snapshot of their state."""
        for number, old in enumerate(self.tasks):
            made = self._task(number)
            if snapshot:
                self._deltas[number] = [(name, each.tag, pack(each.frame)) for name, each in old.snapshot()]
            for name, tag, parts in self._deltas[number]:
                for part in parts:
                    made.restore(name, Delta(tag, unpack(part)))
            made.restored(old.progress())
            old.close()
            self.tasks[number] = made

    def close(self) -> None:
        """Let go of files."""
        for task in self.tasks:
            task.close()

    # -- out -------------------------------------------------------------------------------------------

    def read(self, topic: str) -> list[Row]:
        """The rows that were written to a sink's topic since the last call, in order.

        A deleted row of a table is a dict of its key columns alone.
        """
        sink = self._sink(topic)
        found: list[Row] = []
        for _, batch in self._unread(topic):
            found += _rows(sink, batch)
        return found

    def read_records(self, topic: str) -> list[Record]:
        """The records of a topic since the last call, as they were written; also of the dead-letter topic."""
        found: list[Record] = []
        for _, batch in self._unread(topic):
            for row in batch.to_pylist():
                headers = tuple((each["key"], each["value"]) for each in row["headers"] or ())
                at = _millis(row["timestamp"])
                found.append(Record(key=row["key"], value=row["value"], timestamp=at, headers=headers))
        return found

    def read_table(self, topic: str) -> dict[Any, Row]:
        """The newest row of each key of a sink's topic, by key: a value, or a tuple of several columns' values."""
        sink = self._sink(topic)
        found: dict[Any, Row] = {}
        for _, batch in self._written[topic]:
            for row in _rows(sink, batch):
                key = row[sink.key[0]] if len(sink.key) == 1 else tuple(row[name] for name in sink.key)
                found.pop(key, None)
                if len(row) > len(sink.key) or len(sink.schema) == len(sink.key):
                    found[key] = row
        return found

    def store(self, name: str) -> pl.DataFrame:
        """What the state of that name holds, of all tasks: ``name`` is a ``store=`` or a node's."""
        for node in self.plan.nodes.values():
            if name in (node.name, getattr(node, "store", "")) and node.name in self.tasks[0].operators:
                tasks = self.tasks[:1] if isinstance(node, Source) and node.kind == "global" else self.tasks
                return pl.concat([without_system(task.operators[node.name].query(None)) for task in tasks])
        raise NotFound(f"Job {self.spec.job!r} has no state named {name!r}.")

    def watermark(self, name: str, task: int = 0) -> int:
        """How far event time has come at a node of a task (ms)."""
        return self.tasks[task].flows[name].watermark

    # -- the machine -----------------------------------------------------------------------------------

    def _task(self, number: int) -> Task:
        return Task(self.plan.nodes, number, tasks=self.plan.partitions, dead_letters=bool(self.spec.dead_letters))

    def _append(self, topic: str, keys: Any, values: Any, at: int, partition: int | None) -> None:
        """Place records, give them to every source that reads the topic, and run."""
        if partition is not None and not 0 <= partition < self._partitions:
            raise InvalidRequest(f"Topic {topic!r} has {self._partitions} partitions; {partition} is none of them.")
        table = pa.table({"key": keys, "value": values})
        parts = {partition: table} if partition is not None else partitioner.split(table, self._partitions, 0)
        inputs: dict[int, list[Input]] = {}
        for place, part in sorted(parts.items()):
            placed = self._placed(topic, place, part, at)
            for name, node in self._nodes.items():
                if isinstance(node, Source) and node.topic == topic:
                    self._decode(name, node, place, placed, inputs)
        self._run(inputs)

    def _placed(self, topic: str, partition: int, part: pa.Table, at: int) -> pa.RecordBatch:
        first, count = self._offsets[topic, partition], part.num_rows
        self._offsets[topic, partition] += count
        batch = part.combine_chunks().to_batches()[0]
        return placed_at(records_of(at, batch.column("key"), batch.column("value")), first)

    def _decode(
        self, name: str, node: Source, partition: int, placed: pa.RecordBatch, inputs: dict[int, list[Input]]
    ) -> None:
        decoded = decode(node, (), placed)
        if decoded.dead:
            if not self.spec.dead_letters:
                raise unreadable(self.spec.job, node, partition, decoded.dead[0])
            self._write(self.spec.dead_letters, 0, dead_records(self.spec.job, node, partition, decoded.dead))
        is_global = node.kind == "global"
        for number in range(len(self.tasks)) if is_global else [partition]:
            self._seen[number, name] = self.now_ms
            if decoded.frame.height:
                channel = partition if is_global else 0
                inputs.setdefault(number, []).append(Input(source=name, frame=decoded.frame, channel=channel))

    def _run(self, inputs: Mapping[int, Sequence[Input]]) -> None:
        """Steps, until nobody has anything for anybody."""
        waiting = {number: list(given) for number, given in inputs.items()}
        while waiting:
            number = min(waiting)
            step = self.tasks[number].step(waiting.pop(number), self.now_ms)
            for name, delta in step.deltas:
                self._deltas[number].append((name, delta.tag, pack(delta.frame)))
            for name, frame in step.failed:
                dead = dead_rows(self.spec.job, name, number, frame, self.now_ms)
                self._write(self.spec.dead_letters, 0, dead)
            for name, frames in step.sinks.items():
                self._to_sink(name, frames, number)
            for name in step.marks:
                self._to_repartition(name, step, number, waiting)

    def _to_sink(self, name: str, frames: Sequence[pl.DataFrame], number: int) -> None:
        node = self._nodes[name]
        assert isinstance(node, Sink), name
        for partition, records in encode_by_partition(node, pl.concat(frames), self._partitions, number):
            self._write(node.topic, partition, records)

    def _to_repartition(self, name: str, step: Step, number: int, waiting: dict[int, list[Input]]) -> None:
        mark, parts = step.marks[name], self._split(name, step.repartitions.get(name, []))
        is_news = mark != self._told.get((number, name), _UNHEARD)
        self._told[number, name] = mark
        for task in range(len(self.tasks)):
            if is_news or task in parts:
                said = Input(
                    source=name, frame=parts.get(task), channel=number, watermark=mark.watermark, idle=mark.idle
                )
                waiting.setdefault(task, []).append(said)

    def _split(self, name: str, frames: Sequence[pl.DataFrame]) -> dict[int, pl.DataFrame]:
        if not frames:
            return {}
        frame = pl.concat(frames)
        return parted(frame, key_array(frame, self.plan.nodes[name].keys), len(self.tasks))

    def _write(self, topic: str, partition: int, records: pa.RecordBatch) -> None:
        if records.num_rows:
            self._written[topic].append((partition, records))

    def _unread(self, topic: str) -> list[tuple[int, pa.RecordBatch]]:
        start = self._taken[topic]
        self._taken[topic] = len(self._written[topic])
        return self._written[topic][start:]

    def _source(self, topic: str) -> Source:
        for node in self._nodes.values():
            if isinstance(node, Source) and node.topic == topic:
                return node
        raise NotFound(f"No source of job {self.spec.job!r} reads topic {topic!r}.")

    def _sink(self, topic: str) -> Sink:
        for node in self._nodes.values():
            if isinstance(node, Sink) and node.topic == topic:
                return node
        raise NotFound(f"No sink of job {self.spec.job!r} writes topic {topic!r}.")


def _plain(node: Any) -> Any:
    return dataclasses.replace(node, format="json") if getattr(node, "format", "") == "avro" else node


def _millis(time: int | datetime) -> int:
    if isinstance(time, datetime):
        whole = time if time.tzinfo else time.replace(tzinfo=UTC)
        return round(whole.timestamp() * 1_000)
    return time


def _runs(rows: Any) -> list[Any]:
    """Rows as a frame or as lists, each of rows alone or of raw values alone, in order."""
    if isinstance(rows, pl.DataFrame):
        return [rows]
    runs: list[list[Any]] = []
    for row in [rows] if isinstance(rows, dict | bytes) else rows:
        if not runs or isinstance(runs[-1][0], bytes) != isinstance(row, bytes):
            runs.append([])
        runs[-1].append(row)
    return runs


def _frame(rows: Any, schema: Mapping[str, pl.DataType], topic: str) -> pl.DataFrame:
    if not isinstance(rows, pl.DataFrame):
        for row in rows:
            unknown = [name for name in row if name not in schema]
            if unknown:
                raise InvalidRequest(f"Topic {topic!r} has no column {unknown[0]!r}; it has {', '.join(schema)}.")
    try:
        if isinstance(rows, pl.DataFrame):
            missing = [pl.lit(None).alias(name) for name in schema if name not in rows.columns]
            whole = rows.with_columns(missing)
            return whole.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        return pl.DataFrame(list(rows), schema=dict(schema), orient="row", strict=True)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidRequest(f"The rows do not have the schema of topic {topic!r}: {reason}") from error


def _as_sink(source: Source, key: tuple[str, ...] = ()) -> Sink:
    return Sink(name=source.name, topic=source.topic, format=source.format, schema=source.whole, key=key)


def _values(source: Source, given: Any) -> Any:
    if not isinstance(given, pl.DataFrame) and isinstance(given[0], bytes):
        return pa.array(given, pa.binary())
    frame = _frame(given, source.whole, source.topic).with_columns(pl.lit(0, pl.Int64()).alias("_time"))
    ((_, records),) = encode_by_partition(_as_sink(source), frame, 1, 0)
    return records.column("value")


def _keys(source: Source, given: Any) -> Any:
    if source.format == "frame" or (not isinstance(given, pl.DataFrame) and isinstance(given[0], bytes)):
        return pa.nulls(len(_values(source, given)), pa.binary())
    return key_array(_frame(given, source.whole, source.topic), source.key)


def _rows(sink: Sink, batch: pa.RecordBatch) -> list[Row]:
    """The values of records as rows of the sink's schema; of a deleted row its key columns."""
    whole = dict(sink.schema)
    source = Source(name=sink.name, topic=sink.topic, format=sink.format, schema=whole, whole=whole)
    decoded = decode(source, (), placed_at(batch, 0))
    assert not decoded.dead, decoded.dead[0].error
    rows = list(zip(decoded.frame.get_column("_offset"), decoded.frame.select(list(whole)).to_dicts(), strict=True))
    gone: Any = pl.Series(batch.column("value")).is_null().arg_true()
    if len(gone):
        keys: Any = pl.Series(batch.column("key"))
        rows += list(zip(gone, key_frame(keys[gone], sink.key, whole).to_dicts(), strict=True))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]
