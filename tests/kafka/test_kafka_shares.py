"""Share groups (KIP-932) through the handlers: what members are given, and what becomes of what they say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.groups.shares import Shares
from headwater.kafka.handlers import table
from headwater.kafka.handlers.group_rules import coordinator_of
from headwater.kafka.model import Fields, Later, Peer, Request
from headwater.kafka.names import topic_uuid
from headwater.kafka.share_records import extents
from headwater.kafka.share_sessions import ShareSessions
from headwater.limits import SHARE_LEASE_MS, SHARE_STOP_S
from headwater.log import kafka2
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log.operations import AclRule
from headwater.log.small import batch_of
from headwater.sim.loop import sim_loop
from headwater.types import Record
from tests.kafka.helpers_kafka_groups import DELETE, DESCRIBE, LIST, Place
from tests.kafka.helpers_peer import ask, handled
from tests.log.helpers import simulate

HEARTBEAT, SHARE_DESCRIBE, SHARE_FETCH, ACKNOWLEDGE = 76, 77, 78, 79
DESCRIBE_OFFSETS, ALTER_OFFSETS, DELETE_OFFSETS = 90, 91, 92
DESCRIBE_CONFIGS, ALTER_CONFIGS, LIST_CONFIGS = 32, 44, 74
GROUP = 32
ACCEPT, RELEASE, REJECT, RENEW = 1, 2, 3, 4
Offsets = list[tuple[int, int, int]]  # first, last, deliveries


@dataclass(slots=True)
class Member:
    """A member of group ``g`` as a client has it, with a session of its own on one gateway."""

    peer: Peer
    member: str = "m"
    epoch: int = 0
    session: int = 0
    answer: Fields = field(default_factory=dict)

    async def beat(self, epoch: int | None = None, **more: Any) -> E:
        asked = {"group_id": "g", "member_id": self.member, "member_epoch": self.epoch if epoch is None else epoch}
        self.answer = await ask(self.peer, HEARTBEAT, **{**asked, **more})
        if self.answer["error_code"] == E.none:
            self.epoch = self.answer["member_epoch"]
        return E(self.answer["error_code"])

    async def join(self, *topics: str, **more: Any) -> E:
        return await self.beat(0, subscribed_topic_names=list(topics or ("t",)), **more)

    @property
    def owned(self) -> dict[int, list[int]]:
        """The partitions that it was told to read, by topic's id."""
        rows = (self.answer["assignment"] or {"topic_partitions": []})["topic_partitions"]
        return {int.from_bytes(row["topic_id"][8:], "big"): row["partitions"] for row in rows}

    async def fetch(self, *said: tuple[int, int, int], partition: int = 0, **more: Any) -> Offsets:
        """What it is given, once it has said (first, last, type) of other records."""
        asked: dict[str, Any] = {"max_wait": 0, "min_bytes": 1, "max_records": 500, "batch_size": 500}
        await self._ask(SHARE_FETCH, said, partition, {**asked, **more})
        rows = [row for topic in self.answer["responses"] for row in topic["partitions"]]
        return [
            (each["first_offset"], each["last_offset"], each["delivery_count"])
            for row in rows
            for each in row["acquired_records"]
        ]

    async def say(self, *said: tuple[int, int, int], partition: int = 0, **more: Any) -> E:
        """Acknowledge without reading; the code of the request, or else of its partition."""
        await self._ask(ACKNOWLEDGE, said, partition, more)
        rows = [row for topic in self.answer["responses"] for row in topic["partitions"]]
        return E(self.answer["error_code"] or (rows[0]["error_code"] if rows else 0))

    @property
    def said(self) -> E:
        """The code of what was said with the last fetch."""
        return E(self.answer["responses"][0]["partitions"][0]["acknowledge_error_code"])

    async def _ask(self, api: int, said: tuple[tuple[int, int, int], ...], partition: int, more: Fields) -> None:
        batches = [{"first_offset": a, "last_offset": b, "acknowledge_types": [kind]} for a, b, kind in said]
        rows = [{"partition_index": partition, "acknowledgement_batches": batches}]
        topics = [{"topic_id": topic_uuid(self.peer.namespace, 1), "partitions": rows}]
        asked = {"group_id": "g", "member_id": self.member, "share_session_epoch": self.session, "topics": topics}
        self.answer = await ask(self.peer, api, **{**asked, **more})
        if self.answer["error_code"] == E.none:
            self.session += 1


