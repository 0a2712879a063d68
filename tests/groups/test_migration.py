"""A group that changes its protocol under its members (KIP-848, online migration)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import Conflict, Fenced
from headwater.groups.classic import Joined, heartbeat_classic, join_classic, sync_classic
from headwater.groups.consumer_protocol import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from headwater.groups.coordinator import Coordinator
from headwater.groups.describe import TP, group_info
from headwater.log.outcomes import Rebalancing, UnknownMember
from tests.groups.helpers_members import Place
from tests.log.helpers import simulate

ALL = [("t", partition) for partition in range(4)]


class Old:
    """A member of the classic protocol; an ``eager`` one lets go of everything before it joins."""

    def __init__(self, process: Coordinator, name: str, *, eager: bool = True, instance: str = "") -> None:
        self.process, self.name, self.eager, self.instance = process, name, eager, instance
        self.generation, self.held = -1, list[TP]()

    async def join(self, delay_ms: int = 0) -> Joined:
        """Join, and sync with what a leader gives: each partition to one member, in turn."""
        claims = [] if self.eager else self.held
        self.held = list(claims)
        joined = await join_classic(
            self.process,
            "g",
            self.name,
            protocol_type="consumer",
            protocols=[("range", encode_subscription(["t"], claims))],
            instance=self.instance,
            delay_ms=delay_ms,
        )
        members = [member.member for member in joined.members]
        given = {
            name: encode_assignment({"t": list(range(4))[at :: len(members)]}, 1) for at, name in enumerate(members)
        }
        data = await sync_classic(self.process, "g", self.name, joined.generation, given)
        self.generation, self.held = joined.generation, decode_assignment(data)
        return joined

    async def beat(self) -> None:
        await heartbeat_classic(self.process, "g", self.name, self.generation)

    async def commit(self, partition: int, offset: int = 1) -> None:
        await self.process.namespace.commit_offsets(
            "g", {("t", partition): offset}, generation=self.generation, member=self.name
        )


class New:
    """A member of KIP-848's protocol."""

    def __init__(self, process: Coordinator, name: str, *, instance: str = "") -> None:
        self.process, self.name, self.instance, self.epoch, self.held = process, name, instance, 0, list[TP]()

    async def join(self) -> None:
        await self._beat(joining=True)

    async def beat(self) -> None:
        """Let go of what is to be given up, at once."""
        revoke = await self._beat()
        if revoke:
            await self._beat(released=revoke)

    async def _beat(self, *, joining: bool = False, released: list[TP] | None = None) -> list[TP]:
        told = await self.process.heartbeat(
            "g", self.name, topics=["t"], joining=joining, released=released or [], instance=self.instance
        )
        self.epoch, self.held = told.epoch, sorted(told.owned)
        return list(told.revoke)


async def place_with(*names: str, eager: bool = True) -> tuple[Place, list[Old]]:
    """A topic of 4 partitions, and classic members who have them all between them."""
    place = Place()
    await place.topics(t=4)
    members = [Old(await place.process(), name, eager=eager) for name in names]
    await asyncio.gather(*(member.join(delay_ms=1_000) for member in members))
    assert ALL == sorted(tp for member in members for tp in member.held)
    return place, members


async def until_settled(place: Place, *members: Old | New) -> None:
    """Members beat, and join again where they are told to, until nobody hears anything new."""
    for _ in range(12):
        restless = False
        for member in members:
            if isinstance(member, New):
                before = member.held
                await member.beat()
                restless |= before != member.held
                continue
            try:
                await member.beat()
            except (Rebalancing, Fenced):
                restless = True
        waiting = [member for member in members if isinstance(member, Old) and not await _is_well(member)]
        await asyncio.gather(*(member.join() for member in waiting))
        if not restless:
            break
        await place.loop.sleep(1.0)
    assert ALL == sorted(tp for member in members for tp in member.held), "each partition is with one member"


