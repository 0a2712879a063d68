"""A gateway in this process, on a loop of its own, for clients that block."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from headwater.kafka.gateway import Gateway, Listener, Settings
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore


@dataclass(slots=True)
class Running:
    """A gateway that serves, and the loop that it does so on."""

    gateway: Gateway
    loop: asyncio.AbstractEventLoop

    @property
    def bootstrap(self) -> str:
        """What clients call bootstrap.servers."""
        return self.address(0)

    def address(self, listener: int) -> str:
        """Where a listener listens."""
        address = self.gateway.listening[listener].address
        return f"{address.host}:{address.port}"

    def run(self, work: Any, timeout_s: float = 30.0) -> Any:
        """Await something on the gateway's loop, and answer its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        """Make a topic without any Kafka client."""

        async def make() -> None:
            namespace = await self.gateway.namespace("default")
            await namespace.create_topic(name, partitions, config)

        self.run(make())


Serve = Callable[..., Running]


@pytest.fixture
def _leaks_of_clients() -> Iterator[None]:
    """kafka-python leaves sockets to the garbage collector, whose complaint would hit whichever test comes later.

    Only tests that have a gateway to connect to ask for it: a whole collection takes a tenth of a second.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def serve(_leaks_of_clients: None) -> Iterator[Serve]:
    """Starts gateways: ``serve(store, [Listener…], Settings(…))``, by default over a new store in memory."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[Running] = []

    def start(
        store: ObjectStore | None = None,
        listeners: list[Listener] | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> Running:
        gateway = Gateway(
            store or MemoryStore(),
            listeners or [Listener(port=0)],
            settings or Settings(linger_ms=1.0),
            **options,
        )
        running = Running(gateway, loop)
        running.run(gateway.start())
        started.append(running)
        return running

    try:
        yield start
    finally:
        for running in started:
            running.run(running.gateway.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def kafka(serve: Serve) -> Running:
    """One gateway over a store in memory."""
    return serve()
