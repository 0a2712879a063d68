"""Transactions of real clients, unchanged: atomic, fenced, and done once."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import confluent_kafka
import kafka as kafka_python
import pytest
from aiokafka.errors import ProducerFenced
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headwater.store.memory import MemoryStore

# -- confluent-kafka ---------------------------------------------------------------------------------------


def producer(running: Any, tid: str, **config: Any) -> Any:
    made = confluent_kafka.Producer(
        {"bootstrap.servers": running.bootstrap, "transactional.id": tid, "linger.ms": 1, **config}
    )
    made.init_transactions(20)
    return made


def written(running: Any, topic: str, count: int, partitions: int = 1) -> list[bytes]:
    """The first ``count`` values that a reader of committed records gets, and that no more come."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": running.bootstrap, "group.id": "reader", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
    found: list[bytes] = []
    ends = 0
    while ends < partitions:
        message = consumer.poll(10)
        assert message is not None, f"only {found} came"
        if message.error() is None:
            found.append(message.value())
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ends += 1
    consumer.close()
    assert count == len(found)
    return found


def test_confluent_kafka_commits_and_aborts(kafka: Any) -> None:
    kafka.create_topic("orders", 2)
    made = producer(kafka, "t")
    for n in range(6):
        made.begin_transaction()
        for partition in (0, 1):
            made.produce("orders", f"{n}-{partition}".encode(), partition=partition)
        if n % 2:
            made.flush(10)  # so that there is something to abort
            made.abort_transaction(20)
        else:
            made.commit_transaction(20)
    found = written(kafka, "orders", 6, partitions=2)
    assert sorted(f"{n}-{p}".encode() for n in (0, 2, 4) for p in (0, 1)) == sorted(found)


def test_confluent_kafka_is_told_where_its_records_lie_before_they_are_committed(kafka: Any) -> None:
    kafka.create_topic("orders", 1)
    made = producer(kafka, "t")
    made.begin_transaction()
    told: list[int] = []
    for _ in range(3):
        made.produce("orders", b"x", on_delivery=lambda error, message: told.append(message.offset()))
    made.flush(10)
    assert [0, 1, 2] == told
    made.commit_transaction(20)
    assert 3 == len(written(kafka, "orders", 3))


def test_a_transaction_that_wrote_nothing_ends_either_way(kafka: Any) -> None:
    made = producer(kafka, "t")
    for end in (made.commit_transaction, made.abort_transaction, made.commit_transaction):
        made.begin_transaction()
        end(20)


