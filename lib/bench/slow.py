"""A store that takes its time: a latency profile of the simulation in front of a real store, in real time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

from headwater.clock import Clock
from headwater.sim.latency import Kind, Profile
from headwater.store.base import Blob, Body, ObjectStore, Stat


class SlowStore:
    """``inner``, each of whose requests takes as long as ``profile`` says."""

    def __init__(self, inner: ObjectStore, profile: Profile, *, clock: Clock, rng: random.Random) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self._profile = profile
        self._clock = clock
        self._rng = rng

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        await self._wait("get")
        return await self.inner.get(key, start=start, end=end)

    async def head(self, key: str) -> Stat:
        await self._wait("get")
        return await self.inner.head(key)

    async def put(self, key: str, body: Body) -> Stat:
        await self._wait("put")
        return await self.inner.put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        await self._wait("put")
        return await self.inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        await self._wait("put")
        return await self.inner.put_if_match(key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        await self._wait("list")
        async for stat in self.inner.list(prefix, start_after=start_after, limit=limit):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        await self._wait("delete")
        await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _wait(self, kind: Kind) -> None:
        await self._clock.sleep(self._profile.sample(kind, self._rng))
