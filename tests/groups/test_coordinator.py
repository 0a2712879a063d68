"""Members that join, share, leave and die, over processes that know of each other by the bucket alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.errors import Conflict, Fenced, InvalidRequest
from headwater.limits import (
    HEARTBEAT_FLUX_MS,
    HEARTBEAT_MS,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    SESSION_MS_MAX,
    SUBSCRIBED_MAX,
)
from headwater.log.outcomes import UnknownMember
from headwater.sim.latency import S3_STANDARD
from tests.groups.helpers_members import Life, Place, alive, end, shares
from tests.log.helpers import simulate

SESSION_S = 45.0
INTERVAL_S = HEARTBEAT_MS / 1_000
SOON_S = INTERVAL_S + 2.0  # a heartbeat that asks for a release, the release, and another one that hears the rest


def places(*partitions: int, topic: str = "t") -> list[tuple[str, int]]:
    return [(topic, partition) for partition in partitions]


def test_who_joins_alone_owns_everything() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=3)
        beat = await Life(await place.process(), "a").join()
        assert dict.fromkeys(places(0, 1, 2), 1) == beat.owned
        assert ([], 1, 1, HEARTBEAT_MS, ["t"]) == (
            beat.revoke,
            beat.epoch,
            beat.generation,
            beat.interval_ms,
            beat.topics,
        )

    simulate(main())


def test_a_second_member_gets_its_share_only_after_the_first_has_let_go() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        one, two = Life(await place.process(), "a"), Life(await place.process(), "b")
        await one.join()
        joined = await two.join()
        assert ({}, [], HEARTBEAT_FLUX_MS) == (joined.owned, joined.revoke, joined.interval_ms)
        told = await one.once()
        assert (places(0, 1), places(2, 3)) == (list(told.owned), told.revoke)
        assert 1 == told.epoch < told.generation == 2
        assert {} == (await two.once()).owned, "the first one has not released yet"
        assert 3 == (await one.once()).epoch
        granted = await two.once()
        assert (dict.fromkeys(places(2, 3), 3), HEARTBEAT_MS) == (granted.owned, granted.interval_ms)

    simulate(main())


def test_a_release_of_what_was_not_asked_for_changes_nothing() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one = Life(await place.process(), "a")
        await one.join()
        before = place.manifests()
        beat = await one.once(released=[("t", 0), ("t", 9), ("gone", 0)])
        assert (places(0, 1), before) == (list(beat.owned), place.manifests())

    simulate(main())


def test_a_killed_member_is_replaced_within_its_session_and_two_intervals() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=6)
        one, two, three = await alive(place, 3)
        assert [2, 2, 2] == shares(one, two, three)
        await two.kill()
        died_s = place.loop.time()
        while shares(one, three) != [3, 3]:
            await place.loop.sleep(0.1)
        assert place.loop.time() - died_s <= SESSION_S + 2 * INTERVAL_S
        await end(one, three)

    simulate(main())


@pytest.mark.parametrize("dead", [(0, 1, 2), (1, 2, 3), (0, 2, 3)])
def test_a_lone_survivor_takes_over_from_all_the_others(dead: tuple[int, ...]) -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        lives = await alive(place, 4)
        for n in dead:
            await lives[n].kill()
        await place.loop.sleep(SESSION_S + 2 * INTERVAL_S)
        (survivor,) = (life for n, life in enumerate(lives) if n not in dead)
        assert places(0, 1, 2, 3) == survivor.owned
        await survivor.kill()

    simulate(main())


def test_a_hundred_members_that_die_at_once_are_expelled_in_few_manifests() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=100)
        lives = await alive(place, 100)
        await end(*lives[2:])
        before = place.manifests()
        await place.loop.sleep(SESSION_S + 2 * INTERVAL_S)
        assert [50, 50] == shares(*lives[:2])
        assert place.manifests() - before <= 4
        await end(*lives[:2])

    simulate(main())


def test_joiners_of_one_moment_expel_the_dead_once() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=6)
        lives = await alive(place, 3)
        await end(*lives)
        await place.loop.sleep(SESSION_S + 0.1)
        joiners = [Life(await place.process(), f"new{n}") for n in range(3)]
        await asyncio.gather(*(joiner.join() for joiner in joiners))
        for _ in range(3):
            await asyncio.gather(*(joiner.once() for joiner in joiners))
        assert [2, 2, 2] == shares(*joiners)
        members = joiners[0].coordinator.namespace.state.groups["g"].members
        assert {"new0", "new1", "new2"} == members.keys()

    simulate(main())


def test_a_joiner_expels_the_dead_at_once() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        lives = await alive(place, 3)
        await end(*lives)
        await place.loop.sleep(SESSION_S + 0.1)
        beat = await Life(await place.process(), "new").join()
        assert places(0, 1, 2, 3) == list(beat.owned)

    simulate(main())


def test_a_joiner_leaves_the_living_alone() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        (one,) = await alive(place, 1)
        await one.kill()
        await place.loop.sleep(SESSION_S - INTERVAL_S - 0.1)
        new = Life(await place.process(), "new")
        await new.join()
        assert ["m0", "new"] == list(new.coordinator.namespace.state.groups["g"].members)

    simulate(main())


def test_who_was_expelled_hears_of_it_and_commits_nothing_any_more() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await alive(place, 2)
        await two.kill()
        zombie = two.beat
        assert zombie is not None
        await place.loop.sleep(SESSION_S + 2 * INTERVAL_S)
        log = two.coordinator.namespace
        tp = next(iter(zombie.owned))
        with pytest.raises(Fenced):
            await log.commit_offsets("g", {tp: 5}, generation=zombie.epoch, member="m1")
        with pytest.raises(UnknownMember) as caught:
            await two.once()
        assert (409, "no") == (caught.value.status, caught.value.applied)
        assert {} == await log.committed("g")
        assert ["m0"] == list(log.state.groups["g"].members)
        await one.kill()

    simulate(main())


def test_a_static_member_that_returns_in_time_keeps_its_partitions_without_a_new_generation() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        first = Life(await place.process(), "x1", group="s", instance="x").start()
        other = Life(await place.process(), "y1", group="s", instance="y").start()
        await place.loop.sleep(30.0)
        await first.kill()
        before, generation = first.owned, other.beat.generation if other.beat else -1
        await place.loop.sleep(20.0)
        again = await Life(await place.process(), "x2", group="s", instance="x").join()
        assert (before, generation) == (list(again.owned), again.generation)
        with pytest.raises(UnknownMember):
            await first.once()
        assert not [key for key in place.leases() if key.endswith("/x1")], "nobody has a use for the old lease"
        await other.kill()

    simulate(main())


def test_a_static_member_that_stays_away_is_expelled_like_any_other() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        first = Life(await place.process(), "x1", instance="x").start()
        other = Life(await place.process(), "y1", instance="y").start()
        await place.loop.sleep(30.0)
        await first.kill()
        await place.loop.sleep(SESSION_S + 2 * INTERVAL_S)
        assert places(0, 1) == other.owned
        await other.kill()

    simulate(main())


async def until_expelled(stubborn: Life) -> None:
    for _ in range(100):
        await stubborn.coordinator.namespace.chain.clock.sleep(10.0)
        await stubborn.once(released=())


def test_who_does_not_release_in_time_is_expelled_although_it_lives() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        stubborn = Life(await place.process(), "a", rebalance_ms=60_000)
        await stubborn.join()
        other = Life(await place.process(), "b").start()
        with pytest.raises(UnknownMember):
            await until_expelled(stubborn)
        assert 60.0 < place.loop.time() <= 60.0 + 2 * INTERVAL_S
        await place.loop.sleep(INTERVAL_S)
        assert places(0, 1) == other.owned
        await other.kill()

    simulate(main())


def test_leaving_frees_the_partitions_at_once_and_twice_is_no_error() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        one, two = await alive(place, 2)
        await end(one, two)
        await two.coordinator.leave("g", "m1")
        await two.coordinator.leave("g", "m1")
        await two.coordinator.leave("no group", "nobody")
        assert places(0, 1) == list((await one.once()).owned)
        assert ["ns/lease/g/m0"] == place.leases()

    simulate(main())


def test_a_steady_member_costs_four_puts_a_minute_and_no_commit() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=4)
        lives = await alive(place, 3)
        manifests = place.manifests()
        before = [place.counts(life.coordinator) for life in lives]
        await place.loop.sleep(600.0)
        for life, start in zip(lives, before, strict=True):
            spent = place.counts(life.coordinator) - start
            assert 36 <= spent.put <= 40
            assert (0, 0, 0) == (spent.put_conditional, spent.list, spent.delete)
            assert spent.head <= spent.put
            assert spent.get <= 41
        assert manifests == place.manifests()
        await end(*lives)

    simulate(main())


def test_who_asks_every_second_pays_with_gets_alone() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        life = Life(await place.process(), "a")
        await life.join()
        before = place.counts(life.coordinator)
        for _ in range(60):
            await place.loop.sleep(1.0)
            await life.once()
        spent = place.counts(life.coordinator) - before
        assert (4, 60, 0) == (spent.put, spent.get, spent.head)

    simulate(main())


def test_processes_that_share_a_member_share_its_puts() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        life = Life(await place.process(), "a")
        await life.join()
        processes = [await place.process() for _ in range(4)]
        for n in range(40):
            await place.loop.sleep(15.0)
            await processes[n % 4].heartbeat("g", "a")
        spent = [place.counts(process) for process in processes]
        assert 40 == sum(counts.put for counts in spent)
        assert 40 == sum(counts.head for counts in spent)

    simulate(main())


def test_processes_that_come_and_go_ask_the_store_before_they_write() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        await Life(await place.process(), "a").join()
        for _ in range(10):
            await place.loop.sleep(1.0)
            fresh = await place.process()
            await fresh.heartbeat("g", "a")
            spent = place.counts(fresh)
            assert (0, 1) == (spent.put, spent.head)

    simulate(main())


def test_without_renew_a_call_only_tells() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        life = Life(await place.process(), "a")
        await life.join()
        await place.loop.sleep(30.0)
        before = place.counts(life.coordinator)
        beat = await life.once(renew=False)
        spent = place.counts(life.coordinator) - before
        assert (places(0), 0, 0, 1) == (list(beat.owned), spent.put, spent.head, spent.get)

    simulate(main())


def test_a_hundred_members_that_join_at_once_make_few_manifests() -> None:
    async def main() -> None:
        place = Place(S3_STANDARD)
        await place.topics(t=200)
        lives = [Life(await place.process(), f"m{n}") for n in range(100)]
        before = place.manifests()
        await asyncio.gather(*(life.join() for life in lives))
        joined = place.manifests() - before
        await asyncio.gather(*(life.once() for life in lives))
        while shares(*lives) != [2] * 100:
            await place.loop.sleep(1.0)
            await asyncio.gather(*(life.once() for life in lives))
        settled = place.manifests() - before - joined
        assert joined <= 20, joined
        assert settled <= 3, settled

    simulate(main())


def test_a_subscription_that_changes_moves_partitions_in_one_commit() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1, u=1)
        life = Life(await place.process(), "a", session_ms=60_000, instance="i", assignor="range")
        await life.join()
        before = place.manifests()
        beat = await life.once(topics=["t", "u"])
        assert ([("t", 0), ("u", 0)], ["t", "u"]) == (list(beat.owned), beat.topics)
        assert before + 1 == place.manifests()
        member = life.coordinator.namespace.state.groups["g"].members["a"]
        assert (60_000, "i", "range") == (member.session_ms, member.instance, member.assignor)
        await life.once(topics=["u", "t", "t"])
        assert before + 1 == place.manifests(), "the same topics in other words are no change"
        # What it no longer wants it still owes: it is told to let go, and then holds less.
        assert [("t", 0)] == (await life.once(topics=["u"])).revoke
        assert [("u", 0)] == list((await life.once()).owned)

    simulate(main())


def test_a_release_and_a_new_subscription_are_one_commit() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2, u=1)
        one, two = Life(await place.process(), "a"), Life(await place.process(), "b")
        await one.join()
        await two.join()
        told = await one.once()
        before = place.manifests()
        beat = await one.once(released=told.revoke, topics=["t", "u"])
        assert before + 1 == place.manifests()
        assert [] == beat.revoke

    simulate(main())


def test_topics_and_partitions_that_appear_later_are_shared_out() -> None:
    async def main() -> None:
        place = Place()
        log = await place.topics(t=2)
        one, two = await alive(place, 2, topics=["later", "t"])
        assert [1, 1] == shares(one, two)
        await log.create_topic("later", 4)
        await place.loop.sleep(SOON_S)
        assert [3, 3] == shares(one, two)
        await log.add_partitions("later", 8)
        await place.loop.sleep(SOON_S)
        assert [5, 5] == shares(one, two)
        await log.delete_topic("later")
        await place.loop.sleep(SOON_S)
        assert {("t", 0), ("t", 1)} == {*one.owned, *two.owned}
        await end(one, two)

    simulate(main())


def test_joining_again_under_the_same_id_changes_nothing() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        life = Life(await place.process(), "a")
        first = await life.join()
        assert first == await life.join()

    simulate(main())


def test_a_member_nobody_knows_is_told_to_join() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        life = Life(await place.process(), "a")
        with pytest.raises(UnknownMember):
            await life.once()
        await life.join()
        with pytest.raises(UnknownMember):
            await life.coordinator.heartbeat("g", "b")
        assert ["ns/lease/g/a"] == place.leases()

    simulate(main())


def test_a_group_of_the_other_protocol_is_refused() -> None:
    async def main() -> None:
        from headwater.groups.classic import heartbeat_classic, join_classic

        place = Place()
        await place.topics(t=2)
        life = Life(await place.process(), "a")
        await life.join()
        with pytest.raises(Conflict, match="consumer"):
            await join_classic(life.coordinator, "g", "b", protocol_type="consumer", protocols=[("range", b"")])
        with pytest.raises(Conflict, match="consumer"):
            await heartbeat_classic(life.coordinator, "g", "a", 1)
        await join_classic(life.coordinator, "h", "b", protocol_type="consumer", protocols=[("range", b"")])
        with pytest.raises(Conflict, match="classic"):
            await life.coordinator.heartbeat("h", "b")
        with pytest.raises(Conflict, match="classic"):
            await life.coordinator.heartbeat("h", "c", joining=True)

    simulate(main())


@pytest.mark.parametrize(
    ("group", "member", "terms"),
    [
        ("", "m", {}),
        ("g", "", {}),
        ("g" * (NAME_BYTES_MAX + 1), "m", {}),
        ("é" * (NAME_BYTES_MAX // 2 + 1), "m", {}),
        ("g", "m" * (NAME_BYTES_MAX + 1), {}),
        ("g\n", "m", {}),
        ("g", "m\x7f", {}),
        ("g\ud800", "m", {}),
        ("g", "m", {"session_ms": 5_999}),
        ("g", "m", {"session_ms": SESSION_MS_MAX + 1}),
        ("g", "m", {"rebalance_ms": 0}),
        ("g", "m", {"rebalance_ms": 86_400_001}),
        ("g", "m", {"assignor": "fair"}),
        ("g", "m", {"instance": "i\0"}),
        ("g", "m", {"client": "c" * (NAME_BYTES_MAX + 1)}),
        ("g", "m", {"topics": ["no/topic"]}),
        ("g", "m", {"topics": [f"t{n}" for n in range(SUBSCRIBED_MAX + 1)]}),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(group: str, member: str, terms: dict[str, Any]) -> None:
    async def main() -> None:
        place = Place()
        coordinator = await place.process()
        with pytest.raises(InvalidRequest):
            await coordinator.heartbeat(group, member, joining=True, **terms)
        assert 0 == place.counts(coordinator).put

    simulate(main())


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".", "a b", "g" * NAME_BYTES_MAX, "é" * (NAME_BYTES_MAX // 2)])
def test_any_other_name_will_do(name: str) -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        coordinator = await place.process()
        beat = await coordinator.heartbeat(name, name, topics=["t"], joining=True)
        assert places(0) == list(beat.owned)
        (lease,) = place.leases()
        assert (4, True) == (len(lease.split("/")), len(lease) < 600)
        await coordinator.leave(name, name)
        assert [] == place.leases()

    simulate(main())


def test_a_full_group_takes_nobody_else() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        coordinator = await place.process()
        for n in range(0, MEMBERS_MAX, 100):
            await asyncio.gather(*(coordinator.heartbeat("g", f"m{n + i}", joining=True) for i in range(100)))
        with pytest.raises(Conflict, match="members"):
            await coordinator.heartbeat("g", "more", joining=True)

    simulate(main())


def test_a_clock_that_is_wrong_expels_nobody() -> None:
    async def main() -> None:
        from headwater.sim.loop import SimClock

        place = Place()
        await place.topics(t=2)
        ahead = SimClock(place.loop, skew_ms=86_400_000)
        behind = SimClock(place.loop, skew_ms=-86_400_000)
        one = Life(await place.process(clock=ahead), "a", rebalance_ms=60_000).start()
        two = Life(await place.process(clock=behind), "b", rebalance_ms=60_000).start()
        await place.loop.sleep(600.0)
        assert ([1, 1], 3) == (shares(one, two), two.beat.generation if two.beat else -1)
        await end(one, two)

    simulate(main())
