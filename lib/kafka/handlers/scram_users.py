"""SCRAM users (KIP-554): seen, made and deleted by admin tools, and kept in the log, so that all gateways share them.

A client that gives somebody a password sends the salted password; what is kept of it are the keys that check a proof
(RFC 5802). Users of the file that a gateway was started with come first: nobody who administers a namespace takes the
place of one, and they cannot be changed from here.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from kio.schema.errors import ErrorCode

from headwater.api.names import check_principal
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.kafka import sasl
from headwater.kafka.errors import Refusal, told
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.admin import for_each
from headwater.kafka.model import Fields, Peer, Request
from headwater.limits import SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN, SCRAM_SALT_MAX
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.state.model import Scram

MECHANISMS: Final = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
_NUMBERS: Final = {name: number for number, name in MECHANISMS.items()}


class Users(Mapping[str, Mapping[str, sasl.ScramKeys]]):
    """The users of the file and of a namespace as it is known now; keys are decoded when they are asked for."""

    def __init__(self, file: sasl.Users, log: Mapping[str, Mapping[str, Scram]]) -> None:
        self._file = file
        self._log = log

    def __getitem__(self, user: str) -> Mapping[str, sasl.ScramKeys]:
        if user in self._file:
            return self._file[user]
        return {mechanism: _keys(mechanism, known) for mechanism, known in self._log[user].items()}

    def __iter__(self) -> Iterator[str]:
        yield from self._file
        yield from (user for user in self._log if user not in self._file)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def mechanisms(self) -> list[str]:
        """Those for which somebody has a password."""
        known = (*self._file.values(), *self._log.values())
        return [each for each in sasl.SCRAM if any(each in entries for entries in known)]


def users_of(peer: Peer, namespace: Namespace) -> Users:
    """Who has a password for SCRAM in ``namespace``."""
    return Users(peer.gateway.settings.scram, namespace.state.scram)


def _keys(mechanism: str, known: Scram) -> sasl.ScramKeys:
    entry: dict[str, object] = {
        "salt": known.salt,
        "iterations": known.iterations,
        "stored_key": known.stored_key,
        "server_key": known.server_key,
    }
    return sasl.scram_keys(mechanism, entry)


# -- seen ------------------------------------------------------------------------------------------------


async def describe_scram(peer: Peer, request: Request) -> Fields:
    """DescribeUserScramCredentials: who has a password for SCRAM, and of how many iterations. Cost: 1 GET."""
    try:
        await peer.service.enter(fresh=True)
        peer.service.check("describe", "cluster")
    except HeadwaterError as error:
        return {**told(error, Forbidden=ErrorCode.cluster_authorization_failed), "results": []}
    users = users_of(peer, peer.namespace)
    asked = Counter(each["name"] for each in request.fields["users"] or ())
    results = [_described(users, name, count) for name, count in (asked or dict.fromkeys(sorted(users), 1)).items()]
    return {"error_code": ErrorCode.none, "results": results}


def _described(users: Users, name: str, count: int) -> Fields:
    if count > 1:
        text = "A user can be described once in a request."
        return {"user": name, "error_code": ErrorCode.duplicate_resource, "error_message": text}
    if name not in users:
        text = "Attempt to describe a user credential that does not exist."
        return {"user": name, "error_code": ErrorCode.resource_not_found, "error_message": text}
    infos = [{"mechanism": _NUMBERS[each], "iterations": keys.iterations} for each, keys in users[name].items()]
    return {"user": name, "error_code": ErrorCode.none, "credential_infos": infos}


# -- changed ---------------------------------------------------------------------------------------------


async def alter_scram(peer: Peer, request: Request) -> Fields:
    """AlterUserScramCredentials: passwords made, changed and deleted, each for itself. Cost: 1 commit each, shared."""
    deletions, upsertions = request.fields["deletions"], request.fields["upsertions"]
    counts = Counter((each["name"], each["mechanism"]) for each in [*deletions, *upsertions])
    changed: dict[str, list[Any]] = {}
    for wish in (*deletions, *upsertions):
        changed.setdefault(wish["name"], []).append(wish)

    async def one(name: str) -> Fields:
        try:
            if any(counts[name, each["mechanism"]] > 1 for each in changed[name]):
                text = "A user is altered once in a request for each mechanism."
                raise Refusal(ErrorCode.duplicate_resource, text)
            if name in peer.gateway.settings.scram:
                text = f"{name!r} is in the file that the gateway was started with: change it there."
                raise Refusal(ErrorCode.policy_violation, text)
            for op in [_op(name, each) for each in changed[name]]:
                await peer.service.change_scram(op)
        except HeadwaterError as error:
            return {"user": name, **told(error, **_CODES)}
        return {"user": name, "error_code": ErrorCode.none}

    return {"results": await for_each(list(changed), one)}


_CODES: Final = {
    "Forbidden": ErrorCode.cluster_authorization_failed,
    "NotFound": ErrorCode.resource_not_found,
    "InvalidRequest": ErrorCode.unacceptable_credential,
    "Unavailable": ErrorCode.coordinator_not_available,  # nothing was changed; admin clients try again
    "Indeterminate": ErrorCode.request_timed_out,
}


def _op(user: str, wish: Fields) -> ops.SetScram | ops.DropScram:
    """What one alteration asks the fold for. Raises ``InvalidRequest``."""
    mechanism = cast(ops.ScramMechanism, MECHANISMS.get(wish["mechanism"], ""))
    if not user:
        raise InvalidRequest("Username must not be empty.")
    if not mechanism:
        raise Refusal(ErrorCode.unsupported_sasl_mechanism, "Unknown SCRAM mechanism.")
    if "salted_password" not in wish:
        return ops.DropScram(user=user, mechanism=mechanism)
    check_principal(user)
    if not SCRAM_ITERATIONS_MIN <= wish["iterations"] <= SCRAM_ITERATIONS_MAX:
        few = "Too few" if wish["iterations"] < SCRAM_ITERATIONS_MIN else "Too many"
        bounds = f"{SCRAM_ITERATIONS_MIN} to {SCRAM_ITERATIONS_MAX}"
        raise InvalidRequest(f"{few} iterations: a password is hashed {bounds} times, not {wish['iterations']}.")
    salt, salted = bytes(wish["salt"]), bytes(wish["salted_password"])
    size = sasl.digest_bytes(mechanism)
    if not salt or len(base64.b64encode(salt)) > SCRAM_SALT_MAX or len(salted) != size:
        raise InvalidRequest(f"A password of {mechanism} comes with a salt, and salted it has {size} bytes.")
    kept = sasl.kept_of(mechanism, salted)
    return ops.SetScram(
        user=user, mechanism=mechanism, salt=base64.b64encode(salt).decode(), iterations=wish["iterations"], **kept
    )


APIS: Final = {
    50: Api(0, 0, describe_scram),
    51: Api(0, 0, alter_scram),
}
