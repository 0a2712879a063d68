"""A store whose every request answers in time: for processes that may not wait, since they have a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from headwater.errors import Indeterminate, Unavailable
from headwater.store.base import Blob, Body, ObjectStore, Stat

T = TypeVar("T")


class ImpatientStore:
    """``inner``, and no request of it lasts longer than ``timeout_s``.

    A read that takes longer is ``Unavailable``, a write ``Indeterminate``: it was sent, and may take effect later.
    ``aclose`` closes ``inner``.
    """

    def __init__(self, inner: ObjectStore, timeout_s: float) -> None:
        assert timeout_s > 0, timeout_s
        self.inner = inner
        self.timeout_s = timeout_s
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        return await self._read(lambda: self.inner.get(key, start=start, end=end), key)

    async def head(self, key: str) -> Stat:
        return await self._read(lambda: self.inner.head(key), key)

    async def put(self, key: str, body: Body) -> Stat:
        return await self._write(lambda: self.inner.put(key, body), key)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._write(lambda: self.inner.put_if_absent(key, body), key)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._write(lambda: self.inner.put_if_match(key, body, etag), key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        found = self.inner.list(prefix, start_after=start_after, limit=limit)
        while True:
            try:
                stat = await self._read(lambda: anext(found), prefix)
            except StopAsyncIteration:
                return
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        await self._write(lambda: self.inner.delete(keys), keys[0] if keys else "")

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _read(self, request: Callable[[], Awaitable[T]], key: str) -> T:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await request()
        except TimeoutError as error:
            raise Unavailable(f"The store did not answer a read of {key!r} within {self.timeout_s:g} s.") from error

    async def _write(self, request: Callable[[], Awaitable[T]], key: str) -> T:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await request()
        except TimeoutError as error:
            raise Indeterminate(f"The store did not answer a write of {key!r} within {self.timeout_s:g} s.") from error
