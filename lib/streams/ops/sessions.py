"""Sessions: runs of a group's rows with at most a gap between neighbours.

A row is late if its time and the grace lie below its ``_wm``. A session closes once its last row, the gap and the grace
lie below the watermark: no row that is on time can belong to it any more, so what a session holds never depends on when
somebody looks. Its window begins with its first row and ends a gap behind the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from headwater.streams.frames import LATE, MAIN, TIME, WM
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.summing import Sums, chosen
from headwater.streams.state.changes import changed

START = "_start"
LAST = "_last"
PARTIAL = "partial"
_RUN = "_run"


class Sessions(Operator):
    """Open sessions as partial sums with their first and last time."""

    def __init__(self, node: Aggregate, context: Context) -> None:
        assert node.window is not None
        self._sums = Sums(node, context)
        self._by = list(node.by)
        self._names = list(node.schema)
        self._updates = node.emit == "update"
        self._gap, self._grace = node.window.gap, node.window.grace
        self.behind = 0 if self._updates else self._grace + 1
        self._inputs = list(dict.fromkeys([*self._sums.inputs, TIME]))
        self._schema = {**self._sums.schema, START: pl.Int64(), LAST: pl.Int64()}
        self._open = pl.DataFrame(schema=self._schema)
        self._waiting: list[pl.DataFrame] = []
        self._fresh: list[pl.DataFrame] = []
        self._back: list[pl.DataFrame] = []
        self._closed = Closed()

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Late rows out; the others wait."""
        late = frame.get_column(TIME) + self._grace < frame.get_column(WM)
        if late.any():
            yield LATE, frame.filter(late)
            frame = frame.filter(~late)
        if frame.height:
            self._waiting.append(frame.select(self._inputs))

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Updates of touched sessions; results of those that close."""
        if self._updates:
            before, after = self._take_in()
            if after.height:
                old, new = self._results(before, watermark), self._results(after, watermark)
                yield MAIN, changed(old, new)
        if watermark == self._closed.at:
            return
        first = [each.get_column(TIME).min() for each in self._waiting]
        if self._open.height:
            first.append(self._open.get_column(LAST).min())
        if not first or min(first) + self._gap + self._grace >= watermark:  # type: ignore[type-var, operator]
            return
        self._take_in()
        over = self._open.get_column(LAST) + self._gap + self._grace < watermark
        if over.any():
            if not self._updates:
                yield MAIN, self._results(self._open.filter(over), watermark).sort(TIME, maintain_order=True)
            self._open = self._open.filter(~over)
            self._closed.move(watermark)

    def _take_in(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Waiting rows into sessions: those that were touched, as they were and as they are."""
        if not self._waiting:
            return self._open.clear(), self._open.clear()
        rows = pl.concat(self._waiting, rechunk=True).sort([*self._by, TIME], maintain_order=True)
        self._waiting = []
        gone_by = (pl.col(TIME) - pl.col(TIME).shift(1)) > self._gap
        begins = pl.any_horizontal(gone_by, *self._changes()).fill_null(value=True)
        partial = (
            rows.with_columns(begins.cum_sum().alias(_RUN))
            .group_by(_RUN, maintain_order=True)
            .agg(
                *(pl.col(name).first() for name in self._by),
                *self._sums.partial_exprs,
                pl.col(TIME).first().alias(START),
                pl.col(TIME).last().alias(LAST),
            )
        )
        partial = partial.select(self._schema.keys())
        self._fresh.append(partial)
        return self._join(partial)

    def _join(self, partial: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Merge new sessions with the open ones of their groups."""
        groups = partial.select(self._by).unique()
        mine = self._open.join(groups, on=self._by, how="semi", nulls_equal=True)
        rest = self._open.join(groups, on=self._by, how="anti", nulls_equal=True)
        both = pl.concat(
            [mine.with_columns(_new=pl.lit(value=False)), partial.with_columns(_new=pl.lit(value=True))], rechunk=True
        )
        both = both.sort([*self._by, START], maintain_order=True)
        both = both.with_columns(self._runs(both))
        after = both.group_by(_RUN, maintain_order=True).agg(
            *(pl.col(name).first() for name in self._by),
            *self._sums.merge_exprs,
            pl.col(START).min(),
            pl.col(LAST).max(),
            pl.col("_new").any(),
        )
        touched = after.filter("_new").select(_RUN)
        before = both.filter(~pl.col("_new")).join(touched, on=_RUN, how="semi", maintain_order="left")
        self._open = pl.concat([rest, after.select(self._schema.keys())])
        return before.select(self._schema.keys()), after.filter("_new").select(self._schema.keys())

    def _changes(self) -> list[pl.Expr]:
        """Where another group begins, of rows that are sorted by group."""
        return [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in self._by]

    def _runs(self, sessions: pl.DataFrame) -> pl.Series:
        """A number for each run of the sorted sessions: it grows with each group, and where more than a gap lies behind
        all that came before in its group.

        Group and time are packed into one integer, of which one pass over all groups finds the newest so far.
        """
        low, high = sessions.get_column(LAST).min(), sessions.get_column(LAST).max()
        if not isinstance(low, int) or not isinstance(high, int):
            return pl.Series(_RUN, [], dtype=pl.UInt32)
        span = high - low + 1
        group = pl.any_horizontal(pl.lit(value=False), *self._changes()).cum_sum().cast(pl.Int64)
        numbered = sessions.select(START, LAST, group.alias("group"))
        if span * (sessions.height + 1) < 1 << 63:
            packed = pl.col("group") * span + (pl.col(LAST) - low)
            before = packed.cum_max().shift(1) - pl.col("group") * span + low  # below ``low``: of another group
            begins = (before < low) | (pl.col(START) - before > self._gap)
        else:
            before = pl.col(LAST).cum_max().shift(1).over("group")
            begins = pl.col(START) - before > self._gap
        return numbered.select(begins.fill_null(value=True).cum_sum().alias(_RUN)).to_series()

    def _results(self, sessions: pl.DataFrame, watermark: int) -> pl.DataFrame:
        return self._sums.results(sessions, watermark, (pl.col(START), pl.col(LAST) + self._gap))

    # -- state -----------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """The sessions of the micro-batch by themselves, and how far sessions have closed."""
        self._take_in()
        fresh, self._fresh = self._fresh, []
        return [*(Delta(PARTIAL, partial) for partial in fresh), *self._closed.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All open sessions."""
        self._take_in()
        self._fresh = []
        if self._open.height:
            yield Delta(PARTIAL, self._open)
        yield self._closed.delta()

    def restore(self, delta: Delta) -> None:
        """Take back sessions, or what has closed."""
        if not self._closed.restores(delta):
            self._back.append(delta.frame)

    def restored(self) -> None:
        """Merge what came back. A session that has closed is merged with nothing, so it can go last."""
        if self._back:
            self._join(pl.concat(self._back))
            self._back = []
        self._open = self._open.filter(pl.col(LAST) + self._gap + self._grace >= self._closed.at)

    def size(self) -> Size:
        """Open sessions, and rows that wait."""
        return Size.of([self._open, *self._waiting])

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Open sessions as they stand."""
        self._take_in()
        return chosen(self._results(self._open, 0).select(self._names), keys, self._by)
