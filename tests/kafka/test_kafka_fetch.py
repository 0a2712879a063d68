"""Fetch: at once what is in memory, several partitions at a time what is not, and each error where it belongs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from headwater.api.service import Service
from headwater.errors import Unavailable
from headwater.kafka import connection
from headwater.kafka.gateway import Gateway, Settings
from headwater.kafka.handlers import fetch
from headwater.kafka.model import Fields, Later, Peer, Request
from headwater.kafka.names import topic_uuid
from headwater.limits import KAFKA_READ_AHEAD_BYTES, READS_MAX
from headwater.log import kafka2
from headwater.log.operations import AclRule
from headwater.log.options import Options
from headwater.sim.latency import Profile
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_transactions import Client
from tests.kafka.helpers_peer import ask, handled, peer, whole
from tests.kafka.test_kafka_produce import batch
from tests.log.helpers import memory, network, opened, simulate

PRODUCE, FETCH = 0, 1
GET_S = 0.03
SLOW = Profile("slow gets", put=(0, 0), get=(1_000 * GET_S, 1_000 * GET_S), list=(0, 0))


def asked(partitions: dict[int, int], **fields: Any) -> Fields:
    rows = [
        {"partition": index, "fetch_offset": offset, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1}
        for index, offset in partitions.items()
    ]
    known = {"max_wait": 0, "min_bytes": 0, "max_bytes": 1 << 20, "session_id": 0, "session_epoch": -1, "rack_id": ""}
    topics = [{"topic": "orders", "topic_id": bytes(16), "partitions": rows}]
    return {**known, "topics": topics, "forgotten_topics_data": [], **fields}


def found(answer: Fields | None) -> dict[int, tuple[ErrorCode, list[int]]]:
    """By partition: its error, and the base offsets of its batches."""
    assert answer is not None
    return {
        row["partition_index"]: (
            ErrorCode(row["error_code"]),
            [header.base_offset for header in kafka2.headers_of(data)]
            if (data := b"".join(row.get("records", ())))
            else [],
        )
        for topic in answer["responses"]
        for row in topic["partitions"]
    }


async def fetched(reader: Peer, partitions: dict[int, int], **fields: Any) -> dict[int, tuple[ErrorCode, list[int]]]:
    request = Request(api=FETCH, version=12, correlation=1, client="test", fields=asked(partitions, **fields))
    return found(await whole(await handled(reader, request)))


async def written(store: Any, partitions: int, batches: int = 1, at_once: int = 1) -> None:
    """One record in each batch of each partition, in segments of ``at_once`` partitions: no manifest carries them."""
    namespace = await opened(store, options=Options(inline_bytes_max=0))
    await namespace.create_topic("orders", partitions=partitions)
    writer = peer(namespace)
    for first in range(0, partitions, at_once):
        for _ in range(batches):
            rows = [{"index": index, "records": batch(-1, -1)} for index in range(first, first + at_once)]
            topic = {"name": "orders", "partition_data": rows}
            await ask(writer, PRODUCE, 9, acks=-1, timeout=1_000, topic_data=[topic])
    await namespace.close()


@pytest.mark.parametrize(
    ("partitions", "at_once", "rounds"),
    [(1, 1, 1), (READS_MAX, 1, 1), (READS_MAX + 1, 1, 2), (100, 1, 7), (100, 100, 1), (100, 10, 1), (500, 500, 2)],
)
def test_what_is_not_in_memory_is_read_for_many_partitions_at_a_time(
    partitions: int, at_once: int, rounds: int
) -> None:
    """A consumer of a hundred partitions that begins anew waited for a hundred requests to the bucket in a row; at a
    gateway that others wrote beside, for a dozen rounds of them, again and again."""

    async def main() -> None:
        bucket = network()
        await written(bucket, partitions, at_once=at_once)
        namespace = await opened(network(bucket.bucket, profile=SLOW))
        reader = peer(namespace)
        start_s = sim_loop().time()
        assert dict.fromkeys(range(partitions), (ErrorCode.none, [0])) == await fetched(
            reader, dict.fromkeys(range(partitions), 0)
        )
        assert rounds * GET_S == pytest.approx(sim_loop().time() - start_s)

    simulate(main())


def test_what_one_fetch_reads_at_once_is_bounded_by_what_lies_in_its_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may read ahead; those with little in them do not take the place of others."""

    async def main() -> None:
        bucket = network()
        await written(bucket, 10, batches=4)
        size = len(batch(-1, -1))
        monkeypatch.setattr(fetch, "KAFKA_FETCH_AHEAD_BYTES", 3 * 4 * size)  # three partitions
        namespace = await opened(network(bucket.bucket, profile=SLOW))
        start_s = sim_loop().time()
        answer = await fetched(peer(namespace), dict.fromkeys(range(10), 0))
        assert {(ErrorCode.none, (0, 1, 2, 3))} == {(code, tuple(bases)) for code, bases in answer.values()}
        assert 4 * GET_S == pytest.approx(sim_loop().time() - start_s)
        place = namespace.state.topics[1].partitions[0]
        most = KAFKA_READ_AHEAD_BYTES
        assert [4 * size, 3 * size, size, size, 2 * size] == [
            place.bytes_from(*each) for each in ((0, most), (1, most), (3, most), (4, most), (0, 2 * size))
        ]

    simulate(main())


