"""Partitions merged by timestamp, whole windows at a time.

The order is that of a k-way merge: of the next records of all partitions always the one with the least timestamp, the
lower partition first among equals. A partition keeps its offset order whatever its timestamps do; so the key of a
record is the greatest timestamp of its partition so far, and the merged stream is sorted by (key, partition, offset).

A window is what can be given out for certain. Let (key, partition) be the least of all partitions' last buffered
records. What comes later in any partition sorts behind that, so everything buffered up to there is ready: at least
all that is buffered of one partition, which is then read on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.upkeep.offload import Offload


@dataclass(slots=True)
class _Lane:
    """One partition: where it lies in the order of equals, what is buffered of it, and the keys of that."""

    rank: int
    batches: AsyncIterator[pa.RecordBatch]
    buffered: pa.RecordBatch | None = None
    keys: Any = None
    highest: int | None = None

    async def fill(self) -> None:
        """Buffer the next batch, if none is."""
        self.buffered = await anext(self.batches, None)
        if self.buffered is None:
            return
        times = self.buffered.column("timestamp").cast(pa.int64())
        start = None if self.highest is None else pa.scalar(self.highest, pa.int64())
        self.keys = pc.cumulative_max(times, start) if start is not None else pc.cumulative_max(times)
        self.highest = self.keys[-1].as_py()

    def take(self, limit: tuple[int, int]) -> tuple[pa.RecordBatch, Any] | None:
        """What sorts at or before ``limit``; the rest stays."""
        assert self.buffered is not None
        side = "right" if self.rank <= limit[1] else "left"
        count = pc.search_sorted(self.keys, pa.scalar(limit[0], pa.int64()), side=side).as_py()  # type: ignore[attr-defined]
        if not count:
            return None
        taken = self.buffered.slice(0, count), self.keys.slice(0, count)
        rest = self.buffered.slice(count)
        self.buffered, self.keys = (rest, self.keys.slice(count)) if rest.num_rows else (None, None)
        return taken


async def merged(
    lanes: Sequence[AsyncIterator[pa.RecordBatch]], schema: pa.Schema, offload: Offload
) -> AsyncIterator[pa.RecordBatch]:
    """The batches of all ``lanes``, each of one partition with a column ``timestamp``, merged; columns of ``schema``.

    Memory: one batch of each lane, and the window that is given out.
    """
    open_lanes = [_Lane(rank, batches) for rank, batches in enumerate(lanes)]
    try:
        for lane in open_lanes:
            await lane.fill()
        open_lanes = [lane for lane in open_lanes if lane.buffered is not None]
        while open_lanes:
            limit = min((lane.highest or 0, lane.rank) for lane in open_lanes)
            parts = [part for lane in open_lanes if (part := lane.take(limit)) is not None]
            yield await offload(_sorted, parts, schema)
            for lane in open_lanes:
                if lane.buffered is None:
                    await lane.fill()
            open_lanes = [lane for lane in open_lanes if lane.buffered is not None]
    finally:
        for batches in lanes:
            await batches.aclose()  # type: ignore[attr-defined]


def _sorted(parts: list[tuple[pa.RecordBatch, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """One batch of all parts, by key; equals stay in the order of the parts, and these are in that of partitions."""
    rows = [part.select(schema.names) for part, _ in parts]
    if len(rows) == 1:
        return rows[0]
    table = pa.Table.from_batches(rows)
    order = pc.sort_indices(pa.chunked_array([keys for _, keys in parts]))
    table = table.take(order).combine_chunks()
    return table.to_batches()[0]
