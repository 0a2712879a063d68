"""Writing: rows are staged by the tasks, and committed by one intent when all of them are done.

A task stores its rows as segments that no manifest names (``Writer.stage``) and hands their places to the driver. The
driver makes all of them visible by one conditional write. What a failed or doubled task stored is named by nothing;
the collector takes it.

**Exactly once.** A stream's micro-batch may be committed twice: Spark forgets that it did when it is killed behind the
commit, and repeats the batch under its old number. So the commit moves a group's offset to that number plus one, in
the same intent, and is fenced by the epoch of a transactional producer, which every commit ends. Whoever commits reads
both first: a number below the group's offset is done already; and of two who read the same epoch one is fenced, looks
again, and finds it done. Group and producer are called ``spark-<id of the query>``: a query keeps its id for as long
as its checkpoint lives, and a new checkpoint is a new query.

The memory lasts as long as a group's offsets and producers do: seven days without a batch, by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.sql.datasource import DataSourceArrowWriter, DataSourceStreamArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from headwater.errors import Conflict, Fenced, Indeterminate, InvalidRequest
from headwater.limits import SPARK_CHUNK_BYTES, SPARK_COMMIT_TRIES_MAX, SPARK_STAGE_BYTES
from headwater.log import operations as ops
from headwater.log.batch import encode_arrow
from headwater.log.intents import new_id
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownProducer
from headwater.log.partitioner import grouped, partitions_of
from headwater.log.state import State, Topic
from headwater.log.writer import Append
from headwater.schemas.rows import encode_table
from headwater.spark.options import Settings
from headwater.spark.sessions import session

if TYPE_CHECKING:
    from headwater.log.operations import AnyOp, Chunk

_QUERY = "sql.streaming.queryId"  # Spark's own name for it, among a task's properties
_PLAIN = ("timestamp", "key", "value", "headers")


@dataclass(frozen=True, kw_only=True)
class Staged(WriterCommitMessage):
    """What a task has stored: chunks that no manifest names yet, and the query that it works for."""

    chunks: tuple[Chunk, ...]
    query: str


class HeadwaterWriter(DataSourceArrowWriter):
    """Appends a table to a topic: all of it by one commit, or nothing."""

    def __init__(self, settings: Settings, schema: StructType) -> None:
        self.settings = settings
        _refuse_columns(schema.fieldNames())

    def write(self, iterator: Iterator[Any]) -> WriterCommitMessage:
        return _stage(self.settings, iterator)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        chunks = _chunks(messages)
        if chunks:
            settings = self.settings
            opened = session(settings.store, settings.namespace)
            done: list[AnyOp] = [ops.Once(key=settings.once, request=f"spark {settings.topic}"[:64])]
            opened.call(_commit(opened.namespace, chunks, done if settings.once else []))


class HeadwaterStreamWriter(DataSourceStreamArrowWriter):
    """Appends a stream's micro-batches to a topic, each exactly once."""

    def __init__(self, settings: Settings, schema: StructType) -> None:
        self.settings = settings
        _refuse_columns(schema.fieldNames())

    def write(self, iterator: Iterator[Any]) -> WriterCommitMessage:
        return _stage(self.settings, iterator)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803 - Spark's name
        chunks = _chunks(messages)
        if not chunks:
            return  # nothing to write is nothing to remember
        writer = self.settings.writer or next(m.query for m in messages if isinstance(m, Staged))
        if not writer:
            raise InvalidRequest("Spark does not say which query this is: name it with the option 'writerId'.")
        opened = session(self.settings.store, self.settings.namespace)
        opened.call(commit_batch(opened.namespace, self.settings.topic, f"spark-{writer}", batchId, chunks))


async def commit_batch(namespace: Namespace, topic: str, name: str, batch: int, chunks: Sequence[Chunk]) -> bool:
    """Make the chunks of micro-batch number ``batch`` visible, unless that was done before. Whether it was done now.

    Raises:
        NotFound: the topic, or staged bytes are gone. Nothing is visible; the batch has to be made again.
        Conflict: others commit under this name all the time: two queries share a ``writerId``.
        Indeterminate: the store does not say. Calling again, from anywhere, finds out.

    Cost: 1 GET and 1 conditional PUT; the first of all batches 1 more.
    """
    for _ in range(SPARK_COMMIT_TRIES_MAX):
        state = await namespace.refresh()
        if batch < _done(state, topic, name):
            return False
        pid = state.transactional.get(name)
        if pid is None:
            await namespace.writer.commit(ops=[ops.InitProducer(tid=name)])
            continue  # another one may have done it at the same time: whose epoch it is shows in the state
        end = ops.EndTransaction(pid=pid, epoch=state.producers[pid].epoch)
        note = await namespace.offsets_op(name, {(topic, 0): batch + 1}, metadata=f"batches of {name} written")
        try:
            await _commit(namespace, chunks, [end, note])
        except (Fenced, UnknownProducer):
            continue
        return True
    raise Conflict(f"Others commit as {name!r} all the time; give each query a writerId of its own.", writer=name)


