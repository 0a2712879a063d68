"""From chunks to the rows of a file: decoded, cut to a range, and with the typed columns of a topic with a schema.

Pure, and what keeps a processor busy: it is called through an ``Offload``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from headwater.log import batch
from headwater.log.chunk import Chunk
from headwater.log.state import Schema
from headwater.upkeep.packing import Packer


@dataclass(frozen=True, slots=True)
class Reading:
    """Which offsets are wanted, and from which offset on values are written by which version of the schema."""

    base: int
    end: int
    schemas: list[tuple[int, Schema | None]]

    def schema_at(self, offset: int) -> Schema | None:
        """The version in force when the record was committed; None before the first one."""
        at = bisect_right(self.schemas, offset, key=lambda pair: pair[0])
        return self.schemas[at - 1][1] if at else None


def feed(packer: Packer, reading: Reading, chunks: Sequence[Chunk]) -> None:
    """Put the records of ``chunks`` into the packer's files.

    Raises:
        Corrupt: a chunk cannot be decoded; the message names it.
        InvalidRequest: a chunk is of ``kafka2`` and the extra ``kafka`` is not installed.
    """
    for schema, run in groupby(chunks, lambda chunk: reading.schema_at(chunk.base)):
        rows = pa.Table.from_batches([_within(chunk.decode(), reading) for chunk in run]).combine_chunks()
        for part in rows.to_batches():
            packer.add(part if schema is None else _with_columns(part, schema))


def _within(placed: pa.RecordBatch, reading: Reading) -> pa.RecordBatch:
    placed = batch.slice_from(placed, reading.base)
    above: Any = batch.slice_from(placed, reading.end)
    return placed.slice(0, placed.num_rows - above.num_rows)


def _with_columns(placed: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """The rows with the typed columns of their values behind them; what does not fit the schema has nulls there."""
    from headwater.schemas.typed import typed

    columns = typed(schema, placed.column("value"), strict=False)
    return pa.RecordBatch.from_arrays(
        [*placed.columns, *columns.columns], names=[*placed.schema.names, *columns.schema.names]
    )
