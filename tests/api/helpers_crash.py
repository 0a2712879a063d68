"""A process that dies at a store's call: before it was sent, or after it was applied and before the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.store.base import Blob, Body, ObjectStore, Stat
from tests.log.helpers import opened

WRITES = ("put", "put_if_absent", "put_if_match", "delete")


class Crash(Exception):
    """The process is dead."""


class Mortal:
    """A store of a process that dies at its ``at``-th write from now, ``applied`` or not, and stays dead."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self.left: int | None = None
        self.applied = False
        self.dead = False
        self.writes: list[str] = []

    def dies(self, at: int, *, applied: bool) -> None:
        self.left, self.applied = at, applied

    async def _do(self, kind: str, key: str, act: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Crash
        if kind in WRITES and self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if self.applied:
                    await act()
                raise Crash
        if kind in WRITES:
            self.writes.append(f"{kind} {key}")
        return await act()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        return await self._do("get", key, lambda: self.inner.get(key, start=start, end=end))

    async def head(self, key: str) -> Stat:
        return await self._do("head", key, lambda: self.inner.head(key))

    async def put(self, key: str, body: Body) -> Stat:
        return await self._do("put", key, lambda: self.inner.put(key, body))

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._do("put_if_absent", key, lambda: self.inner.put_if_absent(key, body))

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._do("put_if_match", key, lambda: self.inner.put_if_match(key, body, etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        if self.dead:
            raise Crash
        async for stat in self.inner.list(prefix, start_after=start_after, limit=limit):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        await self._do("delete", ",".join(keys), lambda: self.inner.delete(keys))

    async def aclose(self) -> None:
        await self.inner.aclose()


async def mortal(store: ObjectStore, *, seed: int) -> tuple[Mortal, Namespace]:
    """A process that can be told to die."""
    wrapped = Mortal(store)
    return wrapped, await opened(wrapped, seed=seed, options=Options(snapshot_every=1 << 30))
