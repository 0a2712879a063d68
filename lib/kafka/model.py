"""What the parts of the gateway hand to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from headwater.kafka.messages import Fields, Request

if TYPE_CHECKING:
    from headwater.api.service import Service
    from headwater.kafka.gateway import Gateway
    from headwater.log.namespace import Namespace

__all__ = ["Address", "Answer", "Fields", "Handler", "Later", "Peer", "Request", "Soon"]


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that takes a while. Requests behind it on the connection are begun meanwhile, and answered after it."""

    answer: Coroutine[Any, Any, Fields]


@dataclass(frozen=True, slots=True)
class Soon:
    """As ``Later``, for what is known in one step once ``when`` is done, or else takes a while: no task waits for it.

    ``when`` is never cancelled, even if the client leaves; ``then`` is called in any case.
    """

    when: asyncio.Future[Any]
    then: Callable[[], Fields | Later]


Answer: TypeAlias = Fields | Later | Soon | None  # None: the client wants no answer (acks=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where clients of a listener find it."""

    host: str
    port: int


@dataclass(slots=True, kw_only=True, eq=False)
class Peer:
    """The other side of one connection, as handlers see it. Equal to itself alone.

    ``service`` asks with the rights of ``principal`` (``api.Service``: access rules, quotas, audit), ``namespace``
    without any; who uses the latter checks access first. ``name`` is the listener's.
    """

    gateway: Gateway
    name: str
    address: Address  # what this listener tells its clients
    host: str  # where the client is
    namespace: Namespace
    service: Service
    principal: str
    zone: str = ""  # of the listener's clients, where that is known
    deferred: bool = False  # whether transactions get their offsets at their end
    mechanism: str = ""  # of SASL, once the client has named it
    sends_tokens: bool = False  # bare tokens of SASL follow, without a request around them
    sasl: Any = None  # the exchange under way
    appending: Any = None  # a future: done once the last Produce has its outcome
    has_left: bool = False  # it sends nothing more: it has gone, or waits for its last answers
    owes_since_s: float = -1.0  # since when its appends have been over its quota; -1: they are not
    led: dict[str, float] = field(default_factory=dict)  # when it was told another coordinator, by group or transaction


Handler: TypeAlias = Callable[[Peer, Request], Answer | Coroutine[Any, Any, Answer]]
