"""Whatever a client sends costs it its own connection at most: others are served, and memory stays bounded."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.kafka import schema
from headwater.kafka.gateway import Settings
from headwater.kafka.handlers import table

HELLO = struct.pack(">hhihh", 18, 0, 7, 0, 0)[:-2]
HELLO = struct.pack(">i", len(HELLO)) + HELLO


@contextlib.contextmanager
def connected(running: Any) -> Iterator[socket.socket]:
    host, _, port = running.bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        yield client


def answer_of(client: socket.socket) -> bytes:
    """The next answer; b"" if the connection was closed."""
    size = received(client, 4)
    return received(client, struct.unpack(">i", size)[0]) if len(size) == 4 else b""


def received(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            part = client.recv(count - len(data))
        except ConnectionResetError:
            return b""
        if not part:
            return b""
        data += part
    return data


def is_served(running: Any) -> bool:
    with connected(running) as client:
        client.sendall(HELLO)
        return answer_of(client)[:6] == struct.pack(">ih", 7, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    api=st.sampled_from(sorted(table())),
    part=st.floats(0, 1),
    body=st.binary(max_size=300),
    flexible=st.booleans(),
)
def test_random_bytes_end_in_an_answer_or_a_closed_connection(
    kafka: Any, api: int, part: float, body: bytes, flexible: bool
) -> None:
    first, last = schema.versions(api)
    version = first + round(part * (last - first))
    head = struct.pack(">hhih", api, version, 9, 2) + b"me" + (b"\x00" if flexible else b"")
    frame = head + body
    with connected(kafka) as client:
        client.sendall(struct.pack(">i", len(frame)) + frame + HELLO)
        client.shutdown(socket.SHUT_WR)
        first_answer = answer_of(client)
        assert first_answer == b"" or first_answer[:4] in (struct.pack(">i", 9), struct.pack(">i", 7))
    assert is_served(kafka)


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", -5),
        struct.pack(">i", 4) + b"abcd",
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 10, 3, 99, 1, -1),
        struct.pack(">ihhihi", 14, 3, 1, 1, -1, 2**31 - 1),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["huge", "negative", "short", "unknown api", "unknown version", "hostile count", "http"],
)
def test_nonsense_ends_the_connection_and_no_other(kafka: Any, sent: bytes) -> None:
    with connected(kafka) as other, connected(kafka) as client:
        client.sendall(sent)
        assert b"" == answer_of(client)
        other.sendall(HELLO)
        assert struct.pack(">ih", 7, 0) == answer_of(other)[:6]


def test_an_api_versions_that_is_too_new_is_told_what_is_served(kafka: Any) -> None:
    with connected(kafka) as client:
        client.sendall(struct.pack(">ihhih", 10, 18, 99, 5, -1))
        assert struct.pack(">ih", 5, 35) == answer_of(client)[:6]


def test_requests_sent_at_once_are_answered_in_their_order(kafka: Any) -> None:
    with connected(kafka) as client:
        client.sendall(b"".join(HELLO[:8] + struct.pack(">i", number) + HELLO[12:] for number in range(500)))
        assert list(range(500)) == [struct.unpack(">i", answer_of(client)[:4])[0] for _ in range(500)]


def test_who_has_said_everything_is_let_go_once_it_is_answered(kafka: Any) -> None:
    with connected(kafka) as client:
        client.sendall(HELLO * 3)
        client.shutdown(socket.SHUT_WR)
        assert [struct.pack(">ih", 7, 0)] * 3 == [answer_of(client)[:6] for _ in range(3)]
        assert b"" == client.recv(1)


def test_a_wrong_checksum_is_told_and_nothing_is_appended(kafka: Any) -> None:
    from headwater.log import kafka2

    kafka.create_topic("orders", 1)
    batch = bytearray(kafka2.pack(b"\x10\x00\x00\x00\x01\x02v\x00\x00", count=1, first_timestamp=1, max_timestamp=1))
    batch[-1] ^= 1
    fields = (
        struct.pack(">hhi", -1, -1, 1000) + struct.pack(">ih", 1, 6) + b"orders" + struct.pack(">iii", 1, 0, len(batch))
    )
    frame = struct.pack(">hhih", 0, 3, 5, -1) + fields + bytes(batch)
    with connected(kafka) as client:
        client.sendall(struct.pack(">i", len(frame)) + frame)
        answer = answer_of(client)
    code = struct.unpack(">h", answer[4 + 4 + 2 + 6 + 4 + 4 :][:2])[0]
    assert 2 == code
    assert 0 == kafka.run(_end(kafka, "orders"))


async def _end(running: Any, topic: str) -> int:
    namespace = await running.gateway.namespace("default")
    return int((await namespace.refresh()).named(topic).partitions[0].next)


def test_too_many_connections_are_turned_away(serve: Any) -> None:
    running = serve(settings=Settings(), connections_max=3)
    with connected(running) as one, connected(running) as two, connected(running) as three:
        for client in (one, two, three):
            client.sendall(HELLO)
            assert answer_of(client)
        with connected(running) as fourth:
            fourth.sendall(HELLO)
            assert b"" == answer_of(fourth)
    assert is_served(running)
