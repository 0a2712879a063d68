"""What columns a join gives, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams.frames import TIME, WM
from headwater.streams.model import Join, Schema

RIGHT: Final = "\x01"  # begins the names of the right side's columns while both sides lie in one frame


class Columns:
    """The columns of a join's results: the left's as they are called, the right's with a suffix where names clash.

    Which of them there are is what the node's schema says. Of an outer join the key columns are those of whichever
    side is there.
    """

    def __init__(self, node: Join, inputs: Sequence[Schema]) -> None:
        self._node = node
        self.left, self.right = inputs
        self._keys = dict(zip(node.left_on, node.right_on, strict=True))
        self._exprs = [self._column(name) for name in node.schema]
        self._lone = [self._column(name, lone=True) for name in node.schema]
        used = {name for expr in self._exprs for name in expr.meta.root_names()}
        self.right_keys = [name for name in node.right_on if RIGHT + name in used]  # those that results show

    def select(self, frame: pl.DataFrame, *others: str | pl.Expr) -> pl.DataFrame:
        """Results from a frame of left columns, and right ones whose names begin with ``RIGHT``."""
        return frame.select(*self._exprs, *others)

    def alone(self, port: int, frame: pl.DataFrame) -> pl.DataFrame:
        """Results from rows of one side, with ``TIME`` and ``WM``, and nothing on the other: late, or without partner.

        Of rows of the right the key stands where the left's would.
        """
        if port == 0:
            nulls = [pl.lit(None, dtype=dtype).alias(RIGHT + name) for name, dtype in self.right.items()]
            return self.select(frame.with_columns(nulls), TIME, WM)
        nulls = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in self.left.items()]
        times = (pl.col(RIGHT + name).alias(name) for name in (TIME, WM))
        return prefixed(frame).with_columns(nulls).select(*self._lone, *times)

    def key_columns(self, frame: pl.DataFrame, found: pl.Series) -> list[pl.Series]:
        """The right side's key columns for rows of the left, which equal the left's where a right row was found."""
        theirs = {right: left for left, right in self._keys.items()}
        columns = [frame.get_column(theirs[name]).alias(RIGHT + name) for name in self.right_keys]
        if found.all():
            return columns
        return [column.zip_with(found, pl.Series([None], dtype=column.dtype)) for column in columns]

    def _column(self, name: str, *, lone: bool = False) -> pl.Expr:
        suffix = self._node.suffix
        if name in self.left:
            if (lone or self._node.how == "outer") and name in self._keys:
                return pl.coalesce(name, RIGHT + self._keys[name]).alias(name)
            return pl.col(name)
        if name in self.right:
            return pl.col(RIGHT + name).alias(name)
        if suffix and name.endswith(suffix) and name.removesuffix(suffix) in self.right:
            return pl.col(RIGHT + name.removesuffix(suffix)).alias(name)
        raise InvalidRequest(f"Join {self._node.name!r}: no side has a column {name!r}.")


def prefixed(frame: pl.DataFrame) -> pl.DataFrame:
    """A right side's frame, under names that clash with none of the left."""
    return frame.rename(lambda name: RIGHT + name)
