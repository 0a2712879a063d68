"""A buffer: rows of a stream that wait for partners, found by key and a range of event time.

    packed    high bits of the key's hash │ event time - base         one UInt64 a row; rows are sorted by it

A row's partners lie next to each other, so two binary searches find all of them, and how many they are is known before
one of them is touched: pairs are made in pieces, and a hot key costs time and no memory. A hash join with a filter
makes every pair of a key first, and takes 1.6 times as long where nearly all of them stay. How many bits time gets
follows from the times in the buffer; keys are compared afterwards, so few bits for the hash cost a little and no error.

Rows that come are a level of their own. A few levels of about one size become one, and so do small ones, of which a
copy costs less than to search one level more: how small depends on how many rows ask. So there are few levels to
search, and a row is copied a few times while the buffer grows (the logarithmic method, Bentley and Saxe, 1980). Rows
whose time is over go where a level is copied anyway, or once they are half of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from headwater.limits import STREAMS_LEVEL_ROWS_MIN, STREAMS_LEVELS_MAX, STREAMS_PAIRS_MAX
from headwater.streams.frames import NEVER, TIME
from headwater.streams.state.hashed import HASH, gathered, hashed, ordered

PACKED: Final = "_p"
_SEARCH: Final = 4  # what a search of a row costs, as copies of a row
_FEWER: Final = 2  # a level with so many times fewer rows than a frame is searched for in the frame
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
        self._empty = pl.DataFrame(schema={**self.stored, PACKED: pl.UInt64()})
        self._levels: list[pl.DataFrame] = []  # old and big ones first
        self._asked = 0  # rows of the newest probe
        self._over = NEVER  # rows with event times up to here are of no use
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
        hashes, times = hashed(frame, self.keys, self._bits), frame.get_column(TIME)
        self._fit(times)
        return ordered(frame.hstack([hashes, self._pack(hashes, times)]), PACKED)

    def insert(self, frame: pl.DataFrame, met: pl.Series | None = None) -> None:
        """Add rows as ``prepared`` gave them; ``met`` says which of them have met a partner."""
        if self.flagged:
            assert met is not None, "flags begin when rows come"
            ids = pl.int_range(self._next, self._next + frame.height, dtype=pl.Int64)
            frame = frame.with_columns(ids.alias(ID), met.alias(MET))
            self._next += frame.height
        frame = frame[self._empty.columns]
        self._changes.append(frame[list(self.stored)])
        self._add(frame)

    def probe(
        self, frame: pl.DataFrame, asking: Buffer, before: int, after: int
    ) -> Iterator[tuple[int, pl.Series, pl.Series]]:
        """Pairs of rows of equal key, of which the buffer's is at most ``before`` ms older and ``after`` ms younger.

        ``frame`` is as ``asking`` has prepared it; its keys are not null. Gives ``(level, rows of frame, rows of the
        level)``, indices of equal length of at most twice ``STREAMS_PAIRS_MAX``. Keys of pairs are equal in their hash
        only. Few rows are looked up among many: those of a level in the frame, if there are more in that.
        """
        if not self.rows or not frame.height:
            return
        self._asked = frame.height
        ranges: tuple[pl.Series, pl.Series, pl.Series | None] | None = None
        packed = frame.get_column(PACKED)
        for number, level in enumerate(self._levels):
            time = level.get_column(TIME)
            if level.height * _FEWER <= frame.height:
                hashes = hashed(level, self.keys, self._bits)
                turned = asking._ranges(hashes, time - after, time + before)
                for theirs, mine in _met(packed, *turned):
                    yield number, mine, theirs
                continue
            if ranges is None:
                times = frame.get_column(TIME)
                ranges = self._ranges(frame.get_column(HASH), times - before, times + after)
            for mine, theirs in _met(level.get_column(PACKED), *ranges):
                yield number, mine, theirs

    def _ranges(
        self, hashes: pl.Series, low: pl.Series, high: pl.Series
    ) -> tuple[pl.Series, pl.Series, pl.Series | None]:
        """Where rows with these hashes and times of ``[low, high]`` begin and end as they are packed here, and which of
        the ranges count; None if all do.
        """
        # Series rather than a query: most frames here are small, and planning one costs more than they do.
        top = self._top(hashes)
        return top + self._since(low), top + self._since(high), self._inside(low, high)

    def _inside(self, low: pl.Series, high: pl.Series) -> pl.Series | None:
        """Which ranges of time touch what the buffer can hold; None if all lie in it."""
        end = self._base + (1 << self._time_bits) - 1
        if _least(low) >= self._base and _most(high) <= end:
            return None
        return (high >= self._base) & (low <= end)

    def level(self, number: int, indices: pl.Series) -> pl.DataFrame:
        """Rows of a level."""
        level = self._levels[number]
        return gathered(level[level.columns[:-1]], indices)  # without PACKED

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
        return pl.concat([self._empty, *frames]).sort(TIME, ID).drop(PACKED, ID, MET)

    def drop(self, until: int) -> None:
        """Let go of rows with event times at or before ``until``: of all that lie in levels of which they are half."""
        self._over = max(self._over, until)
        kept = []
        for level in self._levels:
            over = int((level.get_column(TIME) <= until).sum())
            if over * 2 < level.height:
                kept.append(level)
            elif over < level.height:
                kept.append(self._useful(level))
        self._levels = kept

    def _useful(self, level: pl.DataFrame) -> pl.DataFrame:
        """A level without the rows whose time is over."""
        stays = level.get_column(TIME) > self._over
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
        return pl.concat([self._empty, *map(self._useful, self._levels)]).select(list(self.stored))

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
        alike, rows = 0, frame.height
        while alike < len(self._levels) and max(rows, STREAMS_LEVEL_ROWS_MIN) >= self._levels[-1 - alike].height:
            alike += 1
            rows += self._levels[-alike].height
        if alike and (alike >= STREAMS_LEVELS_MAX or rows <= max(STREAMS_LEVEL_ROWS_MIN, _SEARCH * self._asked)):
            merged = [self._useful(level) for level in self._levels[-alike:]]
            del self._levels[-alike:]
            # Polars' sort sees that these are sorted runs: it takes a third of the time of its merge of two frames.
            frame = pl.concat([*merged, frame]).sort(PACKED, maintain_order=True)
        self._levels.append(frame)

    def _pack(self, hashes: pl.Series, times: pl.Series) -> pl.Series:
        return (self._top(hashes) + self._since(times)).alias(PACKED)

    def _top(self, hashes: pl.Series) -> pl.Series:
        """The bits of hashes that time does not need."""
        if self._time_bits >= 64:
            return hashes * 0
        unit = 1 << self._time_bits
        return hashes // unit * unit

    def _since(self, times: pl.Series) -> pl.Series:
        """Times as they are packed; those that the buffer cannot hold as the nearest that it can."""
        end = self._base + (1 << self._time_bits) - 1
        if _least(times) < self._base or _most(times) > end:
            times = times.clip(self._base, end)
        return (times - self._base).cast(pl.UInt64)

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
            whole = pl.concat(self._levels)
            packed = self._pack(hashed(whole, self.keys, self._bits), whole.get_column(TIME))
            self._levels = [whole.with_columns(packed).sort(PACKED, maintain_order=True)]


def _met(
    packed: pl.Series, lows: pl.Series, highs: pl.Series, inside: pl.Series | None
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """The pairs (range, index) of what lies in each range of ``packed``, which is sorted, in pieces."""
    begins = packed.search_sorted(lows, side="left")
    hit = _until(packed, begins, highs)
    if inside is not None:
        hit &= inside
    if hit.any():
        rows, begins = hit.arg_true(), begins.filter(hit)
        yield from _pairs(rows, begins, _ends(packed, begins, highs.filter(hit)))


def _pairs(rows: pl.Series, lows: pl.Series, highs: pl.Series) -> Iterator[tuple[pl.Series, pl.Series]]:
    """The pairs (row, index) for the indices in [low, high) of each row, at least one of them, in pieces."""
    counts = highs - lows
    total = int(counts.sum())
    if total == rows.len():
        # One partner each, as keys of a table have: nothing to spread.
        for start in range(0, total, STREAMS_PAIRS_MAX):
            yield rows.slice(start, STREAMS_PAIRS_MAX), lows.slice(start, STREAMS_PAIRS_MAX)
        return
    ranges = [rows.alias("row"), lows.cast(pl.Int64).alias("low"), highs.cast(pl.Int64).alias("high")]
    counted = pl.DataFrame([*ranges, counts.cast(pl.Int64).alias("count")])
    if total <= STREAMS_PAIRS_MAX:
        yield _spread(counted)
        return
    if _most(counts) > STREAMS_PAIRS_MAX:
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


def _until(packed: pl.Series, at: pl.Series, highs: pl.Series) -> pl.Series:
    """Whether the row of a level at each index is there, and not beyond ``highs``."""
    last = packed.len() - 1
    if _most(at) <= last:
        return packed[at] <= highs
    return (packed[at.clip(0, last)] <= highs) & (at <= last)


def _ends(packed: pl.Series, begins: pl.Series, highs: pl.Series) -> pl.Series:
    """Where the ranges end that begin at ``begins`` and hold a row at least. Most hold one, which needs no search."""
    ends = begins + 1
    more = _until(packed, ends, highs)
    if not more.any():
        return ends
    if int(more.sum()) * 2 > more.len():
        return packed.search_sorted(highs, side="right")
    return ends.scatter(more.arg_true(), packed.search_sorted(highs.filter(more), side="right"))


def _spread(some: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """One row for each index of each range. Sums over a mark where a range begins take a third of what lists do."""
    counts = some.get_column("count")
    ends = counts.cum_sum()
    starts, total = ends - counts, int(ends.item(-1))
    marks = pl.repeat(0, total, dtype=pl.UInt32, eager=True).scatter(starts.slice(1), 1)
    which = marks.cum_sum()
    indices = pl.int_range(0, total, eager=True) - (starts - some.get_column("low"))[which]
    return some.get_column("row")[which], indices.cast(pl.UInt32)


def _least(series: pl.Series) -> int:
    found = series.min()
    assert isinstance(found, int), "there are rows, and none is null"
    return found


def _most(series: pl.Series) -> int:
    found = series.max()
    assert isinstance(found, int), "there are rows, and none is null"
    return found