def test_a_new_instance_fences_the_old_one_and_voids_what_it_wrote(kafka: Any) -> None:
    kafka.create_topic("orders", 1)
    old = producer(kafka, "t")
    old.begin_transaction()
    old.produce("orders", b"old")
    old.flush(10)
    new = producer(kafka, "t")
    with pytest.raises(KafkaException) as caught:
        old.commit_transaction(20)
    assert caught.value.args[0].fatal()
    assert KafkaError._FENCED == caught.value.args[0].code()
    new.begin_transaction()
    new.produce("orders", b"new")
    new.commit_transaction(20)
    assert [b"new"] == written(kafka, "orders", 1)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_confluent_kafka_reads_processes_and_writes_exactly_once(serve: Any, protocol: str) -> None:
    store = MemoryStore()
    running = serve(store)
    running.create_topic("in", 1)
    running.create_topic("out", 1)
    fill = confluent_kafka.Producer({"bootstrap.servers": running.bootstrap})
    for n in range(40):
        fill.produce("in", f"{n}".encode(), partition=0)
    fill.flush(10)
    config = {
        "bootstrap.servers": running.bootstrap,
        "group.id": "app",
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    done, life = 0, 0
    while done < 40:
        life += 1
        consumer = confluent_kafka.Consumer(config)
        consumer.subscribe(["in"])
        made = producer(running, "app-1")
        for step in range(3):
            messages = consumer.consume(5, timeout=15)
            made.begin_transaction()
            for message in messages:
                assert message.error() is None, message.error()
                made.produce("out", b"f" + message.value(), partition=0)
            made.send_offsets_to_transaction(
                consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 20
            )
            made.flush(10)
            if step == 1 and life % 2:
                break  # it dies here: nothing of this step may be seen, and the next life does it again
            made.commit_transaction(20)
            done += len(messages)
            if done >= 40:
                break
        consumer.close()
    assert [f"f{n}".encode() for n in range(40)] == written(running, "out", 40)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_who_stores_its_own_offsets_loses_nothing_that_lies_before_an_aborted_transaction(
    kafka: Any, protocol: str
) -> None:
    """librdkafka (to 2.16 at least) that closes commits past what it has fetched and given to nobody, if it may.

    Its loop for the last events drops the records and takes the offset of the control batch behind them for read
    (``rd_kafka_op_handle_std``). Kafka ends every transaction with a control batch; here only a gap looks like one.
    """
    kafka.create_topic("orders", 1)
    plain = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(250):
        plain.produce("orders", f"{n}".encode(), partition=0)
    plain.flush(10)
    made = producer(kafka, "t")
    made.begin_transaction()
    made.produce("orders", b"void", partition=0)
    made.flush(10)
    made.abort_transaction(20)
    config = {
        "bootstrap.servers": kafka.bootstrap,
        "group.id": "careful",
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False,
    }
    found: list[int] = []
    for _ in range(2):
        consumer = confluent_kafka.Consumer(config)
        consumer.subscribe(["orders"])
        for message in consumer.consume(100, timeout=15):
            assert message.error() is None, message.error()
            found.append(int(message.value()))
            consumer.store_offsets(message)
        consumer.close()
    assert list(range(200)) == found


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.kafka.gateway.KAFKA_TICK_S", 0.1)
    running = serve()
    running.create_topic("orders", 1)
    made = producer(running, "t", **{"transaction.timeout.ms": 1_000, "message.timeout.ms": 1_000})
    made.begin_transaction()
    made.produce("orders", b"late")
    made.flush(10)

    async def until_it_is_over() -> None:
        namespace = await running.gateway.namespace("default")
        while any(known.is_busy for known in namespace.state.producers.values()):
            await asyncio.sleep(0.05)

    running.run(until_it_is_over())
    with pytest.raises(KafkaException) as caught:
        made.commit_transaction(20)
    assert not caught.value.args[0].retriable()
    assert [] == written(running, "orders", 0)


# -- aiokafka ----------------------------------------------------------------------------------------------


async def aio_values(running: Any, topic: str, isolation: str = "read_committed") -> list[bytes]:
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=running.bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
        isolation_level=isolation,
    )
    found: list[bytes] = []
    async with consumer:
        place = aiokafka.TopicPartition(topic, 0)
        end = (await consumer.end_offsets([place]))[place]
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                found += [record.value for record in records]
    return found


def test_aiokafka_commits_and_aborts(kafka: Any) -> None:
    kafka.create_topic("orders", 1)

    async def play() -> list[bytes]:
        made = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t")
        async with made:
            for n in range(4):
                await made.begin_transaction()
                placed = await made.send_and_wait("orders", f"{n}".encode())
                assert n == placed.offset
                await (made.abort_transaction() if n % 2 else made.commit_transaction())
        return await aio_values(kafka, "orders")

    assert [b"0", b"2"] == asyncio.run(play())


def test_aiokafka_moves_offsets_with_its_transaction_or_not_at_all(kafka: Any) -> None:
    kafka.create_topic("in", 1)
    kafka.create_topic("out", 1)
    place = aiokafka.TopicPartition("in", 0)

    async def play() -> list[Any]:
        made = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t")
        reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="app", enable_auto_commit=False)
        seen = []
        async with made, reader:
            reader.assign([place])
            for offset, commit in ((3, True), (7, False), (9, True)):
                await made.begin_transaction()
                await made.send_and_wait("out", b"x")
                await made.send_offsets_to_transaction({place: offset}, "app")
                await (made.commit_transaction() if commit else made.abort_transaction())
                seen.append(await reader.committed(place))
        return seen

    assert [3, 3, 9] == asyncio.run(play())


def test_aiokafka_hears_that_it_is_fenced(kafka: Any) -> None:
    kafka.create_topic("orders", 1)

    async def play() -> list[bytes]:
        old = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t")
        await old.start()
        await old.begin_transaction()
        await old.send_and_wait("orders", b"old")
        new = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t")
        async with new:
            with pytest.raises(ProducerFenced):
                await old.commit_transaction()
            async with new.transaction():
                await new.send_and_wait("orders", b"new")
        await old.stop()
        return await aio_values(kafka, "orders")

    assert [b"new"] == asyncio.run(play())


# -- kafka-python ------------------------------------------------------------------------------------------


def test_kafka_python_commits_and_aborts(kafka: Any) -> None:
    kafka.create_topic("orders", 1)
    made = kafka_python.KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t")
    made.init_transactions()
    for n in range(4):
        made.begin_transaction()
        assert n == made.send("orders", f"{n}".encode()).get(10).offset
        if n % 2:
            made.abort_transaction()
        else:
            made.commit_transaction()
    made.close()
    assert [b"0", b"2"] == written(kafka, "orders", 2)
