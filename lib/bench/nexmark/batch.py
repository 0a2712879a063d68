"""What the queries give over all events at once: DuckDB's answers, which every other one is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from headwater.bench.nexmark.queries import Query
from headwater.clock import cpu_s
from headwater.errors import Corrupt
from headwater.replay.extras import extra
from headwater.streams.frames import SYSTEM, WEIGHT

ROUNDS = 3
DIGITS = 12  # of floats that are compared: a mean's last ones depend on the order of the sum


class Different(Corrupt):
    """A run's results are not DuckDB's. It happened; nothing was changed by it."""

    what_now = "This is an error of Headwater or of the query: report it with the query, the seed and the events."


class Batch:
    """DuckDB over the events as Arrow, on one thread."""

    def __init__(self, frames: Sequence[pa.RecordBatch]) -> None:
        self._connection: Any = extra("duckdb", "sql").connect()
        self._connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
        self._events = pa.Table.from_batches(frames)

    def watermark(self, query: Query) -> int:
        """How far event time has come at the end of the input, ms: what ends by then is final."""
        newest: Any = pa.compute.max(self._events.column(query.time)).cast(pa.int64())
        return int(newest.as_py()) - query.out_of_order

    def run(self, query: Query, rounds: int = ROUNDS) -> tuple[pl.DataFrame, float]:
        """The result, and the CPU seconds of the best round."""
        self._connection.register("events", self._events)
        params = {"watermark": self.watermark(query)} if "$watermark" in query.sql else None
        best = float("inf")
        for _ in range(rounds):
            started = cpu_s()
            table = self._connection.sql(query.sql, params=params).to_arrow_table()
            best = min(best, cpu_s() - started)
        found = pl.from_arrow(table)
        assert isinstance(found, pl.DataFrame)
        return found, best


def check(query: Query, expected: pl.DataFrame, frames: Sequence[pl.DataFrame]) -> None:
    """Raises ``Different`` unless ``frames`` hold the rows of ``expected``, each as often, in any order."""
    found = settled(query, frames, expected.columns)
    if found is None:
        if expected.height:
            raise Different(f"Query {query.name} gave nothing; DuckDB found {expected.height:,} rows.")
        return
    left, right = _canonical(expected, found), _canonical(found, found)
    if not left.hash_rows().sort().equals(right.hash_rows().sort()):
        missing = left.join(right, on=left.columns, how="anti", nulls_equal=True).head(3)
        wrong = right.join(left, on=left.columns, how="anti", nulls_equal=True).head(3)
        raise Different(
            f"Query {query.name} gave {right.height:,} rows and DuckDB {left.height:,}; of those only DuckDB found "
            f"{missing.to_dicts()}, of those only the stream {wrong.to_dicts()}."
        )


def settled(query: Query, frames: Sequence[pl.DataFrame], columns: Sequence[str]) -> pl.DataFrame | None:
    """All rows that a run has given; of a table those that are left of its changes. None without any."""
    if not frames:
        return None
    rows = pl.concat(frames)
    if query.key and WEIGHT in rows.columns:
        weights = rows.group_by(columns).agg(pl.col(WEIGHT).cast(pl.Int64).sum())
        if weights.get_column(WEIGHT).min() not in (0, 1) or weights.get_column(WEIGHT).max() != 1:
            raise Different(f"Query {query.name}: a row of the table came or went more than once.")
        rows = weights.filter(pl.col(WEIGHT) == 1)
    elif query.key:  # read back from a topic: the newest row of each key counts
        rows = rows.unique(subset=[query.key], keep="last", maintain_order=True)
    return rows.drop([name for name in SYSTEM if name in rows.columns]).select(columns)


def _canonical(frame: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    cast = frame.select(pl.col(name).cast(dtype) for name, dtype in like.schema.items())
    floats = pl.selectors.float()
    return cast.with_columns(floats.round_sig_figs(DIGITS))
