"""A platform that runs functions: environments that serve one request at a time and stand still in between.

What it does to them is what platforms do. An environment is frozen between two invocations, for moments or for
days, and goes on as if nothing had been. One that does not answer in time is killed, and what it had sent may still
land. Environments appear when there is more to do than there are idle ones, and vanish at any time. A client's
request or its answer may be lost on the way.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar

from headwater.sim.faults import Process, SimBucket, SimStore
from headwater.sim.loop import SimLoop

T = TypeVar("T")
Event: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Event], Coroutine[Any, Any, Event]]
Start: TypeAlias = Callable[["Environment"], Handler]


class Environment(Process):
    """A process that stands still while it is frozen: whatever it awaits resumes when it is thawed."""

    def __init__(self, name: str, loop: SimLoop, **strikes: Any) -> None:
        super().__init__(name, loop, **strikes)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.handler: Handler | None = None
        self.stores: list[CountingStore] = []

    def freeze(self) -> None:
        """Let nothing go on."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on."""
        self._thawed.set()

    def passes(self) -> bool:
        return super().passes() and self._thawed.is_set()

    async def held(self) -> None:
        await super().held()
        while not self._thawed.is_set():
            await self._thawed.wait()
            await super().held()

    def under_way(self) -> list[str]:
        """Requests to the store that have no answer yet."""
        return [what for store in self.stores for what in store.under_way]


class CountingStore(SimStore):
    """A store that knows which of its requests are under way."""

    def __init__(self, bucket: SimBucket, **rest: Any) -> None:
        super().__init__(bucket, **rest)
        self.under_way: list[str] = []

    async def _request(self, op: str, apply: Callable[..., T], *args: Any) -> T:
        what = f"{op} {args[0]}"
        self.under_way.append(what)
        try:
            return await super()._request(op, apply, *args)
        finally:
            self.under_way.remove(what)


class Platform:
    """Runs ``start``'s handlers in environments. ``late`` lists those that returned with a request under way (R10)."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        *,
        create: Callable[[], Environment],
        start: Start,
        timeout_s: float,
        loss: float,
    ) -> None:
        self.timeout_s = timeout_s
        self.started = 0
        self.killed = 0
        self.late: list[str] = []
        self._loop = loop
        self._rng = rng
        self._create = create
        self._start = start
        self._loss = loss
        self._idle: list[Environment] = []

    def lose_nothing(self) -> None:
        """From now on requests and answers arrive."""
        self._loss = 0.0

    async def call(self, event: Event) -> Event | None:
        """What a client sees of a request: the answer, or None if none came."""
        await self._loop.sleep(self._rng.uniform(0.001, 0.02))
        if self._rng.random() < self._loss:
            return None
        answer = await self.invoke(event)
        return None if self._rng.random() < self._loss else answer

    async def invoke(self, event: Event) -> Event | None:
        """Serve one event in an environment of its own for that long; None if it died over it or took too long."""
        environment = self._take()
        assert environment.handler is not None
        environment.thaw()
        task = environment.spawn(environment.handler(event), name="invocation")
        await asyncio.wait([task], timeout=self.timeout_s)
        if not task.done():
            self.killed += 1
            environment.crash()
            await asyncio.wait([task])
        if not environment.alive or task.cancelled():
            return None
        self.late += [f"{environment.name}: {what}" for what in environment.under_way()]
        environment.freeze()
        self._idle.append(environment)
        return task.result()

    def _take(self) -> Environment:
        """An idle environment, mostly the one used last, or a new one. Some vanish instead."""
        while self._idle:
            last = self._rng.random() < 0.8
            environment = self._idle.pop(-1 if last else self._rng.randrange(len(self._idle)))
            if environment.alive and self._rng.random() > 0.05:
                return environment
            environment.crash()
        self.started += 1
        environment = self._create()
        environment.handler = self._start(environment)
        return environment


def url_event(
    method: str, path: str, *, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Event:
    """A function URL's event, payload format 2.0."""
    event: Event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": dict(headers or {}),
        "requestContext": {
            "accountId": "anonymous",
            "domainName": "function.lambda-url.us-east-1.on.aws",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "requestId": "request",
        },
        "isBase64Encoded": bool(body),
    }
    if body:
        event["body"] = base64.b64encode(body).decode()
    return event
