"""The queries: each as a topology over the topic ``nexmark``, and as SQL over the same events for DuckDB.

Windows give their final rows, so both sides know those that are closed when the input ends (``$watermark``, in ms).
Differences from Flink's texts, none of which changes a result of the standard events:

- q3 joins within a minute, since a seller is among the newest 1,000 people; Flink keeps both sides for ever.
- q4 joins a bid with its auction as long as an auction can last. Its result is a table, of which the last rows count.
- q12 counts in processing time, of which no two runs would agree. Here it is the generator's clock ``arrived``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from polars import col

from headwater.bench.nexmark.generator import AUCTION, BID, OUT_OF_ORDER_MS, PERSON, SCHEMA, Generator
from headwater.streams import Stream, Topology, agg, hopping, session, tumbling

TOPIC: Final = "nexmark"
RESULT: Final = "nexmark-result"
EURO: Final = 0.908  # a dollar's worth, of Flink's q1
STATES: Final = ("OR", "ID", "CA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """``sql`` gives the columns of the result. ``flink`` is Flink's published rate, thousands of events/s a core."""

    name: str
    about: str
    flink: int
    columns: tuple[str, ...]
    build: Callable[[Stream, Generator], Stream]
    sql: str
    time: str = "ts"
    key: str = ""  # of a result that is a table, whose changes are written

    @property
    def out_of_order(self) -> int:
        """How far the watermark stays behind, ms."""
        return OUT_OF_ORDER_MS if self.time == "ts" else 0

    def topology(self, generator: Generator) -> Topology:
        """The job, from the topic of events to the topic of results."""
        made = Topology(f"nexmark-{self.name}")
        events = made.stream(
            TOPIC,
            schema=SCHEMA,
            format="frame",
            time=self.time,
            out_of_order=self.out_of_order,
            columns=self.columns,
        )
        self.build(events, generator).to(RESULT, format="frame")
        return made


def _bids(events: Stream) -> Stream:
    return events.filter(col("event_type") == BID)


def _q0(events: Stream, generator: Generator) -> Stream:
    return _bids(events).select("auction", "bidder", "price", "channel", "url", "ts")


def _q1(events: Stream, generator: Generator) -> Stream:
    return _bids(events).select("auction", "bidder", (col("price") * EURO).alias("price"), "channel", "url", "ts")


def _q2(events: Stream, generator: Generator) -> Stream:
    return events.filter((col("event_type") == BID) & (col("auction") % 123 == 0)).select("auction", "price")


def _q3(events: Stream, generator: Generator) -> Stream:
    auctions = events.filter((col("event_type") == AUCTION) & (col("category") == 10)).select("seller", "auction_id")
    people = events.filter((col("event_type") == PERSON) & col("state").is_in(STATES))
    sellers = people.select("person_id", "name", "city", "state")
    joined = auctions.join(sellers, left_on="seller", right_on="person_id", within="1m")
    return joined.select("name", "city", "state", "auction_id")


def _q4(events: Stream, generator: Generator) -> Stream:
    auctions = events.filter(col("event_type") == AUCTION).select("auction_id", "category", "expires", begins=col("ts"))
    bids = _bids(events).select("auction", "price", "ts")
    joined = auctions.join(bids, left_on="auction_id", right_on="auction", after=generator.auction_ms_max)
    valid = joined.filter(col("ts").is_between(col("begins"), col("expires")))
    final = valid.group_by("auction_id", "category").aggregate(final=agg.max("price"))
    return final.group_by("category").aggregate(average=agg.mean("final"))  # type: ignore[return-value]


def _q5(events: Stream, generator: Generator) -> Stream:
    counts = _bids(events).group_by("auction").window(hopping("10s", "2s")).aggregate(num=agg.count()).suppress()
    items = counts.select("auction", "num", window=col("window_end"))
    most = items.group_by("window").window(tumbling("2s")).aggregate(most=agg.max("num")).suppress()
    hot = items.join(most.select("window", "most"), on="window", within="2s")
    return hot.filter(col("num") == col("most")).select("auction", "num", "window")


