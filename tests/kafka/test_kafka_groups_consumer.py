"""The consumer protocol (KIP-848) through the handlers: each case gets the code that Kafka gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka.model import Fields, Peer
from headwater.kafka.names import topic_uuid
from headwater.log.operations import AclRule
from headwater.sim.latency import S3_STANDARD, ZERO, Profile
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_groups import COMMIT, CONSUMER, CONSUMER_DESCRIBE, FETCH, JOIN, LEAVE, Classic, Place
from tests.kafka.helpers_peer import ask
from tests.log.helpers import simulate

ALTER_CONFIGS, GROUP = 44, 32
Places = dict[int, list[int]]


@dataclass(slots=True)
class Member:
    """A member of group ``g`` as a client has it: it takes what it is assigned, and gives up the rest at once."""

    peer: Peer
    member: str
    instance: str | None = None
    version: int = 1
    epoch: int = 0
    owned: Places = field(default_factory=dict)
    answer: Fields = field(default_factory=dict)

    async def ask(self, **more: Any) -> E:
        asked = {"group_id": "g", "member_id": self.member, "instance_id": self.instance, "member_epoch": self.epoch}
        self.answer = await ask(self.peer, CONSUMER, self.version, **{**asked, **more})
        return E(self.answer["error_code"])

    async def join(self, **more: Any) -> E:
        terms = {"rebalance_timeout": 60_000, "subscribed_topic_names": ["t"], "topic_partitions": []}
        code = await self.ask(**{**terms, "member_epoch": 0, **more})
        self._take(code)
        return code

    async def beat(self, **more: Any) -> E:
        """Say nothing but that it is there, unless ``more`` says something."""
        code = await self.ask(**more)
        self._take(code)
        return code

    async def settle(self) -> E:
        """Give up what is not assigned any more, and say so."""
        topics = [{"topic_id": self._uuid(topic), "partitions": parts} for topic, parts in self.owned.items()]
        return await self.beat(topic_partitions=topics)

    def _take(self, code: E) -> None:
        if code is E.none:
            self.epoch, self.member = self.answer["member_epoch"], self.answer["member_id"]
            given = self.answer["assignment"]["topic_partitions"]
            self.owned = {self._id(each["topic_id"]): sorted(each["partitions"]) for each in given}

    def _uuid(self, topic: int) -> bytes:
        return topic_uuid(self.peer.namespace, topic)

    def _id(self, uuid: bytes) -> int:
        return int.from_bytes(bytes(uuid)[8:], "big")

    async def commit(self, partition: int, offset: int = 5, **more: Any) -> E:
        parts = [{"partition_index": partition, "committed_offset": offset}]
        who = {"generation_id_or_member_epoch": self.epoch, "member_id": self.member}
        topics = [{"name": "t", "partitions": parts}]
        answer = await ask(self.peer, COMMIT, 9, **{"group_id": "g", "topics": topics, **who, **more})
        return E(answer["topics"][0]["partitions"][0]["error_code"])


async def shared(one: Member, two: Member) -> None:
    """Both have joined, and each has its half."""
    assert [E.none] * 2 == [await one.join(), await two.join()]
    await one.settle()  # hears what to give up
    await one.settle()
    await sim_loop().sleep(0.5)
    await two.beat()
    assert [1, 1] == [len(member.owned[1]) for member in (one, two)]


async def terse(member: Member) -> None:
    """A heartbeat as clients send it: they say what they have only when that has just changed."""
    await sim_loop().sleep(1.0)
    before = member.owned
    await member.beat()
    while member.owned != before:
        before = member.owned
        await member.settle()


# -- life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
def test_a_lone_member_joins_owns_everything_commits_and_leaves(version: int) -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=3), "" if version == 0 else "m", version=version)
        assert E.none is await one.join()
        assert {1: [0, 1, 2]} == one.owned
        assert one.member == "m" or version == 0
        assert (1, 1_000) == (one.epoch, one.answer["heartbeat_interval"])
        assert E.none is await one.commit(2)
        manifests = place.manifests
        assert [E.none] * 3 == [await one.beat(), await one.settle(), await one.beat()]
        assert manifests == place.manifests, "in a steady group nothing is committed"
        assert E.none is await one.ask(member_epoch=-1)
        assert (-1, None) == (one.answer["member_epoch"], one.answer["assignment"])
        assert E.unknown_member_id is await one.beat()
        assert E.unknown_member_id is await one.ask(member_epoch=-1)

    simulate(main())


@pytest.mark.parametrize(("profile", "within_s"), [(ZERO, 3.0), (S3_STANDARD, 4.0)])
def test_a_second_member_gets_its_half_once_the_first_has_given_it_up(profile: Profile, within_s: float) -> None:
    async def main() -> None:
        place = Place(profile)
        one, two = Member(await place.gateway(t=4), "one"), Member(await place.gateway(), "two")
        await one.join()
        began_s = sim_loop().time()
        assert E.none is await two.join()
        assert {} == two.owned
        await sim_loop().sleep(1.0)
        assert E.none is await one.beat()
        lost = {0, 1, 2, 3} - set(one.owned[1])
        assert 2 == len(lost)
        assert E.none is await one.commit(min(lost), 9), "it is still its own"
        assert E.none is await two.beat()
        assert {} == two.owned
        assert E.none is await one.settle()
        await sim_loop().sleep(0.5)
        assert E.none is await two.beat()
        assert sorted(lost) == two.owned[1]
        assert one.epoch == two.epoch
        assert sim_loop().time() - began_s < within_s
        assert E.none is await two.commit(min(lost), 10)
        assert E.stale_member_epoch is await one.commit(min(lost), 9), "it is not any more"

    simulate(main())


def test_a_member_that_dies_is_let_go_and_may_come_back_under_its_id() -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "two")
        await shared(one, two)
        waited_s = 0
        while one.owned != {1: [0, 1]}:
            await sim_loop().sleep(1.0)
            waited_s += 1
            assert E.none is await one.beat()
        assert 45 <= waited_s <= 62
        assert E.unknown_member_id is await two.beat()
        assert E.unknown_member_id is await two.commit(0)
        assert E.none is await two.join()
        assert {} == two.owned

    simulate(main())


def test_a_member_that_is_behind_is_told_and_one_that_is_ahead_is_fenced() -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "two")
        await shared(one, two)
        assert E.fenced_member_epoch is await one.ask(member_epoch=9)
        assert E.stale_member_epoch is await one.commit(0, generation_id_or_member_epoch=9)
        assert E.none is await one.ask(member_epoch=1)
        assert E.unknown_member_id is await one.ask(member_id="x", member_epoch=1)
        assert E.unknown_member_id is await one.ask(group_id="other", member_epoch=1)

    simulate(main())


def test_a_group_has_its_own_heartbeat_and_session() -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=1), "one")

        async def alter(name: str, value: str) -> E:
            row = {"name": f"consumer.{name}", "config_operation": 0, "value": value}
            asked = [{"resource_type": GROUP, "resource_name": "g", "configs": [row]}]
            return E((await ask(one.peer, ALTER_CONFIGS, resources=asked))["responses"][0]["error_code"])

        assert E.none is await alter("session.timeout.ms", "60000")
        assert E.none is await alter("heartbeat.interval.ms", "15000")
        for name, value in (("session.timeout.ms", "60001"), ("heartbeat.interval.ms", "999"), ("else", "1")):
            assert E.invalid_config is await alter(name, value), name
        assert E.none is await one.join()
        assert 15_000 == one.answer["heartbeat_interval"]
        assert 60_000 == one.peer.namespace.state.groups["g"].members["one"].session_ms

    simulate(main())


def test_what_came_and_went_between_two_heartbeats_is_heard_of_and_given_up() -> None:
    # A client that was never told of a partition never said that it had given it up: its next owner got it when the
    # rebalance timed out, after minutes, if a member was restarted quicker than the others sent heartbeats.
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "two")
        await shared(one, two)
        assert E.none is await two.ask(member_epoch=-1)
        three = Member(two.peer, "three")
        assert E.none is await three.join()
        assert {} == three.owned
        for _ in range(3):
            await terse(one)
        await terse(three)
        assert [0, 1] == sorted(one.owned[1] + three.owned[1])
        assert 1 == len(one.owned[1])

    simulate(main())


def test_a_late_heartbeat_gives_up_nothing_that_its_member_was_given_later() -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "two")
        await one.join()
        assert E.none is await two.join()
        late: dict[str, Any] = {"member_epoch": two.epoch, "topic_partitions": []}  # it is on its way for long
        await one.settle()
        await one.settle()
        await sim_loop().sleep(0.5)
        await two.beat()
        assert {1: [1]} == two.owned
        assert E.none is await one.ask(member_epoch=-1)
        await sim_loop().sleep(1.0)
        await two.beat()
        assert {1: [0, 1]} == two.owned
        assert E.none is await Member(one.peer, "three").join()
        assert E.none is await two.ask(**late)
        group = (await two.peer.namespace.refresh()).groups["g"]
        assert [1] == list(group.members["two"].revoking[1]), "it has it, and has not said otherwise since"

    simulate(main())


def test_a_join_whose_answer_was_lost_is_repeated() -> None:
    async def main() -> None:
        one = Member(await Place().gateway(t=2), "one")
        for _ in range(2):
            assert E.none is await one.join()
            assert {1: [0, 1]} == one.owned

    simulate(main())


def test_partitions_that_a_former_self_was_to_give_up_are_heard_of_by_joining_again_and_given_up() -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "two")
        await one.join()
        await two.join()
        again = Member(one.peer, "one")
        assert E.none is await again.join()
        assert {1: [0, 1]} == again.owned
        await again.settle()
        await again.settle()
        await sim_loop().sleep(0.5)
        assert E.none is await two.beat()
        assert sorted([*again.owned[1], *two.owned[1]]) == [0, 1]

    simulate(main())


def test_a_late_join_gives_up_nothing_that_its_member_has_by_now() -> None:
    # A join that was repeated at another gateway gave up whatever its member was to release when it came at last.
    async def main() -> None:
        place = Place()
        one, late = Member(await place.gateway(t=2), "one"), Member(await place.gateway(), "one")
        await one.join()
        assert {1: [0, 1]} == one.owned
        assert E.none is await Member(await place.gateway(), "two").join()
        assert E.none is await late.join()
        group = (await one.peer.namespace.refresh()).groups["g"]
        assert [1] == list(group.members["one"].revoking[1])
        assert {} == group.members["two"].owned

    simulate(main())


# -- static members ---------------------------------------------------------------------------------------------


def test_a_static_member_that_leaves_for_a_while_gets_back_what_it_had() -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one", "i"), Member(await place.gateway(), "two", "j")
        await shared(one, two)
        before = one.owned
        assert E.none is await one.ask(member_epoch=-2)
        assert -2 == one.answer["member_epoch"]
        await sim_loop().sleep(20.0)
        await two.beat()
        assert 1 == len(two.owned[1]), "nobody takes its place meanwhile"
        back = Member(await place.gateway(), "three", "i")
        assert E.none is await back.join()
        assert before == back.owned
        await sim_loop().sleep(0.5)
        assert E.fenced_instance_id is await one.beat()
        assert E.fenced_instance_id is await one.ask(member_epoch=-1)
        assert E.none is await two.beat()

    simulate(main())


def test_a_static_member_is_removed_by_its_instance_by_an_admin() -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=1), "one", "i")
        await one.join()
        answer = await ask(await place.gateway(), LEAVE, group_id="g", members=[{"group_instance_id": "i"}])
        assert E.none == answer["members"][0]["error_code"]
        await sim_loop().sleep(0.5)
        assert E.unknown_member_id is await one.beat()

    simulate(main())


# -- what makes no sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"group_id": ""}, E.invalid_request),
        ({"group_id": "a\x00"}, E.invalid_group_id),
        ({"member_id": ""}, E.invalid_request),
        ({"member_id": "m" * 513}, E.invalid_request),
        ({"instance_id": ""}, E.invalid_request),
        ({"member_epoch": -3}, E.invalid_request),
        ({"member_epoch": -2}, E.invalid_request),
        ({"rebalance_timeout": -1}, E.invalid_request),
        ({"topic_partitions": None}, E.invalid_request),
        ({"topic_partitions": [{"topic_id": bytes(16), "partitions": [0]}]}, E.invalid_request),
        ({"subscribed_topic_names": None}, E.invalid_request),
        ({"server_assignor": "sticky"}, E.unsupported_assignor),
        ({"subscribed_topic_regex": "("}, E.invalid_regular_expression),
        ({"subscribed_topic_regex": "a" * 4_093}, E.invalid_regular_expression),
        ({"subscribed_topic_regex": "a)|(b"}, E.invalid_regular_expression),
    ],
)
def test_a_join_that_makes_no_sense_is_refused_before_anything_is_written(wrong: dict[str, Any], code: E) -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=1), "m")
        before = place.manifests
        assert code is await one.join(**wrong)
        assert one.answer["error_message"]
        assert before == place.manifests

    simulate(main())


def test_the_two_protocols_do_not_mix() -> None:
    async def main() -> None:
        place = Place()
        one = await place.gateway(t=1)
        await Classic(one).lead_alone()
        assert E.group_id_not_found is await Member(one, "m").join()
        member = Member(one, "m")
        assert E.none is await member.join(group_id="k")
        assert E.inconsistent_group_protocol is await Classic(one).join(group_id="k")
        answer = await ask(one, JOIN, group_id="k", member_id="m", **TERMS)
        assert E.inconsistent_group_protocol == answer["error_code"]

    simulate(main())


TERMS: dict[str, Any] = {"session_timeout": 10_000, "protocol_type": "consumer", "protocols": [{"name": "r"}]}


def test_who_may_not_describe_a_topic_does_not_subscribe_to_it() -> None:
    async def main() -> None:
        place = Place()
        root = await place.gateway(t=1, u=1)
        rules = [AclRule("alice", "read", "group", "g"), AclRule("alice", "describe", "topic", "t")]
        await Service(root.namespace).change_acls(add=rules)
        alice = Member(await place.gateway("alice"), "a")
        assert E.topic_authorization_failed is await alice.join(subscribed_topic_names=["t", "u"])
        assert E.group_authorization_failed is await alice.join(group_id="h")
        assert E.none is await alice.join(subscribed_topic_names=[], subscribed_topic_regex=".")
        assert {1: [0]} == alice.owned

    simulate(main())


# -- patterns ----------------------------------------------------------------------------------------------------------


def test_a_pattern_is_matched_to_the_topics_that_there_are() -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(ab=1, b=1, abc=1), "m")
        assert E.none is await one.join(subscribed_topic_names=None, subscribed_topic_regex="ab.?")
        assert {1: [0], 3: [0]} == one.owned
        await (await place.gateway()).namespace.create_topic("abd", 2)
        await sim_loop().sleep(1.0)
        assert E.none is await one.beat()
        assert {1: [0], 3: [0], 4: [0, 1]} == one.owned
        manifests = place.manifests
        one.peer = await place.gateway()
        assert E.none is await one.beat()
        assert manifests == place.manifests, "another gateway knows the pattern, too"
        shown = (await ask(one.peer, CONSUMER_DESCRIBE, group_ids=["g"]))["groups"][0]["members"][0]
        assert ("ab.?", ["ab", "abc", "abd"]) == (shown["subscribed_topic_regex"], shown["subscribed_topic_names"])
        await one.peer.namespace.delete_topic("abd")
        assert E.none is await one.beat()
        assert {1: [0], 3: [0]} == one.owned
        assert ["ab", "abc", "re2:ab.?"] == one.peer.namespace.state.groups["g"].members["m"].topics
        assert E.none is await one.beat(subscribed_topic_names=["b"], subscribed_topic_regex="")
        await one.settle()
        assert {2: [0]} == one.owned

    simulate(main())


def test_a_pattern_may_be_a_long_list_of_names() -> None:
    """Beyond the length of a topic's name it was no regular expression, which ends a client."""

    async def main() -> None:
        names = [f"events-of-{number:03}" for number in range(250)]
        one = Member(await Place().gateway(**dict.fromkeys(names[:3], 1)), "m")
        assert E.none is await one.join(subscribed_topic_names=None, subscribed_topic_regex=f"^({'|'.join(names)})$")
        assert {1: [0], 2: [0], 3: [0]} == one.owned

    simulate(main())


