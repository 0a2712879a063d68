"""A gateway in a process of its own, over a directory whose answers get lost, late or refused.

``run`` serves DIRECTORY/store until its process is killed; with seed 0 nothing fails. Each planted fault is a word in
DIRECTORY/faults. SIGUSR1: it prints where each of its tasks is. ``AFRESH`` makes such processes from one that has
imported everything: a start is then what a gateway reads, and not a second of Python's CPU for each kill.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from headwater.clock import SystemClock
from headwater.errors import HeadwaterError, Indeterminate, Throttled, Unavailable
from headwater.kafka.gateway import Gateway, Listener, Settings, serve
from headwater.store import open_store
from headwater.store.base import Blob, Body, ObjectStore, Stat

T = TypeVar("T")

AFRESH = multiprocessing.get_context("forkserver")
AFRESH.set_forkserver_preload(["pytest", __name__])

REFUSED, LOST, SLOW = 0.03, 0.02, 0.03  # parts of all requests
OUTAGE_EVERY_S, OUTAGE_S = 12.0, 1.5  # now and then the store turns everybody away
SLOW_S = (0.1, 0.8)


class FaultyStore:
    """``inner``, whose answers get lost, late, or are refusals."""

    def __init__(self, inner: ObjectStore, clock: SystemClock, rng: random.Random, faults: int) -> None:
        self.inner = inner
        self.url = inner.url
        self.key_bytes_max = inner.key_bytes_max
        self._clock = clock
        self._rng = rng
        self._faults = faults  # a file that is appended to, since a process that is killed tells nothing at its end

    def _planted(self, kind: str) -> None:
        os.write(self._faults, f"{kind}\n".encode())

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        return await self._struck(self.inner.get(key, start=start, end=end))

    async def head(self, key: str) -> Stat:
        return await self._struck(self.inner.head(key))

    async def put(self, key: str, body: Body) -> Stat:
        return await self._struck(self.inner.put(key, body), writes=True)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._struck(self.inner.put_if_absent(key, body), writes=True)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._struck(self.inner.put_if_match(key, body, etag), writes=True)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        async for stat in self.inner.list(prefix, start_after=start_after, limit=limit):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        await self._struck(self.inner.delete(keys), writes=True)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _struck(self, request: Awaitable[T], *, writes: bool = False) -> T:
        fate = self._rng.random()
        if self._clock.elapsed_s() % OUTAGE_EVERY_S < OUTAGE_S or fate < REFUSED:
            asyncio.ensure_future(request).cancel()
            self._planted("refused")
            raise Throttled("503 Slow Down, planted.")
        if fate < REFUSED + SLOW:
            self._planted("late")
            await self._clock.sleep(self._rng.uniform(*SLOW_S))
        try:
            answer = await request
        except HeadwaterError:
            if writes and self._rng.random() < LOST:
                self._planted("lost")
                raise Indeterminate("The answer got lost, planted.") from None
            raise
        if self._rng.random() < LOST:
            self._planted("lost")
            raise Indeterminate("The answer got lost, planted.") if writes else Unavailable("Cut off, planted.")
        return answer


def run(port: int, node: int, folder: str, seed: int, ready: Connection) -> None:
    """Serve until the process is killed; once it does, ``ready`` gets the seconds of CPU that this took."""
    asyncio.run(_run(port, node, folder, seed, ready))


async def _run(port: int, node: int, folder: str, seed: int, ready: Connection) -> None:
    clock = SystemClock()
    store: ObjectStore = open_store(f"file://{folder}/store", clock=clock)
    if seed:
        faults = os.open(f"{folder}/faults", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        store = FaultyStore(store, clock, random.Random(seed), faults)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell)
    hedge_ms = 20.0 * (seed % 2)  # every second one sends its slow manifests twice
    settings = Settings(node_id=node, zone=f"zone-{node}", linger_ms=5.0, hedge_ms=hedge_ms)
    gateway = Gateway(store, [Listener(port=port)], settings, clock=clock)
    await serve(gateway, ready=lambda _: ready.send(time.process_time()))


def _tell() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=4, file=sys.stderr)