async def written(peer: Peer, *counts: int, partition: int = 0) -> None:
    """Batches with so many records each."""
    for count in counts:
        records = [Record(value=f"v{n}".encode(), timestamp=1) for n in range(count)]
        await peer.namespace.append("t", partition, batch_of(records))


async def place(*counts: int, gateways: int = 1, **config: str) -> list[Member]:
    """Members ``m0``, ``m1``, …, each at a gateway of its own, that have joined; the topic has these batches."""
    world = Place()
    peers = [await world.gateway(t=1), *[await world.gateway() for _ in range(gateways - 1)]]
    await written(peers[0], *counts)
    config = {"share.auto.offset.reset": "earliest", **{name.replace("_", "."): v for name, v in config.items()}}
    await peers[0].namespace.writer.commit(ops=[share_ops.AlterGroup(group="g", config=dict(config))])
    members = [Member(peer, f"m{n}") for n, peer in enumerate(peers)]
    for each in members:
        assert E.none is await each.join()
    return members


# -- membership ----------------------------------------------------------------------------------------------


def test_members_join_share_partitions_and_leave() -> None:
    async def main() -> None:
        world = Place()
        first, other = Member(await world.gateway(t=2), "a"), Member(await world.gateway(), "b")
        assert E.none is await first.join()
        assert {1: [0, 1]} == first.owned
        assert 5_000 == first.answer["heartbeat_interval"]
        assert E.none is await other.join()
        await sim_loop().sleep(1.0)
        assert E.none is await first.beat()
        assert ({1: [0]}, {1: [1]}) == (first.owned, other.owned)
        assert E.none is await other.beat(-1)
        await sim_loop().sleep(1.0)
        assert E.none is await first.beat()
        assert {1: [0, 1]} == first.owned
        assert E.unknown_member_id is await other.beat(other.epoch + 3)

    simulate(main())


def test_a_silent_member_is_expelled_by_another_one() -> None:
    async def main() -> None:
        first, silent = await place(gateways=2)
        for _ in range(30):
            await sim_loop().sleep(5.0)
            assert E.none is await first.beat()
        assert ["m0"] == list(first.peer.namespace.state.groups["g"].members)
        assert E.unknown_member_id is await silent.beat()

    simulate(main())


@pytest.mark.parametrize(
    ("expected", "asked"),
    [
        (E.invalid_request, {"group_id": ""}),
        (E.invalid_request, {"member_id": ""}),
        (E.invalid_request, {"member_epoch": -2}),
        (E.invalid_request, {"member_epoch": 0, "subscribed_topic_names": None}),
        (E.unknown_member_id, {"member_epoch": 1, "member_id": "nobody"}),
        (E.fenced_member_epoch, {"member_epoch": 99}),
    ],
)
def test_heartbeats_that_make_no_sense_get_kafkas_codes(expected: E, asked: dict[str, Any]) -> None:
    async def main() -> None:
        (member,) = await place()
        assert expected is await member.beat(**asked)

    simulate(main())


def test_a_group_of_another_kind_does_not_share() -> None:
    async def main() -> None:
        world = Place()
        peer = await world.gateway(t=1)
        await peer.namespace.commit_offsets("g", {("t", 0): 0})
        assert E.group_id_not_found is await Member(peer).join()

    simulate(main())


# -- records -------------------------------------------------------------------------------------------------


