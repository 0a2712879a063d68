"""Configs through Kafka's admin APIs: of topics, brokers and the namespace."""

from __future__ import annotations

from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka import configs
from headwater.kafka.model import Fields, Peer
from headwater.log.operations import AclRule
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import memory, opened, simulate

DESCRIBE, ALTER, STEP, LIST = 32, 33, 44, 74
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, UNSET, APPEND, SUBTRACT = range(4)


async def with_topic(**config: str) -> Peer:
    known = peer(await opened(memory()))
    await known.namespace.create_topic("t", 1, config)
    return known


def resource(kind: int, name: str, keys: list[str] | None = None) -> Fields:
    return {"resource_type": kind, "resource_name": name, "configuration_keys": keys}


def step(name: str, operation: int, value: str | None = None) -> Fields:
    return {"name": name, "config_operation": operation, "value": value}


async def described(known: Peer, kind: int, name: str, **more: Any) -> dict[str, Fields]:
    found = (await ask(known, DESCRIBE, resources=[resource(kind, name)], **more))["results"][0]
    assert found["error_code"] == E.none
    return {each["name"]: each for each in found["configs"]}


async def altered(known: Peer, api: int, kind: int, name: str, *listed: Fields, **more: Any) -> E:
    asked = [{"resource_type": kind, "resource_name": name, "configs": list(listed)}]
    return E((await ask(known, api, resources=asked, **more))["responses"][0]["error_code"])


# -- describing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 5))
def test_every_config_of_a_topic_says_where_its_value_comes_from(version: int) -> None:
    async def main() -> None:
        known = await with_topic(**{"retention.ms": "5", "unknown.to.kafka": "1"})
        found = await described(known, TOPIC, "t", version=version, include_synonyms=True)
        assert set(configs.TOPIC) == set(found)
        ours, default, idle = (found[name] for name in ("retention.ms", "cleanup.policy", "min.insync.replicas"))
        assert ("5", 1, False) == (ours["value"], ours["config_source"], ours["read_only"])
        assert [("retention.ms", "5", 1), ("log.retention.ms", "-1", 5)] == [
            (each["name"], each["value"], each["source"]) for each in ours["synonyms"]
        ]
        assert ("delete", 5, False) == (default["value"], default["config_source"], default["read_only"])
        assert ("1", 5, False) == (idle["value"], idle["config_source"], idle["read_only"])

    simulate(main())


def test_types_synonyms_and_documentation_come_when_they_are_asked_for() -> None:
    async def main() -> None:
        known = await with_topic()
        bare = await described(known, TOPIC, "t")
        assert {None} == {each["documentation"] for each in bare.values()}
        assert not any(each["synonyms"] for each in bare.values())
        full = await described(known, TOPIC, "t", include_documentation=True)
        assert all(each["documentation"] for each in full.values())
        assert (7, 5, 1) == tuple(
            full[name]["config_type"] for name in ("cleanup.policy", "retention.ms", "preallocate")
        )

    simulate(main())


def test_only_the_configs_that_were_named_are_described() -> None:
    async def main() -> None:
        known = await with_topic()
        asked = [resource(TOPIC, "t", ["retention.ms", "no.such"]), resource(TOPIC, "t", [])]
        found = (await ask(known, DESCRIBE, resources=asked))["results"]
        assert [["retention.ms"], list(configs.TOPIC)] == [[c["name"] for c in each["configs"]] for each in found]

    simulate(main())


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "u", E.unknown_topic_or_partition),
        (TOPIC, "t", E.none),
        (BROKER, "1", E.none),
        (BROKER, "", E.none),
        (BROKER, "one", E.invalid_request),
        (LOGGER, "1", E.none),
        (METRICS, "m", E.none),
        (GROUP, "g", E.none),
        (0, "t", E.invalid_request),
        (99, "t", E.invalid_request),
    ],
)
def test_what_can_be_described(kind: int, name: str, code: E) -> None:
    async def main() -> None:
        known = await with_topic()
        found = (await ask(known, DESCRIBE, resources=[resource(kind, name)]))["results"][0]
        assert (code, kind, name) == (found["error_code"], found["resource_type"], found["resource_name"])

    simulate(main())


