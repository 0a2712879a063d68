"""Stores that do as they are told: a script for each call, a count of what is in flight, a gate to hold a call."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from headwater.errors import AlreadyExists, Forbidden, HeadwaterError, Indeterminate, Raced, Throttled, Unavailable
from headwater.sim.loop import SimLoop, sim_loop
from headwater.store.base import Blob, Body, ObjectStore, Stat, joined

Act = Callable[[], Awaitable[Any]]
Step = Callable[["Scripted", Act], Awaitable[Any]]


class Scripted:
    """A store over a right one whose next calls of a kind go by a script; behind its end all is well.

    ``script["put_if_absent"] = [lost_answer, ok]``. ``calls`` counts what was asked for, by kind; ``bodies`` keeps
    what was sent conditionally.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self.script: dict[str, deque[Step]] = {}
        self.always: dict[str, Step] = {}
        self.calls: Counter[str] = Counter()
        self.bodies: list[tuple[str, bytes]] = []
        self.bytes_in_flight = 0
        self.bytes_peak = 0
        self.requests_peak = 0
        self._requests = 0

    def will(self, kind: str, *steps: Step) -> None:
        """The next calls of this kind do so."""
        self.script.setdefault(kind, deque()).extend(steps)

    async def _do(self, kind: str, act: Act) -> Any:
        self.calls[kind] += 1
        steps = self.script.get(kind)
        step = steps.popleft() if steps else self.always.get(kind, ok)
        self._requests += 1
        self.requests_peak = max(self.requests_peak, self._requests)
        try:
            return await step(self, act)
        finally:
            self._requests -= 1

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        return await self._do("get", lambda: self.inner.get(key, start=start, end=end))

    async def head(self, key: str) -> Stat:
        return await self._do("head", lambda: self.inner.head(key))

    async def put(self, key: str, body: Body) -> Stat:
        return await self._do("put", lambda: self.inner.put(key, body))

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.bodies.append((key, joined(body)))
        return await self._do("put_if_absent", lambda: self.inner.put_if_absent(key, body))

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._do("put_if_match", lambda: self.inner.put_if_match(key, body, etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        async def all_of_it() -> list[Stat]:
            return [stat async for stat in self.inner.list(prefix, start_after=start_after, limit=limit)]

        for stat in await self._do("list", all_of_it):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        await self._do("delete", lambda: self.inner.delete(keys))

    async def aclose(self) -> None:
        await self.inner.aclose()


# -- steps ----------------------------------------------------------------------------------------------


async def ok(store: Scripted, act: Act) -> Any:
    return await act()


async def lost_request(store: Scripted, act: Act) -> Any:
    raise Indeterminate("No answer; it never arrived.", token="a/key")


async def lost_answer(store: Scripted, act: Act) -> Any:
    try:
        await act()
    except HeadwaterError:
        pass
    raise Indeterminate("No answer; it was applied.", token="a/key")


async def own_412(store: Scripted, act: Act) -> Any:
    await act()
    raise AlreadyExists("412, by this very write.")


async def raced(store: Scripted, act: Act) -> Any:
    raise Raced("409 without a winner.")


async def raced_by_itself(store: Scripted, act: Act) -> Any:
    await act()
    raise Raced("409 although it was applied.")


async def throttled(store: Scripted, act: Act) -> Any:
    raise Throttled("503 SlowDown.", retry_after_ms=200)


async def away(store: Scripted, act: Act) -> Any:
    raise Unavailable("503.")


async def applied_503(store: Scripted, act: Act) -> Any:
    await act()
    raise Unavailable("503 although it was applied.")


async def forbidden(store: Scripted, act: Act) -> Any:
    raise Forbidden("403.")


async def broken(store: Scripted, act: Act) -> Any:
    raise RuntimeError("a bug below")


def after(first: Callable[[], Awaitable[object]]) -> Step:
    """Something else happens in the world, then the call goes through."""

    async def step(store: Scripted, act: Act) -> Any:
        await first()
        return await act()

    return step


def then(second: Callable[[], Awaitable[object]]) -> Step:
    """The call goes through, something else happens, then the answer arrives."""

    async def step(store: Scripted, act: Act) -> Any:
        answer = await act()
        await second()
        return answer

    return step


def dawdling(step: Step, seconds: float = 20.0) -> Step:
    """It takes so long until it comes to ``step``."""

    async def later(store: Scripted, act: Act) -> Any:
        await sim_loop().sleep(seconds)
        return await step(store, act)

    return later


def slow(loop: SimLoop, seconds: float) -> Step:
    """The call takes so long, and its bytes count as in flight meanwhile."""

    async def step(store: Scripted, act: Act) -> Any:
        answer = await act()
        size = len(answer.data) if isinstance(answer, Blob) else 0
        store.bytes_in_flight += size
        store.bytes_peak = max(store.bytes_peak, store.bytes_in_flight)
        try:
            await loop.sleep(seconds)
        finally:
            store.bytes_in_flight -= size
        return answer

    return step


class Gate:
    """Holds calls until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0

    async def __call__(self, store: Scripted, act: Act) -> Any:
        self.waiting += 1
        await self.opened.wait()
        return await act()
