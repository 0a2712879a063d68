from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.api.access import CLUSTER
from headwater.api.service import Service
from headwater.log.namespace import Namespace
from headwater.log.operations import AclRule
from headwater.store import open_store
from tests.cli.conftest import Headwater

RULE = ("--principal", "ana", "--operation", "read", "--topic", "a")


def test_a_token_is_shown_once_and_never_stored(hw: Headwater, store: Path) -> None:
    created = hw("auth", "create-key", "--principal", "ana", "--json").json
    assert (created["principal"], created["expires_ms"], created["scopes"]) == ("ana", 0, [])
    (listed,) = hw("auth", "list-keys", "--json").json
    assert listed == {name: value for name, value in created.items() if name != "token"}
    secret = created["token"].encode()
    assert not [path for path in store.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_token_alone_is_on_standard_output(hw: Headwater) -> None:
    ran = hw("auth", "create-key", "--principal", "ana")
    assert len(ran.text.split()) == 1
    assert "not shown again" in ran.err
    assert ran.text.strip() not in hw("auth", "list-keys").text


def test_a_key_has_scopes_and_an_end(hw: Headwater) -> None:
    words = ("--scope", "read:topic:a", "--scope", "write:topic:raw-*", "--scope", "all:group:*", "--expires", "30d")
    created = hw("auth", "create-key", "--principal", "ana", *words, "--json").json
    assert sorted(created["scopes"]) == ["all:group:*", "read:topic:a", "write:topic:raw-*"]
    assert abs(created["expires_ms"] - created["created_ms"] - 30 * 86_400_000) < 60_000
    assert "write:topic:raw-*" in hw("auth", "list-keys").text


@pytest.mark.parametrize(
    "words",
    [
        ("--scope", "read"),
        ("--scope", "fly:topic:a"),
        ("--scope", "read:topic:"),
        ("--expires", "soon"),
        ("--expires", "0d"),
        ("--expires", "-1d"),
    ],
)
def test_a_bad_scope_or_duration_is_a_usage_error(hw: Headwater, words: tuple[str, ...]) -> None:
    assert hw("auth", "create-key", "--principal", "ana", *words).code == 2
    assert hw("auth", "list-keys", "--json").json == []


def test_a_revoked_key_is_gone(hw: Headwater) -> None:
    key = hw("auth", "create-key", "--principal", "ana", "--json").json["key"]
    assert hw("auth", "revoke", key, "--json").json == {"revoked": key}
    assert hw("auth", "list-keys", "--json").json == []
    assert hw("auth", "revoke", key, "--json").error["error"] == "NotFound"


def test_rules_are_added_listed_and_removed(hw: Headwater) -> None:
    added = hw("auth", "acl", "add", *RULE, "--operation", "describe", "--group", "g", "--json").json["added"]
    assert len(added) == 4
    assert hw("auth", "acl", "list", "--json").json == sorted(
        added, key=lambda rule: (rule["operation"], rule["resource"])
    )
    assert hw("auth", "acl", "remove", *RULE).code == 0
    assert len(hw("auth", "acl", "list", "--json").json) == 3
    assert hw("auth", "acl", "list", "--principal", "eve", "--json").json == []


def test_a_rule_may_deny_and_may_be_a_prefix(hw: Headwater) -> None:
    hw("auth", "acl", "add", "--principal", "*", "--operation", "write", "--topic", "raw-", "--prefix", "--deny")
    assert hw("auth", "acl", "list", "--json").json == [
        {"principal": "*", "permission": "deny", "operation": "write", "resource": "topic", "name": "raw-",
         "pattern": "prefix"}
    ]  # fmt: skip
    assert "deny" in hw("auth", "acl", "list").text


@pytest.mark.parametrize("name", ["*", CLUSTER])
def test_a_rule_for_the_cluster_is_removed_whoever_made_it(hw: Headwater, store: Path, name: str) -> None:
    """One that a Kafka client had made has Kafka's name for the cluster, and was not found."""

    async def make() -> None:
        async with await Namespace.open(open_store(store.as_uri())) as namespace:
            await Service(namespace).change_acls([AclRule("ana", "alter", "cluster", name)])

    asyncio.run(make())
    words = ("--principal", "ana", "--operation", "alter", "--cluster")
    removed = hw("auth", "acl", "remove", *words, "--json").json["removed"]
    assert [name] == [rule["name"] for rule in removed]
    assert hw("auth", "acl", "list", "--json").json == []


def test_removing_an_unknown_rule_is_an_error(hw: Headwater) -> None:
    hw("auth", "acl", "add", *RULE)
    ran = hw("auth", "acl", "remove", *RULE, "--deny", "--json")
    assert (ran.code, ran.error["error"]) == (1, "NotFound")


@pytest.mark.parametrize(
    "words",
    [
        ("--principal", "ana", "--operation", "read"),
        ("--principal", "ana", "--topic", "a"),
        ("--operation", "read", "--topic", "a"),
        ("--principal", "ana", "--operation", "fly", "--topic", "a"),
        ("--principal", "ana", "--operation", "read", "--topic", "*", "--prefix"),
        ("--principal", "ana", "--operation", "read", "--cluster", "--prefix"),
    ],
)
def test_half_a_rule_is_a_usage_error(hw: Headwater, words: tuple[str, ...]) -> None:
    assert hw("auth", "acl", "add", *words).code == 2


def test_a_quota_is_set_bound_by_bound_and_lifted(hw: Headwater) -> None:
    row = hw("auth", "quota", "set", "--principal", "ana", "--produce", "10MiB", "--json").json
    assert row == {
        "principal": "ana", "produce_bytes_per_s": 10 << 20, "fetch_bytes_per_s": -1, "requests_per_s": -1
    }  # fmt: skip
    hw("auth", "quota", "set", "--principal", "ana", "--requests", "5")
    assert hw("auth", "quota", "list", "--json").json == [{**row, "requests_per_s": 5}]
    assert "unbounded" in hw("auth", "quota", "list").text
    hw("auth", "quota", "set", "--principal", "ana", "--requests", "none", "--produce", "none")
    assert hw("auth", "quota", "list", "--json").json == []


def test_a_quota_of_nothing_is_a_usage_error(hw: Headwater) -> None:
    assert hw("auth", "quota", "set", "--principal", "ana").code == 2
    assert hw("auth", "quota", "set", "--principal", "ana", "--fetch", "fast").code == 2
