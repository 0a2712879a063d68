"""Who a client is: SASL (KIP-43, KIP-152), and what there is to see of SCRAM users (KIP-554).

    SaslHandshake ──► a mechanism ──► SaslAuthenticate … ──► peer.principal, peer.service

Clients may prove who they are anew at any time on the same connection, and stay who they are (KIP-368); nobody has to,
since a key that is revoked stops working within seconds anyway: each verb judges by rules that are fresh, and a session
has no end of its own. A connection has a few tries; wrong ones all look alike, whatever was wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.auth import TOKEN_PREFIX, Authenticator, Identity
from headwater.api.messages import Request as HttpRequest
from headwater.api.names import check_principal
from headwater.errors import HeadwaterError, InvalidRequest, Unauthorized
from headwater.kafka import sasl
from headwater.kafka.errors import told
from headwater.kafka.handlers import Api
from headwater.kafka.model import Fields, Peer, Request
from headwater.limits import KAFKA_SASL_DELAY_S, KAFKA_SASL_TRIES_MAX
from headwater.log.namespace import Namespace

_WRONG: Final = "Authentication failed: the credentials are not known here."
_SCRAM_TYPES: Final = {"SCRAM-SHA-256": 1, "SCRAM-SHA-512": 2}
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
    scram: sasl.ScramServer | None = field(default=None, repr=False)  # between its two messages


# -- who it is -------------------------------------------------------------------------------------------


async def handshake(peer: Peer, request: Request) -> Fields:
    """SaslHandshake: choose a mechanism. Version 0 would have its tokens without a header, and is refused."""
    mechanisms = _mechanisms(peer)
    if peer.principal and not isinstance(peer.sasl, Exchange):
        return {"error_code": ErrorCode.illegal_sasl_state, "mechanisms": mechanisms}  # the listener asks for none
    if request.version == 0:
        return {"error_code": ErrorCode.unsupported_version, "mechanisms": mechanisms}
    if request.fields["mechanism"] not in mechanisms:
        return {"error_code": ErrorCode.unsupported_sasl_mechanism, "mechanisms": mechanisms}
    exchange = _exchange(peer)
    exchange.scram = None
    peer.mechanism = request.fields["mechanism"]
    return {"error_code": ErrorCode.none, "mechanisms": mechanisms}


async def authenticate(peer: Peer, request: Request) -> Fields:
    """SaslAuthenticate: one message of the mechanism. Wrong credentials say no more than that."""
    if not peer.mechanism:
        return {
            "error_code": ErrorCode.illegal_sasl_state,
            "error_message": "SaslAuthenticate comes after a SaslHandshake that was accepted.",
            "auth_bytes": b"",
        }
    exchange = _exchange(peer)
    try:
        if exchange.failures >= KAFKA_SASL_TRIES_MAX:
            raise Unauthorized("Too many wrong tries on this connection.")
        answer, identity = await _step(peer, exchange, bytes(request.fields["auth_bytes"]))
        if identity is not None:
            _accept(peer, exchange, identity)
    except HeadwaterError as error:
        exchange.scram, peer.mechanism = None, ""
        if isinstance(error, Unauthorized | InvalidRequest):
            exchange.failures += 1
            await peer.gateway.clock.sleep(KAFKA_SASL_DELAY_S)
        return {**told(error, **_CODES), "auth_bytes": b""}
    return {"error_code": ErrorCode.none, "auth_bytes": answer}


async def _step(peer: Peer, exchange: Exchange, message: bytes) -> tuple[bytes, Identity | None]:
    """The answer to one message, and who the client is if that was the last one."""
    if peer.mechanism == sasl.PLAIN:
        user, password = sasl.plain(message)
        return b"", await _by_token(peer, password, user)
    if peer.mechanism == sasl.OAUTHBEARER:
        user, token = sasl.bearer(message)
        return b"", await _by_token(peer, token, user)
    if exchange.scram is None:
        random = peer.namespace.chain.rng.getrandbits
        users, nonce = peer.gateway.settings.scram, sasl.fresh_nonce(random)
        exchange.scram = sasl.ScramServer(peer.mechanism, users, nonce=nonce)
        return exchange.scram.first(message), None
    server, exchange.scram = exchange.scram, None
    try:
        return server.final(message), Identity(principal=check_principal(server.user))
    except HeadwaterError:
        raise Unauthorized(_WRONG) from None


async def _by_token(peer: Peer, token: str, user: str) -> Identity:
    """The bearer of an API key's token; ``user`` is the key's id or its principal, or nobody in particular."""
    key = token.removeprefix(TOKEN_PREFIX).partition("_")[0]
    shown = HttpRequest(method="POST", path="/", headers={"authorization": f"Bearer {token}"})
    try:
        identity = await peer.namespace.shared(_authenticator).authenticate(shown, peer.namespace)
    except Unauthorized:
        raise Unauthorized(_WRONG) from None
    if user not in ("", key, identity.principal):
        raise Unauthorized(_WRONG)
    return identity


def _accept(peer: Peer, exchange: Exchange, identity: Identity) -> None:
    if exchange.principal not in ("", identity.principal):
        raise Unauthorized("A connection stays whose it is; connect anew as somebody else.")
    exchange.principal = peer.principal = identity.principal
    peer.service = peer.gateway.service_for(peer.namespace, identity, peer.host)


def _exchange(peer: Peer) -> Exchange:
    if not isinstance(peer.sasl, Exchange):
        peer.sasl = Exchange()
    return peer.sasl


def _mechanisms(peer: Peer) -> list[str]:
    """What a client may choose: SCRAM only where somebody has a password for it."""
    users = peer.gateway.settings.scram.values()
    scram = [mechanism for mechanism in sasl.SCRAM if any(mechanism in entries for entries in users)]
    return [sasl.PLAIN, *scram, sasl.OAUTHBEARER]


def _authenticator(namespace: Namespace) -> Authenticator:
    return Authenticator("token", namespace.chain.clock)


# -- SCRAM users -----------------------------------------------------------------------------------------


async def describe_scram(peer: Peer, request: Request) -> Fields:
    """DescribeUserScramCredentials: who has a password for SCRAM at this gateway."""
    try:
        await peer.service.enter(fresh=True)
        peer.service.check("describe", "cluster")
    except HeadwaterError as error:
        return {**told(error, Forbidden=ErrorCode.cluster_authorization_failed), "results": []}
    users: sasl.Users = peer.gateway.settings.scram
    asked = Counter(each["name"] for each in request.fields["users"] or ())
    results = [_described(users, name, count) for name, count in (asked or dict.fromkeys(sorted(users), 1)).items()]
    return {"error_code": ErrorCode.none, "results": results}


def _described(users: sasl.Users, name: str, count: int) -> Fields:
    if count > 1:
        text = "A user can be described once in a request."
        return {"user": name, "error_code": ErrorCode.duplicate_resource, "error_message": text}
    if name not in users:
        text = "Attempt to describe a user credential that does not exist."
        return {"user": name, "error_code": ErrorCode.resource_not_found, "error_message": text}
    infos = [
        {"mechanism": _SCRAM_TYPES[mechanism], "iterations": keys.iterations} for mechanism, keys in users[name].items()
    ]
    return {"user": name, "error_code": ErrorCode.none, "credential_infos": infos}


async def alter_scram(peer: Peer, request: Request) -> Fields:
    """AlterUserScramCredentials: refused, since the log keeps no passwords and a gateway keeps nothing."""
    if peer.service.may("alter", "cluster"):
        code = ErrorCode.policy_violation
        text = "SCRAM users are in a file that gateways are started with; give everybody else an API key."
    else:
        code, text = ErrorCode.cluster_authorization_failed, "Only who may alter the cluster changes its users."
    named = [each["name"] for each in [*request.fields["deletions"], *request.fields["upsertions"]]]
    return {"results": [{"user": name, "error_code": code, "error_message": text} for name in dict.fromkeys(named)]}


APIS: Final = {
    17: Api(0, 1, handshake, open=True),
    36: Api(0, 2, authenticate, open=True),
    50: Api(0, 0, describe_scram),
    51: Api(0, 0, alter_scram),
}
