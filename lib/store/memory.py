"""``memory://name``: objects in this process, for tests, simulations and throw-away runs.

Two stores of one name share their objects; ``MemoryStore()`` without a name keeps its own. A call takes a few
microseconds and never yields to the event loop, so it is atomic among tasks; a lock makes writes atomic among
threads. C5 holds for as long as the process does, which is all that memory can promise.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Sequence

from headwater.clock import Clock, SystemClock
from headwater.errors import AlreadyExists, Conflict, NotFound
from headwater.store.base import Blob, Body, Stat, check_key, joined

PAGE_KEYS_MAX = 1_000  # keys that a listing holds at once, as a page of S3 does


class _Shelf:
    """The objects of one name: ``key -> (bytes, etag, modified_ms)``, and the keys in order.

    ``str`` compares by code point, which is the order of the UTF-8 bytes (C6).
    """

    __slots__ = ("keys", "lock", "objects", "version")

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, int]] = {}
        self.keys: list[str] = []
        self.version = 0  # makes every ETag of this shelf unique, whatever the bytes
        self.lock = threading.Lock()


_shelves: dict[str, _Shelf] = {}
_shelves_lock = threading.Lock()


class MemoryStore:
    """An object store in a dict."""

    key_bytes_max = 1_024

    def __init__(self, name: str = "", *, clock: Clock | None = None) -> None:
        self.url = f"memory://{name}"
        self._clock = clock or SystemClock()
        with _shelves_lock:
            self._shelf = _shelves.setdefault(name, _Shelf()) if name else _Shelf()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        data, stat = self._find(key)
        return Blob(data=data if start == 0 and end is None else data[start:end], stat=stat)

    async def head(self, key: str) -> Stat:
        return self._find(key)[1]

    async def put(self, key: str, body: Body) -> Stat:
        check_key(key, self.key_bytes_max)
        data = joined(body)
        with self._shelf.lock:
            return self._write(key, data)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        check_key(key, self.key_bytes_max)
        data = joined(body)
        with self._shelf.lock:
            if key in self._shelf.objects:
                raise AlreadyExists(f"The key {key!r} is taken in {self.url}.")
            return self._write(key, data)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        check_key(key, self.key_bytes_max)
        data = joined(body)
        with self._shelf.lock:
            found = self._shelf.objects.get(key)
            if found is None or found[1] != etag:
                raise Conflict(f"The object {key!r} in {self.url} {'is gone' if found is None else 'has changed'}.")
            return self._write(key, data)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        last, left = start_after, limit
        while left is None or left > 0:
            page = self._page(prefix, last, PAGE_KEYS_MAX if left is None else min(left, PAGE_KEYS_MAX))
            for stat in page:
                yield stat
            if not page:
                return
            last = page[-1].key
            left = None if left is None else left - len(page)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key, self.key_bytes_max)
        with self._shelf.lock:
            for key in keys:
                if self._shelf.objects.pop(key, None) is not None:
                    del self._shelf.keys[bisect_left(self._shelf.keys, key)]

    async def aclose(self) -> None:
        """Nothing is held open. The objects of a named store live on in the process."""

    def _find(self, key: str) -> tuple[bytes, Stat]:
        check_key(key, self.key_bytes_max)
        found = self._shelf.objects.get(key)
        if found is None:
            raise NotFound(f"No object {key!r} in {self.url}.")
        return found[0], self._stat(key, found)

    def _write(self, key: str, data: bytes) -> Stat:
        shelf = self._shelf
        shelf.version += 1
        if key not in shelf.objects:
            insort(shelf.keys, key)
        etag, now_ms = f"{shelf.version:x}", self._clock.wall_ms()
        shelf.objects[key] = data, etag, now_ms
        return Stat(key=key, size=len(data), etag=etag, modified_ms=now_ms, date_ms=now_ms)

    def _page(self, prefix: str, last: str, count: int) -> Sequence[Stat]:
        """The next keys after ``last``; found anew each time, so writes between pages do no harm."""
        with self._shelf.lock:
            keys, objects = self._shelf.keys, self._shelf.objects
            low = bisect_left(keys, prefix) if last < prefix else bisect_right(keys, last)
            chosen = keys[low : low + count]
            if chosen and not chosen[-1].startswith(prefix):
                chosen = [key for key in chosen if key.startswith(prefix)]
            return [self._stat(key, objects[key]) for key in chosen]

    def _stat(self, key: str, found: tuple[bytes, str, int]) -> Stat:
        now_ms = self._clock.wall_ms()
        return Stat(key=key, size=len(found[0]), etag=found[1], modified_ms=found[2], date_ms=now_ms)
