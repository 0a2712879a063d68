"""Real clients of several gateways: zones, namespaces by user, SCRAM users in the log, deferred transactions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiokafka
import confluent_kafka as ck
import pytest
from confluent_kafka import admin as ca

from headwater.clock import stopwatch_s
from headwater.kafka.gateway import Listener, Settings
from headwater.kafka.routes import parse_route
from headwater.store.memory import MemoryStore

WAIT_S = 20.0
DEFERRED = Listener(port=0, transactions="deferred")


def values_of(bootstrap: str, topic: str, count: int, **config: Any) -> list[bytes]:
    """The first ``count`` values of partition 0, by a new consumer."""
    consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 0, **config})
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    end_s = stopwatch_s() + WAIT_S
    while len(found) < count and stopwatch_s() < end_s:
        found += [m.value() or b"" for m in consumer.consume(count, 0.5) if m.error() is None]
    consumer.close()
    return found


# -- deferred transactions -------------------------------------------------------------------------------------


def test_confluent_kafka_reads_processes_and_writes_exactly_once_deferred(serve: Any) -> None:
    store = MemoryStore()
    one, two = (serve(store, [DEFERRED], Settings(linger_ms=1.0, node_id=node)) for node in (1, 2))
    one.create_topic("in", 1)
    one.create_topic("out", 1)
    fill = ck.Producer({"bootstrap.servers": two.bootstrap})
    for number in range(40):
        fill.produce("in", b"%d" % number, partition=0)
    assert 0 == fill.flush(WAIT_S)
    for life, ends in ((0, 15), (1, 40)):  # the first one dies with a transaction open
        consumer = ck.Consumer(
            {
                "bootstrap.servers": one.bootstrap,
                "group.id": "workers",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe(["in"])
        producer = ck.Producer({"bootstrap.servers": two.bootstrap, "transactional.id": "w", "linger.ms": 1})
        producer.init_transactions(WAIT_S)
        done, number = False, 0
        while not done:
            messages = [m for m in consumer.consume(10, 5.0) if m.error() is None]
            assert messages
            producer.begin_transaction()
            for message in messages:
                number = int(message.value() or b"")
                producer.produce("out", b"%d" % number, partition=0)
            place = ck.TopicPartition("in", 0, (messages[-1].offset() or 0) + 1)
            producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), WAIT_S)
            producer.flush(WAIT_S)
            done = number + 1 >= ends
            if life or not done:
                producer.commit_transaction(WAIT_S)
        consumer.close()
    assert [b"%d" % n for n in range(40)] == values_of(one.bootstrap, "out", 40)


def test_aiokafka_commits_and_aborts_deferred(serve: Any) -> None:
    running = serve(None, [DEFERRED])
    running.create_topic("in")
    running.create_topic("orders")

    async def main() -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=running.bootstrap, transactional_id="t")
        await producer.start()
        try:
            for number in range(6):
                await producer.begin_transaction()
                sent = await producer.send_and_wait("orders", b"%d" % number, partition=0)
                assert -1 == sent.offset
                await producer.send_offsets_to_transaction({aiokafka.TopicPartition("in", 0): number + 1}, "workers")
                await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
        finally:
            await producer.stop()

    asyncio.run(main())
    assert [b"0", b"2", b"4"] == values_of(running.bootstrap, "orders", 3)
    consumer = ck.Consumer({"bootstrap.servers": running.bootstrap, "group.id": "workers"})
    assert [5] == [place.offset for place in consumer.committed([ck.TopicPartition("in", 0)], WAIT_S)]
    consumer.close()


# -- SCRAM users and namespaces ----------------------------------------------------------------------------------


def test_a_user_that_an_admin_client_made_enters_the_namespace_it_is_led_to(serve: Any) -> None:
    store = MemoryStore()
    routes = (parse_route("user:ann=orders"),)
    listeners = [Listener(name="open", port=0, namespace="orders"), Listener(name="in", port=0, auth="sasl")]
    one, two = (serve(store, listeners, Settings(linger_ms=1.0, node_id=node, routes=routes)) for node in (1, 2))
    admin = ca.AdminClient({"bootstrap.servers": one.address(0)})
    for mechanism in (ca.ScramMechanism.SCRAM_SHA_256, ca.ScramMechanism.SCRAM_SHA_512):
        change = ca.UserScramCredentialUpsertion("ann", ca.ScramCredentialInfo(mechanism, 8_192), b"pencil")
        (made,) = admin.alter_user_scram_credentials([change]).values()
        made.result(WAIT_S)
    described = admin.describe_user_scram_credentials(["ann"])["ann"].result(WAIT_S)
    assert [8_192, 8_192] == [info.iterations for info in described.scram_credential_infos]
    (created,) = admin.create_topics([ca.NewTopic("t", 1)]).values()
    created.result(WAIT_S)
    for mechanism, password, topics in (
        ("SCRAM-SHA-256", "pencil", {"t"}),
        ("SCRAM-SHA-512", "pencil", {"t"}),
        ("SCRAM-SHA-256", "crayon", None),
    ):
        known = ca.AdminClient(
            {
                "bootstrap.servers": two.address(1),
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": mechanism,
                "sasl.username": "ann",
                "sasl.password": password,
                "log_level": 0,
            }
        )
        if topics is None:
            with pytest.raises(ck.KafkaException):
                known.list_topics(timeout=3.0)
        else:
            assert topics == set(known.list_topics(timeout=WAIT_S).topics)


# -- zones -----------------------------------------------------------------------------------------------------


class Process:
    """``headwater kafka`` in a process of its own."""

    def __init__(self, store: Path, node: int, zone: str) -> None:
        words = [*("--json", "--listen", "127.0.0.1:0", "--store", f"file://{store}"), "--node-id", str(node)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headwater.cli.main", "kafka", *words, "--zone", zone, "--auto-create"],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.address: str = said["listeners"][0]["address"]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def two_zones(store: Path) -> Iterator[tuple[Process, Process]]:
    one = Process(store, 1, "a")
    two = Process(store, 2, "b")
    try:
        yield one, two
    finally:
        one.end()
        two.end()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_clients_stay_in_their_zone_and_go_on_in_another_when_its_gateway_dies(tmp_path: Path) -> None:
    with two_zones(tmp_path) as (one, two):
        both = f"{one.address},{two.address}"
        nodes = {}
        for zone, own in (("a", 1), ("b", 2)):
            producer = ck.Producer({"bootstrap.servers": both, "client.id": f"p,zone={zone}", "log_level": 0})
            until(lambda producer=producer: {1, 2} == set(producer.list_topics("t", timeout=5).brokers))
            found = producer.list_topics("t", timeout=5)
            assert {own} == {part.leader for part in found.topics["t"].partitions.values()}
            nodes[zone] = producer
        for number in range(10):
            nodes["ab"[number % 2]].produce("t", b"%d" % number, partition=0)
        assert [0, 0] == [producer.flush(WAIT_S) for producer in nodes.values()]
        assert 10 == len(values_of(both, "t", 10, **{"client.rack": "b"}))
        two.end()
        for number in range(10, 20):
            nodes["ab"[number % 2]].produce("t", b"%d" % number, partition=0)
        assert [0, 0] == [producer.flush(40.0) for producer in nodes.values()]
        found = values_of(both, "t", 20, **{"client.rack": "b"})
        assert {b"%d" % number for number in range(20)} == set(found)
        assert 20 == len(found)


def until(is_so: Any) -> None:
    """Ask until it is so."""
    pause, end_s = threading.Event(), stopwatch_s() + WAIT_S
    while not is_so():
        assert stopwatch_s() < end_s
        pause.wait(0.5)
