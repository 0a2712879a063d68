"""Topics through Kafka's admin APIs: every case gets the code that Kafka gives it."""

from __future__ import annotations

from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka.gateway import Settings
from headwater.kafka.handlers import table
from headwater.kafka.model import Fields, Peer
from headwater.kafka.names import topic_uuid
from headwater.log.operations import AclRule, Operation
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import blob, memory, opened, simulate

METADATA, API_VERSIONS, CREATE, DELETE, TRIM, GROW, CLUSTER, PAGES = 3, 18, 19, 20, 21, 37, 60, 75
MOVE, LOG_DIRS, ELECT, REASSIGN, REASSIGNMENTS = 34, 35, 43, 45, 46


def topic(name: str, count: int = -1, factor: int = -1, **more: Any) -> Fields:
    return {"name": name, "num_partitions": count, "replication_factor": factor, **more}


def config(name: str, value: str | None) -> Fields:
    return {"name": name, "value": value}


def assigned(*brokers: list[int]) -> list[Fields]:
    return [{"partition_index": index, "broker_ids": ids} for index, ids in enumerate(brokers)]


async def created(known: Peer, *topics: Fields, **more: Any) -> list[E]:
    answer = await ask(known, CREATE, topics=list(topics), **more)
    return [E(each["error_code"]) for each in answer["topics"]]


# -- creating ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2, 8))
def test_a_topic_is_created_and_the_answer_says_what_it_has(version: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        asked = topic("orders", 3, 2, configs=[config("retention.ms", "1000"), config("segment.ms", "5")])
        found = (await ask(known, CREATE, version, topics=[asked]))["topics"][0]
        made = known.namespace.topic("orders")
        assert (E.none, None, 3) == (found["error_code"], found["error_message"], len(made.partitions))
        assert {"retention.ms": "1000", "segment.ms": "5"} == made.config
        if version >= 5:
            assert (3, 1) == (found["num_partitions"], found["replication_factor"])
            set_by_us = {each["name"] for each in found["configs"] if each["config_source"] == 1}
            assert {"retention.ms", "segment.ms"} == set_by_us
        if version >= 7:
            assert topic_uuid(known.namespace, made.id) == found["topic_id"]

    simulate(main())


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (topic("a"), E.none),
        (topic("a", 1, 3), E.none),
        (topic("a", 10_000), E.none),
        (topic("a", 10_001), E.invalid_partitions),
        (topic("a", 0), E.invalid_partitions),
        (topic("a", -2), E.invalid_partitions),
        (topic("a", 1, 0), E.invalid_replication_factor),
        (topic("a", 1, -2), E.invalid_replication_factor),
        (topic(""), E.invalid_topic_exception),
        (topic("a/b"), E.invalid_topic_exception),
        (topic(".."), E.invalid_topic_exception),
        (topic("x" * 249), E.none),
        (topic("x" * 250), E.invalid_topic_exception),
        (topic("there"), E.topic_already_exists),
        (topic("__mine"), E.topic_authorization_failed),
        (topic("a", configs=[config("no.such", "1")]), E.invalid_config),
        (topic("a", configs=[config("retention.ms", "soon")]), E.invalid_config),
        (topic("a", configs=[config("retention.ms", None)]), E.invalid_config),
        (topic("a", configs=[config("min.insync.replicas", "0")]), E.invalid_config),
        (topic("a", configs=[config("compression.type", "zip")]), E.invalid_config),
        (topic("a", configs=[config("message.timestamp.type", "LogAppendTime")]), E.invalid_config),
        (topic("a", configs=[config("max.message.bytes", str(1 << 30))]), E.invalid_config),
        (topic("a", configs=[config("retention.ms", "9" * 5_000)]), E.invalid_config),
        (topic("a", assignments=assigned([1], [2])), E.none),
        (topic("a", 2, assignments=assigned([1], [2])), E.invalid_request),
        (topic("a", assignments=assigned([1, 1])), E.invalid_replica_assignment),
        (topic("a", assignments=assigned([])), E.invalid_replica_assignment),
        (topic("a", assignments=assigned([1])[:1] * 2), E.invalid_replica_assignment),
        (topic("a", assignments=[{"partition_index": 1, "broker_ids": [1]}]), E.invalid_replica_assignment),
    ],
)
@pytest.mark.parametrize("check_only", [False, True])
def test_what_can_be_created(asked: Fields, code: E, check_only: bool) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("there")
        assert [code] == await created(known, asked, validate_only=check_only)
        is_there = asked["name"] == "there" or (code == E.none and not check_only)
        assert is_there == (asked["name"] in known.namespace.state.names)

    simulate(main())