def _done(state: State, topic: str, name: str) -> int:
    """The first micro-batch that was not written yet."""
    group, found = state.groups.get(name), state.named(topic)
    place = group.offsets.get(found.id, {}).get(0) if group and found else None
    return 0 if place is None else place.offset


async def _commit(namespace: Namespace, chunks: Sequence[Chunk], wishes: Sequence[AnyOp]) -> None:
    """One intent; while its outcome is not known, the same one again: it takes effect once, and then says so."""
    identity, token = new_id(namespace.chain.rng), ""
    for left in reversed(range(SPARK_COMMIT_TRIES_MAX)):
        try:
            await namespace.writer.commit_staged(chunks, (), wishes, token=token, intent_id=identity)
            return
        except Indeterminate as error:
            token = error.token or token
            if not left:
                raise


# -- in the executors -----------------------------------------------------------------------------------


def _stage(settings: Settings, batches: Iterator[pa.RecordBatch]) -> Staged:
    """Store the rows, 16 MiB of them in memory at a time."""
    context = TaskContext.get()
    query = (context.getLocalProperty(_QUERY) or "") if context else ""
    task = context.partitionId() if context else 0
    opened = session(settings.store, settings.namespace)
    topic = opened.call(opened.namespace.find_topic(settings.topic))
    now_ms = opened.namespace.chain.clock.wall_ms()
    chunks: list[Chunk] = []
    for table in _gathered(batches):
        chunks += opened.call(opened.namespace.writer.stage(_appends(topic, table, task, now_ms)))
    return Staged(chunks=tuple(chunks), query=query)


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    nbytes = 0
    for batch in batches:
        for piece in _pieces(batch, SPARK_STAGE_BYTES):
            held.append(piece)
            nbytes += piece.nbytes
            if nbytes >= SPARK_STAGE_BYTES:
                yield pa.Table.from_batches(held)
                held, nbytes = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _appends(topic: Topic, table: pa.Table, task: int, now_ms: int) -> list[Append]:
    rows = _rows(topic, table)
    return [
        Append(topic=topic.id, partition=partition, batch=encode_arrow(piece, default_timestamp=now_ms))
        for partition, part in _placed(topic, table, rows, task).items()
        for whole in part.combine_chunks().to_batches()
        for piece in _pieces(whole, SPARK_CHUNK_BYTES)
    ]


def _rows(topic: Topic, table: pa.Table) -> pa.Table:
    """The columns of a record. Without ``value`` the others are the schema's, and become one."""
    names = table.schema.names
    plain = table.select([name for name in _PLAIN if name in names])
    if "value" in names:
        return plain
    if topic.schema is None:
        raise InvalidRequest(
            f"Topic {topic.name!r} has no schema, so its rows need a column 'value' (binary or string); "
            f"there are {', '.join(names)}. to_json(struct(*)) makes one.",
            topic=topic.name,
        )
    typed = table.select([name for name in names if name not in (*_PLAIN, "partition")])
    return plain.append_column("value", encode_table(topic.schema, typed))


def _placed(topic: Topic, table: pa.Table, rows: pa.Table, task: int) -> dict[int, pa.Table]:
    """The rows by partition: that of a column ``partition``, or else by key; all without a key to one of the task's."""
    count = len(topic.partitions)
    fallback = pa.scalar(task % count, pa.int32())
    chosen: Any = pa.nulls(rows.num_rows, pa.int32())
    if "key" in rows.schema.names:
        chosen = partitions_of(rows.column("key"), count)
    if "partition" in table.schema.names:
        chosen = pc.coalesce(table.column("partition").combine_chunks().cast(pa.int32()), chosen)
    chosen = pc.fill_null(chosen, fallback)
    placed = grouped(rows, chosen)
    for number in (min(placed), max(placed)):
        if not 0 <= number < count:
            raise InvalidRequest(
                f"Topic {topic.name!r} has {count} partitions, and a row says partition {number}.", column="partition"
            )
    return placed


def _pieces(batch: pa.RecordBatch, nbytes: int) -> Iterator[pa.RecordBatch]:
    """Slices of at most about ``nbytes``."""
    if batch.num_rows <= 1 or batch.nbytes <= nbytes:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half), nbytes)
    yield from _pieces(batch.slice(half), nbytes)


def _chunks(messages: Sequence[WriterCommitMessage | None]) -> list[Chunk]:
    """All that was stored, in the order of tasks, which is that of Spark's partitions."""
    return [chunk for message in messages if isinstance(message, Staged) for chunk in message.chunks]


def _refuse_columns(names: Sequence[str]) -> None:
    if not names:
        raise InvalidRequest("There is no column to write: a record needs at least 'value'.")
    for name in ("offset", "topic"):
        if name in names:
            raise InvalidRequest(f"Column {name!r} cannot be written, the log decides it: drop it.", column=name)
    odd = [name for name in names if name not in (*_PLAIN, "partition")]
    if "value" in names and odd:
        raise InvalidRequest(
            f"Beside 'value' there are columns that a record does not have: {', '.join(odd)}. Drop them, or drop "
            "'value' and let the topic's schema encode them.",
            column=odd[0],
        )
