"""Two streams meet: rows of equal key whose event times lie within each other's reach.

A left row at t meets right rows in [t - before, t + after], so its window ends with t + after, and a right row's at
r + before. Everything about lateness is decided between two rows and the log (KIP-633's rules, made to depend on
nothing else): a row is late, and goes to the late output, if its own window and grace were over by its own watermark;
two rows meet if neither came after the other's window and grace were over. So a row can be let go of when the watermark
passes its window and grace, and a left or outer join then says that it met nobody, once and never too early.

    row ─► late? ─► meets the other side's buffer ─► results ─► waits in its own side's buffer
    watermark ─► whose window and grace are over: results without a partner (left, outer); dropped

Result rows have the newer time of both. Their watermark is the newer of both as well, less how far results may be
behind; the older one would promise to those below that their windows are still open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams.frames import LATE, MAIN, NEVER, TIME, WM
from headwater.streams.model import Join
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.closing import Closed
from headwater.streams.ops.columns import RIGHT, Columns
from headwater.streams.state.buffer import Buffer
from headwater.streams.state.hashed import gathered

ROWS: Final = ("left.rows", "right.rows")
MEETINGS: Final = ("left.met", "right.met")


class StreamStreamJoin(Operator):
    """Ports 0 and 1 are the left and the right stream."""

    def __init__(self, node: Join, context: Context, *, bits: int = 64) -> None:
        self._node = node
        self._columns = Columns(node, context.inputs)
        self._on = (list(node.left_on), list(node.right_on))
        self._names = tuple([*schema, TIME, WM] for schema in context.inputs)
        # How long a row's window lasts after it, grace included; both ends belong to the window.
        self._lasts = (node.after + node.grace + 1, node.before + node.grace + 1)
        self._keeps = (node.how != "inner", node.how == "outer")
        self.behind = max(node.before, node.after) + node.grace
        self._buffers = tuple(
            Buffer(on, {**schema, TIME: pl.Int64(), WM: pl.Int64()}, flagged=keeps, bits=bits)
            for on, schema, keeps in zip(self._on, context.inputs, self._keeps, strict=True)
        )
        self._closed = Closed()  # the watermark by which rows without a partner were given
        self._dropped = NEVER
        self._back: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
        self._back_met: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
        self._back_rows = 0

    # -- rows ----------------------------------------------------------------------------------------

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Rows that are on time meet the other side, and wait."""
        frame = frame[self._names[port]]
        late = frame.get_column(TIME) + self._lasts[port] <= frame.get_column(WM)
        if late.any():
            yield LATE, self._columns.alone(port, frame.filter(late))
            frame = frame.filter(~late)
        if not self._keeps[port] and self._has_nulls(port, frame):
            frame = frame.drop_nulls(self._on[port])  # they meet nobody
        if frame.height:
            yield from self._meet(port, frame)

    def _meet(self, port: int, frame: pl.DataFrame) -> Outputs:
        mine, other = self._buffers[port], self._buffers[1 - port]
        frame = mine.prepared(frame)
        met = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True) if mine.flagged else None
        keyed, places = frame, None
        if self._has_nulls(port, frame):
            keyed = frame.with_row_index("_row").drop_nulls(self._on[port])
            places = keyed.get_column("_row")
        before, after = self._node.before, self._node.after
        reach = (before, after) if port == 0 else (after, before)
        for level, rows, partners in other.probe(keyed, mine, *reach):
            at = rows if places is None else places[rows]
            both, equal = self._pairs(port, gathered(frame[self._names[port]], at), other, level, partners)
            if met is not None:
                met = met.scatter(at.filter(equal), True)
            if other.flagged:
                other.mark(level, partners.filter(equal))
            if both.height:
                time, wm = pl.max_horizontal(TIME, RIGHT + TIME), pl.max_horizontal(WM, RIGHT + WM)
                yield MAIN, self._columns.select(both, time.alias(TIME), (wm - self.behind).alias(WM))
        mine.insert(frame, met)

    def _pairs(
        self, port: int, rows: pl.DataFrame, other: Buffer, level: int, partners: pl.Series
    ) -> tuple[pl.DataFrame, pl.Series]:
        """Candidates side by side, less those that are none: of another key, or too late for each other."""
        theirs = other.level(level, partners)[self._names[1 - port]]
        left, right = (rows, theirs) if port == 0 else (theirs, rows)
        equal = right.get_column(WM) < left.get_column(TIME) + self._lasts[0]
        equal &= left.get_column(WM) < right.get_column(TIME) + self._lasts[1]
        for mine, its in zip(*self._on, strict=True):
            equal &= left.get_column(mine) == right.get_column(its)
        both = left.hstack([column.alias(RIGHT + column.name) for column in right.get_columns()])
        return (both if equal.all() else both.filter(equal)), equal

    def _has_nulls(self, port: int, frame: pl.DataFrame) -> bool:
        return any(frame.get_column(name).null_count() for name in self._on[port])

    # -- time ----------------------------------------------------------------------------------------

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Rows whose windows are over: those that met nobody are given, and all are let go of."""
        if watermark <= self._closed.at:
            return
        for port in (0, 1):
            if self._keeps[port]:
                lasts = self._lasts[port]
                lonely = self._buffers[port].unmet(self._closed.at - lasts, watermark - lasts)
                if lonely.height:
                    self._closed.is_news = True
                    yield MAIN, self._columns.alone(port, lonely.with_columns(pl.col(TIME).alias(WM)))
        self._closed.at = watermark
        # Dropping copies what stays: not at every step, but before a quarter of a window is waste.
        if watermark - self._dropped >= (self._lasts[0] + self._lasts[1]) // 8:
            self._drop(watermark)

    def _drop(self, watermark: int) -> None:
        self._dropped, self._closed.is_news = watermark, True
        for buffer, lasts in zip(self._buffers, self._lasts, strict=True):
            buffer.drop(watermark - lasts)

    # -- state ---------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """Rows that came, rows that met somebody since, and by when rows were let go of."""
        made = []
        for port, buffer in enumerate(self._buffers):
            rows, met = buffer.deltas()
            if rows is not None:
                made.append(Delta(ROWS[port], rows))
            if met is not None:
                made.append(Delta(MEETINGS[port], met))
        return [*made, *self._closed.deltas()]

    def snapshot(self) -> Iterable[Delta]:
        """All rows that wait."""
        self._drop(self._closed.at)
        yield self._closed.delta()
        for port, buffer in enumerate(self._buffers):
            yield Delta(ROWS[port], buffer.whole())

    def restore(self, delta: Delta) -> None:
        """Take back rows, meetings and partings; a standby's rows are let go of as time passes."""
        if self._closed.restores(delta):
            self._dropped = self._closed.at
            return
        where, port = (
            (self._back, ROWS.index(delta.tag)) if delta.tag in ROWS else (self._back_met, MEETINGS.index(delta.tag))
        )
        where[port].append(delta.frame)
        self._back_rows += delta.frame.height
        if self._back_rows > sum(buffer.rows for buffer in self._buffers) + 1_000_000:
            self._load()

    def restored(self) -> None:
        """Sort what came back."""
        self._load()

    def size(self) -> Size:
        """Of both buffers."""
        return Size(sum(buffer.rows for buffer in self._buffers), sum(buffer.bytes for buffer in self._buffers))

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """A join of streams keeps no table."""
        raise InvalidRequest(f"Join {self._node.name!r} holds rows that wait, which are no table to query.")

    def _load(self) -> None:
        for port, buffer in enumerate(self._buffers):
            rows = pl.concat([buffer.whole(), *self._back[port]])
            met = pl.concat(self._back_met[port]) if self._back_met[port] else None
            buffer.load(rows.filter(pl.col(TIME) > self._closed.at - self._lasts[port]), met)
            self._back[port].clear()
            self._back_met[port].clear()
        self._back_rows = 0
