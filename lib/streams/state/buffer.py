"""A buffer: rows of a stream that wait for partners, found by key and a range of event time.

    packed    high bits of the key's hash │ event time - base         one UInt64 a row; rows are sorted by it

A row's partners lie next to each other, so two binary searches find all of them, and how many they are is known before
one of them is touched: pairs are made in pieces, and a hot key costs time and no memory. A hash join with a filter
makes every pair of a key first, and takes 1.6 times as long where nearly all of them stay. How many bits time gets
follows from the times in the buffer; keys are compared afterwards, so few bits for the hash cost a little and no error.

Rows that come are a level of their own; two levels become one once the younger is no smaller, or the older so small
that to copy it costs less than to search one level more. So there are few levels to search, and a row is copied little
more often than the buffer is doubled (the logarithmic method, Bentley and Saxe, 1980).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from headwater.limits import STREAMS_LEVEL_ROWS_MIN, STREAMS_PAIRS_MAX
from headwater.streams.frames import TIME
from headwater.streams.state.hashed import HASH, hashed

PACKED: Final = "_p"
ID: Final = "_id"  # the row's number in its buffer
MET: Final = "_met"  # whether a partner came


class Buffer:
    """Rows of ``schema``, which has ``TIME``, by ``keys``. ``flagged`` ones know whether they met a partner."""

    def __init__(self, keys: Sequence[str], schema: Mapping[str, pl.DataType], *, flagged: bool, bits: int = 64):
        self.keys = list(keys)
        self.flagged = flagged
        self._bits = bits
        flags = {ID: pl.Int64(), MET: pl.Boolean()} if flagged else {}
        self.stored: dict[str, pl.DataType] = {**schema, **flags}  # what a changelog holds of a row
        self._empty = pl.DataFrame(schema={**self.stored, HASH: pl.UInt64(), PACKED: pl.UInt64()})
        self._levels: list[pl.DataFrame] = []  # old and big ones first
        self._base = 0
        self._time_bits = 0  # none yet: the first rows decide
        self._next = 0
        self._changes: list[pl.DataFrame] = []
        self._met: list[pl.Series] = []

    @property
    def rows(self) -> int:
        """Rows, expired ones that were not dropped yet among them."""
        return sum(level.height for level in self._levels)

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return sum(int(level.estimated_size()) for level in self._levels)

    # -- rows come and meet --------------------------------------------------------------------------

    def prepared(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame in the order of this buffer, which makes searches and its insertion cheap."""
        frame = frame.with_columns(hashed(frame, self.keys, self._bits))
        self._fit(frame.get_column(TIME))
        return frame.with_columns(self._pack(pl.col(TIME)).alias(PACKED)).sort(PACKED, maintain_order=True)

    def insert(self, frame: pl.DataFrame, met: pl.Series | None = None) -> None:
        """Add rows as ``prepared`` gave them; ``met`` says which of them have met a partner."""
        if self.flagged:
            assert met is not None, "flags begin when rows come"
            ids = pl.int_range(self._next, self._next + frame.height, dtype=pl.Int64)
            frame = frame.with_columns(ids.alias(ID), met.alias(MET))
            self._next += frame.height
        frame = frame.select(self._empty.columns)
        self._changes.append(frame.select(list(self.stored)))
        self._add(frame)

    def probe(
        self, frame: pl.DataFrame, on: Sequence[str], before: int, after: int
    ) -> Iterator[tuple[int, pl.Series, pl.Series]]:
        """Pairs of rows of equal key, of which the buffer's is at most ``before`` ms older and ``after`` ms younger.

        ``frame`` has ``HASH``, made of ``on``, and no null in it. Gives ``(level, rows of frame, rows of the level)``,
        indices of equal length of at most twice ``STREAMS_PAIRS_MAX``. Keys of pairs are equal in their hash only.
        """
        if not self.rows or not frame.height:
            return
        # Times that the buffer cannot hold have no partner there.
        end = self._base + (1 << self._time_bits) - 1
        low, high = pl.col(TIME) - before, pl.col(TIME) + after
        packs = frame.select(
            self._pack(low.clip(self._base, end)).alias("low"),
            self._pack(high.clip(self._base, end)).alias("high"),
            ((high >= self._base) & (low <= end)).alias("inside"),
        )
        lows, highs, inside = packs.get_columns()
        for number, level in enumerate(self._levels):
            packed = level.get_column(PACKED)
            ranges = pl.LazyFrame(
                {
                    "low": packed.search_sorted(lows, side="left"),
                    "high": packed.search_sorted(highs, side="right"),
                    "inside": inside,
                }
            ).with_row_index("row")
            found = ranges.filter(pl.col("inside") & (pl.col("low") < pl.col("high"))).select(
                "row",
                pl.col("low", "high").cast(pl.Int64),
                (pl.col("high").cast(pl.Int64) - pl.col("low").cast(pl.Int64)).alias("count"),
            )
            for mine, theirs in _pairs(found.collect()):
                yield number, mine, theirs

    def level(self, number: int, indices: pl.Series) -> pl.DataFrame:
        """Rows of a level."""
        return self._levels[number].select(pl.all().exclude(HASH, PACKED).gather(indices))

    def mark(self, number: int, indices: pl.Series) -> None:
        """These rows of a level have met a partner."""
        level = self._levels[number]
        known = level.get_column(MET)
        fresh = indices.filter(~known.gather(indices)).unique()
        if fresh.len():
            self._met.append(level.get_column(ID).gather(fresh))
            self._levels[number] = level.with_columns(known.clone().scatter(fresh, True).alias(MET))

    # -- time passes ---------------------------------------------------------------------------------

    def unmet(self, after: int, until: int) -> pl.DataFrame:
        """Rows with event times in (after, until] that met no partner, in the order of time."""
        mask = (pl.col(TIME) > after) & (pl.col(TIME) <= until) & ~pl.col(MET)
        frames = [level.filter(mask) for level in self._levels]
        return pl.concat([self._empty, *frames]).sort(TIME, ID).drop(HASH, PACKED, ID, MET)

    def drop(self, until: int) -> None:
        """Let go of rows with event times at or before ``until``."""
        kept = [self._later(level, until) for level in self._levels]
        self._levels = [level for level in kept if level.height]

    @staticmethod
    def _later(level: pl.DataFrame, until: int) -> pl.DataFrame:
        """What of a level is later; a level that all is, as most are, is not copied."""
        stays = level.get_column(TIME) > until
        return level if stays.all() else level.filter(stays)

    # -- commits and restores ------------------------------------------------------------------------

    def deltas(self) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        """Rows that came since the last call, and the numbers of those that met a partner since."""
        changes, self._changes = self._changes, []
        met, self._met = self._met, []
        return (
            pl.concat(changes) if changes else None,
            pl.concat([ids.to_frame() for ids in met]) if met else None,
        )

    def whole(self) -> pl.DataFrame:
        """All rows, as ``deltas`` has them."""
        return pl.concat([self._empty, *self._levels]).select(list(self.stored))

    def load(self, rows: pl.DataFrame, met: pl.DataFrame | None) -> None:
        """Begin with these rows, of which those numbered ``met`` have met a partner."""
        if self.flagged:
            newest = rows.get_column(ID).max()
            self._next = max(self._next, newest + 1 if isinstance(newest, int) else 0)
            if met is not None and met.height:
                rows = rows.with_columns(pl.col(MET) | pl.col(ID).is_in(met.get_column(ID).implode()))
        self._levels = []
        self._time_bits = 0
        if rows.height:
            self._levels = [self.prepared(rows).select(self._empty.columns)]

    # -- levels --------------------------------------------------------------------------------------

    def _add(self, frame: pl.DataFrame) -> None:
        rows, merged = frame.height, [frame]
        while self._levels and max(rows, STREAMS_LEVEL_ROWS_MIN) >= self._levels[-1].height:
            merged.append(self._levels.pop())
            rows += merged[-1].height
        if len(merged) > 1:
            # Polars' sort sees that these are sorted runs: it takes a third of the time of its merge of two frames.
            frame = pl.concat(merged[::-1]).sort(PACKED, maintain_order=True)
        self._levels.append(frame)

    def _pack(self, time: pl.Expr) -> pl.Expr:
        since = (time - self._base).cast(pl.UInt64)
        if self._time_bits >= 64:
            return since
        unit = pl.lit(1 << self._time_bits, dtype=pl.UInt64)
        return pl.col(HASH) // unit * unit + since

    def _fit(self, times: pl.Series) -> None:
        """See to it that these times and all in the buffer can be packed; anew if they could not."""
        low, high = times.min(), times.max()
        if not isinstance(low, int) or not isinstance(high, int):
            return
        if self._time_bits and self._base <= low and high < self._base + (1 << self._time_bits):
            return
        held = [level.get_column(TIME) for level in self._levels]
        for series in held:
            low, high = min(low, int(series.min() or 0)), max(high, int(series.max() or 0))  # type: ignore[arg-type]
        # Room for as much before and six times as much behind, so that this is rare as time goes on.
        span = high - low + 1
        self._base = max(low - span, -(1 << 62))
        self._time_bits = min((8 * span).bit_length(), 63)
        if self._levels:
            packed = pl.concat(self._levels).with_columns(self._pack(pl.col(TIME)).alias(PACKED))
            self._levels = [packed.sort(PACKED, maintain_order=True)]