def test_records_are_locked_accepted_and_never_seen_again() -> None:
    async def main() -> None:
        first, other = await place(3, 2, gateways=2)
        assert [(0, 2, 1), (3, 4, 1)] == await first.fetch()
        assert 30_000 == first.answer["acquisition_lock_timeout"]
        rows = first.answer["responses"][0]["partitions"]
        assert [3, 2] == [each.records for each in extents(rows[0]["records"])]
        assert len(kafka2.headers_of(rows[0]["records"])) == 2
        assert [] == await other.fetch()
        assert E.none is await first.say((0, 4, ACCEPT))
        await sim_loop().sleep(60.0)
        assert [] == await first.fetch()
        await written(first.peer, 1)
        assert [(5, 5, 1)] == await other.fetch()

    simulate(main())


def test_what_is_released_comes_again_what_is_rejected_does_not_and_counts_are_told() -> None:
    async def main() -> None:
        (member,) = await place(4)
        assert [(0, 3, 1)] == await member.fetch()
        assert [] == await member.fetch((0, 0, ACCEPT), (1, 1, RELEASE), (2, 2, REJECT))
        assert E.none is member.said
        assert [(1, 1, 2)] == await member.fetch()
        assert E.none is await member.say((1, 1, RELEASE), (3, 3, ACCEPT))
        assert [(1, 1, 3)] == await member.fetch()

    simulate(main())


def test_a_record_is_archived_when_it_was_delivered_too_often() -> None:
    async def main() -> None:
        (member,) = await place(1, share_delivery_count_limit="2")
        assert [(0, 0, 1)] == await member.fetch()
        assert E.none is await member.say((0, 0, RELEASE))
        assert [(0, 0, 2)] == await member.fetch()
        assert E.none is await member.say((0, 0, RELEASE))
        assert [] == await member.fetch()
        await sim_loop().sleep(60.0)
        assert [] == await member.fetch()
        assert 1 == member.peer.namespace.state.groups["g"].shares[1][0].start

    simulate(main())


def test_a_lock_whose_time_is_up_is_anothers_and_a_renewed_one_is_not() -> None:
    async def main() -> None:
        (member,) = await place(2)
        other = Member(member.peer, "other")
        assert [(0, 1, 1)] == await member.fetch()
        await sim_loop().sleep(20.0)
        assert E.none is await member.say((1, 1, RENEW), is_renew_ack=True)
        await sim_loop().sleep(11.0)
        assert [(0, 0, 2)] == await other.fetch()
        assert E.invalid_record_state is await member.say((0, 0, ACCEPT))
        assert E.none is await member.say((1, 1, ACCEPT))
        assert E.none is await other.say((0, 0, ACCEPT))

    simulate(main())


def test_renewals_are_refused_where_the_group_has_none() -> None:
    async def main() -> None:
        (member,) = await place(1, share_renew_acknowledge_enable="false")
        await member.fetch()
        assert E.invalid_request is await member.say((0, 0, RENEW))

    simulate(main())


def test_older_clients_take_whole_batches_and_renew_nothing() -> None:
    async def main() -> None:
        (member,) = await place(4)
        topics = [{"topic_id": topic_uuid(member.peer.namespace, 1), "partitions": [{"partition_index": 0}]}]
        asked: dict[str, Any] = {"group_id": "g", "member_id": "m0", "topics": topics, "max_records": 1}
        first = await ask(member.peer, SHARE_FETCH, 1, **asked)
        (row,) = first["responses"][0]["partitions"]
        assert [(0, 3)] == [(each["first_offset"], each["last_offset"]) for each in row["acquired_records"]]
        renewal = {"first_offset": 0, "last_offset": 0, "acknowledge_types": [RENEW]}
        topics[0]["partitions"][0]["acknowledgement_batches"] = [renewal]
        said = await ask(member.peer, ACKNOWLEDGE, 1, **{**asked, "share_session_epoch": 1})
        assert E.invalid_request is E(said["responses"][0]["partitions"][0]["error_code"])

    simulate(main())


