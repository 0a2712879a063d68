"""A namespace in a thread of its own: whoever calls it gets an answer, also when it ends under them."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from headwater.errors import InvalidRequest
from headwater.replay.session import Session


def test_calls_that_are_under_way_when_it_closes_end_with_a_clear_error() -> None:
    session = Session("memory://closing")
    begun, errors = threading.Semaphore(0), list[BaseException]()

    async def for_ever() -> None:
        begun.release()
        await asyncio.Event().wait()

    def wait() -> None:
        try:
            session.call(for_ever())
        except InvalidRequest as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    session.close()
    for thread in threads:
        thread.join(20)
    assert ["This replay was closed while it was read."] * 4 == [str(error) for error in errors]


@pytest.mark.parametrize("number", range(5))
def test_calls_that_race_with_the_end_are_answered_or_refused(number: int) -> None:
    session = Session(f"memory://racing-{number}")
    refused = list[int]()

    def hammer(which: int) -> None:
        try:
            while True:
                session.call(asyncio.sleep(0))
        except InvalidRequest:
            refused.append(which)

    threads = [threading.Thread(target=hammer, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    session.close()
    for thread in threads:
        thread.join(20)
    assert list(range(4)) == sorted(refused)
    gc.collect()  # a coroutine that nobody awaited would be a warning, which is an error here


def test_a_closed_session_refuses_calls_and_closes_again() -> None:
    session = Session("memory://closed")
    session.close()
    session.close()
    with pytest.raises(InvalidRequest, match="closed"):
        session.call(asyncio.sleep(0))
