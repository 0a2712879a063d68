"""Aggregates: of a group for ever, and where those of windows are made."""

from __future__ import annotations

import polars as pl

from headwater.streams.frames import MAIN, WM
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Operator, Outputs, operator
from headwater.streams.ops.sessions import Sessions
from headwater.streams.ops.sliding import Sliding
from headwater.streams.ops.stored import Stored
from headwater.streams.ops.summing import WEIGHTS, Sums, unlike
from headwater.streams.ops.windowed import Windowed
from headwater.streams.state.changes import changed
from headwater.streams.state.keyed import DEAD, FOUND, Keyed


@operator(Aggregate)
def make(node: Aggregate, context: Context) -> Operator:
    """The operator of an aggregate, by its window."""
    if node.window is None:
        return Running(node, context)
    if node.window.kind == "session":
        return Sessions(node, context)
    if node.window.kind == "sliding":
        return Sliding(node, context)
    return Windowed(node, context)


class Running(Stored):
    """Sums by group without a window. Rows are summed up once a micro-batch; touched groups are put out.

    A group of a table whose last row has gone is gone itself.
    """

    def __init__(self, node: Aggregate, context: Context) -> None:
        self._sums = Sums(node, context)
        self._by = list(node.by)
        self._names = list(node.schema)
        self.store = Keyed(node.by, self._sums.schema, nulls=True, memory_max=context.memory_max, spill=context.spill)
        self._rows: list[pl.DataFrame] = []

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Rows wait for the end of the micro-batch."""
        self._rows.append(frame.select(self._sums.inputs))
        return ()

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """The touched groups, as they were and as they are."""
        if not self._rows:
            return
        partial = self._sums.partial(self._rows, self._by)
        self._rows = []
        before, after = self._summed(partial)
        dead = pl.col(WEIGHTS) <= 0 if self._sums.is_table else pl.lit(value=False)
        after = after.with_columns(dead.alias(DEAD))
        alive = after.filter(~pl.col(DEAD))
        self.store.put(after, alive.height - before.height)
        old, new = self._sums.results(before, watermark), self._sums.results(alive.drop(DEAD), watermark)
        if new.height:
            newest = new.get_column(WM).max()
            old = old.with_columns(pl.lit(newest, pl.Int64).alias(WM))
        yield MAIN, changed(*unlike(old, new, self._by))

    def _summed(self, partial: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The sums of the groups of ``partial`` that are stored, and of all of them with ``partial`` added."""
        found = self.store.find(partial)
        known, names = found.get_column(FOUND), list(self.store.columns)
        partial = partial[names]
        if not known.any():
            return partial.clear(), partial
        before = partial[self._by].hstack(found)
        if known.all():
            before = before[names]
            return before, self._sums.merged([before, partial], self._by)
        before = before.filter(known)[names]
        after = self._sums.merged([before, partial.filter(known)], self._by)
        return before, pl.concat([after[names], partial.filter(~known)])

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Groups with their values."""
        return self._sums.results(self.store.query(keys), 0).select(self._names)
