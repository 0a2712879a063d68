"""The running server: what clients get that are wrong, rude or slow, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from headwater.api import sigv4
from headwater.api.auth import Authenticator, SigningKey
from headwater.api.messages import Call, Response, Route
from headwater.api.server import Server, serve
from headwater.clock import SystemClock
from headwater.limits import HTTP_BODY_BYTES_MAX
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import Log, app_over

RECORDS = "/topics/t/partitions/0/records"


def running(test: Callable[[Server, aiohttp.ClientSession], Awaitable[None]], **how: Any) -> None:
    """Run a test against a server with a topic ``t``; no mistake of ours may be logged."""

    async def main() -> None:
        log = Log()
        async with (
            Server(app_over(MemoryStore(), log=log), **how) as server,
            aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(20)) as session,
        ):
            async with session.post("/admin/topics", json={"name": "t", "partitions": 2}) as made:
                assert 201 == made.status
            await test(server, session)
        assert [] == log.lines

    asyncio.run(main())


async def raw(server: Server, sent: bytes, *, wait_s: float = 10.0) -> bytes:
    """Everything that the server answers to these bytes until it hangs up."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(sent)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), wait_s)
    finally:
        writer.close()


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_records_go_in_and_come_out() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        async with session.post(RECORDS, json={"records": [{"value": n} for n in range(100)]}) as done:
            assert 100 == (await done.json())["appended"][0]["count"]
        async with session.get(RECORDS) as found:
            assert "gzip" == found.headers["content-encoding"]
            assert list(range(100)) == [each["value"] for each in await found.json(content_type=None)]
        async with session.head(RECORDS) as found:
            assert ("100", b"") == (found.headers["headwater-next-offset"], await found.read())
        async with session.get("/healthz") as found:
            assert {"status": "ok"} == await found.json()

    running(test)


def test_a_compressed_request_is_taken() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        body = gzip.compress(json.dumps({"records": [{"value": "x" * 5_000}]}).encode())
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        async with session.post(RECORDS, data=body, headers=headers) as done:
            assert 200 == done.status, await done.text()

    running(test)


@pytest.mark.parametrize(
    "path",
    [
        "/topics/../admin/topics",
        "/topics/%2e%2e/admin",
        "/topics/t%2f..%2fu/partitions/0/records",
        "/topics//partitions/0/records",
        "/topics/%00/partitions/0/records",
        "/topics/%ff/partitions/0/records",
        "/groups/%0d%0aset-cookie:x/offsets",
        "//evil.example/",
        "/namespaces/../healthz",
        "/namespaces/%2e%2e/topics",
        "/namespaces/UPPER/groups",
        "/namespaces/other/groups",
        "/nothing",
    ],
)
def test_tricks_in_paths_lead_nowhere(path: str) -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        answer = await raw(server, head("GET", path))
        assert status(answer) in (400, 404), answer
        assert b"set-cookie" not in answer.lower().partition(b"\r\n\r\n")[0]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["applied"] == "no"

    running(test)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"nonsense\r\n\r\n", (400,)),
        (b"GET / HTTP/9.9\r\n\r\n", (400, 505)),
        (head("GET", "/" + "x" * 40_000), (400, 414)),
        (head("GET", "/healthz", "X-Long: " + "x" * 40_000), (400, 431)),
        (head("GET", "/healthz", "Bad\x00Name: x"), (400,)),
        (head("POST", RECORDS, "Content-Length: x"), (400,)),
        (head("POST", RECORDS, "Content-Length: -1"), (400,)),
        (head("POST", RECORDS, "Content-Length: 5", "Transfer-Encoding: chunked") + b"hello", (400,)),
        (head("POST", RECORDS, "Transfer-Encoding: chunked", "Content-Type: application/json") + b"zz\r\n", (400,)),
        (head("TRACE", "/healthz"), (405,)),
        (head("DELETE", "/healthz"), (405,)),
        (head("BREW", "/healthz"), (400, 405)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
    ],
    ids=range(13),
)
def test_what_is_hardly_http_gets_an_answer_and_no_harm_is_done(sent: bytes, statuses: tuple[int, ...]) -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        assert status(await raw(server, sent)) in statuses
        async with session.get("/healthz") as found:
            assert 200 == found.status

    running(test)


