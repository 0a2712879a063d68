"""A view of a store in which every key is relative to a prefix: one namespace of a bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from headwater.errors import InvalidRequest
from headwater.store.base import Blob, Body, ObjectStore, Stat, check_key


class PrefixedStore:
    """``inner`` seen from below ``prefix``; keys in and out are relative to it.

    Errors name whole keys, since that is what somebody finds in the bucket. ``aclose`` closes ``inner``.
    """

    def __init__(self, inner: ObjectStore, prefix: str) -> None:
        folder = prefix.strip("/")
        check_key(folder, inner.key_bytes_max - 2)
        self.inner = inner
        self.prefix = folder + "/"
        base, mark, query = inner.url.partition("?")
        self.url = f"{base.rstrip('/') if not base.endswith('//') else base}/{folder}{mark}{query}"
        self.key_bytes_max = inner.key_bytes_max - len(self.prefix.encode())

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        blob = await self.inner.get(self._inner_key(key), start=start, end=end)
        return Blob(data=blob.data, stat=self._outer(blob.stat))

    async def head(self, key: str) -> Stat:
        return self._outer(await self.inner.head(self._inner_key(key)))

    async def put(self, key: str, body: Body) -> Stat:
        return self._outer(await self.inner.put(self._inner_key(key), body))

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return self._outer(await self.inner.put_if_absent(self._inner_key(key), body))

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return self._outer(await self.inner.put_if_match(self._inner_key(key), body, etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        after = self.prefix + start_after if start_after else ""
        async for stat in self.inner.list(self.prefix + prefix, start_after=after, limit=limit):
            yield self._outer(stat)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete([self._inner_key(key) for key in keys])

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _inner_key(self, key: str) -> str:
        if not key:
            raise InvalidRequest("A key has at least one byte; this one is empty.")
        return self.prefix + key

    def _outer(self, stat: Stat) -> Stat:
        return Stat(
            key=stat.key[len(self.prefix) :],
            size=stat.size,
            etag=stat.etag,
            modified_ms=stat.modified_ms,
            date_ms=stat.date_ms,
        )