def _q7(events: Stream, generator: Generator) -> Stream:
    bids = _bids(events).select("auction", "price", "bidder", "ts", window=col("ts").dt.truncate("10s"))
    # A bid that another one of its micro-batch exceeds is not the window's highest: few are left to wait for its end.
    bids = bids.filter(col("price") == col("price").max().over("window"))
    most = bids.group_by("window").window(tumbling("10s")).aggregate(most=agg.max("price")).suppress()
    highest = most.select("window", "most")
    joined = bids.join(highest, left_on=("window", "price"), right_on=("window", "most"), within="10s")
    return joined.select("auction", "price", "bidder", "ts")


def _q8(events: Stream, generator: Generator) -> Stream:
    people = events.filter(col("event_type") == PERSON).group_by("person_id", "name")
    new = people.window(tumbling("10s")).count().suppress().select("person_id", "name", window=col("window_start"))
    auctions = events.filter(col("event_type") == AUCTION).group_by("seller")
    sellers = auctions.window(tumbling("10s")).count().suppress().select("seller", window=col("window_start"))
    joined = new.join(sellers, left_on=("person_id", "window"), right_on=("seller", "window"), within="1s")
    return joined.select("person_id", "name", "window")


def _q11(events: Stream, generator: Generator) -> Stream:
    return _bids(events).group_by("bidder").window(session("10s")).count().suppress()


def _q12(events: Stream, generator: Generator) -> Stream:
    return _bids(events).group_by("bidder").window(tumbling("10s")).count().suppress()


_TUMBLED: Final = "time_bucket(INTERVAL 10 SECONDS, {}, TIMESTAMPTZ '1970-01-01T00:00:00Z')"
_CLOSED: Final = "{} + INTERVAL 10 SECONDS <= make_timestamptz($watermark * 1000)"

_Q5: Final = f"""
WITH panes AS (
    SELECT auction, time_bucket(INTERVAL 2 SECONDS, ts, TIMESTAMPTZ '1970-01-01T00:00:00Z') AS pane, count(*) AS num
    FROM events WHERE event_type = {BID} GROUP BY 1, 2
), counts AS (
    SELECT auction, pane + to_seconds(2 * step) AS "window", sum(num)::BIGINT AS num
    FROM panes, (SELECT unnest(range(1, 6)) AS step) GROUP BY 1, 2
), closed AS (SELECT * FROM counts WHERE "window" <= make_timestamptz($watermark * 1000))
SELECT auction, num, "window" FROM closed
WHERE (("window", num) IN (SELECT ("window", max(num)) FROM closed GROUP BY "window"))
"""

_Q7: Final = f"""
WITH bids AS (
    SELECT auction, price, bidder, ts, {_TUMBLED.format("ts")} AS start FROM events WHERE event_type = {BID}
), highest AS (SELECT start, max(price) AS price FROM bids GROUP BY 1)
SELECT auction, bids.price, bidder, ts FROM bids JOIN highest ON bids.start = highest.start
AND bids.price = highest.price WHERE {_CLOSED.format("bids.start")}
"""

_Q8: Final = f"""
SELECT person_id, name, p.start AS "window" FROM
(SELECT DISTINCT person_id, name, {_TUMBLED.format("ts")} AS start FROM events WHERE event_type = {PERSON}) p JOIN
(SELECT DISTINCT seller, {_TUMBLED.format("ts")} AS start FROM events WHERE event_type = {AUCTION}) a
ON p.person_id = a.seller AND p.start = a.start WHERE {_CLOSED.format("p.start")}
"""

