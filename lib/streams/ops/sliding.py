"""Sliding windows: for each row the sums of its group over the time that ends with it.

A result is given once, when the watermark has passed the row's time and the grace, so it is exact. Rows of a group with
the same time share one result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from headwater.streams.frames import LATE, MAIN, TIME, WM
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.summing import Sums, chosen
from headwater.streams.state.changes import weighted

ROWS = "rows"
_PLACE = "_place"


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
        self._done = Closed()  # results were given of rows whose time and grace lie below

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
        if watermark == self._done.at or not self._any_ready(watermark):
            return
        ready = pl.col(TIME) + self._grace
        rows = pl.concat(self._rows, rechunk=True).sort(TIME, maintain_order=True)
        made = (
            self._rolled(rows.filter(ready < watermark))
            .filter(ready >= self._done.at)
            .unique([*self._by, TIME], maintain_order=True)
            .sort(TIME, maintain_order=True)
        )
        yield MAIN, self._results(made, watermark)
        self._rows = [rows.filter(ready + self._size >= watermark)]
        self._done.move(watermark)

    def _any_ready(self, watermark: int) -> bool:
        for each in self._rows:
            ready = (each.get_column(TIME) + self._grace).is_between(self._done.at, watermark - 1)
            if ready.any():
                return True
        return False

    def _results(self, made: pl.DataFrame, watermark: int) -> pl.DataFrame:
        rows = self._sums.results(made, watermark, (pl.col(TIME) - self._size, pl.col(TIME) + 1))
        return weighted(rows, 1) if self._updates else rows

    def _rolled(self, rows: pl.DataFrame) -> pl.DataFrame:
        """For each of the rows, sorted by time, the sums of its window.

        Group and time are packed into one integer, with more than a window between two groups: so one pass rolls over
        all of them, in a fraction of the time that it takes group by group.
        """
        low, high = rows.get_column(TIME).min(), rows.get_column(TIME).max()
        rows = rows.sort(self._by, maintain_order=True)
        changes = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in self._by]
        group = pl.any_horizontal(pl.lit(value=False), *changes).cum_sum().cast(pl.Int64)
        if not isinstance(low, int) or not isinstance(high, int):
            low = high = 0
        span = high - low + self._size + 2
        if span * (rows.height + 1) >= 1 << 63:
            windows = rows.rolling(TIME, period=f"{self._size + 1}i", group_by=self._by, closed="right")
            return windows.agg(self._sums.partial_exprs)
        packed = rows.with_columns((group * span + (pl.col(TIME) - low)).alias(_PLACE))
        rolled = packed.rolling(_PLACE, period=f"{self._size + 1}i", closed="right").agg(self._sums.partial_exprs)
        return rows.select(*self._by, TIME).hstack(rolled.drop(_PLACE))

    # -- state -----------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """New rows, and how far results were given."""
        found = [Delta(ROWS, pl.concat(self._fresh))] if self._fresh else []
        self._fresh = []
        return [*found, *self._done.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All rows that are held."""
        self._fresh = []
        if self._rows:
            yield Delta(ROWS, pl.concat(self._rows))
        yield self._done.delta()

    def restore(self, delta: Delta) -> None:
        """Take back rows, or how far results were given."""
        if not self._done.restores(delta):
            self._rows.append(delta.frame)

    def restored(self) -> None:
        """Forget the rows that no result needs any more."""
        if self._rows:
            rows = pl.concat(self._rows)
            self._rows = [rows.filter(pl.col(TIME) + self._grace + self._size >= self._done.at)]

    def size(self) -> Size:
        """Rows that are held."""
        return Size.of(self._rows)

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Of each group that has one, the sums as of its newest row whose result was not given yet.

        Rows of older ones' windows may be gone, so sums as of them would lack something.
        """
        if not self.size().rows:
            newest = pl.DataFrame(schema={**self._sums.schema, TIME: pl.Int64()})
        else:
            rows = pl.concat(self._rows, rechunk=True).sort(TIME, maintain_order=True)
            waiting = self._rolled(rows).filter(pl.col(TIME) + self._grace >= self._done.at)
            newest = waiting.unique(self._by, keep="last", maintain_order=True)
        return chosen(self._results(newest, 0).select(self._names), keys, self._by)
