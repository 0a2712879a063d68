"""A manifest that dawdles is sent twice: whichever sending tells decides, and nothing of it is believed too early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headwater.errors import Forbidden, HeadwaterError, Indeterminate, Unavailable
from headwater.limits import HEDGE_STRAGGLERS_MAX
from headwater.log.hedge import Hedge
from headwater.log.options import Options
from headwater.sim.loop import sim_loop
from tests.log import helpers_desk
from tests.log.helpers import simulate
from tests.log.helpers_desk import Desk
from tests.log.helpers_store import (
    Step,
    after,
    away,
    dawdling,
    forbidden,
    lost_answer,
    lost_request,
    ok,
    own_412,
    raced,
    then,
)

HEDGE_S = 0.05
LONG_S = 20.0


async def _long() -> None:
    await sim_loop().sleep(LONG_S)


def at_a_desk(main: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    helpers_desk.at_a_desk(main, Options(hedge_ms=HEDGE_S * 1_000))


DECIDED: dict[str, tuple[list[Step], int, float]] = {  # the sendings, how many there are, and by when it is known
    "the first is answered in time": ([ok], 1, 0.0),
    "the first arrives late": ([dawdling(ok), ok], 2, HEDGE_S),
    "the first is applied and answered late": ([then(_long), ok], 2, HEDGE_S),
    "the first is late, the second is later": ([dawdling(ok, 1.0), dawdling(ok, 2.0)], 2, 1.0),
    "the first is late, the second is turned away": ([dawdling(ok, 1.0), away], 2, 1.0),
    "the first is late, the second is lost": ([dawdling(ok, 1.0), lost_request], 2, 1.0),
    "the first is late, the second may not": ([dawdling(ok, 1.0), forbidden], 2, 1.0),
    "the first is turned away late": ([dawdling(away, 1.0), dawdling(ok, 2.0)], 2, HEDGE_S + 2.0),
    "the first is applied, its answer lost": ([dawdling(lost_answer, 1.0), dawdling(ok, 2.0)], 2, HEDGE_S + 2.0),
    "the second says that the slot is taken": ([dawdling(ok), own_412], 2, HEDGE_S),
    "the first fails at once": ([away, ok], 2, 0.0),
}


@pytest.mark.parametrize("case", DECIDED)
def test_a_commit_is_known_as_soon_as_one_of_its_sendings_tells(case: str) -> None:
    steps, puts, known_s = DECIDED[case]

    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", *steps)
        start_s = desk.parts.clock.elapsed_s()
        assert await desk.put()
        assert known_s - 0.001 <= desk.parts.clock.elapsed_s() - start_s <= known_s + 0.2
        assert (puts, "mine", 1) == (desk.puts, await desk.slot(), desk.chain.state.seq)
        assert 1 == len(set(desk.store.bodies))
        await sim_loop().sleep(2 * LONG_S)  # what comes late finds the slot taken
        assert (puts, "mine", 1) == (desk.puts, await desk.slot(), desk.chain.state.seq)

    at_a_desk(main)


def test_a_race_that_the_store_gave_up_on_is_read_and_sent_again() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", dawdling(ok), raced, ok)
        assert await desk.put()
        assert 3 == desk.puts

    at_a_desk(main)


def test_a_rival_that_took_the_slot_meanwhile_has_it() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", dawdling(ok), after(desk.rival))
        assert not await desk.put()
        assert "rival" == await desk.slot()

    at_a_desk(main)


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([dawdling(away, 1.0), dawdling(away, 2.0)], Unavailable),
        ([dawdling(lost_answer, 1.0), dawdling(away, 2.0)], Indeterminate),
        ([dawdling(away, 2.0), dawdling(lost_answer, 1.0)], Indeterminate),
        ([dawdling(forbidden, 1.0), dawdling(forbidden, 2.0)], Forbidden),
        ([dawdling(lost_request, 1.0), dawdling(forbidden, 2.0)], Indeterminate),
    ],
)
def test_what_may_have_been_applied_is_not_called_unapplied(steps: list[Step], kind: type[HeadwaterError]) -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", *steps)
        desk.store.always["get"] = away if kind is Indeterminate else ok
        with pytest.raises(HeadwaterError) as caught:
            await desk.put(deadline_s=0.0)
        assert kind is caught.type

    at_a_desk(main)


def test_a_store_that_answers_nobody_in_time_gets_no_more_than_without() -> None:
    async def main(desk: Desk) -> None:
        for number in range(HEDGE_STRAGGLERS_MAX):
            desk.store.will("put_if_absent", dawdling(ok, 100.0), ok)
            assert await desk.put(name=f"hedged-{number}")
        desk.store.will("put_if_absent", dawdling(ok, 1.0))
        assert await desk.put(name="alone")
        assert 2 * HEDGE_STRAGGLERS_MAX + 1 == desk.puts
        await sim_loop().sleep(100.0)
        desk.store.will("put_if_absent", dawdling(ok, 1.0), ok)
        assert await desk.put(name="hedged-again")
        assert 2 * HEDGE_STRAGGLERS_MAX + 3 == desk.puts
        assert HEDGE_STRAGGLERS_MAX + 1 == desk.parts.journal.hedge.sent

    at_a_desk(main)


def under_way() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def test_when_it_is_drained_nothing_is_on_its_way() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", dawdling(ok), ok)
        assert await desk.put()
        assert 1 == len(under_way())
        start_s = desk.parts.clock.elapsed_s()
        await desk.parts.committer.drain()
        assert set() == under_way()
        assert 1.0 > desk.parts.clock.elapsed_s() - start_s

    at_a_desk(main)


def test_a_commit_that_is_broken_off_takes_both_sendings_with_it() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", dawdling(ok), dawdling(ok))
        commit = asyncio.get_running_loop().create_task(desk.put())
        await sim_loop().sleep(1.0)
        assert 2 == desk.puts
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        assert set() == under_way()

    at_a_desk(main)


def test_a_bug_below_is_not_swallowed() -> None:
    async def main() -> None:
        async def broken() -> None:
            await sim_loop().sleep(1.0)
            raise RuntimeError("a bug below")

        with pytest.raises(RuntimeError):
            await Hedge(HEDGE_S).send(broken)

    simulate(main())
