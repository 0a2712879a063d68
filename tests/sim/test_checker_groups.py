"""What groups tell their members: each broken promise is planted in a small history and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headwater.sim.checker import Final, check
from headwater.sim.checker_groups import Club
from headwater.sim.history import TP, Beat, History, OffsetCommit, Told

A: TP = ("a", 0)
B: TP = ("b", 0)

Planted = tuple[History, Final]


def history() -> History:
    return History(lambda: 0.0)


def ask(h: History, member: str, *, owner: str = "", released: tuple[TP, ...] = (), joining: bool = False) -> int:
    what = Beat(group="g", member=member, owner=owner or member, released=released, joining=joining)
    return h.invoke(member, what)


def tell(h: History, call: int, generation: int, *, revoke: dict[TP, int] | None = None, **owned: int) -> None:
    """The answer: ``a=1`` owns partition A since generation 1."""
    places = {{"a": A, "b": B}[name]: since for name, since in owned.items()}
    told = Told(generation=generation, owned=tuple(places.items()), revoke=tuple((revoke or {}).items()))
    h.ok(call, told)


def beat(
    h: History, member: str, generation: int, *, owner: str = "", released: tuple[TP, ...] = (), **more: Any
) -> None:
    tell(h, ask(h, member, owner=owner, released=released), generation, **more)


def gone(h: History, member: str) -> None:
    h.unknown(ask(h, member), "UnknownMember")


def commit(h: History, owner: str, since: int, *, tp: TP = A) -> None:
    h.ok(h.invoke(owner, OffsetCommit(group="g", offsets=((tp, 1),), owner=owner, generation=since, each=True)))


def end(**more: Any) -> Final:
    return Final(records={}, **more)


def club(**more: Any) -> Final:
    known: dict[str, Any] = {
        "living": {"m": (A,), "n": (B,)},
        "owned": {"m": (A,), "n": (B,)},
        "wanted": (A, B),
        "lag": {A: 0, B: 0},
    }
    return end(clubs={"g": Club(**{**known, **more})})


# -- bad histories ------------------------------------------------------------------------------------


def granted_twice_in_one_generation() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "n", 1, a=1)
    return h, end()


def granted_twice_by_answers_that_cross() -> Planted:
    h = history()
    one, two = ask(h, "m"), ask(h, "n")
    tell(h, one, 1, a=1)
    tell(h, two, 1, a=1)
    return h, end()


def an_old_owner_is_told_that_it_still_owns() -> Planted:
    h = history()
    beat(h, "n", 2, a=2)
    beat(h, "m", 2, a=1)
    return h, end()


def an_old_owner_is_told_to_give_up_what_is_gone() -> Planted:
    h = history()
    beat(h, "n", 2, a=2)
    beat(h, "m", 2, revoke={A: 1})
    return h, end()


def granted_before_it_was_released() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "n", 2, a=2)
    beat(h, "m", 2)
    return h, end()


def granted_while_it_was_being_revoked() -> Planted:
    h = history()
    beat(h, "m", 1, a=1, b=1)
    beat(h, "m", 2, a=1, revoke={B: 1})
    beat(h, "n", 2, b=2)
    beat(h, "m", 2, a=1, released=(B,))
    return h, end()


def a_zombie_commits() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "n", 2, a=2)
    commit(h, "m", 1)
    return h, end()


def a_lost_member() -> Planted:
    return history(), club(owned={"m": (A,), "x": (B,)}, living={"m": (A,), "n": (), "x": (B,)})


def a_ghost() -> Planted:
    return history(), club(living={"m": (A,)})


def nobodys_partition() -> Planted:
    return history(), club(owned={"m": (A,), "n": ()}, living={"m": (A,), "n": ()})


def two_at_the_end() -> Planted:
    return history(), club(owned={"m": (A, B), "n": (B,)}, living={"m": (A, B), "n": (B,)})


def told_something_else() -> Planted:
    return history(), club(living={"m": (A, B), "n": (B,)})


def stuck() -> Planted:
    return history(), club(lag={A: 0, B: 7})


def restless() -> Planted:
    return history(), club(restless=True)


BAD: list[tuple[Callable[[], Planted], set[str]]] = [
    (granted_twice_in_one_generation, {"two-owners"}),
    (granted_twice_by_answers_that_cross, {"two-owners"}),
    (an_old_owner_is_told_that_it_still_owns, {"two-owners"}),
    (an_old_owner_is_told_to_give_up_what_is_gone, {"two-owners"}),
    (granted_before_it_was_released, {"two-owners"}),
    (granted_while_it_was_being_revoked, {"two-owners"}),
    (a_zombie_commits, {"zombie-commit"}),
    (a_lost_member, {"lost-member"}),
    (a_ghost, {"ghost-member"}),
    (nobodys_partition, {"unowned"}),
    (two_at_the_end, {"two-owners"}),
    (told_something_else, {"misled"}),
    (stuck, {"stuck"}),
    (restless, {"restless"}),
]


@pytest.mark.parametrize(("planted", "kinds"), BAD, ids=lambda value: getattr(value, "__name__", "kind"))
def test_a_planted_violation_is_found_and_nothing_else(planted: Callable[[], Planted], kinds: set[str]) -> None:
    found = check(*planted())
    assert kinds == {violation.kind for violation in found}
    assert all(violation.detail for violation in found)


# -- good histories -----------------------------------------------------------------------------------


def a_partition_is_released_and_granted() -> Planted:
    h = history()
    beat(h, "m", 1, a=1, b=1)
    beat(h, "m", 2, a=1, revoke={B: 1})
    commit(h, "m", 1, tp=B)
    release = ask(h, "m", released=(B,))
    beat(h, "n", 2, b=2)
    tell(h, release, 2, a=1)
    commit(h, "m", 1)
    commit(h, "n", 2, tp=B)
    return h, club()


def a_release_whose_answer_is_lost() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    h.unknown(ask(h, "m", released=(A,)), "Indeterminate")
    beat(h, "n", 2, a=2)
    beat(h, "m", 2)
    return h, club()


def an_expelled_member_is_replaced_and_hears_of_it() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "n", 2, a=2)
    h.fail(h.invoke("m", OffsetCommit(group="g", offsets=((A, 9),), owner="m", generation=1, each=True)), "Fenced")
    gone(h, "m")
    beat(h, "m2", 3)
    return h, club()


def a_partition_comes_back() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "m", 2, revoke={A: 1})
    beat(h, "m", 2, released=(A,))
    beat(h, "n", 2, a=2)
    beat(h, "n", 3, released=(A,))
    beat(h, "m", 3, a=3)
    commit(h, "m", 3)
    return h, club()


def a_static_member_keeps_what_its_old_self_had() -> Planted:
    h = history()
    beat(h, "m1", 1, owner="m", a=1)
    beat(h, "m2", 1, owner="m", a=1)
    commit(h, "m", 1)
    return h, club()


def answers_that_cross() -> Planted:
    h = history()
    slow = ask(h, "m")
    beat(h, "n", 2, a=2)
    tell(h, slow, 1, a=1)
    return h, club()


def an_expelled_member_whose_last_answer_crosses() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    late = ask(h, "m")
    beat(h, "n", 2, a=2)
    tell(h, late, 1, a=1)
    gone(h, "m")
    return h, club()


def an_expelled_member_joins_again_under_its_id() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    beat(h, "n", 2, a=2)
    tell(h, ask(h, "m", released=(A,), joining=True), 3, b=3)
    return h, club()


def a_commit_that_was_on_its_way() -> Planted:
    h = history()
    beat(h, "m", 1, a=1)
    call = h.invoke("m", OffsetCommit(group="g", offsets=((A, 1),), owner="m", generation=1, each=True))
    beat(h, "n", 2, a=2)
    h.ok(call)
    return h, club()


def nobody_is_left_to_expel_anybody() -> Planted:
    return history(), club(living={}, wanted=())


GOOD: list[Callable[[], Planted]] = [
    a_partition_is_released_and_granted,
    a_release_whose_answer_is_lost,
    an_expelled_member_is_replaced_and_hears_of_it,
    a_partition_comes_back,
    a_static_member_keeps_what_its_old_self_had,
    answers_that_cross,
    an_expelled_member_whose_last_answer_crosses,
    an_expelled_member_joins_again_under_its_id,
    a_commit_that_was_on_its_way,
    nobody_is_left_to_expel_anybody,
]


@pytest.mark.parametrize("clean", GOOD, ids=lambda clean: clean.__name__)
def test_a_clean_history_is_clean(clean: Callable[[], Planted]) -> None:
    assert [] == check(*clean())
