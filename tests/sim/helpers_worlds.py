"""What the tests of worlds share: verdicts that are played once a process, deeds that never happened, plants."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from headwater.sim.sweep import judge

Plant = Callable[[pytest.MonkeyPatch], None]
MISFIT = re.compile(r"\b(TypeError|AttributeError|NameError|ImportError)\b")


@functools.cache
def played(world: str, seed: int) -> dict[str, Any]:
    """The verdict on a world, which each process plays once."""
    return judge(seed, world)


def missing(world: str, seeds: Iterable[int], wanted: Iterable[str]) -> set[str]:
    """The deeds of ``wanted`` that none of the worlds of ``seeds`` has seen."""
    deeds: Counter[str] = Counter()
    for seed in seeds:
        deeds.update(played(world, seed).get("deeds", {}))
    return {deed for deed in wanted if not deeds[deed]}


def expect_notice(world: str, plant: Plant, seeds: Iterable[int], patch: pytest.MonkeyPatch) -> None:
    """Plant a bug, and fail unless one of these worlds is judged wrong for it."""
    plant(patch)
    if not any(noticed(world, seed) for seed in seeds):
        pytest.fail(f"{seeds} did not notice: {plant.__doc__}")


def noticed(world: str, seed: int) -> set[str]:
    """The kinds of what a world is judged wrong for: broken promises, not a plant that no longer fits the engine."""
    found = judge(seed, world)["violations"]
    misfits = [one["detail"] for one in found if one["kind"] == "crash" and MISFIT.search(one["detail"])]
    assert not misfits, f"The plant itself is broken: {misfits[0]}"
    return {one["kind"] for one in found}
