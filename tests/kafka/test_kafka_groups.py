"""Consumer groups of real clients: they share partitions, go on where they stopped, and come and go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import aiokafka
import confluent_kafka
import kafka as kafka_python
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka.admin import AdminClient

from headwater.kafka.gateway import Listener
from headwater.store.memory import MemoryStore

PATIENCE_S = 30.0  # far more than any of it takes on a machine with nothing else to do
PROTOCOLS = ["classic", "consumer"]
KAFKA_PYTHON: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "heartbeat_interval_ms": 300,
    "session_timeout_ms": 6_000,
}


def write(kafka: Any, topic: str, count: int, *, start: int = 0, partitions: int = 2) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(start, start + count):
        producer.produce(topic, f"{n}".encode(), partition=n % partitions)
    assert 0 == producer.flush(10)


POLLED = threading.Condition()  # some consumer has polled


def until(is_so: Callable[[], bool]) -> None:
    """Wait for clients that poll in threads of their own."""
    with POLLED:
        assert POLLED.wait_for(is_so, PATIENCE_S), "it never came about"


class Polling:
    """A consumer of confluent-kafka that polls in a thread, as a client's program does."""

    def __init__(self, kafka: Any, protocol: str, *, topics: list[str] | None = None, **more: Any) -> None:
        terms: dict[str, Any] = {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "g",
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        if protocol == "classic":
            terms |= {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 300}
        self.consumer = confluent_kafka.Consumer({**terms, **{name.replace("_", "."): v for name, v in more.items()}})
        self.found: list[bytes] = []
        self.places: list[tuple[str, int]] = []  # that it has
        self.errors: list[Any] = []
        self._end = threading.Event()
        self._is_to_commit = threading.Event()
        self.consumer.subscribe(topics or ["orders"])
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while not self._end.is_set():
            message = self.consumer.poll(0.05)
            # Here, and not in the test's thread: librdkafka makes whoever asks from another one wait for long.
            self.places = sorted((place.topic, place.partition) for place in self.consumer.assignment())
            if message is not None and message.error():
                self.errors.append(message.error())
            elif message is not None:
                self.found.append(message.value() or b"")
            if self._is_to_commit.is_set():
                self.consumer.commit(asynchronous=False)
                self._is_to_commit.clear()
            with POLLED:
                POLLED.notify_all()
        self.places = []
        self.consumer.close()

    @property
    def parts(self) -> list[int]:
        """The partitions that it has."""
        return [partition for _, partition in self.places]

    def commit(self) -> None:
        """Commit what was polled."""
        self._is_to_commit.set()
        until(lambda: not self._is_to_commit.is_set())

    def stop(self) -> None:
        """Leave the group, unless it is a static member."""
        self._end.set()
        self._thread.join()


@contextmanager
def polling(kafka: Any, protocol: str, **more: Any) -> Iterator[Polling]:
    member = Polling(kafka, protocol, **more)
    try:
        yield member
    finally:
        member.stop()


def whole(*members: Polling, count: int = 6) -> Callable[[], bool]:
    """Whether the members have all partitions between them, none twice, and none has none."""

    def is_so() -> bool:
        shares = [member.parts for member in members]
        return all(shares) and list(range(count)) == sorted(part for share in shares for part in share)

    return is_so


# -- confluent-kafka (librdkafka) -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_two_and_three_members_share_the_partitions(kafka: Any, protocol: str) -> None:
    kafka.create_topic("orders", 6)
    with polling(kafka, protocol) as one:
        until(whole(one))
        with polling(kafka, protocol) as two:
            until(whole(one, two))
            with polling(kafka, protocol) as three:
                until(whole(one, two, three))
                assert [2, 2, 2] == [len(member.parts) for member in (one, two, three)]
                write(kafka, "orders", 60, partitions=6)
                until(lambda: len(one.found + two.found + three.found) >= 60)
                found = sorted(one.found + two.found + three.found, key=int)
                assert [f"{n}".encode() for n in range(60)] == found
        until(whole(one))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_at_two_gateways_over_one_store_are_one_group(serve: Any, protocol: str) -> None:
    store = MemoryStore()
    north, south = serve(store, [Listener(port=0)]), serve(store, [Listener(port=0)])
    north.create_topic("orders", 6)
    with polling(north, protocol) as one, polling(south, protocol) as two:
        until(whole(one, two))
        write(south, "orders", 60, partitions=6)
        until(lambda: len(one.found + two.found) >= 60)
        assert [f"{n}".encode() for n in range(60)] == sorted(one.found + two.found, key=int)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_group_goes_on_where_it_stopped_also_at_another_gateway(serve: Any, protocol: str) -> None:
    store = MemoryStore()
    first = serve(store, [Listener(port=0)])
    first.create_topic("orders", 2)
    write(first, "orders", 10)
    with polling(first, protocol) as one:
        until(lambda: len(one.found) == 10)
        one.commit()
    write(first, "orders", 4, start=10)
    with polling(serve(store, [Listener(port=0)]), protocol) as two:
        until(lambda: len(two.found) >= 4)
        assert [b"10", b"11", b"12", b"13"] == sorted(two.found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_static_member_that_restarts_gets_its_partitions_back_and_nobody_else_notices(
    kafka: Any, protocol: str
) -> None:
    kafka.create_topic("orders", 6)
    with polling(kafka, protocol, group_instance_id="other") as other:
        before = Polling(kafka, protocol, group_instance_id="mine")
        until(whole(other, before))
        mine, theirs = before.parts, other.parts
        before.stop()
        with polling(kafka, protocol, group_instance_id="mine") as after:
            until(lambda: bool(after.parts))
            assert (mine, theirs) == (after.parts, other.parts)


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
@pytest.mark.parametrize("way", [("classic", "consumer"), ("consumer", "classic")], ids=["forth", "back"])
def test_a_group_changes_its_protocol_while_its_members_are_restarted_one_by_one(
    serve: Any, way: tuple[str, str], assignor: str
) -> None:
    store = MemoryStore()
    north, south = serve(store, [Listener(port=0)]), serve(store, [Listener(port=0)])
    north.create_topic("orders", 6)
    commits = {"enable_auto_commit": True, "auto_commit_interval_ms": 200}

    def member(kafka: Any, protocol: str) -> Polling:
        strategy = {"partition_assignment_strategy": assignor} if protocol == "classic" else {}
        return Polling(kafka, protocol, **commits, **strategy)

    def found() -> list[bytes]:
        return [value for each in all_of_them for value in each.found]

    before, after = way
    there = [member(north, before), member(south, before)]
    all_of_them = [*there]
    try:
        until(whole(*there))
        for round_, kafka in enumerate((north, south)):
            write(kafka, "orders", 60, start=60 * round_, partitions=6)
            there[round_].stop()
            there[round_] = member(kafka, after)
            all_of_them.append(there[round_])
            until(whole(*there))
            until(lambda count=60 * (round_ + 1): len(found()) >= count)
        assert [f"{n}".encode() for n in range(120)] == sorted(found(), key=int), "each once: who leaves commits"
        admin = AdminClient({"bootstrap.servers": north.bootstrap})
        assert after.upper() == admin.list_consumer_groups().result().valid[0].type.name
    finally:
        for each in there:
            each.stop()


def test_a_static_member_whose_place_is_taken_is_fenced(kafka: Any) -> None:
    kafka.create_topic("orders", 2)
    with polling(kafka, "classic", group_instance_id="mine") as first:
        until(lambda: bool(first.parts))
        with polling(kafka, "classic", group_instance_id="mine") as second:
            until(lambda: bool(second.parts))
            until(lambda: bool(first.errors))
            assert "fenced" in str(first.errors[0])
            assert [0, 1] == second.parts


def test_a_pattern_finds_topics_that_are_made_later(kafka: Any) -> None:
    kafka.create_topic("orders-1", 1)
    kafka.create_topic("other", 1)
    with polling(kafka, "consumer", topics=["^orders-.*"]) as one:
        until(lambda: [("orders-1", 0)] == one.places)
        kafka.create_topic("orders-2", 1)
        until(lambda: [("orders-1", 0), ("orders-2", 0)] == one.places)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_confluents_admin_sees_groups_moves_offsets_and_deletes(kafka: Any, protocol: str) -> None:
    kafka.create_topic("orders", 2)
    write(kafka, "orders", 10)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    with polling(kafka, protocol, client_id="reader") as one:
        until(lambda: len(one.found) == 10)
        one.commit()
        listed = admin.list_consumer_groups().result().valid
        assert [("g", "STABLE")] == [(each.group_id, each.state.name) for each in listed]
        assert ["CLASSIC" if protocol == "classic" else "CONSUMER"] == [each.type.name for each in listed]
        described = admin.describe_consumer_groups(["g"])["g"].result()
        assert ["reader"] == [member.client_id for member in described.members]
        places = described.members[0].assignment.topic_partitions
        assert [("orders", 0), ("orders", 1)] == sorted((place.topic, place.partition) for place in places)
        with pytest.raises(confluent_kafka.KafkaException, match="NON_EMPTY_GROUP"):
            admin.delete_consumer_groups(["g"])["g"].result()
    moved = [confluent_kafka.TopicPartition("orders", 0, 2)]
    request = confluent_kafka.ConsumerGroupTopicPartitions
    admin.alter_consumer_group_offsets([request("g", moved)])["g"].result()
    offsets = admin.list_consumer_group_offsets([request("g")])["g"].result().topic_partitions
    assert [(0, 2), (1, 5)] == sorted((place.partition, place.offset) for place in offsets)
    admin.delete_consumer_groups(["g"])["g"].result()
    assert [] == admin.list_consumer_groups().result().valid


# -- kafka-python ----------------------------------------------------------------------------------------------------


def test_a_kafka_python_consumer_goes_on_where_its_group_stopped(kafka: Any) -> None:
    kafka.create_topic("orders", 2)
    write(kafka, "orders", 10)
    terms = {**KAFKA_PYTHON, "bootstrap_servers": kafka.bootstrap, "group_id": "g", "consumer_timeout_ms": 5_000}
    first = kafka_python.KafkaConsumer("orders", **terms)
    found = [next(first).value for _ in range(10)]
    first.commit()
    first.close()
    write(kafka, "orders", 4, start=10)
    second = kafka_python.KafkaConsumer("orders", **terms)
    found += [next(second).value for _ in range(4)]
    second.close()
    assert [f"{n}".encode() for n in range(14)] == sorted(found, key=int)


def _polled(member: Any) -> int:
    """How many partitions a member has after a poll."""
    return len((member.poll(500) and []) or member.assignment())


def test_kafka_pythons_members_share_partitions_and_its_admin_sees_them(kafka: Any) -> None:
    kafka.create_topic("orders", 4)
    terms = {**KAFKA_PYTHON, "bootstrap_servers": kafka.bootstrap, "group_id": "g"}
    members = [kafka_python.KafkaConsumer("orders", client_id=f"c{n}", **terms) for n in range(2)]
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        end_s = time.monotonic() + PATIENCE_S
        # Each in a thread of its own: a poll that ends while its join is under way joins again in the next one, so
        # members that are polled in turn may throw each other out for ever.
        with ThreadPoolExecutor(len(members)) as threads:
            while [2, 2] != list(threads.map(_polled, members)):
                assert time.monotonic() < end_s, "they never shared the partitions"
        assert "g" in str(admin.list_groups())
        described = str(admin.describe_groups(["g"]))
        assert "c0" in described and "c1" in described and "Stable" in described
        while members:
            members.pop().close()
        admin.delete_groups(["g"])
        assert "'g'" not in str(admin.list_groups())
    finally:
        for known in (*members, admin):
            known.close()


def test_a_kafka_python_member_is_in_one_group_with_one_of_the_new_protocol(kafka: Any) -> None:
    kafka.create_topic("orders", 4)
    terms = {**KAFKA_PYTHON, "bootstrap_servers": kafka.bootstrap, "group_id": "g"}
    old = kafka_python.KafkaConsumer("orders", **terms)
    found: list[bytes] = []

    def poll_until(is_so: Callable[[list[int]], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not is_so(sorted(place.partition for place in old.assignment())):
            assert time.monotonic() < end_s, "it never came about"
            for batch in old.poll(50).values():
                found.extend(record.value for record in batch)

    try:
        poll_until(lambda mine: mine == [0, 1, 2, 3])
        with polling(kafka, "consumer") as new:
            poll_until(lambda mine: len(mine) == 2 and sorted(mine + new.parts) == [0, 1, 2, 3])
            write(kafka, "orders", 40, partitions=4)
            poll_until(lambda _: len(found) + len(new.found) >= 40)
            assert [f"{n}".encode() for n in range(40)] == sorted([*found, *new.found], key=int)
        poll_until(lambda mine: mine == [0, 1, 2, 3])
    finally:
        old.close()


# -- aiokafka ----------------------------------------------------------------------------------------------------------


def test_aiokafkas_members_share_partitions_and_its_admin_sees_them(kafka: Any) -> None:
    kafka.create_topic("orders", 4)
    write(kafka, "orders", 40, partitions=4)
    terms: dict[str, Any] = {**KAFKA_PYTHON, "bootstrap_servers": kafka.bootstrap, "group_id": "g"}

    async def main() -> None:
        async with aiokafka.AIOKafkaConsumer("orders", **terms) as one:
            assert 4 == len(one.assignment())
            async with aiokafka.AIOKafkaConsumer("orders", **terms) as two:
                async with asyncio.timeout(PATIENCE_S):
                    while [2, 2] != [len(one.assignment()), len(two.assignment())]:
                        await asyncio.sleep(0.02)
                found = [await member.getone() for member in (one, two) for _ in range(20)]
                assert [f"{n}".encode() for n in range(40)] == sorted((each.value for each in found), key=int)
                for member in (one, two):
                    await member.commit()
                admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
                await admin.start()
                try:
                    assert [("g", "consumer")] == await admin.list_consumer_groups()
                    offsets = await admin.list_consumer_group_offsets("g")
                    assert [10] * 4 == [each.offset for each in offsets.values()]
                finally:
                    await admin.close()
            async with asyncio.timeout(PATIENCE_S):
                while 4 != len(one.assignment()):
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def test_an_aiokafka_member_is_in_one_group_with_one_of_the_new_protocol(kafka: Any) -> None:
    kafka.create_topic("orders", 4)
    terms: dict[str, Any] = {**KAFKA_PYTHON, "bootstrap_servers": kafka.bootstrap, "group_id": "g"}

    async def main() -> None:
        async with aiokafka.AIOKafkaConsumer("orders", **terms) as old:
            assert 4 == len(old.assignment())
            new = Polling(kafka, "consumer")
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while [2, 2] != [len(old.assignment()), len(new.parts)]:
                        await asyncio.sleep(0.02)
                write(kafka, "orders", 40, partitions=4)
                found = [(await old.getone()).value for _ in range(20)]
                async with asyncio.timeout(PATIENCE_S):
                    while len(new.found) < 20:
                        await asyncio.sleep(0.02)
                assert [f"{n}".encode() for n in range(40)] == sorted([*found, *new.found], key=int)
                await old.commit()
            finally:
                new.stop()
            async with asyncio.timeout(PATIENCE_S):
                while 4 != len(old.assignment()):
                    await asyncio.sleep(0.02)

    asyncio.run(main())