async def _is_well(member: Old) -> bool:
    try:
        await member.beat()
    except (Rebalancing, Fenced):
        return False
    return True


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "cooperative"])
def test_a_member_of_the_new_protocol_joins_a_classic_group_and_nobody_holds_what_another_holds(eager: bool) -> None:
    async def main() -> None:
        place, (a, b) = await place_with("a", "b", eager=eager)
        new = New(await place.process(), "n")
        await new.join()
        assert [] == new.held, "nobody knows yet what the classic members hold"
        assert new.epoch > 0
        assert "Assigning" == group_info(new.process.namespace.state, "g").state
        for member in (a, b):
            with pytest.raises(Rebalancing):
                await member.beat()
            await member.commit(member.held[0][1])  # what was read is committed before it is let go of
        kept = {member.name: set(member.held) for member in (a, b)}
        first = asyncio.ensure_future(a.join())
        await place.loop.sleep(2.0)
        assert not first.done(), "it is told when the other one has joined as well"
        joined = (await asyncio.gather(first, b.join()))[0]
        assert ("", "consumer", "range", 0) == (
            joined.leader,
            joined.protocol_type,
            joined.protocol,
            len(joined.members),
        )
        if not eager:
            assert all(set(member.held) <= kept[member.name] for member in (a, b)), "it goes on with what it had"
        await until_settled(place, a, b, new)
        assert [1, 1, 2] == sorted(len(member.held) for member in (a, b, new))
        info = group_info(await new.process.namespace.refresh(), "g")
        assert ("consumer", "Stable") == (info.kind, info.state)
        with pytest.raises(Fenced):
            await a.commit(new.held[0][1])
        await a.commit(a.held[0][1], 2)

    simulate(main())


def test_what_a_cooperative_member_has_not_let_go_of_is_nobody_elses() -> None:
    async def main() -> None:
        place, (a,) = await place_with("a", eager=False)
        new = New(await place.process(), "n")
        await new.join()
        claimed = list(a.held)
        await a.join()
        left = sorted(set(claimed) - set(a.held))
        assert 2 == len(left), "two of four are to be given up"
        await new.beat()
        assert [] == new.held
        with pytest.raises(Rebalancing):
            await a.beat()
        await a.commit(left[0][1])
        await a.join()  # it claims no more than it was told
        await new.beat()
        assert left == new.held
        with pytest.raises(Fenced):
            await a.commit(left[0][1], 5)
        await a.beat()

    simulate(main())


def test_when_the_last_member_of_the_new_protocol_leaves_the_group_is_classic_again() -> None:
    async def main() -> None:
        place, (a, b) = await place_with("a", "b")
        new = New(await place.process(), "n")
        await new.join()
        await asyncio.gather(a.join(), b.join())
        await until_settled(place, a, b, new)
        held, generation = a.held, a.generation
        await new.process.leave("g", "n")
        await a.process.namespace.refresh()
        for member in (a, b):
            with pytest.raises(Rebalancing):
                await member.beat()
        await a.commit(held[0][1], 7)
        with pytest.raises(Fenced):
            await a.commit(b.held[0][1], 7)
        first, _ = await asyncio.gather(a.join(), b.join())
        assert first.generation > generation
        assert {"a", "b"} == {member.member for member in first.members} or first.leader == "b"
        info = group_info(await a.process.namespace.refresh(), "g")
        assert ("classic", "Stable") == (info.kind, info.state)
        assert ALL == sorted(a.held + b.held)
        with pytest.raises(UnknownMember):
            await new.beat()

    simulate(main())


def test_a_classic_member_joins_a_group_of_the_new_protocol() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        new, old = New(await place.process(), "n"), Old(await place.process(), "a")
        await new.join()
        assert ALL == new.held
        await old.join()
        assert [] == old.held
        await until_settled(place, new, old)
        assert [2, 2] == [len(new.held), len(old.held)]
        await new.process.leave("g", "n")
        await until_settled(place, old)

    simulate(main())


def test_a_classic_member_that_is_silent_is_left_behind() -> None:
    async def main() -> None:
        place, (a, b) = await place_with("a", "b")
        new = New(await place.process(), "n")
        await new.join()
        joining = asyncio.ensure_future(a.join())
        start_s = place.loop.time()
        while not joining.done():
            await place.loop.sleep(3.0)
            await new.beat()
        assert place.loop.time() - start_s <= 100.0, "its session is over long before its time to join"
        await until_settled(place, a, new)
        with pytest.raises(UnknownMember):
            await b.beat()

    simulate(main())


def test_a_classic_member_that_does_not_listen_is_left_behind_when_its_time_is_over() -> None:
    async def main() -> None:
        place, (a, b) = await place_with("a", "b")
        new = New(await place.process(), "n")
        await new.join()
        joining, start_s = asyncio.ensure_future(a.join()), place.loop.time()
        heard = 0
        while not joining.done():
            await place.loop.sleep(3.0)
            await new.beat()
            try:
                await b.beat()
            except Rebalancing:
                heard += 1
            except UnknownMember:
                break
        assert heard > 50
        await joining
        assert 299.0 <= place.loop.time() - start_s <= 310.0
        await until_settled(place, a, new)

    simulate(main())