def _pairs(counted: pl.DataFrame) -> Iterator[tuple[pl.Series, pl.Series]]:
    """The pairs (row, index) for the indices in [low, high) of each row, ``count`` of them, in pieces."""
    if not counted.height:
        return
    counts = counted.get_column("count")
    total = int(counts.sum())
    if total == counted.height:
        # One partner each, as keys of a table have: nothing to spread.
        for piece in counted.iter_slices(STREAMS_PAIRS_MAX):
            yield piece.get_column("row"), piece.get_column("low")
        return
    if total <= STREAMS_PAIRS_MAX:
        yield _spread(counted)
        return
    if int(counts.max() or 0) > STREAMS_PAIRS_MAX:  # type: ignore[arg-type]
        # One row alone has too many: cut its range.
        counted = (
            counted.with_columns(pl.int_ranges("low", "high", STREAMS_PAIRS_MAX).alias("low"))
            .explode("low")
            .with_columns(pl.min_horizontal(pl.col("low") + STREAMS_PAIRS_MAX, "high").alias("high"))
            .with_columns((pl.col("high") - pl.col("low")).alias("count"))
        )
    pieces = (counted.get_column("count").cum_sum() - 1) // STREAMS_PAIRS_MAX
    numbers = pl.int_range(0, int(pieces.item(-1)) + 2, eager=True)
    for begin, end in itertools.pairwise(pieces.search_sorted(numbers, side="left").to_list()):
        some = counted.slice(begin, end - begin)
        if some.height:
            yield _spread(some)


def _spread(some: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    spread = some.select(
        pl.col("row").repeat_by("count").explode(), pl.int_ranges("low", "high").explode().alias("index")
    )
    return spread.get_column("row"), spread.get_column("index")
