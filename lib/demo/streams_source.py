"""What stream processing is shown on besides flights and weather: departures as they happened, and the planes.

``flights`` is in the order of the schedule, in which nothing is ever late. So ``departures`` has the flights that left
in the order in which they left: who hears of them one by one hears of a delayed flight long after its scheduled hour.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from headwater.demo.source import Source, planes_table
from headwater.log import rows

DEPARTURES: Final = "departures"
PLANES: Final = "planes"
PARTITIONS: Final = 3  # as many as ``weather`` has, which is keyed by airport too: so both lie side by side
COLUMNS: Final = ("carrier", "flight", "origin", "dest", "tailnum", "dep_delay", "air_time")
_NEW_YEAR_MS: Final = 1_356_998_400_000  # the register of planes is as of 2013


def departures(flights: Source) -> Source:
    """The flights that left, by origin, in the order in which they left; those that left at once as scheduled."""
    left: Any = pc.indices_nonzero(pc.is_valid(flights.table.column("dep_delay")))
    table = flights.table.take(left)
    scheduled = flights.times.take(left)
    delay = table.column("dep_delay").cast(pa.int64()).combine_chunks()
    departed: Any = pc.add(scheduled, pc.multiply(delay, pa.scalar(60_000, pa.int64())))
    table = table.select(list(COLUMNS))
    table = table.append_column("scheduled", _spelled(scheduled)).append_column("departed", _spelled(departed))
    order: Any = pc.array_sort_indices(departed)  # a stable sort
    table = table.take(order).combine_chunks()
    return Source(
        topic=DEPARTURES,
        partitions=PARTITIONS,
        key="origin",
        table=table,
        times=departed.take(order),
        kinds=rows.kinds_of(table),
    )


def planes() -> Source:
    """The planes by tail number. Raises ``DataMissing``."""
    table = planes_table()
    times = pa.repeat(pa.scalar(_NEW_YEAR_MS, pa.int64()), table.num_rows)
    kinds = rows.kinds_of(table)
    return Source(topic=PLANES, partitions=PARTITIONS, key="tailnum", table=table, times=times, kinds=kinds)


def _spelled(times: Any) -> Any:
    """Times in ms as ISO 8601 in UTC, to the second."""
    return pc.strftime(times.cast(pa.timestamp("ms")).cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ")
