"""Quix Streams through a gateway, exactly once though it dies in the middle of a transaction.

HEADWATER_QUIX_PYTHON names a Python that has quixstreams: its dependencies do not fit beside the gateway's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, TopicPartition

APP = Path(__file__).with_name("quix_app.py")
PYTHON = os.environ.get("HEADWATER_QUIX_PYTHON", "")
KEYS, COUNT, PARTITIONS = 5, 300, 2


def fill(bootstrap: str) -> dict[str, list[dict[str, int]]]:
    """Write the numbers; what an application that does each once makes of them, in order, per key."""
    expected: dict[str, list[dict[str, int]]] = defaultdict(list)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 50})
    for n in range(COUNT):
        key = f"k{n % KEYS}"
        total = expected[key][-1]["sum"] if expected[key] else 0
        expected[key].append({"n": n, "sum": total + n})
        producer.produce("numbers", json.dumps({"n": n}), key=key, partition=n % KEYS % PARTITIONS)
    assert 0 == producer.flush(20)
    return dict(expected)


def committed(bootstrap: str) -> dict[str, list[dict[str, int]]]:
    """All that a reader of committed records sees of the sums, in order, per key."""
    config = {"bootstrap.servers": bootstrap, "group.id": "check", "enable.partition.eof": True}
    consumer = confluent_kafka.Consumer({**config, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition("sums", n, 0) for n in range(PARTITIONS)])
    found: dict[str, list[dict[str, int]]] = defaultdict(list)
    ends = 0
    while ends < PARTITIONS:
        message = consumer.poll(20)
        assert message is not None, "the sums came to no end"
        if message.error() is None:
            found[message.key().decode()].append(json.loads(message.value()))
        else:
            assert KafkaError._PARTITION_EOF == message.error().code(), message.error()
            ends += 1
    consumer.close()
    return dict(found)


def app(bootstrap: str, state: Path, crash_at: int) -> subprocess.CompletedProcess[str]:
    """One life of the application."""
    words = [PYTHON, str(APP), bootstrap, str(state), str(crash_at)]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not PYTHON, reason="HEADWATER_QUIX_PYTHON names no Python that has quixstreams")
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_quix_sums_each_number_once_though_it_dies_in_a_transaction(kafka: Any, tmp_path: Path, disk: str) -> None:
    for topic in ("numbers", "sums"):
        kafka.create_topic(topic, PARTITIONS)
    expected = fill(kafka.bootstrap)
    died = app(kafka.bootstrap, tmp_path / "state", 130)
    assert 9 == died.returncode, died.stderr
    if disk == "lost":  # the sums so far come back from the changelog topic alone
        shutil.rmtree(tmp_path / "state")
    done = app(kafka.bootstrap, tmp_path / "state", 0)
    assert 0 == done.returncode, done.stderr
    assert expected == committed(kafka.bootstrap)