def test_what_is_in_memory_is_answered_at_once_and_what_is_not_later() -> None:
    async def main() -> None:
        store = memory()
        await written(store, 2)
        reader = peer(await opened(store))
        await fetched(reader, {0: 0})
        shelf = reader.gateway.shelf(reader.namespace)
        before = shelf.hits, shelf.misses
        for partitions, fields, is_there in (
            ({0: 0}, {}, True),
            ({0: 0}, {"min_bytes": 1 << 20, "max_wait": 100}, False),
            ({0: 1}, {"min_bytes": 1, "max_wait": 100}, False),
            ({0: 0, 1: 0}, {}, False),
            ({0: 9}, {"min_bytes": 1, "max_wait": 100}, False),  # another gateway may know of it
        ):
            request = Request(api=FETCH, version=12, correlation=1, client="test", fields=asked(partitions, **fields))
            answer = await handled(reader, request)
            assert is_there == isinstance(answer, dict), (partitions, fields)
            await whole(answer)
        assert (3, 1) == (shelf.hits - before[0], shelf.misses - before[1]), "each answer's batches count once"

    simulate(main())


def test_a_shelf_without_room_serves_every_partition_nonetheless() -> None:
    async def main() -> None:
        store = memory()
        await written(store, 20, batches=2)
        namespace = await opened(store)
        gateway = Gateway(store, (), Settings(node_id=1, cache_bytes=1), clock=namespace.chain.clock)
        reader = peer(namespace, gateway=gateway)
        answer = await fetched(reader, dict.fromkeys(range(20), 0))
        assert {(ErrorCode.none, 0)} == {(code, bases[0]) for code, bases in answer.values()}

    simulate(main())


def test_a_partition_that_cannot_be_read_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = memory()
        await written(store, 3)
        reader = peer(await opened(store))
        shelf = reader.gateway.shelf(reader.namespace)
        read = shelf.read

        async def broken(topic: str, place: tuple[int, int], offset: int) -> Any:
            if place[1] == 1:
                raise Unavailable("503 Slow Down, planted.")
            return await read(topic, place, offset)

        monkeypatch.setattr(shelf, "read", broken)
        assert {
            0: (ErrorCode.none, [0]),
            1: (ErrorCode.kafka_storage_error, []),
            2: (ErrorCode.none, [0]),
        } == await fetched(reader, {0: 0, 1: 0, 2: 0}, min_bytes=1 << 20, max_wait=60_000)

    simulate(main())


def test_what_another_gateway_has_just_made_is_looked_for_before_it_is_denied() -> None:
    async def main() -> None:
        store = memory()
        here = await opened(store)
        await written(store, 2)
        assert {0: (ErrorCode.none, [0]), 1: (ErrorCode.none, [0])} == await fetched(peer(here), {0: 0, 1: 0})
        assert {7: (ErrorCode.unknown_topic_or_partition, [])} == await fetched(peer(here), {7: 0})

    simulate(main())


def test_an_offset_that_another_gateway_has_just_filled_is_looked_for_before_it_is_out_of_range() -> None:
    """A reader that moves between gateways would begin anew, at ``auto.offset.reset``."""

    async def main() -> None:
        store = memory()
        await written(store, 1)
        here = await opened(store)
        elsewhere = peer(await opened(store))
        topic = {"name": "orders", "partition_data": [{"index": 0, "records": batch(-1, -1)}]}
        for _ in range(2):
            await ask(elsewhere, PRODUCE, 9, acks=-1, timeout=1_000, topic_data=[topic])
        assert {0: (ErrorCode.none, [2])} == await fetched(peer(here), {0: 2})
        assert {0: (ErrorCode.offset_out_of_range, [])} == await fetched(peer(here), {0: 4})

    simulate(main())


def test_every_row_has_records_though_they_be_none() -> None:
    """librdkafka takes null for a broken answer: it hears no error of it, and asks again at once, for ever."""

    async def main() -> None:
        store = memory()
        await written(store, 1)
        reader = peer(await opened(store))
        uuid = topic_uuid(reader.namespace, 1)
        gone = topic_uuid(reader.namespace, 2)
        rows = [
            {"partition": 0, "fetch_offset": 0, "current_leader_epoch": 7},
            {"partition": 0, "fetch_offset": 9},
            {"partition": 7, "fetch_offset": 0},
        ]
        topics = [{"topic_id": known, "partitions": rows} for known in (uuid, gone)]
        answer = await ask(reader, FETCH, max_wait=0, min_bytes=1, topics=topics)
        found = [(row["error_code"], row["records"]) for topic in answer["responses"] for row in topic["partitions"]]
        codes = [ErrorCode.unknown_leader_epoch, ErrorCode.offset_out_of_range, ErrorCode.unknown_topic_or_partition]
        assert [(code, b"") for code in [*codes, *[ErrorCode.unknown_topic_id] * 3]] == found

    simulate(main())


