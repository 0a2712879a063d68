"""What serves requests: routes, the namespaces that are open, and who may ask.

    serve ──► find the route ──► may this namespace be served? ──► open it, or bring it up to date by use
          ──► authenticate ──► Service for the principal ──► the route's handler ──► response

An ``App`` keeps namespaces open between requests. It never raises: what is wrong becomes a response, and a mistake of
our own becomes a 500. Each answer carries the request's id (``x-request-id``), under which the log of the process has
what became of it (``headwater.lines``).
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from headwater import lines, tracing
from headwater.api import asking, media
from headwater.api.errors_http import respond, too_late, unexpected
from headwater.api.messages import Call, HttpError, Request, Response, Route
from headwater.api.routing import Router
from headwater.api.service_base import scrubbed
from headwater.clock import Clock
from headwater.errors import HeadwaterError, NotFound, Unavailable
from headwater.limits import HTTP_FETCH_BYTES_MAX, HTTP_WAIT_MS_MAX, NAMESPACES_LISTED_MAX, NAMESPACES_OPEN_MAX
from headwater.log.keys import check_namespace, is_namespace
from headwater.log.namespace import Namespace
from headwater.meters import PROCESS, Meters, families

if TYPE_CHECKING:
    from headwater.api.auth import Authenticator, Identity
    from headwater.api.quotas import Quotas
    from headwater.api.verbs import Verbs
    from headwater.store.base import ObjectStore

REQUEST_ID = "x-request-id"
READS = frozenset({"GET", "HEAD"})
ANSWER_SLACK_BYTES = 100_000  # what a format adds to the bytes that were asked for
BUDGET_WAIT = 0.7  # the part of a request's time that a long poll may take


class Opener(Protocol):
    """Opens a namespace by name."""

    def __call__(self, name: str) -> Awaitable[Namespace]: ...


class App:
    """Serves ``routes`` for the namespaces that ``served`` names (``tenant-*`` stands for all that begin so)."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        open_namespace: Opener,
        authenticator: Authenticator,
        clock: Clock,
        rng: random.Random,
        namespace: str = "default",
        served: Iterable[str] = (),
        answer_bytes_max: int = HTTP_FETCH_BYTES_MAX,
        wait_ms_max: float = HTTP_WAIT_MS_MAX,
        log: Callable[[str], object] | None = None,
        level: str = "error",
        process: str = "",
        bucket: ObjectStore | None = None,
        close: Callable[[], Awaitable[object]] | None = None,
        meters: Meters = PROCESS,
    ) -> None:
        self.router = Router(routes)
        self.namespace = namespace
        self.clock = clock
        self._rng = rng
        self._open = open_namespace
        self._authenticator = authenticator
        self._served = tuple(served) or (namespace,)
        self._answer_bytes_max = answer_bytes_max
        self._wait_ms_max = wait_ms_max
        self.lines = lines.Lines(clock, level=level, write=log, always={"process": process} if process else None)
        self._bucket = bucket
        self._close = close
        self._meters = meters
        self._namespaces: dict[str, asyncio.Future[Namespace]] = {}
        self._quotas: Quotas | None = None

    # -- one request -----------------------------------------------------------------------------------

    async def serve(self, request: Request, *, budget_s: float | None = None) -> Response:
        """The response to one request. Never raises.

        With ``budget_s`` it ends in time: a read is then broken off, and a write is ``Indeterminate``. The write
        itself is not: ``drain`` waits for it.
        """
        began_s = self.clock.elapsed_s()
        if not request.id:
            request = replace(request, id=self.fresh_id())
        with lines.listening() as heard, _span(request) if tracing.is_on() else nullcontext() as span:
            response, route = await self._served_by(request, budget_s)
            if span is not None:
                _ended(span, request, route, response, heard)
        # A path or a method without a route is of the client's choosing, and no label.
        labels = (route.pattern, route.method) if route is not None else ("none", "none")
        self._meters.counter(families.HTTP_REQUESTS, *labels, f"{response.status // 100}xx").add()
        seconds = self.clock.elapsed_s() - began_s
        self._meters.histogram(families.HTTP_SECONDS, *labels).observe(seconds)
        self._tell(request, response, route, heard, seconds)
        return _called(response, request.id)

    def fresh_id(self) -> str:
        """An id for a request that has none."""
        return f"{self._rng.getrandbits(64):016x}"

    async def _served_by(self, request: Request, budget_s: float | None) -> tuple[Response, Route | None]:
        route: Route | None = None
        harmless = True  # nothing that changes anything was begun
        try:
            route, parts = self.router.find(request.method, request.path)
            async with asyncio.timeout(budget_s):
                call = await self._call(request, route, parts, budget_s)
                harmless = request.method in READS
                return await self._handled(route, call), route
        except HeadwaterError as error:
            return self._refusal(error, request, route), route
        except TimeoutError:
            return self._refusal(too_late(harmless, budget_s or 0.0), request, route), route
        except Exception as error:
            _heard(error)
            return unexpected(request.id, request.method in READS), route

    async def _call(self, request: Request, route: Route, parts: Mapping[str, str], budget_s: float | None) -> Call:
        """The request as its handler gets it: well-formed, of a namespace that is served, by somebody who is known."""
        for name in request.query:
            if name not in route.query and not route.any_query:
                raise HttpError(400, f"This path has no query parameter {name[:40]!r}; it has {_names(route.query)}.")
        if route.open:
            nothing = cast(Any, None)
            return Call(request=request, parts=parts, verbs=nothing, namespace=nothing)
        if not route.dialect:
            media.check(request, route)
            asking.refuse_once(request, route)
        await self._check_served(request)
        identity, namespace = await self._known(request)
        if (heard := lines.heard()) is not None:
            heard.principal = identity.principal
        wait_ms = self._wait_ms_max if budget_s is None else min(self._wait_ms_max, budget_s * 1_000 * BUDGET_WAIT)
        return Call(
            request=request,
            parts=parts,
            verbs=self._verbs(request, namespace, identity),
            namespace=namespace,
            principal=identity.principal,
            scopes=identity.scopes,
            wait_ms_max=wait_ms,
            answer_bytes_max=self._answer_bytes_max,
        )

    async def _handled(self, route: Route, call: Call) -> Response:
        if route.open:
            return await route.handler(call)
        try:
            response = await route.handler(call)
        except HeadwaterError as error:
            raise scrubbed(error, call.namespace) from error
        if call.request.method in READS and len(response.body) > self._answer_bytes_max + ANSWER_SLACK_BYTES:
            raise HttpError(413, f"The answer has {len(response.body)} bytes, too many for this way; ask for less.")
        return response

    async def _known(self, request: Request) -> tuple[Identity, Namespace]:
        """Who asks, and the namespace, open. Only API keys are judged by it; whoever else is nobody opens nothing."""
        if self._authenticator.mode == "token" and self._authenticator.may_be_known(request):
            namespace = await self._ready(request.namespace)
            return await self._authenticator.authenticate(request, namespace), namespace
        identity = await self._authenticator.authenticate(request, None)
        return identity, await self._ready(request.namespace)

    async def _ready(self, name: str) -> Namespace:
        """The namespace, open. Where the log is stored and why it cannot be read is no client's business."""
        try:
            return await self.opened(name)
        except HeadwaterError as error:
            raise Unavailable("The namespace cannot be read now.") from error

    def _verbs(self, request: Request, namespace: Namespace, identity: Identity) -> Verbs:
        from headwater.api.quotas import Quotas
        from headwater.api.service import Service

        self._quotas = self._quotas or Quotas(self.clock)
        service = Service(
            namespace,
            principal=identity.principal,
            scopes=identity.scopes,
            quotas=self._quotas,
            host=request.client,
        )
        return cast("Verbs", service)

    async def _check_served(self, request: Request) -> None:
        """A namespace of others answers as one that does not exist, and as a wrong credential does, whatever it is."""
        name = request.namespace
        if self._serves(name):
            check_namespace(name)
            return
        await self._authenticator.authenticate(request, None)
        raise NotFound("There is no such namespace.")

    # -- answers to what is wrong -------------------------------------------------------------------------

    def _refusal(self, error: HeadwaterError, request: Request, route: Route | None) -> Response:
        _heard(error)
        return respond(error, dialect=route is not None and route.dialect, name=request.id)

    def refused(self, error: HeadwaterError, method: str, name: str = "") -> Response:
        """The answer to what is no request that can be served, whatever its path, and one line for the log."""
        name = name or self.fresh_id()
        level = "error" if error.status >= 500 else "info"
        told = lines.error_of(error)
        self.lines.say(level, "request", request=name, method=method[:16], status=error.status, error=told)
        return _called(respond(error, name=name), name)

    def mistake(self, error: Exception, method: str, what: str = "", name: str = "") -> Response:
        """The answer to an error that nobody raised on purpose, outside of ``serve``, and one line for the log.

        The line says what kind of mistake and where, and nothing of what the client sent.
        """
        name = name or self.fresh_id()
        told, at = lines.error_of(error), _places(error)
        self.lines.say("error", "mistake", request=name, method=method[:16], route=what, status=500, error=told, at=at)
        return _called(unexpected(name, method in READS), name)

    def _tell(self, request: Request, response: Response, route: Route | None, heard: lines.Heard, s: float) -> None:
        """The line of a request: an error if we could not serve it, news if it changed the log or was refused."""
        failed = response.status >= 500
        level = "error" if failed else "info" if heard.intents or response.status >= 400 else "debug"
        if not self.lines.wants(level):
            return
        error = heard.error
        is_mistake = error is not None and not isinstance(error, HeadwaterError)
        cause = error.__cause__ if error is not None and failed else None
        self.lines.say(
            level,
            "mistake" if is_mistake else "request",
            request=request.id,
            namespace=request.namespace,
            method=request.method[:16],
            route=route.pattern if route is not None else "",
            status=response.status,
            ms=s * 1_000,
            client=request.client,
            **heard.fields(),
            error=lines.error_of(error) if error is not None else None,
            cause=lines.error_of(cause) if cause is not None else None,
            at=_places(error) if is_mistake else None,
        )

    # -- namespaces ---------------------------------------------------------------------------------------

    async def opened(self, name: str) -> Namespace:
        """The namespace, opened once; the one that was used longest ago makes room."""
        found = self._namespaces.pop(name, None)
        if found is not None and found.done() and _open_in(found) is None:
            found = None  # it could not be opened then
        if found is None:
            found = asyncio.ensure_future(self._open(name))
            found.add_done_callback(_listened)
        self._namespaces[name] = found  # the newest at the end
        try:
            namespace = await asyncio.shield(found)
        except BaseException:
            if found.done():
                self._namespaces.pop(name, None)
            raise
        await self._make_room()
        return namespace

    async def _make_room(self) -> None:
        while len(self._namespaces) > NAMESPACES_OPEN_MAX:
            name = next(iter(self._namespaces))
            oldest = _open_in(self._namespaces.pop(name))
            if oldest is not None:
                await oldest.drain()

    async def named(self) -> list[str]:
        """The namespaces that are served: those that are named one by one, and those of the bucket that fit a pattern.

        Cost: with a pattern, 1 LIST for each namespace of the bucket.
        """
        names = [name for name in self._served if not name.endswith("*")]
        if self._bucket is not None and len(names) < len(self._served):
            names += [name async for name in namespaces_in(self._bucket) if name not in names and self._serves(name)]
        return names

    def _serves(self, name: str) -> bool:
        return any(
            name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in self._served
        )

    def open_namespaces(self) -> list[Namespace]:
        """Those that are open now."""
        found = (_open_in(opening) for opening in self._namespaces.values())
        return [namespace for namespace in found if namespace is not None]

    async def drain(self) -> None:
        """Return when nothing is in flight in any namespace (R10)."""
        if opening := [found for found in self._namespaces.values() if not found.done()]:
            await asyncio.wait(opening)
        for namespace in self.open_namespaces():
            await namespace.drain()

    async def close(self) -> None:
        """Drain, and let go of the namespaces and their stores."""
        for namespace in self.open_namespaces():
            await namespace.close()
        for found in self._namespaces.values():
            found.cancel()
        self._namespaces.clear()
        if self._close is not None:
            await self._close()


