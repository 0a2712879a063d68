"""C4 and C7 on the wire: a conditional write leaves once, and its error says what can be known about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from headwater.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Raced,
    Throttled,
    Unauthorized,
    Unavailable,
)
from headwater.store import ObjectStore, open_store
from tests.store.faulty import FaultyS3, faulty_s3

T = TypeVar("T")
CLIENTS = ["obstore", "aioboto3"]
WRITE_FAULTS = [
    ("drop", Indeterminate),
    ("drop_early", Indeterminate),
    ("half", Indeterminate),
    ("hang", Indeterminate),
    ("trickle", Indeterminate),
    ("error_in_200", Indeterminate),
    ("500 InternalError", Indeterminate),
    ("502 BadGateway", Indeterminate),
    ("503 SomethingElse", Indeterminate),
    ("504 GatewayTimeout", Indeterminate),
    ("503 SlowDown", Throttled),
    ("503 ServiceUnavailable", Throttled),
    ("429 TooManyRequests", Throttled),
    ("409 ConditionalRequestConflict", Raced),
    ("412 PreconditionFailed", AlreadyExists),
    ("403 AccessDenied", Forbidden),
    ("403 InvalidAccessKeyId", Unauthorized),
    ("403 SignatureDoesNotMatch", Unauthorized),
    ("403 RequestTimeTooSkewed", Unauthorized),
    ("400 ExpiredToken", Unauthorized),
    ("404 NoSuchBucket", NotFound),
    ("400 RequestTimeout", Unavailable),
    ("400 AuthorizationHeaderMalformed", InvalidRequest),
    ("400 EntityTooLarge", InvalidRequest),
    ("301 PermanentRedirect", InvalidRequest),
    ("501 NotImplemented", InvalidRequest),
]


def against(
    client: str, fault: str, work: Callable[[ObjectStore, FaultyS3], Awaitable[T]], *, on: str = "PUT"
) -> FaultyS3:
    """Run ``work`` against the faulty server; the server, to be asked what arrived."""

    async def whole() -> FaultyS3:
        async with faulty_s3(fault, on=on) as fake:
            timeout_s = 1.5 if fault in ("hang", "trickle") else 20
            store = open_store(f"s3://bucket/p?endpoint_url={fake.url}&client={client}&timeout_s={timeout_s}")
            try:
                await work(store, fake)
            finally:
                await store.aclose()
            return fake

    return asyncio.run(whole())


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("fault", "expected"), WRITE_FAULTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_conditional_put_is_sent_once(client: str, fault: str, expected: type[HeadwaterError], warm: bool) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        if warm:  # on a connection in use, HTTP libraries like to send again what looks repeatable
            fake.fault = ""
            await store.put_if_absent("before", b"x")
            fake.fault = fault
            fake.seen.clear()
        with pytest.raises(expected) as error:
            await store.put_if_absent("manifest/1", b"bytes")
        assert expected is type(error.value)
        assert "manifest/1" in str(error.value) or "bucket" in str(error.value)

    fake = against(client, fault, work)
    assert 1 == fake.seen["PUT"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("412 PreconditionFailed", Conflict),
        ("404 NoSuchKey", Conflict),
        ("409 ConditionalRequestConflict", Raced),
        ("404 NoSuchBucket", NotFound),
        ("drop", Indeterminate),
        ("500 InternalError", Indeterminate),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_put_if_match_is_sent_once(client: str, fault: str, expected: type[HeadwaterError]) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(expected) as error:
            await store.put_if_match("k", b"bytes", '"etag"')
        assert expected is type(error.value)

    fake = against(client, fault, work)
    assert 1 == fake.seen["PUT"]
    assert '"etag"' == fake.headers[0]["if-match"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop", Indeterminate),
        ("hang", Indeterminate),
        ("500 InternalError", Indeterminate),
        ("503 SlowDown", Throttled),
        ("409 OperationAborted", Unavailable),
        ("error_in_200", Indeterminate),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_plain_put_is_sent_once_too(client: str, fault: str, expected: type[HeadwaterError]) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(expected):
            await store.put("k", b"bytes")

    assert 1 == against(client, fault, work).seen["PUT"]


@pytest.mark.parametrize("fault", ["drop", "half", "hang", "short_body", "500 InternalError", "503 Whatever"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_read_without_an_answer_is_unavailable(client: str, fault: str) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(Unavailable):
            await store.get("k")
        if fault != "short_body":
            with pytest.raises(Unavailable):
                _ = [stat async for stat in store.list("k")]

    fake = against(client, fault, work, on="GET")
    assert (1 if fault == "short_body" else 2) == fake.seen["GET"]


@pytest.mark.parametrize("fault", ["drop", "500 InternalError", "200 Nothing"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_delete_without_a_proper_answer_is_indeterminate(client: str, fault: str) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(Indeterminate):
            await store.delete(["a", "b"])

    assert 1 == against(client, fault, work, on="POST").seen["POST"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_closed_between_requests_does_no_harm(client: str) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        for number in range(3):
            await store.put_if_absent(f"k/{number}", b"x")
            await asyncio.sleep(0.05)

    fake = against(client, "hang_up", work)
    assert 3 == fake.seen["PUT"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_put_carries_its_condition_and_costs_one_round_trip(client: str) -> None:
    large = bytes(3_000_000)

    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        await store.put_if_absent("k", [b"a", b"b"])
        await store.put("large", large)
        assert {"/bucket/p/k": b"ab", "/bucket/p/large": large} == fake.objects

    fake = against(client, "", work)
    assert ["*", None] == [headers.get("if-none-match") for headers in fake.headers]
    # A client that waits for "100 Continue" before it sends the body pays for two.
    assert [None, None] == [headers.get("expect") for headers in fake.headers]


@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_listening_means_not_sent(client: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _nothing_is_sent(f"s3://bucket/p?endpoint_url=http://127.0.0.1:{port}&client={client}")


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unknown_host_means_not_sent(client: str) -> None:
    _nothing_is_sent(f"s3://bucket/p?endpoint_url=http://no-such-host.invalid&client={client}")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_never_comes_about_means_not_sent(client: str) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # fills the queue, so that the next one is not even greeted
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        _nothing_is_sent(f"s3://bucket/p?endpoint_url={url}&client={client}&connect_timeout_s=0.2&timeout_s=5")
        for each in waiting:
            each.close()


def _nothing_is_sent(url: str) -> None:
    async def work() -> None:
        store = open_store(url)
        for call in (store.put_if_absent("k", b"x"), store.put("k", b"x"), store.get("k"), store.delete(["k"])):
            with pytest.raises(Unavailable, match="not sent"):
                await call
        await store.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("client", CLIENTS)
def test_throttling_says_when_to_come_back(client: str) -> None:
    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(Throttled) as error:
            await store.put_if_absent("k", b"x")
        assert 1_000 == error.value.retry_after_ms

    against(client, "503 SlowDown", work)


@pytest.mark.parametrize("client", CLIENTS)
def test_without_credentials_nothing_is_sent(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(Unauthorized, match="credentials"):
            await store.put_if_absent("k", b"x")
        with pytest.raises(Unauthorized, match="credentials"):
            await store.get("k")

    assert 0 == against(client, "", work).seen["PUT"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_profile_gives_credentials(client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[elsewhere]\naws_access_key_id=FROMPROFILE\naws_secret_access_key=s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "config").write_text("[profile elsewhere]\nregion = eu-far-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        await store.put_if_absent("k", b"x")
        # Named in the URL, it goes before the environment's keys; named in the environment, after them.
        chosen = open_store(f"{store.url}&profile=elsewhere")
        await chosen.put_if_absent("k2", b"x")
        await chosen.aclose()

    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    first, second = against(client, "", work).headers
    assert "Credential=headwater/" in first["authorization"]
    assert "Credential=FROMPROFILE/" in second["authorization"]
    assert "/eu-far-1/" in second["authorization"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Credential=FROMPROFILE/" in against(client, "", work).headers[0]["authorization"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_missing_profile_is_unauthorized(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")

    async def work(store: ObjectStore, fake: FaultyS3) -> None:
        with pytest.raises(Unauthorized, match="no-such-profile"):
            await store.put_if_absent("k", b"x")

    assert 0 == against(client, "", work).seen["PUT"]
