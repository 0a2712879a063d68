"""Operators driven as a task drives them, with a new life out of the changelog wherever a test wants one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from headwater.streams.channels import Feed
from headwater.streams.frames import MAIN, NEVER, TIME, WEIGHT, WM
from headwater.streams.operator import Delta, Operator

Rows = Sequence[tuple[Any, ...]]


class Life:
    """An operator over many lives: ``reborn`` makes it anew from its deltas, or from a snapshot of it."""

    def __init__(self, make: Callable[[], Operator]) -> None:
        self._make = make
        self.operator = make()
        self.log: list[Delta] = []
        self.out: dict[str, list[pl.DataFrame]] = {}
        self.watermark = NEVER

    def process(self, port: int, frame: pl.DataFrame) -> None:
        if frame.height:
            self._take(self.operator.process(port, frame))

    def advance(self, watermark: int) -> None:
        self.watermark = max(self.watermark, watermark)
        self._take(self.operator.advance(self.watermark, 0))
        self.log += self.operator.deltas()

    def reborn(self, *, snapshot: bool) -> None:
        self.log += self.operator.deltas()
        if snapshot:
            self.log = list(self.operator.snapshot())
        self.operator.close()
        self.operator = self._make()
        for delta in self.log:
            # As the changelog cuts them.
            half = delta.frame.height // 2
            for piece in (delta.frame[:half], delta.frame[half:]) if half else (delta.frame,):
                self.operator.restore(Delta(delta.tag, piece))
        self.operator.restored()

    def given(self, output: str = MAIN) -> list[pl.DataFrame]:
        return self.out.get(output, [])

    def rows(self, output: str = MAIN) -> list[tuple[Any, ...]]:
        return ordered([row for frame in self.given(output) for row in frame.rows()])

    def table(self) -> list[tuple[Any, ...]]:
        """What a frame after a frame of changes leaves; no row may be there twice, or be taken away unseen."""
        held: list[tuple[Any, ...]] = []
        for frame in self.given():
            assert frame.height
            for *row, weight in frame.drop(TIME, WM).select(pl.exclude(WEIGHT), WEIGHT).rows():
                if weight > 0:
                    assert tuple(row) not in held
                    held.append(tuple(row))
                else:
                    held.remove(tuple(row))
        return ordered(held)

    def _take(self, outputs: Any) -> None:
        for output, frame in outputs:
            self.out.setdefault(output, []).append(frame)


def ordered(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows in an order in which nulls have a place."""
    return sorted(rows, key=lambda row: [(value is not None, value) for value in row])


def frame_of(schema: Mapping[str, pl.DataType], rows: Rows, *, wm: int = 0) -> pl.DataFrame:
    """Rows (user columns, time, weight) of a table's topic or changes."""
    whole = {**schema, TIME: pl.Int64(), WEIGHT: pl.Int8()}
    return pl.DataFrame(list(rows), schema=whole, orient="row").with_columns(pl.lit(wm, dtype=pl.Int64).alias(WM))


def stamped(schema: Mapping[str, pl.DataType], rows: Rows, out_of_order: int) -> pl.DataFrame:
    """Rows (user columns, time) of a stream with their watermarks."""
    frame = pl.DataFrame(list(rows), schema={**schema, TIME: pl.Int64()}, orient="row")
    return Feed(out_of_order=out_of_order).stamp(0, frame, NEVER) if frame.height else frame
