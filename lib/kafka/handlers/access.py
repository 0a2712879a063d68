"""Who a client is: SASL (KIP-43, KIP-152).

    SaslHandshake 1 ──► a mechanism ──► SaslAuthenticate … ─┬─► peer.principal, peer.namespace, peer.service
    SaslHandshake 0 ──►      "      ──► bare tokens … ──────┘

A user is looked for in the namespace that it is led to (``kafka.routes``), by default the listener's.
Clients may prove who they are anew at any time on the same connection, and stay who they are (KIP-368); nobody has to,
since a key that is revoked stops working within seconds anyway: each verb judges by rules that are fresh, and a session
has no end of its own. A connection has a few tries; wrong ones all look alike, whatever was wrong.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.auth import TOKEN_PREFIX, Authenticator, Identity, may_show
from headwater.api.messages import Request as HttpRequest
from headwater.api.names import check_principal
from headwater.errors import HeadwaterError, InvalidRequest, Unauthorized, Unavailable
from headwater.kafka import sasl
from headwater.kafka.errors import told
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.scram_users import users_of
from headwater.kafka.model import Fields, Peer, Request
from headwater.kafka.routes import namespace_for
from headwater.limits import AUTH_RETRY_S, KAFKA_SASL_DELAY_S, KAFKA_SASL_TRIES_MAX
from headwater.log.namespace import Namespace

_WRONG: Final = "Authentication failed: the credentials are not known here."
_CODES: Final = {
    "Unauthorized": ErrorCode.sasl_authentication_failed,
    "InvalidRequest": ErrorCode.sasl_authentication_failed,
    "Unavailable": ErrorCode.request_timed_out,  # clients try again; a wrong secret they would give up
    "Throttled": ErrorCode.request_timed_out,
}


@dataclass(slots=True)
class Exchange:
    """What a connection has said of itself so far."""

    failures: int = 0
    principal: str = ""  # who it has proved to be
    namespace: Namespace | None = None  # where the client of SCRAM is looked for
    scram: sasl.ScramServer | None = field(default=None, repr=False)  # between its two messages


# -- who it is -------------------------------------------------------------------------------------------


async def handshake(peer: Peer, request: Request) -> Fields:
    """SaslHandshake: choose a mechanism. After version 0 come tokens without a header (``token``)."""
    if request.fields["mechanism"] in sasl.SCRAM:
        with suppress(HeadwaterError):  # the first message says that it cannot be checked, and clients try that again
            await _look(peer.namespace)
    mechanisms = _mechanisms(peer)
    if peer.principal and not isinstance(peer.sasl, Exchange):
        return {"error_code": ErrorCode.illegal_sasl_state, "mechanisms": mechanisms}  # the listener asks for none
    if request.fields["mechanism"] not in mechanisms:
        return {"error_code": ErrorCode.unsupported_sasl_mechanism, "mechanisms": mechanisms}
    exchange = _exchange(peer)
    exchange.scram = None
    peer.mechanism = request.fields["mechanism"]
    peer.sends_tokens = request.version == 0
    return {"error_code": ErrorCode.none, "mechanisms": mechanisms}


async def authenticate(peer: Peer, request: Request) -> Fields:
    """SaslAuthenticate: one message of the mechanism. Wrong credentials say no more than that."""
    if not peer.mechanism:
        return {
            "error_code": ErrorCode.illegal_sasl_state,
            "error_message": "SaslAuthenticate comes after a SaslHandshake that was accepted.",
            "auth_bytes": b"",
        }
    try:
        answer = await _heard(peer, bytes(request.fields["auth_bytes"]))
    except HeadwaterError as error:
        return {**told(error, **_CODES), "auth_bytes": b""}
    return {"error_code": ErrorCode.none, "auth_bytes": answer}


async def token(peer: Peer, message: bytes) -> bytes:
    """The answer to a bare token, as clients of SaslHandshake 0 send them.

    Raises what is wrong with it: there is no way to say so, and the connection ends.
    """
    answer = await _heard(peer, message)
    if _exchange(peer).scram is None:
        peer.sends_tokens = False
    return answer


async def _heard(peer: Peer, message: bytes) -> bytes:
    """The answer to one message of the mechanism. Raises what is wrong with it."""
    exchange = _exchange(peer)
    try:
        if exchange.failures >= KAFKA_SASL_TRIES_MAX:
            raise Unauthorized("Too many wrong tries on this connection.")
        answer, found = await _step(peer, exchange, message)
        if found is not None:
            _accept(peer, exchange, *found)
    except HeadwaterError as error:
        exchange.scram, peer.mechanism = None, ""
        if isinstance(error, Unauthorized | InvalidRequest):
            exchange.failures += 1
            await peer.gateway.clock.sleep(KAFKA_SASL_DELAY_S)
        raise
    return answer


async def _step(peer: Peer, exchange: Exchange, message: bytes) -> tuple[bytes, tuple[Identity, Namespace] | None]:
    """The answer to one message, and who the client is if that was the last one."""
    if peer.mechanism == sasl.PLAIN:
        user, password = sasl.plain(message)
        return b"", await _by_token(peer, password, user)
    if peer.mechanism == sasl.OAUTHBEARER:
        user, token = sasl.bearer(message)
        return b"", await _by_token(peer, token, user)
    if exchange.scram is None:
        exchange.namespace = await _led_to(peer, sasl.scram_user(message))
        await _look(exchange.namespace)
        users = users_of(peer, exchange.namespace)
        if peer.mechanism not in users.mechanisms():
            raise Unauthorized(_WRONG)  # the last one was deleted, or has no password in the namespace it is led to
        nonce = sasl.fresh_nonce(peer.namespace.chain.rng.getrandbits)
        exchange.scram = sasl.ScramServer(peer.mechanism, users, nonce=nonce)
        return exchange.scram.first(message), None
    server, exchange.scram = exchange.scram, None
    assert exchange.namespace is not None
    try:
        identity = Identity(principal=check_principal(server.user))
        return server.final(message), (identity, exchange.namespace)
    except HeadwaterError:
        raise Unauthorized(_WRONG) from None


async def _led_to(peer: Peer, user: str) -> Namespace:
    """The namespace in which a user is looked for. Cost: nothing, or once that of opening it."""
    name = namespace_for(peer.gateway.settings.routes, "user", user, peer.namespace.name)
    return peer.namespace if name == peer.namespace.name else await peer.gateway.namespace(name)


async def _look(namespace: Namespace) -> None:
    """Know of users that were made or deleted a moment ago. Cost: 1 GET at most every 2 s in all."""
    if namespace.chain.age_s() > AUTH_RETRY_S:
        try:
            await namespace.refresh()
        except HeadwaterError as error:
            raise Unavailable("The credentials cannot be checked now.") from error


async def _by_token(peer: Peer, token: str, user: str) -> tuple[Identity, Namespace]:
    """The bearer of an API key's token; ``user`` is the key's id or its principal, or nobody in particular."""
    key = token.removeprefix(TOKEN_PREFIX).partition("_")[0]
    shown = HttpRequest(method="POST", path="/", headers={"authorization": f"Bearer {token}"})
    namespace = await _led_to(peer, user)
    try:
        identity = await namespace.shared(_authenticator).authenticate(shown, namespace)
    except Unauthorized:
        raise Unauthorized(_WRONG) from None
    if not may_show(user, key, identity.principal):
        raise Unauthorized(_WRONG)
    return identity, namespace


def _accept(peer: Peer, exchange: Exchange, identity: Identity, namespace: Namespace) -> None:
    if exchange.principal and (exchange.principal, peer.namespace) != (identity.principal, namespace):
        raise Unauthorized("A connection stays whose it is; connect anew as somebody else.")
    exchange.principal = peer.principal = identity.principal
    peer.namespace = namespace
    peer.service = peer.gateway.service_for(namespace, identity, peer.host)


def _exchange(peer: Peer) -> Exchange:
    if not isinstance(peer.sasl, Exchange):
        peer.sasl = Exchange()
    return peer.sasl


def _mechanisms(peer: Peer) -> list[str]:
    """What a client may choose: SCRAM only where somebody has a password for it, or clients may be led elsewhere."""
    if any(route.kind == "user" for route in peer.gateway.settings.routes):
        return [sasl.PLAIN, *sasl.SCRAM, sasl.OAUTHBEARER]
    return [sasl.PLAIN, *users_of(peer, peer.namespace).mechanisms(), sasl.OAUTHBEARER]


def _authenticator(namespace: Namespace) -> Authenticator:
    return Authenticator("token", namespace.chain.clock)


APIS: Final = {
    17: Api(0, 1, handshake, open=True),
    36: Api(0, 2, authenticate, open=True),
}
