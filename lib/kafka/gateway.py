"""A gateway: listeners, the namespaces that they serve, and who their clients are.

Any number of gateways serve one bucket at once: all that must be agreed on is in the log. What they know of each other
(``kafka.fleet``) is advice for clients. A listener has a namespace, unless a client is led to another one
(``kafka.routes``); clients of one namespace share its handle, so their batches travel together (``linger_ms``) and each
stored byte is read once, and namespaces share nothing but the process.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import traceback
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any

from headwater import lines
from headwater.api.access import ROOT
from headwater.api.auth import Identity
from headwater.api.quotas import Quotas
from headwater.api.service import Service
from headwater.clock import Clock, SystemClock, system_entropy
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.groups.shares import Shares
from headwater.kafka import wire
from headwater.kafka.connection import Connection
from headwater.kafka.figures import Figures, looked_up
from headwater.kafka.fleet import Card, Door, Fleet
from headwater.kafka.handlers import table
from headwater.kafka.loop import settle
from headwater.kafka.model import Address, Peer
from headwater.kafka.routes import namespace_for
from headwater.kafka.sessions import FetchSessions
from headwater.kafka.settings import Auth, Listener, Listening, Settings
from headwater.kafka.shelf import Shelf
from headwater.limits import (
    KAFKA_CONNECTIONS_MAX,
    KAFKA_EXPIRE_MAX,
    KAFKA_HEDGE_MS_MAX,
    KAFKA_HELD_BYTES_MAX,
    KAFKA_IDLE_S,
    KAFKA_LINGER_MS_MAX,
    KAFKA_SLOW_S,
    KAFKA_STOP_S,
    KAFKA_TICK_S,
)
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.reserving import expire_overdue
from headwater.store.base import ObjectStore

__all__ = ["Auth", "Gateway", "Listener", "Listening", "Settings", "serve"]

NODE_IDS = 1_000_000  # enough that few gateways hardly share one, few enough to be read aloud

# What nearly every client asks for at once: produce, fetch, offsets, metadata, coordinator, versions, producer ids.
COMMON = (0, 1, 2, 3, 10, 18, 22)


class Gateway:
    """Serves Kafka clients from one store; use it as an asynchronous context manager. See ``serve``."""

    def __init__(
        self,
        store: ObjectStore,
        listeners: Sequence[Listener] = (Listener(),),
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        options: Options | None = None,
        log: Callable[[str], object] | None = None,
        level: str = "error",
        connections_max: int = KAFKA_CONNECTIONS_MAX,
    ) -> None:
        self.settings = settings or Settings()
        if not 0 <= self.settings.linger_ms <= KAFKA_LINGER_MS_MAX:
            raise InvalidRequest(
                f"A gateway waits 0 to {KAFKA_LINGER_MS_MAX:.0f} ms for company, not {self.settings.linger_ms}."
            )
        if not 0 <= self.settings.hedge_ms <= KAFKA_HEDGE_MS_MAX:
            raise InvalidRequest(
                f"A gateway hedges after 0 to {KAFKA_HEDGE_MS_MAX:.0f} ms, not {self.settings.hedge_ms}."
            )
        self.store = store
        self.clock = clock or SystemClock()
        self.now_s = self.clock.elapsed_s  # seconds of a clock that never goes back
        self.rng = rng or system_entropy()
        self.listening = [Listening(each, Address(host=each.host, port=each.port)) for each in listeners]
        self.connections: set[Connection] = set()
        self.connections_max = connections_max
        self.paused: set[Connection] = set()
        self.quotas = Quotas(self.clock)
        self._sessions: dict[str, FetchSessions] = {}
        self._options = options or Options(linger_ms=self.settings.linger_ms, hedge_ms=self.settings.hedge_ms)
        self._namespaces: dict[str, asyncio.Future[Namespace]] = {}
        self._shelves: dict[str, Shelf] = {}
        self.figures = Figures(self._options.meters)
        self.held_bytes = 0  # of requests that are not answered
        self._unlook: Callable[[], None] = lambda: None
        self._kept: set[asyncio.Task[object]] = set()
        self.lines = lines.Lines(self.clock, level=level, write=log, always={"process": "kafka"})
        self.fleet = Fleet(store, self.clock, self.rng, self._warn)
        self._watch: list[asyncio.Task[None]] = []

    @property
    def node_id(self) -> int:
        """What clients call this gateway, once it listens."""
        if self.settings.node_id is not None:
            return self.settings.node_id
        return 1 + zlib.crc32(self.bootstrap.encode()) % NODE_IDS

    @property
    def bootstrap(self) -> str:
        """What clients of the first listener call ``bootstrap.servers``, once it listens."""
        address = self.listening[0].listener.advertised or self.listening[0].address
        return f"{address.host}:{address.port}"

    # -- life ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the namespaces and listen. Raises ``OSError`` if an address is taken, or what the store raises."""
        loop = asyncio.get_running_loop()
        table()  # imports every handler now, not when the first client waits
        wire.prepare(COMMON)
        try:
            for each in self.listening:
                listener = each.listener
                await self.namespace(listener.namespace)
                try:
                    each.server = await loop.create_server(
                        self._accepting(each),
                        listener.host,
                        listener.port,
                        ssl=listener.tls,
                        backlog=1024,
                        ssl_handshake_timeout=KAFKA_SLOW_S if listener.tls else None,
                    )
                except OSError as error:
                    number = error.errno or 0
                    why = os.strerror(number) if number > 0 else error.strerror  # below 0: a name is not known
                    raise OSError(number, f"{listener.name} on {listener.host} port {listener.port}: {why}") from error
                port = each.server.sockets[0].getsockname()[1]
                each.address = Address(host=listener.host, port=port)
        except BaseException:
            await self.stop()
            raise
        self._unlook = self._options.meters.collect(lambda: looked_up(self))
        await self.fleet.enter(self._card())
        self._watch = [loop.create_task(self._watching()), loop.create_task(self.fleet.keep())]

    async def stop(self) -> None:
        """Accept nobody, answer what is in flight, commit what was taken, and close the namespaces."""
        for each in self.listening:
            if each.server is not None:
                each.server.close()
        for task in self._watch:
            task.cancel()
        self._unlook()
        await self.fleet.leave()
        end_s = self.now_s() + KAFKA_STOP_S
        while any(each.is_writing for each in self.connections) and self.now_s() < end_s:
            await self.clock.sleep(0.01)
        for known in list(self.connections):
            known.close()
        if self._kept:
            await asyncio.wait(set(self._kept), timeout=KAFKA_STOP_S)
        for namespace in self.open_namespaces():
            await namespace.shared(Shares).close()
            await namespace.close()

    # -- for connections -----------------------------------------------------------------------------------

    async def peer_for(
        self, listening: Listening, host: str, certificate: Mapping[str, Any] | None, client: str = ""
    ) -> Peer:
        """The peer of a new connection; without a principal where it must say first who it is."""
        listener, routes = listening.listener, self.settings.routes
        name, principal = listener.namespace, ""
        if listener.auth == "none":
            name, principal = namespace_for(routes, "client", client, name), ROOT
        elif listener.auth == "tls":
            principal = _subject(certificate)
            name = namespace_for(routes, "user", principal, name)
        namespace = await self.namespace(name)
        return Peer(
            gateway=self,
            name=listener.name,
            address=listener.advertised or listening.address,
            host=host,
            namespace=namespace,
            service=self.service_for(namespace, Identity(principal=principal or "nobody"), host),
            principal=principal,
            zone=listener.zone,
            deferred=listener.transactions == "deferred",
        )

    def service_for(self, namespace: Namespace, identity: Identity, host: str) -> Service:
        """What an identity may ask of a namespace."""
        return Service(namespace, principal=identity.principal, scopes=identity.scopes, quotas=self.quotas, host=host)

    async def namespace(self, name: str) -> Namespace:
        """The open namespace of that name. Cost: that of ``Namespace.open``, once."""
        known = self._namespaces.get(name)
        if known is None:
            opening = Namespace.open(self.store, name, clock=self.clock, rng=self.rng, options=self._options)
            known = self._namespaces[name] = asyncio.ensure_future(opening)
        try:
            return await asyncio.shield(known)
        except HeadwaterError:
            self._namespaces.pop(name, None)
            raise

    def open_namespaces(self) -> list[Namespace]:
        """Those that are open now."""
        opened = [each for each in self._namespaces.values() if each.done() and not each.cancelled()]
        return [each.result() for each in opened if each.exception() is None]

    def shelf(self, namespace: Namespace) -> Shelf:
        """The chunks of a namespace that are in memory, for all its readers."""
        if namespace.name not in self._shelves:
            self._shelves[namespace.name] = Shelf(namespace, self.settings.cache_bytes)
        return self._shelves[namespace.name]

    def shelves(self) -> list[Shelf]:
        """Those of all namespaces that somebody has read from."""
        return list(self._shelves.values())

    def sessions(self, namespace: Namespace) -> FetchSessions:
        """The fetch sessions of a namespace's consumers: an id of one opens nothing in another."""
        if namespace.name not in self._sessions:
            self._sessions[namespace.name] = FetchSessions(self.rng, self.now_s)
        return self._sessions[namespace.name]

    def hold(self, nbytes: int) -> None:
        """Bytes of requests that are in memory now, or no more."""
        before = self.held_bytes
        self.held_bytes = now = before + nbytes
        if now < KAFKA_HELD_BYTES_MAX <= before:
            for known in list(self.paused):
                known.steer()

    @property
    def is_full(self) -> bool:
        """Whether no more requests should be read for now."""
        return self.held_bytes >= KAFKA_HELD_BYTES_MAX

    def keep(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something for which no client waits; ``stop`` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def note(self, known: Connection, why: str) -> None:
        """A line in the log about a client that was let go."""
        self.figures.disconnects.add()
        peer = known.peer
        told = {"client": peer.host, "namespace": peer.namespace.name, "principal": peer.principal} if peer else {}
        self.lines.say("info", "disconnect", **told, message=f"The client is let go: {why.rstrip('.')}.")

    def mistake(self, what: str, error: Exception) -> None:
        """An error that is no client's fault."""
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        at = [f"{frame.filename.rpartition('headwater')[2][-60:]}:{frame.lineno} {frame.name}" for frame in frames]
        self.lines.say("error", "mistake", message=what, error=lines.error_of(error), at=at)

    def _warn(self, message: str) -> None:
        self.lines.say("error", "gateway", message=message)

    # -- the parts -----------------------------------------------------------------------------------------

    def _card(self) -> Card:
        """What other gateways tell their clients of this one."""
        doors = []
        for each in self.listening:
            address = each.listener.advertised or each.address
            spaces = self.settings.namespaces_of(each.listener)
            doors.append(Door(each.listener.name, address.host, address.port, spaces))
        return Card(self.node_id, self.settings.zone, doors, socket.gethostname())

    def _accepting(self, listening: Listening) -> Callable[[], Connection]:
        return lambda: Connection(self, listening)

    async def _watching(self) -> None:
        """Let go of clients that are silent, or that began a request and do not go on; end what is overdue."""
        while True:
            await self.clock.sleep(KAFKA_TICK_S)
            for namespace in self.open_namespaces():
                self.keep(self._expire(namespace))
            now_s = self.now_s()
            for known in list(self.connections):
                silent_s = now_s - known.heard_s
                if known.is_slow and silent_s > KAFKA_SLOW_S:
                    known.close("it began a request and did not go on with it")
                elif silent_s > KAFKA_IDLE_S and not known.is_busy:
                    known.close()

    async def _expire(self, namespace: Namespace) -> None:
        """Void transactions whose time is up, as far as this gateway knows of them: nobody reads past an open one."""
        try:
            await expire_overdue(namespace, KAFKA_EXPIRE_MAX)
        except HeadwaterError as error:
            told = lines.error_of(error)
            message = "Overdue transactions could not be ended, and will be later."
            self.lines.say("error", "expire", namespace=namespace.name, message=message, error=told)


def _subject(certificate: Mapping[str, Any] | None) -> str:
    """The common name in a client's certificate; "" if there is none."""
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return ""


async def serve(gateway: Gateway, *, ready: Callable[[Gateway], object] | None = None) -> None:
    """Serve until the task is cancelled; ``ready`` is called once all listeners listen."""
    async with gateway:
        if ready is not None:
            ready(gateway)
        settle()
        await asyncio.Event().wait()
