"""Many seeds, on all cores: ``headwater sim --seeds N [--first S] [--world functions|archive|streams|shares]``."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from headwater.clock import stopwatch_s

CHUNK = 10  # seeds that a worker takes at once
WORLDS = {
    "engine": "headwater.sim.world",
    "functions": "headwater.sim.handlers",
    "archive": "headwater.sim.vault",
    "streams": "headwater.sim.streams",
    "shares": "headwater.sim.shares",
}  # whose ``simulate`` plays a seed


@dataclass(slots=True)
class Report:
    """What a sweep found. ``failures`` has, per seed, the broken promises and how to see it again."""

    first: int
    world: str = "engine"
    seeds: int = 0
    seconds: float = 0.0
    events: int = 0
    commits: int = 0
    requests: int = 0
    struck: dict[str, int] = field(default_factory=dict)
    deeds: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "world": self.world,
            "first": self.first,
            "seeds": self.seeds,
            "violations": len(self.failures),
            "histories_per_s": round(self.seeds / self.seconds, 1) if self.seconds else 0.0,
            "seconds": round(self.seconds, 1),
            "events": self.events,
            "commits": self.commits,
            "requests": self.requests,
            "faults": dict(sorted(self.struck.items())),
            **({"deeds": dict(sorted(self.deeds.items()))} if self.deeds else {}),
            "failures": self.failures,
        }


def sweep(
    first: int,
    seeds: int,
    jobs: int = 0,
    on_progress: Callable[[Report], None] | None = None,
    *,
    world: str = "engine",
) -> Report:
    """Simulate ``seeds`` worlds (of ``WORLDS``) from ``first`` on. One process a core unless ``jobs`` says otherwise.

    A seed's world depends on the seed alone, so it fails again in any process and on any machine.
    """
    began = stopwatch_s()
    report = Report(first, world)
    for outcome in _outcomes(partial(judge, world=world), first, seeds, jobs or os.cpu_count() or 1):
        _add(report, outcome)
        report.seconds = stopwatch_s() - began
        if on_progress is not None:
            on_progress(report)
    return report


def _outcomes(judged: Callable[[int], dict[str, Any]], first: int, seeds: int, jobs: int) -> Iterator[dict[str, Any]]:
    numbers = range(first, first + seeds)
    if jobs == 1 or seeds <= CHUNK:
        yield from map(judged, numbers)
        return
    # Spawned, not forked: a worker must not inherit locks, loops or randomness of this process.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(judged, numbers, chunksize=CHUNK)


def judge(seed: int, world: str = "engine") -> dict[str, Any]:
    """The verdict on one seed as plain data; an exception of the engine is a violation too."""
    simulate = import_module(WORLDS[world]).simulate
    try:
        verdict = simulate(seed)
    except Exception as error:
        trace = traceback.format_exc(limit=-6)
        return {"seed": seed, "violations": [{"kind": "crash", "detail": f"{type(error).__name__}: {error}\n{trace}"}]}
    return {
        "seed": seed,
        "events": verdict.events,
        "commits": verdict.commits,
        "requests": verdict.requests,
        "struck": verdict.struck,
        "deeds": verdict.deeds,
        "violations": [{"kind": found.kind, "detail": found.detail} for found in verdict.violations],
    }


def _add(report: Report, outcome: dict[str, Any]) -> None:
    report.seeds += 1
    for name in ("events", "commits", "requests"):
        setattr(report, name, getattr(report, name) + outcome.get(name, 0))
    for kind, count in outcome.get("struck", {}).items():
        report.struck[kind] = report.struck.get(kind, 0) + count
    for deed, count in outcome.get("deeds", {}).items():
        report.deeds[deed] = report.deeds.get(deed, 0) + count
    if outcome["violations"]:
        seed = outcome["seed"]
        replay = f"headwater sim --world {report.world} --seeds 1 --first {seed}"
        report.failures.append({"seed": seed, "replay": replay, "violations": outcome["violations"]})
