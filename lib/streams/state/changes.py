"""Changes of tables: rows before (weight -1) and rows after (weight +1), made by and read into keyed stores."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from headwater.streams.frames import TIME, WEIGHT, WM
from headwater.streams.state.keyed import DEAD, FOUND, Keyed


def newest(frame: pl.DataFrame, keys: Sequence[str], *, nulls: bool = False) -> pl.DataFrame:
    """The last row of each key, in order of arrival. Rows with a null in their key are left out, unless ``nulls``."""
    keyed = frame.drop_nulls(keys) if keys and not nulls else frame
    if not keys:
        return keyed.tail(1)
    return keyed.unique(keys, keep="last", maintain_order=True)


def upsert(store: Keyed, rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Store ``rows``, one a key, and give the changes that this makes; what changes nothing gives nothing.

    ``rows`` have the columns ``names``, ``TIME``, ``WM`` and ``DEAD``. Old rows come before new ones, so a key's
    old row before its new one. Both bear the time of what changed them.
    """
    before = store.find(rows)
    dead, found = rows.get_column(DEAD), before.get_column(FOUND)
    same = found & ~dead
    for name in names:
        if name not in store.keys:
            same = same & rows.get_column(name).eq_missing(before.get_column(name))
    # The same row again still moves the time that is stored with it; a key that never was is no news at all.
    store.put(rows.filter(~(dead & ~found)), int((~found & ~dead).sum()) - int((found & dead).sum()))
    gone, new = found & ~same, ~dead & ~same
    columns = [*names, TIME, WM]
    values = [before.get_column(name) if name not in store.keys else rows.get_column(name) for name in names]
    old = rows.select(TIME, WM).hstack(values).select(columns).filter(gone)
    return changed(old, rows.select(columns).filter(new))


def changed(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Changes of a table: rows as they were, then as they are."""
    return pl.concat([weighted(before, -1), weighted(after, 1)])


def weighted(frame: pl.DataFrame, weight: int) -> pl.DataFrame:
    """Rows that are there now (1), or were before (-1)."""
    return frame.with_columns(pl.lit(weight, dtype=pl.Int8).alias(WEIGHT))


def current(frame: pl.DataFrame, keys: Sequence[str], *, nulls: bool = False) -> pl.DataFrame:
    """What a frame of changes leaves for each key that it touches: the row, or with ``DEAD`` that there is none."""
    return newest(frame, keys, nulls=nulls).with_columns((pl.col(WEIGHT) < 0).alias(DEAD)).drop(WEIGHT)
