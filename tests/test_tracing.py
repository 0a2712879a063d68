"""Traces: one goes from a producer through a service and a commit to a consumer and a job; off, nothing is there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headwater import tracing
from headwater.api import runtime
from headwater.api.runtime import Settings, app_for
from headwater.api.server import Server
from headwater.client import Consumer, Producer, connect
from headwater.errors import InvalidRequest, NotFound
from headwater.limits import TRACE_LINKS_MAX
from headwater.log.codec_schema import RECORD_SCHEMA
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.streams import Topology
from headwater.streams.runner.app import run_once
from tests.api.helpers_http import Client, app_over, event
from tests.log.helpers import memory, simulate

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
MALFORMED = [
    b"", b"00", b"\xff\xfe", b"x" * 10_000, b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", PARENT.upper().encode()[:-3],
    PARENT.encode().replace(b"00-", b"ff-", 1), b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None,
]  # fmt: skip


@pytest.fixture
def told() -> Iterator[InMemorySpanExporter]:
    """Where spans go while tracing is on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.stop()


def named(told: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in told.get_finished_spans() if span.name == name]


def only(told: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = named(told, name)
    return span


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def ids(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def job() -> Topology:
    topology = Topology("copies")
    clicks = topology.stream("clicks", format="json", schema={"page": pl.String})
    clicks.to("pages", key=("page",), format="json")
    return topology


def test_one_trace_goes_from_a_producer_over_http_into_a_commit_and_on_to_a_consumer_and_a_job(
    told: InMemorySpanExporter,
) -> None:
    async def main() -> Any:
        store = MemoryStore("traced")
        settings = Settings(store="memory://traced", auth="none")
        app = app_for("dev", settings, store=MeteredStore(store))
        async with Server(app) as server:
            async with connect(server.url) as verbs:
                for topic in ("clicks", "pages"):
                    await verbs.create_topic(topic)
            told.clear()
            async with Producer(server.url, value_serializer="json") as producer:
                with tracing.span("shop") as shop:
                    await producer.send_and_wait("clicks", {"page": "/"})
            async with Consumer(server.url, "clicks", auto_offset_reset="earliest") as consumer:
                found = await consumer.getmany(timeout_ms=20_000)
                (record,) = (record for records in found.values() for record in records)
            with tracing.processing(record, group="counts"):
                pass
            namespace = await Namespace.open(store, "default")
            await run_once(job(), namespace)
            async with Consumer(server.url, "pages", auto_offset_reset="earliest") as consumer:
                after = await consumer.getone(timeout_ms=20_000)
            await namespace.close()
        assert shop is not None and after is not None
        return dict(record.headers), dict(after.headers)

    sent, copied = asyncio.run(main())
    shop, send = only(told, "shop"), only(told, "send clicks")
    assert ids(shop) == (int(sent["traceparent"][3:35], 16), int(sent["traceparent"][36:52], 16))
    assert ids(shop) == (send.context.trace_id, parent_of(send))
    assert trace.SpanKind.PRODUCER == send.kind
    asked = next(span for span in named(told, "POST /batches") if span.context.trace_id == shop.context.trace_id)
    assert send.context.span_id == parent_of(asked)
    commit = next(span for span in named(told, "headwater commit") if parent_of(span) == asked.context.span_id)
    put = next(span for span in told.get_finished_spans() if span.parent and parent_of(span) == commit.context.span_id)
    assert ("put_if_absent manifest", trace.SpanKind.CLIENT) == (put.name, put.kind)
    attributes = dict(commit.attributes or {})
    assert (0, True) == (attributes["headwater.slots_lost"], int(attributes["headwater.commit"]) > 0)  # type: ignore[arg-type]
    assert [ids(shop)] == links(only(told, "poll clicks"))
    by_hand, by_job = named(told, "process clicks")
    assert (shop.context.trace_id, shop.context.span_id) == (by_hand.context.trace_id, parent_of(by_hand))
    assert [ids(shop)] == links(by_job)
    assert ids(by_job) == (int(copied["traceparent"][3:35], 16), int(copied["traceparent"][36:52], 16))
    assert ("headwater", "process", "clicks", 1) == tuple(
        (by_job.attributes or {})[f"messaging.{name}"]
        for name in ("system", "operation.type", "destination.name", "batch.message_count")
    )
    commits = [span for span in named(told, "headwater commit") if span.parent]
    assert any(parent_of(span) == by_job.context.span_id for span in commits)


def test_off_there_are_no_headers_no_spans_and_no_imports() -> None:
    script = """
import asyncio, sys
from headwater.client import Consumer, Producer, connect
async def main():
    async with connect("memory://off") as verbs:
        await verbs.create_topic("t")
        async with Producer(verbs) as producer:
            await producer.send_and_wait("t", b"x")
        async with Consumer(verbs, "t", auto_offset_reset="earliest") as consumer:
            print(list((await consumer.getone()).headers))
asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ["[]", "[]"] == done.stdout.split("\n")[:2]


def test_a_program_without_an_endpoint_does_not_trace() -> None:
    assert not tracing.start({}, "x")
    assert not tracing.start({tracing.ENDPOINTS[0]: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, "x")
    assert not tracing.is_on() and () == tracing.inject() and tracing.here() is None


def test_an_endpoint_without_the_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'headwater\[otel\]'"):
        tracing.start({tracing.ENDPOINTS[0]: "http://127.0.0.1:9"}, "x")
    assert not tracing.is_on()


def test_a_function_without_the_extra_serves_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setattr(runtime, "_warned", [])
    environment = {
        "HEADWATER_STORE": "memory://x",
        "HEADWATER_AUTH": "none",
        tracing.ENDPOINTS[0]: "http://127.0.0.1:9",
    }
    handler = runtime.function("fetch", environment=environment, store=MemoryStore("f"))
    for _ in range(2):
        assert 200 == handler(event("GET", "/healthz"), None)["statusCode"]
    handler._loop.close()  # type: ignore[union-attr]
    (line,) = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert ("error", "tracing", "no") == (line["level"], line["event"], line["error"]["applied"])


@pytest.mark.parametrize("parent", MALFORMED)
def test_a_context_that_is_malformed_is_no_link(told: InMemorySpanExporter, parent: bytes | None) -> None:
    assert [] == tracing.links_of_records([record(parent)])
    assert [] == tracing.links_of_column(column([parent]))
    text = (parent or b"").decode("latin-1")
    assert tracing.continued({"traceparent": text}) is None


def record(parent: bytes | None, topic: str = "t") -> Any:
    return SimpleNamespace(topic=topic, partition=0, offset=7, headers=(("a", b"b"), ("traceparent", parent)))


def column(parents: list[bytes | None]) -> Any:
    rows = [[{"key": "a", "value": b"b"}, {"key": "traceparent", "value": parent}] for parent in parents]
    return pa.array([None, [], *rows], RECORD_SCHEMA.field("headers").type)


def test_contexts_of_records_and_of_columns_are_links_once_each(told: InMemorySpanExporter) -> None:
    for found in (
        tracing.links_of_records([record(PARENT.encode())] * 3),
        tracing.links_of_column(column([PARENT.encode()] * 3)),
    ):
        assert [(TRACE, SPAN)] == [(link.context.trace_id, link.context.span_id) for link in found]


@pytest.mark.parametrize("count", [TRACE_LINKS_MAX, TRACE_LINKS_MAX + 1, 100_000])
def test_links_are_bounded_and_spread_over_the_batch(told: InMemorySpanExporter, count: int) -> None:
    parents: list[bytes | None] = [f"00-{TRACE:032x}-{at + 1:016x}-01".encode() for at in range(count)]
    found = [link.context.span_id for link in tracing.links_of_column(column(parents))]
    assert TRACE_LINKS_MAX == len(found)
    assert 1 == found[0] and found[-1] > count * (TRACE_LINKS_MAX - 2) // TRACE_LINKS_MAX


def test_a_column_without_headers_links_to_nobody(told: InMemorySpanExporter) -> None:
    assert [] == tracing.links_of_column(pa.nulls(3, RECORD_SCHEMA.field("headers").type))


def test_a_service_goes_on_with_the_trace_of_its_client(told: InMemorySpanExporter) -> None:
    async def main() -> None:
        answer = await Client(app_over(memory()))(
            "GET", "/topics/none/partitions/0/records", headers={"traceparent": PARENT}
        )
        assert 404 == answer.status

    simulate(main())
    span = only(told, "GET /topics/{topic}/partitions/{partition}/records")
    assert (TRACE, SPAN, "NotFound") == (span.context.trace_id, parent_of(span), (span.attributes or {})["error.type"])
    assert span.status.is_unset, "a refusal is no error of the server"


def test_an_error_that_is_not_ours_is_named_and_not_quoted(told: InMemorySpanExporter) -> None:
    for error in (ValueError("hunter2"), NotFound("There is no topic 't'.")):
        with pytest.raises(type(error)), tracing.span("work"):
            raise error
    foreign, ours = named(told, "work")
    assert (None, "There is no topic 't'.") == (foreign.status.description, ours.status.description)
    assert "ValueError" == (foreign.attributes or {})["error.type"]


def test_a_header_of_the_program_s_own_is_left_alone(told: InMemorySpanExporter) -> None:
    async def main() -> tuple[Any, ...]:
        async with connect("memory://own") as verbs:
            await verbs.create_topic("t")
            async with Producer(verbs) as producer:
                with tracing.span("shop"):
                    await producer.send_and_wait("t", b"x", headers={"traceparent": PARENT})
            async with Consumer(verbs, "t", auto_offset_reset="earliest") as consumer:
                found = await consumer.getone()
                assert found is not None
                return tuple(found.headers)

    assert (("traceparent", PARENT.encode()),) == asyncio.run(main())


def test_a_transaction_is_one_request_below_what_is_active_and_arrow_readers_link_to_it(
    told: InMemorySpanExporter,
) -> None:
    async def main() -> None:
        async with connect("memory://moved") as verbs:
            await verbs.create_topic("t")
            async with Producer(verbs, transactional_id="mover") as producer:
                with tracing.span("shop"):
                    async with producer.transaction() as transaction:
                        await transaction.send("t", b"x")
                        await transaction.send("t", b"y")
            async with Consumer(verbs, "t", auto_offset_reset="earliest") as consumer:
                (table,) = (await consumer.poll_arrow(timeout_ms=20_000)).values()
                assert 2 == table.num_rows

    asyncio.run(main())
    shop, send = only(told, "shop"), only(told, "send t")
    assert (shop.context.span_id, 2) == (parent_of(send), (send.attributes or {})["messaging.batch.message_count"])
    assert [ids(shop)] == links(only(told, "poll t"))
