from __future__ import annotations

import asyncio

import pytest

from headwater.errors import AlreadyExists, NotFound
from headwater.meters import Distribution, Meters
from headwater.store.memory import MemoryStore
from headwater.store.metered import GET_USD, LIST_PAGE_KEYS, PUT_USD, MeteredStore


def test_requests_are_told_by_kind_object_and_outcome_with_bytes_and_dollars() -> None:
    meters = Meters()

    async def work() -> None:
        store = MeteredStore(MemoryStore(), meters)
        await store.put_if_absent("ns/manifest/1", b"abc")
        with pytest.raises(AlreadyExists):
            await store.put_if_absent("ns/manifest/1", b"abc")
        await store.get("ns/manifest/1")
        with pytest.raises(NotFound):
            await store.get("ns/manifest/2")
        assert ["ns/manifest/1"] == [stat.key async for stat in store.list("ns/")]
        await store.delete(["ns/manifest/1"])

    asyncio.run(work())
    found = meters.snapshot()
    assert {
        ("put_if_absent", "manifest", "ok"): 1.0,
        ("put_if_absent", "manifest", "AlreadyExists"): 1.0,
        ("get", "manifest", "ok"): 1.0,
        ("get", "manifest", "NotFound"): 1.0,
        ("list", "root", "ok"): 1.0,
        ("delete", "manifest", "ok"): 1.0,
    } == found["headwater_store_requests"].cells
    assert {("manifest",): 6.0} == found["headwater_store_sent_bytes"].cells
    assert {("manifest",): 3.0} == found["headwater_store_received_bytes"].cells
    dollars = found["headwater_store_cost_dollars"].total()
    assert 3 * PUT_USD + 2 * GET_USD == pytest.approx(dollars)
    seconds = found["headwater_store_request_seconds"].total(kind="get")
    assert isinstance(seconds, Distribution)
    assert 2 == seconds.count


@pytest.mark.parametrize(("keys", "pages"), [(0, 1), (1, 1), (LIST_PAGE_KEYS, 1), (LIST_PAGE_KEYS + 1, 2)])
def test_a_list_is_billed_for_each_page(keys: int, pages: int) -> None:
    meters = Meters()

    async def work() -> int:
        inner = MemoryStore()
        for number in range(keys):
            await inner.put(f"ns/segment/{number:04d}", b"x")
        store = MeteredStore(inner, meters)
        assert keys == len([stat async for stat in store.list("ns/segment/")])
        return store.counts.list

    assert pages == asyncio.run(work())
    assert pages == meters.snapshot()["headwater_store_requests"].total(kind="list")
