"""What the tests of the REST dialect share: an app over a bucket in memory, in virtual time, asked as a client asks."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.api import http
from headwater.api.app import App
from headwater.api.messages import Request
from headwater.api.routes import table
from headwater.errors import Unauthorized
from headwater.log.namespace import Namespace
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from tests.log.helpers import simulate

V2 = "application/vnd.kafka.v2+json"
JSON = "application/vnd.kafka.json.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"


@dataclass(frozen=True)
class Named:
    """Who asks, as an ``Authenticator`` says it."""

    principal: str
    scopes: None = None


class Believer:
    """An authenticator that believes the header ``x-principal``."""

    mode = "none"

    async def authenticate(self, request: Request, namespace: Namespace) -> Named:
        if request.headers.get("x-principal") == "stranger":
            raise Unauthorized("The credentials are not known here.")
        return Named(request.headers.get("x-principal", "root"))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> tuple[int, int]:
        """The status and the dialect's error code."""
        return self.status, self.json["error_code"]


class Rest:
    """A process that serves everything over ``store``, and clients of it."""

    def __init__(self, store: ObjectStore, *, seed: int = 1, log: list[str] | None = None) -> None:
        self.clock = SimClock(sim_loop())
        self.log: list[str] = [] if log is None else log
        rng = random.Random(seed)

        async def open_namespace(name: str) -> Namespace:
            return await Namespace.open(store, name, clock=self.clock, rng=rng)

        self.app = App(
            table("dev"),
            open_namespace=open_namespace,
            authenticator=Believer(),  # type: ignore[arg-type]
            clock=self.clock,
            rng=rng,
            log=self.log.append,
        )

    async def namespace(self) -> Namespace:
        return await self.app.opened("default")

    async def ask(
        self, method: str, path: str, body: Any = None, *, kind: str = V2, budget_s: float | None = None, **headers: str
    ) -> Answer:
        """One request. A ``body`` that is not bytes is sent as JSON; ``accept_`` and the like name headers."""
        sent = {name.strip("_").replace("_", "-"): value for name, value in headers.items()}
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data and kind:
            sent["content-type"] = kind
        path, _, query = path.partition("?")
        response = await http.serve(
            http.Incoming(method=method, raw_path=path, raw_query=query, headers=sent, body=data, host="example.org"),
            self.app,
            budget_s=budget_s,
        )
        assert not [line for line in self.log if '"mistake"' in line], self.log
        return Answer(response.status, response.headers, response.body)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", path, body, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", path, **options)

    async def produce(self, topic: str, *values: Any, keys: bool = False) -> Answer:
        """Values as JSON records, with keys of their own if those are wanted."""
        records = [{"key": f"k{value}", "value": value} if keys else {"value": value} for value in values]
        answer = await self.post(f"/topics/{topic}", {"records": records}, kind=JSON)
        assert answer.status == 200, answer.body
        return answer

    async def consumer(self, name: str, *topics: str, group: str = "g", **settings: Any) -> Consumer:
        """An instance that reads JSON from the beginning and subscribes to ``topics``, if there are any."""
        wanted = {"name": name, "format": "json", "auto.offset.reset": "earliest", **settings}
        made = await self.post(f"/consumers/{group}", wanted)
        assert made.status == 200, made.body
        consumer = Consumer(self, f"/consumers/{group}/instances/{name}")
        if topics:
            assert 204 == (await consumer.post("/subscription", {"topics": list(topics)})).status
        return consumer


@dataclass(frozen=True)
class Consumer:
    """An instance, by its path."""

    rest: Rest
    path: str

    def at(self, rest: Rest) -> Consumer:
        """The same instance, served by another process."""
        return Consumer(rest, self.path)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.rest.get(self.path + path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.rest.post(self.path + path, body, **options)

    async def delete(self, path: str = "") -> Answer:
        return await self.rest.delete(self.path + path)

    async def poll(self, timeout: int = 0, **query: int) -> list[dict[str, Any]]:
        """The next records."""
        rest = "".join(f"&{name}={value}" for name, value in query.items())
        answer = await self.get(f"/records?timeout={timeout}{rest}", accept=JSON)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json
        return found

    async def values(self, timeout: int = 0, **query: int) -> list[Any]:
        """The values of the next records."""
        return [record["value"] for record in await self.poll(timeout, **query)]

    async def partitions(self) -> list[int]:
        return [place["partition"] for place in (await self.get("/assignments")).json["partitions"]]

    async def committed(self) -> dict[int, int]:
        answer = await self.get("/offsets")
        return {place["partition"]: place["offset"] for place in answer.json["offsets"]}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def with_rest(main: Callable[[Rest], Awaitable[None]], *, partitions: int = 1, seed: int = 1) -> None:
    """Run ``main`` in virtual time, with a topic ``t`` in a fresh bucket."""

    async def run() -> None:
        rest = Rest(MemoryStore(clock=SimClock(sim_loop())), seed=seed)
        await (await rest.namespace()).create_topic("t", partitions)
        await main(rest)
        await rest.app.close()

    simulate(run())
