"""Spans of a gateway: a Produce with its commit and its PUT, a Fetch that asks the bucket; off, nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from headwater import tracing
from headwater.api.access import ROOT
from headwater.client import Consumer, Producer, connect
from headwater.kafka.gateway import Gateway, Settings
from headwater.kafka.handlers import fetch, produce
from headwater.kafka.model import Peer
from headwater.meters import Meters
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from tests.kafka.helpers_peer import peer
from tests.kafka.test_kafka_metrics import fetched, produced
from tests.kafka.test_kafka_produce import batch

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.fixture
def told() -> Iterator[InMemorySpanExporter]:
    """Where spans go while tracing is on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.stop()


async def known() -> Peer:
    gateway = Gateway(MeteredStore(MemoryStore(), Meters()), (), Settings(node_id=1))
    namespace = await gateway.namespace("default")
    await namespace.create_topic("orders", partitions=2)
    return peer(namespace, ROOT, gateway=gateway)


def only(told: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in told.get_finished_spans() if span.name == name]
    return span


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def test_a_produce_is_a_trace_down_to_the_put(told: InMemorySpanExporter) -> None:
    async def work() -> None:
        client = await known()
        told.clear()
        await produced(client, 1, batch(-1, 0))

    asyncio.run(work())
    produce, commit = only(told, "produce orders"), only(told, "headwater commit")
    (put,) = [span for span in told.get_finished_spans() if span.kind.name == "CLIENT"]
    assert (None, produce.context.span_id, commit.context.span_id) == tuple(map(parent_of, (produce, commit, put)))
    assert produce.attributes is not None
    assert ("SERVER", "orders", "1", 1) == (
        produce.kind.name,
        *(
            produce.attributes[f"messaging.{name}"]
            for name in ("destination.name", "destination.partition.id", "batch.message_count")
        ),
    )
    assert StatusCode.ERROR != produce.status.status_code


def test_a_produce_that_is_refused_says_why(told: InMemorySpanExporter) -> None:
    async def work() -> None:
        client = await known()
        await produced(client, 0, batch(7, 0))  # nobody knows this producer

    asyncio.run(work())
    span = only(told, "produce orders")
    assert span.attributes is not None
    assert ("unknown_producer_id", StatusCode.ERROR) == (span.attributes["error.type"], span.status.status_code)


def test_a_fetch_is_a_span_only_where_it_asks_the_bucket(told: InMemorySpanExporter) -> None:
    async def work() -> None:
        client = await known()
        await produced(client, 0, batch(-1, 0))
        told.clear()
        for _ in range(3):
            await fetched(client, 0)
        await fetched(client, 1)  # the end

    asyncio.run(work())
    span = only(told, "fetch orders")
    assert span.attributes is not None
    assert ("SERVER", "0", 0) == (
        span.kind.name,
        span.attributes["messaging.destination.partition.id"],
        span.attributes["messaging.headwater.offset"],
    )


def test_without_tracing_no_span_is_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "_span", None)
    monkeypatch.setattr(fetch, "_traced", None)

    async def work() -> int:
        client = await known()
        await produced(client, 0, batch(-1, 0))
        await fetched(client, 0)
        return client.namespace.state.topics[1].partitions[0].next

    assert 1 == asyncio.run(work())


def test_a_trace_goes_from_librdkafka_to_a_poll_and_from_a_send_to_librdkafka(
    told: InMemorySpanExporter, serve: Any
) -> None:
    """With the header as its instrumentation writes it, and as instrumentation reads it."""
    running = serve(MemoryStore("traced-kafka"))
    running.create_topic("there")
    running.create_topic("back")
    sender = confluent_kafka.Producer({"bootstrap.servers": running.bootstrap, "compression.type": "zstd"})
    sender.produce("there", b"v", headers=[("traceparent", f"00-{TRACE:032x}-{SPAN:016x}-01".encode()), ("n", b"1")])
    assert 0 == sender.flush(20)

    async def answer() -> None:
        async with connect("memory://traced-kafka") as verbs:
            async with Consumer(verbs, "there", auto_offset_reset="earliest") as consumer:
                found = await consumer.getmany(timeout_ms=20_000)
            (record,) = (record for records in found.values() for record in records)
            async with Producer(verbs) as producer:
                with tracing.processing(record):
                    await producer.send_and_wait("back", b"w")

    asyncio.run(answer())
    poll, process = only(told, "poll there"), only(told, "process there")
    assert [(TRACE, SPAN)] == [(link.context.trace_id, link.context.span_id) for link in poll.links]
    assert (TRACE, SPAN) == (process.context.trace_id, parent_of(process))

    receiver = confluent_kafka.Consumer({"bootstrap.servers": running.bootstrap, "group.id": "unused"})
    receiver.assign([confluent_kafka.TopicPartition("back", 0, 0)])
    (message,) = receiver.consume(1, timeout=20)
    headers = dict(message.headers())
    receiver.close()
    assert f"00-{TRACE:032x}-{process.context.span_id:016x}-01" == headers["traceparent"].decode()
