"""Operators whose whole state is one keyed store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from headwater.streams.operator import Delta, Operator, Size
from headwater.streams.state.keyed import Keyed


class Stored(Operator):
    """The base: what a changelog, a snapshot and a question get is what ``store`` has."""

    store: Keyed

    def deltas(self) -> Sequence[Delta]:
        """Rows of touched keys."""
        return self.store.deltas()

    def snapshot(self) -> Iterable[Delta]:
        """All rows, page by page."""
        return self.store.snapshot()

    def restore(self, delta: Delta) -> None:
        """Take back rows."""
        self.store.restore(delta.frame)

    def restored(self) -> None:
        """Merge what came back."""
        self.store.restored()

    def size(self) -> Size:
        """Of the store."""
        return self.store.size()

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of the store."""
        return self.store.query(keys)

    def close(self) -> None:
        """Remove spilled pages."""
        self.store.close()
