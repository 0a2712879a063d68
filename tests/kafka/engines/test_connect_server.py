"""Kafka Connect through a gateway: a distributed worker that is killed goes on where it was, each line once.

HEADWATER_CONNECT_JARS names a folder with connect-runtime, connect-file and what they need.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, TopicPartition

from headwater.clock import stopwatch_s

JARS = os.environ.get("HEADWATER_CONNECT_JARS", "")
LINES = [f"line {n}" for n in range(5_000)]
WAIT_S = 90.0


def settings(bootstrap: str, port: int) -> dict[str, str]:
    """A worker that keeps connectors, their state and offsets in three topics, which lines commit with."""
    strings = "org.apache.kafka.connect.storage.StringConverter"
    topics = {f"{kind}.storage.topic": f"connect-{kind}" for kind in ("config", "offset", "status")}
    return {
        **topics,
        **{f"{kind}.storage.replication.factor": "1" for kind in ("config", "offset", "status")},
        "bootstrap.servers": bootstrap,
        "group.id": "connect",
        "key.converter": strings,
        "value.converter": strings,
        "offset.storage.partitions": "2",
        "status.storage.partitions": "2",
        "offset.flush.interval.ms": "200",
        "exactly.once.source.support": "enabled",
        "session.timeout.ms": "10000",  # as long as the dead worker keeps its connectors from the next one
        "heartbeat.interval.ms": "3000",
        "scheduled.rebalance.max.delay.ms": "1000",
        "listeners": f"http://127.0.0.1:{port}",
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Worker:
    """A Connect worker in a process of its own."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self._port, self._log = free_port(), folder / "worker.log"
        file = folder / "worker.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings(bootstrap, self._port).items()))
        words = ["java", "-Xmx512m", "-cp", f"{JARS}/*", "org.apache.kafka.connect.cli.ConnectDistributed", str(file)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def put(self, name: str, config: dict[str, str]) -> None:
        """Make a connector; again while the worker still starts."""
        url, body = f"http://127.0.0.1:{self._port}/connectors/{name}/config", json.dumps(config).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="PUT")

        def made() -> bool:
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return bool(answer.status in (200, 201))
            except (urllib.error.URLError, OSError):
                return False

        self.until(made)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Ask until it is so; a worker that has ended, or the time, ends the test with the worker's last words."""
        pause, end_s = threading.Event(), stopwatch_s() + WAIT_S
        while not is_so():
            assert self._process.poll() is None, self._log.read_text()[-3_000:]
            assert stopwatch_s() < end_s, self._log.read_text()[-3_000:]
            pause.wait(0.2)

    def kill(self) -> None:
        """End it as a dead machine would."""
        self._process.kill()
        self._process.wait()


@contextmanager
def worker(bootstrap: str, folder: Path) -> Iterator[Worker]:
    running = Worker(bootstrap, folder)
    try:
        yield running
    finally:
        running.kill()


def committed(bootstrap: str) -> list[str]:
    """All lines that a reader of committed records sees."""
    config = {"bootstrap.servers": bootstrap, "group.id": "check", "enable.partition.eof": True}
    consumer = confluent_kafka.Consumer({**config, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition("lines", 0, 0)])
    found: list[str] = []
    while (message := consumer.poll(20)) is not None and message.error() is None:
        found.append((message.value() or b"").decode())
    assert message is not None, "the lines came to no end"
    assert KafkaError._PARTITION_EOF == message.error().code(), message.error()
    consumer.close()
    return found


@pytest.mark.skipif(not JARS, reason="HEADWATER_CONNECT_JARS names no folder with Kafka Connect")
@pytest.mark.timeout(400)
def test_connect_copies_each_line_once_though_its_worker_is_killed(kafka: Any, tmp_path: Path) -> None:
    kafka.create_topic("lines")
    source, sink = tmp_path / "source.txt", tmp_path / "sink.txt"
    half = len(LINES) // 2
    source.write_text("".join(f"{line}\n" for line in LINES[:half]))
    kind = "org.apache.kafka.connect.file.FileStream"
    with worker(kafka.bootstrap, tmp_path) as first:
        config = {"connector.class": f"{kind}SourceConnector", "file": str(source), "topic": "lines"}
        first.put("source", {**config, "exactly.once.support": "requested", "tasks.max": "1"})
        first.put("sink", {"connector.class": f"{kind}SinkConnector", "file": str(sink), "topics": "lines"})
        first.until(lambda: sink.exists() and bool(sink.read_text()))
    with source.open("a") as more:  # it died while it copied, or just after
        more.write("".join(f"{line}\n" for line in LINES[half:]))
    with worker(kafka.bootstrap, tmp_path) as second:
        second.until(lambda: LINES[-1] in sink.read_text().splitlines())
    assert LINES == committed(kafka.bootstrap)
    # A sink's file and its offsets are two things: what the dead worker had not committed comes again, none lacks.
    assert set(LINES) == set(sink.read_text().splitlines())
