"""Partial sums by group: what an aggregate without windows keeps, and one window of updates.

Groups without a null in their key lie in a ``Keyed`` store, which spills; the few others in a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from headwater.streams.model import Schema
from headwater.streams.operator import Delta, Size
from headwater.streams.state.keyed import DEAD, FOUND, Keyed

NULLS = "nulls:"


class Groups:
    """One row of ``schema`` for each group of ``by``; nulls are values here."""

    def __init__(self, by: Sequence[str], schema: Schema, *, memory_max: int = 0, spill: str = "") -> None:
        self.by = list(by)
        self._schema = {**{name: schema[name] for name in by}, **schema}
        self._keyed = Keyed(by, self._schema, memory_max=memory_max, spill=spill)
        self._nulls = pl.DataFrame(schema=self._schema)
        self._null_changes = False

    def find(self, groups: pl.DataFrame) -> pl.DataFrame:
        """The rows of those ``groups`` that there are."""
        whole, broken = self._parted(groups)
        found = whole.select(self.by).hstack(self._keyed.find(whole)) if whole.height else None
        parts = [self._nulls.join(broken, on=self.by, how="semi", nulls_equal=True)] if broken.height else []
        if found is not None:
            parts.append(found.filter(FOUND).select(self._schema.keys()))
        return pl.concat(parts) if parts else self._nulls.clear()

    def put(self, rows: pl.DataFrame, grown: int) -> None:
        """Store rows, one a group; ``grown`` of the groups are new. Rows with a true ``DEAD`` are to be no more."""
        if DEAD not in rows.columns:
            rows = rows.with_columns(pl.lit(value=False).alias(DEAD))
        whole, broken = self._parted(rows)
        if broken.height:
            kept = self._nulls.join(broken, on=self.by, how="anti", nulls_equal=True)
            new = broken.filter(~pl.col(DEAD)).select(self._schema.keys())
            grown -= kept.height + new.height - self._nulls.height
            self._nulls, self._null_changes = pl.concat([kept, new]), True
        self._keyed.put(whole.select(*self._schema, DEAD), grown)

    def deltas(self) -> list[Delta]:
        """What was put since the last call."""
        found = self._keyed.deltas()
        if self._null_changes:
            self._null_changes = False
            found.append(Delta(NULLS, self._nulls))
        return found

    def snapshot(self) -> Iterator[Delta]:
        """Everything."""
        yield from self._keyed.snapshot()
        if self._nulls.height:
            yield Delta(NULLS, self._nulls)

    def restore(self, delta: Delta) -> None:
        """Take back a delta or a piece of a snapshot."""
        if delta.tag == NULLS:
            self._nulls = delta.frame.select(self._schema.keys())
        else:
            self._keyed.restore(delta.frame)

    def restored(self) -> None:
        """All is back."""
        self._keyed.restored()

    def all(self) -> pl.DataFrame:
        """Every row."""
        return pl.concat([self._keyed.query(None).select(self._schema.keys()), self._nulls])

    def size(self) -> Size:
        """Of both."""
        size = self._keyed.size()
        return Size(size.rows + self._nulls.height, size.bytes + int(self._nulls.estimated_size()), size.spilled)

    def close(self) -> None:
        """Remove files."""
        self._keyed.close()

    def _parted(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows without and with a null in their key."""
        if not any(rows.get_column(name).null_count() for name in self.by):
            return rows, rows.clear()
        is_null = pl.any_horizontal(pl.col(name).is_null() for name in self.by)
        return rows.filter(~is_null), rows.filter(is_null)
