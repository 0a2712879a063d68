"""Tumbling and hopping windows. Rows are summed up by pane, the piece of time that lies in the same windows.

A micro-batch may bring rows of very many windows, as when a job catches up with a year of hours. Then panes are not
looked at one by one: rows are summed up by pane and group at once, and windows that close together come out together.

With final results the sums of each micro-batch are only put aside, and a window's are added up once, when it closes.
With updates each window has a table of its sums, and touched groups are put out after each micro-batch.

A row counts for the windows that were still open for it: those whose end and grace lie above its ``_wm``. Of a hopping
row's windows the older ones may be closed, so its sums bear the first window that they count for. (Panes: Li et al., No
Pane, No Gain, SIGMOD Record 2005.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import polars as pl

from headwater.limits import STREAMS_WAITING_ROWS
from headwater.streams.frames import LATE, MAIN, TIME, WM
from headwater.streams.model import Aggregate
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.summing import Sums, chosen, unlike
from headwater.streams.state.changes import changed, weighted

PANE = "_pane"
FROM = "_from"
WINDOW = "_window"
PARTIAL = "partial"  # tags of deltas
TABLE = "table"
FILTERS_MAX = 16  # panes of one frame that are picked out one by one, and windows that are closed so
PARTS_MAX = 8  # partial sums of a pane that need not be added up before its window closes


class Windowed(Operator):
    """Windows of equal size, side by side or overlapping."""

    def __init__(self, node: Aggregate, context: Context) -> None:
        assert node.window is not None
        self._sums = Sums(node, context)
        self._by = list(node.by)
        self._names = list(node.schema)
        self._updates = node.emit == "update"
        window = node.window
        self._size, self._step, self._grace, self._offset = window.size, window.advance, window.grace, window.offset
        self.behind = 0 if self._updates else window.grace
        self._hops = window.size > window.advance
        self._keys = [*([FROM] if self._hops else []), *self._by]
        self._columns = [*self._sums.schema, PANE, *([FROM] if self._hops else [])]  # of partial sums
        self._waiting: dict[tuple[int, int], list[pl.DataFrame]] = {}  # by pane and first window, in no sum yet
        self._mixed: list[pl.DataFrame] = []  # rows of many panes, in no sum yet
        self._rows = 0
        self._panes: dict[int, list[pl.DataFrame]] = {}  # partial sums by pane, for final results
        self._tables: dict[int, pl.DataFrame] = {}  # sums by window, for updates
        self._closed = Closed()
        self._fresh: list[pl.DataFrame] = []  # partial sums that no delta holds yet

    # -- rows come -------------------------------------------------------------------------------------

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Rows that are late for all their windows are put out; the others wait to be summed up."""
        times, limit = frame.get_column(TIME), self._size + self._grace
        low, high = self._pane(_least(times)), self._pane(_most(times))
        may_be_late = low + limit <= _most(frame.get_column(WM))
        if may_be_late or self._hops or self._mixed or high - low > self._step:
            pane = ((times - self._offset) // self._step) * self._step + self._offset
            rows = frame.with_columns(pane.alias(PANE))
            if may_be_late:
                late = (pane + limit) <= frame.get_column(WM)
                yield LATE, frame.filter(late)
                rows = rows.filter(~late)
                if not rows.height:
                    return
            parts, height = self._parted(rows), rows.height
        else:
            parts, height = self._halved(frame, low, high), frame.height
        for at, part in parts:
            self._waiting.setdefault(at, []).append(part)
        self._rows += height
        if self._rows >= STREAMS_WAITING_ROWS:
            self._sum_up()

    def _pane(self, time: int) -> int:
        """The pane of an event time."""
        return (time - self._offset) // self._step * self._step + self._offset

    def _first_open(self) -> pl.Expr:
        """The first window that a row counts for."""
        closed = pl.col(WM) - self._size - self._grace - self._offset
        after_closed = (closed // self._step) * self._step + self._offset + self._step
        return pl.max_horizontal(pl.col(PANE) - self._size + self._step, after_closed)

    def _waiting_panes(self) -> Iterator[int]:
        """Panes of rows that are in no sum yet; of a mixed frame the oldest."""
        yield from (pane for pane, _ in self._waiting)
        yield from (frame.select(pl.col(PANE).min()).item() for frame in self._mixed)

    def _parted(self, rows: pl.DataFrame) -> Iterator[tuple[tuple[int, int], pl.DataFrame]]:
        """What is to be summed up, by pane and first window.

        Groups of one key are summed up several times as fast as those of three; but not if there are many panes, of
        which each costs more than its rows.
        """
        if self._hops:
            rows = rows.with_columns(self._first_open().alias(FROM))
        columns = [PANE, FROM] if self._hops else [PANE]
        places: list[tuple[int, ...]] = rows[columns].unique(maintain_order=True).rows()
        if self._mixed or len(places) > FILTERS_MAX:
            self._mixed.append(rows.select(*columns, *self._sums.inputs))  # once begun, so that rows stay in order
        elif len(places) == 1:
            yield (places[0][0], places[0][-1]), rows[self._sums.inputs]
        else:
            inputs = rows[self._sums.inputs]
            for place in places:
                chosen = rows.get_column(PANE) == place[0]
                if self._hops:
                    chosen &= rows.get_column(FROM) == place[1]
                yield (place[0], place[-1]), inputs.filter(chosen)

    def _halved(self, frame: pl.DataFrame, low: int, high: int) -> Iterator[tuple[tuple[int, int], pl.DataFrame]]:
        """The same of rows of two panes side by side, or of one: a comparison of times says which."""
        inputs = frame[self._sums.inputs]
        if low == high:
            yield (low, low), inputs
            return
        older = frame.get_column(TIME) < high
        yield (low, low), inputs.filter(older)
        yield (high, high), inputs.filter(~older)

    def _sum_up(self, below: int | None = None) -> list[pl.DataFrame]:
        """Waiting rows into partial sums; with ``below`` those of older panes alone, and all of mixed frames."""
        made = []
        due = sorted(at for at in self._waiting if below is None or at[0] < below)
        for pane, first in due:
            frames = self._waiting.pop((pane, first))
            self._rows -= sum(frame.height for frame in frames)
            partial = self._sums.partial(frames, self._by).with_columns(pl.lit(pane, pl.Int64).alias(PANE))
            if self._hops:
                partial = partial.with_columns(pl.lit(first, pl.Int64).alias(FROM))
            made.append(partial.select(self._columns))
        self._fresh += made
        if self._mixed:
            self._rows -= sum(frame.height for frame in self._mixed)
            partial = self._sums.partial(self._mixed, [PANE, *self._keys]).select(self._columns)
            self._mixed = []
            self._fresh.append(partial)
            made += by_pane(partial)
        for partial in () if self._updates else made:
            self._put(partial)
        return made

    def _put(self, partial: pl.DataFrame) -> None:
        """Partial sums of one pane to the others of it."""
        pane = partial.get_column(PANE)[0]
        held = self._panes.setdefault(pane, [])
        held.append(partial)
        # Geometrically, so that each sum is added up a few times at most, however many commits a window sees.
        while len(held) > PARTS_MAX and held[-2].height < 2 * held[-1].height:
            held[-2:] = [self._merged(held[-2:], pane)]

    def _merged(self, parts: Sequence[pl.DataFrame], pane: int) -> pl.DataFrame:
        """Partial sums of one pane as one frame."""
        whole = self._sums.merged(parts, self._keys)
        return whole.with_columns(pl.lit(pane, pl.Int64).alias(PANE)).select(self._columns)

    # -- time passes -----------------------------------------------------------------------------------

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Updates of touched windows, or the results of those that close; what has closed is forgotten."""
        if self._updates:
            for window, touched in self._by_window(self._sum_up()):
                yield from self._updated(window, touched, watermark)
            self._forget(self._tables, watermark)
            return
        if watermark == self._closed.at:
            return
        limit = self._size + self._grace
        low = min([*self._panes, *self._waiting_panes()], default=None)
        if low is None or low - self._size + self._step + limit > watermark:
            return
        # Rows of windows that stay open wait on: to sum them up in pieces, and these later, costs half as much again.
        self._sum_up(below=self._pane(watermark - limit) + self._size)
        closing = self._closing(watermark)
        if len(closing) > FILTERS_MAX and not self._hops:
            parts = [part for window in closing for part in self._panes.get(window, ())]
            sums = self._sums.merged(parts, [PANE, *self._by]).sort(PANE)
            yield MAIN, self._results(sums, watermark, pl.col(PANE))
        else:
            for window in closing:
                found = self._window(window)
                if found is not None:
                    yield MAIN, self._results(found, watermark, window)
        self._forget(self._panes, watermark)

    def _closing(self, watermark: int) -> list[int]:
        """Windows that hold something and close now, the oldest first."""
        limit = self._size + self._grace
        windows = {pane - back for pane in self._panes for back in range(0, self._size, self._step)}
        return sorted(window for window in windows if self._closed.at < window + limit <= watermark)

    def _window(self, window: int) -> pl.DataFrame | None:
        """The sums of one window, from its panes."""
        parts = [
            part.filter(pl.col(FROM) <= window) if self._hops else part
            for pane in range(window, window + self._size, self._step)
            for part in self._panes.get(pane, ())
        ]
        parts = [part.select(self._sums.schema.keys()) for part in parts if part.height]
        if not parts:
            return None
        return parts[0] if len(parts) == 1 and not self._hops else self._sums.merged(parts, self._by)

    def _forget(self, held: dict[int, list[pl.DataFrame]] | dict[int, pl.DataFrame], watermark: int) -> None:
        closed = [start for start in held if start + self._size + self._grace <= watermark]
        for start in closed:
            del held[start]
        if closed or (self._hops and not self._updates):
            self._closed.move(watermark)

    def _by_window(self, partials: Sequence[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Partial sums, each of one pane, by the windows that they count for, the oldest first."""
        found: dict[int, list[pl.DataFrame]] = {}
        for part in partials:
            pane = part.get_column(PANE)[0]
            for back in range(0, self._size, self._step):
                mine = part.filter(pl.col(FROM) <= pane - back) if self._hops else part
                if mine.height:
                    found.setdefault(pane - back, []).append(mine.select(self._sums.schema.keys()))
        for window in sorted(found):
            parts = found[window]
            yield window, parts[0] if len(parts) == 1 and not self._hops else self._sums.merged(parts, self._by)

    def _updated(self, window: int, touched: pl.DataFrame, watermark: int) -> Outputs:
        table = self._tables.get(window)
        if table is None:
            self._tables[window] = touched
            yield MAIN, weighted(self._results(touched, watermark, window), 1)
            return
        before = table.join(touched, on=self._by, how="semi", nulls_equal=True)
        rest = table.join(touched, on=self._by, how="anti", nulls_equal=True)
        after = self._sums.merged([before, touched], self._by)
        self._tables[window] = pl.concat([rest, after.select(rest.columns)])
        old, new = self._results(before, watermark, window), self._results(after, watermark, window)
        yield MAIN, changed(*unlike(old, new, self._by))

    def _results(self, sums: pl.DataFrame, watermark: int, window: int | pl.Expr) -> pl.DataFrame:
        start = pl.lit(window, pl.Int64) if isinstance(window, int) else window
        return self._sums.results(sums, watermark, (start, start + self._size))

    # -- state -----------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """The partial sums of the micro-batch, and how far windows have closed."""
        self._sum_up()
        fresh, self._fresh = self._fresh, []
        return [*(Delta(PARTIAL, partial) for partial in fresh), *self._closed.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All open windows."""
        self._sum_up()
        self._fresh = []
        for pane, parts in self._panes.items():
            yield Delta(PARTIAL, self._merged(parts, pane) if len(parts) > 1 else parts[0])
        for window, table in self._tables.items():
            yield Delta(TABLE, table.with_columns(pl.lit(window, pl.Int64).alias(WINDOW)))
        yield self._closed.delta()

    def restore(self, delta: Delta) -> None:
        """Take back sums, or what has closed."""
        if self._closed.restores(delta):
            for held in (self._panes, self._tables):
                for start in [start for start in held if start + self._size + self._grace <= self._closed.at]:
                    del held[start]
        elif delta.tag == TABLE:
            self._tables[delta.frame.get_column(WINDOW)[0]] = delta.frame.drop(WINDOW)
        elif self._updates:
            for window, touched in self._by_window(by_pane(delta.frame)):
                table = self._tables.get(window)
                self._tables[window] = touched if table is None else self._sums.merged([table, touched], self._by)
        else:
            for partial in by_pane(delta.frame.select(self._columns)):
                self._put(partial)

    def size(self) -> Size:
        """Sums that are held."""
        frames = [*(part for parts in self._panes.values() for part in parts), *self._tables.values()]
        frames += [*(each for waiting in self._waiting.values() for each in waiting), *self._mixed]
        return Size.of(frames)

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """The open windows, as they stand."""
        self._sum_up()
        if self._updates:
            windows = dict(self._tables)
        else:
            starts = sorted({pane - back for pane in self._panes for back in range(0, self._size, self._step)})
            windows = {start: sums for start in starts if (sums := self._window(start)) is not None}
        none = self._results(pl.DataFrame(schema=self._sums.schema), 0, 0)
        found = [self._results(sums, 0, start) for start, sums in sorted(windows.items())]
        return chosen(pl.concat([none, *found]).select(self._names), keys, self._by)


def by_pane(partial: pl.DataFrame) -> list[pl.DataFrame]:
    """Partial sums of any panes, cut into frames of one, the oldest first."""
    ordered = partial.sort(PANE)
    runs = ordered.get_column(PANE).rle().struct.field("len").to_list()
    ends = list(accumulate(runs))
    return [ordered.slice(end - count, count) for end, count in zip(ends, runs, strict=True)]


def _least(times: pl.Series) -> int:
    found = times.min()
    assert isinstance(found, int), "frames are never empty, and times never null"
    return found


def _most(times: pl.Series) -> int:
    found = times.max()
    assert isinstance(found, int), "frames are never empty, and times never null"
    return found
