"""What a gateway writes about its clients' requests."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest

from headwater.kafka.gateway import Gateway, Listener, Settings
from headwater.store.memory import MemoryStore
from tests.kafka.test_kafka_produce import batch

HOSTILE = 'x"}\n\x1b[2J{"level":"error"'
PRODUCE, HEARTBEAT = 0, 12


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def frame(api: int, version: int, correlation: int, body: bytes, client: str = HOSTILE) -> bytes:
    made = struct.pack(">hhi", api, version, correlation) + text(client) + body
    return struct.pack(">i", len(made)) + made


def heartbeat(correlation: int) -> bytes:
    return frame(HEARTBEAT, 0, correlation, text("nobody's") + struct.pack(">i", 1) + text("m-1"))


def produce(correlation: int, partition: int, data: bytes) -> bytes:
    rows = struct.pack(">iii", 1, partition, len(data)) + data
    topics = struct.pack(">i", 1) + text("orders") + rows
    return frame(PRODUCE, 3, correlation, struct.pack(">hhi", -1, -1, 1_000) + topics, "shop")


async def told(level: str, *requests: bytes) -> list[dict[str, Any]]:
    """The lines of a gateway that is asked for ``requests``, one after the other."""
    lines: list[str] = []
    gateway = Gateway(
        MemoryStore(), (Listener(port=0),), Settings(node_id=1, linger_ms=0), log=lines.append, level=level
    )
    async with gateway:
        await (await gateway.namespace("default")).create_topic("orders", partitions=1)
        address = gateway.listening[0].address
        reader, writer = await asyncio.open_connection(address.host, address.port)
        for request in requests:
            writer.write(request)
            size = struct.unpack(">i", await reader.readexactly(4))[0]
            await reader.readexactly(size)
        writer.close()
        await writer.wait_closed()
    assert all(line.isascii() and line.count("\n") == 1 for line in lines)
    return [json.loads(line) for line in lines]


def test_a_request_that_is_refused_is_a_line_with_its_correlation_and_its_client() -> None:
    (line,) = asyncio.run(told("info", heartbeat(4711)))
    assert {
        "level": "info",
        "event": "request",
        "process": "kafka",
        "correlation": 4711,
        "client_id": HOSTILE,
        "namespace": "default",
        "api": "Heartbeat",
        "code": "unknown_member_id",
        "principal": "root",
    }.items() <= line.items()


def test_a_partition_that_is_refused_is_in_the_line_of_its_request() -> None:
    (line,) = asyncio.run(told("info", produce(1, 0, batch(-1, 0)), produce(2, 7, batch(-1, 0))))
    assert (2, "Produce", ["unknown_topic_or_partition x 1"]) == (line["correlation"], line["api"], line["refused"])


def test_with_debug_a_produce_names_its_intent_and_the_commit_that_holds_it() -> None:
    (line,) = asyncio.run(told("debug", produce(1, 0, batch(-1, 0))))
    (intent,) = line["intents"]
    assert ("debug", "shop", True) == (line["level"], line["client_id"], intent["commit"] > 0)


@pytest.mark.parametrize("level", ["off", "error"])
def test_what_clients_do_wrong_is_no_error_of_the_gateway(level: str) -> None:
    assert [] == asyncio.run(told(level, heartbeat(1)))