def test_what_a_pattern_finds_is_shared_out_among_all_who_have_it_at_once() -> None:
    """Nobody is given what another is to have: the first to come by would be given all, and lose most of it."""

    async def main() -> None:
        place = Place()
        one, two, other = [Member(await place.gateway(), name) for name in ("one", "two", "other")]
        for member in (one, two):
            assert E.none is await member.join(subscribed_topic_names=None, subscribed_topic_regex="a.*")
        assert E.none is await other.join(subscribed_topic_names=["b"])
        await (await place.gateway()).namespace.create_topic("a", 6)
        await sim_loop().sleep(1.0)
        for member in (one, two, other, one):
            assert E.none is await member.beat()
        assert ([3, 3], {}) == ([len(member.owned[1]) for member in (one, two)], other.owned)
        epochs, manifests = [member.epoch for member in (one, two)], place.manifests
        await sim_loop().sleep(1.0)
        for member in (two, one, other):
            assert E.none is await member.settle()
        assert (epochs, manifests) == ([member.epoch for member in (one, two)], place.manifests)

    simulate(main())


def test_who_joins_with_a_pattern_finds_for_those_who_have_it_already() -> None:
    async def main() -> None:
        place = Place()
        one, two = [Member(await place.gateway(), name) for name in ("one", "two")]
        assert E.none is await one.join(subscribed_topic_names=None, subscribed_topic_regex="a.*")
        await two.peer.namespace.create_topic("a", 6)
        assert E.none is await two.join(subscribed_topic_names=None, subscribed_topic_regex="a.*")
        assert 3 == len(two.owned[1])
        await sim_loop().sleep(1.0)
        assert E.none is await one.beat()
        assert 3 == len(one.owned[1])

    simulate(main())


