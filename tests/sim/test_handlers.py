"""Worlds of functions: clean seeds are clean, a seed decides everything, and planted bugs are found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from headwater.api.app import App
from headwater.api.http import Incoming
from headwater.sim.handlers import Fleet, FleetPlan, simulate
from headwater.sim.sweep import judge, sweep
from tests.sim.helpers_worlds import noticed

T = TypeVar("T")


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_of_functions_keeps_every_promise(seed: int) -> None:
    assert [] == judge(seed, "functions")["violations"]


# Seeds that found a bug, and what it was.
REGRESSIONS = {1002: "a request that a killed function had published was committed again when its key was forgotten"}


@pytest.mark.parametrize("seed", REGRESSIONS, ids=[f"{seed}: {story}" for seed, story in REGRESSIONS.items()])
def test_what_a_seed_of_functions_found_does_not_come_back(seed: int) -> None:
    assert [] == judge(seed, "functions")["violations"]


def test_the_same_seed_of_functions_gives_the_same_history_twice() -> None:
    for seed in (3, 75):
        first, again = simulate(seed), simulate(seed)
        assert first.digest == again.digest
        assert first.events == again.events > 0


def test_a_sweep_of_functions_kills_some_and_says_how_to_see_it_again() -> None:
    report = sweep(70, 12, jobs=1, world="functions").as_dict()
    assert ("functions", 12, 0) == (report["world"], report["seeds"], report["violations"])
    assert report["faults"]["killed"] > 0


def test_plans_of_fleets_cover_every_kind_of_client() -> None:
    plans = [FleetPlan.draw(seed) for seed in range(100)]
    for name in ("readers", "members", "loss", "janitors"):
        assert any(getattr(plan, name) for plan in plans)
        assert not all(getattr(plan, name) for plan in plans)


# -- planted bugs ------------------------------------------------------------------------------------------


def share_memory_and_randomness(patch: pytest.MonkeyPatch) -> None:
    """Environments restored from one snapshot with the generator's state in it: they share writers' names."""
    patch.setattr(Fleet, "entropy", lambda self: random.Random("the same in every copy"))


def answer_before_the_write_is_over(patch: pytest.MonkeyPatch) -> None:
    """The runtime does not drain."""

    async def nothing(self: App) -> None:
        return None

    patch.setattr(App, "drain", nothing)


def leave_a_read_behind_a_failure(patch: pytest.MonkeyPatch) -> None:
    """Of two reads at the same time one fails, and the other goes on after the handler has answered."""

    async def gathered(*calls: Coroutine[Any, Any, T]) -> list[T]:
        return list(await asyncio.gather(*calls))

    patch.setattr("headwater.log.chain.together", gathered)


def forget_idempotency_keys(patch: pytest.MonkeyPatch) -> None:
    """A repetition under its key is a new request."""
    before = Incoming.__init__

    def without(self: Incoming, **fields: object) -> None:
        headers = fields.get("headers")
        assert isinstance(headers, dict)
        fields["headers"] = {name: value for name, value in headers.items() if name != "idempotency-key"}
        before(self, **fields)  # type: ignore[arg-type]

    patch.setattr(Incoming, "__init__", without)


def forget_tokens(patch: pytest.MonkeyPatch) -> None:
    """A repetition under its token is a new request."""
    patch.setattr("headwater.api.asking.token_of", lambda call, body_token="": "")


Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: list[tuple[Plant, set[str], int]] = [
    (share_memory_and_randomness, {"crash", "lost", "misplaced", "duplicate", "mistake", "failed-visible"}, 60),
    (answer_before_the_write_is_over, {"in-flight"}, 100),
    (leave_a_read_behind_a_failure, {"in-flight"}, 100),
    (forget_idempotency_keys, {"duplicate", "another-answer"}, 100),
    (forget_tokens, {"duplicate"}, 200),
]


@pytest.mark.parametrize(("plant", "kinds", "seeds"), PLANTS, ids=[plant.__name__ for plant, _, _ in PLANTS])
def test_a_planted_bug_of_functions_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, kinds: set[str], seeds: int
) -> None:
    plant(monkeypatch)
    for seed in range(seeds):
        if kinds & noticed("functions", seed):
            return
    pytest.fail(f"{seeds} seeds did not find it")