def test_who_may_know_of_a_topic_and_not_read_it_is_told_so() -> None:
    async def main() -> None:
        store = memory()
        await written(store, 1)
        namespace = await opened(store)
        await Service(namespace).change_acls(add=[AclRule("joe", "describe", "topic", "orders")])
        for name, code in (("joe", ErrorCode.topic_authorization_failed), ("eve", ErrorCode.unknown_topic_id)):
            topics = [{"topic_id": topic_uuid(namespace, 1), "partitions": [{"partition": 0, "fetch_offset": 0}]}]
            answer = await ask(peer(namespace, name), FETCH, max_wait=0, topics=topics)
            row = answer["responses"][0]["partitions"][0]
            assert (code, b"") == (row["error_code"], row["records"])

    simulate(main())


def test_a_reader_at_the_end_hears_of_what_comes() -> None:
    async def main() -> None:
        store = memory()
        await written(store, 1)
        namespace = await opened(store)
        reader = peer(namespace)
        request = Request(
            api=FETCH,
            version=12,
            correlation=1,
            client="test",
            fields=asked({0: 1}, min_bytes=1, max_wait=60_000),
        )
        answer = await handled(reader, request)
        assert isinstance(answer, Later)
        waiting = asyncio.ensure_future(whole(answer))
        await sim_loop().sleep(1.0)
        assert not waiting.done()
        await appended(reader)
        assert {0: (ErrorCode.none, [1])} == found(await waiting)

    simulate(main())


async def voided(known: Peer) -> None:
    """Three offsets of a transaction that was aborted."""
    client = Client(known)
    assert ErrorCode.none is await client.init()
    await client.write(count=3)
    assert ErrorCode.none is await client.end(commit=False)


async def appended(known: Peer) -> None:
    topic = {"name": "orders", "partition_data": [{"index": 0, "records": batch(-1, -1)}]}
    await ask(known, PRODUCE, 9, acks=-1, timeout=1_000, topic_data=[topic])


def test_offsets_without_records_are_left_out_where_records_follow() -> None:
    """librdkafka that closes commits past what it holds, and has not given out, before a control batch."""

    async def main() -> None:
        store = memory()
        await written(store, 1)
        namespace = await opened(store)
        reader = peer(namespace)
        await voided(reader)
        await appended(reader)
        await voided(reader)
        fresh = peer(await opened(store))  # one gateway has all of it in memory, the other one nothing
        for known in (reader, fresh):
            assert {0: (ErrorCode.none, [0, 4])} == await fetched(known, {0: 0})
            for inside in (1, 2, 3):
                assert {0: (ErrorCode.none, [4])} == await fetched(known, {0: inside})

    simulate(main())


@pytest.mark.parametrize("comes", [False, True])
def test_a_reader_that_waits_behind_the_last_records_is_taken_over_a_gap_if_none_come(comes: bool) -> None:
    async def main() -> None:
        store = memory()
        await written(store, 1)
        namespace = await opened(store)
        reader = peer(namespace)
        await voided(reader)
        fields = asked({0: 2}, min_bytes=1, max_wait=10_000)
        request = Request(api=FETCH, version=12, correlation=1, client="test", fields=fields)
        start_s = sim_loop().time()
        answer = asyncio.ensure_future(whole(await handled(reader, request)))
        await sim_loop().sleep(1.0)
        assert not answer.done()
        if comes:
            await appended(reader)
            assert {0: (ErrorCode.none, [4])} == found(await answer)
            return
        told = await answer
        assert told is not None
        assert 10.0 == pytest.approx(sim_loop().time() - start_s, abs=0.1)
        assert kafka2.passage(2, 4) == b"".join(told["responses"][0]["partitions"][0]["records"])

    simulate(main())


@given(sizes=st.lists(st.integers(0, 40_000), max_size=40), most=st.integers(1_000, 100_000))
def test_an_answer_goes_to_the_socket_in_pieces_that_are_all_of_it(sizes: list[int], most: int) -> None:
    parts: list[Any] = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    pieces = connection._pieces(parts, most)
    assert b"".join(parts) == b"".join(b"".join(piece) for piece in pieces)
    if sum(sizes) > connection.JOINED_BYTES_MAX:
        assert max(sum(map(len, piece)) for piece in pieces) <= most
        large = {id(part) for part in parts if len(part) > connection.JOINED_BYTES_MAX}
        shared = {id(view.obj) for piece in pieces for view in piece if isinstance(view, memoryview)}
        assert large <= shared, "what is large is not copied"