def test_members_with_a_pattern_and_other_rights_do_not_take_turns() -> None:
    """Who may not know of a topic that another has found drops it, once, and the other keeps it."""

    async def main() -> None:
        place = Place()
        root = Member(await place.gateway(), "root")
        rules = [AclRule("alice", "read", "group", "g"), AclRule("alice", "describe", "topic", "ab")]
        await Service(root.peer.namespace).change_acls(add=rules)
        alice = Member(await place.gateway("alice"), "alice")
        for member in (root, alice):
            assert E.none is await member.join(subscribed_topic_names=None, subscribed_topic_regex="a.")
        for topic in ("ab", "ac"):
            await root.peer.namespace.create_topic(topic, 2)
        for _ in range(4):
            for member in (root, alice):
                await sim_loop().sleep(1.0)
                assert E.none is await member.settle()
        manifests = place.manifests
        for _ in range(4):
            for member in (root, alice):
                await sim_loop().sleep(1.0)
                assert E.none is await member.settle()
        assert manifests == place.manifests
        members = root.peer.namespace.state.groups["g"].members
        assert ["ab", "ac", "re2:a."] == members["root"].topics
        assert ["ab", "re2:a."] == members["alice"].topics
        names = root.peer.namespace.state.names
        assert ({names["ac"]: [0, 1]}, {names["ab"]: [0, 1]}) == (root.owned, alice.owned)

    simulate(main())


