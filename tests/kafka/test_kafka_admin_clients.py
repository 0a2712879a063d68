"""Real admin clients make, describe, change and delete things through a gateway."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import aiokafka.admin
import aiokafka.errors
import confluent_kafka as ck
import kafka as kafka_python
import kafka.admin as kp
import pytest
from confluent_kafka import admin as ca

from headwater.log.operations import AclRule
from tests.log.helpers import blob

WAIT_S = 10.0


def result(futures: dict[Any, Future[Any]]) -> Any:
    """What the one future of an answer gives."""
    (future,) = futures.values()
    return future.result(WAIT_S)


def code(futures: dict[Any, Future[Any]]) -> int:
    """The code of the error that the one future raises, 0 for none."""
    (future,) = futures.values()
    error: Any = future.exception(WAIT_S)
    return 0 if error is None else int(error.args[0].code())


# -- confluent-kafka -------------------------------------------------------------------------------------


@pytest.fixture
def confluent(kafka: Any) -> ca.AdminClient:
    return ca.AdminClient({"bootstrap.servers": kafka.bootstrap})


def test_confluent_creates_describes_grows_and_deletes_topics(kafka: Any, confluent: ca.AdminClient) -> None:
    new = ca.NewTopic("orders", 2, 3, config={"cleanup.policy": "compact", "min.insync.replicas": "2"})
    result(confluent.create_topics([new]))
    assert ck.KafkaError.TOPIC_ALREADY_EXISTS == code(confluent.create_topics([new]))
    assert ck.KafkaError.TOPIC_EXCEPTION == code(confluent.create_topics([ca.NewTopic("a/b", 1)]))
    assert ck.KafkaError.INVALID_CONFIG == code(confluent.create_topics([ca.NewTopic("x", 1, config={"no.such": "1"})]))
    result(confluent.create_topics([ca.NewTopic("only-checked", 1)], validate_only=True))
    result(confluent.create_partitions([ca.NewPartitions("orders", 5)]))
    assert ck.KafkaError.INVALID_PARTITIONS == code(confluent.create_partitions([ca.NewPartitions("orders", 5)]))
    topics = confluent.list_topics(timeout=WAIT_S).topics
    assert ({"orders"}, 5) == (set(topics), len(topics["orders"].partitions))
    described = result(confluent.describe_topics(ck.TopicCollection(["orders"])))
    assert ("orders", 5) == (described.name, len(described.partitions))
    result(confluent.delete_topics(["orders"]))
    assert ck.KafkaError.UNKNOWN_TOPIC_OR_PART == code(confluent.delete_topics(["orders"]))


def test_confluent_describes_and_alters_configs(kafka: Any, confluent: ca.AdminClient) -> None:
    kafka.create_topic("orders", 1, **{"cleanup.policy": "compact"})
    orders = ca.ConfigResource(ca.ResourceType.TOPIC, "orders")
    found = result(confluent.describe_configs([orders]))
    assert ("compact", ca.ConfigSource.DYNAMIC_TOPIC_CONFIG.value) == (
        found["cleanup.policy"].value,
        found["cleanup.policy"].source,
    )
    assert (True, False) == (found["segment.ms"].is_default, found["segment.ms"].is_read_only)
    steps = [
        ca.ConfigEntry("retention.ms", "1000", incremental_operation=ca.AlterConfigOpType.SET),
        ca.ConfigEntry("cleanup.policy", "delete", incremental_operation=ca.AlterConfigOpType.APPEND),
    ]
    result(
        confluent.incremental_alter_configs(
            [ca.ConfigResource(ca.ResourceType.TOPIC, "orders", incremental_configs=steps)]
        )
    )
    found = result(confluent.describe_configs([orders]))
    assert ("1000", "compact,delete") == (found["retention.ms"].value, found["cleanup.policy"].value)
    wrong = ca.ConfigEntry("retention.ms", "soon", incremental_operation=ca.AlterConfigOpType.SET)
    resource = ca.ConfigResource(ca.ResourceType.TOPIC, "orders", incremental_configs=[wrong])
    assert ck.KafkaError.INVALID_CONFIG == code(confluent.incremental_alter_configs([resource]))
    with pytest.warns(DeprecationWarning, match="incremental_alter_configs"):
        result(confluent.alter_configs([ca.ConfigResource(ca.ResourceType.TOPIC, "orders", {"retention.ms": "7"})]))
    found = result(confluent.describe_configs([orders]))
    assert ("7", "delete") == (found["retention.ms"].value, found["cleanup.policy"].value)
    broker = result(confluent.describe_configs([ca.ConfigResource(ca.ResourceType.BROKER, str(kafka.gateway.node_id))]))
    assert "1" == broker["num.partitions"].value


def test_a_batch_is_as_large_as_its_topic_allows(kafka: Any) -> None:
    kafka.create_topic("small", 1, **{"max.message.bytes": "1000"})
    producer = ck.Producer({"bootstrap.servers": kafka.bootstrap})
    told: list[Any] = []
    for size in (500, 5_000):
        producer.produce("small", b"x" * size, on_delivery=lambda error, _: told.append(error and error.code()))
        producer.flush(WAIT_S)
    assert [None, ck.KafkaError.MSG_SIZE_TOO_LARGE] == told


def test_confluent_trims_a_log(kafka: Any, confluent: ca.AdminClient) -> None:
    kafka.create_topic("orders")

    async def fill() -> None:
        namespace = await kafka.gateway.namespace("default")
        await namespace.append("orders", 0, blob(5))

    kafka.run(fill())
    assert 3 == result(confluent.delete_records([ck.TopicPartition("orders", 0, 3)])).low_watermark
    assert ck.KafkaError.OFFSET_OUT_OF_RANGE == code(confluent.delete_records([ck.TopicPartition("orders", 0, 9)]))


def test_confluent_adds_finds_and_deletes_access_rules(kafka: Any, confluent: ca.AdminClient) -> None:
    def binding(name: str, pattern: Any = ca.ResourcePatternType.LITERAL, host: str = "*") -> ca.AclBinding:
        return ca.AclBinding(
            ca.ResourceType.TOPIC, name, pattern, "User:ann", host, ca.AclOperation.READ, ca.AclPermissionType.ALLOW
        )

    everything = ca.AclBindingFilter(
        ca.ResourceType.ANY, None, ca.ResourcePatternType.ANY, None, None, ca.AclOperation.ANY, ca.AclPermissionType.ANY
    )
    result(confluent.create_acls([binding("orders")]))
    result(confluent.create_acls([binding("pay-", ca.ResourcePatternType.PREFIXED)]))
    assert ck.KafkaError.INVALID_REQUEST == code(confluent.create_acls([binding("orders", host="10.0.0.1")]))
    found = confluent.describe_acls(everything).result(WAIT_S)
    assert {binding("orders"), binding("pay-", ca.ResourcePatternType.PREFIXED)} == set(found)
    assert 2 == len(result(confluent.delete_acls([everything])))
    assert [] == confluent.describe_acls(everything).result(WAIT_S)


def test_confluent_hears_that_no_leader_is_to_be_elected(kafka: Any, confluent: ca.AdminClient) -> None:
    kafka.create_topic("orders")
    place = ck.TopicPartition("orders", 0)
    found = confluent.elect_leaders(ck.ElectionType.PREFERRED, [place]).result(WAIT_S)
    assert ck.KafkaError.ELECTION_NOT_NEEDED == found[place].code()


def test_confluent_makes_and_deletes_scram_users(confluent: ca.AdminClient) -> None:
    info = ca.ScramCredentialInfo(ca.ScramMechanism.SCRAM_SHA_256, 8_192)
    change = ca.UserScramCredentialUpsertion("ann", info, b"pencil")
    assert 0 == code(confluent.alter_user_scram_credentials([change]))
    assert ["ann"] == list(confluent.describe_user_scram_credentials().result(WAIT_S))
    gone = ca.UserScramCredentialDeletion("ann", ca.ScramMechanism.SCRAM_SHA_256)
    assert 0 == code(confluent.alter_user_scram_credentials([gone]))
    assert ck.KafkaError.RESOURCE_NOT_FOUND == code(confluent.alter_user_scram_credentials([gone]))
    assert {} == confluent.describe_user_scram_credentials().result(WAIT_S)


# -- kafka-python ----------------------------------------------------------------------------------------


def test_kafka_python_creates_describes_and_deletes(kafka: Any) -> None:
    client = kafka_python.KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        client.create_topics([kp.NewTopic("orders", 2, 1, topic_configs={"retention.ms": "5"})])
        assert ["orders"] == list(client.list_topics())
        client.create_partitions({"orders": kp.NewPartitions(4)})
        (described,) = client.describe_topics(["orders"])
        assert 4 == len(described["partitions"])
        orders = kp.ConfigResource(kp.ConfigResourceType.TOPIC, "orders")
        assert "5" in str(client.describe_configs([orders]))
        client.alter_configs([kp.ConfigResource(kp.ConfigResourceType.TOPIC, "orders", {"retention.ms": "6"})])
        rule = kp.ACL(
            "User:ann",
            "*",
            kp.ACLOperation.READ,
            kp.ACLPermissionType.ALLOW,
            kp.ResourcePattern(kp.ResourceType.TOPIC, "orders", kp.ACLResourcePatternType.LITERAL),
        )
        client.create_acls([rule])
        client.delete_topics(["orders"])
        assert [] == list(client.list_topics())
    finally:
        client.close()

    async def rules() -> list[AclRule]:
        return list((await kafka.gateway.namespace("default")).state.acls)

    assert [AclRule("ann", "read", "topic", "orders")] == kafka.run(rules())


# -- aiokafka --------------------------------------------------------------------------------------------


def test_aiokafka_creates_describes_and_deletes(kafka: Any) -> None:
    async def main() -> None:
        client = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await client.start()
        try:
            made = await client.create_topics([aiokafka.admin.NewTopic("orders", 2, 1)])
            assert [("orders", 0)] == [tuple(each[:2]) for each in made.topic_errors]
            made = await client.create_topics([aiokafka.admin.NewTopic("orders", 2, 1)])
            assert [36] == [each[1] for each in made.topic_errors]
            assert ["orders"] == await client.list_topics()
            await client.create_partitions({"orders": aiokafka.admin.NewPartitions(3)})
            (described,) = await client.describe_topics(["orders"])
            assert 3 == len(described["partitions"])
            kind = aiokafka.admin.config_resource.ConfigResourceType.TOPIC
            orders = aiokafka.admin.config_resource.ConfigResource(kind, "orders", {"retention.ms": "5"})
            await client.alter_configs([orders])
            (found,) = await client.describe_configs(
                [aiokafka.admin.config_resource.ConfigResource(kind, "orders", {"retention.ms": None})]
            )
            assert ("retention.ms", "5") == tuple(found.resources[0][4][0][:2])
            await client.delete_topics(["orders"])
            assert [] == await client.list_topics()
        finally:
            await client.close()

    asyncio.run(main())
