from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.api import routes
from headwater.api.server import Server
from headwater.client import TopicPartition
from headwater.client.blocking import Admin, Consumer, Producer, _Thread
from headwater.errors import InvalidRequest, NotFound
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import app_over

T0 = TopicPartition("t", 0)


@pytest.fixture
def url() -> str:
    return f"memory://blocking-{random.SystemRandom().getrandbits(64):x}"


@pytest.fixture
def topic(url: str) -> Iterator[str]:
    with Admin(url) as admin:
        admin.create_topics({"t": 1})
        yield "t"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("headwater")]


def test_a_script_reads_what_it_wrote(url: str, topic: str) -> None:
    with Producer(url, value_serializer="json") as producer:
        futures = [producer.send(topic, {"n": n}) for n in range(50)]
        producer.flush()
        assert list(range(50)) == [future.result(5).offset for future in futures]
        assert 50 == producer.send_and_wait(topic, None).offset
        assert {0} == producer.partitions_for(topic)
    found = []
    with Consumer(url, topic, auto_offset_reset="earliest", value_deserializer="json", group_id="g") as consumer:
        for record in consumer:
            if record.value is None:
                break
            found.append(record.value["n"])
        assert {T0} == consumer.assignment()
        assert {T0: 0} == consumer.lag()
        assert 51 == consumer.position(T0)
        consumer.commit()
        consumer.commit(asynchronous=True)
        assert 51 == consumer.committed(T0)
        assert None is consumer.poll(0.01)
        consumer.seek(T0, 49)
        assert {T0: [49]} == {
            tp: [r.offset for r in rows] for tp, rows in consumer.getmany(timeout_ms=5_000, max_records=1).items()
        }
        consumer.pause(T0)
        assert {T0} == consumer.paused()
        consumer.resume(T0)
        consumer.seek_to_beginning()
        consumer.seek_to_end()
        assert {T0: 0} == consumer.beginning_offsets([T0])
        assert {T0: 51} == consumer.end_offsets([T0])
        assert {"t"} == consumer.topics() == consumer.subscription()
    assert list(range(50)) == found


def test_arrow_goes_both_ways(url: str, topic: str) -> None:
    with Producer(url) as producer:
        assert [1_000] == [
            each.count for each in producer.send_batch(topic, pa.table({"value": ["x"] * 1_000})).result(5)
        ]
    with Consumer(url, auto_offset_reset="earliest") as consumer:
        consumer.assign([T0])
        assert 1_000 == consumer.poll_arrow(timeout_ms=5_000)[T0].num_rows


def test_transactions(url: str, topic: str) -> None:
    with Producer(url, transactional_id="x") as producer, Consumer(url, topic, group_id="g") as consumer:
        with producer.transaction() as t:
            placed = t.send(topic, "a")
            t.send_offsets({T0: 1}, consumer)
        assert ("committed", 0) == (t.state, placed.result(5).offset)

        def broken() -> None:
            with producer.transaction() as t:
                t.send(topic, "b")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            broken()
        t = producer.transaction()
        t.send(topic, "c")
        t.abort()
        assert {T0: 1} == consumer.end_offsets([T0])
        assert 1 == consumer.committed(T0)


def test_errors_are_raised_where_they_belong(url: str, topic: str) -> None:
    with Producer(url) as producer, Admin(url) as admin:
        with pytest.raises(NotFound):
            producer.send("nowhere", "x")
        with pytest.raises(NotFound):
            admin.delete_topics(["nowhere"])
    with pytest.raises(InvalidRequest):
        producer.send(topic, "x")
    with pytest.raises(InvalidRequest):
        Producer("nothing://x").start()


def test_threads_end_with_their_objects(url: str, topic: str) -> None:
    before = threads()
    with Producer(url) as producer, Consumer(url, topic, group_id="g"):
        assert len(before) + 2 == len(threads())
    producer.stop()
    assert before == threads()
    with pytest.raises(InvalidRequest):
        Producer("nothing://x").start()
    assert before == threads()


def test_any_thread_may_send(url: str, topic: str) -> None:
    with Producer(url) as producer, concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = list(pool.map(lambda n: producer.send(topic, str(n)), range(200)))
        assert set(range(200)) == {future.result(5).offset for future in futures}


def test_ctrl_c_breaks_off_the_call_that_waits_and_leaves_a_usable_consumer(url: str, topic: str) -> None:
    with Consumer(url, topic, auto_offset_reset="earliest") as consumer:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            consumer.getone()
        timer.join()
        with Producer(url) as producer:
            producer.send_and_wait(topic, b"x")
        record = consumer.getone(timeout_ms=5_000)
        assert record is not None
        assert b"x" == record.value


def test_a_record_that_comes_together_with_a_ctrl_c_is_handed_out_again(
    url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Producer(url) as producer:
        for n in range(3):
            producer.send(topic, str(n))
    with Consumer(url, topic, auto_offset_reset="earliest") as consumer:
        assert b"0" == next(consumer).value
        interrupted = [True]
        result = concurrent.futures.Future.result

        def interrupt(future: Any, timeout: float | None = None) -> Any:
            found = result(future, timeout)
            if interrupted and interrupted.pop():
                raise KeyboardInterrupt
            return found

        monkeypatch.setattr(concurrent.futures.Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(consumer)
        assert [b"1", b"2"] == [next(consumer).value, next(consumer).value]


def test_an_exception_in_the_block_commits_only_what_is_surely_processed(url: str, topic: str) -> None:
    with Producer(url) as producer:
        for n in range(5):
            producer.send(topic, str(n))

    def work() -> None:
        options: dict[str, Any] = {"group_id": "g", "auto_offset_reset": "earliest"}
        with Consumer(url, topic, **options) as consumer:
            for record in consumer:
                if record.offset == 3:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    with Admin(url) as admin:
        assert 3 == admin.list_group_offsets("g")[T0].offset


def test_admin_has_the_methods_of_the_asynchronous_one(url: str) -> None:
    with Admin(url) as admin:
        assert {"create_topics", "lag", "reset_group_offsets", "start"} <= set(dir(admin))
        assert "create_topics" == admin.create_topics.__name__
        with pytest.raises(AttributeError):
            admin.no_such_method()
        with pytest.raises(AttributeError):
            admin._verbs_of_mine  # noqa: B018


def test_it_speaks_http_as_well() -> None:
    thread = _Thread("server")
    server = Server(app_over(MemoryStore(), routes=routes.table(routes.EVERYTHING)))
    thread.call(server.start())
    try:
        with Admin(server.url) as admin, Producer(server.url) as producer:
            admin.create_topics(["t"])
            assert 0 == producer.send_and_wait("t", "over HTTP").offset
        options: dict[str, Any] = {"group_id": "g", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 50}
        with Consumer(server.url, "t", **options) as consumer:
            assert b"over HTTP" == next(consumer).value
    finally:
        thread.call(server.stop())
        thread.close()


def test_a_directory_keeps_it_between_scripts(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    with Admin(url) as admin, Producer(url) as producer:
        admin.create_topics(["t"])
        producer.send("t", "kept")
    with Consumer(url, "t", auto_offset_reset="earliest") as consumer:
        assert b"kept" == next(consumer).value
