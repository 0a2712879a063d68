"""Share groups with real clients: Kafka's own share consumer where its jars are, and librdkafka's.

HEADWATER_KAFKA_JARS names a folder with kafka-clients 4.2 or newer and what it needs (slf4j, lz4, snappy, zstd).
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from headwater.log.operations_shares import AlterGroup
from headwater.store.memory import MemoryStore

confluent_kafka = pytest.importorskip("confluent_kafka")

CLIENTS = Path(__file__).parent / "clients"
JARS = os.environ.get("HEADWATER_KAFKA_JARS", "")


@pytest.mark.skipif(not JARS, reason="HEADWATER_KAFKA_JARS names no folder with Kafka's Java client")
@pytest.mark.parametrize("gateways", [1, 2])
def test_the_java_share_consumer_accepts_releases_rejects_and_shares(serve: Any, gateways: int) -> None:
    store = MemoryStore()
    bootstraps = [serve(store).bootstrap for _ in range(gateways)]
    jars = os.pathsep.join(str(path) for path in Path(JARS).rglob("*.jar"))
    words = ["java", "-cp", jars, str(CLIENTS / "ShareClient.java"), *bootstraps]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=240)
    assert 0 == done.returncode, done.stderr
    expected = ["implicit 100", "explicit 90 accepted, 10 rejected", "two consumers 400", "admin done"]
    assert expected == done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(confluent_kafka, "ShareConsumer"), reason="this librdkafka has no share consumer")
def test_librdkafkas_share_consumer_is_given_each_record_once(kafka: Any) -> None:
    kafka.create_topic("t")
    kafka.run(_from_the_beginning(kafka))
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(50):
        producer.produce("t", f"v{number}")
    producer.flush(10)
    consumer = confluent_kafka.ShareConsumer({"bootstrap.servers": kafka.bootstrap, "group.id": "g"})
    consumer.subscribe(["t"])
    seen: list[bytes] = []
    until_s = time.monotonic() + 30.0
    while len(seen) < 50 and time.monotonic() < until_s:
        seen += [message.value() for message in consumer.poll(0.5) or () if message.error() is None]
    consumer.close()
    assert sorted(f"v{number}".encode() for number in range(50)) == sorted(seen)


async def _from_the_beginning(kafka: Any) -> None:
    namespace = await kafka.gateway.namespace("default")
    await namespace.writer.commit(ops=[AlterGroup(group="g", config={"share.auto.offset.reset": "earliest"})])
