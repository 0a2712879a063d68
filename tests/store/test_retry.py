from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from headwater.errors import Conflict, HeadwaterError, Indeterminate, NotFound, Throttled, Unavailable
from headwater.limits import BACKOFF_MS_MAX, BACKOFF_MS_MIN
from headwater.store.retry import retrying


class FakeClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []

    def wall_ms(self) -> int:
        return int(self.now_s * 1_000)

    def elapsed_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Highest(random.Random):
    """Draws the upper end, so that a test sees the bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Flaky:
    """Raises the errors in turn, then answers."""

    def __init__(self, errors: Sequence[HeadwaterError]) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def attempt(errors: Sequence[HeadwaterError], *, deadline_s: float = 60.0) -> tuple[str, Flaky, FakeClock]:
    call, clock = Flaky(errors), FakeClock()
    return asyncio.run(retrying(call, clock=clock, rng=Highest(), deadline_s=deadline_s)), call, clock


def test_a_good_answer_comes_at_once() -> None:
    answer, call, clock = attempt([])
    assert ("answer", 1, []) == (answer, call.calls, clock.slept)


def test_the_cap_doubles_up_to_its_bound() -> None:
    answer, call, clock = attempt([Unavailable("away")] * 12)
    assert ("answer", 13) == (answer, call.calls)
    caps_ms = [min(BACKOFF_MS_MIN * 2**number, BACKOFF_MS_MAX) for number in range(12)]
    assert [cap_ms / 1_000 for cap_ms in caps_ms] == clock.slept
    assert BACKOFF_MS_MAX / 1_000 == clock.slept[-1]


def test_pauses_are_drawn_from_the_whole_range() -> None:
    clock = FakeClock()
    for seed in range(200):
        asyncio.run(retrying(Flaky([Unavailable("away")]), clock=clock, rng=random.Random(seed)))
    assert 0.0 <= min(clock.slept) < 0.1 * BACKOFF_MS_MIN / 1_000
    assert 0.9 * BACKOFF_MS_MIN / 1_000 < max(clock.slept) <= BACKOFF_MS_MIN / 1_000


def test_a_throttling_store_is_given_the_time_it_asks_for() -> None:
    _, _, clock = attempt([Throttled("slow down", retry_after_ms=3_000)])
    assert [3.0 + BACKOFF_MS_MIN / 1_000] == clock.slept


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    answer, call, _ = attempt([Indeterminate("lost"), Throttled("slow"), Unavailable("away")])
    assert ("answer", 4) == (answer, call.calls)


@pytest.mark.parametrize("error", [NotFound("no"), Conflict("taken"), HeadwaterError("other")])
def test_what_will_not_change_is_not_asked_again(error: HeadwaterError) -> None:
    call = Flaky([error])
    with pytest.raises(type(error)):
        asyncio.run(retrying(call, clock=FakeClock(), rng=Highest()))
    assert 1 == call.calls


def test_at_the_deadline_the_last_error_is_raised() -> None:
    errors = [Unavailable(str(number)) for number in range(1_000)]
    clock, call = FakeClock(), Flaky(errors)
    with pytest.raises(Unavailable) as raised:
        asyncio.run(retrying(call, clock=clock, rng=Highest(), deadline_s=10.0))
    assert errors[call.calls - 1] is raised.value
    assert 1_005.0 < clock.now_s <= 1_010.0


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    with pytest.raises(Throttled):
        attempt([Throttled("slow", retry_after_ms=11_000)], deadline_s=10.0)


def test_without_time_there_is_still_one_call() -> None:
    assert "answer" == attempt([], deadline_s=0.0)[0]
    with pytest.raises(Unavailable):
        attempt([Unavailable("away")], deadline_s=0.0)
