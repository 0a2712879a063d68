"""The contract of ``headwater.store.base``, held by every store: memory, a directory, and S3 through both clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from headwater.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, Raced
from headwater.store import ObjectStore, Stat
from headwater.store.base import size_of
from headwater.store.prefixed import PrefixedStore
from headwater.store.probe import probe_conditional_writes
from tests.contract.conftest import Place

T = TypeVar("T")
ODD_KEYS = [
    "a b/c d",
    "a%20b/c%2Fd",
    "a+b/c&d=e",
    "a~b/'c'(d)!*",
    "n/日本語/ünï.json",
    "n/😀/x",
    "q/a#b?c=d;e,f:g@h$",
    "topic=x/partition=0/00-01.parquet",
]


def run(place: Place, work: Callable[[ObjectStore], Awaitable[T]]) -> T:
    """``work`` on a fresh client, which is closed in the end, whatever happens."""

    async def whole() -> T:
        store = place.open()
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(whole())


async def keys(store: ObjectStore, prefix: str, start_after: str = "", limit: int | None = None) -> list[str]:
    return [stat.key async for stat in store.list(prefix, start_after=start_after, limit=limit)]


def test_what_was_put_is_read_back(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        put = await store.put("a/b", b"hello")
        assert ("a/b", 5) == (put.key, put.size)
        blob = await store.get("a/b")
        assert b"hello" == blob.data
        assert (put.key, put.size, put.etag) == (blob.stat.key, blob.stat.size, blob.stat.etag)
        head = await store.head("a/b")
        assert (put.key, put.size, put.etag) == (head.key, head.size, head.etag)

    run(place, work)


def test_a_body_may_come_in_parts_of_any_buffer(place: Place) -> None:
    large = random.Random(1).randbytes(1_500_000)

    async def work(store: ObjectStore) -> None:
        parts = [b"", b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""]
        assert 6 == (await store.put("small", parts)).size
        assert b"abcdef" == (await store.get("small")).data
        assert size_of([large, b"end"]) == (await store.put_if_absent("large", [large, b"end"])).size
        assert large + b"end" == (await store.get("large")).data

    run(place, work)


def test_an_object_may_be_empty(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        for key, body in (("none", b""), ("no-parts", [])):
            assert 0 == (await store.put_if_absent(key, body)).size
            assert b"" == (await store.get(key)).data
            assert b"" == (await store.get(key, start=0, end=10)).data
            assert 0 == (await store.head(key)).size

    run(place, work)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 10, b"0123456789"),
        (0, 1, b"0"),
        (3, 6, b"345"),
        (9, 10, b"9"),
        (7, None, b"789"),
        (7, 11, b"789"),
        (0, 1_000, b"0123456789"),
        (10, None, b""),
        (10, 11, b""),
        (500, 600, b""),
        (4, 4, b""),
        (6, 3, b""),
    ],
)
def test_a_range_is_cut_to_the_object(place: Place, start: int, end: int | None, expected: bytes) -> None:
    async def work(store: ObjectStore) -> None:
        await store.put("r", b"0123456789")
        blob = await store.get("r", start=start, end=end)
        assert expected == blob.data
        assert 10 == blob.stat.size
        assert "r" == blob.stat.key

    run(place, work)


def test_what_is_not_there_is_not_found(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        for call in (store.get("no/such"), store.get("no/such", start=3, end=3), store.head("no/such")):
            with pytest.raises(NotFound, match="no/such"):
                await call
        await store.put("is/here", b"x")
        for key in ("is", "is/her", "is/here2", "is/here/too"):
            with pytest.raises(NotFound):
                await store.get(key)
        assert [] == await keys(store, "no/such/")

    run(place, work)


def test_the_last_plain_put_wins(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        first = await store.put("k", b"one")
        second = await store.put("k", b"two!")
        assert first.etag != second.etag
        blob = await store.get("k")
        assert (b"two!", second.etag, 4) == (blob.data, blob.stat.etag, blob.stat.size)

    run(place, work)


def test_a_taken_key_is_refused(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        await store.put_if_absent("k", b"first")
        for body in (b"second", b"first", b""):
            with pytest.raises(AlreadyExists, match="'k'"):
                await store.put_if_absent("k", body)
        assert b"first" == (await store.get("k")).data
        await store.delete(["k"])
        await store.put_if_absent("k", b"again")
        assert b"again" == (await store.get("k")).data

    run(place, work)


def test_of_racing_writers_exactly_one_wins(place: Place) -> None:
    async def race(key: str, store: ObjectStore, other: ObjectStore) -> None:
        bodies = [f"{key} writer {number} ".encode() * 50 for number in range(16)]
        writers = ((store, other)[number % 2].put_if_absent(key, body) for number, body in enumerate(bodies))
        answers = await asyncio.gather(*writers, return_exceptions=True)
        winners = [body for body, answer in zip(bodies, answers, strict=True) if isinstance(answer, Stat)]
        lost = [answer for answer in answers if not isinstance(answer, Stat)]
        assert [] == [answer for answer in lost if not isinstance(answer, AlreadyExists | Raced)]
        assert 1 == len(winners)
        assert winners[0] == (await store.get(key)).data

    async def work(store: ObjectStore) -> None:
        other = place.open()
        await asyncio.gather(*(race(f"race/{number}", store, other) for number in range(3)))
        await other.aclose()

    run(place, work)


def test_a_counter_under_put_if_match_loses_no_step(place: Place) -> None:
    writers, steps = 4, 5

    async def step(store: ObjectStore) -> None:
        while True:
            blob = await store.get("counter")
            try:
                await store.put_if_match("counter", str(int(blob.data) + 1).encode(), blob.stat.etag)
            except Conflict:
                continue
            return

    async def writer(store: ObjectStore) -> None:
        for _ in range(steps):
            await step(store)

    async def work(store: ObjectStore) -> None:
        await store.put("counter", b"0")
        await asyncio.gather(*(writer(store) for _ in range(writers)))
        assert str(writers * steps).encode() == (await store.get("counter")).data

    run(place, work)


def test_put_if_match_needs_the_present_object(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        first = await store.put("k", b"one")
        second = await store.put_if_match("k", b"two", first.etag)
        assert second.etag != first.etag
        with pytest.raises(Conflict) as error:
            await store.put_if_match("k", b"three", first.etag)
        assert not isinstance(error.value, AlreadyExists)
        assert b"two" == (await store.get("k")).data
        await store.delete(["k"])
        with pytest.raises(Conflict):
            await store.put_if_match("k", b"three", second.etag)
        assert [] == await keys(store, "")

    run(place, work)


def test_a_list_is_sorted_by_bytes_and_cut_by_prefix_start_and_limit(place: Place) -> None:
    names = ["a", "a-b/x", "a-b/y", "a.b", "a0", "a1/b/c", "a1/b0", "a1/bc/d", "b/~", "b/é", "b/日", "b/😀"]

    async def work(store: ObjectStore) -> None:
        for name in random.Random(2).sample(names, len(names)):
            await store.put(name, name.encode())
        ordered = sorted(names, key=str.encode)
        assert ordered == await keys(store, "")
        for prefix in ("a", "a-", "a-b", "a-b/", "a1/", "a1/b", "a1/b/", "a1/b/c", "b/", "b/\u65e5", "c", "a1/bd"):
            assert [name for name in ordered if name.startswith(prefix)] == await keys(store, prefix)
        for after in [*names, "a1/b", "a1/b/", "A", "b", "zz", "a1/b/c0"]:
            assert [name for name in ordered if name > after] == await keys(store, "", after)
            inside = [name for name in ordered if name.startswith("a1/") and name > after]
            assert inside == await keys(store, "a1/", after)
        assert [] == await keys(store, "", limit=0)
        for limit in (1, 3, len(names), len(names) + 1):
            assert ordered[:limit] == await keys(store, "", limit=limit)
        assert ordered[3:5] == await keys(store, "", ordered[2], 2)
        found = [stat async for stat in store.list("a1/b/")]
        assert [("a1/b/c", 6, (await store.head("a1/b/c")).etag)] == [(s.key, s.size, s.etag) for s in found]

    run(place, work)


def test_a_list_goes_on_past_a_page(large_place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        names = [f"many/{number:020d}" for number in range(1_100)]
        for first in range(0, len(names), 50):
            await asyncio.gather(*(store.put(name, b"x") for name in names[first : first + 50]))
        assert names == await keys(store, "many/")
        assert names[:1_050] == await keys(store, "many/", limit=1_050)
        assert names[40:] == await keys(store, "many/", names[39])
        assert names[1_090:] == await keys(store, "many/", names[1_089])
        assert names[990:1_000] == await keys(store, names[990][:-1])
        await store.delete(names)
        assert [] == await keys(store, "")

    run(large_place, work)


def test_a_list_may_be_left_early_and_its_objects_deleted(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"k/{number}", b"x") for number in range(5)))
        async for stat in store.list("k/"):
            assert "k/0" == stat.key
            break
        async for stat in store.list("k/"):
            await store.delete([stat.key])
        assert [] == await keys(store, "k/")

    run(place, work)


def test_delete_takes_several_keys_and_minds_no_missing_one(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        for name in ("d/1", "d/2", "d/3", "e/1"):
            await store.put(name, b"x")
        await store.delete([])
        await store.delete(["d/1", "d/nothing", "d/3", "other/nothing"])
        assert ["d/2", "e/1"] == await keys(store, "")
        await store.delete(["d/1"])
        await store.delete(["d/2"])
        with pytest.raises(NotFound):
            await store.head("d/2")
        assert ["e/1"] == await keys(store, "")

    run(place, work)


def test_odd_keys_come_back_as_they_went(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        for key in ODD_KEYS:
            await store.put_if_absent(key, key.encode())
        for key in ODD_KEYS:
            assert key.encode() == (await store.get(key)).data
            assert key == (await store.head(key)).key
            with pytest.raises(AlreadyExists):
                await store.put_if_absent(key, b"")
        assert sorted(ODD_KEYS) == await keys(store, "")
        await store.delete(ODD_KEYS)
        assert [] == await keys(store, "")

    run(place, work)


def test_long_keys_are_held_up_to_the_bound(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        bound = 250 if place.kind.startswith("seaweedfs") else store.key_bytes_max
        longest = "s/" + "x" * (bound - 2)
        await store.put_if_absent(longest, b"long")
        assert b"long" == (await store.get(longest)).data
        assert [longest] == await keys(store, "s/")
        assert [longest] == await keys(store, "s/xxx")
        assert [longest] == await keys(store, longest[:-1])
        assert [] == await keys(store, "s/", longest)
        with pytest.raises(InvalidRequest, match="bytes"):
            await store.put("s/" + "x" * (store.key_bytes_max - 1), b"")
        await store.delete([longest])
        assert [] == await keys(store, "")

    run(place, work)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "./a", "a/../b", "a/.", "a\nb", "a\x7fb", "a\\b", "\ud800"])
def test_a_bad_key_is_refused_before_anything_is_sent(place: Place, key: str) -> None:
    async def work(store: ObjectStore) -> None:
        for call in (store.get(key), store.head(key), store.put(key, b""), store.put_if_absent(key, b"")):
            with pytest.raises(InvalidRequest, match="key"):
                await call
        with pytest.raises(InvalidRequest, match="key"):
            await store.put_if_match(key, b"", "e")
        with pytest.raises(InvalidRequest, match="key"):
            await store.delete(["fine", key])

    run(place, work)


def test_the_store_says_what_time_it_is(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        put = await store.put("t", b"x")
        head = await store.head("t")
        (listed,) = [stat async for stat in store.list("t")]
        got = (await store.get("t")).stat
        for stat in (head, listed):
            # S3 tells whole seconds, in LIST perhaps more; a second of difference is no lie.
            assert -1_500 <= stat.date_ms - stat.modified_ms <= 30_000
        assert abs(head.modified_ms - listed.modified_ms) < 1_500
        assert abs(got.modified_ms - head.modified_ms) < 1_500
        assert put.modified_ms == -1 or abs(put.modified_ms - head.modified_ms) < 1_500
        assert all(stat.date_ms == -1 or abs(stat.date_ms - head.date_ms) < 5_000 for stat in (put, got))

    run(place, work)


def test_a_write_is_there_for_another_client_and_after_closing(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        await store.put_if_absent("k", b"x")
        other = place.open()
        assert b"x" == (await other.get("k")).data
        assert ["k"] == await keys(other, "")
        await other.delete(["k"])
        await other.aclose()
        await other.aclose()
        assert [] == await keys(store, "")
        await store.put("k", b"y")

    run(place, work)
    run(place, lambda store: store.head("k"))


def test_one_store_serves_several_event_loops_in_turn(place: Place) -> None:
    store = place.open()

    async def work(number: int) -> None:
        await asyncio.gather(*(store.put(f"loop/{number}/{each}", b"x") for each in range(4)))
        assert 4 * (number + 1) == len(await keys(store, "loop/"))
        await store.aclose()

    for number in range(3):
        asyncio.run(work(number))


def test_a_prefixed_view_is_a_store_of_its_own(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        view = PrefixedStore(store, "ns/one")
        assert isinstance(view, ObjectStore)
        stat = await view.put_if_absent("m/1", b"abc")
        assert "m/1" == stat.key
        await store.put("ns/one-more/m/1", b"not mine")
        await store.put("ns/two/m/1", b"not mine")
        with pytest.raises(AlreadyExists):
            await view.put_if_absent("m/1", b"")
        assert ("m/1", b"bc") == ((blob := await view.get("m/1", start=1)).stat.key, blob.data)
        changed = await view.put_if_match("m/1", b"abcd", stat.etag)
        assert ("m/1", 4) == (changed.key, (await view.head("m/1")).size)
        await view.put("m/2", b"")
        assert ["m/1", "m/2"] == await keys(view, "")
        assert ["m/2"] == await keys(view, "m/", "m/1")
        await view.delete(["m/1"])
        assert ["ns/one-more/m/1", "ns/one/m/2", "ns/two/m/1"] == await keys(store, "")
        assert store.key_bytes_max - len("ns/one/") == view.key_bytes_max

    run(place, work)


def test_an_honest_store_passes_the_probe(place: Place) -> None:
    async def work(store: ObjectStore) -> None:
        await probe_conditional_writes(store, rng=random.Random(3))
        assert [] == await keys(store, "")

    run(place, work)
