"""Join and sync over the bucket: members of one rebalance in processes that never talk to each other."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headwater.errors import Conflict, Fenced, InvalidRequest
from headwater.groups.classic import Joined, heartbeat_classic, join_classic, sync_classic
from headwater.groups.coordinator import Coordinator
from headwater.log.outcomes import Rebalancing, UnknownMember
from tests.groups.helpers_members import Place
from tests.log.helpers import simulate

OFFER = [("range", b"topics of range"), ("roundrobin", b"topics of roundrobin")]


async def joined(coordinator: Coordinator, member: str, **terms: object) -> Joined:
    known: dict[str, object] = {"protocol_type": "consumer", "protocols": OFFER, **terms}
    return await join_classic(coordinator, "g", member, **known)  # type: ignore[arg-type]


async def pair(place: Place) -> tuple[Coordinator, Coordinator]:
    """Two members, ``a`` the leader, in a stable generation 1 with the assignments ``to a`` and ``to b``."""
    one, two = await place.process(), await place.process()
    first, second = await asyncio.gather(joined(one, "a", delay_ms=3_000), _later(place, two))
    assert (1, 1, "a", "a") == (first.generation, second.generation, first.leader, second.leader)
    given = await asyncio.gather(
        sync_classic(two, "g", "b", 1), sync_classic(one, "g", "a", 1, {"a": b"to a", "b": b"to b"})
    )
    assert [b"to b", b"to a"] == given
    return one, two


async def _later(place: Place, two: Coordinator, **terms: object) -> Joined:
    await place.loop.sleep(1.0)
    return await joined(two, "b", **terms)


def test_the_first_phase_waits_for_others_and_the_leader_alone_sees_their_metadata() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()
        first, second = await asyncio.gather(joined(one, "a", delay_ms=3_000, instance="i"), _later(place, two))
        assert 3.0 <= place.loop.time() <= 4.5
        assert ("range", "consumer", "a") == (first.protocol, first.protocol_type, first.leader)
        assert [("a", "i", b"topics of range"), ("b", "", b"topics of range")] == [
            (m.member, m.instance, m.metadata) for m in first.members
        ]
        assert ([], "range", 1) == (second.members, second.protocol, second.generation)

    simulate(main())


def test_followers_get_what_the_leader_gives_and_all_stay() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await pair(place)
        manifests = place.manifests()
        for _ in range(40):
            await place.loop.sleep(3.0)
            await heartbeat_classic(one, "g", "a", 1)
            await heartbeat_classic(two, "g", "b", 1)
        assert manifests == place.manifests()
        assert b"to b" == await sync_classic(two, "g", "b", 1), "an answer that was lost is given again"
        await two.namespace.commit_offsets("g", {("t", 0): 4}, generation=1, member="b")

    simulate(main())


def test_a_third_member_makes_the_others_join_again() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await pair(place)
        third = asyncio.ensure_future(joined(await place.process(), "c"))
        await place.loop.sleep(1.0)
        for process, name in ((one, "a"), (two, "b")):
            with pytest.raises(Rebalancing):
                await heartbeat_classic(process, "g", name, 1)
            with pytest.raises(Rebalancing):
                await sync_classic(process, "g", name, 1)
        again = await asyncio.gather(joined(one, "a"), joined(two, "b"), third)
        assert [2, 2, 2] == [known.generation for known in again]
        assert ["a", "b", "c"] == [m.member for m in again[0].members]
        with pytest.raises(Fenced):
            await heartbeat_classic(two, "g", "b", 1)
        with pytest.raises(Fenced):
            await two.namespace.commit_offsets("g", {("t", 0): 4}, generation=1, member="b")

    simulate(main())


def test_leaving_makes_the_rest_join_again() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await pair(place)
        await one.leave("g", "a")
        with pytest.raises(Rebalancing):
            await heartbeat_classic(two, "g", "b", 1)
        alone = await joined(two, "b")
        assert (2, "b", ["b"]) == (alone.generation, alone.leader, [m.member for m in alone.members])
        assert b"" == await sync_classic(two, "g", "b", 2)
        await two.leave("g", "b")
        state = await two.namespace.refresh()
        assert ("empty", 3, {}) == (
            state.groups["g"].phase,
            state.groups["g"].generation,
            state.groups["g"].members,
        )
        with pytest.raises(UnknownMember):
            await heartbeat_classic(two, "g", "b", 2)

    simulate(main())


async def only_stay(coordinator: Coordinator, member: str) -> None:
    """Keep the lease and do not listen."""
    while True:
        await coordinator.namespace.chain.clock.sleep(5.0)
        with contextlib.suppress(Rebalancing):
            await heartbeat_classic(coordinator, "g", member, 1)


def test_who_does_not_join_again_in_time_is_left_behind() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await pair(place)
        deaf = [asyncio.ensure_future(only_stay(one, "a")), asyncio.ensure_future(only_stay(two, "b"))]
        start_s = place.loop.time()
        third = await joined(await place.process(), "c", rebalance_ms=20_000, session_ms=10_000, timeout_ms=400_000)
        assert 300.0 <= place.loop.time() - start_s <= 302.0, "the slowest member's rebalance time-out counts"
        assert (2, "c", ["c"]) == (third.generation, third.leader, [m.member for m in third.members])
        with pytest.raises(UnknownMember):
            await heartbeat_classic(two, "g", "b", 1)
        for task in deaf:
            task.cancel()
        await asyncio.gather(*deaf, return_exceptions=True)

    simulate(main())


def test_the_dead_hold_up_a_join_for_no_longer_than_their_session() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        await pair(place)
        start_s = place.loop.time()
        third = await joined(await place.process(), "c")
        assert 40.0 < place.loop.time() - start_s <= 45.0 + 2 * 15.0
        assert (2, "c", ["c"]) == (third.generation, third.leader, [m.member for m in third.members])

    simulate(main())


def test_a_leader_that_dies_before_it_assigns_is_replaced() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()
        first, _ = await asyncio.gather(joined(one, "a", delay_ms=3_000), _later(place, two))
        assert "a" == first.leader
        with pytest.raises(Rebalancing):
            await sync_classic(two, "g", "b", 1)
        assert 45.0 < place.loop.time() <= 45.0 + 3.0 + 2 * 15.0
        again = await joined(two, "b")
        assert (2, "b") == (again.generation, again.leader)

    simulate(main())


def test_a_leader_that_lives_and_does_not_assign_is_left_behind() -> None:
    """The others joined the same generation and waited for it, again and again, for as long as it sent heartbeats."""

    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()
        await asyncio.gather(
            joined(one, "a", delay_ms=3_000, rebalance_ms=6_000), _later(place, two, rebalance_ms=6_000)
        )
        began_s = place.loop.time()

        async def live() -> None:
            while True:
                await heartbeat_classic(one, "g", "a", 1)
                await place.loop.sleep(1.0)

        living = asyncio.ensure_future(live())
        with pytest.raises(Rebalancing):
            await sync_classic(two, "g", "b", 1, timeout_ms=60_000)
        again = await joined(two, "b", rebalance_ms=6_000)
        assert (2, "b", ["b"]) == (again.generation, again.leader, [each.member for each in again.members])
        assert place.loop.time() < began_s + 6.0 + 2.0
        with pytest.raises(UnknownMember):
            await living
        assert b"mine" == await sync_classic(two, "g", "b", 2, {"b": b"mine"})

    simulate(main())


def test_a_sync_that_nobody_answers_ends_in_time() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()
        await asyncio.gather(joined(one, "a", delay_ms=3_000), _later(place, two))
        with pytest.raises(Rebalancing):
            await sync_classic(two, "g", "b", 1, timeout_ms=2_000)

    simulate(main())


def test_a_join_that_others_hold_up_ends_in_time() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        await pair(place)
        with pytest.raises(Rebalancing):
            await joined(await place.process(), "c", timeout_ms=2_000)
        assert place.loop.time() < 10.0

    simulate(main())


def test_a_static_member_comes_back_without_a_rebalance() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()
        await asyncio.gather(joined(one, "a", delay_ms=3_000, instance="i"), _later(place, two))
        await asyncio.gather(sync_classic(two, "g", "b", 1), sync_classic(one, "g", "a", 1, {"a": b"mine"}))
        again = await joined(await place.process(), "a2", instance="i")
        assert (1, "a2") == (again.generation, again.leader)
        assert b"mine" == await sync_classic(one, "g", "a2", 1)
        with pytest.raises(UnknownMember):
            await heartbeat_classic(one, "g", "a", 1)
        await heartbeat_classic(two, "g", "b", 1)

    simulate(main())


def test_a_static_member_that_comes_back_before_the_leader_has_assigned_makes_all_join_again() -> None:
    # Seed 610: the leader assigned to the old id, so that the partitions of that one were nobody's.
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await place.process(), await place.process()

        async def static() -> Joined:
            await place.loop.sleep(1.0)
            return await joined(two, "b", instance="i")

        await asyncio.gather(joined(one, "a", delay_ms=3_000), static())
        again = asyncio.ensure_future(joined(await place.process(), "b2", instance="i"))
        await place.loop.sleep(1.0)
        with pytest.raises(Rebalancing):
            await sync_classic(one, "g", "a", 1, {"a": b"to a", "b": b"to b"})
        leader, follower = await asyncio.gather(joined(one, "a"), again)
        assert (2, 2, ["a", "b2"]) == (leader.generation, follower.generation, [m.member for m in leader.members])

    simulate(main())


def test_members_of_other_types_and_assignors_are_refused() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        await pair(place)
        other = await place.process()
        with pytest.raises(Conflict, match="protocol type"):
            await joined(other, "c", protocol_type="connect")
        with pytest.raises(Conflict, match="assignors"):
            await joined(other, "c", protocols=[("sticky", b"")])
        assert ["a", "b"] == list(other.namespace.state.groups["g"].members)

    simulate(main())


@pytest.mark.parametrize(
    "terms",
    [
        {"protocols": []},
        {"protocols": [("p", b"")] * 65},
        {"protocols": [("", b"")]},
        {"protocols": [("p\n", b"")]},
        {"protocol_type": ""},
        {"session_ms": 1},
        {"delay_ms": -1},
        {"delay_ms": 300_001},
    ],
)
def test_what_cannot_be_is_refused(terms: dict[str, object]) -> None:
    async def main() -> None:
        place = Place()
        coordinator = await place.process()
        with pytest.raises(InvalidRequest):
            await joined(coordinator, "a", **terms)
        assert [] == place.leases()

    simulate(main())


def test_a_member_alone_joins_and_syncs_in_two_commits() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        coordinator = await place.process()
        before = place.manifests()
        alone = await joined(coordinator, "a")
        assert b"all" == await sync_classic(coordinator, "g", "a", alone.generation, {"a": b"all"})
        assert 2 == place.manifests() - before

    simulate(main())
