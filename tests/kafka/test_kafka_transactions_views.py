"""Who may do what with transactions, and what there is to see of them."""

from __future__ import annotations

from typing import Any

from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.log.operations import AclRule
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_groups import Place
from tests.kafka.helpers_kafka_transactions import (
    DESCRIBE,
    INIT,
    LIST,
    MARKERS,
    PRODUCERS,
    Client,
    played,
)
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import simulate

# -- rights --------------------------------------------------------------------------------------------------


def test_rights_on_the_id_the_topics_and_the_group_are_asked_for() -> None:
    async def main() -> None:
        place = Place()
        root = await place.gateway(orders=2)
        service = Service(root.namespace, principal="root")
        may = [
            AclRule("app", "write", "transactional_id", "t"),
            AclRule("app", "write", "topic", "orders"),
            AclRule("app", "read", "topic", "orders"),
            AclRule("app", "read", "group", "g"),
        ]
        await service.change_acls(add=[*may, AclRule("thief", "read", "topic", "orders")], remove=[])
        app, thief = Client(peer(root.namespace, "app")), Client(peer(root.namespace, "thief"))
        assert E.none is await app.init()
        assert E.transactional_id_authorization_failed is await thief.init()
        assert E.cluster_authorization_failed == (await ask(thief.peer, INIT))["error_code"]
        assert E.none == (await ask(app.peer, INIT))["error_code"]
        thief.pid, thief.epoch = app.pid, app.epoch
        denied = E.transactional_id_authorization_failed
        assert [denied] == await thief.add({"orders": [0]})
        assert [denied] * 3 == [await thief.add_offsets(), await thief.move(1), await thief.end()]
        assert E.group_authorization_failed is await app.add_offsets("other")
        assert E.group_authorization_failed is await app.move(1, group_id="other")
        await root.namespace.create_topic("secret", 1)
        assert [E.topic_authorization_failed, E.operation_not_attempted] == await app.add(
            {"secret": [0], "orders": [0]}
        )
        assert E.topic_authorization_failed is await app.move(1, topic="secret")
        seen = await ask(thief.peer, LIST)
        assert [] == seen["transaction_states"]
        assert (
            denied == (await ask(thief.peer, DESCRIBE, transactional_ids=["t"]))["transaction_states"][0]["error_code"]
        )

    simulate(main())


def test_markers_are_nobodys_to_write() -> None:
    async def play(client: Client) -> None:
        topics = [{"name": "orders", "partition_indexes": [0]}]
        marker = {"producer_id": client.pid, "producer_epoch": client.epoch, "transaction_result": True}
        answer = await ask(client.peer, MARKERS, markers=[{**marker, "topics": topics}])
        part = answer["markers"][0]["topics"][0]["partitions"][0]
        assert (0, E.cluster_authorization_failed) == (part["partition_index"], part["error_code"])

    played(play)


# -- what there is to see ------------------------------------------------------------------------------------


def test_transactions_are_described_in_every_state() -> None:
    async def play(client: Client) -> None:
        async def described() -> tuple[str, int, list[Any]]:
            answer = await ask(client.peer, DESCRIBE, transactional_ids=["t", "t"])
            (row,) = answer["transaction_states"]
            assert (client.pid, client.epoch, 10_000) == (
                row["producer_id"],
                row["producer_epoch"],
                row["transaction_timeout"],
            )
            return row["transaction_state"], row["transaction_start_time"], row["topics"]

        assert ("Empty", -1, []) == await described()
        await client.write(partition=1)
        began = client.peer.namespace.state.time_ms
        assert ("Ongoing", began, [{"topic": "orders", "partitions": [1]}]) == await described()
        assert E.none is await client.end()
        assert ("CompleteCommit", -1, []) == await described()
        assert E.none is await client.move(1)
        assert "Ongoing" == (await described())[0]
        assert E.none is await client.end(False)
        assert ("CompleteAbort", -1, []) == await described()
        answer = await ask(client.peer, DESCRIBE, transactional_ids=["", "u"])
        codes = [row["error_code"] for row in answer["transaction_states"]]
        assert [E.invalid_request, E.transactional_id_not_found] == codes

    played(play)


def test_transactions_are_listed_by_state_producer_duration_and_pattern() -> None:
    async def play(client: Client) -> None:
        other = Client(client.peer, "other")
        assert E.none is await other.init()
        await other.write()
        await sim_loop().sleep(5)

        async def listed(**asked: Any) -> list[str]:
            answer = await ask(client.peer, LIST, **asked)
            assert E.none == answer["error_code"]
            return sorted(row["transactional_id"] for row in answer["transaction_states"])

        assert ["other", "t"] == await listed()
        assert ["other"] == await listed(state_filters=["Ongoing"])
        assert ["t"] == await listed(state_filters=["Empty", "Dead"])
        assert ["t"] == await listed(producer_id_filters=[client.pid])
        assert (["other"], []) == (await listed(duration_filter=4_000), await listed(duration_filter=6_000))
        assert ["other"] == await listed(transactional_id_pattern="o.*")
        assert [] == await listed(transactional_id_pattern="the")
        unknown = await ask(client.peer, LIST, state_filters=["Ongoing", "Odd"])
        assert ["Odd"] == unknown["unknown_state_filters"]
        assert (
            E.invalid_regular_expression == (await ask(client.peer, LIST, transactional_id_pattern="("))["error_code"]
        )

    played(play)


def test_writers_of_a_partition_are_described() -> None:
    async def play(client: Client) -> None:
        await client.write(count=3)
        topics = [{"name": "orders", "partition_indexes": [0, 0, 1, 2]}, {"name": "nowhere", "partition_indexes": [0]}]
        answer = await ask(client.peer, PRODUCERS, topics=topics)
        first, second, third = answer["topics"][0]["partitions"]
        (row,) = first["active_producers"]
        assert (client.pid, 2, 0) == (row["producer_id"], row["last_sequence"], row["current_txn_start_offset"])
        assert ([], E.none) == (second["active_producers"], second["error_code"])
        missing = E.unknown_topic_or_partition
        assert [missing] * 2 == [third["error_code"], answer["topics"][1]["partitions"][0]["error_code"]]
        assert E.none is await client.end()
        answer = await ask(client.peer, PRODUCERS, topics=topics[:1])
        assert -1 == answer["topics"][0]["partitions"][0]["active_producers"][0]["current_txn_start_offset"]

    played(play)
