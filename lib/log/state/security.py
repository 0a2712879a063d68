"""Access rules, API keys, SCRAM users and quotas: a namespace's own, and as durable as its records.

What they mean for a request is decided above (``headwater.api.access``); here they are only kept, so that every
process has the same ones from the same commit on.
"""

from __future__ import annotations

from typing import Any

from headwater.limits import ACLS_MAX, KEYS_MAX, QUOTAS_MAX, SCRAM_USERS_MAX
from headwater.log.operations import ChangeAcls, DropScram, RevokeKey, SetKey, SetQuota, SetScram
from headwater.log.operations_base import Op
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import ApiKey, Quota, Scram

_SCRAM_KEY_CHARS = {"SCRAM-SHA-256": 44, "SCRAM-SHA-512": 88}  # a digest in base64


def _change_acls(change: Change, op: ChangeAcls) -> None:
    rules = sorted({*change.state.acls, *op.add} - set(op.remove))
    if len(rules) > ACLS_MAX:
        raise Refused("too_many", f"The namespace would have {len(rules)} access rules; it may have {ACLS_MAX}.")
    change.set(change.state, "acls", rules)


def _set_key(change: Change, op: SetKey) -> None:
    keys = change.state.keys
    if op.key in keys:
        raise Refused("exists", f"API key {op.key!r} exists already.")
    if len(keys) >= KEYS_MAX:
        raise Refused("too_many", f"The namespace has {KEYS_MAX} API keys; revoke one first.")
    key = ApiKey(op.hash, op.principal, change.state.time_ms, list(op.scopes), op.expires_ms)
    change.set(change.state, "keys", {**keys, op.key: key})


def _revoke_key(change: Change, op: RevokeKey) -> None:
    if op.key not in change.state.keys:
        raise Refused("no_key", f"There is no API key {op.key!r}.")
    change.set(change.state, "keys", {name: key for name, key in change.state.keys.items() if name != op.key})


def _set_quota(change: Change, op: SetQuota) -> None:
    quota = Quota(op.produce_bytes_per_s, op.fetch_bytes_per_s, op.requests_per_s)
    quotas = {name: kept for name, kept in change.state.quotas.items() if name != op.principal}
    if quota != Quota():
        quotas[op.principal] = quota
    if len(quotas) > QUOTAS_MAX:
        raise Refused("too_many", f"The namespace has {QUOTAS_MAX} quotas; lift one first.")
    change.set(change.state, "quotas", quotas)


def _set_scram(change: Change, op: SetScram) -> None:
    users = change.state.scram
    known = Scram(op.salt, op.iterations, op.stored_key, op.server_key)
    size = _SCRAM_KEY_CHARS[op.mechanism]
    if len(known.stored_key) != size or len(known.server_key) != size:
        raise Refused("invalid", f"The keys of {op.mechanism} have {size} characters in base64.")
    if op.user not in users and len(users) >= SCRAM_USERS_MAX:
        raise Refused("too_many", f"The namespace has {SCRAM_USERS_MAX} SCRAM users; delete one first.")
    change.set(change.state, "scram", {**users, op.user: {**users.get(op.user, {}), op.mechanism: known}})


def _drop_scram(change: Change, op: DropScram) -> None:
    users = change.state.scram
    if op.mechanism not in users.get(op.user, {}):
        raise Refused("no_user", f"There is no user {op.user!r} of {op.mechanism}.")
    left = {mechanism: known for mechanism, known in users[op.user].items() if mechanism != op.mechanism}
    others = {user: known for user, known in users.items() if user != op.user}
    change.set(change.state, "scram", {**others, op.user: left} if left else others)


OPERATIONS: dict[type[Op], Any] = {
    ChangeAcls: _change_acls,
    SetKey: _set_key,
    RevokeKey: _revoke_key,
    SetQuota: _set_quota,
    SetScram: _set_scram,
    DropScram: _drop_scram,
}