@pytest.mark.parametrize("name", ["a b", "^a#", "re2:.*", "", "a" * 250, "."])
def test_a_name_that_no_topic_can_have_is_asked_for_in_vain(name: str) -> None:
    async def main() -> None:
        one = Member(await Place().gateway(t=1), "m")
        assert E.none is await one.join(subscribed_topic_names=["t", name])
        assert {1: [0]} == one.owned
        assert E.none is await one.beat(subscribed_topic_names=[name])
        await one.settle()
        assert {} == one.owned
        assert E.none is await one.beat(subscribed_topic_names=["t"])
        assert {1: [0]} == one.owned

    simulate(main())


@pytest.mark.parametrize("name", ["", None])
def test_members_that_know_a_topic_by_its_id_alone_ask_for_its_name(name: str | None) -> None:
    async def main() -> None:
        one = await Place().gateway(t=2)
        uuid = topic_uuid(one.namespace, 1)
        found = (await ask(one, 3, topics=[{"topic_id": uuid, "name": name}]))["topics"][0]
        assert (E.none, "t", 2) == (found["error_code"], found["name"], len(found["partitions"]))

    simulate(main())


# -- offsets and describe --------------------------------------------------------------------------------------------


def test_members_fetch_offsets_by_their_id_and_epoch() -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=2), "one")
        await one.join()
        await one.commit(1, 7)

        async def code(**who: Any) -> E:
            answer = await ask(one.peer, FETCH, groups=[{"group_id": "g", "topics": None, **who}])
            return E(answer["groups"][0]["error_code"])

        assert E.none is await code(member_id="one", member_epoch=1)
        assert E.none is await code(), "an admin"
        assert E.stale_member_epoch is await code(member_id="one", member_epoch=2)
        assert E.unknown_member_id is await code(member_id="x", member_epoch=1)

    simulate(main())


