"""Quotas through Kafka's admin APIs (KIP-546): those of users, in bytes a second for each gateway.

    user       a principal, or without a name everybody who has no quota of their own
    keys       ``producer_byte_rate`` and ``consumer_byte_rate``; a quota of requests a second has no key of Kafka's and
               stays as it is
    refused    client ids, addresses, ``request_percentage``, ``controller_mutation_rate``: nothing here would keep them

A change reads what is set and writes the whole quota; of two at the same moment for one user the later one holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.access import ANYBODY
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.kafka.errors import told
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.admin import UNDECIDED
from headwater.kafka.model import Fields, Peer, Request
from headwater.log.state.model import Quota

_USER: Final = "user"
_TYPES: Final = (_USER, "client-id", "ip")
_EXACT, _DEFAULT, _NAMED = range(3)  # how a component of a filter matches
_KEYS: Final = {"producer_byte_rate": "produce_bytes_per_s", "consumer_byte_rate": "fetch_bytes_per_s"}
_RATE_MAX: Final = 2**53  # bytes a second that a double says exactly
_CODES: Final = {**UNDECIDED, "Forbidden": ErrorCode.cluster_authorization_failed}


async def describe_client_quotas(peer: Peer, request: Request) -> Fields:
    """DescribeClientQuotas."""
    try:
        matches = _filter(request.fields["components"], strict=request.fields["strict"])
        known = await peer.service.quotas()
    except HeadwaterError as error:
        return {**told(error, **_CODES), "entries": None}
    entries = []
    for quota in known:
        values = [
            {"key": key, "value": float(getattr(quota, name))}
            for key, name in _KEYS.items()
            if getattr(quota, name) >= 0
        ]
        if values and matches(quota.principal):
            entity = {"entity_type": _USER, "entity_name": None if quota.principal == ANYBODY else quota.principal}
            entries.append({"entity": [entity], "values": values})
    return {"error_code": ErrorCode.none, "entries": entries}


def _filter(components: Sequence[Fields], *, strict: bool) -> Callable[[str], bool]:
    """Whether the quota of a principal is meant. Raises ``InvalidRequest``."""
    kinds = Counter(each["entity_type"] for each in components)
    for kind, count in kinds.items():
        if kind not in _TYPES:
            raise InvalidRequest(f"Custom entity type {kind[:40]!r} not supported: it is {', '.join(_TYPES)}.")
        if count > 1:
            raise InvalidRequest(f"Duplicate entity type {kind!r} in the filter.")
    wanted = next((each for each in components if each["entity_type"] == _USER), None)
    if wanted is not None and wanted["match_type"] not in (_EXACT, _DEFAULT, _NAMED):
        raise InvalidRequest(f"Unexpected match type: {wanted['match_type']}")
    foreign = any(kind != _USER for kind in kinds)

    def matches(principal: str) -> bool:
        if foreign:  # of which no quota has anything
            return False
        if wanted is None:
            return not strict
        if wanted["match_type"] == _NAMED:
            return principal != ANYBODY
        name = ANYBODY if wanted["match_type"] == _DEFAULT else wanted["match"]
        return bool(principal == name)

    return matches


async def alter_client_quotas(peer: Peer, request: Request) -> Fields:
    """AlterClientQuotas. What is removed has no bound any more; one entity of a request after another."""
    check_only = request.fields["validate_only"]
    entities = Counter(_key(entry["entity"]) for entry in request.fields["entries"])
    entries = []
    for entry in request.fields["entries"]:
        try:
            if entities[_key(entry["entity"])] > 1:
                raise InvalidRequest("Each entity may be altered once in a request.")
            await _alter(peer, _principal(entry["entity"]), _rates(entry["ops"]), check_only=check_only)
            entries.append({"error_code": ErrorCode.none, "entity": entry["entity"]})
        except HeadwaterError as error:
            entries.append({**told(error, **_CODES), "entity": entry["entity"]})
    return {"entries": entries}


async def _alter(peer: Peer, principal: str, rates: dict[str, int], *, check_only: bool) -> None:
    await peer.service.enter(fresh=True)
    peer.service.check("alter", "cluster")
    present = peer.namespace.state.quotas.get(principal) or Quota()
    if check_only or not rates:
        return
    await peer.service.set_quota(
        principal,
        produce_bytes_per_s=rates.get("produce_bytes_per_s", present.produce_bytes_per_s),
        fetch_bytes_per_s=rates.get("fetch_bytes_per_s", present.fetch_bytes_per_s),
        requests_per_s=present.requests_per_s,
    )


def _key(entity: Sequence[Fields]) -> tuple[tuple[str, str | None], ...]:
    return tuple((each["entity_type"], each["entity_name"]) for each in entity)


def _principal(entity: Sequence[Fields]) -> str:
    if len(entity) != 1 or entity[0]["entity_type"] != _USER:
        raise InvalidRequest("Quotas are for users alone: name one entity of type 'user', or the default user.")
    name = entity[0]["entity_name"]
    if name == ANYBODY:
        raise InvalidRequest("'*' is no user; the default user is the one without a name.")
    return ANYBODY if name is None else str(name)


def _rates(steps: Sequence[Fields]) -> dict[str, int]:
    """The bounds to set, -1 to lift one. Raises ``InvalidRequest``."""
    if len({step["key"] for step in steps}) < len(steps):
        raise InvalidRequest("A quota key may be altered once for an entity.")
    return {_rate_name(step["key"]): -1 if step["remove"] else _rate(step["key"], step["value"]) for step in steps}


def _rate_name(key: str) -> str:
    if key not in _KEYS:
        raise InvalidRequest(
            f"Quotas here are {' and '.join(_KEYS)}, in bytes a second for each gateway, not {key[:40]!r}."
        )
    return _KEYS[key]


def _rate(key: str, value: float) -> int:
    if not 1 <= value <= _RATE_MAX or value != int(value):
        raise InvalidRequest(f"{key} is a whole number of bytes a second from 1 on, not {value}.")
    return int(value)


APIS: Final = {
    48: Api(0, 1, describe_client_quotas),
    49: Api(0, 1, alter_client_quotas),
}