def test_a_broker_says_what_holds_for_all_gateways() -> None:
    async def main() -> None:
        known = await with_topic()
        found = await described(known, BROKER, "1")
        assert ("1", True) == (
            found["default.replication.factor"]["value"],
            found["default.replication.factor"]["read_only"],
        )
        assert not found["history.retention.ms"]["read_only"]
        own = found["advertised.listeners"]
        assert ("TEST://127.0.0.1:9092", 4, True) == (own["value"], own["config_source"], own["read_only"])
        assert {} == await described(known, BROKER, "")

    simulate(main())


def test_resources_with_configs_are_listed_by_type() -> None:
    async def main() -> None:
        known = await with_topic()
        topics = (await ask(known, LIST, resource_types=[TOPIC]))["config_resources"]
        assert ("t", TOPIC) in [(each["resource_name"], each["resource_type"]) for each in topics]
        (broker,) = (await ask(known, LIST, resource_types=[BROKER]))["config_resources"]
        assert (str(known.gateway.node_id), BROKER) == (broker["resource_name"], broker["resource_type"])
        assert [] == (await ask(known, LIST, resource_types=[METRICS, GROUP]))["config_resources"]
        assert [] == (await ask(known, LIST, 0))["config_resources"]
        assert E.unsupported_version == (await ask(known, LIST, resource_types=[99]))["error_code"]

    simulate(main())


# -- altering ------------------------------------------------------------------------------------------


def test_what_is_not_named_goes_back_to_its_default() -> None:
    async def main() -> None:
        known = await with_topic(**{"retention.ms": "5", "cleanup.policy": "compact", "unknown.to.kafka": "1"})
        wanted = [{"name": "retention.bytes", "value": "9"}, {"name": "segment.ms", "value": "7"}]
        assert E.none == await altered(known, ALTER, TOPIC, "t", *wanted, validate_only=True)
        assert "5" == known.namespace.topic("t").config["retention.ms"]
        assert E.none == await altered(known, ALTER, TOPIC, "t", *wanted)
        assert {"retention.bytes": "9", "segment.ms": "7", "unknown.to.kafka": "1"} == known.namespace.topic("t").config
        assert E.none == await altered(known, ALTER, TOPIC, "t")
        assert {"unknown.to.kafka": "1"} == known.namespace.topic("t").config

    simulate(main())


@pytest.mark.parametrize(
    ("steps", "code", "policy"),
    [
        ([step("cleanup.policy", SET, "compact")], E.none, "compact"),
        ([step("cleanup.policy", UNSET)], E.none, None),
        ([step("cleanup.policy", APPEND, "compact")], E.none, "delete,compact"),
        ([step("cleanup.policy", APPEND, "delete")], E.none, "delete"),
        ([step("cleanup.policy", APPEND, "tidy")], E.invalid_config, "delete"),
        ([step("cleanup.policy", SUBTRACT, "compact")], E.none, "delete"),
        ([step("cleanup.policy", SUBTRACT, "delete")], E.none, ""),
        ([step("retention.ms", APPEND, "1")], E.invalid_config, "delete"),
        ([step("no.such", SET, "1")], E.invalid_config, "delete"),
        ([step("no.such", UNSET)], E.invalid_config, "delete"),
        ([step("no.such", APPEND, "1")], E.invalid_config, "delete"),
        ([step("retention.ms", SET, None)], E.invalid_request, "delete"),
        ([step("retention.ms", SET, "x")], E.invalid_config, "delete"),
        ([step("retention.ms", 9, "1")], E.invalid_request, "delete"),
        ([step("cleanup.policy", SET, "compact"), step("cleanup.policy", UNSET)], E.invalid_request, "delete"),
        ([step("segment.bytes", SET, "1048576")], E.none, "delete"),
        ([], E.none, "delete"),
    ],
)
@pytest.mark.parametrize("check_only", [False, True])
def test_configs_change_step_by_step(steps: list[Fields], code: E, policy: str | None, check_only: bool) -> None:
    async def main() -> None:
        known = await with_topic(**{"cleanup.policy": "delete"})
        assert code == await altered(known, STEP, TOPIC, "t", *steps, validate_only=check_only)
        assert ("delete" if check_only else policy) == known.namespace.topic("t").config.get("cleanup.policy")
        is_kept = bool(steps) and steps[0]["name"] == "segment.bytes" and not check_only
        assert is_kept == ("segment.bytes" in known.namespace.topic("t").config)

    simulate(main())


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "u", E.unknown_topic_or_partition),
        (BROKER, "1", E.invalid_request),
        (LOGGER, "1", E.invalid_request),
        (METRICS, "m", E.invalid_request),
        (GROUP, "g", E.invalid_config),
        (0, "t", E.invalid_request),
    ],
)
def test_what_has_no_such_config_cannot_be_altered(kind: int, name: str, code: E) -> None:
    async def main() -> None:
        known = await with_topic()
        assert code == await altered(known, STEP, kind, name, step("retention.ms", SET, "1"))
        assert code == await altered(known, ALTER, kind, name, {"name": "retention.ms", "value": "1"})

    simulate(main())