_Q11: Final = f"""
WITH begun AS (
    SELECT bidder, ts, coalesce(ts - lag(ts) OVER by_time > INTERVAL 10 SECONDS, true) AS first
    FROM events WHERE event_type = {BID} WINDOW by_time AS (PARTITION BY bidder ORDER BY ts)
), numbered AS (
    SELECT bidder, ts, sum(first::INTEGER) OVER (PARTITION BY bidder ORDER BY ts) AS number FROM begun
)
SELECT bidder, count(*) AS count, min(ts) AS window_start, max(ts) + INTERVAL 10 SECONDS AS window_end
FROM numbered GROUP BY bidder, number HAVING max(ts) + INTERVAL 10 SECONDS < make_timestamptz($watermark * 1000)
"""

_Q12: Final = f"""
SELECT bidder, {_TUMBLED.format("arrived")} AS window_start, window_start + INTERVAL 10 SECONDS AS window_end,
    count(*) AS count
FROM events WHERE event_type = {BID} GROUP BY 1, 2 HAVING {_CLOSED.format("window_start")}
"""

_BID_COLUMNS: Final = ("event_type", "ts", "auction", "bidder", "price", "channel", "url")

QUERIES: Final = {
    query.name: query
    for query in (
        Query(
            name="q0",
            about="all bids as they are",
            flink=155,
            columns=_BID_COLUMNS,
            build=_q0,
            sql=f"SELECT auction, bidder, price, channel, url, ts FROM events WHERE event_type = {BID}",
        ),
        Query(
            name="q1",
            about="prices in another currency",
            flink=158,
            columns=_BID_COLUMNS,
            build=_q1,
            sql=f"SELECT auction, bidder, price * {EURO}::DOUBLE AS price, channel, url, ts FROM events "
            f"WHERE event_type = {BID}",
        ),
        Query(
            name="q2",
            about="bids for some auctions",
            flink=175,
            columns=("event_type", "auction", "price"),
            build=_q2,
            sql=f"SELECT auction, price FROM events WHERE event_type = {BID} AND auction % 123 = 0",
        ),
        Query(
            name="q3",
            about="who sells in one category, in three states",
            flink=152,
            columns=("event_type", "seller", "auction_id", "category", "person_id", "name", "city", "state"),
            build=_q3,
            sql=f"""SELECT p.name, p.city, p.state, a.auction_id FROM events a JOIN events p
                ON a.seller = p.person_id AND a.event_type = {AUCTION} AND p.event_type = {PERSON}
                WHERE a.category = 10 AND p.state IN {STATES}""",
        ),
        Query(
            name="q4",
            about="the average winning bid of each category",
            flink=34,
            columns=("event_type", "ts", "auction_id", "category", "expires", "auction", "price"),
            build=_q4,
            key="category",
            sql=f"""SELECT category, avg(final) AS average FROM (
                SELECT a.auction_id, a.category, max(b.price) AS final FROM events a JOIN events b
                ON a.auction_id = b.auction AND b.ts BETWEEN a.ts AND a.expires
                WHERE a.event_type = {AUCTION} AND b.event_type = {BID} GROUP BY 1, 2) GROUP BY 1""",
        ),
        Query(
            name="q5",
            about="the auctions with the most bids in 10 s, every 2 s",
            flink=22,
            columns=("event_type", "auction"),
            build=_q5,
            sql=_Q5,
        ),
        Query(
            name="q7",
            about="the highest bids of every 10 s",
            flink=12,
            columns=("event_type", "ts", "auction", "bidder", "price"),
            build=_q7,
            sql=_Q7,
        ),
        Query(
            name="q8",
            about="who came and sold within the same 10 s",
            flink=146,
            columns=("event_type", "person_id", "name", "seller"),
            build=_q8,
            sql=_Q8,
        ),
        Query(
            name="q11",
            about="bids of each bidder's session, which ends after 10 s without one",
            flink=40,
            columns=("event_type", "bidder"),
            build=_q11,
            sql=_Q11,
        ),
        Query(
            name="q12",
            about="bids of each bidder in 10 s of processing time",
            flink=76,
            columns=("event_type", "bidder"),
            build=_q12,
            sql=_Q12,
            time="arrived",
        ),
    )
}
