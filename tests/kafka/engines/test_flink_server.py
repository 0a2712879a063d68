"""A Flink job through gateways, exactly once though it fails, gateways die and the store refuses.

HEADWATER_FLINK_JARS names a folder with Flink 2, its Kafka connector, and what they need.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, TopicPartition

from tests.kafka.helpers_fault_gateways import make_topics, running

JOB = Path(__file__).with_name("FlinkJob.java")
JARS = os.environ.get("HEADWATER_FLINK_JARS", "")
KEYS, COUNT, PARTITIONS = 5, 600, 2
OPENS = ("java.lang", "java.util", "java.time", "java.net", "java.io")


needs_flink = pytest.mark.skipif(
    not JARS, reason="HEADWATER_FLINK_JARS names no folder with Flink and its Kafka connector"
)


def fill(bootstrap: str) -> dict[str, list[str]]:
    """Write the numbers; what a job that counts each once makes of them, in order, per key."""
    expected: dict[str, list[str]] = defaultdict(list)
    totals: dict[str, int] = defaultdict(int)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 50})
    for n in range(COUNT + 1):
        key = f"k{n % KEYS}"
        totals[key] += n
        expected[key].append(f"{key} {n} {totals[key]}")
        producer.produce("numbers", f"{key} {n}", partition=n % KEYS % PARTITIONS)
    assert 0 == producer.flush(20)
    return dict(expected)


def committed(bootstrap: str) -> dict[str, list[str]]:
    """All that a reader of committed records sees of the sums, in order, per key."""
    config = {"bootstrap.servers": bootstrap, "group.id": "check", "enable.partition.eof": True}
    consumer = confluent_kafka.Consumer({**config, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition("sums", 0, 0)])
    found: dict[str, list[str]] = defaultdict(list)
    while (message := consumer.poll(20)) is not None and message.error() is None:
        line = (message.value() or b"").decode()
        found[line.split()[0]].append(line)
    assert message is not None, "the sums came to no end"
    assert KafkaError._PARTITION_EOF == message.error().code(), message.error()
    consumer.close()
    return dict(found)


def differences(expected: dict[str, list[str]], found: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """By key: what is missing, what is there more than once, what nobody expected, and where the order is another."""
    made: dict[str, dict[str, list[str]]] = {}
    for key in expected.keys() | found.keys():
        want, have = expected.get(key, []), found.get(key, [])
        if want != have:
            made[key] = {
                "missing": sorted(set(want) - set(have)),
                "repeated": sorted({line for line in have if have.count(line) > 1}),
                "unexpected": sorted(set(have) - set(want)),
                "displaced": [line for line, other in zip(have, want, strict=False) if line != other][:3],
            }
    return made


def run_job(bootstrap: str, folder: Path) -> None:
    """Compile the job and run it to its end."""
    opens = [word for name in OPENS for word in ("--add-opens", f"java.base/{name}=ALL-UNNAMED")]
    built = folder / "classes"  # Flink's own threads load the job's classes by name: a single source file has none
    subprocess.run(["javac", "-cp", f"{JARS}/*", "-d", str(built), str(JOB)], check=True, timeout=120)
    words = ["java", *opens, "-cp", f"{built}:{JARS}/*", JOB.stem, bootstrap, str(folder / "c"), str(COUNT)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=240)
    said = done.stdout[-4_000:] + done.stderr[-4_000:]
    assert 0 == done.returncode, said
    assert "done in ms" in done.stdout, said


@needs_flink
@pytest.mark.timeout(300)
def test_flink_sums_each_number_once_though_it_fails_between_two_checkpoints(kafka: Any, tmp_path: Path) -> None:
    kafka.create_topic("numbers", PARTITIONS)
    kafka.create_topic("sums")
    expected = fill(kafka.bootstrap)
    run_job(kafka.bootstrap, tmp_path)
    assert {} == differences(expected, committed(kafka.bootstrap))


@needs_flink
@pytest.mark.timeout(400)
def test_flink_sums_each_number_once_though_gateways_die_and_the_store_fails_as_well(tmp_path: Path) -> None:
    make_topics(tmp_path, {"numbers": PARTITIONS, "sums": 1})
    with running(tmp_path) as gateways:
        expected = fill(gateways.bootstrap)
        gateways.all_again(calm=False)
        with gateways.dying():
            run_job(gateways.bootstrap, tmp_path)
        gateways.all_again(calm=True)
        assert {} == differences(expected, committed(gateways.bootstrap))
