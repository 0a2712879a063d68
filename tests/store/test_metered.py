from __future__ import annotations

import asyncio

import pytest

from headwater.errors import AlreadyExists, NotFound
from headwater.store import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.store.metered import Counts, MeteredStore


def test_every_request_is_counted_by_its_kind() -> None:
    async def work() -> None:
        store = MeteredStore(MemoryStore())
        assert isinstance(store, ObjectStore)
        await store.put("a", b"12345")
        stat = await store.put_if_absent("b", [b"12", b"34"])
        await store.put_if_match("b", b"123", stat.etag)
        await store.get("a", start=1, end=3)
        await store.head("a")
        assert ["a", "b"] == [found.key async for found in store.list("")]
        await store.delete(["a", "b"])
        expected = Counts(put=1, put_conditional=2, get=1, head=1, list=1, delete=1, bytes_in=2, bytes_out=12)
        assert expected == store.counts
        await store.aclose()

    asyncio.run(work())


def test_failed_requests_are_billed_too() -> None:
    async def work() -> None:
        store = MeteredStore(MemoryStore())
        await store.put_if_absent("k", b"x")
        with pytest.raises(AlreadyExists):
            await store.put_if_absent("k", b"xyz")
        with pytest.raises(NotFound):
            await store.get("none")
        with pytest.raises(NotFound):
            await store.head("none")
        assert [] == [found async for found in store.list("none")]
        assert Counts(put_conditional=2, get=1, head=1, list=1, bytes_out=4) == store.counts

    asyncio.run(work())


@pytest.mark.parametrize(("objects", "pages"), [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_500, 3)])
def test_lists_and_deletes_count_by_the_thousand(objects: int, pages: int) -> None:
    async def work() -> None:
        inner = MemoryStore()
        names = [f"k/{number:05d}" for number in range(objects)]
        for name in names:
            await inner.put(name, b"")
        store = MeteredStore(inner)
        assert names == [found.key async for found in store.list("k/")]
        assert pages == store.counts.list
        await store.delete(names)
        assert -(-objects // 1_000) == store.counts.delete

    asyncio.run(work())


def test_cost_follows_the_price_list() -> None:
    counts = Counts(put=400, put_conditional=500, list=100, get=9_000, head=1_000, delete=10**6, bytes_in=10**12)
    assert 0.005 + 0.004 == pytest.approx(counts.cost_usd())
    assert 0.0 == Counts().cost_usd()


def test_counts_of_a_span_are_a_difference() -> None:
    async def work() -> None:
        store = MeteredStore(MemoryStore())
        await store.put("a", b"1")
        before = store.counts.copy()
        await store.put("b", b"22")
        assert Counts(put=1, bytes_out=2) == store.counts - before
        assert Counts(put=1, bytes_out=1) == before

    asyncio.run(work())
