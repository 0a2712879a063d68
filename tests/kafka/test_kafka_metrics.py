"""What a gateway counts of its clients."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from headwater.api.access import ROOT
from headwater.api.metrics import gauges
from headwater.clock import Clock
from headwater.kafka.figures import looked_up
from headwater.kafka.gateway import Gateway, Listener, Settings
from headwater.kafka.handlers import table
from headwater.kafka.model import Peer
from headwater.log.options import Options
from headwater.meters import Distribution, Meters, Reading, prometheus
from headwater.store.memory import MemoryStore
from tests.api.test_quotas import ByHand
from tests.kafka.helpers_peer import ask, peer
from tests.kafka.test_kafka_produce import batch

PRODUCE, FETCH = 0, 1
VERSIONS = struct.pack(">ihhih", 10, 18, 0, 7, -1)  # ApiVersions, version 0
TOO_NEW = struct.pack(">ihhih", 10, 18, 99, 8, -1)


def cells(meters: Meters, name: str) -> dict[tuple[str, ...], Any]:
    found: Reading = meters.snapshot()[f"headwater_{name}"]
    return {key: cell.count if isinstance(cell, Distribution) else cell for key, cell in found.cells.items()}


async def known(meters: Meters, *, clock: Clock | None = None, principal: str = ROOT) -> Peer:
    gateway = Gateway(MemoryStore(), (), Settings(node_id=1), clock=clock, options=Options(meters=meters))
    namespace = await gateway.namespace("default")
    await namespace.create_topic("orders", partitions=2)
    return peer(namespace, principal, gateway=gateway)


async def produced(client: Peer, index: int, data: bytes) -> None:
    row = {"index": index, "records": memoryview(data)}
    topic = {"name": "orders", "partition_data": [row]}
    await ask(client, PRODUCE, 9, acks=-1, timeout=1_000, topic_data=[topic])


async def fetched(client: Peer, offset: int, *, wait_ms: int = 0) -> None:
    row = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1_000}
    topics = [{"topic": "orders", "partitions": [row]}]
    await ask(client, FETCH, 4, max_wait=wait_ms, min_bytes=int(wait_ms > 0), max_bytes=1_000, topics=topics)


def test_a_partition_that_is_refused_counts_by_api_and_error() -> None:
    meters = Meters()

    async def work() -> None:
        client = await known(meters)
        await produced(client, 0, batch(-1, 0))
        await produced(client, 7, batch(-1, 0))
        await produced(client, 0, b"nonsense that is no batch of records at all, and long enough to have a header ...")
        await fetched(client, 99)

    asyncio.run(work())
    assert {
        ("Produce", "unknown_topic_or_partition"): 1.0,
        ("Produce", "unsupported_for_message_format"): 1.0,
        ("Fetch", "offset_out_of_range"): 1.0,
    } == cells(meters, "kafka_partition_errors")


def test_chunks_are_misses_once_and_hits_from_then_on() -> None:
    meters = Meters()

    async def work() -> None:
        client = await known(meters)
        gateway = client.gateway
        await produced(client, 0, batch(-1, 0))
        await gateway.start()
        for _ in range(3):
            await fetched(client, 0)
        assert {("default",): 1.0} == cells(meters, "kafka_shelf_misses")
        assert {("default",): 2.0} == cells(meters, "kafka_shelf_hits")
        assert 0 < cells(meters, "kafka_shelf_bytes")["default",]
        await gateway.stop()
        assert {} == cells(meters, "kafka_shelf_hits"), "a gateway that has stopped tells nothing"

    asyncio.run(work())


def test_who_waits_at_the_end_gets_what_this_gateway_commits_out_of_memory() -> None:
    meters = Meters()

    async def work() -> None:
        client = await known(meters)
        collected = meters.collect(lambda: looked_up(client.gateway))
        await fetched(client, 0)  # nothing is there: from now on somebody waits
        for number in range(5):
            reading = asyncio.ensure_future(fetched(client, number, wait_ms=10_000))
            await produced(client, 0, batch(-1, 0))
            await reading
        assert {("default",): 0.0} == cells(meters, "kafka_shelf_misses")
        assert {("default",): 5.0} == cells(meters, "kafka_shelf_hits")
        collected()

    asyncio.run(work())


def test_requests_bytes_and_connections_are_counted_where_they_pass() -> None:
    meters = Meters()

    async def work() -> None:
        gateway = Gateway(MemoryStore(), [Listener(port=0)], options=Options(meters=meters))
        async with gateway:
            address = gateway.listening[0].address
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(VERSIONS + TOO_NEW)
            answers = [await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0]) for _ in range(2)]
            assert {(): 1.0} == cells(meters, "kafka_connections")
            writer.write(struct.pack(">i", -5))  # a size that no request has
            assert b"" == await reader.read()
            writer.close()
            while gateway.connections:
                await asyncio.sleep(0)
        assert {("ApiVersions", "none"): 1.0, ("ApiVersions", "unsupported_version"): 1.0} == cells(
            meters, "kafka_requests"
        )
        assert {("ApiVersions",): 2} == cells(meters, "kafka_request_seconds")
        assert {(): float(len(VERSIONS + TOO_NEW) + 4)} == cells(meters, "kafka_received_bytes")
        assert {(): float(sum(map(len, answers)) + 8)} == cells(meters, "kafka_sent_bytes")
        assert {(): 1.0} == cells(meters, "kafka_disconnects")

    asyncio.run(work())


def test_a_client_that_is_held_back_shows_as_throttled() -> None:
    meters = Meters()

    async def work() -> None:
        ann = await known(meters, clock=ByHand(), principal="ann")
        await peer(ann.namespace, gateway=ann.gateway).service.set_quota("ann", fetch_bytes_per_s=50)
        await produced(ann, 0, batch(-1, 0, 30))  # some 200 bytes
        await fetched(ann, 0)

    asyncio.run(work())
    found = meters.snapshot()["headwater_kafka_throttle_seconds"].total(api="Fetch")
    assert isinstance(found, Distribution)
    assert 1 == found.count
    assert found.sum > 1


def test_every_api_has_a_name_of_its_own() -> None:
    async def work() -> list[str]:
        client = await known(Meters())
        return [client.gateway.figures.api(number).name for number in table()]

    names = asyncio.run(work())
    assert len(table()) == len(set(names))
    assert {"Produce", "Fetch", "ShareFetch", "ApiVersions"} <= set(names)


def test_the_lag_of_open_namespaces_is_looked_up() -> None:
    async def work() -> str:
        meters = Meters()
        client = await known(meters)
        await produced(client, 0, batch(-1, 0, 3))
        await client.namespace.commit_offsets("readers", {("orders", 0): 1})
        meters.collect(lambda: [each for name in client.gateway.open_namespaces() for each in gauges(name)])
        return prometheus.text(meters.snapshot().values())

    lines = asyncio.run(work()).splitlines()
    assert 'headwater_group_lag_records{namespace="default",group="readers",topic="orders"} 2.0' in lines
    assert 'headwater_groups{namespace="default"} 1.0' in lines