def test_a_record_limit_is_kept_and_whole_batches_are_the_default() -> None:
    async def main() -> None:
        (member,) = await place(10, 10)
        other = Member(member.peer, "other")
        assert [(0, 2, 1)] == await member.fetch(max_records=3, share_acquire_mode=1)
        assert [(3, 9, 1)] == await other.fetch(max_records=3)

    simulate(main())


def test_two_members_of_one_gateway_are_given_different_records() -> None:
    async def main() -> None:
        (member,) = await place(2, 2, 2)
        other = Member(member.peer, "other")
        assert [(0, 1, 1)] == await member.fetch(max_records=2)
        assert [(2, 3, 1)] == await other.fetch(max_records=2)
        assert E.invalid_record_state is await other.say((0, 1, ACCEPT))

    simulate(main())


def test_two_gateways_hand_out_one_partition_at_the_same_time() -> None:
    async def main() -> None:
        first, other = await place(60, 60, 60, gateways=2)
        assert [(0, 59, 1)] == await first.fetch(max_records=60)
        await other.peer.namespace.refresh()
        got = await other.fetch(max_records=60)
        assert got
        assert got[0][0] >= 100  # a claim takes a hundred offsets
        assert E.none is await first.say((0, 59, ACCEPT))
        assert E.none is await other.say(*((a, b, ACCEPT) for a, b, _ in got))

    simulate(main())


def test_records_of_a_gateway_that_died_are_anothers_when_its_lease_is_over() -> None:
    async def main() -> None:
        first, other = await place(5, gateways=2)
        assert [(0, 4, 1)] == await first.fetch()
        assert E.none is await first.say((0, 1, ACCEPT))
        shares = first.peer.namespace.shared(Shares)
        assert shares._tending is not None
        shares._tending.cancel()  # it is as if the process had been killed
        await sim_loop().sleep(SHARE_LEASE_MS / 1_000 - 5.0)
        assert [] == await other.fetch()
        await sim_loop().sleep(10.0)
        assert [(2, 4, 1)] == await other.fetch()
        assert E.invalid_record_state is await first.say((2, 4, ACCEPT))
        assert E.none is await other.say((2, 4, ACCEPT))

    simulate(main())


def test_a_gateway_that_stops_in_order_gives_everything_back_at_once() -> None:
    async def main() -> None:
        first, other = await place(5, gateways=2)
        assert [(0, 4, 1)] == await first.fetch()
        await first.peer.namespace.shared(Shares).close()
        await other.peer.namespace.refresh()
        assert [(0, 4, 1)] == await other.fetch()

    simulate(main())


def test_a_gateway_that_stops_while_the_store_is_silent_does_not_wait_for_long() -> None:
    async def main() -> None:
        (member,) = await place(5)
        assert [(0, 4, 1)] == await member.fetch()
        shares, loop = member.peer.namespace.shared(Shares), sim_loop()
        never: asyncio.Future[None] = loop.create_future()
        shares._tasks.add(loop.create_task(_wait_for(never)))
        began_s = loop.time()
        await shares.close()
        assert SHARE_STOP_S == pytest.approx(loop.time() - began_s, abs=0.1)
        never.set_result(None)
        await sim_loop().sleep(1.0)

    simulate(main())


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future


def test_unwanted_records_are_given_back_and_an_idle_gateway_asks_for_nothing() -> None:
    async def main() -> None:
        first, other = await place(5, gateways=2)
        assert [(0, 1, 1)] == await first.fetch(max_records=2, share_acquire_mode=1)
        assert E.none is await first.say((0, 1, ACCEPT))
        await sim_loop().sleep(30.0)
        await other.peer.namespace.refresh()
        assert [(2, 4, 1)] == await other.fetch()
        assert E.none is await other.say((2, 4, ACCEPT))
        await sim_loop().sleep(30.0)
        shares = other.peer.namespace.shared(Shares)
        assert shares._tending is not None
        assert shares._tending.done()

    simulate(main())


