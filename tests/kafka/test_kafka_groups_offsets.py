"""Offsets of groups through the handlers, and groups as admin tools see them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka.model import Fields, Peer
from headwater.kafka.names import topic_uuid
from headwater.log.operations import AclRule
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_groups import (
    COMMIT,
    CONSUMER,
    CONSUMER_DESCRIBE,
    DELETE,
    DELETE_OFFSETS,
    DESCRIBE,
    FETCH,
    LEAVE,
    LIST,
    Classic,
    Place,
)
from tests.kafka.helpers_peer import ask
from tests.log.helpers import blob, simulate


def places(peer: Peer, version: int, offsets: dict[str, dict[int, int]], **more: Any) -> list[Fields]:
    """The topics of a commit, by name or id as the version wants it."""
    return [
        {
            **_named(peer, version, topic),
            "partitions": [{"partition_index": p, "committed_offset": o, **more} for p, o in parts.items()],
        }
        for topic, parts in offsets.items()
    ]


def _named(peer: Peer, version: int, topic: str) -> Fields:
    found = peer.namespace.state.named(topic)
    return {"topic_id": topic_uuid(peer.namespace, found.id if found else 99)} if version >= 10 else {"name": topic}


async def commit(peer: Peer, offsets: dict[str, dict[int, int]], version: int = 10, **more: Any) -> list[E]:
    """The code of each partition, in order."""
    part = {name: more.pop(name) for name in ("committed_metadata", "committed_leader_epoch") if name in more}
    topics = places(peer, version, offsets, **part)
    answer = await ask(peer, COMMIT, version, **{"group_id": "g", "topics": topics, **more})
    return [E(part["error_code"]) for topic in answer["topics"] for part in topic["partitions"]]


async def fetch(
    peer: Peer, topics: dict[str, list[int]] | None, version: int = 10, group: str = "g", **more: Any
) -> Fields:
    """The answer for one group."""
    rows = None
    if topics is not None:
        rows = [{**_named(peer, version, name), "partition_indexes": parts} for name, parts in topics.items()]
    if version < 8:
        return await ask(peer, FETCH, version, **{"group_id": group, "topics": rows, **more})
    stable = {"require_stable": more.pop("require_stable", False)}
    answer = await ask(peer, FETCH, version, groups=[{"group_id": group, "topics": rows, **more}], **stable)
    return dict(answer["groups"][0])


def offsets_in(answer: Fields) -> list[int]:
    return [part["committed_offset"] for topic in answer["topics"] for part in topic["partitions"]]


def codes_in(answer: Fields) -> list[E]:
    return [E(part["error_code"]) for topic in answer["topics"] for part in topic["partitions"]]


# -- commit and fetch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2, 11))
def test_whoever_is_in_no_group_commits_and_fetches_offsets(version: int) -> None:
    async def main() -> None:
        place = Place()
        one = await place.gateway(t=2, u=1)
        before = place.manifests
        assert [E.none] * 3 == await commit(one, {"t": {0: 5, 1: 7}, "u": {0: 2**62}}, version)
        assert before + 1 == place.manifests, "one intent"
        two = await place.gateway()
        wanted = {"t": [1, 0, 2], "u": [0]}
        for reading in range(1, 11):
            found = await fetch(two, wanted, reading)
            assert [7, 5, -1, 2**62] == offsets_in(found)
            assert [E.none] * 4 == codes_in(found)
            assert not found.get("error_code")
            if reading >= 2:
                assert [5, 7, 2**62] == sorted(offsets_in(await fetch(two, None, reading)))

    simulate(main())


def test_metadata_and_leader_epoch_are_kept() -> None:
    async def main() -> None:
        one = await Place().gateway(t=1)
        assert [E.none] == await commit(one, {"t": {0: 5}}, committed_metadata="m" * 4_096, committed_leader_epoch=3)
        found = (await fetch(one, None))["topics"][0]["partitions"][0]
        assert ("m" * 4_096, 3) == (found["metadata"], found["committed_leader_epoch"])
        assert [E.offset_metadata_too_large] == await commit(one, {"t": {0: 6}}, committed_metadata="m" * 4_097)
        assert [5] == offsets_in(await fetch(one, None))

    simulate(main())


@pytest.mark.parametrize("version", [2, 5, 9])
def test_a_client_may_commit_that_a_group_begins_anew(version: int) -> None:
    """kafkajs, whose offset was out of range, commits -2 or -1, and was refused: its consumer was dead for good."""

    async def main() -> None:
        place = Place()
        one = await place.gateway(t=3)
        await one.namespace.append("t", 0, blob(count=4))
        assert [E.none] * 3 == await commit(one, {"t": {0: -2, 1: -1, 2: 7}}, version)
        two = await place.gateway()
        assert [-2, -1, 7] == offsets_in(await fetch(two, {"t": [0, 1, 2]}, version))
        assert {("t", 2): 7} == {tp: found.offset for tp, found in (await two.namespace.committed("g")).items()}
        lags = {lag.partition: (lag.committed, lag.lag) for lag in await Service(two.namespace).lag("g")}
        assert {0: (-1, 4), 1: (-1, 0), 2: (7, 0)} == lags
        assert [E.none] == await commit(one, {"t": {0: 3}}, version)
        assert [3] == offsets_in(await fetch(two, {"t": [0]}, version))

    simulate(main())


def test_each_partition_has_a_code_of_its_own() -> None:
    async def main() -> None:
        place = Place()
        one = await place.gateway(t=2)
        wanted = {"t": {0: 5, 2: 1, -1: 1, 1: -3}, "none": {0: 1}}
        bad = [E.unknown_topic_or_partition] * 2 + [E.invalid_request]
        assert [E.none, *bad, E.unknown_topic_or_partition] == await commit(one, wanted, 9)
        assert [E.none, *bad, E.unknown_topic_id] == await commit(one, wanted, 10)
        assert [5] == offsets_in(await fetch(one, None))
        assert [E.unknown_topic_id] == codes_in(await fetch(one, {"none": [0]}))
        assert [E.none] == codes_in(await fetch(one, {"none": [0]}, 9))
        two = await place.gateway()
        await two.namespace.create_topic("late")
        assert [E.none] == await commit(one, {"late": {0: 1}}, 9), "made by another gateway a moment ago"

    simulate(main())


def test_members_of_a_classic_group_are_fenced_by_id_instance_and_generation() -> None:
    async def main() -> None:
        place = Place()
        one = Classic(await place.gateway(t=1), instance="i")
        await one.lead_alone()
        two = await place.gateway()

        async def code(version: int = 9, **more: Any) -> E:
            who = {
                "generation_id_or_member_epoch": more.get("generation", one.generation),
                "member_id": more.get("member", one.member),
                "group_instance_id": more.get("instance"),
                "group_id": more.get("group", "g"),
            }
            return (await commit(two, {"t": {0: 5}}, version, **who))[0]

        await two.namespace.refresh()
        assert E.none is await code()
        assert E.none is await code(instance="i")
        assert E.illegal_generation is await code(generation=2)
        assert E.illegal_generation is await code(generation=-1)
        assert E.unknown_member_id is await code(member="x")
        assert E.unknown_member_id is await code(member="", generation=-1), "it would move offsets under the members"
        assert E.fenced_instance_id is await code(member="x", instance="i")
        assert E.unknown_member_id is await code(instance="j")
        assert E.invalid_group_id is await code(group="")
        assert E.group_id_not_found is await code(group="other")
        assert E.illegal_generation is await code(8, group="other")
        await one.ask(LEAVE, members=[{"member_id": one.member}])
        assert E.unknown_member_id is await code()
        assert E.none is await code(member="", generation=-1)

    simulate(main())


def test_nobody_commits_while_the_leader_assigns() -> None:
    async def main() -> None:
        one = Classic(await Place().gateway(t=1))
        assert E.none is await one.join()
        who = {"generation_id_or_member_epoch": 1, "member_id": one.member}
        assert [E.rebalance_in_progress] == await commit(one.peer, {"t": {0: 5}}, **who)

    simulate(main())


def test_more_offsets_than_one_operation_takes_are_one_intent() -> None:
    async def main() -> None:
        place = Place()
        one = await place.gateway(t=10_000, u=5)
        before = place.manifests
        wanted = {"t": dict.fromkeys(range(10_000), 1), "u": dict.fromkeys(range(5), 1)}
        assert {E.none} == set(await commit(one, wanted))
        assert before + 1 == place.manifests
        assert 10_005 == len(offsets_in(await fetch(one, None)))

    simulate(main())


def test_topics_that_one_may_not_read_are_not_moved() -> None:
    async def main() -> None:
        place = Place()
        root = await place.gateway(mine=1, other=1)
        rules = [AclRule("alice", "read", "group", "g"), AclRule("alice", "read", "topic", "mine")]
        await Service(root.namespace).change_acls(add=rules)
        alice = await place.gateway("alice")
        wanted = {"mine": {0: 1}, "other": {0: 1}}
        assert [E.none, E.topic_authorization_failed] == await commit(alice, wanted)
        assert [E.none] == await commit(root, {"other": {0: 3}})
        assert [1] == offsets_in(await fetch(alice, None))
        assert [E.none, E.topic_authorization_failed] == codes_in(await fetch(alice, {"mine": [0], "other": [0]}))
        assert [E.group_authorization_failed] == await commit(alice, {"mine": {0: 1}}, group_id="h")
        assert E.group_authorization_failed == (await fetch(alice, None, group="h"))["error_code"]
        assert [E.group_authorization_failed] == codes_in(await fetch(alice, {"mine": [0]}, 1, group="h"))

    simulate(main())


def test_many_groups_are_fetched_at_once_and_each_once() -> None:
    async def main() -> None:
        one = await Place().gateway(t=1)
        for n, group in enumerate("abc"):
            await commit(one, {"t": {0: n}}, group_id=group)
        asked = [{"group_id": group, "topics": None} for group in "abcab"]
        answer = await ask(one, FETCH, groups=asked)
        assert [("a", [0]), ("b", [1]), ("c", [2])] == [(g["group_id"], offsets_in(g)) for g in answer["groups"]]

    simulate(main())


# -- offsets deleted -----------------------------------------------------------------------------------------------


def test_offsets_are_deleted_unless_a_member_subscribes_to_their_topic() -> None:
    async def main() -> None:
        place = Place()
        one = await place.gateway(t=2, u=1)

        async def delete(group: str = "g", **topics: list[int]) -> tuple[E, list[E]]:
            rows = [{"name": t, "partitions": [{"partition_index": p} for p in ps]} for t, ps in topics.items()]
            answer = await ask(one, DELETE_OFFSETS, group_id=group, topics=rows)
            return E(answer["error_code"]), codes_in(answer)

        assert (E.group_id_not_found, []) == await delete(t=[0])
        await commit(one, {"t": {0: 1, 1: 2}, "u": {0: 3}})
        unknown = E.unknown_topic_or_partition
        assert (E.none, [E.none, unknown, unknown]) == await delete(t=[0, 7], none=[0])
        assert (E.none, [E.none]) == await delete(t=[0]), "there is nothing left to delete"
        assert [2, 3] == offsets_in(await fetch(one, None))
        subscription = struct.pack(">hih1si", 1, 1, 1, b"t", -1)
        member = Classic(one)
        assert E.none is await member.join(protocols=[{"name": "range", "metadata": subscription}])
        assert (E.none, [E.group_subscribed_to_topic, E.none]) == await delete(t=[1], u=[0])
        assert (E.invalid_group_id, []) == await delete("", t=[0])

    simulate(main())


# -- admin -----------------------------------------------------------------------------------------------------------


async def listed(peer: Peer, version: int = 5, **filters: list[str]) -> list[tuple[str, ...]]:
    answer = await ask(peer, LIST, version, **filters)
    return [(g["group_id"], g["protocol_type"], g["group_state"], g["group_type"]) for g in answer["groups"]]


async def three_groups(place: Place) -> Peer:
    """``a`` has offsets only, ``g`` a classic member, ``k`` one of the consumer protocol."""
    one = await place.gateway(t=1)
    await commit(one, {"t": {0: 1}}, group_id="a")
    await Classic(one).lead_alone()
    terms = {"rebalance_timeout": 60_000, "subscribed_topic_names": ["t"], "topic_partitions": []}
    assert E.none == (await ask(one, CONSUMER, group_id="k", member_id="m", **terms))["error_code"]
    return one


def test_groups_are_listed_by_state_and_type() -> None:
    async def main() -> None:
        one = await three_groups(Place())
        a = ("a", "", "Empty", "Classic")
        g = ("g", "consumer", "Stable", "Classic")
        k = ("k", "consumer", "Stable", "Consumer")
        assert [a, g, k] == await listed(one)
        assert [a] == await listed(one, states_filter=["EMPTY", "dead"])
        assert [g, k] == await listed(one, states_filter=["stable"])
        assert [k] == await listed(one, types_filter=["consumer"])
        assert [a, g] == await listed(one, types_filter=["Classic"])
        assert [] == await listed(one, types_filter=["share"])
        for version in range(5):
            assert ["a", "g", "k"] == [each["group_id"] for each in (await ask(one, LIST, version))["groups"]]

    simulate(main())


def test_only_groups_that_one_may_describe_are_listed() -> None:
    async def main() -> None:
        place = Place()
        one = await three_groups(place)
        rules = [AclRule("alice", "describe", "group", "g"), AclRule("carl", "describe", "cluster", "kafka-cluster")]
        await Service(one.namespace).change_acls(add=rules)
        assert ["g"] == [row[0] for row in await listed(await place.gateway("alice"))]
        assert ["a", "g", "k"] == [row[0] for row in await listed(await place.gateway("carl"))]
        described = await ask(await place.gateway("alice"), DESCRIBE, groups=["a", "g"])
        assert [E.group_authorization_failed, E.none] == [each["error_code"] for each in described["groups"]]

    simulate(main())


@pytest.mark.parametrize("version", range(7))
def test_a_classic_group_is_described_with_what_its_members_said(version: int) -> None:
    async def main() -> None:
        one = await three_groups(Place())
        more = {"include_authorized_operations": True} if version >= 3 else {}
        answer = await ask(one, DESCRIBE, version, groups=["g", "a", "k", "none", "g"], **more)
        g, a, k, none = answer["groups"]
        assert ("g", "Stable", "consumer", "range") == tuple(
            g[name] for name in ("group_id", "group_state", "protocol_type", "protocol_data")
        )
        member = g["members"][0]
        assert (b"of range", b"all", "c") == (
            member["member_metadata"],
            member["member_assignment"],
            member["client_id"],
        )
        assert ("Empty", []) == (a["group_state"], a["members"])
        code = E.group_id_not_found if version >= 6 else E.none
        assert [("Dead", code)] * 2 == [(each["group_state"], each["error_code"]) for each in (k, none)]
        if version >= 3:
            assert 1 << 3 | 1 << 6 | 1 << 8 == g["authorized_operations"]

    simulate(main())


@pytest.mark.parametrize("version", range(3))
def test_groups_without_members_are_deleted(version: int) -> None:
    async def main() -> None:
        place = Place()
        one = await three_groups(place)
        await sim_loop().sleep(1.0)
        answer = await ask(one, DELETE, version, groups_names=["a", "g", "k", "none", "", "a"])
        busy, gone = E.non_empty_group, E.group_id_not_found
        assert [("a", E.none), ("g", busy), ("k", busy), ("none", gone), ("", E.invalid_group_id)] == [
            (each["group_id"], each["error_code"]) for each in answer["results"]
        ]
        assert ["g", "k"] == [row[0] for row in await listed(one)]

    simulate(main())


@pytest.mark.parametrize("kind", ["classic", "consumer"])
def test_of_members_that_all_died_admins_hear_no_more_once_their_sessions_are_over(kind: str) -> None:
    async def main() -> None:
        place = Place()
        one, admin = await place.gateway(t=1), await place.gateway()
        if kind == "classic":
            await Classic(one).lead_alone()
        else:
            terms = {"rebalance_timeout": 60_000, "subscribed_topic_names": ["t"], "topic_partitions": []}
            await ask(one, CONSUMER, group_id="g", member_id="m", **terms)
        await admin.namespace.refresh()
        assert [E.unknown_member_id] == await commit(admin, {"t": {0: 1}})
        busy = (await ask(admin, DELETE, groups_names=["g"]))["results"]
        assert [E.non_empty_group] == [each["error_code"] for each in busy]
        await sim_loop().sleep(46.0)
        assert [("g", "Empty")] == [(row[0], row[2]) for row in await listed(admin)]
        api, field = (DESCRIBE, "groups") if kind == "classic" else (CONSUMER_DESCRIBE, "group_ids")
        described = (await ask(admin, api, **{field: ["g"]}))["groups"][0]
        assert ("Empty", []) == (described["group_state"], described["members"])
        assert [E.none] == await commit(admin, {"t": {0: 1}})
        gone = (await ask(admin, DELETE, groups_names=["g"]))["results"]
        assert [E.none] == [each["error_code"] for each in gone]

    simulate(main())


def test_describing_members_that_this_gateway_serves_costs_one_get() -> None:
    async def main() -> None:
        place = Place()
        one = await three_groups(place)
        before = place.meters[0].counts.copy()
        await ask(one, DESCRIBE, groups=["g", "a"])
        asked = place.meters[0].counts - before
        assert (1, 0, 0) == (asked.get, asked.list, asked.put)

    simulate(main())


def test_offsets_that_a_transaction_is_about_to_move_are_not_stable() -> None:
    async def main() -> None:
        place = Place()
        one, two = await place.gateway(t=2), await place.gateway()
        await commit(one, {"t": {0: 1, 1: 1}})
        producer = await ask(one, 22, transactional_id="x", transaction_timeout=60_000)
        who = {"producer_id": producer["producer_id"], "producer_epoch": producer["producer_epoch"]}
        topics = places(one, 3, {"t": {0: 5}})
        answer = await ask(one, 28, 3, transactional_id="x", group_id="g", topics=topics, **who)
        assert [E.none] == codes_in(answer)
        assert [1, 1] == offsets_in(await fetch(two, {"t": [0, 1]}))
        found = await fetch(two, {"t": [0, 1]}, require_stable=True)
        assert ([-1, 1], [E.unstable_offset_commit, E.none]) == (offsets_in(found), codes_in(found))
        assert [-1, 1] == offsets_in(await fetch(two, None, 7, require_stable=True))
        assert E.none == (await ask(one, 26, 3, transactional_id="x", committed=True, **who))["error_code"]
        assert [5, 1] == offsets_in(await fetch(two, {"t": [0, 1]}, require_stable=True))

    simulate(main())
