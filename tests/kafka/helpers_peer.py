"""A client's side of one connection without a connection: handlers are asked through the codec, as on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from headwater.api.access import ROOT
from headwater.api.auth import Identity
from headwater.kafka import compiled, schema
from headwater.kafka.gateway import Gateway, Settings
from headwater.kafka.handlers import table
from headwater.kafka.model import Address, Answer, Fields, Later, Peer, Request, Soon
from headwater.log.namespace import Namespace
from headwater.log.operations import AclRule


def peer(
    namespace: Namespace,
    principal: str = ROOT,
    *,
    settings: Settings | None = None,
    scopes: Sequence[AclRule] | None = None,
    gateway: Gateway | None = None,
) -> Peer:
    """A connection of ``principal`` ("": one that has not said who it is) to a gateway that does not listen."""
    known = replace(settings or Settings(), node_id=1)  # a number is made of an address, and this one does not listen
    gateway = gateway or Gateway(namespace.bucket, (), known, clock=namespace.chain.clock, rng=namespace.chain.rng)
    identity = Identity(principal=principal or "nobody", scopes=scopes)
    return Peer(
        gateway=gateway,
        name="TEST",
        address=Address(host="127.0.0.1", port=9092),
        host="127.0.0.1",
        namespace=namespace,
        service=gateway.service_for(namespace, identity, "127.0.0.1"),
        principal=principal,
    )


async def ask(known: Peer, api: int, version: int = -1, *, client: str = "test", **fields: Any) -> Fields:
    """What the handler of ``api`` answers in ``version`` (-1: the newest served): encoded and decoded on both ways.

    Fields that are left out have their default.
    """
    served = table()[api]
    version = served.last if version < 0 else version
    assert served.first <= version <= served.last, f"API {api} is not served in version {version}"
    asked = Request(
        api=api, version=version, correlation=7, client=client, fields=_through(api, version, "request", fields)
    )
    answer = await whole(await handled(known, asked))
    assert answer is not None, f"API {api} wants to give no answer"
    return _through(api, version, "response", answer)


async def handled(known: Peer, request: Request) -> Answer:
    """What the handler says, once it has begun with the request."""
    answer = table()[request.api].handler(known, request)
    return await answer if isinstance(answer, Coroutine) else answer


async def whole(answer: Answer) -> Fields | None:
    """The answer, when it is there: what a connection does with one that takes a while."""
    if isinstance(answer, Soon):
        await asyncio.wait([answer.when])
        answer = answer.then()
    return await answer.answer if isinstance(answer, Later) else answer


def _through(api: int, version: int, direction: schema.Direction, fields: Fields) -> Fields:
    struct = schema.message(api, version, direction)
    out: list[Any] = []
    compiled.encoder(struct)(fields, out)
    data = memoryview(b"".join(out))
    found, end = compiled.decoder(struct, api)(data, 0, len(data))
    assert len(data) == end
    return found
