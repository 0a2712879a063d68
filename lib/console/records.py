"""Records for the message page: where to begin, what to keep, and never more bytes than one page needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from headwater.api.reading import rows_of
from headwater.api.service import Service
from headwater.console.cells import Cell
from headwater.console.decoding import FORMS, Decoders
from headwater.errors import InvalidRequest, NotFound
from headwater.limits import CONSOLE_FETCH_BYTES, CONSOLE_FILTERED, CONSOLE_RECORDS
from headwater.log.namespace import Namespace
from headwater.log.state import Topic
from headwater.types import PlacedRecord

PARAMETERS: Final = {
    "partition": "its number",
    "from": "earliest, latest, an offset, or a time as 2013-07-04T12:00",
    "key": "only records of this key",
    "where": "a condition on offset, timestamp, key and value",
    "as": ", ".join(FORMS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What was asked for, as it was written."""

    partition: int = 0
    begin: str = "latest"
    key: str = ""
    where: str = ""
    as_: str = "auto"

    @classmethod
    def of(cls, query: Mapping[str, str], topic: Topic) -> Query:
        """Raises ``InvalidRequest`` or ``NotFound``."""
        number, as_ = query.get("partition", "") or "0", query.get("as", "") or "auto"
        if not number.isdecimal() or int(number[:9]) >= len(topic.partitions):
            raise NotFound(
                f"Topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {number[:20]!r}."
            )
        if as_ not in FORMS:
            raise InvalidRequest(f"Values are shown as {', '.join(FORMS)}, not as {as_[:20]!r}.")
        return cls(
            partition=int(number),
            begin=query.get("from", "").strip() or "latest",
            key=query.get("key", ""),
            where=query.get("where", "").strip(),
            as_=as_,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record as it is shown."""

    offset: int
    timestamp: int
    key: Cell
    value: Cell
    headers: Sequence[tuple[Cell, Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records in offset order. ``looked`` were read for them; ``more`` if there are others behind ``next_offset``."""

    rows: Sequence[Row]
    first: int
    next_offset: int
    log_start: int
    end: int
    looked: int
    more: bool


async def found(service: Service, namespace: Namespace, topic: Topic, query: Query, as_of: int | None = None) -> Found:
    """One page of records, of ``topic`` as it was at commit ``as_of`` if one is given.

    Raises:
        InvalidRequest: a place, or a condition, that cannot be read.
        OffsetOutOfRange, Forbidden, …: as ``fetch``.

    Cost: 1 or 2 GETs of at most ``CONSOLE_FETCH_BYTES`` each; with a filter as many as it takes to look at
    ``CONSOLE_FILTERED`` records.
    """
    place = topic.partitions[query.partition]
    begin = await _begin(service, topic, query)
    keep = _keeper(query)
    offset, looked = begin, 0
    kept: list[PlacedRecord] = []
    rows_max = CONSOLE_RECORDS
    while len(kept) < rows_max and offset < place.stable_end and looked < CONSOLE_FILTERED:
        fetched = await service.fetch(topic.name, query.partition, offset, bytes_max=CONSOLE_FETCH_BYTES, as_of=as_of)
        batches, next_offset = rows_of(fetched, offset, CONSOLE_FETCH_BYTES)
        if next_offset <= offset:
            break
        for batch in batches:
            here = batch.slice(0, max(0, CONSOLE_FILTERED - looked))
            looked += here.num_rows
            kept += _records(topic.name, query.partition, keep(here), rows_max - len(kept))
            if len(kept) >= rows_max or here.num_rows < batch.num_rows:
                next_offset = kept[-1].offset + 1 if len(kept) >= rows_max else here.column("offset")[-1].as_py() + 1
                break
        offset = next_offset
        if query.where == query.key == "" and kept:
            break  # one fetch fills a page, or is the end
    decoders = await Decoders.of(service, namespace, topic, [part for r in kept for part in (r.key, r.value)])
    return Found(
        rows=[_row(record, decoders, query.as_) for record in kept],
        first=begin,
        next_offset=offset,
        log_start=place.start,
        end=place.stable_end,
        looked=looked,
        more=offset < place.stable_end,
    )


async def _begin(service: Service, topic: Topic, query: Query) -> int:
    place, text = topic.partitions[query.partition], query.begin
    if text == "earliest":
        return place.start
    if text == "latest":
        return max(place.start, place.stable_end - CONSOLE_RECORDS)
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return min(max(int(text), place.start), place.stable_end)
    found = (await service.offset_of(topic.name, query.partition, time_of(text))).offset
    return min(max(found, place.start), place.stable_end)  # of the past: it ended earlier


def time_of(text: str) -> int:
    """ISO 8601, without a zone in UTC, in ms since 1970. Raises ``InvalidRequest``."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{text[:60]!r} is no place to begin: write earliest, latest, an offset, or a time as 2013-07-04T12:00."
        ) from None
    return max(0, round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000))


def _keeper(query: Query) -> Any:
    """Which rows of a batch to keep, in Arrow's kernels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from headwater.log.batch import PLACED_SCHEMA
    from headwater.replay.where import parse_where

    condition = parse_where(query.where, PLACED_SCHEMA) if query.where else None

    def keep(batch: Any) -> Any:
        table = pa.Table.from_batches([batch])
        if condition is not None:
            table = table.filter(condition)
        if query.key:
            wanted = pa.scalar(query.key.encode("utf-8", "surrogateescape"), table.schema.field("key").type)
            table = table.filter(pc.equal(table.column("key"), wanted))
        return table

    return keep


def _records(topic: str, partition: int, table: Any, count: int) -> list[PlacedRecord]:
    from headwater.log.batch import records_of

    return [record for batch in table.slice(0, count).to_batches() for record in records_of(topic, partition, batch)]


def _row(record: PlacedRecord, decoders: Decoders, form: str) -> Row:
    return Row(
        offset=record.offset,
        timestamp=record.timestamp,
        key=decoders.key(record.key, form),
        value=decoders.value(record.value, form),
        headers=[(decoders.key(_bytes(name), form), decoders.key(value, form)) for name, value in record.headers],
    )


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
