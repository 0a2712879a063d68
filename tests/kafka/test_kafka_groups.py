"""Consumer groups of real clients."""

from __future__ import annotations

from typing import Any

import confluent_kafka
import kafka as kafka_python


def test_a_kafka_python_consumer_goes_on_where_its_group_stopped(kafka: Any) -> None:
    kafka.create_topic("orders", 2)
    write(kafka, "orders", 10)
    terms: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap,
        "group_id": "g",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "consumer_timeout_ms": 5_000,
    }
    first = kafka_python.KafkaConsumer("orders", **terms)
    found = [next(first).value for _ in range(10)]
    first.commit()
    first.close()
    write(kafka, "orders", 4, start=10)
    second = kafka_python.KafkaConsumer("orders", **terms)
    found += [next(second).value for _ in range(4)]
    second.close()
    assert [f"{n}".encode() for n in range(14)] == sorted(found, key=int)


def write(kafka: Any, topic: str, count: int, *, start: int = 0) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(start, start + count):
        producer.produce(topic, f"{n}".encode(), partition=n % 2)
    assert 0 == producer.flush(10)