@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
def test_a_static_member_changes_its_protocol_with_its_restart(back: bool) -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        process = await place.process()
        first: Old | New = New(process, "m1", instance="i") if back else Old(process, "m1", instance="i")
        await first.join()
        then = Old(process, "m2", instance="i") if back else New(process, "m2", instance="i")
        await then.join()
        await until_settled(place, then)
        info = group_info(process.namespace.state, "g")
        assert ("classic" if back else "consumer", ["m2"]) == (info.kind, [member.member for member in info.members])
        with pytest.raises(UnknownMember):
            await first.beat()

    simulate(main())


@pytest.mark.parametrize("metadata", [b"", b"topics of range"], ids=["nothing", "nonsense"])
def test_members_whose_subscription_nobody_understands_stay_among_themselves(metadata: bytes) -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        process = await place.process()
        await join_classic(process, "g", "a", protocol_type="consumer", protocols=[("range", metadata)])
        with pytest.raises(Conflict, match="let them leave first"):
            await New(process, "n").join()
        await heartbeat_classic(process, "g", "a", 1)
        await process.leave("g", "a")
        new = New(process, "n")
        await new.join()
        with pytest.raises(Conflict, match="let them leave first"):
            await join_classic(process, "g", "b", protocol_type="consumer", protocols=[("range", metadata)])
        protocols = [("range", encode_subscription(["t"]))]
        with pytest.raises(Conflict, match="let them leave first"):
            await join_classic(process, "g", "b", protocol_type="connect", protocols=protocols)
        await new.beat()
        assert ALL == new.held

    simulate(main())


def test_a_member_speaks_one_protocol() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        new, old = New(await place.process(), "n"), Old(await place.process(), "a")
        await new.join()
        await old.join()
        with pytest.raises(Conflict, match="'a' of group 'g' is a classic one"):
            await old.process.heartbeat("g", "a")
        with pytest.raises(Conflict, match="'n' of group 'g' is a consumer one"):
            await heartbeat_classic(old.process, "g", "n", new.epoch)

    simulate(main())


# -- what consumers say of themselves -------------------------------------------------------------------------

NAMES = st.text(max_size=20)
PLACES = st.lists(st.tuples(NAMES, st.integers(0, 2**31 - 1)), max_size=8, unique=True)


@given(st.lists(NAMES, max_size=8), PLACES)
def test_a_subscription_is_read_as_it_was_written(topics: list[str], claims: list[TP]) -> None:
    found = decode_subscription(encode_subscription(topics, claims))
    assert found is not None
    assert (1, topics, sorted(claims)) == (found.version, found.topics, sorted(found.claims))


@given(PLACES, st.integers(-1, 9))
def test_an_assignment_is_read_as_it_was_written(places: list[TP], version: int) -> None:
    nested: dict[str, list[int]] = {}
    for topic, partition in places:
        nested.setdefault(topic, []).append(partition)
    data = encode_assignment(nested, version)
    assert min(max(version, 0), 3) == int.from_bytes(data[:2], "big")
    assert sorted(places) == sorted(decode_assignment(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_subscription_or_none(data: bytes) -> None:
    assert isinstance(decode_subscription(data), Subscription | None)
    try:
        decode_assignment(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("version", "more"), [(0, b""), (1, b"\0\0\0\0"), (2, b"\0\0\0\0" + b"\0\0\0\7"), (3, b"\0\0\0\0\0\0\0\7\0\2az")]
)
def test_subscriptions_of_all_versions_are_understood(version: int, more: bytes) -> None:
    data = version.to_bytes(2, "big") + b"\0\0\0\1\0\1t\0\0\0\3abc" + more
    assert Subscription(version=version, topics=["t"], claims=[]) == decode_subscription(data)


def test_counts_that_no_bytes_stand_for_are_refused_at_once() -> None:
    assert decode_subscription(b"\0\1\x7f\xff\xff\xff") is None
    assert decode_subscription(b"\0\1\0\0\0\0\xff\xff\xff\xff\0\0\0\1\0\1t\x7f\xff\xff\xff") is None
