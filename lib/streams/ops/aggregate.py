"""Aggregates: of a group for ever, and where those of windows are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from headwater.streams.frames import MAIN
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size, operator
from headwater.streams.ops.sessions import Sessions
from headwater.streams.ops.sliding import Sliding
from headwater.streams.ops.summing import WEIGHTS, Sums, changes, unlike
from headwater.streams.ops.windowed import Windowed
from headwater.streams.state.groups import Groups
from headwater.streams.state.keyed import DEAD


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


class Running(Operator):
    """Sums by group without a window. Rows are summed up once a micro-batch; touched groups are put out.

    A group of a table whose last row has gone is gone itself.
    """

    def __init__(self, node: Aggregate, context: Context) -> None:
        self._sums = Sums(node, context)
        self._by = list(node.by)
        self._names = list(node.schema)
        self.store = Groups(node.by, self._sums.schema, memory_max=context.memory_max, spill=context.spill)
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
        before = self.store.find(partial)
        after = self._sums.merged([before, partial.select(before.columns)], self._by)
        if self._sums.is_table:
            after = after.with_columns((pl.col(WEIGHTS) <= 0).alias(DEAD))
            alive = after.filter(~pl.col(DEAD))
        else:
            after = after.with_columns(pl.lit(value=False).alias(DEAD))
            alive = after
        self.store.put(after, alive.height - before.height)
        old, new = self._sums.results(before, watermark), self._sums.results(alive.drop(DEAD), watermark)
        if new.height:
            newest = new.get_column("_wm").max()
            old = old.with_columns(pl.lit(newest, pl.Int64).alias("_wm"))
        old, new = unlike(old, new, self._by)
        yield MAIN, changes(old, new)

    def deltas(self) -> Sequence[Delta]:
        """Sums of touched groups."""
        return self.store.deltas()

    def snapshot(self) -> Iterable[Delta]:
        """All sums."""
        return self.store.snapshot()

    def restore(self, delta: Delta) -> None:
        """Take back sums."""
        self.store.restore(delta)

    def restored(self) -> None:
        """Merge what came back."""
        self.store.restored()

    def size(self) -> Size:
        """Of the store."""
        return self.store.size()

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Groups with their values."""
        found = self.store.all() if keys is None else self.store.find(keys.select(self._by))
        return self._sums.results(found, 0).select(self._names)

    def close(self) -> None:
        """Remove files."""
        self.store.close()
