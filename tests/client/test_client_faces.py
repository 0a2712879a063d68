"""The same face over both ways: straight to the bucket, and over HTTP to a running server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from headwater.api import routes
from headwater.api.auth import Authenticator
from headwater.api.server import Server
from headwater.client import Admin, Consumer, OffsetAndMetadata, Producer, TopicPartition, connect
from headwater.clock import SystemClock
from headwater.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    Forbidden,
    HeadwaterError,
    InvalidRequest,
    NotFound,
    OffsetOutOfRange,
    Unauthorized,
    Unavailable,
)
from headwater.log.batch import encode_arrow
from headwater.log.operations import AclRule
from headwater.log.outcomes import OutOfOrder, UnknownMember, UnknownProducer
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import app_over

T0 = TopicPartition("t", 0)
QUICK: dict[str, Any] = {"fetch_max_wait_ms": 100}  # a server that stops waits for the polls that it answers
Body = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def served(way: str, store: MemoryStore | None = None, **options: Any) -> AsyncIterator[str]:
    """A URL to connect to."""
    name = f"faces-{random.SystemRandom().getrandbits(64):x}"
    if way == "bucket":
        yield f"memory://{name}"
        return
    app = app_over(store or MemoryStore(name), routes=routes.table(routes.EVERYTHING), **options)
    async with Server(app) as server:
        yield server.url


@pytest.fixture(params=["bucket", "http"])
def over(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    def run(body: Body) -> None:
        async def main() -> None:
            async with asyncio.timeout(60), served(request.param) as url:
                await body(url)

        asyncio.run(main())

    return run


async def broken(producer: Producer, records: int) -> None:
    """A transaction that fails before its end."""

    async def work() -> None:
        async with producer.transaction() as t:
            for _ in range(records):
                await t.send("t", bytes(10_000), partition=0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def drain(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        for records in (await consumer.getmany(timeout_ms=2_000)).values():
            found += [record.value for record in records]
    return found


def test_produce_and_consume(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with Admin(url) as admin, Producer(url, value_serializer="json") as producer:
            await admin.create_topics({"t": 3})
            for n in range(100):
                await producer.send("t", {"n": n}, f"k{n % 7}", headers={"h": b"1"})
            await producer.flush()
            options: dict[str, Any] = {
                "auto_offset_reset": "earliest",
                "value_deserializer": "json",
                "group_id": "g",
                **QUICK,
            }
            async with Consumer(url, "t", **options) as consumer:
                found = await drain(consumer, 100)
                assert list(range(100)) == sorted(value["n"] for value in found)
                assert {0} == set((await consumer.lag()).values())
                await consumer.commit()
            assert {0} == {each.lag for each in await admin.lag("g")}
            assert ["t"] == await admin.list_topics()

    over(main)


def test_arrow_in_and_arrow_out(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 1)
            async with Producer(verbs) as producer:
                await (await producer.send_batch("t", pa.table({"value": [f"{n}" for n in range(5_000)]})))
            async with Consumer(verbs, "t", auto_offset_reset="earliest", **QUICK) as consumer:
                tables = []
                while sum(table.num_rows for table in tables) < 5_000:
                    tables += (await consumer.poll_arrow(timeout_ms=2_000)).values()
                whole = pa.concat_tables(tables)
            assert list(range(5_000)) == whole.column("offset").to_pylist()

    over(main)


def test_a_transaction_with_offsets_is_seen_whole(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 2)
            async with Producer(verbs, transactional_id="x") as producer:
                for round_ in range(3):
                    async with producer.transaction() as t:
                        placed = await t.send("t", b"%d" % round_, partition=0)
                        await t.send("t", b"%d" % round_, partition=1)
                        await t.send_offsets({T0: OffsetAndMetadata(round_ + 1, "m")}, "g")
                    assert round_ == (await placed).offset
                await broken(producer, 1)
            stored = await verbs.committed("g")
            assert (3, "m") == (stored[T0].offset, stored[T0].metadata)
            assert [3, 3] == [each.end for each in (await verbs.topic("t")).partitions]

    over(main)


def test_two_members_share_and_one_takes_over_when_the_other_leaves(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 2)
            options: dict[str, Any] = {
                "group_id": "g",
                "heartbeat_interval_ms": 50,
                "auto_offset_reset": "earliest",
                "fetch_max_wait_ms": 200,
            }
            async with Consumer(verbs, "t", **options) as first:
                async with Consumer(verbs, "t", **options) as second:
                    while not (len(first.assignment()) == len(second.assignment()) == 1):
                        await first.getmany(timeout_ms=50)
                        await second.getmany(timeout_ms=50)
                    assert {T0, ("t", 1)} == first.assignment() | second.assignment()
                while len(first.assignment()) < 2:
                    await first.getmany(timeout_ms=50)

    over(main)


def test_a_pattern_is_followed(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("ab", 1)
            async with Consumer(
                verbs, group_id="g", metadata_max_age_ms=100, heartbeat_interval_ms=50, **QUICK
            ) as consumer:
                consumer.subscribe(pattern="a.*")
                await verbs.create_topic("ac", 1)
                while len(consumer.assignment()) < 2:
                    await consumer.getmany(timeout_ms=50)
                assert {("ab", 0), ("ac", 0)} == consumer.assignment()

    over(main)


def test_seek_pause_and_times(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 1)
            async with Producer(verbs) as producer:
                for n in range(10):
                    await producer.send("t", b"%d" % n, timestamp_ms=1_000 + n)
            async with Consumer(verbs, "t", auto_offset_reset="earliest", fetch_max_wait_ms=100) as consumer:
                await consumer.seek(T0, 8)
                assert [b"8", b"9"] == await drain(consumer, 2)
                assert 5 == (await consumer.offsets_for_times({T0: 1_005}))[T0].offset  # type: ignore[union-attr]
                await consumer.seek_to_beginning()
                consumer.pause(T0)
                assert {} == await consumer.getmany(timeout_ms=50)
                consumer.resume(T0)
                assert 10 == len(await drain(consumer, 10))
                await verbs.delete_records("t", 0, 4)
                await consumer.seek(T0, 0)
                assert [b"4"] == [(await consumer.getone()).value]  # type: ignore[union-attr]

    over(main)


def test_errors_are_the_same_classes_with_their_numbers(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs, Admin(verbs) as admin:
            await admin.create_topics({"t": 1})
            producer = await verbs.init_producer()
            async with Producer(verbs) as plain:
                await plain.send_and_wait("t", b"x")

            async def refused(kind: type[HeadwaterError], call: Awaitable[Any]) -> HeadwaterError:
                with pytest.raises(HeadwaterError) as caught:
                    await call
                assert kind is type(caught.value), caught.value
                return caught.value

            await refused(AlreadyExists, admin.create_topics({"t": 1}))
            await refused(NotFound, admin.delete_topics(["nowhere"]))
            await refused(NotFound, verbs.topic("nowhere"))
            await refused(InvalidRequest, admin.create_topics({"bad/name": 1}))
            await refused(InvalidRequest, admin.create_topics({"..": 1}))
            outside = await refused(OffsetOutOfRange, verbs.fetch("t", 0, 99))
            assert isinstance(outside, OffsetOutOfRange)
            assert (0, 1) == (outside.log_start, outside.high_watermark)
            await refused(UnknownMember, verbs.heartbeat("g", "nobody"))
            await refused(NotFound, admin.describe_groups(["nowhere"]))
            late = (await verbs.fetch("t", 0, 0)).chunks[0]
            batch = encode_arrow(late.decode().drop_columns(["offset"]))
            numbered = replace(batch, producer_id=producer.id, producer_epoch=producer.epoch, sequence=7)
            await refused(OutOfOrder, verbs.produce([("t", 0, numbered)]))
            await refused(UnknownProducer, verbs.produce([("t", 0, replace(numbered, producer_id=10**6))]))
            await verbs.init_producer(current=producer)
            await refused(Fenced, verbs.produce([("t", 0, replace(numbered, sequence=0))]))
            async with Consumer(verbs, "t", group_id="busy", **QUICK):
                await refused(Conflict, admin.delete_groups(["busy"]))
                await refused(Fenced, admin.alter_group_offsets("busy", {T0: 0}))

    over(main)


def test_administration(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with Admin(url) as admin, Producer(admin._verbs) as producer:
            await admin.create_topics(["t"], config={"retention.ms": "1000"})
            await admin.create_partitions({"t": 3})
            await admin.alter_configs({"t": {"retention.ms": None, "retention.bytes": "5"}})
            (topic,) = await admin.describe_topics(["t"])
            assert ({"retention.bytes": "5"}, 3) == (dict(topic.config), len(topic.partitions))
            for n in range(9):
                await producer.send("t", b"%d" % n, partition=n % 3)
            await producer.flush()
            assert {T0: 2} == await admin.delete_records({T0: 2})
            assert (2, 3) == tuple(
                at.offset for at in (await admin.list_offsets({T0: "earliest", ("t", 1): "latest"})).values()
            )
            with pytest.raises(InvalidRequest):
                await admin.reset_group_offsets("g", "earliest")
            assert {T0: 2, ("t", 1): 0, ("t", 2): 0} == await admin.reset_group_offsets("g", "earliest", topics=["t"])
            assert {T0: 3, ("t", 1): 3, ("t", 2): 3} == await admin.reset_group_offsets("g", "latest")
            await admin.alter_group_offsets("g", {T0: OffsetAndMetadata(2, "m")})
            assert OffsetAndMetadata(2, "m") == (await admin.list_group_offsets("g"))[T0]
            assert 1 == sum(each.lag for each in await admin.lag())
            await admin.delete_group_offsets("g", [T0])
            assert {("t", 1), ("t", 2)} == set(await admin.list_group_offsets("g"))
            assert ["g"] == [group.group for group in await admin.list_groups()]
            await admin.delete_groups(["g"])
            assert [] == await admin.list_groups()
            rule = AclRule("alice", "read", "topic", "t", "literal", True)
            await admin.create_acls([rule])
            assert [rule] == await admin.list_acls()
            await admin.delete_acls([rule])
            key, token = await admin.create_key("alice")
            assert "alice" == key.principal
            assert token
            assert [key.key] == [each.key for each in await admin.list_keys()]
            await admin.revoke_key(key.key)
            await admin.set_quota("alice", requests_per_s=5)
            assert ["alice"] == [each.principal for each in await admin.list_quotas()]
            # Nothing is open: who has nothing, and who is nobody, are told apart.
            known = await admin._verbs.init_producer("shop")
            with pytest.raises(Conflict):
                await admin.abort_transaction(known.id, known.epoch)
            with pytest.raises(NotFound):
                await admin.abort_transaction(10**6, 0)
            await admin.delete_topics(["t"])

    over(main)


def test_a_transactional_producer_that_was_overtaken_stops(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 1)
            async with Producer(verbs, transactional_id="x") as old, Producer(verbs, transactional_id="x") as new:
                async with old.transaction() as t:
                    await t.send("t", b"1")
                async with new.transaction() as t:
                    await t.send("t", b"2")
                transaction = old.transaction()
                await transaction.send("t", b"3")
                with pytest.raises(Fenced):
                    await transaction.commit()
                with pytest.raises(Fenced):
                    old.transaction()
                async with new.transaction() as t:
                    await t.send("t", b"4")
            assert 3 == (await verbs.offset_of("t", 0)).offset

    over(main)


def test_a_transaction_larger_than_a_request_goes_in_parts(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 2)
            async with Producer(verbs, transactional_id="x", compression="none", batch_size=50_000) as producer:
                producer.request_bytes_max = 100_000
                async with producer.transaction() as t:
                    futures = [await t.send("t", bytes(10_000), partition=n % 2) for n in range(60)]
                    assert [0, 0] == [each.end for each in (await verbs.topic("t")).partitions]
                    await t.send_offsets({T0: 5}, "g")
                assert list(range(30)) == [(await future).offset for future in futures[::2]]
                await broken(producer, 30)
                async with producer.transaction() as t:
                    await t.send("t", b"after", partition=0)
            assert [31, 30] == [each.end for each in (await verbs.topic("t")).partitions]
            assert 5 == (await verbs.committed("g"))[T0].offset

    over(main)


def test_names_with_every_kind_of_character_come_through(over: Callable[[Body], None]) -> None:
    async def main(url: str) -> None:
        async with connect(url) as verbs:
            await verbs.create_topic("t", 1)
            for name in ("a b", "a+b", "ä", "a%2Fb", "a&b=c?d#e", "(x)"):
                async with Consumer(verbs, "t", group_id=name, enable_auto_commit=False, **QUICK) as consumer:
                    await consumer.commit({T0: 0})
                assert name in {group.group for group in await verbs.groups()}
                assert 0 == (await verbs.committed(name))[T0].offset

    over(main)


# -- HTTP alone -------------------------------------------------------------------------------------------


def test_a_token_is_sent_and_shown_nowhere() -> None:
    async def main() -> None:
        store = MemoryStore()
        clock = SystemClock()
        async with served("http", store) as url, Admin(url) as admin:
            await admin.create_topics({"t": 1})
            _, token = await admin.create_key("root")
            _, weak = await admin.create_key("alice")
        async with served("http", store, auth=Authenticator("token", clock)) as url:
            async with Producer(url, token=token) as producer:
                await producer.send_and_wait("t", b"x")
                assert token not in repr(producer) + repr(producer._connection) + repr(producer._connection.verbs)
            async with Admin(url, token=weak) as admin:
                await admin.list_topics()
            secret = "not-a-token-1234567890"
            for wrong in ({"token": secret}, {}):
                async with Admin(url, **wrong) as admin:  # type: ignore[arg-type]
                    with pytest.raises(Unauthorized) as caught:
                        await admin.list_topics()
                    assert secret not in str(caught.value) + repr(caught.value) + str(caught.value.data)

    asyncio.run(main())


def test_access_is_refused_as_forbidden() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with served("http", store) as url, Admin(url) as admin:
            await admin.create_topics({"t": 1})
            await admin.create_acls([AclRule("alice", "read", "topic", "t", "literal", True)])
            _, token = await admin.create_key("alice")
        async with (
            served("http", store, auth=Authenticator("token", SystemClock())) as url,
            Admin(url, token=token) as admin,
        ):
            assert ["t"] == await admin.list_topics()
            with pytest.raises(Forbidden):
                await admin.delete_topics(["t"])

    asyncio.run(main())


def test_nobody_there_is_unavailable_and_a_wrong_url_is_invalid() -> None:
    async def main() -> None:
        async with served("http") as url:
            pass
        async with connect(url) as verbs:
            with pytest.raises(Unavailable):
                await verbs.topics()
        for wrong in ("http://", "https://user:secret@host", "http://host/?a=b", "ftp://host", "memory://"):
            with pytest.raises(InvalidRequest) as caught:
                await connect(wrong)
            assert "secret" not in str(caught.value)
        with pytest.raises(InvalidRequest):
            await connect("memory://x", token="t")
        with pytest.raises(InvalidRequest):
            await connect("http://host", auth="token")

    asyncio.run(main())


def test_a_producer_keeps_its_requests_within_what_a_function_takes() -> None:
    async def main() -> None:
        async with served("http") as url, connect(url) as verbs:
            await verbs.create_topic("t", 1)
            sizes: list[int] = []
            call = verbs._http.call  # type: ignore[attr-defined]

            async def seen(method: str, path: str, **more: Any) -> Any:
                sizes.append(len(more.get("body", b"")))
                return await call(method, path, **more)

            verbs._http.call = seen  # type: ignore[attr-defined]
            async with Producer(verbs, compression="none", linger_ms=1_000) as producer:
                for _ in range(20):
                    await producer.send("t", bytes(900_000))
            assert 5_000_000 > max(sizes)
            assert 20 == (await verbs.offset_of("t", 0)).offset

    asyncio.run(main())


def test_another_namespace_is_another_log() -> None:
    async def main() -> None:
        async with (
            served("http", served=("default", "other")) as url,
            connect(url) as one,
            connect(url, namespace="other") as two,
        ):
            await one.create_topic("t", 1)
            assert [] == list(await two.topics())
            assert ["t"] == [info.name for info in await one.topics()]

    asyncio.run(main())
