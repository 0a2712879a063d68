"""Count what a store is asked, by the kinds that it is billed in, and say what that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from headwater import tracing
from headwater.clock import stopwatch_s
from headwater.errors import HeadwaterError
from headwater.meters import Meters, families
from headwater.store.base import Blob, Body, ObjectStore, Stat, size_of

# AWS's public price list for S3 Standard in us-east-1, as read in November 2026. DELETE is free.
PUT_USD = 0.005 / 1_000  # PUT and LIST; a conditional PUT that loses is billed as well
GET_USD = 0.0004 / 1_000  # GET and HEAD
LIST_PAGE_KEYS = 1_000
DELETE_BATCH_KEYS = 1_000
USD: Final = {
    "get": GET_USD,
    "head": GET_USD,
    "put": PUT_USD,
    "put_if_absent": PUT_USD,
    "put_if_match": PUT_USD,
    "list": PUT_USD,
    "delete": 0.0,
}


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
    """A store that counts in ``counts``, and in ``meters`` if there are any, and hands everything on to ``inner``.

    ``counts`` is what this store was asked, in sum; ``meters`` tell it by kind, object and outcome, with latencies.
    """

    def __init__(self, inner: ObjectStore, meters: Meters | None = None) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self.counts = Counts()
        self.meters = meters

    def cost_usd(self) -> float:
        """As ``Counts.cost_usd``."""
        return self.counts.cost_usd()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        self.counts.get += 1
        with _Request(self.meters, "get", key) as request:
            blob = await self.inner.get(key, start=start, end=end)
            request.bytes_in = len(blob.data)
        self.counts.bytes_in += len(blob.data)
        return blob

    async def head(self, key: str) -> Stat:
        self.counts.head += 1
        with _Request(self.meters, "head", key):
            return await self.inner.head(key)

    async def put(self, key: str, body: Body) -> Stat:
        self.counts.put += 1
        self.counts.bytes_out += size_of(body)
        with _Request(self.meters, "put", key, size_of(body)):
            return await self.inner.put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.counts.put_conditional += 1
        self.counts.bytes_out += size_of(body)
        with _Request(self.meters, "put_if_absent", key, size_of(body)):
            return await self.inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        self.counts.put_conditional += 1
        self.counts.bytes_out += size_of(body)
        with _Request(self.meters, "put_if_match", key, size_of(body)):
            return await self.inner.put_if_match(key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        self.counts.list += 1
        seen = 0
        found = self.inner.list(prefix, start_after=start_after, limit=limit)
        while True:
            stat = None
            if seen % LIST_PAGE_KEYS == 0:  # the first key of a page is what the store is asked for
                with _Request(self.meters, "list", prefix) as request:
                    stat = await anext(found, None)
                    if stat is None and seen:  # the page before was the last one, and full
                        request.forget()
                self.counts.list += stat is not None and seen > 0
            else:
                stat = await anext(found, None)
            if stat is None:
                return
            seen += 1
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        self.counts.delete += -(-len(keys) // DELETE_BATCH_KEYS)
        with _Request(self.meters, "delete", keys[0] if keys else ""):
            await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Request:
    """One request on its way: its time, what became of it and what it costs, once it has ended."""

    __slots__ = ("_bytes_out", "_key", "_kind", "_meters", "_span", "_start_s", "bytes_in")

    def __init__(self, meters: Meters | None, kind: str, key: str, bytes_out: int = 0) -> None:
        self.bytes_in = 0
        self._meters, self._kind, self._key, self._bytes_out = meters, kind, key, bytes_out
        self._span = _span(kind, key, bytes_out) if tracing.is_recording() else None
        self._start_s = stopwatch_s()

    def forget(self) -> None:
        """It was none."""
        self._meters = None

    def __enter__(self) -> _Request:
        if self._span is not None:
            self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        meters = self._meters
        if meters is None:
            return
        folder_name = _folder(self._key)
        meters.counter(families.STORE_REQUESTS, self._kind, folder_name, _outcome(error)).add()
        meters.histogram(families.STORE_SECONDS, self._kind).observe(stopwatch_s() - self._start_s)
        if self._bytes_out:
            meters.counter(families.STORE_SENT, folder_name).add(self._bytes_out)
        if self.bytes_in:
            meters.counter(families.STORE_RECEIVED, folder_name).add(self.bytes_in)
        meters.counter(families.STORE_DOLLARS, self._kind).add(USD[self._kind])


def _span(kind: str, key: str, bytes_out: int) -> AbstractContextManager[Any]:
    name = f"{kind} {_folder(key)}"
    return tracing.span(name, "CLIENT", headwater__store__key=key, headwater__store__bytes_out=bytes_out or None)


def _folder(key: str) -> str:
    """The kind of object: the folder below the namespace. Probes have random keys (R8), which are one kind."""
    _, _, below = key.partition("/")
    folder = below.partition("/")[0]
    return (folder if folder.isalpha() else "probe") if folder else "root"


def _outcome(error: BaseException | None) -> str:
    """``ok``, the name of the error, or ``cancelled``: whoever asked has left."""
    if error is None:
        return "ok"
    return type(error).__name__ if isinstance(error, HeadwaterError) else "cancelled"
