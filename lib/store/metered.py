"""Count what a store is asked, by the kinds that it is billed in, and say what that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from headwater.store.base import Blob, Body, ObjectStore, Stat, size_of

# AWS's public price list for S3 Standard in us-east-1, as read in November 2026. DELETE is free.
PUT_USD = 0.005 / 1_000  # PUT and LIST; a conditional PUT that loses is billed as well
GET_USD = 0.0004 / 1_000  # GET and HEAD
LIST_PAGE_KEYS = 1_000
DELETE_BATCH_KEYS = 1_000


@dataclass(slots=True)
class Counts:
    """Requests since the start, failed ones too; bytes of bodies; ``list`` in pages of 1,000 keys."""

    put: int = 0
    put_conditional: int = 0
    get: int = 0
    head: int = 0
    list: int = 0
    delete: int = 0
    bytes_in: int = 0  # read from the store
    bytes_out: int = 0  # sent to the store

    def cost_usd(self) -> float:
        """What the requests cost at the list price of S3 Standard; storage and traffic are not in it."""
        return (self.put + self.put_conditional + self.list) * PUT_USD + (self.get + self.head) * GET_USD

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(other, name) for name in Counts.__slots__))

    def copy(self) -> Counts:
        """The figures as they are now, to be subtracted from later ones."""
        return self - Counts()


class MeteredStore:
    """A store that counts in ``counts`` and hands everything on to ``inner``."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self.counts = Counts()

    def cost_usd(self) -> float:
        """As ``Counts.cost_usd``."""
        return self.counts.cost_usd()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        self.counts.get += 1
        blob = await self.inner.get(key, start=start, end=end)
        self.counts.bytes_in += len(blob.data)
        return blob

    async def head(self, key: str) -> Stat:
        self.counts.head += 1
        return await self.inner.head(key)

    async def put(self, key: str, body: Body) -> Stat:
        self.counts.put += 1
        self.counts.bytes_out += size_of(body)
        return await self.inner.put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.counts.put_conditional += 1
        self.counts.bytes_out += size_of(body)
        return await self.inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        self.counts.put_conditional += 1
        self.counts.bytes_out += size_of(body)
        return await self.inner.put_if_match(key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        self.counts.list += 1
        seen = 0
        async for stat in self.inner.list(prefix, start_after=start_after, limit=limit):
            if seen and seen % LIST_PAGE_KEYS == 0:
                self.counts.list += 1
            seen += 1
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        self.counts.delete += -(-len(keys) // DELETE_BATCH_KEYS)
        await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()
