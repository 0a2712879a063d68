"""Tables that a job writes, brought back to what they were at an earlier commit.

What a restarted job writes anew brings a table up to date only if it writes each key again that it has written since.
It need not: changes that came in two steps the first time may come in one the second time, and cancel out. A count
that went from one to none and back to one leaves a tombstone behind if the job is restarted in between. So a
restart gives each key that was written since the row that it had then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import NotFound
from headwater.log.codec_schema import RECORD_SCHEMA, as_records
from headwater.log.namespace import Namespace
from headwater.log.operations import Chunk
from headwater.log.state import State
from headwater.log.writer import Append
from headwater.streams.runner.changelog import Line
from headwater.streams.runner.committing import encoded
from headwater.streams.runner.restoring import read_range

STEP_RECORDS: Final = 100_000  # of a table as it was that are in memory at once


def tables_of(topology: Line | None) -> list[str]:
    """The topics that a job writes as tables, by what its changelog says of its topology."""
    said: dict[str, Any] = msgspec.json.decode(topology.value) if topology is not None else {}
    return list(said.get("tables", ()))


async def revert(namespace: Namespace, past: State, name: str) -> list[Chunk]:
    """Stage records that bring the table in topic ``name`` back to what it was in ``past``: rows, and tombstones.

    A topic that does not exist any more, or was made anew since, is left as it is.

    Raises ``Unavailable`` if the store does not take them; nothing is visible then.
    Cost: reads what was written since, and of partitions in which anything was, what was there then.
    """
    topic = namespace.state.named(name)
    if topic is None or past.names.get(name) != topic.id:
        return []
    staged: list[Chunk] = []
    for number, place in enumerate(topic.partitions):
        try:
            _, before = namespace.reader.place(name, number, past)
            start, end = before.start, before.stable_end
        except NotFound:  # a partition that was added since
            start = end = place.start
        since = await read_range(namespace, name, number, end, place.stable_end, namespace.state)
        touched = _joined(since).column("key").combine_chunks().unique()
        if not len(touched):
            continue
        rows = await _rows_then(namespace, past, (name, number), (start, end), touched)
        made = _back(rows, touched, namespace.chain.clock.wall_ms())
        appends = [Append(topic=topic.id, partition=number, batch=batch) for batch in encoded(made)]
        staged += await namespace.writer.stage(appends)
    return staged


async def _rows_then(
    namespace: Namespace, past: State, place: tuple[str, int], offsets: tuple[int, int], touched: pa.Array[Any]
) -> pa.Table:
    """The newest record of each of those keys below ``offsets``' end, as of then."""
    start, end = offsets
    found = _joined([])
    for step in range(start, end, STEP_RECORDS):
        placed = await read_range(namespace, *place, step, min(step + STEP_RECORDS, end), past)
        some = _joined(placed)
        found = _newest(pa.concat_tables([found, some.filter(pc.is_in(some.column("key"), value_set=touched))]))
    return found


def _newest(rows: pa.Table) -> pa.Table:
    """The last row of each key."""
    numbered = pa.table({"key": rows.column("key"), "at": pa.array(range(rows.num_rows), pa.int64())})
    return rows.take(numbered.group_by("key", use_threads=False).aggregate([("at", "max")]).column("at_max"))


def _back(rows: pa.Table, touched: pa.Array[Any], now_ms: int) -> pa.RecordBatch:
    """The rows, and tombstones for the keys that had none."""
    gone = touched.filter(pc.invert(pc.is_in(touched, value_set=rows.column("key").combine_chunks())))
    tables = [rows]
    if len(gone):
        tombstones = as_records(pa.table({"key": gone, "value": pa.nulls(len(gone), pa.binary())}), now_ms)
        tables.append(pa.Table.from_batches([tombstones]))
    (made,) = pa.concat_tables(tables).combine_chunks().to_batches()
    return made


def _joined(placed: Iterable[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches([each.drop_columns(["offset"]) for each in placed if each.num_rows], RECORD_SCHEMA)
