"""Real clients while gateways are killed and the store refuses, dawdles and loses answers: nothing of it shows.

HEADWATER_FAULT_S says how long clients are driven (default 20 s; ``scripts/kafka-faults`` drives them for 30 minutes).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headwater.clock import stopwatch_s
from headwater.log.namespace import Namespace
from headwater.store import open_store
from tests.kafka.helpers_checker import History, Owned, Polled, Sent, check

FAULT_S = float(os.environ.get("HEADWATER_FAULT_S", "20"))
DRAIN_S = 90.0
PARTITIONS = 2
WORKED = 1_000_000  # transaction t turns n into n + t * WORKED, so that each attempt has values of its own
KILL_EVERY_S = (2.0, 5.0)


@pytest.mark.slow
@pytest.mark.timeout(FAULT_S + 240)
def test_no_anomaly_shows_while_gateways_die_and_the_store_fails(tmp_path: Path) -> None:
    asyncio.run(_make_topics(tmp_path))
    history = History()
    with _gateways(tmp_path) as gateways:
        run = _Run(history, gateways.bootstrap)
        threads = [
            threading.Thread(target=run.guarded, args=(work, name), name=name)
            for name, work in (
                ("p1", run.produce),
                ("p2", run.produce),
                ("w1", run.work),
                ("w2", run.work),
                ("c1", run.consume),
                ("c2", run.consume),
                ("c3", run.consume),
            )
        ]
        for thread in threads:
            thread.start()
        gateways.kill_for(FAULT_S)
        run.producing.clear()
        run.wait_until_drained()
        run.running.clear()
        for thread in threads:
            thread.join(60)
    history.log = asyncio.run(_read_all(tmp_path))
    assert [] == run.errors
    orders = sorted(value for place, records in history.log.items() if place[0] == "orders" for _, value in records)
    done = sorted(
        value % WORKED for place, records in history.log.items() if place[0] == "done" for _, value in records
    )
    assert [] == check(history)
    assert orders == done
    assert len(orders) > FAULT_S
    assert {"commit"} <= set(history.ends.values())
    assert gateways.kills > FAULT_S / 10


class _Run:
    """Clients that write down what they did and saw."""

    def __init__(self, history: History, bootstrap: str) -> None:
        self.history = history
        self.bootstrap = bootstrap
        self.producing, self.running = threading.Event(), threading.Event()
        self.producing.set()
        self.running.set()
        self.errors: list[str] = []
        self._numbers = iter(range(WORKED))
        self._lock = threading.Lock()
        self._assignments = iter(range(1, 1 << 30))
        self._attempts = iter(range(1, 1 << 30))
        self._zones = itertools.cycle((1, 2, 3))  # of the two gateways', and one that has none

    def guarded(self, work: Callable[[str], None], name: str) -> None:
        """Run a client; what breaks it breaks the test."""
        try:
            work(name)
        except Exception as error:
            self.errors.append(f"{name}: {error!r}")

    def _config(self, **more: Any) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "socket.timeout.ms": 5_000,
            "log_level": 0,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 1_000,
            "client.id": f"zone=zone-{next(self._zones)}",
            **more,
        }

    # -- producers ---------------------------------------------------------------------------------------

    def produce(self, name: str) -> None:
        """An idempotent producer of numbers; a new one where it says that it cannot go on."""
        life = 0
        while self.producing.is_set():
            life += 1
            fatal = threading.Event()
            producer = Producer(
                self._config(**{"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 60_000}),
            )
            while self.producing.is_set() and not fatal.is_set():
                with self._lock:
                    number = next(self._numbers)
                place = ("orders", number % PARTITIONS)
                sent = Sent(f"{name}.{life}", place, number)

                def told(error: Any, message: Any, sent: Sent = sent, fatal: threading.Event = fatal) -> None:
                    if error is None:
                        sent.offset = message.offset()
                    elif error.fatal():
                        fatal.set()

                self.history.sent.append(sent)
                producer.produce(place[0], str(number).encode(), partition=place[1], on_delivery=told)
                producer.poll(0.01)
            producer.flush(DRAIN_S)

    # -- consume, process, produce -----------------------------------------------------------------------

    def work(self, name: str) -> None:
        """A transactional worker: exactly once from orders to done, whatever happens to it."""
        life = 0
        while self.running.is_set():
            life += 1
            consumer = Consumer(
                self._config(
                    **{
                        "group.id": "workers",
                        "enable.auto.commit": False,
                        "auto.offset.reset": "earliest",
                        "isolation.level": "read_committed",
                        "session.timeout.ms": 10_000,
                    }
                )
            )
            producer = Producer(self._config(**{"transactional.id": name, "transaction.timeout.ms": 20_000}))
            try:
                producer.init_transactions(30)
                consumer.subscribe(["orders"])
                while self.running.is_set():
                    self._transaction(f"{name}.{life}", consumer, producer)
            except KafkaException:
                pass  # begin again, with a new life that fences this one
            finally:
                consumer.close()

    def _transaction(self, name: str, consumer: Consumer, producer: Producer) -> None:
        messages = [each for each in consumer.consume(50, timeout=0.3) if each.error() is None]
        if not messages:
            return
        attempt = next(self._attempts)
        transaction = f"{name}@{messages[0].partition()}:{messages[0].offset()}/{attempt}"
        self.history.ends[transaction] = ""
        producer.begin_transaction()
        for message in messages:
            number = int(message.value() or b"") + attempt * WORKED
            sent = Sent(name, ("done", message.partition()), number, transaction=transaction)
            self.history.sent.append(sent)
            producer.produce("done", str(number).encode(), partition=message.partition())
        places = {each.partition(): each.offset() + 1 for each in messages}
        offsets = [TopicPartition("orders", partition, offset) for partition, offset in places.items()]
        try:
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
            self._commit(producer)
            self.history.ends[transaction] = "commit"
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            producer.abort_transaction(30)
            self.history.ends[transaction] = "abort"
            raise  # what was read is read again, from the committed offsets

    def _commit(self, producer: Producer) -> None:
        while True:
            try:
                producer.commit_transaction(20)
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise

    # -- a group that only reads -------------------------------------------------------------------------

    def consume(self, name: str) -> None:
        """A member of a group that reads along; from time to time it leaves and comes back."""
        life = 0
        rng = random.Random(name)
        while self.running.is_set():
            life += 1
            self._live(f"{name}.{life}", stopwatch_s() + rng.uniform(8, 20))

    def _live(self, name: str, until_s: float) -> None:
        mine: dict[tuple[str, int], tuple[int, float]] = {}

        def assigned(_: Any, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                mine[each.topic, each.partition] = (next(self._assignments), stopwatch_s())

        def revoked(_: Any, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                held = mine.pop((each.topic, each.partition), None)
                if held is not None:
                    place = (each.topic, each.partition)
                    self.history.owned.append(Owned("readers", name, place, held[1], stopwatch_s()))

        def lost(_: Any, partitions: list[TopicPartition]) -> None:
            # The session ended without it; when, only the group knows, so nothing is claimed of this span.
            for each in partitions:
                mine.pop((each.topic, each.partition), None)

        consumer = Consumer(
            self._config(
                **{
                    "group.id": "readers",
                    "auto.offset.reset": "earliest",
                    "session.timeout.ms": 10_000,
                    "isolation.level": "read_committed",
                }
            )
        )
        consumer.subscribe(["orders", "done"], on_assign=assigned, on_revoke=revoked, on_lost=lost)
        while self.running.is_set() and stopwatch_s() < until_s:
            for message in consumer.consume(100, timeout=0.2):
                place = (message.topic() or "", message.partition() or 0)
                if message.error() is None and place in mine:
                    record = (message.offset() or 0, int(message.value() or b""))
                    self.history.polled.append(Polled(name, mine[place][0], place, [record]))
        consumer.close()

    # -- the end -----------------------------------------------------------------------------------------

    def wait_until_drained(self) -> None:
        """Until everything that was ordered is done, or it takes too long."""
        consumer = Consumer(self._config(**{"group.id": "workers", "isolation.level": "read_committed"}))
        places = [TopicPartition("orders", number) for number in range(PARTITIONS)]
        end_s = stopwatch_s() + DRAIN_S
        pause = threading.Event()
        settled = 0
        while stopwatch_s() < end_s and settled < 3:
            pause.wait(1.0)
            try:
                committed = {each.partition: each.offset for each in consumer.committed(places, 10)}
                ends = {each.partition: consumer.get_watermark_offsets(each, 10)[1] for each in places}
            except KafkaException:
                continue
            settled = settled + 1 if committed == ends else 0
        consumer.close()


class _Gateways:
    """Two processes that are killed in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [_free_port(), _free_port()]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._seeds = iter(range(1, 1 << 20))
        self.kills = 0

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def start(self, node: int) -> None:
        words = [
            sys.executable,
            "-m",
            "tests.kafka.helpers_faulty",
            str(self._ports[node]),
            str(node + 1),
            str(self._folder),
            str(next(self._seeds)),
        ]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        self._processes[node] = process

    def wait(self) -> None:
        for process in self._processes.values():
            assert process.stdout is not None
            process.stdout.readline()

    def kill(self, node: int) -> None:
        process = self._processes.pop(node)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        self.kills += 1

    def kill_for(self, seconds: float) -> None:
        """Kill one or the other every few seconds, and start it again."""
        rng = random.Random(7)
        pause = threading.Event()
        end_s = stopwatch_s() + seconds
        while stopwatch_s() < end_s:
            pause.wait(rng.uniform(*KILL_EVERY_S))
            node = rng.randrange(2)
            self.kill(node)
            pause.wait(rng.uniform(0.0, 1.0))
            self.start(node)


@contextmanager
def _gateways(folder: Path) -> Iterator[_Gateways]:
    gateways = _Gateways(folder)
    try:
        for node in range(2):
            gateways.start(node)
        gateways.wait()
        yield gateways
    finally:
        for node in list(gateways._processes):
            gateways.kill(node)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _make_topics(folder: Path) -> None:
    async with await Namespace.open(open_store(f"file://{folder}"), owns_store=True) as namespace:
        for name in ("orders", "done"):
            await namespace.create_topic(name, PARTITIONS)


async def _read_all(folder: Path) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """The log without any gateway, as a committed reader sees it."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    async with await Namespace.open(open_store(f"file://{folder}"), owns_store=True) as namespace:
        for name in ("orders", "done"):
            for partition in range(PARTITIONS):
                rows = found.setdefault((name, partition), [])
                async for chunk in namespace.reader.chunks(name, partition, 0):
                    placed = chunk.decode()
                    offsets, values = placed.column("offset").to_pylist(), placed.column("value").to_pylist()
                    rows += [(offset, int(value)) for offset, value in zip(offsets, values, strict=True)]
    return found
