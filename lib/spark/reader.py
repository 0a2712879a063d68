"""Reading: a topic as a table, and as a stream with an offset for each partition.

The driver plans, the executors read, and both by ``headwater.replay``: archive and hot tail alike, straight from the
bucket, in Arrow from the object to Spark's own memory. Records never change, so a task that runs twice reads the same.
A batch is planned at one commit; of a stream Spark keeps the offsets in its checkpoint.

Spark's Python sources have no column pruning (4.3): say which columns with the option ``columns``, or with
``.schema(…)``, in which a binary column may also be a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import DataSourceReader, DataSourceStreamReader, Filter, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxBytes,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)
from pyspark.sql.types import StructType

from headwater.errors import Conflict, InvalidRequest
from headwater.limits import SPARK_READ_BYTES
from headwater.log.namespace import Namespace
from headwater.log.reader import check_range
from headwater.replay.columns import schema_of, shape_of
from headwater.replay.ranges import Place, Places, Span, spans_of
from headwater.replay.stream import Replay
from headwater.replay.view import View, view_of
from headwater.replay.where import parse_where
from headwater.spark.filters import Condition, conditions_of, expression
from headwater.spark.kinds import arrow_schema, fitted, spark_schema
from headwater.spark.options import Settings
from headwater.spark.sessions import session
from headwater.spark.splits import Split, admitted, as_json, narrowed, of_json, splits_of
from headwater.upkeep.offload import in_thread

if TYPE_CHECKING:
    import pyarrow as pa


def topic_schema(settings: Settings) -> StructType:
    """The columns that a source shows. Raises ``NotFound``, or ``InvalidRequest`` for an unknown column."""
    opened = session(settings.store, settings.namespace)
    view = opened.call(view_of(opened.namespace, settings.topic, settings.as_of))
    return spark_schema(shape_of(view.topic, settings.columns, None).schema)


class HeadwaterReader(DataSourceReader):
    """A topic's records, planned at one commit, in splits of ``recordsPerSplit`` offsets."""

    def __init__(self, settings: Settings, schema: StructType) -> None:
        self.settings = settings
        self.schema = schema
        self.conditions: list[Condition] = []

    def partitions(self) -> Sequence[InputPartition]:
        settings = self.settings
        opened = session(settings.store, settings.namespace)
        _, spans = opened.call(_planned(opened.namespace, settings, "earliest"))
        splits = splits_of(narrowed(spans, self.conditions), settings.records_per_split, settings.as_of)
        # Spark takes an empty list for one task that knows what to do, so nothing to read is an empty split.
        return list(splits) or [Split(partition=0, start=0, end=0)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, Split)
        return _read(self.settings, self.schema, partition, self.conditions)


class FilteringReader(HeadwaterReader):
    """The same, with filters pushed down. Spark refuses this class unless its configuration allows it.

    Spark (4.3) plans a ``load()`` with the filters of one query and keeps that plan for a later query that has none:
    then rows are missing. So this is only used where the caller asks for it; the option ``where`` has no such trap.
    """

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802 - Spark's name
        self.conditions = conditions_of(filters)
        return filters  # Spark tests the rows that are left


class HeadwaterStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """A topic as a stream. Its offset is the next one to read of every partition, as of a Kafka source.

    Partitions that are added later are read from their beginning. With ``availableNow`` the stream ends where the topic
    ended when the query began, in as many micro-batches as its bounds ask for.
    """

    def __init__(self, settings: Settings, schema: StructType) -> None:
        self.settings = settings
        self.schema = schema
        self._target: dict[int, int] | None = None
        if settings.end is not None:
            raise InvalidRequest("A stream has no end: drop the option endingOffsets, …Timestamp or …Commit.")
        if settings.as_of is not None:
            raise InvalidRequest("A stream reads what is there and what will come: drop the option asOf.")

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        opened = session(self.settings.store, self.settings.namespace)
        return as_json(self.settings.topic, opened.call(_beginnings(opened.namespace, self.settings)))

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's name
        if self.settings.trigger_offsets is not None:
            return ReadMaxRows(self.settings.trigger_offsets)
        if self.settings.trigger_bytes is not None:
            return ReadMaxBytes(self.settings.trigger_bytes)
        return ReadAllAvailable()

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: N802 - Spark's name
        view = self._view()
        begins = of_json(self.settings.topic, start)
        ends = {number: place.stable_end for number, place in enumerate(view.topic.partitions)}
        if self._target is not None:
            ends = {number: min(end, self._target.get(number, 0)) for number, end in ends.items()}
        _refuse_another_topic(self.settings.topic, begins, view)
        ends = {number: max(end, begins.get(number, 0)) for number, end in ends.items()}
        places = dict(enumerate(view.topic.partitions))
        taken = admitted(begins, ends, places, limit)
        if isinstance(limit, ReadMaxRows) and self.settings.trigger_bytes is not None:
            taken = admitted(begins, taken, places, ReadMaxBytes(self.settings.trigger_bytes))
        return as_json(self.settings.topic, taken)

    def reportLatestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        return as_json(self.settings.topic, _ends(self._view()))

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        self._target = _ends(self._view())

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        begins, ends = of_json(self.settings.topic, start), of_json(self.settings.topic, end)
        spans = [Span(number, begins.get(number, 0), last) for number, last in ends.items()]
        return splits_of([span for span in spans if span.start < span.end], self.settings.records_per_split)

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, Split)
        return _read(self.settings, self.schema, partition, ())

    def commit(self, end: dict[str, Any]) -> None:
        if self.settings.group:
            places = {(self.settings.topic, p): offset for p, offset in of_json(self.settings.topic, end).items()}
            opened = session(self.settings.store, self.settings.namespace)
            opened.call(opened.namespace.commit_offsets(self.settings.group, places))

    def _view(self) -> View:
        opened = session(self.settings.store, self.settings.namespace)
        return opened.call(view_of(opened.namespace, self.settings.topic))


