"""Worlds of stream processing: clean seeds are clean, things really happen, and plans cover what they should."""

from __future__ import annotations

import pytest

pytest.importorskip("polars")

from headwater.sim.streams import simulate
from headwater.sim.streams_jobs import PLAYS
from headwater.sim.streams_plan import DEEDS, StreamsPlan
from tests.sim.helpers_worlds import missing, played

SEEDS = len(PLAYS)


# One worker plays them all, or two would play most of them twice.
@pytest.mark.xdist_group("streams-world")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    assert [] == played("streams", seed)["violations"]


FOUND = {
    20377: "a job that read only a global table has nothing in its changelog",
    20405: "a sliding window was asked for sums whose rows were gone in part",
    20470: "a timer began at the row that came first, an hour ahead of the others",
    20695: "a task that was cancelled twice let go of nothing",
}


@pytest.mark.parametrize("seed", FOUND, ids=lambda seed: f"{seed}: {FOUND[seed]}")
def test_a_seed_that_found_a_bug_finds_none_any_more(seed: int) -> None:
    assert [] == played("streams", seed)["violations"]


@pytest.mark.xdist_group("streams-world")
def test_things_really_happen() -> None:
    wanted = {
        *("commits", "commits: Fenced", "commits: Indeterminate", "commits without input"),
        *("tasks taken", "restores", "restores of state", "restores from standbys"),
        *("snapshots", "snapshots restored", "trims"),
        *("runs to the end", "runs cut off", "workers stopped"),
        *("upkeep: archive", "upkeep: collect"),
        *("pauses", "pauses held", "resets", "savepoints", "restarts", "pages spilled", "sources idle"),
    }
    assert set() == missing("streams", range(SEEDS), wanted)


def test_the_same_seed_gives_the_same_history_twice() -> None:
    for seed in (1, 2):
        first, again = simulate(seed), simulate(seed)
        assert (first.digest, first.requests, first.deeds) == (again.digest, again.requests, again.deeds)


def test_plans_cover_every_kind_of_life() -> None:
    plans = [StreamsPlan.draw(seed) for seed in range(300)]
    assert set(PLAYS) == {plan.play for plan in plans}
    for name in (
        "partitions",
        "workers",
        "once",
        "standbys",
        "batch_bytes",
        "ends",
        "keepers",
        "archive",
        "poison",
        "deed",
    ):
        assert 1 < len({getattr(plan, name) for plan in plans}), name
    assert {"", *DEEDS} == {plan.deed for plan in plans}