def test_one_bad_topic_does_not_spoil_the_others_of_a_request() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        codes = await created(known, topic("a"), topic("b", 0), topic("c"), topic("d"), topic("d"))
        assert [E.none, E.invalid_partitions, E.none, E.invalid_request, E.invalid_request] == codes
        assert {"a", "c"} == {name for name in known.namespace.state.names if not name.startswith("__")}

    simulate(main())


def test_a_manual_assignment_says_how_many_partitions_there_are() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await created(known, topic("a", assignments=assigned([1], [2], [1, 2])))
        assert 3 == len(known.namespace.topic("a").partitions)

    simulate(main())


def test_a_topic_without_a_number_of_partitions_has_what_the_gateway_is_set_to() -> None:
    async def main() -> None:
        known = peer(await opened(memory()), settings=Settings(partitions_default=4))
        await created(known, topic("a"))
        assert 4 == len(known.namespace.topic("a").partitions)

    simulate(main())


def test_two_hundred_topics_of_one_request_share_a_few_commits() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        before = known.namespace.state.seq
        codes = await created(known, *(topic(f"t{n}") for n in range(200)))
        assert [E.none] * 200 == codes
        assert known.namespace.state.seq - before < 50

    simulate(main())


# -- growing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4))
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": "t", "count": 3, "assignments": None}, E.none),
        ({"name": "t", "count": 2, "assignments": None}, E.invalid_partitions),
        ({"name": "t", "count": 1, "assignments": None}, E.invalid_partitions),
        ({"name": "t", "count": -1, "assignments": None}, E.invalid_partitions),
        ({"name": "t", "count": 10_001, "assignments": None}, E.invalid_partitions),
        ({"name": "u", "count": 3, "assignments": None}, E.unknown_topic_or_partition),
        ({"name": "/", "count": 3, "assignments": None}, E.invalid_topic_exception),
        ({"name": "t", "count": 3, "assignments": [{"broker_ids": [1]}]}, E.none),
        ({"name": "t", "count": 3, "assignments": []}, E.invalid_replica_assignment),
        ({"name": "t", "count": 3, "assignments": [{"broker_ids": []}]}, E.invalid_replica_assignment),
    ],
)
def test_a_topic_only_grows(version: int, asked: Fields, code: E) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t", 2)
        checked = await ask(known, GROW, version, topics=[asked], validate_only=True)
        assert (code, 2) == (checked["results"][0]["error_code"], len(known.namespace.topic("t").partitions))
        grown = await ask(known, GROW, version, topics=[asked])
        assert code == grown["results"][0]["error_code"]
        assert (3 if code == E.none else 2) == len(known.namespace.topic("t").partitions)

    simulate(main())