async def _planned(namespace: Namespace, settings: Settings, begin: Place) -> tuple[View, list[Span]]:
    view = await view_of(namespace, settings.topic, settings.as_of)
    start: Places = begin if settings.start is None else settings.start
    if not settings.fail_on_data_loss and isinstance(start, Mapping):
        start = {p: _there(view, p, place) for p, place in start.items()}
    return view, await spans_of(view, None, start, settings.end)


def _there(view: View, partition: int, place: Place) -> Place:
    """The place, or the log's start if its records are gone."""
    return max(place, view.place(partition).start) if isinstance(place, int) else place


async def _beginnings(namespace: Namespace, settings: Settings) -> dict[int, int]:
    """The first offset of each partition that a new stream reads. A time is looked up: the first record at or after."""
    view, spans = await _planned(namespace, settings, "latest")
    begins: dict[int, int] = {}
    for span in spans:
        begins[span.partition] = span.start
        if span.since_ms is not None:
            found = await namespace.reader.offset_at(settings.topic, span.partition, span.since_ms)
            begins[span.partition] = view.place(span.partition).stable_end if found is None else found[0]
    return begins


def _ends(view: View) -> dict[int, int]:
    return {number: place.stable_end for number, place in enumerate(view.topic.partitions)}


def _refuse_another_topic(topic: str, begins: Mapping[int, int], view: View) -> None:
    """A topic that was deleted and made anew begins at 0, below what the checkpoint has read."""
    for partition, offset in begins.items():
        end = view.topic.partitions[partition].stable_end if partition < len(view.topic.partitions) else -1
        if offset > end:
            raise Conflict(
                f"The stream has read topic {topic!r}, partition {partition}, up to offset {offset}, and it ends at "
                f"{max(end, 0)}: it was made anew. Begin a new query with a new checkpoint.",
                topic=topic,
                partition=partition,
                offset=offset,
            )


def _read(
    settings: Settings, schema: StructType, split: Split, conditions: Sequence[Condition]
) -> Iterator[pa.RecordBatch]:
    """The records of a split, in Arrow. Runs in an executor's Python worker."""
    if split.start == split.end:
        return
    target = arrow_schema(schema)
    opened = session(settings.store, settings.namespace)
    replay = opened.call(_opened(opened.namespace, settings, target.names, split, conditions))
    where = f"Topic {settings.topic!r}, partition {split.partition}, offsets [{split.start}, {split.end})"
    for group in opened.iterate(replay.groups()):
        yield from fitted(group, target, where)


async def _opened(
    namespace: Namespace, settings: Settings, names: Sequence[str], split: Split, conditions: Sequence[Condition]
) -> Replay:
    view = await view_of(namespace, settings.topic, split.as_of)
    span, place = split.span, view.place(split.partition)
    if not settings.fail_on_data_loss and span.start < place.start:
        span = replace(span, start=min(place.start, span.end))
    check_range(settings.topic, split.partition, place, span.start)
    condition = _condition(settings, schema_of(view.topic), conditions)
    shape = shape_of(view.topic, names, condition)
    spans = [span] if span.start < span.end else []
    return Replay(view, spans, shape, "partition", SPARK_READ_BYTES, in_thread)


def _condition(settings: Settings, schema: pa.Schema, conditions: Sequence[Condition]) -> Any | None:
    """What the caller and Spark want of a row, both at once."""
    said = parse_where(settings.where, schema) if settings.where else None
    pushed = expression(conditions, schema)
    return pushed if said is None else said if pushed is None else said & pushed
