"""Real clients write and read through a gateway, unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import confluent_kafka
import kafka as kafka_python
import pytest

from headwater.kafka.gateway import Settings
from headwater.store.memory import MemoryStore

COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("idempotent", [False, True])
def test_confluent_kafka_reads_what_it_wrote(kafka: Any, compression: str, idempotent: bool) -> None:
    kafka.create_topic("orders", 3)
    delivered = confluent_write(kafka, "orders", 300, compression=compression, idempotent=idempotent)
    found = confluent_read(kafka, "orders", 3, 300)
    assert [(f"k{n}".encode(), f"v{n}".encode()) for n in range(300)] == sorted(found, key=lambda kv: int(kv[0][1:]))
    assert [list(range(len(offsets))) for offsets in delivered.values()] == [sorted(o) for o in delivered.values()]


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_aiokafka_reads_what_it_wrote(kafka: Any, compression: str | None) -> None:
    kafka.create_topic("orders", 2)

    async def both() -> list[bytes]:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=compression)
        async with producer:
            sent = [await producer.send("orders", f"{n}".encode(), partition=n % 2) for n in range(100)]
            placed = await asyncio.gather(*sent)
        assert [n // 2 for n in range(100)] == [each.offset for each in placed]
        consumer = aiokafka.AIOKafkaConsumer(
            "orders", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None
        )
        async with consumer:
            return [(await consumer.getone()).value for _ in range(100)]

    assert [f"{n}".encode() for n in range(100)] == sorted(asyncio.run(both()), key=int)


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_kafka_python_reads_what_it_wrote(kafka: Any, compression: str | None) -> None:
    kafka.create_topic("orders", 1)
    producer = kafka_python.KafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=compression)
    for n in range(100):
        producer.send("orders", f"{n}".encode(), headers=[("n", str(n).encode())])
    producer.flush(10)
    producer.close()
    consumer = kafka_python.KafkaConsumer(
        "orders", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    found = [next(consumer) for _ in range(100)]
    consumer.close()
    assert [(n, f"{n}".encode(), [("n", str(n).encode())]) for n in range(100)] == [
        (each.offset, each.value, list(each.headers)) for each in found
    ]


def test_records_written_as_arrow_are_read_by_kafka_clients(kafka: Any) -> None:
    from headwater.log.batch import batch_of_records
    from headwater.types import Record

    kafka.create_topic("orders", 1)
    records = [Record(value=f"{n}".encode(), key=b"k", timestamp=1_000 + n) for n in range(50)]

    async def append() -> None:
        namespace = await kafka.gateway.namespace("default")
        await namespace.append("orders", 0, batch_of_records(records, default_timestamp=0))

    kafka.run(append())
    assert [(b"k", f"{n}".encode()) for n in range(50)] == confluent_read(kafka, "orders", 1, 50)


def test_a_topic_is_made_when_it_is_asked_for_and_that_is_wanted(serve: Any) -> None:
    running = serve(settings=Settings(linger_ms=1.0, auto_create=True, partitions_default=2))
    confluent_write(running, "new", 10)
    assert 10 == len(confluent_read(running, "new", 2, 10))


def test_a_topic_that_does_not_exist_is_an_error(kafka: Any) -> None:
    config = {"bootstrap.servers": kafka.bootstrap, "topic.metadata.propagation.max.ms": 0}
    producer = confluent_kafka.Producer(config)
    errors: list[Any] = []
    producer.produce("nowhere", b"x", on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(10)
    assert [confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART] == errors


def test_two_gateways_over_one_store_are_one_log(serve: Any) -> None:
    store = MemoryStore()
    one, two = serve(store), serve(store)
    one.create_topic("orders", 1)
    confluent_write(one, "orders", 50)
    confluent_write(two, "orders", 50)
    assert 100 == len(confluent_read(two, "orders", 1, 100))
    assert 100 == len(confluent_read(one, "orders", 1, 100))


def test_a_consumer_finds_the_offset_of_a_time(kafka: Any) -> None:
    kafka.create_topic("orders", 1)
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(20):
        producer.produce("orders", f"{n}".encode(), timestamp=1_000 + 10 * n)
    producer.flush(10)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "g"})
    wanted = [confluent_kafka.TopicPartition("orders", 0, time) for time in (1_000, 1_055, 1_190, 1_191)]
    found = [consumer.offsets_for_times([each], timeout=10)[0].offset for each in wanted]
    low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition("orders", 0), timeout=10)
    consumer.close()
    assert ([0, 6, 19, -1], 0, 20) == (found, low, high)


def test_the_offset_of_the_newest_time_is_found_in_the_archive_too(kafka: Any) -> None:
    from confluent_kafka.admin import AdminClient, OffsetSpec

    from headwater.upkeep.archiver import archive

    kafka.create_topic("orders", 1, **{"archive.ms": "1"})
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for time in (1_000, 3_000, 2_000):
        producer.produce("orders", b"x", timestamp=time)
        producer.flush(10)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    place = confluent_kafka.TopicPartition("orders", 0)

    def newest() -> tuple[int, int]:
        (future,) = admin.list_offsets({place: OffsetSpec.max_timestamp()}).values()
        found = future.result(10)
        return found.offset, found.timestamp

    assert (1, 3_000) == newest()

    async def put_away() -> None:
        await archive(await kafka.gateway.namespace("default"))

    kafka.run(put_away())
    namespace = kafka.run(kafka.gateway.namespace("default"))
    assert 3 == namespace.topic("orders").partitions[0].archived
    assert (1, 3_000) == newest()
    assert [b"x"] * 3 == [value for _, value in confluent_read(kafka, "orders", 1, 3)]


def confluent_write(
    running: Any, topic: str, count: int, *, compression: str = "none", idempotent: bool = False
) -> dict[int, list[int]]:
    """Write ``k0: v0`` and so on; the offsets that the client was told, by partition."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": running.bootstrap,
            "compression.type": compression,
            "enable.idempotence": idempotent,
            "linger.ms": 1,
        }
    )
    delivered: dict[int, list[int]] = {}

    def told(error: Any, message: Any) -> None:
        assert error is None, error
        delivered.setdefault(message.partition(), []).append(message.offset())

    for n in range(count):
        producer.produce(topic, f"v{n}".encode(), f"k{n}".encode(), on_delivery=told)
    assert producer.flush(20) == 0
    return delivered


def confluent_read(running: Any, topic: str, partitions: int, count: int, **config: Any) -> list[tuple[bytes, bytes]]:
    """Read ``count`` records from the beginning."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": running.bootstrap, "group.id": "unused", **config})
    consumer.assign([confluent_kafka.TopicPartition(topic, n, 0) for n in range(partitions)])
    found: list[tuple[bytes, bytes]] = []
    while len(found) < count:
        messages = consumer.consume(count - len(found), timeout=10)
        assert messages, f"only {len(found)} of {count} records came"
        for message in messages:
            assert message.error() is None, message.error()
            found.append((message.key(), message.value()))
    consumer.close()
    return found
