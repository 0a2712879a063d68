"""What goes wrong between a client and a service: lost answers, strangers that answer, refusals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from headwater.api import http, presign, routes, uploads
from headwater.api.auth import Authenticator, SigningKey
from headwater.client import Consumer, Producer, TopicPartition, connect
from headwater.client.signing import Signer, region_of
from headwater.client.transport import error_of, segment
from headwater.clock import SystemClock
from headwater.errors import (
    Corrupt,
    Fenced,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from headwater.limits import PRESIGN_S
from headwater.log.batch import batch_of_records
from headwater.store.memory import MemoryStore
from headwater.types import Record
from tests.api.helpers_http import app_over
from tests.client.helpers_client import values

LOSE = "lose"  # do it, and close the connection in place of an answer
CUT = "cut"  # close the connection before anything is done
T0 = TopicPartition("t", 0)


class Between:
    """A service, and a network in front of it that does to requests what it is told to."""

    def __init__(self, store: MemoryStore, auth: Any = None) -> None:
        self.app = app_over(store, routes=routes.table(routes.EVERYTHING), auth=auth)
        self.seen: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.plans: list[tuple[str, str | web.Response]] = []
        self.url = ""

    def plan(self, part: str, *what: str | web.Response) -> None:
        """What happens to the next requests whose path has ``part`` in it."""
        self.plans += [(part, each) for each in what]

    def count(self, part: str, method: str = "POST") -> int:
        return sum(part in path and method == how for how, path in self.seen)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.content.read()
        plan: str | web.Response | None = None
        if self.plans and self.plans[0][0] in request.path:
            plan = self.plans.pop(0)[1]
        if isinstance(plan, web.Response):
            return plan
        if plan == CUT:
            return self.closed(request)
        path, _, query = request.raw_path.partition("?")
        answer = await http.serve(
            http.Incoming(
                method=request.method,
                raw_path=path,
                raw_query=query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                host=request.host,
                scheme="http",
            ),
            self.app,
        )
        if plan == LOSE:
            return self.closed(request)
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body or None)

    def closed(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response(status=500)


@asynccontextmanager
async def between(store: MemoryStore | None = None, auth: Any = None) -> AsyncIterator[Between]:
    made = Between(store or MemoryStore(), auth)
    door = web.Server(made.handle, access_log=None)
    listener = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        listener.close()
        await door.shutdown(1)
        await made.app.close()


def run(body: Callable[[Between, Any], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), between() as network, connect(network.url) as verbs:
            await verbs.create_topic("t", 2)
            await body(network, verbs)

    asyncio.run(main())


def batch(value: bytes = b"x") -> Any:
    return batch_of_records([Record(value=value)], default_timestamp=1)


# -- answers that get lost -----------------------------------------------------------------------------------


def test_an_idempotent_record_whose_answers_get_lost_is_there_once() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/batches", LOSE, CUT, LOSE)
        async with Producer(verbs) as producer:
            assert 0 == (await producer.send_and_wait("t", b"once", partition=0)).offset
        assert [b"once"] == await values(verbs, "t")
        assert 4 == network.count("/batches")

    run(body)


def test_without_a_producer_an_idempotency_key_does_the_same() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/batches", LOSE, LOSE)
        (placed,) = await verbs.produce([("t", 0, batch())])
        assert 0 == placed.base_offset
        assert [b"x"] == await values(verbs, "t")
        keys = [headers["idempotency-key"] for headers in network.headers if "idempotency-key" in headers]
        assert 3 == len(keys)
        assert 1 == len(set(keys))
        await verbs.produce([("t", 0, batch())])
        assert [b"x", b"x"] == await values(verbs, "t"), "another call is another request"

    run(body)


def test_after_all_tries_the_token_carries_the_key_of_the_first_call() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/batches", *[LOSE] * 6)
        wish = [("t", 0, batch())]
        with pytest.raises(Indeterminate) as caught:
            await verbs.produce(wish)
        assert caught.value.token
        (placed,) = await verbs.produce(wish, token=caught.value.token)
        assert 0 == placed.base_offset
        assert [b"x"] == await values(verbs, "t")

    run(body)


def test_a_producer_without_idempotence_goes_on_under_that_token() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/batches", *[LOSE] * 8)
        async with Producer(verbs, enable_idempotence=False) as producer:
            assert 0 == (await producer.send_and_wait("t", b"once", partition=0)).offset
        assert [b"once"] == await values(verbs, "t")

    run(body)


def test_a_transaction_whose_answer_gets_lost_is_committed_once() -> None:
    async def body(network: Between, verbs: Any) -> None:
        async with Producer(verbs, transactional_id="x") as producer:
            for value in (b"a", b"b", b"c"):
                network.plan("/transactions", LOSE, CUT)
                async with producer.transaction() as t:
                    await t.send("t", value, partition=0)
                    await t.send_offsets({T0: 7}, "g")
        assert [b"a", b"b", b"c"] == await values(verbs, "t")
        assert 7 == (await verbs.committed("g"))[T0].offset
        assert 9 == network.count("/transactions")

    run(body)


def test_a_transaction_of_several_requests_survives_a_lost_commit() -> None:
    async def body(network: Between, verbs: Any) -> None:
        async with Producer(verbs, transactional_id="x", compression="none") as producer:
            producer.request_bytes_max = 10_000
            network.plan("/commit", LOSE, LOSE)
            async with producer.transaction() as t:
                for _ in range(30):
                    await t.send("t", bytes(1_000), partition=0)
        assert 30 == len(await values(verbs, "t"))

    run(body)


def test_what_may_not_be_repeated_is_told_as_unknown_and_sent_once() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/admin/topics", LOSE)
        with pytest.raises(Indeterminate):
            await verbs.create_topic("u", 1)
        assert 2 == network.count("/admin/topics")
        assert ["t", "u"] == [info.name for info in await verbs.topics()]

    run(body)


def test_reads_heartbeats_and_commits_are_simply_sent_again() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/admin/topics", CUT, LOSE)
        assert 1 == len(await verbs.topics())
        network.plan("/heartbeat", LOSE, CUT, LOSE)
        options: dict[str, Any] = {"group_id": "g", "fetch_max_wait_ms": 50}
        async with Consumer(verbs, "t", **options) as consumer:
            assert 2 == len(consumer.assignment())
            network.plan("/offsets", LOSE)
            await consumer.commit({T0: 3})
            assert 3 == await consumer.committed(T0)
            assert 1 == len((await verbs.group("g")).members)

    run(body)


def test_a_lost_fetch_is_asked_again() -> None:
    async def body(network: Between, verbs: Any) -> None:
        async with Producer(verbs) as producer:
            await producer.send("t", b"x", partition=0)
        network.plan("/partitions/0/records", CUT, LOSE)
        async with Consumer(verbs, auto_offset_reset="earliest", fetch_max_wait_ms=50) as consumer:
            consumer.assign([T0])
            assert b"x" == (await consumer.getone()).value  # type: ignore[union-attr]

    run(body)


# -- strangers that answer -----------------------------------------------------------------------------------


def test_a_throttled_request_comes_back_when_it_was_told_to() -> None:
    async def body(network: Between, verbs: Any) -> None:
        refusal = web.Response(status=429, headers={"retry-after": "1"}, text='{"Reason":"ConcurrentInvocationLimit"}')
        network.plan("/batches", refusal)
        start = asyncio.get_running_loop().time()
        await verbs.produce([("t", 0, batch())])
        assert 1 <= asyncio.get_running_loop().time() - start
        assert [b"x"] == await values(verbs, "t")

    run(body)


def test_an_error_of_the_platform_says_nothing_about_a_write() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/admin/topics", web.Response(status=502, text="Internal Server Error"))
        with pytest.raises(Indeterminate):
            await verbs.create_topic("u", 1)
        network.plan("/admin/topics", *(web.Response(status=502, text="<html>") for _ in range(6)))
        with pytest.raises(Unavailable):
            await verbs.topics()

    run(body)


def test_a_redirect_is_not_followed() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/admin/topics", web.Response(status=302, headers={"location": "http://127.0.0.1:9/"}))
        with pytest.raises(InvalidRequest):
            await verbs.topics()

    run(body)


def test_an_answer_that_is_none_of_ours_is_corrupt() -> None:
    async def body(network: Between, verbs: Any) -> None:
        network.plan("/admin/topics", web.Response(text="<html>hello</html>", content_type="text/html"))
        with pytest.raises(Corrupt):
            await verbs.topics()
        network.plan("/records", web.Response(body=b"\xff" * 100))
        with pytest.raises(HeadwaterError):
            await verbs.fetch("t", 0, 0)

    run(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b'{"Message":"Forbidden"}', Forbidden),
        (401, b"", Unauthorized),
        (404, b"nothing here", NotFound),
        (400, b'{"message":5}', InvalidRequest),
        (409, b'{"error":"Fenced","message":"m","applied":"no","what_now":"w","error_code":409}', Fenced),
        (429, b"", Throttled),
        (429, b'{"error":"Throttled","message":"m","retry_after_ms":7}', Throttled),
        (413, b'{"error":"HttpError","message":"m","error_code":413}', InvalidRequest),
        (404, b'{"error":"HttpError","message":"m","error_code":404}', NotFound),
        (504, b'{"error":"Indeterminate","message":"m","token":"abc@1"}', Indeterminate),
        (504, b'{"error":"HttpError","message":"m"}', Unavailable),
        (503, b'{"error":"SomethingNewer","message":"m"}', Unavailable),
        (500, b'{"error":"InternalError","message":"m","applied":"no"}', Unavailable),
    ],
)
def test_errors_become_the_class_that_is_named_or_that_of_the_status(
    status: int, body: bytes, kind: type[Exception]
) -> None:
    made = error_of(status, {}, body)
    assert kind is type(made)
    if isinstance(made, Throttled) and body:
        assert 7 == made.retry_after_ms
    if isinstance(made, Indeterminate):
        assert "abc@1" == made.token


@pytest.mark.parametrize("name", ["..", "a/b", "a b", "ä", "%2e%2e", "a?b#c"])
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    assert "/" not in segment(name).replace("%2F", "")
    assert "?" not in segment(name)


# -- credentials ---------------------------------------------------------------------------------------------


def test_requests_are_signed_so_that_a_verifier_takes_them_and_like_ones_are_no_replays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKROOT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-root")

    async def main() -> None:
        keys = {"AKROOT": SigningKey(secret="secret-of-root", principal="root")}
        auth = Authenticator("sigv4", SystemClock(), sigv4_keys=keys)
        async with between(auth=auth) as network:
            async with connect(network.url, auth="iam", region="us-east-1") as verbs:
                await verbs.create_topic("t", 1)
                await asyncio.gather(*(verbs.produce([("t", 0, batch())]) for _ in range(5)))
                assert 5 == len(await values(verbs, "t"))
                network.plan("/batches", LOSE)
                await verbs.produce([("t", 0, batch())])
                group = "a b/ä"[:3] + "ä+("
                await verbs.heartbeat(group, "m", topics=["t"], joining=True)
                assert 6 == len(await values(verbs, "t"))
                assert "secret-of-root" not in repr(verbs) + repr(verbs._http) + repr(verbs._http._signer)
            async with connect(network.url) as verbs:
                with pytest.raises(Unauthorized):
                    await verbs.topics()

    asyncio.run(main())


def test_the_region_is_that_of_the_function_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "eu-central-1" == region_of("https://abc123.lambda-url.eu-central-1.on.aws/")
    assert "ap-south-1" == region_of("http://abc.lambda-url.ap-south-1.localhost:4566")
    assert "us-east-1" == region_of("https://example.com")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(InvalidRequest):
        region_of("https://example.com")


def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    async def main() -> None:
        with pytest.raises(Unauthorized):
            await Signer("http://x", region="us-east-1", rng=random.Random(1)).sign("GET", "http://x/", {}, b"")

    asyncio.run(main())


# -- past the service ----------------------------------------------------------------------------------------


class Shelf:
    """A store's own door: PUT and GET of objects, by URLs that a presigner here makes."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.url = ""
        self.seen: list[str] = []
        self.plans: list[int] = []

    def put(self, key: str, length: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        return f"{self.url}/{key}?signature=a%2Fb", {"if-none-match": "*"}

    def get(self, key: str, start: int, end: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        return f"{self.url}/{key}?signature=a%2Fb", {"range": f"bytes={start}-{end - 1}"}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert "signature=a%2Fb" in request.raw_path, "a signed URL is sent as it is"
        assert "authorization" not in request.headers
        self.seen.append(request.method)
        data = await request.content.read()
        plan = self.plans.pop(0) if self.plans else 200
        if plan == 503:
            return web.Response(status=503)
        key = f"default/{request.path[1:]}"
        if request.method == "PUT":
            await self.store.put_if_absent(key, data)
            return web.Response(status=plan)
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        return web.Response(body=(await self.store.get(key, start=int(first), end=int(last) + 1)).data)


def test_what_no_request_or_answer_can_hold_goes_past_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = MemoryStore()
        shelf = Shelf(store)
        for module in (presign, uploads):
            monkeypatch.setattr(module, "presigner", lambda store: shelf)
        door = web.Server(shelf.handle, access_log=None)
        listener = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        shelf.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with between(store) as network, connect(network.url) as verbs:
            network.app._answer_bytes_max = 1_000_000
            await verbs.create_topic("t", 1)
            large = random.Random(1).randbytes(5_000_000)
            async with Producer(verbs, compression="none") as producer:
                shelf.plans += [503, 412]
                network.plan("/uploads/", LOSE, CUT)
                assert 0 == (await producer.send_and_wait("t", large)).offset
                assert 1 == (await producer.send_and_wait("t", b"small")).offset
            assert ["PUT", "PUT"] == shelf.seen
            async with Consumer(verbs, "t", auto_offset_reset="earliest", fetch_max_wait_ms=50) as consumer:
                first, second = await consumer.getone(), await consumer.getone()
            assert first is not None
            assert second is not None
            assert (large, b"small") == (first.value, second.value)
            assert "GET" in shelf.seen
        listener.close()
        await door.shutdown(1)

    asyncio.run(main())


def test_an_upload_whose_fate_is_unknown_is_appended_once_by_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = MemoryStore()
        shelf = Shelf(store)
        for module in (presign, uploads):
            monkeypatch.setattr(module, "presigner", lambda store: shelf)
        door = web.Server(shelf.handle, access_log=None)
        listener = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        shelf.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with between(store) as network, connect(network.url) as verbs:
            await verbs.create_topic("t", 1)
            wish = [("t", 0, batch(random.Random(1).randbytes(5_000_000)))]
            network.plan("/uploads/", *[LOSE] * 6)
            with pytest.raises(Indeterminate) as caught:
                await verbs.produce(wish)
            (placed,) = await verbs.produce(wish, token=caught.value.token)
            assert 0 == placed.base_offset
            assert 1 == (await verbs.offset_of("t", 0)).offset
            assert ["PUT"] == shelf.seen
        listener.close()
        await door.shutdown(1)

    asyncio.run(main())


def test_where_nothing_can_be_presigned_a_large_batch_goes_as_a_request() -> None:
    async def body(network: Between, verbs: Any) -> None:
        large = random.Random(1).randbytes(5_000_000)
        async with Producer(verbs, compression="none") as producer:
            assert 0 == (await producer.send_and_wait("t", large, partition=0)).offset
        assert [large] == await values(verbs, "t")

    run(body)
