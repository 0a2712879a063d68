"""The bytes half of ``verify``: every chunk that a reader can still reach, against what the log says of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.errors import Corrupt, InvalidRequest, NotFound
from headwater.log import frame, kafka2, keys
from headwater.log.chain import Chain
from headwater.log.intents import decode_manifest, decode_segment
from headwater.log.state import Entry, State
from headwater.log.verify_sums import Place

if TYPE_CHECKING:
    from headwater.log.verify import Report

OBJECTS_MAX = 4  # objects in memory at once


class Bytes:
    """Checks chunks of one namespace, as far as readers of the state ``final`` can reach them."""

    def __init__(self, chain: Chain, final: State, report: Report) -> None:
        self.chain = chain
        self.final = final
        self.report = report
        self._slots = asyncio.Semaphore(OBJECTS_MAX)
        self._broken: set[str] = set()

    def live(self, place: Place, entry: Entry) -> bool:
        """Whether a reader can still reach the chunk: its topic exists, it is neither trimmed nor archived."""
        partition = self.final.partition(*place)
        return partition is not None and entry.end > partition.hot

    async def check(self, entries: Sequence[tuple[Place, Entry]], held: dict[str, bytes] | None = None) -> None:
        """Check the live chunks among ``entries``; each object is read once, or not at all if ``held`` has it."""
        grouped: dict[str, list[tuple[Place, Entry]]] = defaultdict(list)
        for place, entry in entries:
            if entry.codec != "gap" and self.live(place, entry):
                grouped[entry.obj or keys.manifest_key(entry.seq)].append((place, entry))
        await asyncio.gather(*(self._check_object(key, group, (held or {}).get(key)) for key, group in grouped.items()))

    async def _check_object(self, key: str, group: list[tuple[Place, Entry]], data: bytes | None) -> None:
        if key in self._broken:
            return
        async with self._slots:
            try:
                if data is None:
                    data = (await self.chain.read(key, state=self.final)).data
                    _check_header(key, data)
            except NotFound:
                self._broken.add(key)
                places = ", ".join(sorted({self._name(place) for place, _ in group}))
                self.report.add("missing", key, f"The object does not exist and {places} need it.")
                return
            except Corrupt as error:
                self.report.add("object", key, str(error))
        assert data is not None
        for place, entry in group:
            # A chunk of 8 MiB takes a while to decode; let other tasks breathe.
            await self.chain.clock.sleep(0)
            self._check_chunk(key, place, entry, data[entry.pos : entry.pos + entry.len])

    def _check_chunk(self, key: str, place: Place, entry: Entry, data: bytes) -> None:
        where = (
            f"{self._name(place)}, offsets [{entry.base}, {entry.end}), bytes [{entry.pos}, {entry.pos + entry.len})"
        )
        self.report.count("chunks")
        self.report.count("chunk_bytes", entry.len)
        if len(data) != entry.len:
            self.report.add("range", key, f"{where}: the object ends {entry.len - len(data)} bytes too early.")
            return
        if frame.checksum(data) != entry.crc:
            self.report.add("crc", key, f"{where}: the chunk fails its CRC32C.")
            return
        try:
            count, times = _decoded(entry, data)
        except Corrupt as error:
            self.report.add("decode", key, f"{where}: {error}")
            return
        if count != entry.count:
            self.report.add("count", key, f"{where}: the chunk holds {count} records, not {entry.count}.")
        if times not in (None, (entry.min, entry.max)):
            self.report.add("times", key, f"{where}: timestamps are {times}, not {(entry.min, entry.max)}.")
        self.report.count("records", count)

    def _name(self, place: Place) -> str:
        topic = self.final.topics.get(place[0])
        return f"topic {topic.name!r} partition {place[1]}" if topic else f"topic id {place[0]} partition {place[1]}"


def _check_header(key: str, data: bytes) -> None:
    if key.startswith(keys.SEGMENTS):
        decode_segment(data)
    else:
        decode_manifest(data, keys.parse_numbered_key(key))


def _decoded(entry: Entry, data: bytes) -> tuple[int, tuple[int, int] | None]:
    """Records in the chunk, and the least and greatest timestamp where the codec promises them exactly."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from headwater.log import batch

    assert entry.codec != "gap", "gaps have no bytes"
    try:
        placed = batch.decode(entry.codec, data, entry.base)
    except InvalidRequest:  # without the extra `kafka` only the headers of Kafka's batches can be read
        return sum(header.count for header in kafka2.headers_of(data)), None
    if entry.codec == "kafka2" or not placed.num_rows:
        return placed.num_rows, None
    times: Any = pc.min_max(placed.column("timestamp").view(pa.int64())).as_py()
    return placed.num_rows, (times["min"], times["max"])
