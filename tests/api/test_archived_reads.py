"""What edges answer for archived and compacted offsets: every form of a fetch, consumers, presigned ranges, as of."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pyarrow as pa
import pytest
from aiokafka.record.memory_records import MemoryRecords

from headwater.api import frames, media
from headwater.api.service import Service
from headwater.api.verbs import Fetched
from headwater.client import Consumer
from headwater.log.chunk import first_of_file
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import Client, app_over
from tests.log.helpers import simulate
from tests.log.helpers_archive import archive, compact, filled, value

KEPT = [1, 2, 7, 8, 9, 15]  # of the offsets below 21, which are compacted
LEFT = [*KEPT, *range(21, 30)]

Test = Callable[[Client, Namespace], Coroutine[Any, Any, None]]


def served(test: Test) -> None:
    async def main() -> None:
        store = MemoryStore()
        log = await filled(store)
        files = await archive(log, 0, 6, 12, 21)
        await compact(log, files, KEPT)
        await test(Client(app_over(store, clock=log.chain.clock)), log)

    simulate(main())


async def walk(client: Client, kind: str, take: Callable[[Any], list[tuple[int, Any]]], bytes_max: int) -> list[Any]:
    """What is read from offset 0 to the end, answer by answer."""
    found: list[Any] = []
    offset = 0
    while True:
        query = f"offset={offset}&max_bytes={bytes_max}"
        answer = await client.done("GET", "/topics/t/partitions/0/records", query=query, headers={"accept": kind})
        found += [row for row in take(answer) if row[0] >= offset]
        following = int(answer.headers["headwater-next-offset"])
        if following == offset:
            return found
        offset = following


def of_frame(answer: Any) -> list[tuple[int, Any]]:
    fetched: Fetched = frames.unpack_fetched(answer.plain)
    tables = [chunk.decode() for chunk in fetched.chunks]
    return [
        row for each in tables for row in zip(*(each.column(n).to_pylist() for n in ("offset", "value")), strict=True)
    ]


def of_arrow(answer: Any) -> list[tuple[int, Any]]:
    return _pairs(pa.ipc.open_stream(answer.plain).read_all())


def _pairs(rows: pa.Table | pa.RecordBatch) -> list[tuple[int, Any]]:
    return list(zip(rows.column("offset").to_pylist(), rows.column("value").to_pylist(), strict=True))


def of_json(answer: Any) -> list[tuple[int, Any]]:
    return [(row["offset"], base64.b64decode(row["value"])) for row in json.loads(answer.plain)]


@pytest.mark.parametrize("bytes_max", [1, 200, 1 << 20])
@pytest.mark.parametrize(
    ("kind", "take"),
    [(media.FRAME, of_frame), (media.ARROW, of_arrow), (media.KAFKA_BINARY, of_json)],
    ids=["frame", "arrow", "json"],
)
def test_every_form_of_a_fetch_passes_over_the_gaps(kind: str, take: Any, bytes_max: int) -> None:
    if kind == media.FRAME:
        bytes_max = max(bytes_max, 2_000)  # a frame of one record has 500 bytes or so of Arrow around it

    async def test(client: Client, log: Namespace) -> None:
        assert [(n, value(n)) for n in LEFT] == await walk(client, kind, take, bytes_max)

    served(test)


def test_a_consumer_reads_on_through_the_gaps() -> None:
    async def test(client: Client, log: Namespace) -> None:
        consumer = Consumer(Service(log), "t", auto_offset_reset="earliest", clock=log.chain.clock, rng=log.chain.rng)
        async with consumer:
            found: list[int] = []
            while len(found) < len(LEFT):
                for records in (await consumer.getmany(timeout_ms=1_000, max_records=4)).values():
                    found += [record.offset for record in records]
            assert LEFT == found

    served(test)


def test_as_of_a_commit_before_compaction_everything_is_there() -> None:
    async def test(client: Client, log: Namespace) -> None:
        before = log.state.seq - 1
        query = f"offset=0&as_of={before}"
        answer = await client.done(
            "GET", "/topics/t/partitions/0/records", query=query, headers={"accept": media.ARROW}
        )
        assert [(n, value(n)) for n in range(21)] == of_arrow(answer)
        await log.trim("t", 0, 22)
        answer = await client.done(
            "GET", "/topics/t/partitions/0/records", query=query, headers={"accept": media.ARROW}
        )
        assert "0" == answer.headers["headwater-log-start"]

    served(test)


def test_kafka_bytes_of_a_compacted_range_keep_their_offsets() -> None:
    async def test(client: Client, log: Namespace) -> None:
        (chunk,) = (await log.reader.fetch("t", 0, 0)).chunks
        records = MemoryRecords(chunk.kafka2())
        assert KEPT == [record.offset for record in records.next_batch()]

    served(test)


def test_the_first_records_of_a_whole_file() -> None:
    async def test(client: Client, log: Namespace) -> None:
        located = await log.reader.locate("t", 0, 3, bytes_max=1 << 20)
        (file,) = located.files
        data = (await log.store.get(file.key)).data
        chunk = first_of_file("t", 0, data, 3, 1 << 20)
        assert chunk is not None
        assert ([7, 8, 9, 15], 16) == (chunk.decode().column("offset").to_pylist(), chunk.end)
        one = first_of_file("t", 0, data, 3, 1)
        assert one is not None
        assert [7] == one.decode().column("offset").to_pylist()
        assert None is first_of_file("t", 0, data, 16, 1)

    served(test)
