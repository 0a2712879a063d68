"""The whole way: a registry, a Kafka gateway and an archive over one bucket, and Confluent's client before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import DeserializingConsumer, SerializingProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer

from headwater.api import routes
from headwater.api.server import Server
from headwater.kafka.gateway import Gateway, Listener, Settings
from headwater.store.memory import MemoryStore
from headwater.upkeep.archiver import archive
from tests.api.helpers_http import Log, app_over
from tests.upkeep.helpers_upkeep import files_of

AVRO = """{"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "long"}, {"name": "city", "type": ["null", "string"], "default": null}]}"""
JSON = """{"title": "Trip", "type": "object", "required": ["id"], "properties": {
    "id": {"type": "integer"}, "city": {"type": ["string", "null"]}}}"""
ROWS = [{"id": number, "city": "Ulm" if number % 3 else None} for number in range(200)]


@contextmanager
def running() -> Iterator[tuple[str, str, Any]]:
    """The registry's URL, the gateway's address, and a way to run something on their loop."""
    store, log, loop = MemoryStore(), Log(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    gateway = Gateway(store, [Listener(port=0)], Settings(linger_ms=1.0))

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def start() -> Server:
        await gateway.start()
        namespace = await gateway.namespace("default")
        await namespace.create_topic("t")
        server = Server(app_over(store, routes=routes.table(routes.EVERYTHING), log=log))
        await server.start()
        return server

    async def table() -> pa.Table:
        namespace = await gateway.namespace("default")
        await archive(namespace, all=True)
        (file,) = await files_of(namespace)
        return pq.read_table(pa.BufferReader((await namespace.store.get(file.key)).data))

    server = run(start())
    try:
        address = gateway.listening[0].address
        yield f"{server.url}/registry", f"{address.host}:{address.port}", lambda: run(table())
    finally:
        run(server.stop())
        run(gateway.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert [] == log.lines


@pytest.mark.parametrize("kind", ["avro", "json"])
def test_what_serializers_write_comes_back_and_has_columns_in_the_archive(kind: str) -> None:
    with running() as (url, bootstrap, table), SchemaRegistryClient({"url": url}) as registry:
        if kind == "avro":
            write, read = AvroSerializer(registry, AVRO), AvroDeserializer(registry)
        else:
            write, read = JSONSerializer(JSON, registry), JSONDeserializer(JSON, schema_registry_client=registry)
        producer = SerializingProducer({"bootstrap.servers": bootstrap, "value.serializer": write})
        for row in ROWS:
            producer.produce("t", value=row)
        assert 0 == producer.flush(20)
        consumer = DeserializingConsumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "g",
                "auto.offset.reset": "earliest",
                "value.deserializer": read,
            }
        )
        consumer.subscribe(["t"])
        found: list[Any] = []
        while len(found) < len(ROWS):
            message = consumer.poll(20)
            assert message is not None
            assert message.error() is None
            found.append(message.value())
        consumer.close()
        assert ROWS == found
        archived = table()
        assert ROWS == archived.select(["id", "city"]).to_pylist()
        assert [pa.int64(), pa.string()] == [archived.schema.field(name).type for name in ("id", "city")]
