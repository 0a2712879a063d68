"""Rows of one partition become files, each below the largest object. Pure: rows in, finished files out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from headwater.limits import MIB, OBJECT_BYTES_MAX
from headwater.log import parquet
from headwater.log.operations import Column

SLICE_BYTES: Final = 2 * MIB  # rows are handed to the encoder in pieces of about that, so that a file ends in time
FOOTER_BYTES: Final = MIB  # what a file's footer and page index may come to, and …
COLUMN_BYTES: Final = 8 * 1_024  # … for each column that is there beside a record's own


@dataclass(frozen=True, slots=True)
class Ready:
    """A finished file of the offsets ``[base, end)`` that has no name yet."""

    built: parquet.Built
    base: int
    end: int


@dataclass(slots=True)
class Packer:
    """Packs rows that come by ascending offset into files that meet end to end, from ``base`` on.

    A new file is begun only when the next rows might not fit an object any more: where files should end otherwise is
    for the caller to say, by a packer for each.
    """

    base: int
    columns: Sequence[Column]
    metadata: dict[str, str]
    rows: int = 0
    _builder: parquet.FileBuilder | None = None
    _reached: int = -1
    _ready: list[Ready] = field(default_factory=list)

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Put ``rows`` behind those that are there. Raises ``InvalidRequest`` if a column does not fit the file's."""
        for part in _parts(rows):
            builder = self._open(part.nbytes)
            builder.add(part)
            self.rows += part.num_rows
            self._reached = part.column("offset")[-1].as_py() + 1

    def finish(self, end: int) -> None:
        """The last file ends at ``end``, behind which nothing follows."""
        self._close(end)

    def take(self) -> list[Ready]:
        """The files that were finished since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def _open(self, size: int) -> parquet.FileBuilder:
        builder = self._builder
        if builder is not None and builder.rows:
            # What does not compress is stored as it is, and a little is added to it.
            room = OBJECT_BYTES_MAX - FOOTER_BYTES - COLUMN_BYTES * len(self.columns)
            if builder.bytes + (builder.waiting + size) * 33 // 32 > room:
                self._close(self._reached)
        if self._builder is None:
            self._builder = parquet.FileBuilder(self.columns, {**self.metadata, "headwater.base": str(self.base)})
        return self._builder

    def _close(self, end: int) -> None:
        builder = self._builder or parquet.FileBuilder(self.columns, self.metadata)
        assert self.base < end, "a file holds at least one offset"
        self._ready.append(Ready(builder.finish(), self.base, end))
        self._builder, self.base = None, end


def _parts(rows: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch]:
    """Pieces of about ``SLICE_BYTES``, as far as their average row tells."""
    for found in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
        if found.num_rows:
            step = max(1, found.num_rows * SLICE_BYTES // max(found.nbytes, 1))
            for start in range(0, found.num_rows, step):
                yield found.slice(start, step)
