"""What a gateway is told when it starts: its listeners, and how it behaves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headwater.kafka.model import Address
from headwater.kafka.routes import Route
from headwater.limits import KAFKA_CACHE_BYTES, KAFKA_LINGER_MS, KAFKA_REBALANCE_DELAY_MS

Auth = Literal["none", "sasl", "tls"]
Transactions = Literal["reserved", "deferred"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where clients may come in. ``port`` 0 takes any free one.

    ``advertised`` is what clients are told to connect to, by default the listener's own address. ``auth``: ``none``
    lets everybody do everything, ``sasl`` asks for a name and a secret, ``tls`` takes the name in the client's
    certificate. ``zone`` is where its clients are that do not say it. ``transactions``: with ``reserved`` a batch has
    its offset when it is acknowledged, with ``deferred`` when its transaction ends, and no reader waits meanwhile.
    """

    name: str = "PLAINTEXT"
    host: str = "127.0.0.1"
    port: int = 9092
    advertised: Address | None = None
    namespace: str = "default"
    auth: Auth = "none"
    tls: ssl.SSLContext | None = None
    zone: str = ""
    transactions: Transactions = "reserved"


@dataclass(slots=True)
class Listening:
    """A listener that has its socket."""

    listener: Listener
    address: Address
    server: asyncio.Server | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a gateway behaves. ``node_id`` is what clients call it, by default a number made of its advertised address.

    So gateways behind one address are one node to their clients, and those at different addresses are different ones.

    ``auto_create`` makes topics that a client asks for (Kafka: auto.create.topics.enable), with
    ``partitions_default`` partitions. ``zone`` is where the gateway runs (Kafka: broker.rack). An empty group of the
    classic protocol waits ``rebalance_delay_ms`` for more members (Kafka: group.initial.rebalance.delay.ms): those
    that come later cost it another rebalance. A manifest whose PUT is not answered within ``hedge_ms`` is sent a second
    time (0: it is not). ``routes`` lead clients to namespaces other than their listener's.
    """

    node_id: int | None = None
    zone: str = ""
    linger_ms: float = KAFKA_LINGER_MS
    hedge_ms: float = 0.0
    cache_bytes: int = KAFKA_CACHE_BYTES
    auto_create: bool = False
    partitions_default: int = 1
    rebalance_delay_ms: int = KAFKA_REBALANCE_DELAY_MS
    scram: Mapping[str, Any] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    def namespaces_of(self, listener: Listener) -> list[str]:
        """Where a listener's clients may be."""
        kind = "client" if listener.auth == "none" else "user"
        return sorted({listener.namespace, *(route.namespace for route in self.routes if route.kind == kind)})
