"""The cache of objects' bytes: what it holds, in which form, and whom it lets go of."""

from __future__ import annotations

from headwater.log.cache import LAZY_BYTES_MIN, ByteCache


def test_an_object_comes_back_whole_however_many_parts_it_had() -> None:
    cache = ByteCache(8 * LAZY_BYTES_MIN)
    large = [b"a" * LAZY_BYTES_MIN, memoryview(b"b" * LAZY_BYTES_MIN)]
    cache.put("large", large)
    cache.put("small", [b"c", memoryview(b"d"), b""])
    assert b"".join(large) == cache.get("large") == cache.get("large")
    assert b"cd" == cache.get("small")
    assert cache.get("other") is None
    assert 2 * LAZY_BYTES_MIN + 2 == cache.size


def test_small_parts_do_not_keep_the_buffers_alive_of_which_they_are_slices() -> None:
    cache = ByteCache(LAZY_BYTES_MIN)
    buffer = bytearray(LAZY_BYTES_MIN)
    cache.put("slices", [memoryview(buffer)[:10], memoryview(buffer)[10:20]])
    buffer.clear()  # which no buffer allows that somebody still has a view of
    assert bytes(20) == cache.get("slices")


def test_who_was_not_asked_for_longest_goes_first_and_nothing_is_held_twice() -> None:
    cache = ByteCache(20)
    for key in ("first", "second"):
        cache.put(key, [b"0123456789"])
    cache.put("first", [b"others"])
    assert b"0123456789" == cache.get("first")
    cache.put("third", [b"0123456789"])
    assert [True, False, True] == [cache.get(key) is not None for key in ("first", "second", "third")]
    assert 20 == cache.size


def test_what_is_larger_than_everything_is_not_held() -> None:
    cache = ByteCache(20)
    cache.put("exact", [b"0" * 20])
    cache.put("over", [b"0" * 20, b"1"])
    assert 20 == len(cache.get("exact") or b"")
    assert cache.get("over") is None
