"""One client's connection: requests are begun in their order, and answered in their order.

    socket ──► frames ──► waiting ──► begun, one after another ──► answers ──► socket
                                       ├─ Soon, Later: goes on beside those behind it
                                       └─ a coroutine: those behind it wait until it has begun

A connection that has sent more than it may (requests in flight, bytes that the gateway holds, answers that it does not
read) is not read from until it has caught up, so a fast or a hostile client costs bounded memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from kio.schema.errors import ErrorCode

from headwater import lines
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.kafka import schema, wire
from headwater.kafka.errors import code_of
from headwater.kafka.figures import PRODUCE
from headwater.kafka.framing import Frames
from headwater.kafka.handlers import table
from headwater.kafka.model import Answer, Fields, Later, Peer, Request, Soon
from headwater.kafka.schema import API_VERSIONS
from headwater.limits import KAFKA_FRAME_BYTES_MAX, KAFKA_PIPELINE_MAX, KAFKA_STRANGER_BYTES_MAX, KIB, MIB
from headwater.types import Buffer

if TYPE_CHECKING:
    from headwater.kafka.gateway import Gateway, Listening

_FAILURES = frozenset(  # of ours, not of what a client asked for
    ("unknown_server_error", "kafka_storage_error", "not_enough_replicas", "not_enough_replicas_after_append")
)
PIECE_BYTES = 2 * MIB  # what is given to the socket at once, …
SEALED_PIECE_BYTES = 256 * KIB  # … or to TLS, which keeps a copy of it
PARTS_MAX = 16  # of an answer that goes to the socket as it is
JOINED_BYTES_MAX = 16 * KIB  # neighbouring parts up to this are copied into one

_Pending = asyncio.Future[list[Buffer] | None]
_Rest = tuple[Coroutine[Any, Any, Any], ...]  # what is to be done, and the coroutines that it awaits


class Connection(asyncio.BufferedProtocol):
    """The protocol of one accepted socket. Made by the gateway's listener."""

    def __init__(self, gateway: Gateway, listening: Listening) -> None:
        self._gateway = gateway
        self._figures = gateway.figures
        self._listening = listening
        is_open = listening.listener.auth == "none"
        self._frames = Frames(KAFKA_FRAME_BYTES_MAX if is_open else KAFKA_STRANGER_BYTES_MAX)
        self._waiting: deque[memoryview] = deque()
        self._answers: deque[tuple[_Pending, int]] = deque()  # begun and not answered, with the request's bytes
        self._outgoing: deque[list[Buffer]] = deque()  # pieces of answers that the socket has not taken
        self._held = 0  # bytes of requests that the gateway counts for us
        self._worker: asyncio.Task[None] | None = None  # for whom those that wait wait
        self._is_advancing = False
        self._later: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._piece_bytes = PIECE_BYTES
        self._may_write = True
        self._is_paused = False
        self._has_ended = False  # the client has sent all that it will
        self._appending = 0
        self.peer: Peer | None = None
        self.heard_s = 0.0  # when bytes last came

    # -- what asyncio calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast(asyncio.Transport, transport)
        if self._transport.get_extra_info("sslcontext") is not None:
            self._piece_bytes = SEALED_PIECE_BYTES
        self._transport.set_write_buffer_limits(high=SEALED_PIECE_BYTES // 2)
        self.heard_s = self._gateway.now_s()
        self._gateway.connections.add(self)
        if len(self._gateway.connections) > self._gateway.connections_max:
            self.close(f"there are {self._gateway.connections_max} connections already")

    def get_buffer(self, sizehint: int) -> Buffer:
        """Where the socket's bytes go."""
        before = self._frames.held
        space = self._frames.space()
        if self._frames.held != before:
            self._hold(self._frames.held - before)
        return space

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self.heard_s = self._gateway.now_s()
        self._figures.received.add(nbytes)
        before = self._frames.held
        try:
            frames = self._frames.filled(nbytes)
        except InvalidRequest as error:
            self.close(error.message)
            return
        if frames:
            self._hold(self._frames.held - before + sum(map(len, frames)))
            self._waiting.extend(frames)
            self._advance()
        self.steer()

    def eof_received(self) -> bool:
        """The client sends nothing more; what it has asked for is still answered."""
        self._has_ended = True
        if self.peer is not None:
            self.peer.has_left = True
        return self.is_busy

    def pause_writing(self) -> None:
        """The client does not read its answers fast enough."""
        self._may_write = False

    def resume_writing(self) -> None:
        """It has caught up."""
        self._may_write = True
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. What it has begun to append goes on: it may be shared with others."""
        self._gateway.connections.discard(self)
        self._gateway.paused.discard(self)
        self._waiting.clear()
        self._answers.clear()
        self._outgoing.clear()
        for task in [*self._later, *([self._worker] if self._worker else [])]:
            task.cancel()
        self._hold(-self._held)
        if self.peer is not None:
            self.peer.has_left = True
            self.peer.namespace.writer.company.leave(self.peer)
        self._transport = None

    # -- for the gateway ---------------------------------------------------------------------------------

    @property
    def is_slow(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._frames.partial

    @property
    def is_writing(self) -> bool:
        """Whether an append is begun and not answered."""
        return self._appending > 0

    @property
    def is_busy(self) -> bool:
        """Whether anything is begun or waits."""
        return bool(self._waiting or self._answers)

    def close(self, why: str = "") -> None:
        """Let go of the client; ``why`` is for the log."""
        if self._transport is not None and not self._transport.is_closing():
            if why:
                self._gateway.note(self, why)
            self._transport.close()

    # -- requests ----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin what waits, one after another, unless one has to wait before the next may begin."""
        if self._is_advancing:
            return  # an answer that was there at once has made room
        self._is_advancing = True
        try:
            while self._waiting and self._worker is None and self._may_write:
                if len(self._answers) >= KAFKA_PIPELINE_MAX:
                    break
                rest = self._begin(self._waiting.popleft())
                if rest is not None:
                    self._worker = self._spawn(self._work(rest[0]))
                    self._worker.add_done_callback(partial(_close, rest))  # it may be cancelled before it begins
        except Exception as error:
            self._stumbled(error)
        finally:
            self._is_advancing = False

    async def _work(self, rest: Coroutine[Any, Any, None]) -> None:
        """End what one request has to wait for, and begin those behind it."""
        try:
            await rest
        except Exception as error:
            self._stumbled(error)
        finally:
            self._worker = None
        self._advance()

    def _stumbled(self, error: Exception) -> None:
        self._gateway.mistake("a connection", error)
        self.close("an unexpected error")

    def _begin(self, frame: memoryview) -> _Rest | None:
        """Put the answer of one request, or the promise of one, into the queue. What is returned must be done first."""
        began_s = self._gateway.now_s()
        if self._gateway.lines.wants("info"):
            lines.listen()
        pending: _Pending = asyncio.get_running_loop().create_future()
        self._answers.append((pending, len(frame)))
        if self.peer is not None and self.peer.sends_tokens:
            return (self._token(self.peer, pending, frame),)
        try:
            request = self._read(frame)
        except InvalidRequest as error:
            self.close(error.message)
            return None
        if request is None:
            self._figures.api(API_VERSIONS).answered(0.0, ErrorCode.unsupported_version)
            pending.set_result(_too_new(frame))
            self._flush()
            return None
        if self.peer is None:
            return (self._introduced(pending, request, began_s),)
        return self._handled(self.peer, pending, request, began_s)

    async def _introduced(self, pending: _Pending, request: Request, began_s: float) -> None:
        """Begin the first request of a client."""
        try:
            peer = await self._known(request.client)
        except Exception as error:
            self._failed(pending, request, error, began_s)
            self._flush()
            return
        rest = self._handled(peer, pending, request, began_s)
        if rest is not None:
            await rest[0]

    def _handled(self, peer: Peer, pending: _Pending, request: Request, began_s: float) -> _Rest | None:
        """Call the handler. Its coroutine, if it has to wait before the next request may begin."""
        found = table()[request.api]
        try:
            if peer.principal == "" and not found.open:
                raise InvalidRequest(f"The client asks for API {request.api} before it has said who it is.")
            answer = found.handler(peer, request)
            if not isinstance(answer, Soon) and isinstance(answer, Coroutine):  # to ask an ABC takes long
                return self._awaited(peer, pending, request, answer, began_s), answer
            self._answer(peer, pending, request, answer, began_s)
        except Exception as error:
            self._failed(pending, request, error, began_s)
        if pending.done():
            self._flush()
        return None

    async def _awaited(
        self, peer: Peer, pending: _Pending, request: Request, handling: Coroutine[Any, Any, Answer], began_s: float
    ) -> None:
        try:
            self._answer(peer, pending, request, await handling, began_s)
        except Exception as error:
            self._failed(pending, request, error, began_s)
        self._flush()

    def _answer(self, peer: Peer, pending: _Pending, request: Request, answer: Answer, began_s: float) -> None:
        """A handler has answered, or promised to."""
        if peer.principal:
            self._frames.bytes_max = KAFKA_FRAME_BYTES_MAX
        if isinstance(answer, Soon):
            self._appending += request.api == PRODUCE
            answer.when.add_done_callback(partial(self._soon, pending, request, answer, began_s))
        elif isinstance(answer, Later):
            self._spawn_later(self._finish(pending, request, answer, began_s), answer)
        else:
            self._done(pending, request, answer, began_s)

    async def _token(self, peer: Peer, pending: _Pending, frame: memoryview) -> None:
        """Answer a bare token of SASL; a wrong one ends the connection, since there is no other way to say so."""
        from headwater.kafka.handlers.access import token

        try:
            answer = await token(peer, bytes(frame))
        except HeadwaterError as error:
            self.close(error.message)
            return
        if peer.principal:
            self._frames.bytes_max = KAFKA_FRAME_BYTES_MAX
        pending.set_result([len(answer).to_bytes(4, "big"), answer])
        self._flush()

    def _read(self, frame: memoryview) -> Request | None:
        """The request; None if it is an ApiVersions that is too new. Raises ``InvalidRequest``."""
        api, version, _ = wire.peek(frame)
        served = table().get(api)
        if served is None or not served.first <= version <= served.last:
            if api == API_VERSIONS:
                return None
            raise InvalidRequest(f"The client asks for API {api}, version {version}, which is not served.")
        return wire.request(frame)

    async def _known(self, client: str) -> Peer:
        if self.peer is None:
            assert self._transport is not None
            host = (self._transport.get_extra_info("peername") or ("",))[0]
            certificate = self._transport.get_extra_info("peercert")
            self.peer = await self._gateway.peer_for(self._listening, str(host), certificate, client)
        return self.peer

    async def _finish(self, pending: _Pending, request: Request, later: Later, began_s: float) -> None:
        appends = request.api == PRODUCE
        self._appending += appends
        try:
            self._done(pending, request, await later.answer, began_s)
        except Exception as error:
            self._failed(pending, request, error, began_s)
        finally:
            self._appending -= appends
        self._flush()

    def _soon(self, pending: _Pending, request: Request, soon: Soon, began_s: float, _: object) -> None:
        """What ``soon`` has waited for is done."""
        self._appending -= request.api == PRODUCE
        try:
            answer = soon.then()
        except Exception as error:
            self._failed(pending, request, error, began_s)
        else:
            if isinstance(answer, Later):
                if self._transport is None:
                    answer.answer.close()  # nobody waits for it any more
                else:
                    self._spawn_later(self._finish(pending, request, answer, began_s), answer)
                return
            self._done(pending, request, answer, began_s)
        self._flush()

    def _done(self, pending: _Pending, request: Request, answer: Fields | None, began_s: float) -> None:
        code = 0
        if answer is None:
            pending.set_result(None)
        else:
            try:
                pending.set_result(wire.answer(request.api, request.version, request.correlation, answer))
                code = answer.get("error_code", 0)
            except Exception as error:
                self._failed(pending, request, error, began_s)
                return
        self._answered(request, began_s, code)

    def _failed(self, pending: _Pending, request: Request, error: Exception, began_s: float) -> None:
        """Answer with the error's code where the answer has a place for one; else the connection ends."""
        if isinstance(error, HeadwaterError):
            code, text = code_of(error), error.message
        else:
            self._gateway.mistake(f"API {request.api}, version {request.version}", error)
            code, text = ErrorCode.unknown_server_error, "an unexpected error; the gateway's log has more"
        self._answered(request, began_s, code, error)
        names = {field.name for field in schema.message(request.api, request.version, "response").fields}
        if "error_code" not in names or pending.done():
            self.close(text)
            return
        fields = {"error_code": code, "error_message": text}
        pending.set_result(wire.answer(request.api, request.version, request.correlation, fields))

    def _answered(self, request: Request, began_s: float, code: int, error: Exception | None = None) -> None:
        """Count it; and a line in the log, if the client or a part of what it asked for was refused."""
        seconds, figures = self._gateway.now_s() - began_s, self._figures.api(request.api)
        figures.answered(seconds, code)
        heard = lines.heard()
        if heard is None:
            return
        refused = bool(code or error or heard.refused)
        failed = not _FAILURES.isdisjoint(heard.refused) or (code != 0 and ErrorCode(code).name in _FAILURES)
        level = "error" if failed else "info" if refused else "debug"
        if self._gateway.lines.wants(level):
            heard.principal = self.peer.principal if self.peer is not None else ""
            self._gateway.lines.say(
                level,
                "request",
                correlation=request.correlation,
                client=self.peer.host if self.peer is not None else "",
                client_id=request.client,
                namespace=self.peer.namespace.name if self.peer is not None else "",
                api=figures.name,
                version=request.version,
                code=ErrorCode(code).name if code else "",
                ms=seconds * 1_000,
                **heard.fields(),
                error=lines.error_of(error) if error is not None else None,
            )

    # -- answers -----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write the answers that are due, in the order of their requests."""
        while self._answers and self._answers[0][0].done():
            pending, size = self._answers.popleft()
            self._hold(-size)
            parts = pending.result()
            if parts is not None:
                self._outgoing.extend(_pieces(parts, self._piece_bytes))
        self._send()
        if self._waiting:
            self._advance()
        elif self._has_ended and not self.is_busy and not self._outgoing:
            self.close()
        self.steer()

    def _send(self) -> None:
        """Give the socket what it takes."""
        while self._outgoing and self._may_write:
            piece = self._outgoing.popleft()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.writelines(piece)
                self._figures.sent.add(sum(map(len, piece)))

    # -- back-pressure -----------------------------------------------------------------------------------

    def _hold(self, nbytes: int) -> None:
        self._held += nbytes
        self._gateway.hold(nbytes)

    def steer(self) -> None:
        """Read the socket, or do not, as there is room."""
        is_full = len(self._waiting) + len(self._answers) >= KAFKA_PIPELINE_MAX or (
            self._held > 0 and self._gateway.is_full
        )
        if is_full is self._is_paused or self._transport is None or self._transport.is_closing():
            return
        if is_full:
            self._transport.pause_reading()
            self._gateway.paused.add(self)
        else:
            self._transport.resume_reading()
            self._gateway.paused.discard(self)
        self._is_paused = is_full

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine)

    def _spawn_later(self, coroutine: Any, later: Later) -> None:
        task = self._spawn(coroutine)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        task.add_done_callback(lambda _: later.answer.close())  # one that was cancelled before it began waits for ever