@pytest.mark.parametrize("version", [0, 1])
def test_a_group_is_described_with_what_its_members_own_and_are_to_own(version: int) -> None:
    async def main() -> None:
        place = Place()
        one, two = Member(await place.gateway(t=2), "one", "i"), Member(await place.gateway(), "two")
        await one.join(server_assignor="uniform")
        await two.join()
        answer = await ask(two.peer, CONSUMER_DESCRIBE, version, group_ids=["g", "none", "g"])
        g, none = answer["groups"]
        assert (E.none, "Reconciling", 2, 2, "uniform") == tuple(
            g[name] for name in ("error_code", "group_state", "group_epoch", "assignment_epoch", "assignor_name")
        )
        first, second = g["members"]
        assert ("one", "i", 1, ["t"]) == tuple(
            first[name] for name in ("member_id", "instance_id", "member_epoch", "subscribed_topic_names")
        )
        held = first["assignment"]["topic_partitions"]
        assert [("t", [0, 1])] == [(each["topic_name"], each["partitions"]) for each in held]
        assert 1 == len(first["target_assignment"]["topic_partitions"][0]["partitions"])
        assert [] == second["assignment"]["topic_partitions"]
        assert E.group_id_not_found == none["error_code"]
        await Classic(one.peer).join(group_id="c")
        other = (await ask(one.peer, CONSUMER_DESCRIBE, version, group_ids=["c"]))["groups"][0]
        assert E.group_id_not_found == other["error_code"]

    simulate(main())


def test_heartbeats_of_a_steady_group_ask_the_store_little() -> None:
    async def main() -> None:
        place = Place()
        one = Member(await place.gateway(t=2), "one")
        await one.join()
        await one.settle()
        await place.check_beats(one.beat, put_max=3)

    simulate(main())
