"""What the demonstration's jobs must give, found by DuckDB over the raw files, and the comparison, row by row.

Nothing here knows the log or the jobs: the files are read, ordered and joined anew, in SQL. Only where a key lies is
taken from the log's partitioner, since the clock by which a departure is late is that of its partition.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from headwater.demo.check import Mismatch
from headwater.demo.source import folder, unzipped
from headwater.demo.streams_source import PARTITIONS
from headwater.log.small import partition_of

if TYPE_CHECKING:
    import duckdb

HOUR_MS: Final = 3_600_000
GRACE_MS: Final = 2 * HOUR_MS
TOLERANCE_MS: Final = 2 * HOUR_MS
SHOWN: Final = 10

# The earliest rows by time, as they stand in the file where times are equal.
_FLIGHTS: Final = """
CREATE TABLE flights AS
SELECT * FROM (
    SELECT *, row_number() OVER () AS r, epoch_ms(time_hour::TIMESTAMP) + minute * 60000 AS scheduled
    FROM read_csv({path}, nullstr = ['NA'], types = {{'time_hour': 'VARCHAR'}})
) ORDER BY scheduled, r LIMIT {limit}
"""
# Of reports for one place and time the last one counts.
_WEATHER: Final = """
CREATE TABLE weather AS
SELECT origin, time, temp, wind_speed, precip, visib FROM (
    SELECT * FROM (
        SELECT *, row_number() OVER () AS r, epoch_ms(time_hour::TIMESTAMP) AS time
        FROM read_csv({path}, nullstr = ['NA'], types = {{'time_hour': 'VARCHAR'}})
    ) ORDER BY time, r LIMIT {limit}
) QUALIFY row_number() OVER (PARTITION BY origin, time ORDER BY r DESC) = 1
"""
_PLANES: Final = "CREATE TABLE planes AS SELECT tailnum, year, seats FROM read_csv({path}, nullstr = ['NA'])"
# ``clock``: the newest schedule among the departures that left earlier from the airports of the same partition.
_DEPARTURES: Final = """
CREATE TABLE departures AS
SELECT *, max(scheduled) OVER (
    PARTITION BY lane ORDER BY nth ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
) AS clock, scheduled // {hour} * {hour} AS window_start
FROM (
    SELECT carrier, flight, origin, dest, tailnum, dep_delay, air_time, scheduled,
        scheduled + dep_delay * 60000 AS departed, row_number() OVER (ORDER BY departed, scheduled, r) AS nth
    FROM flights WHERE dep_delay IS NOT NULL
) JOIN places USING (origin)
"""
_LATE: Final = """
SELECT origin, carrier, flight, tailnum, scheduled, departed, dep_delay
FROM departures WHERE window_start + {hour} + {grace} <= clock
"""
# A window is closed once the newest schedule of all lies behind its end and grace.
_HOURS: Final = """
WITH hours AS (
    SELECT origin, window_start, window_start + {hour} AS window_end, count(*) AS departures,
        avg(dep_delay) AS delay, max(dep_delay) AS worst, coalesce(sum(seats), 0)::BIGINT AS seats,
        count(year) AS planes, min(year) AS oldest, window_end - 1 AS last
    FROM departures LEFT JOIN planes USING (tailnum)
    WHERE clock IS NULL OR window_start + {hour} + {grace} > clock
    GROUP BY ALL
    HAVING window_end + {grace} <= (SELECT max(scheduled) FROM departures)
), reported AS (
    SELECT hours.*, CASE WHEN weather.time >= last - {tolerance} THEN weather END AS w
    FROM hours ASOF LEFT JOIN weather ON hours.origin = weather.origin AND weather.time <= hours.last
)
SELECT * EXCLUDE (w, last), w.temp AS temp, w.wind_speed AS wind_speed, w.precip AS precip, w.visib AS visib
FROM reported
"""
_WORST: Final = """
SELECT dest, count(*) AS flights, avg(arr_delay) AS delay FROM flights WHERE arr_delay IS NOT NULL GROUP BY dest
"""
_ROTATIONS: Final = """
SELECT a.tailnum, a.carrier, a.flight, a.origin, a.dest, a.departed, a.departed + a.air_time * 60000 AS landed,
    b.carrier AS carrier_next, b.flight AS flight_next, b.origin AS origin_next, b.departed AS departed_next
