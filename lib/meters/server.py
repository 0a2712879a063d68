"""``GET /metrics`` and ``GET /healthz`` of a process that has no HTTP interface of its own.

It tells everything of the process, of all namespaces, to whoever reaches it: listen where only the scraper comes. One
connection gets one answer and then ends, after ``METRICS_SLOW_S`` in any case, and there are few at once, so a scraper
that hangs costs what one that does not hang costs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from aiohttp import web

from headwater.limits import METRICS_CONNECTIONS_MAX, METRICS_HEADER_BYTES_MAX, METRICS_SLOW_S
from headwater.meters import prometheus
from headwater.meters.meters import PROCESS, Meters

READS: Final = ("GET", "HEAD")


class MetricsServer:
    """Serves the figures in ``meters``; use it as an asynchronous context manager. ``port`` 0 takes any free one.

    Figures are read on the event loop, where they are written, and made into text in a thread: a large answer holds up
    nobody who is served.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        meters: Meters = PROCESS,
        slow_s: float = METRICS_SLOW_S,
        connections_max: int = METRICS_CONNECTIONS_MAX,
    ) -> None:
        self.host = host
        self.port = port
        self._meters = meters
        self._slow_s = slow_s
        self._connections_max = connections_max
        self._door: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._timers: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    @property
    def url(self) -> str:
        """Where Prometheus finds it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"

    async def __aenter__(self) -> MetricsServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the address is taken or not ours."""
        self._door = web.Server(
            self._handle,
            access_log=None,
            lingering_time=0.0,
            max_line_size=METRICS_HEADER_BYTES_MAX,
            max_field_size=METRICS_HEADER_BYTES_MAX,
        )
        self._listener = await asyncio.get_running_loop().create_server(self._accepted, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Let go of the address and of whoever is connected. A second call does nothing."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        listener, self._listener = self._listener, None
        door, self._door = self._door, None
        if listener is not None:
            listener.close()
        if door is not None:
            await door.shutdown(0.0)

    def _accepted(self) -> asyncio.Protocol:
        assert self._door is not None
        if len(self._door.connections) >= self._connections_max:
            return _Full()
        protocol: web.RequestHandler = self._door()
        self._timers[protocol] = asyncio.get_running_loop().call_later(self._slow_s, self._end, protocol)
        return protocol

    def _end(self, protocol: web.RequestHandler) -> None:
        """Whoever is still there has had its time."""
        del self._timers[protocol]
        if isinstance(protocol.transport, asyncio.Transport):
            protocol.transport.abort()  # a close would wait for a client that does not read

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._answer(request)
        answer.force_close()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path not in ("/metrics", "/healthz"):
            return _plain(404, "There are /metrics and /healthz here.")
        if request.method not in READS:
            refused = _plain(405, f"{request.path} is only read.")
            refused.headers["allow"] = ", ".join(READS)
            return refused
        if request.path == "/healthz":
            return _plain(200, "ok")
        readings = self._meters.snapshot().values()
        body = await asyncio.to_thread(lambda: prometheus.text(readings).encode())
        found = web.Response(body=body, headers={"content-type": prometheus.CONTENT_TYPE})
        found.enable_compression()  # if the scraper takes it, as Prometheus does
        return found


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _plain(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=f"{sentence}\n")