def test_a_long_poll_ends_when_records_come() -> None:
    async def main() -> None:
        (member,) = await place()
        loop, began_s = sim_loop(), sim_loop().time()
        reading = loop.create_task(member.fetch(max_wait=10_000))
        await loop.sleep(2.0)
        await written(member.peer, 1)
        assert [(0, 0, 1)] == await reading
        assert loop.time() - began_s < 4.0

    simulate(main())


def test_without_a_word_a_group_begins_at_the_end() -> None:
    async def main() -> None:
        (member,) = await place(3, share_auto_offset_reset="latest")
        assert [] == await member.fetch()
        await written(member.peer, 1)
        assert [(3, 3, 1)] == await member.fetch()

    simulate(main())


def test_records_that_retention_takes_are_not_waited_for() -> None:
    async def main() -> None:
        (member,) = await place(4, 4)
        assert [(0, 3, 1)] == await member.fetch(max_records=4)
        await member.peer.namespace.trim("t", 0, 6)
        assert [(6, 7, 1)] == await member.fetch()
        assert E.none is await member.say((0, 3, ACCEPT), (6, 7, ACCEPT))
        await sim_loop().sleep(10.0)
        assert 8 == member.peer.namespace.state.groups["g"].shares[1][0].start

    simulate(main())


# -- sessions ------------------------------------------------------------------------------------------------


def test_sessions_count_their_requests_and_end_with_the_last() -> None:
    async def main() -> None:
        (member,) = await place(2)
        assert E.share_session_not_found is E((await _raw(member, 1))["error_code"])
        assert E.invalid_share_session_epoch is not E((await _raw(member, 0))["error_code"])
        assert E.invalid_share_session_epoch is E((await _raw(member, 7))["error_code"])
        member.session = -1
        assert E.none is await member.say((0, 0, ACCEPT))
        assert 0 == len(member.peer.namespace.shared(ShareSessions))
        member.session = 0
        assert [(1, 1, 1)] == await member.fetch(), "what was held and not accepted counts as not delivered"

    simulate(main())


async def _raw(member: Member, epoch: int) -> Fields:
    member.session = epoch
    await member.fetch()
    return member.answer


def test_who_opens_a_session_acknowledges_nothing_and_only_a_fetch_opens_one() -> None:
    async def main() -> None:
        (member,) = await place(1)
        await member.fetch((0, 0, ACCEPT))
        assert E.invalid_request is E(member.answer["error_code"])
        assert E.share_session_not_found is await member.say((0, 0, ACCEPT))

    simulate(main())


def test_a_client_that_goes_away_while_it_waits_leaves_its_records_to_others() -> None:
    async def main() -> None:
        (member,) = await place(1)
        other = Member(member.peer, "other")
        assert [(0, 0, 1)] == await member.fetch()
        fields = {"group_id": "g", "member_id": "m0", "share_session_epoch": 1, "max_wait": 60_000, "topics": []}
        defaults = {"min_bytes": 1, "max_bytes": 1, "max_records": 1, "is_renew_ack": False, "share_acquire_mode": 0}
        request = Request(
            api=78,
            version=2,
            correlation=1,
            client="c",
            fields={**defaults, **fields, "forgotten_topics_data": []},
        )
        answer = await handled(member.peer, request)
        assert isinstance(answer, Later)
        waiting = sim_loop().create_task(answer.answer)
        await sim_loop().sleep(1.0)
        waiting.cancel()
        await sim_loop().sleep(0.0)
        assert [(0, 0, 1)] == await other.fetch()

    simulate(main())


