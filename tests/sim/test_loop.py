"""The virtual-time loop: order, time, deadlock, leftovers, and the clock of a simulated machine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from headwater.clock import Clock
from headwater.sim.loop import OWNER, Deadlock, Overrun, SimClock, SimTask, run, sim_loop


def test_time_jumps_to_the_next_timer_and_nothing_waits_for_real() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return sim_loop().time()

    assert 86_410.0 == run(main(), start_s=10.0)


def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        fired: list[int] = []
        for n in range(50):
            sim_loop().call_later(1.0, fired.append, n)
        await asyncio.sleep(1.0)
        return fired

    assert list(range(50)) == run(main())


def test_a_seed_shuffles_timers_of_one_instant_and_repeats_itself() -> None:
    async def main() -> list[int]:
        fired: list[int] = []
        for n in range(50):
            sim_loop().call_later(1.0, fired.append, n)
        await asyncio.sleep(2.0)
        return fired

    first = run(main(), rng=random.Random(7))
    assert list(range(50)) != first
    assert first == run(main(), rng=random.Random(7))
    assert first != run(main(), rng=random.Random(8))


def test_a_cancelled_timer_does_not_hold_time_up() -> None:
    async def main() -> float:
        sim_loop().call_later(5.0, lambda: None).cancel()
        async with asyncio.timeout(100):
            await asyncio.sleep(1)
        return sim_loop().time()

    assert 1.0 == run(main())


def test_a_timeout_fires_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return sim_loop().time()

    assert 30.0 == run(main())


def test_sets_of_tasks_iterate_alike_in_every_run() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                order.append(name)

        async def fail_together() -> None:
            async with asyncio.TaskGroup() as group:
                for n in range(40):
                    group.create_task(wait(str(n)))
                await asyncio.sleep(1)
                raise ValueError

        with pytest.raises(ExceptionGroup):
            await fail_together()
        return order

    runs = [run(main()) for _ in range(3)]
    assert 40 == len(runs[0])
    assert runs[0] == runs[1] == runs[2]


def test_asyncio_finds_its_own_tasks() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(1), name="napper")
        assert {"main", "napper"} == {t.get_name() for t in asyncio.all_tasks()}
        await task
        assert {"main"} == {t.get_name() for t in asyncio.all_tasks()}

    run(main())


def test_a_deadlock_names_who_waits() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.Event().wait(), name="left-waiting")
        await task

    with pytest.raises(Deadlock) as caught:
        run(main())
    assert ("main", "left-waiting") == caught.value.tasks
    assert "left-waiting" in str(caught.value)


def test_a_program_that_never_ends_is_stopped_by_time_or_by_steps() -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Overrun, match="virtual seconds"):
        run(tick(), limit_s=60)
    with pytest.raises(Overrun, match="steps"):
        run(tick(), steps_max=1_000)
    with pytest.raises(Overrun, match="steps"):
        run(spin(), steps_max=1_000)


def test_leftover_tasks_are_cancelled_and_clean_up_without_moving_time() -> None:
    log: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await asyncio.sleep(0)
            log.append(f"cleaned up at {sim_loop().time()}")

    async def main() -> None:
        asyncio.create_task(leftover())  # noqa: RUF006
        await asyncio.sleep(1)

    run(main())
    assert ["cleaned up at 1.0"] == log


def test_a_task_that_refuses_to_be_cancelled_is_named() -> None:
    refused = 0

    async def mule() -> None:
        nonlocal refused
        while refused < 100:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                refused += 1

    async def main() -> None:
        asyncio.create_task(mule(), name="mule")  # noqa: RUF006
        await asyncio.sleep(0)

    with pytest.raises(Deadlock, match="mule"):
        run(main())


def test_an_exception_that_nobody_looked_at_surfaces() -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        asyncio.create_task(fail(), name="failer")  # noqa: RUF006
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    (error,) = caught.value.exceptions
    assert "unseen" == str(error)
    assert ["in task 'failer' of the simulation"] == error.__notes__


def test_an_exception_that_somebody_looked_at_does_not_surface() -> None:
    async def fail() -> None:
        raise ValueError("seen")

    async def main() -> str:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        return str(task.exception())

    assert "seen" == run(main())


def test_the_error_of_main_wins_and_tells_of_the_others() -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(1)
        raise KeyError("main")

    with pytest.raises(KeyError) as caught:
        run(main())
    assert ["Also unseen: ValueError('unseen')"] == caught.value.__notes__


def test_a_failing_callback_stops_the_simulation_at_once() -> None:
    def fail() -> None:
        raise ZeroDivisionError("callback")

    async def main() -> None:
        sim_loop().call_later(1, fail)
        await asyncio.sleep(1_000)

    with pytest.raises(ZeroDivisionError, match="callback"):
        run(main())


def test_many_finished_tasks_are_swept_and_a_failed_one_among_them_is_kept() -> None:
    async def fail() -> None:
        raise ValueError("early")

    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006
        for _ in range(2_000):
            await asyncio.create_task(asyncio.sleep(0))
        assert 1_000 > len(sim_loop()._tasks)

    with pytest.raises(ExceptionGroup):
        run(main())


def test_threads_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(print)
        with pytest.raises(RuntimeError, match="no threads"):
            sim_loop().call_soon_threadsafe(print)

    run(main())


def test_a_generator_left_half_way_is_closed() -> None:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    run(main())
    assert ["closed"] == log


def test_tasks_inherit_their_owner() -> None:
    async def child() -> None:
        await asyncio.sleep(1)

    async def parent() -> None:
        await asyncio.create_task(child(), name="child")

    async def main() -> list[str]:
        owner = object()
        token = OWNER.set(owner)
        task = asyncio.create_task(parent(), name="parent")
        OWNER.reset(token)
        await asyncio.sleep(0.5)
        names = [t.get_name() for t in sim_loop().pending(owner)]
        await task
        assert isinstance(task, SimTask)
        return names

    assert ["parent", "child"] == run(main())


def test_a_clock_is_skewed_drifts_and_jumps_but_elapsed_time_never_goes_back() -> None:
    async def main() -> None:
        clock = SimClock(sim_loop(), skew_ms=-5_000, drift=1.5, start_ms=1_000_000)
        plain: Clock = clock
        assert 995_000 == plain.wall_ms()
        await asyncio.sleep(10)
        assert 1_010_000 == clock.wall_ms()
        assert 15.0 == clock.elapsed_s()
        clock.jump(-60_000)
        assert 950_000 == clock.wall_ms()
        assert 15.0 == clock.elapsed_s()

    run(main())


def test_a_fast_clock_wakes_its_sleeper_early() -> None:
    async def main() -> float:
        clock = SimClock(sim_loop(), drift=2.0)
        await clock.sleep(10)
        assert 10.0 == clock.elapsed_s()
        return sim_loop().time()

    assert 5.0 == run(main())


def test_a_clock_asks_its_process_before_and_after_a_sleep() -> None:
    class Counter:
        passed = 0

        async def checkpoint(self) -> None:
            self.passed += 1

    async def main() -> int:
        counter = Counter()
        await SimClock(sim_loop(), process=counter).sleep(1)
        return counter.passed

    assert 2 == run(main())
