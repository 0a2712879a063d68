"""Groups folded by a Python function, in order of arrival. A Python call for each row: about 0.3 M rows/s at best.

Of one group the rows of different source partitions arrive in an order that nothing decides; a function whose result
depends on it is not the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams.frames import FAILED, LATE, MAIN, SYSTEM, TIME, WINDOW_END, WINDOW_START, WM
from headwater.streams.model import Reduce
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size, operator
from headwater.streams.ops.apply import refused, said
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.summing import chosen
from headwater.streams.state.changes import changed
from headwater.streams.typing import MOMENT

CHANGED = "changed"
START = "_start"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Key = tuple[int, tuple[Any, ...]]


@operator(Reduce)
class Reduces(Operator):
    """One row for each group, and for each window if there are any: tumbling or hopping."""

    def __init__(self, node: Reduce, context: Context) -> None:
        if node.window is not None and node.window.kind not in ("tumbling", "hopping"):
            raise InvalidRequest(f"Reduce {node.name!r}: a fold has tumbling or hopping windows; aggregates have all.")
        self._node = node
        self._window = node.window
        self.behind = node.window.grace if node.window is not None and node.emit == "final" else 0
        self._inputs = [name for name in node.schema if name not in (WINDOW_START, WINDOW_END)]
        self._row_schema = {name: node.schema[name] for name in self._inputs}
        self._held: dict[Key, tuple[dict[str, Any], int]] = {}  # the row so far, and its newest time
        self._before: dict[Key, tuple[dict[str, Any], int] | None] = {}  # touched since the last advance
        self._touched: dict[Key, None] = {}  # touched since the last commit
        self._closed = Closed()

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Fold each row into its groups."""
        failed: dict[int, str] = {}
        late: list[int] = []
        names = [name for name in frame.columns if name not in SYSTEM]
        times, marks = frame.get_column(TIME).to_list(), frame.get_column(WM).to_list()
        for place, row in enumerate(frame.select(names).iter_rows(named=True)):
            starts = self._starts(times[place], marks[place])
            if not starts:
                late.append(place)
                continue
            key = tuple(row[name] for name in self._node.by)
            try:
                # All of its windows or none: the function may refuse the row in a later one.
                folded = [((start, key), self._folded((start, key), row)) for start in starts]
            except Exception as error:  # whatever a user's function raises is about this row
                failed[place] = said(error)
                continue
            for at, made in folded:
                self._hold(at, made, times[place])
        if late:
            yield LATE, frame[late]
        if failed:
            yield FAILED, refused(frame, failed)

    def _folded(self, at: Key, row: dict[str, Any]) -> dict[str, Any]:
        """The row of a group with ``row`` in it. Raises what the function raises, or what its result's misfit is."""
        known = self._held.get(at)
        if known is None:
            return row
        made = self._node.fn(dict(known[0]), row)
        pl.DataFrame([made], schema=self._row_schema, strict=True)
        return made

    def _hold(self, at: Key, made: dict[str, Any], time: int) -> None:
        known = self._held.get(at)
        self._before.setdefault(at, known)
        self._touched[at] = None
        self._held[at] = ({name: made.get(name) for name in self._inputs}, max(time, known[1] if known else time))

    def _starts(self, time: int, watermark: int) -> list[int]:
        """The windows that a row counts for."""
        window = self._window
        if window is None:
            return [0]
        last = (time - window.offset) // window.advance * window.advance + window.offset
        starts = range(last - window.size + window.advance, last + 1, window.advance)
        return [start for start in starts if start + window.size + window.grace > watermark]

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Updates, or the rows of windows that close."""
        before, self._before = self._before, {}
        if self._node.emit == "update" and before:
            old = [(at, held) for at, held in before.items() if held is not None]
            new = [(at, self._held[at]) for at in before]
            yield MAIN, changed(self._frame(old, watermark), self._frame(new, watermark))
        window = self._window
        if window is None:
            return
        closing = sorted({at[0] for at in self._held if at[0] + window.size + window.grace <= watermark})
        for start in closing:
            rows = [(at, held) for at, held in self._held.items() if at[0] == start]
            if self._node.emit == "final":
                yield MAIN, self._frame(rows, watermark)
            for at, _ in rows:
                del self._held[at]
                self._touched.pop(at, None)
        if closing:
            self._closed.move(watermark)

    def _frame(self, rows: list[tuple[Key, tuple[dict[str, Any], int]]], watermark: int) -> pl.DataFrame:
        made = pl.DataFrame([held[0] for _, held in rows], schema=self._row_schema, strict=True)
        window = self._window
        if window is None:
            times = [held[1] for _, held in rows]
        else:
            starts = [_EPOCH + timedelta(milliseconds=at[0]) for at, _ in rows]
            ends = [each + timedelta(milliseconds=window.size) for each in starts]
            made = made.with_columns(
                pl.Series(WINDOW_START, starts, dtype=MOMENT), pl.Series(WINDOW_END, ends, dtype=MOMENT)
            )
            times = [at[0] + window.size - 1 for at, _ in rows]
        return made.select(*self._node.schema).with_columns(
            pl.Series(TIME, times, dtype=pl.Int64),
            pl.Series(WM, [min(time, watermark) for time in times], dtype=pl.Int64),
        )

    # -- state -----------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """Touched groups, and how far windows have closed."""
        found = [self._state(list(self._touched))] if self._touched else []
        self._touched = {}
        return [*found, *self._closed.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All groups."""
        yield self._state(list(self._held))
        yield self._closed.delta()

    def _state(self, touched: list[Key]) -> Delta:
        frame = pl.DataFrame([self._held[at][0] for at in touched], schema=self._row_schema, strict=True)
        return Delta(
            CHANGED,
            frame.with_columns(
                pl.Series(START, [at[0] for at in touched], dtype=pl.Int64),
                pl.Series(TIME, [self._held[at][1] for at in touched], dtype=pl.Int64),
            ),
        )

    def restore(self, delta: Delta) -> None:
        """Take back groups, or what has closed."""
        if self._closed.restores(delta):
            if self._window is not None:
                over = self._closed.at - self._window.size - self._window.grace
                self._held = {at: held for at, held in self._held.items() if at[0] > over}
            return
        for row in delta.frame.iter_rows(named=True):
            start, time = row.pop(START), row.pop(TIME)
            self._held[start, tuple(row[name] for name in self._node.by)] = (row, time)

    def size(self) -> Size:
        """Groups, at a guess of a hundred bytes each."""
        return Size(len(self._held), 100 * len(self._held))

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Groups with their rows."""
        rows = self._frame(list(self._held.items()), 0).select(*self._node.schema)
        return chosen(rows, keys, self._node.by)
