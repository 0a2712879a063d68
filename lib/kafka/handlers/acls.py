"""Access rules through Kafka's admin APIs (KIP-140, prefixes KIP-290): the namespace's own rules, in Kafka's numbers.

    principal    ``User:name`` is the principal ``name``; ``User:*`` is everybody
    host         only ``*``: a rule that held at one address alone would hold nowhere else, and HTTP has the same rules
    operations   those of ``headwater.api.access``; what reading configs needs is part of describing, what altering them
                 needs part of altering, and an idempotent producer needs no right of its own

What cannot be kept as it was meant is refused with a reason, each rule for itself; the others of the request are added
by one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kio.schema.errors import ErrorCode

from headwater.api.access import ANYBODY
from headwater.api.names import check_rule
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.kafka.errors import told
from headwater.kafka.handlers import Api
from headwater.kafka.model import Fields, Peer, Request
from headwater.kafka.rights import NUMBERS
from headwater.log.operations import AclRule

_ANY: Final = 1
_MATCH: Final = 2  # of pattern types
_RESOURCES: Final[dict[int, Any]] = {2: "topic", 3: "group", 4: "cluster", 5: "transactional_id"}
_OPERATIONS: Final[dict[int, Any]] = {number: name for name, number in NUMBERS.items()}
_PART_OF: Final = {10: "describe", 11: "alter", 12: "write (an idempotent producer needs no more)"}
_PATTERNS: Final[dict[int, Any]] = {3: "literal", 4: "prefix"}
_DENY, _ALLOW = 2, 3

_RESOURCE_NUMBERS: Final = {name: number for number, name in _RESOURCES.items()}
_PATTERN_NUMBERS: Final = {name: number for number, name in _PATTERNS.items()}

_RESOURCE_TYPES: Final = range(1, 8)  # what a filter may name; delegation tokens and users have no rules here
_OPERATION_TYPES: Final = range(1, 16)
_PATTERN_TYPES: Final = range(1, 5)
_PERMISSION_TYPES: Final = range(1, 4)
_USER: Final = "User:"
_DENIED: Final = {"Forbidden": ErrorCode.cluster_authorization_failed}


async def describe_acls(peer: Peer, request: Request) -> Fields:
    """DescribeAcls: the rules that a filter matches, by resource."""
    try:
        matches = _filter(request.fields)
        rules = await peer.service.acls()
    except HeadwaterError as error:
        return {**told(error, **_DENIED), "resources": []}
    found: dict[tuple[int, str, int], list[Fields]] = {}
    for rule in rules:
        if matches(rule):
            found.setdefault(_place(rule), []).append(_entry(rule))
    resources = [
        {"resource_type": kind, "resource_name": name, "pattern_type": pattern, "acls": entries}
        for (kind, name, pattern), entries in found.items()
    ]
    return {"error_code": ErrorCode.none, "resources": resources}


async def create_acls(peer: Peer, request: Request) -> Fields:
    """CreateAcls: one commit for all rules that make sense. A rule that exists is no error."""
    wanted: list[AclRule] = []
    results: list[Fields] = []
    for creation in request.fields["creations"]:
        try:
            wanted.append(_rule(creation))
            results.append({"error_code": ErrorCode.none})
        except InvalidRequest as error:
            results.append(told(error))
    if wanted or not results:
        results = _failed(results, await _change(peer, add=wanted))
    elif not peer.service.may("alter", "cluster"):
        text = "Only who may alter the cluster adds access rules."
        results = [{"error_code": ErrorCode.cluster_authorization_failed, "error_message": text} for _ in results]
    return {"results": results}


async def delete_acls(peer: Peer, request: Request) -> Fields:
    """DeleteAcls: one commit for what all filters match. A filter that matches nothing is no error."""
    try:
        await peer.service.enter(fresh=True)
        peer.service.check("alter", "cluster")
        rules = list(peer.namespace.state.acls)
    except HeadwaterError as error:
        return {"filter_results": [{**told(error, **_DENIED), "matching_acls": []} for _ in request.fields["filters"]]}
    results, gone = [], set()
    for each in request.fields["filters"]:
        try:
            matches = _filter(each)
        except InvalidRequest as error:
            results.append({**told(error), "matching_acls": []})
            continue
        matched = [rule for rule in rules if matches(rule)]
        gone.update(matched)
        results.append({"error_code": ErrorCode.none, "matching_acls": [_match(rule) for rule in matched]})
    trouble = await _change(peer, remove=sorted(gone)) if gone else None
    if trouble is not None:
        results = [{**each, "matching_acls": []} for each in _failed(results, trouble)]
    return {"filter_results": results}


async def _change(peer: Peer, *, add: Sequence[AclRule] = (), remove: Sequence[AclRule] = ()) -> HeadwaterError | None:
    if not add and not remove:
        return None
    try:
        await peer.service.change_acls(add, remove)
    except HeadwaterError as error:
        return error
    return None


def _failed(results: list[Fields], trouble: HeadwaterError | None) -> list[Fields]:
    """The results if the commit of all that are good so far failed."""
    if trouble is None:
        return results
    return [told(trouble, **_DENIED) if each["error_code"] == ErrorCode.none else each for each in results]


# -- from Kafka's numbers --------------------------------------------------------------------------------


def _rule(creation: Fields) -> AclRule:
    """The rule that is to be made. Raises ``InvalidRequest``."""
    kind, operation = creation["resource_type"], creation["operation"]
    pattern, permission = creation["resource_pattern_type"], creation["permission_type"]
    if kind not in _RESOURCES:
        raise InvalidRequest(f"Rules are for topics, groups, the cluster and transactional ids, not for type {kind}.")
    if operation in _PART_OF:
        raise InvalidRequest(f"Here this operation is part of another one: allow to {_PART_OF[operation]}.")
    if operation not in _OPERATIONS:
        raise InvalidRequest(f"Operation {operation} cannot be allowed or denied here.")
    if pattern not in _PATTERNS:
        raise InvalidRequest(f"A rule's pattern is literal or prefixed, not of type {pattern}.")
    if permission not in (_DENY, _ALLOW):
        raise InvalidRequest(f"A rule allows or denies; permission type {permission} does neither.")
    if creation["host"] != ANYBODY:
        raise InvalidRequest(f"Rules hold at every address: the host is '*', not {creation['host'][:40]!r}.")
    return check_rule(
        AclRule(
            _principal(creation["principal"]),
            _OPERATIONS[operation],
            _RESOURCES[kind],
            creation["resource_name"],
            _PATTERNS[pattern],
            permission == _ALLOW,
        )
    )


def _principal(text: str) -> str:
    if not text.startswith(_USER) or text == _USER:
        raise InvalidRequest(f"A principal is User:name, not {text[:40]!r}.")
    return text.removeprefix(_USER)


def _filter(fields: Fields) -> Callable[[AclRule], bool]:
    """Whether a rule is meant, by Kafka's rules (ResourcePatternFilter). Raises ``InvalidRequest``."""
    kind, operation = fields["resource_type_filter"], fields["operation"]
    pattern, permission = fields["pattern_type_filter"], fields["permission_type"]
    known = (
        kind in _RESOURCE_TYPES
        and operation in _OPERATION_TYPES
        and pattern in _PATTERN_TYPES
        and permission in _PERMISSION_TYPES
    )
    if not known:
        raise InvalidRequest("The filter has a resource, pattern, operation or permission type that is not known.")
    name, principal, host = fields["resource_name_filter"], fields["principal_filter"], fields["host_filter"]

    def matches(rule: AclRule) -> bool:
        return (
            kind in (_ANY, _RESOURCE_NUMBERS[rule.resource])
            and operation in (_ANY, NUMBERS[rule.operation])
            and permission in (_ANY, _ALLOW if rule.allow else _DENY)
            and principal in (None, _USER + rule.principal)
            and host in (None, ANYBODY)
            and _is_named(rule, name, pattern)
        )

    return matches