@pytest.mark.parametrize(
    "batch",
    [
        {"first_offset": 1, "last_offset": 0, "acknowledge_types": [ACCEPT]},
        {"first_offset": 0, "last_offset": 2, "acknowledge_types": [ACCEPT, ACCEPT]},
        {"first_offset": 0, "last_offset": 0, "acknowledge_types": []},
        {"first_offset": 0, "last_offset": 0, "acknowledge_types": [9]},
        {"first_offset": -1, "last_offset": 0, "acknowledge_types": [ACCEPT]},
        {"first_offset": 0, "last_offset": 2**62, "acknowledge_types": [ACCEPT, REJECT]},
    ],
)
def test_words_that_make_no_sense_are_refused_and_change_nothing(batch: Fields) -> None:
    async def main() -> None:
        (member,) = await place(3)
        assert [(0, 2, 1)] == await member.fetch()
        rows = [{"partition_index": 0, "acknowledgement_batches": [batch]}]
        topics = [{"topic_id": topic_uuid(member.peer.namespace, 1), "partitions": rows}]
        assert E.invalid_request is await member.say(topics=topics)
        assert E.none is await member.say((0, 2, ACCEPT))

    simulate(main())


def test_who_asks_for_no_bytes_is_given_no_record() -> None:
    async def main() -> None:
        (member,) = await place(3)
        assert [] == await member.fetch(max_bytes=0)
        assert [(0, 2, 1)] == await member.fetch(max_bytes=1)

    simulate(main())


def test_rights_on_group_and_topic_are_asked_for() -> None:
    async def main() -> None:
        world = Place()
        root = await world.gateway(t=1)
        rules = [AclRule("joe", "read", "group", "g"), AclRule("joe", "describe", "topic", "t")]
        await root.namespace.writer.commit(ops=[ops.ChangeAcls(add=rules)])
        joe, eve = Member(await world.gateway("joe")), Member(await world.gateway("eve"))
        assert E.none is await joe.join()
        await joe.fetch()
        assert E.topic_authorization_failed is E(joe.answer["responses"][0]["partitions"][0]["error_code"])
        assert E.group_authorization_failed is await eve.join()
        await eve.fetch()
        assert E.group_authorization_failed is E(eve.answer["error_code"])

    simulate(main())


# -- admins --------------------------------------------------------------------------------------------------


def test_admins_see_groups_their_offsets_and_lag_and_begin_them_anew() -> None:
    async def main() -> None:
        (member,) = await place(6)
        peer = member.peer
        assert [(0, 5, 1)] == await member.fetch()
        assert E.none is await member.say((0, 1, ACCEPT), (4, 4, ACCEPT))
        groups = (await ask(peer, LIST, types_filter=["Share"]))["groups"]
        assert [("g", "share", "Stable", "Share")] == [
            (g["group_id"], g["protocol_type"], g["group_state"], g["group_type"]) for g in groups
        ]
        assert [] == (await ask(peer, LIST, types_filter=["consumer"]))["groups"]
        (found,) = (await ask(peer, SHARE_DESCRIBE, group_ids=["g"]))["groups"]
        assert ("Stable", "simple", ["m0"]) == (
            found["group_state"],
            found["assignor_name"],
            [each["member_id"] for each in found["members"]],
        )
        (old,) = (await ask(peer, DESCRIBE, groups=["g"]))["groups"]
        assert E.group_id_not_found is E(old["error_code"])
        assert (2, 3) == await offsets(peer)
        starts = [{"topic_name": "t", "partitions": [{"partition_index": 0, "start_offset": 5}]}]
        busy = await ask(peer, ALTER_OFFSETS, group_id="g", topics=starts)
        assert E.non_empty_group is E(busy["error_code"])
        assert E.none is await member.beat(-1)
        done = await ask(peer, ALTER_OFFSETS, group_id="g", topics=starts)
        assert E.none is E(done["error_code"])
        assert (5, 1) == await offsets(peer)
        gone = await ask(peer, DELETE_OFFSETS, group_id="g", topics=[{"topic_name": "t"}, {"topic_name": "x"}])
        assert [E.none, E.unknown_topic_or_partition] == [E(row["error_code"]) for row in gone["responses"]]
        assert (-1, -1) == await offsets(peer)
        (deleted,) = (await ask(peer, DELETE, groups_names=["g"]))["results"]
        assert E.none is E(deleted["error_code"])
        missing = await ask(peer, DELETE_OFFSETS, group_id="g", topics=[{"topic_name": "t"}])
        assert E.group_id_not_found is E(missing["error_code"])
        assert E.none is E((await ask(peer, ALTER_OFFSETS, group_id="g", topics=starts))["error_code"])
        assert starts[0]["partitions"][0]["start_offset"] == (await offsets(peer))[0], "and the group is there"
        trail = await peer.namespace.reader.fetch("__audit", 0, 0)
        assert 4 == trail.next_offset

    simulate(main())


