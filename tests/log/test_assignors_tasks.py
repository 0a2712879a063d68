"""The assignor of stream processing: one partition number of every topic to one member, and it stays there."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from headwater.log.state import Member
from headwater.log.state.assignors import TASKS, Target, assign, ring

TOPICS = {"in": (1, 4), "job-changelog": (2, 4), "side": (3, 2)}


def member(name: str, *numbers: int, topics: Sequence[str] = tuple(TOPICS)) -> Member:
    owned = {
        topic: dict.fromkeys((number for number in numbers if number < count), 1)
        for name, (topic, count) in TOPICS.items()
        if name in topics
    }
    return Member(id=name, topics=list(topics), assignor=TASKS, owned=owned)


def numbers(target: Target) -> dict[str, list[int]]:
    return {name: sorted({partition for _, partition in places}) for name, places in target.items()}


def dealt(*members: Member, before: Mapping[str, Sequence[int]] | None = None) -> dict[str, list[int]]:
    last = {name: {2: list(mine)} for name, mine in (before or {}).items()}
    return numbers(assign(TASKS, members, TOPICS, last))


def test_a_number_means_that_partition_of_every_topic() -> None:
    target = assign(TASKS, [member("a"), member("b")], TOPICS)
    assert {(topic, p) for topic, count in TOPICS.values() for p in range(count)} == {
        place for places in target.values() for place in places
    }
    owners = {(topic, p): name for name, places in target.items() for topic, p in places}
    for number in range(2):
        assert 1 == len({owners[topic, number] for topic, _ in TOPICS.values()})


def test_a_member_that_joins_takes_only_what_balance_asks_for() -> None:
    assert {"a": [0, 1], "b": [2, 3]} == dealt(member("a", 0, 1, 2, 3), member("b"))
    assert {"a": [0, 1], "b": [2], "c": [3]} == dealt(member("a", 0, 1), member("b", 2, 3), member("c"))


def test_orphans_go_to_the_next_in_the_ring_who_is_their_standby() -> None:
    before = {"a": [0], "b": [1], "c": [2, 3]}
    assert {"a": [0, 2], "b": [1, 3]} == dealt(member("a", 0), member("b", 1), before=before)
    assert {"b": [0, 1], "c": [2, 3]} == dealt(member("b", 1), member("c", 2, 3), before=before)


def test_the_ring_begins_behind_a_name_and_ends_before_it() -> None:
    assert ["c", "a"] == ring(["a", "b", "c"], "b")
    assert ["a", "b", "c"] == ring(["a", "b", "c"], "d")
    assert [] == ring(["a"], "a")


def test_a_topic_that_only_one_version_of_a_job_knows_goes_to_a_member_that_knows_it() -> None:
    new = member("new")
    old = member("old", 0, 1, 2, 3, topics=["in", "job-changelog"])
    target = assign(TASKS, [new, old], TOPICS)
    assert {(3, 0), (3, 1)} <= set(target["new"])
    assert not [place for place in target["old"] if place[0] == 3]


def test_whatever_comes_and_goes_every_number_has_one_owner_and_shares_are_even() -> None:
    rng = random.Random(7)
    held: dict[str, list[int]] = {}
    for _ in range(300):
        names = rng.sample("abcdefg", rng.randint(1, 7))
        found = dealt(*(member(name, *held.get(name, [])) for name in names), before=held)
        assert [0, 1, 2, 3] == sorted(number for mine in found.values() for number in mine)
        assert max(map(len, found.values())) - min(map(len, found.values())) <= 1
        for name, mine in found.items():
            kept = len(set(mine) & set(held.get(name, [])))
            assert kept == min(len(held.get(name, [])), len(mine)), "who had a task and has room keeps it"
        held = found
