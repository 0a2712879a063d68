"""Rows in the order of a hash of their key: an index without a hash table.

Polars has no hash table that outlives a call; a join builds one anew, which costs more than the lookups once the table
is ten times the batch. Rows sorted by a 64-bit hash are an index that a binary search answers, that merges in one pass,
and that cuts into pages by ranges. Keys themselves are compared afterwards, so a collision costs a step and no error.
The hash is never stored: another release of Polars may hash differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

HASH: Final = "_h"
_SEED: Final = 0x9E3779B9


def hashed(frame: pl.DataFrame, keys: Sequence[str], bits: int = 64) -> pl.Series:
    """A hash (UInt64) of the columns ``keys`` of each row; fewer ``bits`` make collisions, for tests."""
    if not keys:
        return pl.repeat(0, frame.height, dtype=pl.UInt64, eager=True).alias(HASH)
    # Seeds differ by column: else (a, b) and (b, a) collide, and (a, a) is 0 for every a.
    hashes = [pl.col(key).hash(_SEED + number) for number, key in enumerate(keys)]
    whole = hashes[0]
    for other in hashes[1:]:
        whole = whole ^ other
    if bits < 64:
        whole = whole // (1 << (64 - bits)) * (1 << (64 - bits))
    return frame.select(whole.alias(HASH)).to_series()


def gathered(frame: pl.DataFrame, indices: pl.Series) -> pl.DataFrame:
    """The rows at ``indices``, of which none is null, without what a query costs."""
    return pl.DataFrame([column[indices] for column in frame.get_columns()])


def ordered(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    """The rows sorted by one column, equal ones as they were. Two thirds of the time that sorting the frame takes."""
    return gathered(frame, frame.select(pl.arg_sort_by(by, maintain_order=True)).to_series())


def search(
    level: pl.DataFrame,
    level_keys: Sequence[str],
    hashes: pl.Series,
    frame: pl.DataFrame,
    keys: Sequence[str],
    *,
    nulls: bool = False,
) -> pl.Series:
    """Where in ``level`` (sorted by ``HASH``) each row of ``frame`` has its key: an index (UInt32), or null.

    A null in a key is equal to nothing, or with ``nulls`` to another null. Cost: a binary
    search a row, about 50 ns in a million rows.
    """
    if not level.height or not frame.height:
        return pl.repeat(None, frame.height, dtype=pl.UInt32, eager=True)
    at = level.get_column(HASH).search_sorted(hashes, side="left").cast(pl.UInt32)
    found, astray = _compare(level, level_keys, hashes, frame, keys, at, nulls)
    while astray.any():
        # Keys that share a hash lie next to each other: look one further, as often as it takes.
        again = astray.arg_true()
        at = at.scatter(again, at[again] + 1)
        found, astray = _compare(level, level_keys, hashes, frame, keys, at, nulls)
    return at.zip_with(found, pl.Series([None], dtype=pl.UInt32))


def _compare(
    level: pl.DataFrame,
    level_keys: Sequence[str],
    hashes: pl.Series,
    frame: pl.DataFrame,
    keys: Sequence[str],
    at: pl.Series,
    nulls: bool,
) -> tuple[pl.Series, pl.Series]:
    """Which rows are at their key, and which at another one of the same hash."""
    inside = at.clip(0, level.height - 1)
    near = (level.get_column(HASH)[inside] == hashes) & (at < level.height)
    equal = near
    valid = near
    for theirs, ours in zip(level_keys, keys, strict=True):
        column, its = frame.get_column(ours), level.get_column(theirs)[inside]
        equal = equal & (its.eq_missing(column) if nulls else (its == column).fill_null(value=False))
        if column.null_count() and not nulls:
            valid = valid & column.is_not_null()
    return equal, valid & ~equal


def merged(old: pl.DataFrame, new: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Two levels, each sorted by ``HASH`` and with each of ``keys`` once, as one; of a key in both the newer row."""
    if not old.height:
        return new
    if not new.height:
        return old
    # Polars' sort sees that these are sorted runs: it takes a third of the time of its merge of two frames.
    whole = pl.concat([old, new[old.columns]]).sort(HASH, maintain_order=True)
    hashes = whole.get_column(HASH)
    twice = (hashes == hashes.shift(-1)).fill_null(value=False)
    if not twice.any():
        return whole
    same = twice
    for key in keys:
        column = whole.get_column(key)
        same = same & column.eq_missing(column.shift(-1))
    if (twice & ~same).any():
        # Keys that share a hash lie between a key's two rows, perhaps.
        return whole.unique([HASH, *keys], keep="last", maintain_order=True)
    return whole.filter(~same)


def without(level: pl.DataFrame, indices: pl.Series) -> pl.DataFrame:
    """A level less the rows at ``indices`` (nulls among them mean none)."""
    gone = indices.drop_nulls()
    if not gone.len():
        return level
    keep = pl.repeat(True, level.height, dtype=pl.Boolean, eager=True).scatter(gone, False)
    return level.filter(keep)
