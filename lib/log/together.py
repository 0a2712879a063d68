"""Several calls at the same time, none of which outlives the others' failure (R10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def unheard(future: asyncio.Future[Any]) -> None:
    """For ``add_done_callback``: the loop must not complain if nobody is left to hear of its failure."""
    if not future.cancelled():
        future.exception()


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """What all of ``calls`` return, in their order.

    As ``asyncio.gather``; but if one fails, the others are cancelled, and its error is raised when they have ended.
    So nothing is under way when the caller hears of it (R10). For reads only: a write must not be broken off.
    """
    if len(calls) == 1:
        return [await calls[0]]  # alone it outlives nobody, and a task would cost as much as a look at the tip
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def to_the_end(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What all of ``calls`` return, in their order; if some fail, the first error, once all of them have ended.

    For writes, of which none may be broken off.
    """
    done: list[T] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
