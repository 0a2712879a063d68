"""What all verbs share: who asks, on what knowledge it is decided, what it costs them, and what errors may say."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from headwater.api import access
from headwater.api.access import ROOT, Rules
from headwater.api.names import check_name, check_principal
from headwater.api.quotas import Kind, Quotas
from headwater.errors import Forbidden, HeadwaterError
from headwater.limits import ACCESS_STALE_S
from headwater.log.namespace import Namespace
from headwater.log.operations import AclRule, AnyOp, Operation, Resource
from headwater.log.state import Outcome, State

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="ServiceBase")


class ServiceBase:
    """One principal's way into one namespace. Cheap to make: edges make one for each request."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        principal: str = ROOT,
        scopes: Sequence[AclRule] | None = None,
        quotas: Quotas | None = None,
        host: str = "",
    ) -> None:
        self.namespace = namespace.name
        self.principal = check_principal(principal)
        self.host = check_name("host", host, empty=True)
        self._space = namespace
        self._granted = frozenset(scopes) if scopes else None
        self._scopes = Rules(scopes, everyone=True) if scopes else None
        self._quotas = quotas

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.namespace!r}, principal={self.principal!r})"

    async def aclose(self) -> None:
        """Return when nothing is in flight; a store that the namespace owns is closed."""
        await self._space.close()

    @property
    def _state(self) -> State:
        return self._space.state

    async def enter(self, *, fresh: bool = False) -> State:
        """The door of every verb: one request paid for, then rules that are fresh enough to be judged by.

        Reads look at the tip anyway (``fresh``), so they are judged by the rules of this very moment; writes by rules
        that are at most ``ACCESS_STALE_S`` old. The answer is the state to judge and answer by, for edges that do so
        for many things at once.

        Raises ``Throttled``, or what the store raises. Cost: 1 GET if ``fresh``, or if nobody has looked for so long.
        """
        if self._quotas is not None:
            self._quotas.take(self._state.quotas, self.namespace, self.principal, "requests")
        if fresh or (self.principal != ROOT and self._space.chain.age_s() > ACCESS_STALE_S):
            await self._space.refresh()
        return self._state

    def pay(self, kind: Kind, amount: int) -> None:
        """Pay before it is done, or raise ``Throttled``."""
        if self._quotas is not None:
            self._quotas.take(self._state.quotas, self.namespace, self.principal, kind, amount)

    def charge(self, kind: Kind, amount: int) -> None:
        """Pay for what was done."""
        if self._quotas is not None:
            self._quotas.charge(self._state.quotas, self.namespace, self.principal, kind, amount)

    def check_debt(self, kind: Kind) -> None:
        """Raise ``Throttled`` while earlier charges are unpaid."""
        if self._quotas is not None:
            self._quotas.check(self._state.quotas, self.namespace, self.principal, kind)

    def check(self, operation: Operation, resource: Resource, name: str = access.CLUSTER) -> None:
        """Raise ``Forbidden`` unless the principal may."""
        access.check(self._state, self.principal, self._scopes, operation, resource, name)

    def may(self, operation: Operation, resource: Resource, name: str = access.CLUSTER) -> bool:
        """Whether the principal may do it, by the rules as this process knows them."""
        return access.allowed(self._state, self.principal, self._scopes, operation, resource, name)

    @property
    def may_all(self) -> bool:
        """Whether nothing is forbidden: the owner, without a key of narrower scopes. For long lists."""
        return self.principal == ROOT and self._scopes is None

    def may_some(self, operation: Operation, resource: Resource) -> bool:
        """Whether the principal may do it with some resource of the type (Kafka: authorizeByResourceType)."""
        try:
            access.check_some(self._state, self.principal, self._scopes, operation, resource)
        except Forbidden:
            return False
        return True

    async def _change(self, op: AnyOp, action: str, resource: Resource, name: str, **details: object) -> Outcome:
        """Commit a change together with its audit record. Cost: 1 commit."""
        from headwater.api.audit import append_of

        record = await append_of(
            self._space,
            principal=self.principal,
            host=self.host,
            action=action,
            resource=resource,
            name=name,
            details=details,
        )
        return await self._space.writer.commit([record], [op])


def verb(
    call: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A verb whose errors say nothing of where the log is stored; the original error is their ``__cause__``."""

    @functools.wraps(call)
    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(self, *args, **kwargs)
        except HeadwaterError as error:
            clean = scrubbed(error, self._space)
            if clean is error:
                raise
            raise clean from error

    return guarded


_OBJECT = re.compile(
    r"\b(?:(?:manifest|snapshot|boundary|index|segment|files|branch)/[0-9]{20}|archive/topic=)[^\s'\",;)]*"
)  # keys as the log has them
_URL = re.compile(r"\b(?:s3|file|memory|https?)://[^\s'\",;)]*")


def scrubbed(error: HeadwaterError, namespace: Namespace) -> HeadwaterError:
    """The same error without the bucket's URL, name and keys, in text and data. ``error`` itself if it has none."""
    fields = {name: _clean(value, namespace) for name, value in error.__dict__.items() if isinstance(value, str)}
    data = {
        name: value
        for name, value in error.data.items()
        if not isinstance(value, str) or value == _clean(value, namespace)
    }
    if data == error.data and all(value == error.__dict__[name] for name, value in fields.items()):
        return error
    clean = type(error).__new__(type(error))
    clean.__dict__.update(error.__dict__)
    clean.__dict__.update(fields)
    clean.data = data
    clean.args = (clean.message,)
    return clean


def _clean(text: str, namespace: Namespace) -> str:
    for url in (namespace.store.url, namespace.bucket.url):
        parts = urlsplit(url)
        folder = parts.path if parts.scheme == "file" else parts.netloc + parts.path if parts.path.strip("/") else ""
        for secret in (url, folder, repr(parts.netloc)):
            if len(secret) > 2:
                text = text.replace(secret, "the store")
    # Stores name whole keys, which begin with the namespace; the log names them without it.
    text = re.sub(rf"(?<![A-Za-z0-9._-]){re.escape(namespace.name)}/[^\s'\",;)]*", "an object", text)
    return _OBJECT.sub("an object", _URL.sub("the store", text))