def _span(request: Request) -> AbstractContextManager[Any]:
    """The span of a request: it goes on with the trace of its client."""
    return tracing.span(
        request.method[:16],
        "SERVER",
        parent=tracing.continued(request.headers),
        http__request__method=request.method[:16],
        headwater__request=request.id,
        headwater__namespace=request.namespace,
    )


def _ended(span: Any, request: Request, route: Route | None, response: Response, heard: lines.Heard) -> None:
    if route is not None:
        span.update_name(f"{request.method[:16]} {route.pattern}")
        span.set_attribute("http.route", route.pattern)
    span.set_attribute("http.response.status_code", response.status)
    if heard.error is not None:
        span.set_attribute("error.type", type(heard.error).__name__)
    if response.status >= 500:  # a refusal is no error of the server's
        tracing.failed(span)


def _heard(error: BaseException) -> None:
    """The line of this request is to say it."""
    if (heard := lines.heard()) is not None:
        heard.error = error


def _places(error: BaseException | None) -> list[str]:
    """Where it was raised, without anything of what the client sent."""
    frames = traceback.extract_tb(error.__traceback__ if error is not None else None)[-8:]
    return [f"{frame.filename.rpartition('headwater')[2][-60:]}:{frame.lineno} {frame.name}" for frame in frames]


def _called(response: Response, name: str) -> Response:
    """The response, with the id of its request."""
    return replace(response, headers={**response.headers, REQUEST_ID: name})


def _open_in(opening: asyncio.Future[Namespace]) -> Namespace | None:
    """The namespace, if it is open by now."""
    if not opening.done() or opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()


def _listened(opening: asyncio.Future[Namespace]) -> None:
    """Its error is told to whoever asks next, if anybody does."""
    if not opening.cancelled():
        opening.exception()


async def namespaces_in(bucket: ObjectStore) -> AsyncIterator[str]:
    """The namespaces of a bucket, by name. Cost: 1 LIST for each, however much it holds."""
    after, found = "", 0
    while found < NAMESPACES_LISTED_MAX:
        keys = [stat.key async for stat in bucket.list("", start_after=after, limit=1)]
        if not keys:
            return
        name, slash, _ = keys[0].partition("/")
        if slash and is_namespace(name):
            yield name
            found += 1
        after = f"{name}0" if slash else keys[0]  # "0" comes right behind "/", so behind all keys below the name


def _names(query: Mapping[str, str]) -> str:
    return ", ".join(query) or "none"
