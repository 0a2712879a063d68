"""Tables: a topic whose newest record of a key is the row of that key (Kafka Streams' KTable and GlobalKTable)."""

from __future__ import annotations

import polars as pl

from headwater.streams.frames import MAIN, TIME, WEIGHT, WM
from headwater.streams.model import Materialize, Source
from headwater.streams.operator import Context, Outputs, operator
from headwater.streams.ops.stored import Stored
from headwater.streams.state.changes import newest, upsert
from headwater.streams.state.keyed import DEAD, Keyed


@operator(Materialize)
@operator(Source)
class Table(Stored):
    """Records become changes: the newest offset of a key wins, a tombstone deletes, what changes nothing is silent.

    A stream as a table (``to_table``) is the same without tombstones: the newest row of each key.

    Several records of a key in one frame are one change, as behind Kafka Streams' record cache. Records without a key
    are passed over, as Kafka Streams does.
    """

    def __init__(self, node: Source | Materialize, context: Context) -> None:
        self._names = list(node.schema)
        self._keys = node.by if isinstance(node, Materialize) else node.key or node.keys
        self.store = Keyed(
            self._keys,
            {**{name: node.schema[name] for name in self._names}, TIME: pl.Int64()},
            memory_max=context.memory_max,
            spill=context.spill,
        )

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Upserts and deletes in, changes out."""
        dead = pl.col(WEIGHT) < 0 if WEIGHT in frame.columns else pl.lit(value=False)
        rows = newest(frame, self._keys).select(*self._names, TIME, WM, dead.alias(DEAD))
        changes = upsert(self.store, rows, self._names)
        return [(MAIN, changes)] if changes.height else []

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of the table."""
        return self.store.query(keys).select(self._names)
