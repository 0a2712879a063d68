"""Access rules: Kafka's model, its corners, and that ten thousand rules cost a request next to nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api.access import CLUSTER, Rules, allowed, check, check_some, rules_of
from headwater.clock import stopwatch_s
from headwater.errors import Forbidden
from headwater.log.operations import AclRule
from headwater.log.state import State


def rule(operation: Any = "read", name: str = "t", **fields: Any) -> AclRule:
    """A rule for ann and the topic t, unless told otherwise."""
    known: dict[str, Any] = {"principal": "ann", "resource": "topic", "pattern": "literal", "allow": True}
    return AclRule(operation=operation, name=name, **{**known, **fields})


def may(rules: list[AclRule], operation: Any = "read", name: str = "t", **fields: Any) -> bool:
    asked: dict[str, Any] = {"principal": "ann", "scopes": None, "resource": "topic", **fields}
    scopes = asked.pop("scopes")
    return allowed(
        State(acls=rules),
        asked["principal"],
        None if scopes is None else Rules(scopes, everyone=True),
        operation,
        asked["resource"],
        name,
    )


def test_without_any_rule_everybody_may_and_with_one_nobody_else_may() -> None:
    assert may([])
    assert may([rule()])
    assert not may([rule()], principal="bob")
    assert not may([rule()], name="u")
    assert not may([rule()], "write")
    assert not may([rule()], resource="group")


def test_a_star_is_every_principal_and_every_name_and_all_is_every_operation() -> None:
    assert may([rule(principal="*")], principal="bob")
    assert may([rule(name="*")], name="anything")
    assert may([rule("all")], "delete")
    assert not may([rule("all")], "delete", name="u")


def test_a_prefix_matches_what_begins_with_it_and_a_star_in_it_is_a_character() -> None:
    rules = [rule(name="app.", pattern="prefix"), rule(name="*", pattern="prefix", resource="group")]
    for name, expected in (("app.a", True), ("app.", True), ("app", False), ("xapp.a", False)):
        assert expected == may(rules, name=name)
    assert may(rules, name="*g", resource="group")
    assert not may(rules, name="g", resource="group")


@pytest.mark.parametrize(
    "denial",
    [
        rule(allow=False),
        rule(allow=False, principal="*"),
        rule("all", allow=False),
        rule(allow=False, name="*"),
        rule(allow=False, name="t", pattern="prefix"),
    ],
)
def test_a_denial_beats_every_allowance(denial: AclRule) -> None:
    allowances = [rule(), rule("all"), rule(name="*"), rule(principal="*"), rule(name="t", pattern="prefix")]
    assert may(allowances)
    assert not may([*allowances, denial])


@pytest.mark.parametrize("operation", ["read", "write", "delete", "alter"])
def test_who_may_use_may_describe_and_a_denied_use_is_no_denied_description(operation: Any) -> None:
    assert may([rule(operation)], "describe")
    assert may([rule(operation, allow=False), rule("describe")], "describe")
    assert not may([rule(operation), rule("describe", allow=False)], "describe")
    assert not may([rule("describe")], operation)


def test_creating_implies_nothing() -> None:
    assert not may([rule("create")], "describe")


def test_root_may_always_whatever_the_rules_say() -> None:
    assert may([rule("all", principal="*", name="*", allow=False)], "delete", principal="root")


def test_a_key_may_do_what_its_scopes_and_the_rules_both_allow() -> None:
    scope = rule(principal="somebody")
    assert may([], scopes=[scope])
    assert may([rule()], scopes=[scope])
    assert not may([rule()], scopes=[rule("write")])
    assert not may([rule("write")], scopes=[scope])
    assert not may([], "write", scopes=[scope])
    assert not may([], "write", scopes=[scope], principal="root")
    assert not may([], scopes=[scope, rule(allow=False)])


def test_there_is_one_cluster_whatever_a_rule_calls_it() -> None:
    for name in ("*", CLUSTER):
        assert may([rule("alter", resource="cluster", name=name)], "alter", name=CLUSTER, resource="cluster")
    assert not may([rule("all", name="*")], "alter", name=CLUSTER, resource="cluster")


@pytest.mark.parametrize("principal", ["ann", "root"])
@pytest.mark.parametrize("operation", ["write", "create", "delete", "alter"])
def test_nobody_writes_or_changes_the_service_s_own_topics(principal: str, operation: Any) -> None:
    assert not may([], operation, name="__audit", principal=principal)
    assert not may([rule("all", name="*")], operation, name="__audit", principal=principal)


def test_the_service_s_own_topics_are_read_by_who_may_describe_the_cluster() -> None:
    assert not may([rule("all", name="*")], name="__audit")
    assert may([rule("describe", resource="cluster", name="*")], name="__audit")
    assert may([rule("alter", resource="cluster", name="*")], "describe", name="__audit")
    assert may([rule(resource="group")], name="__audit", principal="root")


def test_a_refusal_says_who_what_and_who_can_help_and_is_the_same_for_what_does_not_exist() -> None:
    with pytest.raises(Forbidden) as refused:
        check(State(acls=[rule()]), "bob", None, "write", "transactional_id", "tx")
    assert "'bob' may not write transactional id 'tx'" in refused.value.message
    assert "alter the cluster" in refused.value.message
    assert {
        "principal": "bob",
        "operation": "write",
        "resource": "transactional_id",
        "name": "tx",
    } == refused.value.data
    with pytest.raises(Forbidden, match="API key"):
        check(State(), "bob", Rules([rule()], everyone=True), "write", "topic", "t")
    with pytest.raises(Forbidden, match="Name another topic"):
        check(State(), "root", None, "write", "topic", "__audit")


def test_some_resource_is_enough_to_begin_with_unless_all_of_them_are_denied() -> None:
    def some(*rules: AclRule, scopes: Rules | None = None, principal: str = "ann") -> bool:
        try:
            check_some(State(acls=list(rules)), principal, scopes, "write", "topic")
        except Forbidden:
            return False
        return True

    assert some()
    assert some(rule("write"))
    assert some(rule("write", name="a", pattern="prefix"))
    assert not some(rule("read"))
    assert not some(rule("write"), rule("write", name="*", allow=False))
    assert not some(rule("write", principal="bob"))
    assert some(rule("write", principal="bob"), principal="root")
    assert not some(scopes=Rules([rule("read")], everyone=True))


def test_the_index_is_made_once_for_a_list_and_anew_for_the_next_one() -> None:
    one, two = [rule()], [rule()]
    assert rules_of(one) is rules_of(one)
    assert rules_of(one) is not rules_of(two)
    for _ in range(100):
        rules_of([rule()])
    assert 1 == rules_of(one).count


def test_ten_thousand_rules_are_looked_through_in_microseconds() -> None:
    rules = [rule(name=f"topic-{i}", principal=f"p{i % 100}") for i in range(9_000)]
    rules += [rule(name=f"prefix-{i}-", pattern="prefix") for i in range(1_000)]
    state = State(acls=sorted(rules))
    assert not allowed(state, "ann", None, "read", "topic", "topic-1")
    begun_s = stopwatch_s()
    for i in range(1_000):
        allowed(state, f"p{i % 100}", None, "read", "topic", f"topic-{i}")
    each_us = (stopwatch_s() - begun_s) * 1_000
    assert each_us < 200  # about 3 µs; a scan of the list would take 2,000


# -- against a plain reading of the rules ------------------------------------------------------------------

IMPLIED = {"describe": {"describe", "read", "write", "delete", "alter"}}


def plainly(rules: list[AclRule], principal: str, operation: str, resource: str, name: str) -> bool:
    """The model, rule by rule, as Kafka's documentation tells it."""

    def concerns(known: AclRule) -> bool:
        named = name.startswith(known.name) if known.pattern == "prefix" else known.name in (name, "*")
        return known.principal in (principal, "*") and known.resource == resource and named

    found = [known for known in rules if concerns(known)]
    if any(not known.allow and known.operation in (operation, "all") for known in found):
        return False
    enough = IMPLIED.get(operation, {operation}) | {"all"}
    return any(known.allow and known.operation in enough for known in found)


OPERATIONS = st.sampled_from(["all", "read", "write", "create", "delete", "alter", "describe"])
PRINCIPALS, RESOURCES = st.sampled_from(["ann", "bob", "*"]), st.sampled_from(["topic", "group"])
NAMES = st.text(alphabet="ab*", min_size=1, max_size=3)
RULES = st.lists(
    st.builds(AclRule, PRINCIPALS, OPERATIONS, RESOURCES, NAMES, st.sampled_from(["literal", "prefix"]), st.booleans()),
    max_size=12,
)


@given(RULES, st.sampled_from(["ann", "bob"]), OPERATIONS.filter(lambda o: o != "all"), RESOURCES, NAMES)
def test_the_index_says_what_a_plain_reading_of_the_rules_says(
    rules: list[AclRule], principal: str, operation: Any, resource: Any, name: str
) -> None:
    expected = plainly(rules, principal, operation, resource, name)
    assert expected == Rules(rules).allows(principal, operation, resource, name)
    if expected:
        assert Rules(rules).allows_some(principal, operation, resource)
