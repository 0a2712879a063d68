"""Who may do what: Kafka's access rules, indexed so that ten thousand of them cost a request a few microseconds.

    no rules at all          everybody who is authenticated may do everything
    one rule or more         what no rule allows is denied
    a denial                 beats every allowance
    ``root``                 holds the bucket anyway, and is always allowed

A rule names a principal (or ``*``), an operation (or ``all``), and a resource, literally, by prefix or as ``*``.
Allowing to read, write, delete or alter allows to describe as well; denying them does not deny that. The scopes of an
API key narrow what its principal may do: both must allow it, for ``root`` too. Topics whose names begin with ``__``
are the service's own: nobody writes or changes them, and who may describe the cluster may read them.

Source: Kafka's StandardAuthorizer and its table of operations (KIP-11, KIP-290).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from headwater.errors import Forbidden
from headwater.log.operations import AclRule, Operation, Resource
from headwater.log.state import State

__all__ = ["ANYBODY", "CLUSTER", "INTERNAL", "ROOT", "Rules", "allowed", "check", "rules_of"]

ROOT: Final = "root"
ANYBODY: Final = "*"
CLUSTER: Final = "kafka-cluster"  # the one resource of type cluster, by Kafka's name
INTERNAL: Final = "__"  # begins the names of the service's own topics

_BITS: dict[Operation, int] = {
    "read": 1,
    "write": 2,
    "create": 4,
    "delete": 8,
    "alter": 16,
    "describe": 32,
    "cluster_action": 64,
    "all": 127,
}
_DESCRIBE = _BITS["describe"]
_DESCRIBED = _BITS["read"] | _BITS["write"] | _BITS["delete"] | _BITS["alter"]  # each of these implies describe
_INDEXES_MAX = 32  # rule lists whose indexes are kept: one a namespace, and a few that were just replaced

_Masks = dict[str, list[int]]  # principal → [what is allowed, what is denied]


class _Names:
    """The rules of one type of resource, by name and by prefix."""

    __slots__ = ("lengths", "literal", "prefix")

    def __init__(self) -> None:
        self.literal: dict[str, _Masks] = {}
        self.prefix: dict[str, _Masks] = {}
        self.lengths: list[int] = []

    def matching(self, name: str) -> Iterator[_Masks]:
        """What the rules that match ``name`` say. Cost: a look-up for each length that some prefix has."""
        for known in (self.literal.get(name), self.literal.get(ANYBODY) if name != ANYBODY else None):
            if known is not None:
                yield known
        for length in self.lengths:
            found = self.prefix.get(name[:length]) if length <= len(name) else None
            if found is not None:
                yield found


class Rules:
    """Access rules, indexed. With ``everyone`` each rule is for whoever asks, as the scopes of a key are."""

    __slots__ = ("_names", "count")

    def __init__(self, rules: Sequence[AclRule], *, everyone: bool = False) -> None:
        self.count = len(rules)
        self._names: dict[Resource, _Names] = {}
        for rule in rules:
            self._add(rule, ANYBODY if everyone else rule.principal)
        for names in self._names.values():
            names.lengths = sorted({len(prefix) for prefix in names.prefix})

    def allows(self, principal: str, operation: Operation, resource: Resource, name: str) -> bool:
        """Whether some rule allows it and none denies it."""
        allow, deny = self._said(principal, resource, name)
        bit = _BITS[operation]
        return bool(allow & bit) and not deny & bit

    def allows_some(self, principal: str, operation: Operation, resource: Resource) -> bool:
        """Whether there may be a resource of the type with which the principal may do it.

        Cost: a look at every rule of the type (Kafka: authorizeByResourceType).
        """
        names = self._names.get(resource)
        if names is None:
            return False
        bit = _BITS[operation]
        return any(
            masks[who][0] & bit and self.allows(principal, operation, resource, name)
            for known in (names.literal, names.prefix)
            for name, masks in known.items()
            for who in (principal, ANYBODY)
            if who in masks
        )

    def _said(self, principal: str, resource: Resource, name: str) -> tuple[int, int]:
        names = self._names.get(resource)
        allow = deny = 0
        for masks in names.matching(name) if names is not None else ():
            for who in (principal, ANYBODY):
                said = masks.get(who)
                if said is not None:
                    allow |= said[0]
                    deny |= said[1]
        return allow, deny

    def _add(self, rule: AclRule, principal: str) -> None:
        names = self._names.setdefault(rule.resource, _Names())
        # There is one cluster, whatever a rule calls it.
        name = ANYBODY if rule.resource == "cluster" else rule.name
        literal = rule.pattern == "literal" or rule.resource == "cluster"
        masks = (names.literal if literal else names.prefix).setdefault(name, {})
        said = masks.setdefault(principal, [0, 0])
        bit = _BITS[rule.operation]
        if not rule.allow:
            said[1] |= bit
        else:
            said[0] |= bit | (_DESCRIBE if bit & _DESCRIBED else 0)


_indexes: dict[int, tuple[Sequence[AclRule], Rules]] = {}


def rules_of(rules: Sequence[AclRule]) -> Rules:
    """The index of ``rules``, which must not change: a state replaces its list. Kept for the next request."""
    known = _indexes.get(id(rules))
    if known is not None and known[0] is rules:
        return known[1]
    made = Rules(rules)
    while len(_indexes) >= _INDEXES_MAX:
        _indexes.pop(next(iter(_indexes)), None)
    _indexes[id(rules)] = (rules, made)  # it holds the list, so that nobody else gets its id
    return made


def allowed(
    state: State, principal: str, scopes: Rules | None, operation: Operation, resource: Resource, name: str = CLUSTER
) -> bool:
    """Whether the principal may do it: its scopes, if it has any, and the rules of the namespace must allow it."""
    return not _obstacle(state, principal, scopes, operation, resource, name)


def check(
    state: State, principal: str, scopes: Rules | None, operation: Operation, resource: Resource, name: str = CLUSTER
) -> None:
    """Raise ``Forbidden`` unless ``allowed``. The same for what exists and for what does not."""
    obstacle = _obstacle(state, principal, scopes, operation, resource, name)
    if obstacle:
        what = "the cluster" if resource == "cluster" else f"{resource.replace('_', ' ')} {name!r}"
        raise Forbidden(
            f"Principal {principal!r} may not {operation.replace('_', ' ')} {what}: {obstacle}",
            principal=principal,
            operation=operation,
            resource=resource,
            name=name,
        )


def check_some(state: State, principal: str, scopes: Rules | None, operation: Operation, resource: Resource) -> None:
    """Raise ``Forbidden`` unless the principal may do it with some resource of the type."""
    rules = rules_of(state.acls)
    free = principal == ROOT or not rules.count or rules.allows_some(principal, operation, resource)
    if not free or (scopes is not None and not scopes.allows_some(principal, operation, resource)):
        raise Forbidden(
            f"Principal {principal!r} may not {operation} any {resource.replace('_', ' ')}: {_GRANT}",
            principal=principal,
            operation=operation,
            resource=resource,
        )


_GRANT = "no access rule allows it, or one denies it. Whoever may alter the cluster can add a rule; `root` always may."
_SCOPE = "the API key is not scoped for it. Whoever may alter the cluster can make a key with this scope."
_OWN = "the service alone writes and changes topics whose names begin with '__'. Name another topic."


def _obstacle(
    state: State, principal: str, scopes: Rules | None, operation: Operation, resource: Resource, name: str
) -> str:
    """What stands in the way, or nothing."""
    if resource == "topic" and name.startswith(INTERNAL):
        if operation not in ("read", "describe"):
            return _OWN
        operation, resource, name = "describe", "cluster", CLUSTER
    if scopes is not None and not scopes.allows(principal, operation, resource, name):
        return _SCOPE
    if principal == ROOT:
        return ""
    rules = rules_of(state.acls)
    return "" if not rules.count or rules.allows(principal, operation, resource, name) else _GRANT