def _pieces(parts: list[Buffer], piece_bytes: int) -> list[list[Buffer]]:
    """Parts grouped, and cut, into pieces for the socket; large ones are not copied."""
    size = sum(map(len, parts))
    if size <= JOINED_BYTES_MAX:
        return [[b"".join(parts)]]
    pieces: list[list[Buffer]] = [[]]
    left = piece_bytes
    for part in parts if len(parts) <= PARTS_MAX else _joined(parts):
        view = memoryview(part)
        while view:
            fitting = view[:left]
            pieces[-1].append(fitting)
            view, left = view[left:], left - len(fitting)
            if not left:
                pieces.append([])
                left = piece_bytes
    return pieces if pieces[-1] else pieces[:-1]


def _joined(parts: list[Buffer]) -> Iterator[Buffer]:
    """Neighbours that are small in one part."""
    small: list[Buffer] = []
    size = 0
    for part in parts:
        if size + len(part) <= JOINED_BYTES_MAX:
            small.append(part)
            size += len(part)
            continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        if len(part) <= JOINED_BYTES_MAX:
            small, size = [part], len(part)
        else:
            yield part
    if small:
        yield b"".join(small)


def _close(coroutines: _Rest, _: object) -> None:
    for each in coroutines:
        each.close()


def _too_new(frame: memoryview) -> list[Buffer]:
    """The answer to an ApiVersions of a version that we do not know: version 0, with what we serve (KIP-511)."""
    from headwater.kafka.handlers.basics import served

    _, _, correlation = wire.peek(frame)
    fields = {"error_code": ErrorCode.unsupported_version, "api_keys": served()}
    return wire.answer(API_VERSIONS, 0, correlation, fields)
