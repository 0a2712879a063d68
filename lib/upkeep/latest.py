"""The latest offset of every key in a stretch of a partition, and which records that leaves. Pure.

Kafka's cleaner calls it the offset map. Here it is two Arrow columns, the keys and their latest offsets: they are
grouped as they come in, and asked for whole columns at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

ENTRY_BYTES: Final = 48  # beside its key, an entry costs its offset, the key's place, and its part of a hash table


class Latest:
    """Filled by ``add``, then sealed by ``seal``, then asked."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.full = False
        self.keys: Any = pa.array([], pa.binary())
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._sorted: Any = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the columns ``offset`` and ``key``. Sets ``full`` when the keys fill the memory they may have.

        Cost: each key is grouped about three times, however many batches there are.
        """
        table = pa.Table.from_batches([batch]).select(["key", "offset"])
        table = _grouped(table.filter(pc.is_valid(table.column("key"))))
        self._waiting.append(table)
        self._bytes += _bytes(table)
        if self._bytes > self.bytes_max:
            self._merge()
            # Half full after all has been grouped: to go on would be to group the same keys again and again.
            self.full = self._bytes > self.bytes_max // 2

    def seal(self) -> None:
        """No more is added from now on."""
        self._merge()
        merged = self._waiting[0] if self._waiting else None
        self._waiting = []
        if merged is not None and merged.num_rows:
            self.keys = merged.column("key").combine_chunks()
            offsets = pc.sort_indices(merged.column("offset"))
            self._sorted = merged.column("offset").take(offsets).combine_chunks()

    def superseded(self, keys: Any) -> Any:
        """Which of these records, all older than what was added, have a later one of their key. Null keys have none."""
        return pc.and_(pc.is_valid(keys), pc.is_in(keys, value_set=self.keys))

    def survivors(self, start: int, end: int) -> Any:
        """The offsets in ``[start, end)`` that are the latest of their keys, in order."""
        if self._sorted is None:
            return pa.array([], pa.int64())
        found = self._sorted
        numbers = memoryview(found.buffers()[1]).cast("q")[found.offset : found.offset + len(found)]
        at = bisect_left(numbers, start)
        return self._sorted.slice(at, bisect_left(numbers, end) - at)

    def __len__(self) -> int:
        return len(self.keys)

    def _merge(self) -> None:
        if len(self._waiting) > 1:
            self._waiting = [_grouped(pa.concat_tables(self._waiting))]
        self._bytes = sum(_bytes(table) for table in self._waiting)


def _grouped(table: pa.Table) -> pa.Table:
    found = table.group_by("key", use_threads=False).aggregate([("offset", "max")])
    return found.rename_columns(["key" if name == "key" else "offset" for name in found.column_names])


def _bytes(table: pa.Table) -> int:
    return table.nbytes + ENTRY_BYTES * table.num_rows
