"""Which columns a replay gives, which it must read for that, and which rows it wants.

Every topic has ``partition``, ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``; one with a schema has the
typed columns of its newest version behind them, null where a record was written before there was such a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from headwater.errors import InvalidRequest
from headwater.log.parquet import file_schema
from headwater.log.state import Topic

PARTITION = pa.field("partition", pa.int32(), nullable=False)
Filter: TypeAlias = Any  # a pyarrow.dataset Expression, or tuples in disjunctive normal form as pyarrow takes them


@dataclass(frozen=True, slots=True)
class Shape:
    """``schema`` is what is given, ``whole`` what there is, ``needed`` what must be read, in the order of ``whole``."""

    schema: pa.Schema
    whole: pa.Schema
    needed: tuple[str, ...]
    filter: Any | None

    @property
    def typed(self) -> bool:
        """Whether a typed column is needed."""
        return any(name not in _PLAIN for name in self.needed)

    def with_timestamp(self) -> Shape:
        """The same, with ``timestamp`` among what is given: whoever merges needs it."""
        if "timestamp" in self.schema.names:
            return self
        schema = self.schema.append(self.whole.field("timestamp"))
        needed = tuple(name for name in self.whole.names if name in {*self.needed, "timestamp"})
        return Shape(schema, self.whole, needed, self.filter)


_PLAIN = ("partition", "offset", "timestamp", "key", "value", "headers")


def schema_of(topic: Topic) -> pa.Schema:
    """All columns of the topic."""
    columns = topic.schema.columns if topic.schema else []
    return file_schema(columns).remove_metadata().insert(0, PARTITION)


def shape_of(topic: Topic, columns: Sequence[str] | None, filter: Filter | None) -> Shape:  # noqa: A002 - Arrow's word
    """What a replay of the topic gives.

    Raises:
        InvalidRequest: an unknown column, or a filter that is none for these columns; the message lists them.
    """
    whole = schema_of(topic)
    names = whole.names if columns is None else _checked(topic, whole, columns)
    condition = None if filter is None else _bound(topic, whole, filter)
    used = set(names) if condition is None else set(names) | _used(whole, condition)
    schema = pa.schema([whole.field(name) for name in names])
    return Shape(schema, whole, tuple(name for name in whole.names if name in used), condition)


def fitted(table: pa.Table, partition: int, names: Sequence[str], whole: pa.Schema) -> pa.Table:
    """``table`` with exactly the columns ``names`` in the types of ``whole``; what it does not have is null.

    Copies nothing but what has another type. Raises ``pa.ArrowException`` for a type that does not widen.
    """
    have = table.schema
    arrays: list[Any] = []
    for name in names:
        wanted = whole.field(name).type
        if name == "partition":
            arrays.append(_repeated(partition, 1 << table.num_rows.bit_length()).slice(0, table.num_rows))
            continue
        at = have.get_field_index(name)
        if at < 0:
            arrays.append(pa.nulls(table.num_rows, wanted))
        else:
            column = table.column(at)
            arrays.append(column if column.type == wanted else column.cast(wanted))
    return pa.Table.from_arrays(arrays, schema=pa.schema([whole.field(name) for name in names]))


@lru_cache(maxsize=2)
def _repeated(partition: int, rows: int) -> Any:
    """One array for all pieces of a replay: filling new memory for each is 5 % of its work if records are small."""
    return pa.repeat(pa.scalar(partition, pa.int32()), rows)


def range_filter(since_ms: int | None, until_ms: int | None) -> Any | None:
    """The condition on ``timestamp`` that a span of time is."""
    parts: list[Any] = []
    kind = pa.timestamp("ms", tz="UTC")
    if since_ms is not None:
        parts.append(pc.field("timestamp") >= pa.scalar(since_ms, kind))
    if until_ms is not None:
        parts.append(pc.field("timestamp") < pa.scalar(until_ms, kind))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] & parts[1]


def _checked(topic: Topic, whole: pa.Schema, columns: Sequence[str]) -> list[str]:
    names = [columns] if isinstance(columns, str) else list(columns)
    if not names:
        raise InvalidRequest("A replay needs at least one column.")
    for name in names:
        if name not in whole.names:
            raise InvalidRequest(
                f"Topic {topic.name!r} has no column {name!r}; it has {', '.join(whole.names)}.", column=str(name)
            )
        if names.count(name) > 1:
            raise InvalidRequest(f"Column {name!r} is named {names.count(name)} times.", column=name)
    return names


def _bound(topic: Topic, whole: pa.Schema, condition: Filter) -> Any:
    """The filter as an expression that has been tried on no rows at all."""
    try:
        if not isinstance(condition, pc.Expression):
            condition = pq.filters_to_expression(condition)
        whole.empty_table().filter(condition)
    except (pa.ArrowException, ValueError, TypeError, KeyError, IndexError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidRequest(
            f"The filter does not fit topic {topic.name!r}, whose columns are {', '.join(whole.names)}: {why}"
        ) from error
    return condition


def _used(whole: pa.Schema, condition: Any) -> set[str]:
    """Columns that the expression may name: it does not tell, but its text does. Too many do no harm."""
    text = str(condition)
    return {name for name in whole.names if name in text}


def may_match(guarantee: Any, condition: Any, whole: pa.Schema) -> bool:
    """Whether rows for which ``guarantee`` holds can satisfy ``condition``; nothing is opened."""
    fragment = _FORMAT.make_fragment(_NOWHERE, partition_expression=guarantee)
    return any(True for _ in ds.FileSystemDataset([fragment], whole, _FORMAT).get_fragments(filter=condition))


_FORMAT = ds.ParquetFileFormat()
_NOWHERE: Any = pa.BufferReader(b"")
