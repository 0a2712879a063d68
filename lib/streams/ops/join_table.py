"""Streams meet a table: each row of the stream finds the row that the table has for it just then.

Kafka Streams' KStream-KTable join, and with a global table KStream-GlobalKTable. Within a step a table's changes are
taken before a stream's rows. A left join keeps what finds nothing; a null key finds nothing.
"""

from __future__ import annotations

import polars as pl

from headwater.streams.frames import MAIN, TIME, WEIGHT, WM
from headwater.streams.model import Join
from headwater.streams.operator import Context, Outputs
from headwater.streams.ops.columns import Columns, prefixed
from headwater.streams.ops.stored import Stored
from headwater.streams.state.changes import current
from headwater.streams.state.keyed import FOUND, Keyed


class StreamTableJoin(Stored):
    """Port 0 is the stream, port 1 the changes of the table. The table's rows are kept here by ``right_on``."""

    def __init__(self, node: Join, context: Context) -> None:
        self._node = node
        self._columns = Columns(node, context.inputs)
        self._right_on = list(node.right_on)
        self.store = Keyed(node.right_on, context.inputs[1], memory_max=context.memory_max, spill=context.spill)

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Changes of the table are stored, rows of the stream meet it."""
        if port == 1:
            self._change(frame)
            return ()
        result = self._meet(frame)
        return [(MAIN, result)] if result.height else []

    def _change(self, frame: pl.DataFrame) -> None:
        keyed = frame.drop_nulls(self._right_on)
        self.store.put(current(keyed, self._right_on), int(keyed.get_column(WEIGHT).cast(pl.Int64).sum()))

    def _meet(self, frame: pl.DataFrame) -> pl.DataFrame:
        met = self.store.find(frame, self._node.left_on)
        found = met.get_column(FOUND)
        both = frame.hstack(prefixed(met.drop(FOUND))).hstack(self._columns.key_columns(frame, found))
        if self._node.how == "inner" and not found.all():
            both = both.filter(found)
        return self._columns.select(both, TIME, WM)
