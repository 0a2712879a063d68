"""A keyed store: one row for each key, read and written by whole frames.

    put ──► recent (small, sorted by hash) ──► pages (big, sorted by hash; on disk where they outgrow memory_max)
    find ◄── recent, else pages

Recent rows are merged into the pages once they are a quarter of them, so each row is copied a few times however big the
store grows (O'Neil et al., The Log-Structured Merge-Tree, 1996, with two levels). What changed since the last commit
is what was put, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from headwater.limits import STREAMS_RECENT_ROWS_MIN, STREAMS_RESTORE_ROWS
from headwater.streams.operator import Delta, Size
from headwater.streams.state.hashed import HASH, hashed, merged, search, without
from headwater.streams.state.spill import Pages

DEAD: Final = "_dead"
FOUND: Final = "_found"
CHANGED: Final = "changed"  # the tag of what was put since the last commit
WHOLE: Final = "whole"  # the tag of a piece of a snapshot


class Keyed:
    """Rows of ``schema``, one for each value of ``keys``, which are among its columns and never null, unless
    ``nulls`` says that a null is a value like others.

    With ``memory_max`` (bytes) and a folder ``spill`` the rows in memory weigh at most ``memory_max`` and one page of a
    sixteenth of it, besides what the frames of the current call weigh.
    """

    def __init__(
        self,
        keys: Sequence[str],
        schema: Mapping[str, pl.DataType],
        *,
        nulls: bool = False,
        memory_max: int = 0,
        spill: str = "",
        bits: int = 64,
        recent_rows: int = STREAMS_RECENT_ROWS_MIN,
    ) -> None:
        self.keys = tuple(keys)
        self.columns = tuple(schema)
        self._schema = dict(schema)
        self._values = [name for name in schema if name not in self.keys]
        self._nulls = nulls
        self._bits = bits
        self._recent_min = recent_rows
        self._memory_max = memory_max if spill else 0
        whole = {**schema, HASH: pl.UInt64()}
        # An eighth for recent rows, which are merged once they weigh more.
        self._pages = Pages(whole, self._memory_max - self._memory_max // 8, spill)
        self._recent = pl.DataFrame(schema={**whole, DEAD: pl.Boolean()})
        self._changes: list[pl.DataFrame] = []
        self._pending: list[pl.DataFrame] = []
        self._rows = 0

    # -- reading and writing -------------------------------------------------------------------------

    def find(self, frame: pl.DataFrame, on: Sequence[str] = ()) -> pl.DataFrame:
        """For each row of ``frame``, in its order, the values stored under its key, and whether there are any.

        ``on`` names its key columns where they are called otherwise. The columns are those of the schema without the
        keys, and ``FOUND``; values are null where nothing was found. A null in a key finds nothing.
        """
        on = tuple(on) or self.keys
        hashes = hashed(frame, on, self._bits)
        in_recent = self._search(self._recent, hashes, frame, on)
        missing = in_recent.null_count()
        if missing and missing == frame.height:
            return self._in_pages(hashes, frame, on)
        new = self._taken(self._recent, in_recent)
        if not missing:
            return new
        old = self._in_pages(hashes, frame, on)
        hit = in_recent.is_not_null()
        return new.select(new.get_column(name).zip_with(hit, old.get_column(name)) for name in new.columns)

    def put(self, frame: pl.DataFrame, grown: int) -> None:
        """Store rows: columns of the schema and ``DEAD``, true where the key is to be no more. Keys come once.

        ``grown`` is how many keys more there are now, which the caller knows from ``find``.
        """
        if not frame.height:
            return
        frame = frame.select(*self.columns, DEAD)
        self._changes.append(frame)
        self._rows += grown
        self._store(frame)

    def __len__(self) -> int:
        return self._rows

    def all(self) -> Iterator[pl.DataFrame]:
        """Every row, a page at a time, in no order that means anything."""
        self._fold()
        for number in range(len(self._pages)):
            page = self._pages.get(number)
            if page.height:
                yield page.drop(HASH)

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of ``keys``, of which extra columns are ignored; or all."""
        if keys is None:
            return pl.concat([pl.DataFrame(schema=self._schema), *self.all()])
        wanted = keys.select(pl.col(name).cast(self._schema[name]) for name in self.keys).unique(maintain_order=True)
        return self.rows(wanted)

    def rows(self, keys: pl.DataFrame) -> pl.DataFrame:
        """The rows of those keys, each of which is there once, that are stored."""
        found = self.find(keys)
        return keys.select(self.keys).hstack(found).filter(found.get_column(FOUND))[list(self.columns)]

    # -- commits and restores ------------------------------------------------------------------------

    def deltas(self, name: str = "") -> list[Delta]:
        """What was put since the last call; the newest row of each key. ``name`` begins the tag."""
        if not self._changes:
            return []
        changes = self._changes
        self._changes = []
        if len(changes) == 1:
            return [Delta(name + CHANGED, changes[0])]
        newest = pl.concat(changes).unique(self.keys or None, keep="last", maintain_order=True)
        return [Delta(name + CHANGED, newest if self.keys else newest.tail(1))]

    def snapshot(self, name: str = "") -> Iterator[Delta]:
        """All rows, a page at a time."""
        for page in self.all():
            yield Delta(name + WHOLE, page)

    def restore(self, frame: pl.DataFrame) -> None:
        """Take back a delta or a piece. Cost: a hash and a merge for each row, 10 to 30 M rows/s."""
        if DEAD not in frame.columns:
            frame = frame.with_columns(pl.lit(value=False).alias(DEAD))
        self._pending.append(frame.select(*self.columns, DEAD))
        least = self._recent_min if self._memory_max else max(self._recent_min, STREAMS_RESTORE_ROWS)
        if sum(each.height for each in self._pending) >= max(self._pages.rows, least):
            self._settle()

    def restored(self) -> None:
        """All is back."""
        self._settle()
        self._fold()
        self._rows = self._pages.rows

    def size(self) -> Size:
        """Rows, and bytes in memory and on disk."""
        return Size(self._rows, self._pages.bytes + int(self._recent.estimated_size()), self._pages.spilled)

    def close(self) -> None:
        """Remove files."""
        self._pages.close()

    # -- levels --------------------------------------------------------------------------------------

    def _search(self, level: pl.DataFrame, hashes: pl.Series, frame: pl.DataFrame, on: Sequence[str]) -> pl.Series:
        return search(level, self.keys, hashes, frame, on, nulls=self._nulls)

    def _taken(self, level: pl.DataFrame, indices: pl.Series) -> pl.DataFrame:
        """Rows of a level at ``indices``; where it is null, or the row is dead, nothing."""
        found = indices.is_not_null()
        if DEAD in level.columns:
            found = found & ~level.get_column(DEAD)[indices].fill_null(value=True)
            indices = indices.zip_with(found, pl.Series([None], dtype=pl.UInt32))
        return pl.DataFrame([*(level.get_column(name)[indices] for name in self._values), found.alias(FOUND)])

    def _in_pages(self, hashes: pl.Series, frame: pl.DataFrame, on: Sequence[str]) -> pl.DataFrame:
        """As ``find``, for at least one row, among what is not recent."""
        if len(self._pages) == 1:
            page = self._pages.get(0)
            return self._taken(page, self._search(page, hashes, frame, on))
        order = hashes.arg_sort()
        hashes, frame = hashes.gather(order), frame.select(pl.col(dict.fromkeys(on)).gather(order))
        parts = []
        for number, begin, end in self._pages.cut(hashes):
            page, some = self._pages.get(number), frame.slice(begin, end - begin)
            parts.append(self._taken(page, self._search(page, hashes.slice(begin, end - begin), some, on)))
        return pl.concat(parts).select(pl.all().gather(order.arg_sort()))

    def _store(self, frame: pl.DataFrame) -> None:
        """Put rows among the recent ones, in place of those of the same key."""
        hashes = hashed(frame, self.keys, self._bits)
        newer = frame.hstack([hashes])[self._recent.columns].sort(HASH)
        self._recent = merged(self._recent, newer, self.keys)
        if self._recent.height >= max(self._pages.rows // 4, self._recent_min) or (
            self._memory_max and self._recent.estimated_size() > self._memory_max // 8
        ):
            self._fold()

    def _fold(self) -> None:
        """Merge the recent rows into the pages."""
        recent = self._recent
        self._recent = recent.clear()
        # From the last page to the first, since a page that is cut renumbers those behind it.
        for number, begin, end in reversed(list(self._pages.cut(recent.get_column(HASH)))):
            some = recent.slice(begin, end - begin)
            if not some.height:
                continue
            page = self._pages.get(number)
            if some.get_column(DEAD).any():
                page = without(page, self._search(page, some.get_column(HASH), some, self.keys))
                some = some.filter(~pl.col(DEAD))
            self._pages.replace({number: merged(page, some.drop(DEAD), self.keys).rechunk()})

    def _settle(self) -> None:
        """Store what was restored and not stored yet: at once, since a merge costs as much for one row as for many."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        frame = pending[0] if len(pending) == 1 else pl.concat(pending)
        hashes = hashed(frame, self.keys, self._bits)
        frame = frame.with_columns(hashes)
        if not hashes.is_sorted():
            frame = frame.sort(HASH, maintain_order=True)
            hashes = frame.get_column(HASH)
        if (hashes == hashes.shift(1)).any():
            frame = self._newest(frame)
        self._fold()
        self._recent = frame.select(self._recent.columns)
        self._fold()

    def _newest(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self.keys:
            return frame.tail(1)
        return frame.unique(self.keys, keep="last", maintain_order=True)