FROM departures AS a JOIN departures AS b USING (tailnum)
WHERE a.departed < b.departed AND b.departed < a.departed + a.air_time * 60000
"""
QUERIES: Final = {
    "airport-hours": _HOURS,
    "late-departures": _LATE,
    "worst-airports": _WORST,
    "impossible-rotations": _ROTATIONS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The rows of each topic, in no order; times in ms."""

    rows: dict[str, pl.DataFrame]


def expected(limit: int | None = None) -> Expected:
    """What the jobs must give of the earliest ``limit`` flights and weather reports, or of all.

    Raises ``DataMissing``. Cost: about a second for the whole year.
    """
    import duckdb

    with tempfile.TemporaryDirectory() as place, duckdb.connect() as raw:
        _load(raw, Path(place), limit)
        return Expected(rows={topic: _asked(raw, query) for topic, query in QUERIES.items()})


def _load(raw: duckdb.DuckDBPyConnection, place: Path, limit: int | None) -> None:
    files = folder()
    flights = place / "flights.csv"
    flights.write_bytes(unzipped(files / "flights.csv.zip", "flights.csv"))
    rows = "ALL" if limit is None else str(limit)
    raw.execute(_FLIGHTS.format(path=_quoted(flights), limit=rows))
    raw.execute(_WEATHER.format(path=_quoted(files / "weather.csv"), limit=rows))
    raw.execute(_PLANES.format(path=_quoted(files / "planes.csv")))
    raw.execute("CREATE TABLE places (origin VARCHAR, lane INTEGER)")
    for (origin,) in raw.execute("SELECT DISTINCT origin FROM flights").fetchall():
        raw.execute("INSERT INTO places VALUES (?, ?)", [origin, partition_of(origin.encode(), PARTITIONS)])
    raw.execute(_DEPARTURES.format(hour=HOUR_MS))


def _asked(raw: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    answer: Any = raw.sql(query.format(hour=HOUR_MS, grace=GRACE_MS, tolerance=TOLERANCE_MS))
    found = pl.from_arrow(answer.to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


# -- the comparison -----------------------------------------------------------------------------------------


def hold(topic: str, found: pl.DataFrame, truth: Expected) -> int:
    """Compare what a topic holds with what DuckDB finds, row by row and column by column; how many rows that were.

    Raises ``Mismatch``, which names the first row that differs.
    """
    if topic == "worst-airports":
        found = _newest(found)
    found = found.with_columns(pl.col(pl.Datetime).dt.epoch("ms"))
    due = truth.rows[topic].select(found.columns).cast(dict(found.schema))  # type: ignore[arg-type]
    order = found.columns
    found, due = (each.sort(order, nulls_last=True) for each in (found, due))
    if not found.equals(due):
        raise Mismatch(f"Topic {topic!r}: {_difference(found, due)}.")
    return found.height


def _newest(updates: pl.DataFrame) -> pl.DataFrame:
    """The last of each airport's updates. Raises ``Mismatch`` if one counts no more than the one before it."""
    steps = updates.select(pl.col("flights").diff().over("dest")).to_series()
    if (steps <= 0).any():
        raise Mismatch("Topic 'worst-airports': an update counts no more flights than the one before it.")
    return updates.unique("dest", keep="last", maintain_order=True)


def _difference(found: pl.DataFrame, due: pl.DataFrame) -> str:
    """The first rows that only one side has, and how many rows both have."""
    only = found.join(due, on=found.columns, how="anti", nulls_equal=True)
    missing = due.join(found, on=found.columns, how="anti", nulls_equal=True)
    counts = f"{found.height:,} rows, and DuckDB finds {due.height:,} in the raw files"
    shown = [
        f"{what} {frame.row(0, named=True)}"
        for what, frame in (("only here is", only), ("only there is", missing))
        if frame.height
    ]
    return "; ".join([counts, *(shown or ["some are there more than once"])])


def most_telling(topic: str, found: pl.DataFrame) -> list[dict[str, Any]]:
    """A few rows for people: the worst hours, the worst airports, the closest pairs."""
    if topic == "worst-airports":
        found = _newest(found).sort("delay", "dest", descending=[True, False])
    elif topic == "airport-hours":
        found = found.filter(pl.col("departures") >= 5).sort("delay", descending=True)
    elif topic == "impossible-rotations":
        found = found.sort(pl.col("departed_next") - pl.col("landed"), "departed")
    else:
        return []
    return found.head(SHOWN).to_dicts()