# -- deleting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 7))
def test_topics_are_deleted_by_name(version: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t")
        asked: Any = {"topic_names": ["t", "u"]} if version < 6 else {"topics": [{"name": "t"}, {"name": "u"}]}
        found = (await ask(known, DELETE, version, **asked))["responses"]
        assert [("t", E.none), ("u", E.unknown_topic_or_partition)] == [(r["name"], r["error_code"]) for r in found]
        assert "t" not in known.namespace.state.names

    simulate(main())


def test_topics_are_deleted_by_id_and_each_once() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        uuids = [topic_uuid(known.namespace, (await known.namespace.create_topic(name)).id) for name in "abc"]
        wanted = [
            {"name": None, "topic_id": uuids[0]},
            {"name": None, "topic_id": bytes(15) + b"\x01"},
            {"name": None, "topic_id": bytes(16)},
            {"name": "b", "topic_id": uuids[1]},
            {"name": "c"},
            {"name": None, "topic_id": uuids[2]},
        ]
        found = (await ask(known, DELETE, topics=wanted))["responses"]
        codes = [E.none, E.unknown_topic_id, E.invalid_request, E.invalid_request, E.invalid_request, E.invalid_request]
        assert codes == [each["error_code"] for each in found]
        assert ("a", uuids[0]) == (found[0]["name"], found[0]["topic_id"])
        assert {"b", "c"} <= set(known.namespace.state.names)

    simulate(main())


@pytest.mark.parametrize(
    ("partition", "offset", "code", "start"),
    [
        (0, 3, E.none, 3),
        (0, -1, E.none, 5),
        (0, 0, E.none, 0),
        (0, 5, E.none, 5),
        (0, 6, E.offset_out_of_range, -1),
        (0, -2, E.offset_out_of_range, -1),
        (1, 0, E.unknown_topic_or_partition, -1),
        (-1, 0, E.unknown_topic_or_partition, -1),
    ],
)
@pytest.mark.parametrize("version", range(3))
def test_log_starts_move_forward(version: int, partition: int, offset: int, code: E, start: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t")
        await known.namespace.append("t", 0, blob(5))
        asked = [{"name": "t", "partitions": [{"partition_index": partition, "offset": offset}]}]
        found = (await ask(known, TRIM, version, topics=asked))["topics"]
        answer = {"partition_index": partition, "low_watermark": start, "error_code": code}
        assert answer.items() <= found[0]["partitions"][0].items()

    simulate(main())


def test_a_topic_that_is_not_there_cannot_be_trimmed() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        asked = [{"name": name, "partitions": [{"partition_index": 0, "offset": 1}]} for name in ("u", "/")]
        found = (await ask(known, TRIM, topics=asked))["topics"]
        assert [E.unknown_topic_or_partition] * 2 == [each["partitions"][0]["error_code"] for each in found]

    simulate(main())


# -- rights --------------------------------------------------------------------------------------------


async def strangers(*rules: AclRule) -> Peer:
    """A client called ann in a namespace with the topic t, where bob may describe the cluster, and with these rules."""
    namespace = await opened(memory())
    await namespace.create_topic("t", 2)
    await Service(namespace).change_acls([AclRule("bob", "describe", "cluster", "*"), *rules])
    return peer(namespace, "ann")


def test_who_has_no_right_is_refused_by_the_code_of_the_thing() -> None:
    async def main() -> None:
        ann = await strangers()
        t = topic_uuid(ann.namespace, ann.namespace.topic("t").id)
        denied, cluster = E.topic_authorization_failed, E.cluster_authorization_failed
        assert [denied] == await created(ann, topic("a"))
        assert [denied] == await created(ann, topic("a"), validate_only=True)
        grown = await ask(ann, GROW, topics=[{"name": "t", "count": 5, "assignments": None}])
        assert denied == grown["results"][0]["error_code"]
        wanted = [{"name": "t"}, {"name": "u"}, {"name": None, "topic_id": t}]
        gone = (await ask(ann, DELETE, topics=wanted))["responses"]
        assert [denied, denied, E.unknown_topic_id] == [each["error_code"] for each in gone]
        assert gone[2]["name"] is None
        trim = [{"name": "t", "partitions": [{"partition_index": 0, "offset": 0}]}]
        assert denied == (await ask(ann, TRIM, topics=trim))["topics"][0]["partitions"][0]["error_code"]
        moved = await ask(ann, MOVE, dirs=[{"path": "/ns", "topics": [{"name": "t", "partitions": [0]}]}])
        assert cluster == moved["results"][0]["partitions"][0]["error_code"]
        for api, more in (
            (LOG_DIRS, {"topics": None}),
            (ELECT, {"topic_partitions": None}),
            (REASSIGN, {"topics": []}),
            (REASSIGNMENTS, {"topics": None}),
        ):
            assert cluster == (await ask(ann, api, **more))["error_code"]
        assert 2 == len(ann.namespace.topic("t").partitions)

    simulate(main())


def test_a_rule_for_a_prefix_is_enough() -> None:
    async def main() -> None:
        ann = await strangers(AclRule("ann", "create", "topic", "ann-", "prefix"))
        assert [E.none, E.topic_authorization_failed] == await created(ann, topic("ann-1"), topic("bob-1"))

    simulate(main())


# -- disks, leaders, replicas ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 6))
def test_the_bucket_is_one_directory_with_the_bytes_of_each_partition(version: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t", 2)
        await known.namespace.append("t", 1, blob(5, 100))
        asked = [{"topic": "t", "partitions": [1, 1, 2, -1]}, {"topic": "u", "partitions": [0]}]
        found = await ask(known, LOG_DIRS, version, topics=asked)
        (place,) = found["results"]
        (described,) = place["topics"]
        sizes = {each["partition_index"]: each["partition_size"] for each in described["partitions"]}
        assert (E.none, {1: known.namespace.topic("t").partitions[1].bytes}) == (place["error_code"], sizes)
        everything = (await ask(known, LOG_DIRS, version, topics=None))["results"][0]["topics"]
        assert {"t": 2} == {each["name"]: len(each["partitions"]) for each in everything}

    simulate(main())


@pytest.mark.parametrize("version", [1, 2])
def test_partitions_stay_in_their_directory(version: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t")
        topics = [{"name": "t", "partitions": [0, 1]}]
        dirs = [{"path": "/ns", "topics": topics}, {"path": "/elsewhere", "topics": topics}]
        (found,) = (await ask(known, MOVE, version, dirs=dirs))["results"]
        codes = [E.none, E.unknown_topic_or_partition, E.log_dir_not_found, E.log_dir_not_found]
        assert ("t", codes) == (found["topic_name"], [each["error_code"] for each in found["partitions"]])

    simulate(main())


@pytest.mark.parametrize("version", range(3))
def test_no_election_is_ever_needed(version: int) -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t")
        asked = [{"topic": "t", "partitions": [0, 1]}, {"topic": "u", "partitions": [0]}]
        found = (await ask(known, ELECT, version, topic_partitions=asked))["replica_election_results"]
        codes = [[each["error_code"] for each in topic["partition_result"]] for topic in found]
        assert [[E.election_not_needed, E.unknown_topic_or_partition], [E.unknown_topic_or_partition]] == codes
        assert [] == (await ask(known, ELECT, version, topic_partitions=None))["replica_election_results"]

    simulate(main())


@pytest.mark.parametrize(("api", "version"), [(METADATA, 10), (CLUSTER, 1)])
def test_who_asks_is_told_what_it_may_do_with_the_cluster(api: int, version: int) -> None:
    """Bits of create 5, alter 7, describe 8, cluster action 9, and of configs 10 and 11 (KIP-430)."""

    async def main() -> None:
        namespace = await opened(memory())
        owner = peer(namespace)
        asking = {"include_cluster_authorized_operations": True}
        allowed: list[tuple[list[Operation], list[int]]] = [
            ([], [5, 7, 8, 9, 10, 11]),
            (["describe"], [8, 10]),
            (["describe", "alter"], [7, 8, 10, 11]),
        ]
        for rules, bits in allowed:
            if rules:
                await owner.service.change_acls([AclRule("ann", rule, "cluster", "kafka-cluster") for rule in rules])
            answer = await ask(peer(namespace, "ann"), api, version, **asking)
            assert sum(1 << bit for bit in bits) == answer["cluster_authorized_operations"]
        assert -(2**31) == (await ask(owner, api, version))["cluster_authorized_operations"]

    simulate(main())


def test_nothing_is_reassigned() -> None:
    async def main() -> None:
        known = peer(await opened(memory()))
        await known.namespace.create_topic("t", 2)
        partitions = [
            {"partition_index": 0, "replicas": [2]},
            {"partition_index": 1, "replicas": None},
            {"partition_index": 2, "replicas": None},
            {"partition_index": 0, "replicas": [known.gateway.node_id]},
        ]
        found = (await ask(known, REASSIGN, topics=[{"name": "t", "partitions": partitions}]))["responses"]
        codes = [E.invalid_replica_assignment, E.no_reassignment_in_progress, E.unknown_topic_or_partition, E.none]
        assert codes == [each["error_code"] for each in found[0]["partitions"]]
        listed = await ask(known, REASSIGNMENTS, topics=None)
        assert (E.none, []) == (listed["error_code"], listed["topics"])

    simulate(main())


def test_every_version_that_the_schema_has_is_served() -> None:
    from headwater.kafka import schema

    ours = [17, 19, 20, 21, 29, 30, 31, 32, 33, 34, 35, 36, 37, 43, 44, 45, 46, 48, 49, 50, 51, 74]
    served = {api: (table()[api].first, table()[api].last) for api in ours}
    assert {api: schema.versions(api) for api in ours} == served


# -- what is served, and views -------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
def test_features_that_may_be_off_are_named_from_version_4_on(version: int) -> None:
    """Java clients from 3.3 to 3.7, which ask in version 3, end with an error if the least level of one is 0."""

    async def main() -> None:
        answer = await ask(peer(await opened(memory())), API_VERSIONS, version)
        named = [each["min_version"] for each in answer.get("supported_features", ())]
        assert ([0, 0, 0] if version >= 4 else []) == named
        assert {API_VERSIONS, METADATA} <= {each["api_key"] for each in answer["api_keys"]}

    simulate(main())


def test_a_topic_that_another_gateway_has_deleted_may_be_made_again() -> None:
    async def main() -> None:
        store = memory()
        here, there = peer(await opened(store)), peer(await opened(store))
        assert [E.none] == await created(here, topic("t"))
        await there.namespace.refresh()
        await ask(here, DELETE, 5, topic_names=["t"], timeout=1_000)
        assert [E.none] == await created(there, topic("t"))
        assert [E.topic_already_exists] == await created(here, topic("t"))

    simulate(main())


def test_topics_in_pages_say_which_may_not_be_described() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        for name in ("a", "b"):
            await namespace.create_topic(name, 2)
        await Service(namespace).change_acls([AclRule("ann", "describe", "topic", "a")])
        asked = {"topics": [{"name": name} for name in ("a", "b", "c")], "cursor": None, "response_partition_limit": 9}
        answer = await ask(peer(namespace, "ann"), PAGES, **asked)
        assert [("a", E.none), ("b", E.topic_authorization_failed), ("c", E.topic_authorization_failed)] == [
            (each["name"], each["error_code"]) for each in answer["topics"]
        ]
        answer = await ask(peer(namespace), PAGES, **asked)
        assert [E.none, E.none, E.unknown_topic_or_partition] == [each["error_code"] for each in answer["topics"]]

    simulate(main())
