"""Sliding windows: for each row the sums of its group over the time that ends with it.

A result is given once, when the watermark has passed the row's time and the grace, so it is exact. Rows of a group with
the same time share one result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from headwater.streams.frames import LATE, MAIN, NEVER, TIME, WEIGHT, WINDOW_END, WINDOW_START, WM
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.summing import Sums

ROWS = "rows"
DONE = "done"


class Sliding(Operator):
    """Rows of the last ``size``, and those that wait for their time."""

    def __init__(self, node: Aggregate, context: Context) -> None:
        assert node.window is not None
        self._sums = Sums(node, context)
        self._by = list(node.by)
        self._names = list(node.schema)
        self._updates = node.emit == "update"
        self._size, self._grace = node.window.size, node.window.grace
        self.behind = 0 if self._updates else self._grace
        self._inputs = list(dict.fromkeys([*self._sums.inputs, TIME]))
        self._rows: list[pl.DataFrame] = []
        self._fresh: list[pl.DataFrame] = []
        self._done = NEVER  # results were given of rows whose time and grace lie below
        self._news = False

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Late rows out; the others wait."""
        late = frame.get_column(TIME) + self._grace < frame.get_column(WM)
        if late.any():
            yield LATE, frame.filter(late)
            frame = frame.filter(~late)
        if frame.height:
            rows = frame.select(self._inputs)
            self._rows.append(rows)
            self._fresh.append(rows)

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Results of the rows whose time has come."""
        if watermark == self._done or not self._rows:
            return
        ready = pl.col(TIME) + self._grace
        oldest = min(each.get_column(TIME).max() for each in self._rows)  # type: ignore[type-var]
        if oldest is None or not self._any_ready(watermark):
            return
        rows = pl.concat(self._rows, rechunk=True).sort(TIME, maintain_order=True)
        known = rows.filter(ready < watermark)
        made = (
            known.rolling(TIME, period=f"{self._size + 1}i", group_by=self._by, closed="right")
            .agg(self._sums.partial_exprs)
            .filter(ready >= self._done)
            .unique([*self._by, TIME], maintain_order=True)
            .sort(TIME, maintain_order=True)
        )
        yield MAIN, self._results(made, watermark)
        self._rows = [rows.filter(ready + self._size >= watermark)]
        self._done, self._news = watermark, True

    def _any_ready(self, watermark: int) -> bool:
        for each in self._rows:
            ready = (each.get_column(TIME) + self._grace).is_between(self._done, watermark - 1)
            if ready.any():
                return True
        return False

    def _results(self, made: pl.DataFrame, watermark: int) -> pl.DataFrame:
        moment = pl.Datetime("ms", "UTC")
        rows = made.with_columns(self._sums.final_exprs).with_columns(
            (pl.col(TIME) - self._size).cast(pl.Datetime("ms")).cast(moment).alias(WINDOW_START),
            (pl.col(TIME) + 1).cast(pl.Datetime("ms")).cast(moment).alias(WINDOW_END),
            pl.min_horizontal(pl.lit(watermark, pl.Int64), pl.col(TIME)).alias(WM),
        )
        rows = rows.select(*self._names, TIME, WM)
        return rows.with_columns(pl.lit(1, pl.Int8).alias(WEIGHT)) if self._updates else rows

    # -- state -----------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """New rows, and how far results were given."""
        found = [Delta(ROWS, pl.concat(self._fresh))] if self._fresh else []
        self._fresh = []
        if self._news:
            found.append(Delta(DONE, pl.DataFrame({DONE: [self._done]})))
            self._news = False
        return found

    def snapshot(self) -> Iterable[Delta]:
        """All rows that are held."""
        self._fresh = []
        if self._rows:
            yield Delta(ROWS, pl.concat(self._rows))
        yield Delta(DONE, pl.DataFrame({DONE: [self._done]}))

    def restore(self, delta: Delta) -> None:
        """Take back rows, or how far results were given."""
        if delta.tag == DONE:
            self._done = max(self._done, delta.frame.item())
        else:
            self._rows.append(delta.frame)

    def restored(self) -> None:
        """Forget the rows that no result needs any more."""
        if self._rows:
            rows = pl.concat(self._rows)
            self._rows = [rows.filter(pl.col(TIME) + self._grace + self._size >= self._done)]

    def size(self) -> Size:
        """Rows that are held."""
        return Size(sum(each.height for each in self._rows), int(sum(each.estimated_size() for each in self._rows)))

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Of each group the sums as of its newest row that is held."""
        empty = pl.DataFrame(schema={**self._sums.schema, TIME: pl.Int64()})
        rows = pl.concat(self._rows, rechunk=True).sort(TIME, maintain_order=True) if self._rows else None
        if rows is None or not rows.height:
            return self._results(empty, 0).select(self._names)
        made = rows.rolling(TIME, period=f"{self._size + 1}i", group_by=self._by, closed="right")
        newest = made.agg(self._sums.partial_exprs).unique(self._by, keep="last", maintain_order=True)
        found = self._results(newest, 0).select(self._names)
        return found if keys is None else found.join(keys.select(self._by).unique(), on=self._by, how="semi")
