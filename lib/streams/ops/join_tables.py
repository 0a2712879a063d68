"""A table of two tables: the rows that share a key, joined, and kept so by every change of either side.

Kafka Streams' KTable-KTable join. A row of the result is there while both sides have the key (inner), while the left
has it (left), or while either has it (outer). A change of one side takes back what the result was for the touched keys
and gives what it is now; what stays the same is silent. Both tables are keyed by what they are joined on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Final

import polars as pl

from headwater.streams.frames import MAIN, TIME, WM
from headwater.streams.model import Join
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size
from headwater.streams.ops.columns import RIGHT, Columns
from headwater.streams.state.changes import changed, current
from headwater.streams.state.keyed import DEAD, FOUND, Keyed

SIDES: Final = ("left.", "right.")  # what begins the tags of each side's deltas


class TableTableJoin(Operator):
    """Ports 0 and 1 are the changes of both tables; all of both is kept, each by its columns of the join."""

    def __init__(self, node: Join, context: Context) -> None:
        self._how = node.how
        self._on = (list(node.left_on), list(node.right_on))
        self._columns = Columns(node, context.inputs)
        self._schemas = tuple(context.inputs)
        self._names = list(node.schema)
        self.stores = tuple(
            Keyed(
                on,
                {**schema, TIME: pl.Int64()},
                memory_max=context.memory_max // 2,
                spill=str(PurePath(context.spill, side)) if context.spill else "",
            )
            for on, schema, side in zip(self._on, context.inputs, ("left", "right"), strict=True)
        )

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Changes of a side in, changes of the result out."""
        rows = current(frame, self._on[port])
        if not rows.height:
            return ()
        store = self.stores[port]
        before = store.find(rows)
        dead, found = rows.get_column(DEAD), before.get_column(FOUND)
        other = self.stores[1 - port].find(rows, self._on[port])
        store.put(
            rows.select(*store.columns, DEAD).filter(~(dead & ~found)),
            int((~found & ~dead).sum()) - int((found & dead).sum()),
        )
        keys = rows.select(self._on[port])
        old = self._results(port, keys, before, other, rows)
        new = self._results(port, keys, self._now(port, rows), other, rows)
        changes = self._changed(old, new)
        return [(MAIN, changes)] if changes.height else ()

    def _now(self, port: int, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a frame in the form of ``find``."""
        on = self._on[port]
        names = [name for name in self.stores[port].columns if name not in on]
        alive = pl.col(DEAD).not_()
        return rows.select(*(pl.when(alive).then(pl.col(name)).alias(name) for name in names), alive.alias(FOUND))

    def _results(
        self, port: int, keys: pl.DataFrame, mine: pl.DataFrame, other: pl.DataFrame, rows: pl.DataFrame
    ) -> pl.DataFrame:
        """What the join is for each key, with ``FOUND`` where it is anything."""
        left, right = (mine, other) if port == 0 else (other, mine)
        sides = [_named(left, keys, self._on[0], ""), _named(right, keys, self._on[1], RIGHT)]
        has_left, has_right = left.get_column(FOUND), right.get_column(FOUND)
        exists = has_left & has_right
        if self._how != "inner":
            exists = has_left if self._how == "left" else has_left | has_right
        both = pl.concat(sides, how="horizontal").with_columns(
            pl.max_horizontal(TIME, RIGHT + TIME, rows.get_column(TIME)).alias(TIME), rows.get_column(WM)
        )
        return self._columns.select(both, TIME, WM).with_columns(exists.alias(FOUND))

    def _changed(self, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
        had, has = old.get_column(FOUND), new.get_column(FOUND)
        same = had & has
        for name in self._names:
            same = same & old.get_column(name).eq_missing(new.get_column(name))
        gone, come = old.filter(had & ~same).drop(FOUND), new.filter(has & ~same).drop(FOUND)
        return changed(gone, come)

    # -- state ---------------------------------------------------------------------------------------

    def deltas(self) -> Sequence[Delta]:
        """Rows of touched keys, by side."""
        return [delta for side, store in zip(SIDES, self.stores, strict=True) for delta in store.deltas(side)]

    def snapshot(self) -> Iterable[Delta]:
        """All rows of both sides, page by page."""
        return _snapshots(self.stores)

    def restore(self, delta: Delta) -> None:
        """Take back rows of the side that the tag names."""
        self.stores[0 if delta.tag.startswith(SIDES[0]) else 1].restore(delta.frame)

    def restored(self) -> None:
        """Merge what came back."""
        for store in self.stores:
            store.restored()

    def size(self) -> Size:
        """Of both sides."""
        left, right = self.stores
        return left.size() + right.size()

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of the joined table; ``keys`` has the left side's key columns."""
        left, right = self.stores
        if keys is None:
            both = [left.query(None).select(self._on[0]), right.query(None).select(self._on[1])]
            keys = pl.concat([both[0], both[1].rename(dict(zip(self._on[1], self._on[0], strict=True)))])
        keys = keys.select(self._on[0]).unique(maintain_order=True)
        rows = keys.with_columns(pl.lit(None, dtype=pl.Int64).alias(TIME), pl.lit(None, dtype=pl.Int64).alias(WM))
        found = self._results(0, keys, left.find(keys, self._on[0]), right.find(keys, self._on[0]), rows)
        return found.filter(FOUND).select(self._names)

    def close(self) -> None:
        """Remove spilled pages."""
        for store in self.stores:
            store.close()


def _snapshots(stores: Sequence[Keyed]) -> Iterator[Delta]:
    for side, store in zip(SIDES, stores, strict=True):
        yield from store.snapshot(side)


def _named(side: pl.DataFrame, keys: pl.DataFrame, on: Sequence[str], prefix: str) -> pl.DataFrame:
    """One side's rows under its own key columns, null where it has none."""
    found = side.get_column(FOUND)
    columns = [
        keys.to_series(number).zip_with(found, pl.Series([None], dtype=keys.dtypes[number])).alias(prefix + name)
        for number, name in enumerate(on)
    ]
    return side.drop(FOUND).rename(lambda name: prefix + name).with_columns(columns)
