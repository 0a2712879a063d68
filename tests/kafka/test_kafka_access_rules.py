"""Quotas and access rules through Kafka's admin APIs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.kafka.model import Fields, Peer
from headwater.log.operations import AclRule
from headwater.log.state.model import Quota
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import memory, opened, simulate

DESCRIBE_QUOTAS, ALTER_QUOTAS = 48, 49
DESCRIBE_ACLS, CREATE_ACLS, DELETE_ACLS = 29, 30, 31


async def administrator() -> Peer:
    """Who may do everything, in an empty namespace."""
    return peer(await opened(memory()))


# -- quotas --------------------------------------------------------------------------------------------

USER = [{"entity_type": "user", "entity_name": "ann"}]
ANYBODY = [{"entity_type": "user", "entity_name": None}]


def rate(key: str, value: float = 0.0, *, remove: bool = False) -> Fields:
    return {"key": key, "value": value, "remove": remove}


async def set_quota(known: Peer, entity: list[Fields], *ops: Fields, **more: Any) -> E:
    found = await ask(known, ALTER_QUOTAS, entries=[{"entity": entity, "ops": list(ops)}], **more)
    return E(found["entries"][0]["error_code"])


@pytest.mark.parametrize(
    ("entity", "ops", "code"),
    [
        (USER, [rate("producer_byte_rate", 10)], E.none),
        (ANYBODY, [rate("consumer_byte_rate", 10)], E.none),
        (USER, [rate("request_percentage", 10)], E.invalid_request),
        (USER, [rate("controller_mutation_rate", 10)], E.invalid_request),
        (USER, [rate("producer_byte_rate", 0)], E.invalid_request),
        (USER, [rate("producer_byte_rate", 1.5)], E.invalid_request),
        (USER, [rate("producer_byte_rate", -1)], E.invalid_request),
        (USER, [rate("producer_byte_rate", math.nan)], E.invalid_request),
        (USER, [rate("producer_byte_rate", math.inf)], E.invalid_request),
        (USER, [rate("producer_byte_rate", 1), rate("producer_byte_rate", 2)], E.invalid_request),
        ([{"entity_type": "client-id", "entity_name": "c"}], [rate("producer_byte_rate", 1)], E.invalid_request),
        ([*USER, {"entity_type": "client-id", "entity_name": "c"}], [rate("producer_byte_rate", 1)], E.invalid_request),
        ([{"entity_type": "user", "entity_name": "*"}], [rate("producer_byte_rate", 1)], E.invalid_request),
        ([], [rate("producer_byte_rate", 1)], E.invalid_request),
    ],
)
def test_quotas_are_bytes_a_second_of_users(entity: list[Fields], ops: list[Fields], code: E) -> None:
    async def main() -> None:
        known = await administrator()
        assert code == await set_quota(known, entity, *ops, validate_only=True)
        assert {} == known.namespace.state.quotas
        assert code == await set_quota(known, entity, *ops)
        assert (code == E.none) == bool(known.namespace.state.quotas)

    simulate(main())


def test_a_rate_that_is_removed_leaves_the_others_alone() -> None:
    async def main() -> None:
        known = await administrator()
        await known.service.set_quota("ann", requests_per_s=7)
        await set_quota(known, USER, rate("producer_byte_rate", 10), rate("consumer_byte_rate", 20))
        assert {"ann": Quota(10, 20, 7)} == known.namespace.state.quotas
        await set_quota(known, USER, rate("producer_byte_rate", remove=True))
        assert {"ann": Quota(-1, 20, 7)} == known.namespace.state.quotas
        found = await ask(known, DESCRIBE_QUOTAS, components=[], strict=False)
        assert [(USER, [{"key": "consumer_byte_rate", "value": 20.0}])] == [
            (each["entity"], each["values"]) for each in found["entries"]
        ]

    simulate(main())


@pytest.mark.parametrize(
    ("components", "strict", "names"),
    [
        ([], False, {"ann", "bob", None}),
        ([], True, set()),
        ([{"entity_type": "user", "match_type": 0, "match": "ann"}], True, {"ann"}),
        ([{"entity_type": "user", "match_type": 0, "match": "eve"}], False, set()),
        ([{"entity_type": "user", "match_type": 1, "match": None}], False, {None}),
        ([{"entity_type": "user", "match_type": 2, "match": None}], False, {"ann", "bob"}),
        ([{"entity_type": "ip", "match_type": 2, "match": None}], False, set()),
    ],
)
def test_quotas_are_found_by_filter(components: list[Fields], strict: bool, names: set[str | None]) -> None:
    async def main() -> None:
        known = await administrator()
        for name in ("ann", "bob", "*"):
            await known.service.set_quota(name, produce_bytes_per_s=5)
        found = await ask(known, DESCRIBE_QUOTAS, components=components, strict=strict)
        assert names == {each["entity"][0]["entity_name"] for each in found["entries"]}

    simulate(main())


def test_filters_and_entities_of_quotas_come_once() -> None:
    async def main() -> None:
        known = await administrator()
        twice = [{"entity_type": "user", "match_type": 2, "match": None}] * 2
        for components in (twice, [{"entity_type": "shoe", "match_type": 0, "match": "x"}]):
            found = await ask(known, DESCRIBE_QUOTAS, components=components, strict=False)
            assert (E.invalid_request, None) == (found["error_code"], found["entries"])
        entry = {"entity": USER, "ops": [rate("producer_byte_rate", 1)]}
        found = await ask(known, ALTER_QUOTAS, entries=[entry, entry])
        assert [E.invalid_request] * 2 == [each["error_code"] for each in found["entries"]]

    simulate(main())


# -- access rules ----------------------------------------------------------------------------------------

ALLOW, DENY = 3, 2


def binding(**changed: Any) -> Fields:
    """ann may read the topic t."""
    return {
        "resource_type": 2,
        "resource_name": "t",
        "resource_pattern_type": 3,
        "principal": "User:ann",
        "host": "*",
        "operation": 3,
        "permission_type": ALLOW,
        **changed,
    }


def matching(**changed: Any) -> Fields:
    """All rules."""
    return {
        "resource_type_filter": 1,
        "resource_name_filter": None,
        "pattern_type_filter": 1,
        "principal_filter": None,
        "host_filter": None,
        "operation": 1,
        "permission_type": 1,
        **changed,
    }


@pytest.mark.parametrize(
    ("creation", "rule"),
    [
        (binding(), AclRule("ann", "read", "topic", "t")),
        (binding(principal="User:*"), AclRule("*", "read", "topic", "t")),
        (binding(resource_name="*"), AclRule("ann", "read", "topic", "*")),
        (binding(resource_pattern_type=4), AclRule("ann", "read", "topic", "t", "prefix")),
        (binding(permission_type=DENY), AclRule("ann", "read", "topic", "t", "literal", False)),
        (binding(resource_type=3), AclRule("ann", "read", "group", "t")),
        (binding(resource_type=5, operation=4), AclRule("ann", "write", "transactional_id", "t")),
        (binding(resource_type=4, resource_name="kafka-cluster", operation=9),
         AclRule("ann", "cluster_action", "cluster", "kafka-cluster")),
        (binding(operation=2), AclRule("ann", "all", "topic", "t")),
        (binding(host="10.0.0.1"), None),
        (binding(principal="Group:x"), None),
        (binding(principal="User:"), None),
        (binding(principal="User:root"), None),
        (binding(resource_type=6), None),
        (binding(resource_type=1), None),
        (binding(resource_pattern_type=1), None),
        (binding(resource_pattern_type=2), None),
        (binding(operation=1), None),
        (binding(operation=10), None),
        (binding(operation=12), None),
        (binding(permission_type=1), None),
        (binding(resource_name=""), None),
        (binding(resource_name="a/b"), None),
        (binding(resource_type=4, resource_name="mine"), None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", range(1, 4))
def test_a_rule_is_kept_as_it_was_meant_or_refused(creation: Fields, rule: AclRule | None, version: int) -> None:
    async def main() -> None:
        known = await administrator()
        found = await ask(known, CREATE_ACLS, version, creations=[creation, binding(principal="User:zed")])
        codes = [E.none if rule else E.invalid_request, E.none]
        assert codes == [each["error_code"] for each in found["results"]]
        kept = {*([rule] if rule else []), AclRule("zed", "read", "topic", "t")}
        assert kept == set(known.namespace.state.acls)

    simulate(main())


RULES = [
    AclRule("ann", "read", "topic", "orders"),
    AclRule("ann", "write", "topic", "orders"),
    AclRule("bob", "read", "topic", "ord", "prefix"),
    AclRule("*", "read", "topic", "*"),
    AclRule("ann", "read", "group", "orders"),
    AclRule("eve", "all", "topic", "orders", "literal", False),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (matching(), range(6)),
        (matching(resource_type_filter=3), [4]),
        (matching(resource_name_filter="orders"), [0, 1, 4, 5]),
        (matching(resource_name_filter="orders", pattern_type_filter=3), [0, 1, 4, 5]),
        (matching(resource_name_filter="orders", pattern_type_filter=2), range(6)),
        (matching(resource_name_filter="orders2", pattern_type_filter=2), [2, 3]),
        (matching(resource_name_filter="ord", pattern_type_filter=4), [2]),
        (matching(pattern_type_filter=4), [2]),
        (matching(principal_filter="User:ann"), [0, 1, 4]),
        (matching(principal_filter="User:*"), [3]),
        (matching(principal_filter="ann"), []),
        (matching(operation=3), [0, 2, 3, 4]),
        (matching(permission_type=DENY), [5]),
        (matching(host_filter="*"), range(6)),
        (matching(host_filter="10.0.0.1"), []),
        (matching(resource_type_filter=7), []),
        (matching(resource_type_filter=0), None),
        (matching(operation=99), None),
        (matching(pattern_type_filter=0), None),
        (matching(permission_type=0), None),
    ],
)
def test_a_filter_finds_and_deletes_the_same_rules_as_in_kafka(wanted: Fields, found: Any) -> None:
    async def main() -> None:
        known = await administrator()
        await known.service.change_acls(RULES)
        answer = await ask(known, DESCRIBE_ACLS, **wanted)
        gone = (await ask(known, DELETE_ACLS, filters=[wanted]))["filter_results"][0]
        if found is None:
            assert [E.invalid_request] * 2 == [answer["error_code"], gone["error_code"]]
            return
        listed = [(each["resource_type"], each["resource_name"], acl["principal"], acl["operation"])
                  for each in answer["resources"] for acl in each["acls"]]  # fmt: skip
        matched = [(each["resource_type"], each["resource_name"], each["principal"], each["operation"])
                   for each in gone["matching_acls"]]  # fmt: skip
        assert (len(found), sorted(listed)) == (len(listed), sorted(matched))
        left = [rule for index, rule in enumerate(RULES) if index not in found]
        assert sorted(left) == known.namespace.state.acls

    simulate(main())


def test_who_may_not_alter_the_cluster_sees_and_changes_no_rules_and_no_quotas() -> None:
    async def main() -> None:
        root = await administrator()
        await root.service.change_acls(RULES)
        ann, denied = peer(root.namespace, "ann"), E.cluster_authorization_failed
        assert denied == (await ask(ann, DESCRIBE_ACLS, **matching()))["error_code"]
        for creation in (binding(), binding(host="h")):
            assert denied == (await ask(ann, CREATE_ACLS, creations=[creation]))["results"][0]["error_code"]
        assert denied == (await ask(ann, DELETE_ACLS, filters=[matching()]))["filter_results"][0]["error_code"]
        assert denied == (await ask(ann, DESCRIBE_QUOTAS, components=[], strict=False))["error_code"]
        assert denied == await set_quota(ann, USER, rate("producer_byte_rate", 1))
        assert (sorted(RULES), {}) == (root.namespace.state.acls, root.namespace.state.quotas)

    simulate(main())