async def offsets(peer: Peer) -> tuple[int, int]:
    """Start offset and lag of the only partition."""
    asked = [{"group_id": "g", "topics": [{"topic_name": "t", "partitions": [0]}]}]
    (group,) = (await ask(peer, DESCRIBE_OFFSETS, groups=asked))["groups"]
    (row,) = group["topics"][0]["partitions"]
    everything = (await ask(peer, DESCRIBE_OFFSETS, groups=[{"group_id": "g", "topics": None}]))["groups"][0]["topics"]
    assert [[row]] == [topic["partitions"] for topic in everything] or row["start_offset"] == -1
    return row["start_offset"], row["lag"]


def test_a_group_that_is_idle_for_long_keeps_its_place_and_costs_no_commit() -> None:
    async def main() -> None:
        (member,) = await place(2)
        assert [(0, 1, 1)] == await member.fetch()
        assert E.none is await member.say((0, 1, ACCEPT))
        assert E.none is await member.beat(-1)
        await sim_loop().sleep(8 * 86_400.0)
        namespace = member.peer.namespace
        before = (await namespace.refresh()).seq
        for _ in range(2):
            assert () == (await coordinator_of(member.peer).sweep()).expired
        assert before == (await namespace.refresh()).seq
        assert 2 == namespace.state.groups["g"].shares[1][0].start

    simulate(main(), limit_s=10 * 86_400.0)


def test_configs_of_groups_are_shown_altered_and_listed() -> None:
    async def main() -> None:
        world = Place()
        peer = await world.gateway(t=1)

        async def alter(name: str, value: str | None) -> E:
            row = {"name": name, "config_operation": 0 if value is not None else 1, "value": value}
            resources = [{"resource_type": GROUP, "resource_name": "g", "configs": [row]}]
            (answer,) = (await ask(peer, ALTER_CONFIGS, resources=resources))["responses"]
            return E(answer["error_code"])

        async def shown(name: str) -> tuple[str, int]:
            asked = [{"resource_type": GROUP, "resource_name": "g", "configuration_keys": [name]}]
            (found,) = (await ask(peer, DESCRIBE_CONFIGS, resources=asked))["results"][0]["configs"]
            return found["value"], found["config_source"]

        lock = "share.record.lock.duration.ms"
        assert ("30000", 5) == await shown(lock)
        assert E.none is await alter(lock, "15000")
        assert ("15000", 8) == await shown(lock)
        for name, value in (
            (lock, "14999"),
            (lock, "x"),
            ("share.auto.offset.reset", "by_duration:P"),
            ("share.isolation.level", "none"),
            ("no.such.config", "1"),
        ):
            assert E.invalid_config is await alter(name, value), name
        assert E.none is await alter("share.auto.offset.reset", "by_duration:P1DT2H3M4.5S")
        listed = (await ask(peer, LIST_CONFIGS, resource_types=[GROUP]))["config_resources"]
        assert [("g", GROUP)] == [(each["resource_name"], each["resource_type"]) for each in listed]
        assert E.none is await alter(lock, None)
        assert ("30000", 5) == await shown(lock)

    simulate(main())


def test_the_state_of_share_partitions_is_nobodys_to_ask_for() -> None:
    assert not {83, 84, 85, 86, 87} & set(table())
