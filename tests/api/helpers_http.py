"""What the tests of the HTTP layer share: an app over a bucket in memory, and short ways to ask it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import jsonschema_rs

from headwater.api import http, openapi, routes, routes_admin, routes_data, routes_groups, upkeep
from headwater.api.app import App
from headwater.api.messages import HttpError, Request, Route
from headwater.api.routing import Router
from headwater.api.server import Server
from headwater.clock import Clock, SystemClock
from headwater.errors import Unauthorized
from headwater.limits import HTTP_FETCH_BYTES_MAX
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.store.base import ObjectStore

S = TypeVar("S", bound=ObjectStore)

NATIVE: tuple[Route, ...] = (
    *routes._open_routes(),
    *routes_data.ROUTES,
    *routes_groups.ROUTES,
    *routes_admin.ROUTES,
    *upkeep.ROUTES,
)


@dataclass(frozen=True)
class Named:
    """Who asks, as an ``Authenticator`` says it."""

    principal: str
    scopes: tuple[Any, ...] | None = None


class Doorman:
    """An authenticator that believes the header ``x-principal``, and knows nobody called ``stranger``."""

    def __init__(self, mode: str = "none") -> None:
        self.mode = mode

    async def authenticate(self, request: Request, namespace: Namespace | None) -> Named:
        name = request.headers.get("x-principal", "root")
        if name == "stranger":
            raise Unauthorized("The credentials are not known here.")
        return Named(name)


@dataclass
class Log:
    """Lines that an app has logged."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def serving(make: Callable[[], Awaitable[App]]) -> Iterator[str]:
    """The base URL of a server in a thread of its own, for clients that block; ``make`` runs on its loop."""
    started, url = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop: list[asyncio.Event] = []

    async def main() -> None:
        async with Server(await make()) as server:
            url.append(server.url)
            stop.append(asyncio.Event())
            started.set()
            await stop[0].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(20)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join(20)
        loop.close()


def app_over(
    store: ObjectStore,
    *,
    clock: Clock | None = None,
    seed: int = 1,
    routes: tuple[Route, ...] = NATIVE,
    served: tuple[str, ...] = (),
    auth: Any = None,
    options: Options | None = None,
    answer_bytes_max: int = HTTP_FETCH_BYTES_MAX,
    log: Any = None,
    **more: Any,
) -> App:
    """An app over ``store`` that serves everything native."""
    clock, rng = clock or SystemClock(), random.Random(seed)

    async def open_namespace(name: str) -> Namespace:
        return await Namespace.open(store, name, clock=clock, rng=rng, options=options)

    return App(
        routes,
        open_namespace=open_namespace,
        authenticator=auth or Doorman(),
        clock=clock,
        rng=rng,
        served=served,
        answer_bytes_max=answer_bytes_max,
        log=log or Log(),
        **more,
    )


def event(
    method: str,
    path: str,
    body: bytes | str | object = b"",
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    kind: str = "",
) -> dict[str, Any]:
    """A function URL's event; a body that is no string and no bytes is put into JSON."""
    sent = dict(headers or {})
    if not isinstance(body, bytes | str):
        body = json.dumps(body)
        kind = kind or "application/json"
    if kind:
        sent["content-type"] = kind
    made: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": sent,
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.1"}, "domainName": "x.test"},
        "isBase64Encoded": isinstance(body, bytes),
    }
    if body:
        made["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return made


@cache
def documented() -> tuple[Router, dict[str, Any]]:
    """All routes, and what the OpenAPI document says of them."""
    return Router(routes.table(routes.EVERYTHING)), json.loads(openapi.document())


@cache
def validator(pattern: str, method: str, status: int, kind: str) -> Any:
    """What checks an answer's JSON; None if the document does not know it."""
    _, document = documented()
    response = document["paths"][pattern][method.lower()]["responses"].get(str(status))
    if response is None or kind not in response.get("content", {}):
        return None
    schema = {**response["content"][kind]["schema"], "components": document["components"]}
    return jsonschema_rs.validator_for(schema)


def check_documented(method: str, path: str, answer: Answer) -> None:
    """An answer of a route that is in the document has a status, a type and a body that the document names."""
    try:
        route, _ = documented()[0].find(method, path)
    except HttpError:
        return
    kind = answer.headers.get("content-type", "")
    if answer.status == 204 or method == "HEAD":
        assert answer.status in (*openapi.statuses(route),)
        return
    found = validator(route.pattern, route.method, answer.status, kind)
    assert found is not None, (route.pattern, answer.status, kind)
    if kind.endswith("json"):
        found.validate(json.loads(answer.plain))


@dataclass(frozen=True)
class Answer:
    """An answer, with its body decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.body) if "content-encoding" in self.headers else self.body

    @property
    def json(self) -> Any:
        return json.loads(self.plain)


class Client:
    """Asks an app by events."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, method: str, path: str, body: Any = b"", **how: Any) -> Answer:
        answer = await http.handle(event(method, path, body, **how), self.app)
        json.dumps(answer)  # as the platform will
        said: Any = answer["body"]
        data = base64.b64decode(said) if answer["isBase64Encoded"] else said.encode()
        headers: Any = answer["headers"]
        status: Any = answer["statusCode"]
        found = Answer(status, headers, data)
        check_documented(method, path, found)
        return found

    async def done(self, method: str, path: str, body: Any = b"", **how: Any) -> Answer:
        """The same, and it went well."""
        answer = await self(method, path, body, **how)
        assert answer.status < 300, (answer.status, answer.body)
        return answer


def with_topic(store: S) -> S:
    """The store, with a topic ``t``. Not for those who are in an event loop already."""

    async def fill() -> None:
        client = Client(app_over(store))
        await client.done("POST", "/admin/topics", {"name": "t"})
        await client.app.close()

    asyncio.run(fill())
    return store
