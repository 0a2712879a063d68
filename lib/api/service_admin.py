"""Administration: access rules, API keys, quotas. Every change is recorded in ``__audit``, with its own commit."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from headwater.api.access import CLUSTER, ROOT
from headwater.api.auth import digest_of, token_of
from headwater.api.names import check_name, check_namespace_configs, check_number, check_principal, check_rule
from headwater.api.service_base import ServiceBase, verb
from headwater.api.verbs import AclRule, KeyInfo, NamespaceInfo, QuotaInfo
from headwater.errors import Conflict, Forbidden, InvalidRequest, NotFound
from headwater.limits import ACLS_MAX, SCOPES_MAX
from headwater.log import operations as ops
from headwater.log.keys import fresh_name
from headwater.log.state import ApiKey

_ID_BITS = 80
_SECRET_BITS = 256


class AdminVerbs(ServiceBase):
    """The verbs for whoever may alter the cluster."""

    @verb
    async def acls(self) -> Sequence[AclRule]:
        await self.enter(fresh=True)
        self.check("describe", "cluster")
        return list(self._state.acls)

    @verb
    async def change_acls(self, add: Sequence[AclRule] = (), remove: Sequence[AclRule] = ()) -> None:
        if not 1 <= len(add) + len(remove) <= ACLS_MAX:
            raise InvalidRequest(f"One request adds and removes 1 to {ACLS_MAX} rules, not {len(add) + len(remove)}.")
        for rule in add:
            check_rule(rule)
        await self.enter()
        self.check("alter", "cluster")
        op = ops.ChangeAcls(add=list(add), remove=list(remove))
        await self._change(op, "change_acls", "cluster", CLUSTER, add=list(add), remove=list(remove))

    @verb
    async def create_key(
        self, principal: str, *, scopes: Sequence[AclRule] = (), expires_ms: int = 0
    ) -> tuple[KeyInfo, str]:
        check_principal(principal)
        check_number("time of expiry in ms", expires_ms)
        if 0 < expires_ms <= self._space.chain.clock.wall_ms():
            raise InvalidRequest(f"The key would have expired at {expires_ms} ms already; name a time to come.")
        narrowed = _scopes(principal, scopes)
        await self.enter()
        self.check("alter", "cluster")
        self._check_grant(principal, narrowed)
        rng = self._space.chain.rng
        key = fresh_name(rng, _ID_BITS)
        random = rng.getrandbits(_SECRET_BITS).to_bytes(_SECRET_BITS // 8, "big")
        secret = base64.urlsafe_b64encode(random).rstrip(b"=").decode()
        op = ops.SetKey(
            key=key,
            hash=digest_of(secret),
            principal=principal,
            scopes=narrowed,
            expires_ms=expires_ms,
        )
        await self._change(
            op, "create_key", "cluster", CLUSTER, key=key, principal=principal, scopes=narrowed, expires_ms=expires_ms
        )
        made = self._state.keys.get(key)
        if made is None:
            raise NotFound(f"API key {key!r} was made, and revoked at once by somebody else.")
        return _info(key, made), token_of(key, secret)

    @verb
    async def keys(self) -> Sequence[KeyInfo]:
        await self.enter(fresh=True)
        self.check("describe", "cluster")
        return [_info(key, known) for key, known in sorted(self._state.keys.items())]

    @verb
    async def revoke_key(self, key: str) -> None:
        check_name("API key's id", key)
        await self.enter()
        self.check("alter", "cluster")
        await self._change(ops.RevokeKey(key=key), "revoke_key", "cluster", CLUSTER, key=key)

    @verb
    async def change_scram(self, op: ops.SetScram | ops.DropScram) -> None:
        """A user's password for SCRAM at Kafka gateways, or its end; what comes in here is no password any more.

        Whoever knows the password is the user, so nobody makes one for somebody who may do more than the maker.

        Raises:
            NotFound: there is no such user. Forbidden. InvalidRequest: there are too many.

        Cost: 1 commit.
        """
        check_principal(op.user)
        await self.enter()
        self.check("alter", "cluster")
        self._check_grant(op.user, ())
        action = "set_scram" if isinstance(op, ops.SetScram) else "drop_scram"
        await self._change(op, action, "cluster", CLUSTER, user=op.user, mechanism=op.mechanism)

    @verb
    async def quotas(self) -> Sequence[QuotaInfo]:
        await self.enter(fresh=True)
        self.check("describe", "cluster")
        return [
            QuotaInfo(
                principal=principal,
                produce_bytes_per_s=quota.produce_bytes_per_s,
                fetch_bytes_per_s=quota.fetch_bytes_per_s,
                requests_per_s=quota.requests_per_s,
            )
            for principal, quota in sorted(self._state.quotas.items())
        ]

    @verb
    async def set_quota(
        self, principal: str, *, produce_bytes_per_s: int = -1, fetch_bytes_per_s: int = -1, requests_per_s: int = -1
    ) -> None:
        check_principal(principal, anybody=True)
        bounds = {
            "produce_bytes_per_s": produce_bytes_per_s,
            "fetch_bytes_per_s": fetch_bytes_per_s,
            "requests_per_s": requests_per_s,
        }
        for name, bound in bounds.items():
            check_number(name, bound, -1)
        await self.enter()
        self.check("alter", "cluster")
        op = ops.SetQuota(principal=principal, **bounds)
        await self._change(op, "set_quota", "cluster", CLUSTER, principal=principal, **bounds)

    @verb
    async def abort_producer(self, producer: int, epoch: int) -> None:
        """Void what ``producer`` has reserved under ``epoch``, and fence it: its next request is refused (KIP-664).

        Raises:
            Forbidden: the principal may not alter the cluster.
            NotFound: there is no such producer. Conflict: it has nothing open.
            Fenced: it is at another epoch by now, so what was meant has ended already. Nothing was done.

        Cost: 1 GET and 1 commit, which readers that wait for the transaction's end see.
        """
        check_number("producer id", producer)
        check_number("epoch", epoch)
        await self.enter(fresh=True)
        self.check("alter", "cluster")
        known = self._state.producers.get(producer)
        if known is None:
            raise NotFound(f"There is no producer {producer}.", producer=producer)
        if known.epoch == epoch and not known.is_busy:
            raise Conflict(
                f"Producer {producer} has no transaction open that holds something; there is nothing to abort."
            )
        op = ops.EndReserve(pid=producer, epoch=epoch, commit=False, bump=True, after=known.steps)
        await self._change(
            op, "abort_transaction", "cluster", CLUSTER, producer=producer, epoch=epoch, transactional_id=known.tid
        )

    @verb
    async def describe_namespace(self) -> NamespaceInfo:
        await self.enter(fresh=True)
        self.check("describe", "cluster")
        state = self._state
        return NamespaceInfo(name=self.namespace, config=dict(state.config), commit=state.seq, time_ms=state.time_ms)

    @verb
    async def alter_namespace(self, config: Mapping[str, str | None]) -> None:
        wanted = check_namespace_configs(config)
        await self.enter()
        self.check("alter", "cluster")
        await self._change(ops.AlterNamespace(config=wanted), "alter_namespace", "cluster", CLUSTER, config=wanted)

    def _check_grant(self, principal: str, scopes: Sequence[AclRule]) -> None:
        """Nobody makes a key that can do more than its maker: not one of ``root``, and not one with wider scopes."""
        if principal == ROOT and self.principal != ROOT:
            raise Forbidden(f"Only {ROOT!r} makes keys of {ROOT!r}; ask whoever holds the bucket.")
        if self._granted is not None and not (scopes and set(scopes) <= self._granted):
            raise Forbidden("A key with scopes makes only keys whose scopes are among its own; use a wider key.")


def _scopes(principal: str, scopes: Sequence[AclRule]) -> list[AclRule]:
    """The scopes in the form in which they are kept. Raises ``InvalidRequest``."""
    if len(scopes) > SCOPES_MAX:
        raise InvalidRequest(f"A key has at most {SCOPES_MAX} scopes, not {len(scopes)}.")
    kept = []
    for rule in scopes:
        if rule.principal not in ("", "*", principal):
            raise InvalidRequest(f"A scope is for the key's own principal {principal!r}, not {rule.principal[:40]!r}.")
        kept.append(check_rule(AclRule("*", rule.operation, rule.resource, rule.name, rule.pattern, rule.allow)))
    return sorted(set(kept))


def _info(key: str, known: ApiKey) -> KeyInfo:
    return KeyInfo(
        key=key,
        principal=known.principal,
        created_ms=known.created_ms,
        expires_ms=known.expires_ms,
        scopes=tuple(known.scopes),
    )
