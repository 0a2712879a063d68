"""A stream as a table (``to_table``): the newest row of each key."""

from __future__ import annotations

import polars as pl

from headwater.streams.model import Materialize
from headwater.streams.operator import operator
from headwater.streams.ops.table import DELETED, Table


@operator(Materialize)
class Materialized(Table):
    """As a table's topic, of rows that were made on the way. A row whose ``_deleted`` is true deletes its key."""

    def _dead(self, frame: pl.DataFrame) -> pl.Expr:
        return pl.col(DELETED).fill_null(value=False) if DELETED in frame.columns else pl.lit(value=False)
