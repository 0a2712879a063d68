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
    """Which offsets are wanted, and how values are written: from which offset on how many ``schemas`` were known."""

    base: int
    end: int
    schemas: Sequence[Schema] = ()
    versions: Sequence[tuple[int, int]] = ()

    def version_at(self, offset: int) -> int:
        """The version in force when the record was committed; 0 before the first one."""
        at = bisect_right(self.versions, offset, key=lambda pair: pair[0])
        return self.versions[at - 1][1] if at else 0


def feed(packer: Packer, reading: Reading, chunks: Sequence[Chunk]) -> None:
    """Put the records of ``chunks`` into the packer's files.

    Raises:
        Corrupt: a chunk cannot be decoded; the message names it.
        InvalidRequest: a chunk is of ``kafka2`` and the extra ``kafka`` is not installed.
    """
    for version, run in groupby(chunks, lambda chunk: reading.version_at(chunk.base)):
        rows = pa.Table.from_batches([_within(chunk.decode(), reading) for chunk in run]).combine_chunks()
        for part in rows.to_batches():
            packer.add(_with_columns(part, reading.schemas[:version]) if version else part)


def _within(placed: pa.RecordBatch, reading: Reading) -> pa.RecordBatch:
    placed = batch.slice_from(placed, reading.base)
    above: Any = batch.slice_from(placed, reading.end)
    return placed.slice(0, placed.num_rows - above.num_rows)


def _with_columns(placed: pa.RecordBatch, schemas: Sequence[Schema]) -> pa.RecordBatch:
    """The rows with the typed columns of their values behind them; what does not fit the schema has nulls there.

    Only the versions that were in force count: under a later one a field may mean something that it did not then.
    """
    from headwater.schemas.typed import typed

    columns = typed(schemas, placed.column("value"), strict=False)
    return pa.RecordBatch.from_arrays(
        [*placed.columns, *columns.columns], names=[*placed.schema.names, *columns.schema.names]
    )
