from __future__ import annotations

import pytest

from headwater.errors import Unavailable
from headwater.log.together import together
from headwater.sim.loop import run, sim_loop


async def after(seconds: float, value: int, done: list[int]) -> int:
    await sim_loop().sleep(seconds)
    done.append(value)
    return value


async def refused(seconds: float) -> int:
    await sim_loop().sleep(seconds)
    raise Unavailable("503")


def test_answers_come_in_the_order_of_the_calls() -> None:
    async def main() -> None:
        done: list[int] = []
        assert [1, 2, 3] == await together(after(3, 1, done), after(1, 2, done), after(2, 3, done))
        assert [2, 3, 1] == done

    run(main())


def test_of_no_calls_there_are_no_answers() -> None:
    async def main() -> None:
        assert [] == await together()

    run(main())


def test_when_one_fails_the_others_are_over_before_its_error_is_raised() -> None:
    async def main() -> None:
        done: list[int] = []
        with pytest.raises(Unavailable):
            await together(after(5, 1, done), refused(1))
        assert 1.0 == sim_loop().time()
        await sim_loop().sleep(10)
        assert [] == done

    run(main())
