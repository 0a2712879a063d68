"""A table meets a global table: each of its rows finds the row that the global table has for it just then.

As in Kafka Streams, a change of the global table triggers nothing: every task has all of it, and reads it at a pace of
its own. What a row met is kept with it, so that it is taken back as it was given when the row changes or goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

import polars as pl

from headwater.streams.frames import MAIN, TIME, WM
from headwater.streams.model import Join
from headwater.streams.operator import Context, Delta, Outputs, Size
from headwater.streams.ops.columns import RIGHT, prefixed
from headwater.streams.ops.join_table import StreamTableJoin
from headwater.streams.state.changes import changed, current
from headwater.streams.state.keyed import DEAD, FOUND, Keyed


class TableGlobalJoin(StreamTableJoin):
    """Port 0 is the table, port 1 the changes of the global table, which are read anew in each life and not logged."""

    def __init__(self, node: Join, context: Context) -> None:
        super().__init__(node, context)
        self._left = list(context.inputs[0])
        self._names = list(node.schema)
        right = {RIGHT + name: dtype for name, dtype in context.inputs[1].items() if name not in node.right_on}
        # By all columns: a row is taken back as it was, whatever the table's key is.
        self.met = Keyed(
            self._left,
            {**context.inputs[0], **right},
            nulls=True,
            memory_max=context.memory_max // 2,
            spill=str(PurePath(context.spill, "met")) if context.spill else "",
        )

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Changes of the global table are stored, changes of the table meet it."""
        if port == 1:
            self._change(frame)
            return ()
        rows = current(frame, self._left, nulls=True)
        gone, come = self._taken_back(rows.filter(DEAD)), self._given(rows.filter(~pl.col(DEAD)))
        self.met.put(pl.concat([gone, come]).select(*self.met.columns, DEAD), come.height - gone.height)
        changes = changed(self._results(gone), self._results(come))
        return [(MAIN, changes)] if changes.height else ()

    def _taken_back(self, rows: pl.DataFrame) -> pl.DataFrame:
        stored = self.met.find(rows)
        return rows.hstack(stored).filter(FOUND).drop(FOUND).select(self._columns_met)

    def _given(self, rows: pl.DataFrame) -> pl.DataFrame:
        met = self.store.find(rows, self._node.left_on)
        both = rows.hstack(prefixed(met.drop(FOUND)))
        if self._node.how == "inner":
            both = both.filter(met.get_column(FOUND))
        return both.select(self._columns_met)

    @property
    def _columns_met(self) -> list[str]:
        return [*self.met.columns, TIME, WM, DEAD]

    def _results(self, rows: pl.DataFrame) -> pl.DataFrame:
        return self._columns.select(rows, TIME, WM)

    # -- state ---------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """Rows of the table that came or went, with what they met."""
        return self.met.deltas()

    def snapshot(self) -> Iterable[Delta]:
        """All rows of the result."""
        return self.met.snapshot()

    def restore(self, delta: Delta) -> None:
        """Take back rows."""
        self.met.restore(delta.frame)

    def restored(self) -> None:
        """Merge what came back."""
        self.met.restored()

    def size(self) -> Size:
        """Of both."""
        return self.store.size() + self.met.size()

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of the result; ``keys`` has columns of the table."""
        rows = self._columns.select(self.met.query(None))
        if keys is None:
            return rows
        on = [name for name in self._left if name in keys.columns]
        return rows.join(keys.select(pl.col(name).cast(rows.schema[name]) for name in on).unique(), on=on, how="semi")

    def close(self) -> None:
        """Remove spilled pages."""
        super().close()
        self.met.close()
