"""The parts of the S3 stores that decide without sending: offsets of lists, and the service's clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence

import pytest

from headwater.errors import InvalidRequest
from headwater.store import ObjectStore, Stat, open_store
from headwater.store.s3_base import S3Base
from headwater.store.s3_clock import FRESH_S, SILENT_S, ServiceClock
from headwater.store.s3_obstore import _just_before, _offset
from headwater.store.s3_url import parse_s3_url
from tests.store.faulty import faulty_s3


@pytest.mark.parametrize("prefix", ["m/0000", "m/0", "m/a-b", "m/~", "é", "m/日", "m/!", "a0", "a"])
def test_an_offset_just_before_a_prefix_hides_none_of_its_keys(prefix: str) -> None:
    offset = _just_before(prefix)
    assert offset < prefix
    # What comes before the prefix in the same folder is passed over, but for keys that nobody makes.
    for before in (prefix[:-1] + chr(ord(prefix[-1]) - 1) + tail for tail in ("", "/x", "zzz")):
        assert before <= offset or "//" in before or " " in before


@pytest.mark.parametrize(
    ("after", "offset"),
    [
        ("", None),
        ("a/b", "a/b"),
        ("a/b/", "a/b"),
        ("a//b", "a"),
        ("/a", None),
        ("a/./b", "a"),
        ("a/../b", "a"),
        ("a/.b", "a/.b"),
    ],
)
def test_an_offset_is_cut_to_a_key_that_may_be(after: str, offset: str | None) -> None:
    assert offset == _offset(after)
    assert (offset or "") <= after


class Listed(S3Base):
    """A service that lists these keys, in this order, three on a page."""

    def __init__(self, keys: Sequence[str], url: str) -> None:
        super().__init__(parse_s3_url(url, {}))
        self.keys = keys
        self.pages = 0

    async def _pages(self, prefix: str, start_after: str, limit: int | None) -> AsyncGenerator[Sequence[Stat], None]:
        for first in range(0, len(self.keys), 3):
            self.pages += 1
            names = self.keys[first : first + 3]
            yield [Stat(key=name, size=0, etag="e", modified_ms=0, date_ms=0) for name in names]

    async def found(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[str]:
        return [stat.key async for stat in self.list(prefix, start_after=start_after, limit=limit)]


def test_a_list_without_order_is_sorted_here() -> None:
    keys = ["d/z", "d/b", "e/x", "d/a/1", "c", "d/a-1", "d/a/0"]
    store = Listed(keys, "s3://bucket--use1-az4--x-s3")
    assert ["d/a-1", "d/a/0", "d/a/1", "d/b", "d/z"] == asyncio.run(store.found("d/"))
    assert ["d/a/1", "d/b"] == asyncio.run(store.found("d/", "d/a/0", 2))
    assert sorted(keys) == asyncio.run(store.found(""))


def test_a_list_in_the_wrong_order_is_an_error_that_names_the_option() -> None:
    store = Listed(["d/a", "d/c", "d/b"], "s3://bucket")
    with pytest.raises(InvalidRequest, match="lists=unsorted"):
        asyncio.run(store.found("d/"))


def test_a_list_reads_no_page_that_it_does_not_need() -> None:
    store = Listed([f"d/{number}" for number in range(9)] + ["e/1", "e/2", "e/3", "f", "g", "h"], "s3://bucket")
    assert ["d/0", "d/1"] == asyncio.run(store.found("d/", limit=2))
    assert 1 == store.pages
    assert 9 == len(asyncio.run(store.found("d/")))
    assert 1 + 4 == store.pages


class HandClock:
    def __init__(self) -> None:
        self.wall_s = self.up_s = 1_000_000.0

    def wall_ms(self) -> int:
        return int(self.wall_s * 1_000)

    def elapsed_s(self) -> float:
        return self.up_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits")

    def go_on(self, wall_s: float, up_s: float) -> None:
        self.wall_s += wall_s
        self.up_s += up_s


def test_the_services_clock_is_read_once_and_carried_on() -> None:
    async def work() -> None:
        async with faulty_s3("403 AccessDenied", on="HEAD") as fake:
            hand = HandClock()
            service = ServiceClock(fake.url, hand, 5.0)
            assert -1 == service.known_ms()
            first = await service.now_ms()
            assert first > 1_700_000_000_000
            hand.go_on(100.0, 100.0)
            assert first + 100_000 == await service.now_ms() == service.known_ms()
            assert 1 == fake.seen["HEAD"]
            hand.go_on(FRESH_S, FRESH_S)
            assert -1 == service.known_ms()
            assert first <= await service.now_ms() < first + 60_000  # read anew, not carried on
            assert 2 == fake.seen["HEAD"]
            hand.go_on(50.0, 0.0)  # the machine was frozen, or its clock was set: neither can be trusted
            assert -1 == service.known_ms()
            assert -1 != await service.now_ms()
            assert 3 == fake.seen["HEAD"]

    asyncio.run(work())


def test_a_service_without_a_date_is_asked_seldom() -> None:
    async def work() -> None:
        hand = HandClock()
        service = ServiceClock("http://127.0.0.1:1", hand, 1.0)
        assert -1 == await service.now_ms()
        hand.go_on(SILENT_S - 1, SILENT_S - 1)
        assert -1 == await service.now_ms()

    asyncio.run(work())


@pytest.mark.parametrize("client", ["obstore", "aioboto3"])
def test_an_access_key_in_the_environment_never_shows_in_errors(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter3")

    async def failed(store: ObjectStore, fault: str) -> str:
        with pytest.raises(Exception) as error:  # whatever it is, its text must be clean
            await store.put_if_absent("k", b"x")
        assert error.value.__cause__ is None
        return str(error.value)

    async def work() -> None:
        for fault in ("403 SignatureDoesNotMatch", "403 InvalidAccessKeyId", "drop", "500 InternalError"):
            async with faulty_s3(fault) as fake:
                store = open_store(f"s3://bucket/p?endpoint_url={fake.url}&client={client}")
                said = await failed(store, fault)
                await store.aclose()
            assert os.environ["AWS_ACCESS_KEY_ID"] not in said.replace("headwater-test", "")
            assert "hunter" not in said

    asyncio.run(work())
