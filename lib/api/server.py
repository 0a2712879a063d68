"""A real HTTP server around an ``App``: what ``headwater dev`` runs, and what tests talk to.

All functions' routes on one port. A request goes the way of a function URL's event (``http.serve``), only that its
body is never put into base64. Bodies and header lines are bounded, a client that is too slow is let go, and a stop
waits for requests and writes in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from aiohttp import web

from headwater import lines
from headwater.api import http
from headwater.api.app import REQUEST_ID
from headwater.api.messages import HttpError, Response
from headwater.errors import HeadwaterError, Throttled
from headwater.limits import (
    HTTP_BODIES_BYTES_MAX,
    HTTP_BODY_BYTES_MAX,
    HTTP_HEADER_BYTES_MAX,
    HTTP_PATH_BYTES_MAX,
    HTTP_SLOW_S,
)

if TYPE_CHECKING:
    from headwater.api.app import App

MAINTAIN_S = 60.0
STOP_S = 30.0  # requests in flight get this long when the server stops
LINGER_S = 2.0  # a client that is still sending gets this long to hear why it was refused
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    ready: Callable[[str], object] | None = None,
    maintain_s: float = MAINTAIN_S,
) -> None:
    """Serve until the task is cancelled; ``ready`` hears the base URL. The app is closed at the end.

    Raises:
        OSError: the address is taken or not ours.
    """
    async with Server(app, host, port, maintain_s=maintain_s) as server:
        if ready is not None:
            ready(server.url)
        await asyncio.Event().wait()


@dataclass(slots=True)
class _Held:
    """Bytes of a body that are in memory."""

    nbytes: int = 0


class Server:
    """An HTTP server for one app; use it as an asynchronous context manager. ``port`` 0 takes any free one.

    ``slow_s`` is how long a client may take to send a request, ``budget_s`` how long the answer may take;
    ``bodies_bytes_max`` bounds the bodies of all requests in flight.
    """

    def __init__(
        self,
        app: App,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        maintain_s: float = 0.0,
        slow_s: float = HTTP_SLOW_S,
        budget_s: float | None = None,
        bodies_bytes_max: int = HTTP_BODIES_BYTES_MAX,
    ) -> None:
        self.app = app
        self.host = host
        self.port = port
        self._maintain_s = maintain_s
        self._slow_s = slow_s
        self._budget_s = budget_s
        self._bodies_bytes_max = bodies_bytes_max
        self._held_bytes = 0  # bodies of requests that are not answered yet
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}  # no whole request head was sent yet
        self._door: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._upkeep: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}"

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the address is taken."""
        loop = asyncio.get_running_loop()
        door = self._door = web.Server(
            self._handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self._slow_s,
            lingering_time=min(LINGER_S, self._slow_s),
            max_line_size=2 * HTTP_PATH_BYTES_MAX,
            max_field_size=HTTP_HEADER_BYTES_MAX,
        )

        def connected() -> asyncio.Protocol:
            protocol = door()
            self._silent[protocol] = loop.call_later(self._slow_s, self._let_go, protocol)
            return protocol

        self._listener = await loop.create_server(connected, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        if self._maintain_s > 0:
            self._upkeep = loop.create_task(self._maintain(), name="headwater-maintain")

    async def stop(self) -> None:
        """Take no more requests, finish those in flight, and close the app. A second call does nothing."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
            self._upkeep = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()
        if self._door is not None:
            self._door.pre_shutdown()  # those that ask nothing now
            await self._door.shutdown(STOP_S)
            self._door = None
            await self.app.close()

    # -- one request -----------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        held = _Held()
        try:
            incoming = await self._incoming(request, held)
            response = await http.serve(incoming, self.app, budget_s=self._budget_s)
            answer = _answer(response)
        except HeadwaterError as error:
            # What is left of the body would be taken for the next request, so this connection ends here.
            name = lines.request_id(request.headers.get(REQUEST_ID, ""))
            answer = _answer(self.app.refused(error, request.method, name), close=True)
        finally:
            self._held_bytes -= held.nbytes
        return await self._send(request, answer)

    async def _send(self, request: web.BaseRequest, answer: web.Response) -> web.Response:
        """Write the answer, as long as the client takes it: one that reads too slowly is let go."""
        try:
            async with asyncio.timeout(self._slow_s):
                await answer.prepare(request)
                await answer.write_eof()
        except TimeoutError:
            request.protocol.force_close()
        return answer

    async def _incoming(self, request: web.BaseRequest, held: _Held) -> http.Incoming:
        path, _, query = _origin_form(request.raw_path).partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            lower = name.lower()
            headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
        return http.Incoming(
            method=request.method.upper(),
            raw_path=path,
            raw_query=query,
            headers=headers,
            body=await self._body(request, held),
            client=request.remote or "",
            host=f"{self.host}:{self.port}",
            scheme="http",
        )

    async def _body(self, request: web.BaseRequest, held: _Held) -> bytes:
        """The body as it was sent.

        Raises:
            HttpError: 413 as soon as it is too large, 408 if it takes too long.
            Throttled: the bodies of all requests together are too large.
        """
        if (request.content_length or 0) > HTTP_BODY_BYTES_MAX:
            raise _too_large()
        if not request.can_read_body:
            return b""
        if request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(_CONTINUE)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._slow_s):
                async for piece in request.content.iter_any():
                    size += len(piece)
                    held.nbytes += len(piece)
                    self._held_bytes += len(piece)
                    if size > HTTP_BODY_BYTES_MAX:
                        raise _too_large()
                    if self._held_bytes > self._bodies_bytes_max:
                        raise Throttled("The server has its hands full with other requests.")
                    pieces.append(piece)
        except TimeoutError:
            raise HttpError(408, f"The body was not there within {self._slow_s:g} s.") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _let_go(self, protocol: web.RequestHandler) -> None:
        """End a connection whose first request head did not come in time; later ones are aiohttp's to watch."""
        del self._silent[protocol]
        protocol.force_close()

    # -- maintenance ---------------------------------------------------------------------------------------

    async def _maintain(self) -> None:
        from headwater.api.upkeep import keep_up

        while True:
            await self.app.clock.sleep(self._maintain_s)
            for namespace in self.app.open_namespaces():
                try:
                    await keep_up(namespace)
                except HeadwaterError:
                    continue  # the store is away; the next round tries again
                except Exception as error:
                    self.app.mistake(error, "", "maintenance")  # logged; the next round comes all the same


def _answer(response: Response, *, close: bool = False) -> web.Response:
    headers = {"server": "headwater", **http.safe_headers(response.headers)}
    answer = web.Response(status=response.status, headers=headers, body=response.body or None)
    if close:
        answer.force_close()
    return answer


def _origin_form(target: str) -> str:
    """A request target without scheme and host, which clients of proxies send along (RFC 9112, 3.2.2)."""
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]


def _too_large() -> HttpError:
    return HttpError(413, f"A body has at most {HTTP_BODY_BYTES_MAX} bytes.")