def test_a_target_may_name_scheme_and_host() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        assert 200 == status(await raw(server, head("GET", f"{server.url}/healthz?")))
        assert 404 == status(await raw(server, head("GET", server.url)))
        assert status(await raw(server, head("GET", "ftp://x/healthz"))) in (400, 404)

    running(test)


def test_a_method_that_a_path_has_not_is_told_which_there_are() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        async with session.put(RECORDS) as found:
            assert (405, "GET, POST, HEAD") == (found.status, found.headers["allow"])
        async with session.get(RECORDS, headers={"accept": "text/html"}) as found:
            assert 406 == found.status
        async with session.get(RECORDS, headers={"accept": "text/html, */*;q=0.1"}) as found:
            assert 200 == found.status
        async with session.post(RECORDS, data={"a": "b"}) as found:
            assert 415 == found.status

    running(test)


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        length = f"Content-Length: {HTTP_BODY_BYTES_MAX + 1}"
        assert 413 == status(await raw(server, head("POST", RECORDS, length, "Content-Type: application/json")))
        chunked = head("POST", RECORDS, "Transfer-Encoding: chunked", "Content-Type: application/json")
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(chunked)
        try:
            for _ in range(HTTP_BODY_BYTES_MAX // (1 << 20) + 2):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # it has hung up already
        answer = await asyncio.wait_for(reader.read(12), 10)
        assert answer in (b"HTTP/1.1 413", b"")
        writer.close()

    running(test)


def test_bodies_of_all_requests_together_are_bounded() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        part = head("POST", RECORDS, "Content-Length: 90000", "Content-Type: application/json") + bytes(80_000)
        streams = [await asyncio.open_connection(server.host, server.port) for _ in range(3)]
        for _, writer in streams:
            writer.write(part)
            await writer.drain()
        first, _ = await asyncio.wait([asyncio.ensure_future(reader.read(12)) for reader, _ in streams], timeout=5,
                                      return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        assert [b"HTTP/1.1 429"] == [task.result() for task in first]
        for _, writer in streams:
            writer.close()
        async with session.get("/healthz") as found:
            assert 200 == found.status

    running(test, bodies_bytes_max=200_000)


def test_a_bomb_is_refused() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        bomb = gzip.compress(bytes(200 << 20))
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        async with session.post(RECORDS, data=bomb, headers=headers) as done:
            assert 413 == done.status

    running(test)


def test_clients_that_are_slow_are_let_go() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        assert b"" == await raw(server, b"")
        assert b"" == await raw(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert 408 == status(await raw(server, head("POST", RECORDS, "Content-Length: 100") + b"{"))
        keeps = head("GET", "/healthz").replace(b"Connection: close\r\n", b"")
        answer = await raw(server, keeps + b"GET /healthz HTTP/1.1\r\nHost")
        assert answer.startswith(b"HTTP/1.1 200")
        async with session.get("/healthz") as found:
            assert 200 == found.status

    running(test, slow_s=0.3)


def test_a_client_that_does_not_read_is_let_go() -> None:
    async def main() -> None:
        async def large(call: Call) -> Response:
            return Response(body=bytes(48 << 20))

        route = Route(method="GET", pattern="/large", handler=large, functions=frozenset(), summary="Large")
        app = app_over(MemoryStore(), routes=(route,))
        async with Server(app, slow_s=0.3) as server:
            _, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 10)
            writer.write(head("GET", "/large"))
            await writer.drain()
            await asyncio.wait_for(server.stop(), 5)
            writer.close()

    asyncio.run(main())


def test_a_signed_change_cannot_be_replayed_or_bent() -> None:
    async def main() -> None:
        clock = SystemClock()
        keys = {"AKID": SigningKey(secret="s3cret", principal="alice")}
        app = app_over(MemoryStore(), auth=Authenticator("sigv4", clock=clock, sigv4_keys=keys))
        async with Server(app) as server, aiohttp.ClientSession() as session:

            async def send(url: str, body: bytes, headers: Mapping[str, str]) -> int:
                async with session.post(url, data=body, headers=headers) as answer:
                    assert "no" == (await answer.json()).get("applied", "no")
                    return answer.status

            def signed(path: str, body: bytes) -> dict[str, str]:
                return sigv4.signed_headers(
                    sigv4.Secret(access_key="AKID", secret_key="s3cret"),
                    method="POST",
                    path=path,
                    query="",
                    headers={"host": f"127.0.0.1:{server.port}", "content-type": "application/json"},
                    body=body,
                    region="us-east-1",
                    service="lambda",
                    wall_ms=clock.wall_ms(),
                )

            url, body = f"{server.url}/admin/topics", b'{"name":"t"}'
            headers = signed("/admin/topics", body)
            assert 401 == await send(url, b'{"name":"u"}', headers)
            assert 401 == await send(f"{server.url}/admin/acls", body, headers)
            assert 201 == await send(url, body, headers)
            assert 401 == await send(url, body, headers)
            records = f"{server.url}{RECORDS}"
            packed = gzip.compress(b'{"records":[{"value":1}]}')
            more = {**signed(RECORDS, packed), "content-encoding": "gzip"}
            assert 200 == await send(records, packed, more)
            assert 401 == await send(records, b"{}", {"content-type": "application/json"})

    asyncio.run(main())


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        async with session.post(RECORDS, json={"records": [{"value": 1}]}, expect100=True) as done:
            assert 200 == done.status

    running(test)


def test_two_requests_on_one_connection_do_not_mix() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        first = head("POST", RECORDS, "Content-Type: text/plain", "Content-Length: 26").replace(
            b"Connection: close\r\n", b""
        )
        answer = await raw(server, first + b"GET /admin HTTP/1.1\r\nX: y\r" + head("GET", "/healthz"))
        assert [b"415", b"200"] == [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]

    running(test)


def test_a_stop_finishes_what_is_in_flight() -> None:
    async def main() -> None:
        began, go = asyncio.Event(), asyncio.Event()

        async def slow(call: Call) -> Response:
            began.set()
            await go.wait()
            return Response(body=b"late")

        route = Route(method="GET", pattern="/slow", handler=slow, functions=frozenset(), summary="Slow")
        server = Server(app_over(MemoryStore(), routes=(route,)))
        await server.start()
        async with aiohttp.ClientSession(server.url) as session:
            asked = asyncio.ensure_future(session.get("/slow"))
            await began.wait()
            stopped = asyncio.ensure_future(server.stop())
            assert not (await asyncio.wait([stopped], timeout=0.05))[0]
            go.set()
            assert b"late" == await (await asked).read()
            await asyncio.wait_for(stopped, 5)
        await server.stop()

    asyncio.run(main())


def test_serve_tells_when_it_is_ready_and_closes_when_it_is_cancelled() -> None:
    async def main() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.ensure_future(serve(app_over(MemoryStore()), port=0, ready=heard.put_nowait, maintain_s=0.05))
        url = await heard.get()
        async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as found:
            assert 200 == found.status
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

    asyncio.run(main())


def test_many_clients_at_once_get_their_own_answers() -> None:
    async def test(server: Server, session: aiohttp.ClientSession) -> None:
        async def one(n: int) -> int:
            async with session.post(RECORDS, json={"records": [{"value": n}]}) as done:
                return int((await done.json())["appended"][0]["base_offset"])

        offsets = await asyncio.gather(*(one(n) for n in range(50)))
        async with session.get(RECORDS) as found:
            stored = {each["offset"]: each["value"] for each in await found.json(content_type=None)}
        assert {offset: n for n, offset in enumerate(offsets)} == stored

    running(test)
