"""Python functions over rows and frames. A row on which one raises goes to the dead letters, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams.frames import ERROR, FAILED, MAIN, SYSTEM, TIME, WM
from headwater.streams.model import Apply
from headwater.streams.operator import Context, Operator, Outputs, operator
from headwater.streams.ops.stateless import system

Row = dict[str, Any]


@operator(Apply)
class Applies(Operator):
    """``map``, ``flat_map`` and ``batch``. Cost: a few microseconds a row for the first two."""

    def __init__(self, node: Apply, context: Context) -> None:
        self._fn = node.fn
        self._mode = node.mode
        self._schema = dict(node.schema)
        self._name = node.name

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """What the function makes of each row; FAILED for those on which it raises."""
        if self._mode == "batch":
            yield from self._batch(frame)
            return
        made: list[Row] = []
        places: list[int] = []
        failed: dict[int, str] = {}
        names = [name for name in frame.columns if name not in SYSTEM]
        for place, row in enumerate(frame.select(names).iter_rows(named=True)):
            try:
                results = self._results(self._fn(row))
                made += results
                places += [place] * len(results)
            except Exception as error:  # whatever a user's function raises is about this row
                failed[place] = said(error)
        found = self._framed(made, places, failed)
        if found is not None and found.height:
            kept = frame.select(system(frame))[[place for place in places if place not in failed]]
            yield MAIN, found.hstack(kept)
        if failed:
            yield FAILED, refused(frame, failed)

    def _results(self, given: Any) -> Sequence[Row]:
        if self._mode == "map":
            given = [] if given is None else [given]
        rows = list(given)
        for row in rows:
            if not isinstance(row, dict):
                raise TypeError(f"{self._mode} gives rows as dicts, not {type(row).__name__}")
            for name in row:
                if name not in self._schema:
                    raise KeyError(f"column {name!r} is not in the schema of {self._name!r}")
        return rows

    def _framed(self, made: list[Row], places: list[int], failed: dict[int, str]) -> pl.DataFrame | None:
        """Rows as a frame. A row whose values do not fit the schema makes its source row fail."""
        if not made:
            return None
        try:
            return pl.DataFrame(made, schema=self._schema, strict=True)
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
            pass
        for row, place in zip(made, places, strict=True):
            try:
                pl.DataFrame([row], schema=self._schema, strict=True)
            except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
                failed[place] = said(error)
        kept = [row for row, place in zip(made, places, strict=True) if place not in failed]
        return pl.DataFrame(kept, schema=self._schema, strict=True) if kept else None

    def _batch(self, frame: pl.DataFrame) -> Outputs:
        try:
            yield MAIN, self._called(self._fn, frame)
            return
        except Exception as error:  # tried row by row, so that only those that fail are dead
            if frame.height == 1:
                yield FAILED, refused(frame, {0: said(error)})
                return
        half = frame.height // 2
        yield from self._batch(frame.head(half))
        yield from self._batch(frame.tail(frame.height - half))

    def _called(self, fn: Callable[[pl.DataFrame], pl.DataFrame], frame: pl.DataFrame) -> pl.DataFrame:
        made = fn(frame)
        if not isinstance(made, pl.DataFrame):
            raise TypeError(f"map_batches gives a Polars DataFrame, not {type(made).__name__}")
        if TIME not in made.columns or WM not in made.columns:
            if made.height != frame.height:
                raise InvalidRequest(f"{self._name!r} dropped or added rows without keeping {TIME!r} and {WM!r}.")
            made = made.hstack(frame.select(name for name in system(frame) if name not in made.columns))
        return made.select(
            *[pl.col(name).cast(dtype, strict=True) for name, dtype in self._schema.items()], *system(made)
        )


def refused(frame: pl.DataFrame, failed: dict[int, str]) -> pl.DataFrame:
    """The rows that failed, with what was wrong in ``_error``."""
    places = sorted(failed)
    return frame[places].with_columns(pl.Series(ERROR, [failed[place] for place in places], dtype=pl.String))


def said(error: BaseException) -> str:
    """An error as a dead letter has it: its class, and its text."""
    return f"{type(error).__name__}: {error}"
