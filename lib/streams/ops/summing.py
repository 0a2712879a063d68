"""What all aggregates share: partial sums of rows, sums of these, and results."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from headwater.streams.frames import TIME, WEIGHT, WINDOW_END, WINDOW_START, WM
from headwater.streams.model import Aggregate, Schema
from headwater.streams.operator import Context

NEWEST = "_newest"  # the newest event time among the rows of a partial sum
WEIGHTS = "_weights"  # how many rows of a table a partial sum holds


class Sums:
    """The aggregates of a node: from rows to partial sums, to fewer of them, to values."""

    def __init__(self, node: Aggregate, context: Context) -> None:
        self._by = list(node.by)
        self.is_table = context.tables[0]
        self._names = list(node.schema)
        extra = [pl.col(TIME).max().alias(NEWEST)]
        again = [pl.col(NEWEST).max()]
        if self.is_table:
            extra.append(pl.col(WEIGHT).cast(pl.Int64).sum().alias(WEIGHTS))
            again.append(pl.col(WEIGHTS).sum())
        weighted = self.is_table
        self.partial_exprs = [expr for name, agg in node.aggs for expr in agg.partial(name, weighted=weighted)] + extra
        self.merge_exprs = [expr for name, agg in node.aggs for expr in agg.merge(name)] + again
        self.final_exprs = [agg.final(name) for name, agg in node.aggs]
        inputs = dict(context.inputs[0])
        self.schema: Schema = self._types({**inputs, TIME: pl.Int64(), WEIGHT: pl.Int8()})
        used = {name for expr in self.partial_exprs for name in expr.meta.root_names()}
        self.inputs = [name for name in (*inputs, TIME, WEIGHT) if name in used or name in self._by]

    def partial(self, frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
        """Partial sums of rows by ``keys``. Groups come in any order."""
        rows = pl.concat(frames)
        return rows.group_by(keys).agg(self.partial_exprs)

    def merged(self, partials: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
        """Sums of partial sums by ``keys``, older ones first."""
        return pl.concat(partials).group_by(keys).agg(self.merge_exprs)

    def results(
        self, sums: pl.DataFrame, watermark: int, window: tuple[pl.Expr, pl.Expr] | None = None
    ) -> pl.DataFrame:
        """Rows as users see them, with ``_time`` and ``_wm``; ``window`` is where each begins and ends, in ms."""
        time = pl.col(NEWEST) if window is None else window[1] - 1
        made = [*self.final_exprs, time.alias(TIME), pl.min_horizontal(pl.lit(watermark, pl.Int64), time).alias(WM)]
        if window is not None:
            made += [_moment(window[0]).alias(WINDOW_START), _moment(window[1]).alias(WINDOW_END)]
        return sums.with_columns(made)[[*self._names, TIME, WM]]

    def _types(self, inputs: Schema) -> Schema:
        empty = pl.LazyFrame(schema=inputs).group_by(self._by).agg(self.partial_exprs)
        return dict(empty.collect_schema())


def _moment(ms: pl.Expr) -> pl.Expr:
    return ms.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def chosen(rows: pl.DataFrame, keys: pl.DataFrame | None, by: Sequence[str]) -> pl.DataFrame:
    """The rows of the groups that a question names, or all."""
    return rows if keys is None else rows.join(keys.select(by).unique(), on=by, how="semi")


def unlike(before: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both without the rows that are the same on both sides, but for their times: no change is no news."""
    if not before.height or not after.height:
        return before, after
    names = [name for name in before.columns if name not in (TIME, WM)]
    same = before.join(after, on=names, how="semi", nulls_equal=True)
    if not same.height:
        return before, after
    gone = same.select(keys)
    return (
        before.join(gone, on=list(keys), how="anti", nulls_equal=True),
        after.join(gone, on=list(keys), how="anti", nulls_equal=True),
    )
