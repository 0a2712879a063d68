"""Nexmark's events, in the standard shape. Pure: the same arguments give the same bytes, whatever block is asked first.

Event ``n`` is a person if ``n % 50`` is 0, an auction if it is 1 to 3, else a bid. Half of all bids go to the hot
auction, three of four come from the hot bidder, and three of four auctions are the hot seller's; the others are spread
over the newest 100 auctions and 1,000 people, and up to 10 that do not exist yet. Event time advances evenly.

All three kinds are rows of one table, as in Flink's source, with nulls in the columns of the other kinds. One event in
four is overtaken: it comes up to 4 s late, which is how far the watermark stays behind. ``arrived`` is when it came: a
clock that is the same in every run, for the queries over processing time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa

PERSON, AUCTION, BID = 0, 1, 2
PERIOD: Final = 50  # events, of which 1 is a person, 3 are auctions and 46 are bids
AUCTIONS: Final = 3
IN_FLIGHT: Final = 100  # auctions that are bid for
ACTIVE: Final = 1_000  # people who sell and bid
AHEAD: Final = 10  # ids that may be named before they exist
HOT: Final = 100  # the hot one changes with every so many ids
FIRST_ID: Final = 1_000
FIRST_CATEGORY: Final = 10
CATEGORIES: Final = 5
OUT_OF_ORDER_MS: Final = 4_000
RATE: Final = 100_000  # events a second of event time
START_MS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STATES: Final = ("AZ", "CA", "ID", "OR", "WA", "WY")
CITIES: Final = ("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent")

MOMENT: Final = pl.Datetime("ms", "UTC")
SCHEMA: Final[dict[str, pl.DataType]] = {
    "event_type": pl.Int8(),
    "ts": MOMENT,
    "arrived": MOMENT,
    "person_id": pl.Int64(),
    "name": pl.String(),
    "email": pl.String(),
    "credit_card": pl.String(),
    "city": pl.String(),
    "state": pl.String(),
    "extra": pl.String(),
    "auction_id": pl.Int64(),
    "item": pl.String(),
    "description": pl.String(),
    "initial_bid": pl.Int64(),
    "reserve": pl.Int64(),
    "expires": MOMENT,
    "seller": pl.Int64(),
    "category": pl.Int64(),
    "auction": pl.Int64(),
    "bidder": pl.Int64(),
    "price": pl.Int64(),
    "channel": pl.String(),
    "url": pl.String(),
}

_U64: Final = pl.UInt64()
_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Events 0 to ``events``, ``rate`` a second of event time. ``seed`` decides all that is random."""

    events: int
    rate: int = RATE
    seed: int = 1

    @property
    def block_rows(self) -> int:
        """Events that may overtake each other: those of 4 s."""
        return self.rate * OUT_OF_ORDER_MS // 1_000

    @property
    def auction_ms_max(self) -> int:
        """The longest time from an auction to its end: twice that in which 100 auctions begin."""
        return 1 + max(2 * (IN_FLIGHT * PERIOD // AUCTIONS) * 1_000 // self.rate, 1)

    def blocks(self) -> Iterator[pl.DataFrame]:
        """All events in the order of their arrival, 4 s of event time at once."""
        for first in range(0, self.events, self.block_rows):
            yield self._block(first, min(first + self.block_rows, self.events))

    def frames(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The same as Arrow, ``rows`` at once; blocks are not joined, so that some frames are smaller."""
        for block in self.blocks():
            table = block.to_arrow(compat_level=pl.CompatLevel.newest()).combine_chunks()
            yield from table.to_batches(max_chunksize=rows)

    def _block(self, first: int, end: int) -> pl.DataFrame:
        n = pl.int_range(first, end, dtype=pl.Int64).alias("n")
        made = pl.select(n).with_columns(
            (START_MS + pl.col("n") * 1_000 // self.rate).alias("ms"),
            rest=pl.col("n") % PERIOD,
            period=pl.col("n") // PERIOD,
        )
        kinds = [self._persons(made), self._auctions(made), self._bids(made)]
        late = pl.when(self._draw(0, 4) == 0).then(self._draw(1, self.block_rows)).otherwise(0)
        ordered = pl.concat(kinds, how="diagonal").sort(pl.col("n") + late, "n")
        arrived = (START_MS + pl.int_range(first, end, dtype=pl.Int64) * 1_000 // self.rate).alias("arrived")
        return ordered.with_columns(arrived).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())

    def _persons(self, made: pl.DataFrame) -> pl.DataFrame:
        person = pl.col("period") + FIRST_ID
        return made.filter(pl.col("rest") == 0).select(
            "n",
            event_type=pl.lit(PERSON),
            ts="ms",
            person_id=person,
            name=pl.format("person-{}", person),
            email=pl.format("person-{}@example.com", person),
            credit_card=person.cast(pl.String).str.zfill(16),
            city=self._one_of(2, CITIES),
            state=self._one_of(3, STATES),
            extra=pl.format("extra-{}", self._draw(4, 1 << 40)),
        )

    def _auctions(self, made: pl.DataFrame) -> pl.DataFrame:
        auction = AUCTIONS * pl.col("period") + pl.col("rest") - 1 + FIRST_ID
        hot = pl.col("period") // HOT * HOT
        seller = pl.when(self._draw(5, 4) > 0).then(hot).otherwise(self._person(6)) + FIRST_ID
        initial = self._price(7)
        return made.filter(pl.col("rest").is_between(1, AUCTIONS)).select(
            "n",
            event_type=pl.lit(AUCTION),
            ts="ms",
            auction_id=auction,
            item=pl.format("item-{}", auction),
            description=pl.format("description-{}-{}", auction, self._draw(8, 1 << 40)),
            initial_bid=initial,
            reserve=initial + self._price(9),
            expires=pl.col("ms") + 1 + self._draw(10, self.auction_ms_max - 1),
            seller=seller,
            category=self._draw(11, CATEGORIES) + FIRST_CATEGORY,
        )

    def _bids(self, made: pl.DataFrame) -> pl.DataFrame:
        newest = AUCTIONS * pl.col("period") + AUCTIONS - 1
        oldest = (newest - IN_FLIGHT).clip(lower_bound=0)
        some = oldest + self._draw(12) % (newest - oldest + 1 + AHEAD)
        auction = pl.when(self._draw(13, 2) > 0).then(newest // HOT * HOT).otherwise(some) + FIRST_ID
        hot = pl.col("period") // HOT * HOT + 1
        bidder = pl.when(self._draw(14, 4) > 0).then(hot).otherwise(self._person(15)) + FIRST_ID
        channel = pl.when(self._draw(16, 2) > 0).then(self._draw(17, 4)).otherwise(self._draw(17, 10_000))
        bids = made.filter(pl.col("rest") > AUCTIONS).select(
            "n", event_type=pl.lit(BID), ts="ms", auction=auction, bidder=bidder, price=self._price(18), at=channel
        )
        return bids.with_columns(
            channel=pl.format("channel-{}", "at"),
            url=pl.format("https://auctions.example.com/item-{}?channel={}", "auction", "at"),
        ).drop("at")

    # -- chance ----------------------------------------------------------------------------------------

    def _person(self, draw: int) -> pl.Expr:
        people = pl.col("period") + 1
        active = people.clip(upper_bound=ACTIVE)
        return people - active + self._draw(draw) % (active + AHEAD)

    def _price(self, draw: int) -> pl.Expr:
        """Cents, from 100 to 100 million; every order of magnitude as often."""
        unit = self._draw(draw, 1 << 40) / float(1 << 40)
        return ((10.0 ** (unit * 6)) * 100).round(0).cast(pl.Int64)

    def _one_of(self, draw: int, names: tuple[str, ...]) -> pl.Expr:
        return self._draw(draw, len(names)).replace_strict(list(range(len(names))), list(names), return_dtype=pl.String)

    def _draw(self, number: int, below: int = 1 << 62) -> pl.Expr:
        """A whole number below ``below`` for each event: the draw ``number`` of it (Steele et al., SplitMix, 2014)."""
        salt = (self.seed * 64 + number) * _GAMMA % (1 << 64)
        z = pl.col("n").cast(_U64) * pl.lit(_GAMMA, _U64) + pl.lit(salt, _U64)
        z = (z ^ (z // pl.lit(1 << 30, _U64))) * pl.lit(_MIX[0], _U64)
        z = (z ^ (z // pl.lit(1 << 27, _U64))) * pl.lit(_MIX[1], _U64)
        z = z ^ (z // pl.lit(1 << 31, _U64))
        return (z % pl.lit(below, _U64)).cast(pl.Int64)
