"""A table as a stream (``to_stream``): the rows that it gets, and the keys that it loses."""

from __future__ import annotations

from typing import Any

import polars as pl

from headwater.streams.frames import MAIN, TIME, WEIGHT, WINDOW_END, WINDOW_START, WM
from headwater.streams.model import Changelog
from headwater.streams.operator import Context, Operator, Outputs, operator
from headwater.streams.ops.table import DELETED


@operator(Changelog)
class TableChanges(Operator):
    """The newest row of each key that a frame touches; one that is gone comes as it was, with ``_deleted`` true.

    The key of a table is its node's ``keys``, and its window where it has one.
    """

    def __init__(self, node: Changelog, context: Context) -> None:
        windows = [name for name in (WINDOW_START, WINDOW_END) if name in node.schema and name not in node.keys]
        self._keys = [*node.keys, *windows]
        self._names = list(node.schema)

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Changes in, rows out."""
        last = frame
        if (frame.get_column(WEIGHT) < 0).any():
            last = frame.unique(self._keys, keep="last", maintain_order=True) if self._keys else frame.tail(1)
        made: dict[str, Any] = {DELETED: pl.col(WEIGHT) < 0}
        columns = [made.get(name, pl.col(name)).alias(name) for name in self._names]
        if DELETED not in self._names:
            last = last.filter(pl.col(WEIGHT) > 0)  # its schema has no place for a deletion
        return [(MAIN, last.select(*columns, TIME, WM))]
