"""As-of joins: each left row meets the newest right row of its key that is not younger.

A left row waits until the watermark has passed its time and the grace: then every right row that could be its partner
and is not late has come, so the result is exact, and the same for any order in which the sides are read. A row is late,
left or right, if the watermark of its own partition had passed its time and the grace before it came. Of right rows
that left rows still to come can meet, those up to now are one for each key.

Of right rows with equal times the one that came last counts. A result has the left row's time, and so it can be no
later for anybody below than that row is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl

from headwater.errors import InvalidRequest
from headwater.limits import STREAMS_RECENT_ROWS_MIN
from headwater.streams.frames import LATE, MAIN, TIME, WM
from headwater.streams.model import Join
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.columns import RIGHT, Columns, prefixed

ROWS: Final = ("left.rows", "right.rows")
_THEN: Final = "_then"  # a right row's time, which a result does not show


class AsOfJoin(Operator):
    """Port 0 is the left stream, whose rows wait; port 1 the right one, whose newest rows are kept."""

    def __init__(self, node: Join, context: Context) -> None:
        self._node = node
        self._columns = Columns(node, context.inputs)
        self._on = (list(node.left_on), list(node.right_on))
        self._names = ([*context.inputs[0], TIME, WM], [*context.inputs[1], TIME])
        self.behind = node.grace
        self._closed = Closed()  # the watermark by which left rows were given
        empty = [
            pl.DataFrame(schema={**schema, **{name: pl.Int64() for name in (TIME, WM)[: 2 - port]}})
            for port, schema in enumerate(context.inputs)
        ]
        # By port: rows that are in order of time, rows that came since, and rows for the changelog.
        self._held = empty
        self._recent: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
        self._changes: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
        self._pruned = 0  # right rows after they were last reduced

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Rows that are on time wait; left ones without a key have no partner to wait for, but their turn."""
        late = frame.get_column(TIME) + self._node.grace < frame.get_column(WM)
        if late.any():
            yield LATE, self._alone(port, frame.filter(late))
            frame = frame.filter(~late)
        if port == 1 or self._node.how == "inner":
            frame = frame.drop_nulls(self._on[port])
        if frame.height:
            rows = frame.select(self._names[port])
            self._recent[port].append(rows)
            self._changes[port].append(rows)

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Left rows before the watermark and the grace meet their partners."""
        if watermark <= self._closed.at:
            return
        self._closed.at = watermark
        until = watermark - self._node.grace
        left = self._sorted(0)
        ready = left.filter(pl.col(TIME) < until)
        if ready.height:
            self._closed.is_news = True
            self._held[0] = left.filter(pl.col(TIME) >= until)
            result = self._meet(ready, self._sorted(1))
            if result.height:
                yield MAIN, result
        if self._rows(1) > 2 * self._pruned + STREAMS_RECENT_ROWS_MIN:
            self._prune(until)

    def _meet(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        ours, theirs = self._on
        tolerance = self._node.tolerance if self._node.tolerance >= 0 else None
        right = prefixed(right.with_columns(pl.col(TIME).alias(_THEN)))
        met = left.join_asof(
            right,
            left_on=TIME,
            right_on=RIGHT + TIME,
            by_left=ours,
            by_right=[RIGHT + name for name in theirs],
            strategy="backward",
            tolerance=tolerance,
            check_sortedness=False,
        )
        if self._node.how == "inner":
            met = met.filter(pl.col(RIGHT + _THEN).is_not_null())
        return self._columns.select(met, TIME, pl.col(TIME).alias(WM))

    def _alone(self, port: int, frame: pl.DataFrame) -> pl.DataFrame:
        """Late rows, with nothing on the other side."""
        return self._columns.alone(port, frame.select(*self._names[port], *([WM] if port else [])))

    def _sorted(self, port: int) -> pl.DataFrame:
        """Rows of a side in the order of time, and of arrival where times are equal."""
        if self._recent[port]:
            rows = pl.concat([self._held[port], *self._recent[port]])
            self._held[port] = rows.sort(TIME, maintain_order=True)
            self._recent[port].clear()
        return self._held[port]

    def _prune(self, until: int) -> None:
        """Of right rows before ``until`` the newest of each key is enough, and none beyond the tolerance."""
        right = self._sorted(1)
        old = right.filter(pl.col(TIME) <= until).unique(self._on[1], keep="last", maintain_order=True)
        if self._node.tolerance >= 0:
            old = old.filter(pl.col(TIME) + self._node.tolerance >= until)
        self._held[1] = pl.concat([old, right.filter(pl.col(TIME) > until)])
        self._pruned = self._held[1].height

    # -- state ---------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """Rows that came, and by when left rows have gone."""
        made = []
        for tag, rows in zip(ROWS, self._changes, strict=True):
            if rows:
                made.append(Delta(tag, pl.concat(rows)))
                rows.clear()
        return [*made, *self._closed.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All rows that wait or are waited for."""
        self._prune(self._closed.at - self._node.grace)
        yield self._closed.delta()
        for port, tag in enumerate(ROWS):
            yield Delta(tag, self._sorted(port))

    def restore(self, delta: Delta) -> None:
        """Take back rows and partings."""
        if self._closed.restores(delta):
            return
        port = ROWS.index(delta.tag)
        self._recent[port].append(delta.frame)
        if sum(frame.height for frame in self._recent[port]) > self._held[port].height + STREAMS_RECENT_ROWS_MIN:
            self._load()

    def restored(self) -> None:
        """Sort what came back."""
        self._load()

    def _load(self) -> None:
        until = self._closed.at - self._node.grace
        self._held[0] = self._sorted(0).filter(pl.col(TIME) >= until)
        self._prune(until)

    def size(self) -> Size:
        """Of both sides."""
        frames = [frame for port in (0, 1) for frame in (self._held[port], *self._recent[port])]
        return Size(self._rows(0) + self._rows(1), sum(int(frame.estimated_size()) for frame in frames))

    def _rows(self, port: int) -> int:
        return self._held[port].height + sum(frame.height for frame in self._recent[port])

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """A join of streams keeps no table."""
        raise InvalidRequest(f"Join {self._node.name!r} holds rows that wait, which are no table to query.")
