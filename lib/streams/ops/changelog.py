"""A table as a stream (``to_stream``): the rows that it gets, and the keys that it loses."""

from __future__ import annotations

from typing import Final

import polars as pl

from headwater.streams.frames import MAIN, TIME, WEIGHT, WM
from headwater.streams.model import Changelog
from headwater.streams.operator import Context, Operator, Outputs, operator

DELETED: Final = "deleted"


@operator(Changelog)
class TableChanges(Operator):
    """The newest row of each key that a frame touches; one that is gone comes as it was, with ``deleted`` true."""

    def __init__(self, node: Changelog, context: Context) -> None:
        self._by = list(node.by)
        made = {DELETED: (pl.col(WEIGHT) < 0).alias(DELETED)}
        self._columns = [made.get(name, pl.col(name)) for name in node.schema]

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Changes in, rows out."""
        last = frame
        if (frame.get_column(WEIGHT) < 0).any():
            last = frame.unique(self._by, keep="last", maintain_order=True) if self._by else frame.tail(1)
        return [(MAIN, last.select(*self._columns, TIME, WM))]