def _is_named(rule: AclRule, name: str | None, pattern: int) -> bool:
    number = _PATTERN_NUMBERS[rule.pattern]
    if pattern not in (_ANY, _MATCH, number):
        return False
    if name is None:
        return True
    if pattern != _MATCH:
        return name == rule.name
    return name.startswith(rule.name) if rule.pattern == "prefix" else rule.name in (name, ANYBODY)


# -- to Kafka's numbers ----------------------------------------------------------------------------------


def _place(rule: AclRule) -> tuple[int, str, int]:
    return _RESOURCE_NUMBERS[rule.resource], rule.name, _PATTERN_NUMBERS[rule.pattern]


def _entry(rule: AclRule) -> Fields:
    return {
        "principal": _USER + rule.principal,
        "host": ANYBODY,
        "operation": NUMBERS[rule.operation],
        "permission_type": _ALLOW if rule.allow else _DENY,
    }


def _match(rule: AclRule) -> Fields:
    kind, name, pattern = _place(rule)
    return {
        "error_code": ErrorCode.none,
        "resource_type": kind,
        "resource_name": name,
        "pattern_type": pattern,
        **_entry(rule),
    }


APIS: Final = {
    29: Api(1, 3, describe_acls),
    30: Api(1, 3, create_acls),
    31: Api(1, 3, delete_acls),
}
