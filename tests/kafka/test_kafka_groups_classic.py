"""The classic protocol through the handlers: each case gets the code that Kafka gives it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka.gateway import Settings
from headwater.kafka.handlers.group_rules import is_pending, new_member_id
from headwater.log.operations import AclRule
from headwater.sim.latency import S3_STANDARD, ZERO, Profile
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_groups import FIND, HEARTBEAT, JOIN, LEAVE, SYNC, Classic, Place
from tests.kafka.helpers_peer import ask
from tests.log.helpers import simulate

NOBODY = "client-00000000-0000-4000-8000-000000000000"


# -- who coordinates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(7))
@pytest.mark.parametrize("kind", [0, 1])
def test_a_gateway_says_that_it_coordinates_everything(version: int, kind: int) -> None:
    async def main() -> None:
        known = await Place().gateway()
        if version < 4:
            answer = await ask(known, FIND, version, key="g", key_type=kind)
            found = [answer]
        else:
            answer = await ask(known, FIND, version, coordinator_keys=["g", "h"], key_type=kind)
            found = answer["coordinators"]
            assert ["g", "h"] == [each["key"] for each in found]
        for each in found:
            assert (0, 1, "127.0.0.1", 9092) == (each["error_code"], each["node_id"], each["host"], each["port"])

    simulate(main())


def test_what_is_looked_for_must_be_known_and_allowed() -> None:
    async def main() -> None:
        place = Place()
        root = await place.gateway()
        await Service(root.namespace).change_acls(add=[AclRule("alice", "read", "group", "mine")])
        alice = await place.gateway("alice")

        async def code(kind: int, key: str) -> E:
            found = (await ask(alice, FIND, coordinator_keys=[key], key_type=kind))["coordinators"][0]
            assert (-1, "", -1) == (found["node_id"], found["host"], found["port"]) or found["error_code"] == 0
            return E(found["error_code"])

        assert E.none is await code(0, "mine")
        assert E.group_authorization_failed is await code(0, "other")
        assert E.transactional_id_authorization_failed is await code(1, "t")
        assert E.cluster_authorization_failed is await code(2, "g:t:0")
        assert E.invalid_request is await code(7, "mine")

    simulate(main())


# -- join ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(10))
def test_a_lone_member_joins_syncs_stays_and_leaves(version: int) -> None:
    async def main() -> None:
        member = Classic(await Place().gateway())
        assert E.none is await member.join(version)
        found = member.joined
        assert found is not None
        assert (1, "range", member.member) == (found["generation_id"], found["protocol_name"], found["leader"])
        assert [(member.member, b"of range")] == [(m["member_id"], m["metadata"]) for m in found["members"]]
        assert member.member.startswith("c-") and not found.get("skip_assignment")
        synced = await member.sync(min(version, 5), {member.member: b"mine"})
        assert (E.none, b"mine") == (synced["error_code"], synced["assignment"])
        assert E.none is await member.beat(min(version, 4))
        if version < 3:
            left = await member.ask(LEAVE, version, member_id=member.member)
        else:
            left = await member.ask(LEAVE, min(version, 5), members=[{"member_id": member.member}])
            assert [E.none] == [each["error_code"] for each in left["members"]]
        assert E.none == left["error_code"]
        assert E.unknown_member_id is await member.beat()

    simulate(main())


@pytest.mark.parametrize("version", [4, 9])
def test_a_member_hears_its_id_before_it_takes_a_place(version: int) -> None:
    async def main() -> None:
        place = Place()
        member = Classic(await place.gateway())
        before = place.manifests
        terms: dict[str, Any] = {"session_timeout": 10_000, "protocol_type": "consumer", "protocols": [{"name": "r"}]}
        answer = await member.ask(JOIN, version, **terms)
        assert E.member_id_required == answer["error_code"]
        assert answer["member_id"].startswith("c-")
        assert before == place.manifests, "nothing is written for whoever only asks"
        other = Classic(await place.gateway())
        answer = await other.ask(JOIN, version, **terms, member_id=answer["member_id"])
        assert E.none == answer["error_code"], "the id is good at any gateway"

    simulate(main())


def test_an_id_that_was_given_out_long_ago_or_never_is_unknown() -> None:
    async def main() -> None:
        member = Classic(await Place().gateway())
        for stranger in (NOBODY, "x", new_member_id("c", now_ms=1, rng=member.peer.gateway.rng)):
            member.member = stranger
            assert E.unknown_member_id is await member.join()

    simulate(main())


def test_an_id_tells_when_it_was_given_out() -> None:
    async def main() -> None:
        rng = (await Place().gateway()).gateway.rng
        name = new_member_id("a\x00b" * 400, now_ms=1_700_000_000_000, rng=rng)
        assert len(name.encode()) <= 512 and "\x00" not in name
        assert is_pending(name, 1_700_000_300_000)
        assert not is_pending(name, 1_700_000_300_001)
        assert is_pending(name, 1_699_999_700_000), "another gateway's clock may be ahead of ours"
        assert len({new_member_id("c", now_ms=1, rng=rng) for _ in range(100)}) == 100

    simulate(main())


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"group_id": ""}, E.invalid_group_id),
        ({"group_id": "a\x00"}, E.invalid_group_id),
        ({"group_id": "g" * 513}, E.invalid_group_id),
        ({"session_timeout": 5_999}, E.invalid_session_timeout),
        ({"session_timeout": 1_800_001}, E.invalid_session_timeout),
        ({"session_timeout": -1}, E.invalid_session_timeout),
        ({"protocol_type": ""}, E.inconsistent_group_protocol),
        ({"protocols": []}, E.inconsistent_group_protocol),
        ({"protocols": [{"name": f"p{n}"} for n in range(65)]}, E.invalid_request),
        ({"group_instance_id": "i", "member_id": "x"}, E.unknown_member_id),
    ],
)
def test_a_join_that_makes_no_sense_is_refused_before_anything_is_written(wrong: dict[str, Any], code: E) -> None:
    async def main() -> None:
        place = Place()
        member = Classic(await place.gateway(t=1))
        before = place.manifests
        assert code is await member.join(**wrong)
        assert before == place.manifests

    simulate(main())


def test_members_of_one_group_share_a_protocol() -> None:
    async def main() -> None:
        place = Place()
        await Classic(await place.gateway()).lead_alone()
        other = Classic(await place.gateway())
        assert E.inconsistent_group_protocol is await other.join(protocol_type="connect")
        assert E.inconsistent_group_protocol is await other.join(protocols=[{"name": "else"}])

    simulate(main())


@pytest.mark.parametrize(("profile", "gateways"), [(ZERO, 3), (S3_STANDARD, 1)])
def test_members_that_start_together_are_one_generation(profile: Profile, gateways: int) -> None:
    async def main() -> None:
        place = Place(profile)
        known = [await place.gateway() for _ in range(gateways)]
        members = [Classic(known[n % gateways]) for n in range(3)]
        began_s = sim_loop().time()
        assert [E.none] * 3 == await asyncio.gather(*(member.join() for member in members))
        assert 0.2 <= sim_loop().time() - began_s <= 2.0
        assert {1} == {member.generation for member in members}
        leader = next(m for m in members if m.joined is not None and m.joined["leader"] == m.member)
        assert leader.joined is not None and len(leader.joined["members"]) == 3
        assert [0, 0] == [len(m.joined["members"]) for m in members if m is not leader and m.joined is not None]
        given = {member.member: f"of {n}".encode() for n, member in enumerate(members)}
        synced = await asyncio.gather(*(m.sync(given=given if m is leader else None) for m in members))
        assert [b"of 0", b"of 1", b"of 2"] == [each["assignment"] for each in synced]

    simulate(main())


def test_a_rebalance_goes_from_join_to_assignments_in_a_second_on_s3() -> None:
    async def main() -> None:
        place = Place(S3_STANDARD)
        one = await Classic(await place.gateway()).lead_alone()
        two = Classic(await place.gateway())
        joining = asyncio.ensure_future(two.join())
        while await one.beat() is E.none:
            await sim_loop().sleep(0.5)
        began_s = sim_loop().time()
        assert E.none is await one.join()
        assert E.none is await joining
        given = {one.member: b"1", two.member: b"2"}
        synced = await asyncio.gather(one.sync(given=given), two.sync())
        assert [b"1", b"2"] == [each["assignment"] for each in synced]
        assert sim_loop().time() - began_s < 1.0

    simulate(main())


def test_a_member_that_dies_is_let_go_when_its_session_ends() -> None:
    async def main() -> None:
        place = Place()
        one = Classic(await place.gateway())
        two = Classic(await place.gateway())
        await asyncio.gather(one.join(session_timeout=6_000), two.join(session_timeout=6_000))
        given = {one.member: b"1", two.member: b"2"}
        await asyncio.gather(one.sync(given=given), two.sync(given=given))
        waited_s = 0
        while await one.beat() is E.none:
            await sim_loop().sleep(1.0)
            waited_s += 1
        assert 6 <= waited_s <= 9
        assert E.none is await one.join()
        assert one.joined is not None and [one.member] == [m["member_id"] for m in one.joined["members"]]
        assert E.unknown_member_id is await two.beat()
        assert E.unknown_member_id is await Classic(two.peer, member=two.member, generation=1).beat()

    simulate(main())


# -- static members -------------------------------------------------------------------------------------------


def test_a_static_member_that_comes_back_takes_its_place_without_a_rebalance() -> None:
    async def main() -> None:
        place = Place()
        one = Classic(await place.gateway(), instance="i")
        two = Classic(await place.gateway(), instance="j")
        await asyncio.gather(one.join(), two.join())
        given = {one.member: b"1", two.member: b"2"}
        await asyncio.gather(one.sync(given=given), two.sync(given=given))
        for version in (9, 5):  # the first one leads
            back = Classic(await place.gateway(), instance="i")
            assert E.none is await back.join(version)
            assert back.joined is not None
            assert (1, one.member != back.member) == (back.generation, True)
            if version == 9:
                assert back.joined["skip_assignment"] and back.joined["leader"] == back.member
            else:
                assert back.joined["leader"] != back.member, "an old client would assign anew"
            assert b"1" == (await back.sync())["assignment"]
            assert E.none is await two.beat()
            await sim_loop().sleep(0.5)  # its gateway has not looked for so long
            assert E.fenced_instance_id is await one.beat()
            assert E.fenced_instance_id == (await one.sync())["error_code"]
            assert E.fenced_instance_id is await one.join()
            one = back

    simulate(main())


def test_a_static_member_is_removed_by_its_instance() -> None:
    async def main() -> None:
        place = Place()
        one = Classic(await place.gateway(), instance="i")
        await one.lead_alone()
        admin = await place.gateway()

        async def leave(*members: dict[str, Any]) -> list[E]:
            answer = await ask(admin, LEAVE, group_id="g", members=list(members))
            return [E(each["error_code"]) for each in answer["members"]]

        unknown = [{"group_instance_id": "x"}, {"member_id": "x"}, {"member_id": "", "group_instance_id": ""}]
        assert [E.unknown_member_id] * 3 == await leave(*unknown)
        assert [E.fenced_instance_id] == await leave({"member_id": "x", "group_instance_id": "i"})
        twice = [{"group_instance_id": "i", "reason": "r" * 1_000}, {"group_instance_id": "i"}]
        assert [E.none, E.unknown_member_id] == await leave(*twice)
        await sim_loop().sleep(0.5)
        assert E.unknown_member_id is await one.beat()

    simulate(main())


# -- sync and heartbeat ------------------------------------------------------------------------------------------


def test_whoever_is_of_another_generation_group_or_protocol_hears_so() -> None:
    async def main() -> None:
        place = Place()
        one = await Classic(await place.gateway()).lead_alone()
        assert E.illegal_generation is await one.beat(generation_id=2)
        assert E.illegal_generation is await one.beat(generation_id=0)
        assert E.unknown_member_id is await one.beat(member_id=NOBODY)
        assert E.unknown_member_id is await one.beat(group_id="other")
        assert E.unknown_member_id is await one.beat(group_instance_id="i")
        assert E.invalid_group_id is await one.beat(group_id="")
        for wrong, code in [
            ({"generation_id": 2}, E.illegal_generation),
            ({"member_id": NOBODY}, E.unknown_member_id),
            ({"group_id": "other"}, E.unknown_member_id),
            ({"protocol_type": "connect"}, E.inconsistent_group_protocol),
            ({"protocol_name": "sticky"}, E.inconsistent_group_protocol),
            ({"protocol_type": "consumer", "protocol_name": "range"}, E.none),
        ]:
            assert code == (await one.sync(**wrong))["error_code"], wrong

    simulate(main())


def test_heartbeats_of_a_steady_group_ask_the_store_little() -> None:
    async def main() -> None:
        place = Place()
        one = await Classic(await place.gateway()).lead_alone()
        await place.check_beats(one.beat, put_max=10)

    simulate(main())


def test_a_member_may_go_to_another_gateway_between_any_two_requests() -> None:
    async def main() -> None:
        place = Place()
        gateways = [await place.gateway() for _ in range(3)]
        one = Classic(gateways[0])
        assert E.none is await one.join()
        one.peer = gateways[1]
        assert b"all" == (await one.sync(given={one.member: b"all"}))["assignment"]
        for n in range(6):
            one.peer = gateways[n % 3]
            assert E.none is await one.beat()
        assert E.none == (await one.ask(LEAVE, members=[{"member_id": one.member}]))["error_code"]

    simulate(main())


@pytest.mark.parametrize("api", [JOIN, SYNC, HEARTBEAT, LEAVE])
def test_who_may_not_read_a_group_takes_no_part_in_it(api: int) -> None:
    async def main() -> None:
        place = Place()
        root = await place.gateway()
        await Service(root.namespace).change_acls(add=[AclRule("bob", "describe", "group", "g")])
        answer = await ask(await place.gateway("bob"), api, group_id="g")
        assert E.group_authorization_failed == answer["error_code"]

    simulate(main())


def test_a_client_that_was_cut_off_while_it_waited_joins_again_under_its_id() -> None:
    async def main() -> None:
        place = Place()
        one = await Classic(await place.gateway()).lead_alone()
        two = Classic(await place.gateway())
        told = await two.ask(JOIN, **{**TERMS, "member_id": ""})
        two.member = told["member_id"]
        cut_off = asyncio.ensure_future(two.join())
        await sim_loop().sleep(1.0)
        cut_off.cancel()
        await asyncio.gather(cut_off, return_exceptions=True)
        assert E.rebalance_in_progress is await one.beat()
        again = Classic(await place.gateway(), member=two.member)
        assert [E.none] * 2 == await asyncio.gather(again.join(), one.join())
        assert again.joined is not None and one.joined is not None
        assert (two.member, 2) == (again.member, len(one.joined["members"]))

    simulate(main())


def test_who_is_cut_off_for_good_while_it_waits_holds_nobody_up_longer_than_its_session() -> None:
    async def main() -> None:
        place = Place()
        one = await Classic(await place.gateway()).lead_alone()
        gone = asyncio.ensure_future(Classic(await place.gateway()).join(session_timeout=6_000))
        await sim_loop().sleep(1.0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        began_s = sim_loop().time()
        assert E.none is await one.join()
        assert b"1" == (await one.sync(given={one.member: b"1"}))["assignment"]
        while await one.beat() is E.none:
            await sim_loop().sleep(0.5)
        assert E.none is await one.join()
        assert one.joined is not None and 1 == len(one.joined["members"])
        assert sim_loop().time() - began_s < 12.0

    simulate(main())


def test_an_empty_group_waits_for_more_members_as_long_as_the_gateway_says() -> None:
    async def main() -> None:
        place = Place()
        one = Classic(await place.gateway())
        one.peer.gateway.settings = Settings(rebalance_delay_ms=5_000)
        began_s = sim_loop().time()
        assert E.none is await one.join()
        assert 5.0 <= sim_loop().time() - began_s < 5.5

    simulate(main())


TERMS: dict[str, Any] = {"session_timeout": 10_000, "protocol_type": "consumer", "protocols": [{"name": "range"}]}