def test_the_clusters_defaults_are_those_of_the_namespace() -> None:
    async def main() -> None:
        known = await with_topic()
        day = "172800000"
        assert E.none == await altered(known, STEP, BROKER, "", step("history.retention.ms", SET, day))
        assert {"history.retention.ms": day} == known.namespace.state.config
        assert {"history.retention.ms": 3} == {
            name: each["config_source"] for name, each in (await described(known, BROKER, "")).items()
        }
        assert E.invalid_config == await altered(known, STEP, BROKER, "", step("log.retention.ms", SET, "1"))
        assert E.invalid_config == await altered(known, STEP, BROKER, "", step("history.retention.ms", SET, "1"))
        assert E.none == await altered(known, STEP, BROKER, "", step("history.retention.ms", UNSET))
        assert {} == known.namespace.state.config

    simulate(main())


def test_a_resource_is_altered_once_in_a_request() -> None:
    async def main() -> None:
        known = await with_topic()
        one = {"resource_type": TOPIC, "resource_name": "t", "configs": [step("retention.ms", SET, "1")]}
        found = await ask(known, STEP, resources=[one, one])
        assert [E.invalid_request] * 2 == [each["error_code"] for each in found["responses"]]
        assert {} == known.namespace.topic("t").config

    simulate(main())


def test_who_has_no_right_neither_sees_nor_changes_configs() -> None:
    async def main() -> None:
        root = await with_topic()
        await Service(root.namespace).change_acls([AclRule("ann", "describe", "topic", "t")])
        ann, bob = peer(root.namespace, "ann"), peer(root.namespace, "bob")
        assert E.topic_authorization_failed == await altered(ann, STEP, TOPIC, "t", step("retention.ms", SET, "1"))
        assert E.cluster_authorization_failed == await altered(ann, STEP, BROKER, "", step("x", SET, "1"))
        asked = [resource(TOPIC, "t"), resource(TOPIC, "u"), resource(BROKER, "1"), resource(GROUP, "g")]
        denied = [E.topic_authorization_failed] * 2 + [E.cluster_authorization_failed, E.group_authorization_failed]
        found = [each["error_code"] for each in (await ask(bob, DESCRIBE, resources=asked))["results"]]
        assert denied == found
        found = [each["error_code"] for each in (await ask(ann, DESCRIBE, resources=asked))["results"]]
        assert [E.none, *denied[1:]] == found
        assert E.cluster_authorization_failed == (await ask(ann, LIST))["error_code"]

    simulate(main())


@pytest.mark.parametrize("name", configs.TOPIC)
def test_the_default_of_a_config_is_a_value_that_it_takes(name: str) -> None:
    if configs.TOPIC[name].default:
        configs.TOPIC[name].check(configs.TOPIC[name].default)
