"""Kafka Streams' joins and windows through gateways: each result once, though instances and gateways are killed.

The answers are worked out here, from the same input: an order for each 50 ms of event time, payments up to five seconds
behind theirs, two tables that do not change.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from tests.kafka.engines.helpers_streams import WAIT_S, Application, needs_streams
from tests.kafka.helpers_fault_gateways import make_topics, running

SOURCES = ("orders", "payments", "customers", "countries")
RESULTS = ("windows", "pairs", "rows", "lasts")
PARTITIONS = 4
CUSTOMERS, PRODUCTS, COUNTRIES, ORDERS = 20, 7, 3, 1_200
START_MS, STEP_MS, WINDOW_MS, APART_MS = 1_700_000_000_000, 50, 10_000, 3_000
Row = tuple[int, str, str, str]  # time in ms, topic, key, value


class Shop:
    """What happens, in the order of time, and what comes of it, by key."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.tables = [
            *((START_MS - 1, "customers", f"c{n}", f"name{n} k{n % COUNTRIES}") for n in range(CUSTOMERS)),
            *((START_MS - 1, "countries", f"k{n}", f"country{n}") for n in range(COUNTRIES)),
        ]
        self.events: list[Row] = []
        for number in range(ORDERS):
            time_ms, customer = START_MS + number * STEP_MS, f"c{rng.randrange(CUSTOMERS)}"
            self.events.append((time_ms, "orders", customer, f"o{number} p{rng.randrange(PRODUCTS)}"))
            if rng.random() < 0.6:
                self.events.append((time_ms + rng.randrange(5_000), "payments", customer, f"o{number}"))
        self.events.sort()
        self.orders = [row for row in self.events if row[1] == "orders"]
        self.payments = [row for row in self.events if row[1] == "payments"]

    def windows(self) -> dict[str, Counter[str]]:
        """Of each customer, the orders in each window."""
        counts = Counter((key, time_ms // WINDOW_MS * WINDOW_MS) for time_ms, _, key, _ in self.orders)
        return _by_key((key, f"{start} {count}") for (key, start), count in counts.items())

    def pairs(self) -> dict[str, Counter[str]]:
        """Each order with each payment of the same customer that is not far from it."""
        paid = defaultdict(list)
        for row in self.payments:
            paid[row[2]].append(row)
        return _by_key(
            (key, f"{order.split()[0]} {payment}")
            for time_ms, _, key, order in self.orders
            for paid_ms, _, _, payment in paid[key]
            if abs(time_ms - paid_ms) <= APART_MS
        )

    def rows(self) -> dict[str, list[str]]:
        """Each order with its customer and country, in the order of time."""
        customers = self._customers()
        found = defaultdict(list)
        for _, _, key, order in self.orders:
            found[key].append(f"{order} {customers[key]} country{customers[key][-1]}")
        return dict(found)

    def lasts(self) -> dict[str, str]:
        """The last order of each customer."""
        customers = self._customers()
        return {key: f"{order} {customers[key]}" for _, _, key, order in self.orders}

    def _customers(self) -> dict[str, str]:
        return {key: value for _, topic, key, value in self.tables if topic == "customers"}


def _by_key(rows: Any) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for key, value in rows:
        found[key][value] += 1
    return dict(found)


class Till:
    """Writes rows, each call in a transaction."""

    def __init__(self, bootstrap: str) -> None:
        config = {"bootstrap.servers": bootstrap, "transactional.id": "till", "partitioner": "murmur2_random"}
        self._producer = confluent_kafka.Producer(config)
        self._producer.init_transactions(60)

    def write(self, rows: list[Row], partition: int = -1) -> None:
        while True:
            try:
                self._producer.begin_transaction()
                for time_ms, topic, key, value in rows:
                    self._producer.produce(topic, value, key, partition=partition, timestamp=time_ms)
                self._commit()
            except confluent_kafka.KafkaException as error:
                if not error.args[0].txn_requires_abort():
                    raise
                self._producer.abort_transaction(60)
            else:
                return

    def _commit(self) -> None:
        while True:
            try:
                self._producer.commit_transaction(60)
            except confluent_kafka.KafkaException as error:
                if not error.args[0].retriable():
                    raise
            else:
                return

    def close_windows(self) -> None:
        """An order of nobody's in each partition, long after all others."""
        for number in range(PARTITIONS):
            self.write([(START_MS + 3_600_000, "orders", f"nobody{number}", "none none")], partition=number)


class Results:
    """What a reader of committed records sees, by topic and key, in order."""

    def __init__(self, bootstrap: str) -> None:
        config = {"bootstrap.servers": bootstrap, "group.id": "check", "isolation.level": "read_committed"}
        self._consumer = confluent_kafka.Consumer(config)
        self._consumer.assign([TopicPartition(topic, number, 0) for topic in RESULTS for number in range(PARTITIONS)])
        self.found: dict[str, dict[str, list[str]]] = {topic: defaultdict(list) for topic in RESULTS}

    def count(self, topic: str) -> int:
        return sum(map(len, self.found[topic].values()))

    def read(self, counts: dict[str, int], lasts: dict[str, str] | None = None) -> None:
        """Read until there are so many of each topic, and ``lasts`` are the last ones; fails if nothing comes."""
        while any(self.count(topic) < count for topic, count in counts.items()) or (lasts and lasts != self.lasts()):
            if not self._poll(WAIT_S):
                pytest.fail(f"nothing more came; there are {[(topic, self.count(topic)) for topic in RESULTS]}")

    def lasts(self) -> dict[str, str]:
        return {key: values[-1] for key, values in self.found["lasts"].items()}

    def close(self) -> None:
        """Read what comes too much."""
        while self._poll(2.0):
            pass
        self._consumer.close()

    def _poll(self, seconds: float) -> bool:
        message = self._consumer.poll(seconds)
        if message is not None and message.error() is None:
            key, value = message.key() or b"", message.value() or b""
            self.found[message.topic() or ""][key.decode()].append(value.decode())
        return message is not None


def joined(bootstrap: str, folder: Path, shop: Shop) -> dict[str, dict[str, list[str]]]:
    """Write what happens while instances come and are killed; all that came of it."""
    job = Application("StreamsJoins", bootstrap, folder)
    till, results = Till(bootstrap), Results(bootstrap)
    till.write(shop.tables)
    third = len(shop.events) // 3
    with ExitStack() as stack:
        first = stack.enter_context(job.instance(1))
        till.write(shop.events[:third])
        results.read({"rows": ORDERS // 10})
        stack.enter_context(job.instance(2))
        till.write(shop.events[third : 2 * third])
        results.read({"rows": ORDERS // 3})
        first.kill()
        stack.enter_context(job.instance(3))
        till.write(shop.events[2 * third :])
        results.read({"pairs": _size(shop.pairs()), "rows": ORDERS}, shop.lasts())
        till.close_windows()
        results.read({"windows": _size(shop.windows())})
    results.close()
    return results.found


def _size(rows: dict[str, Counter[str]]) -> int:
    return sum(each.total() for each in rows.values())


def check(shop: Shop, found: dict[str, dict[str, list[str]]]) -> None:
    assert shop.windows() == {key: Counter(values) for key, values in found["windows"].items()}
    assert shop.pairs() == {key: Counter(values) for key, values in found["pairs"].items()}
    assert shop.rows() == found["rows"]
    assert shop.lasts() == {key: values[-1] for key, values in found["lasts"].items()}


@needs_streams
@pytest.mark.timeout(500)
def test_kafka_streams_joins_and_windows_come_out_once_though_an_instance_is_killed(kafka: Any, tmp_path: Path) -> None:
    for name in (*SOURCES, *RESULTS):
        kafka.create_topic(name, PARTITIONS)
    shop = Shop(1)
    check(shop, joined(kafka.bootstrap, tmp_path, shop))


@needs_streams
@pytest.mark.timeout(700)
def test_kafka_streams_joins_and_windows_come_out_once_though_gateways_die_and_the_store_fails(tmp_path: Path) -> None:
    make_topics(tmp_path, dict.fromkeys((*SOURCES, *RESULTS), PARTITIONS))
    shop = Shop(2)
    with running(tmp_path) as gateways:
        gateways.all_again(calm=False)
        with gateways.dying():
            found = joined(gateways.bootstrap, tmp_path, shop)
        check(shop, found)
