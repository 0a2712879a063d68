"""A conditional write that dawdles is sent a second time, and the first sending that tells decides.

A store's slow answers are slow for a reason of their own (a busy disk, a lost packet), so a second request is mostly
answered sooner than the rest of the first one (Dean and Barroso, "The Tail at Scale", CACM 56:2, 2013). The journal may
do this where no store may (C4): R2 lets it send the same bytes to the same slot as often as it likes, and it reads the
slot where an answer does not say whose bytes are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from headwater.errors import Conflict, HeadwaterError, Indeterminate
from headwater.limits import HEDGE_STRAGGLERS_MAX
from headwater.log.together import unheard


class Hedge:
    """Sends what is to be sent once, and once more after ``after_s`` seconds without an answer (0: never).

    ``told`` is called for each that is sent twice.
    """

    def __init__(self, after_s: float, told: Callable[[], object] = lambda: None) -> None:
        self.after_s = after_s
        self._told = told
        self.sent = 0  # second sendings, since the start
        self._stragglers: set[asyncio.Task[object]] = set()

    async def send(self, request: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Return when a sending has been answered, or raise what the sendings ended with.

        An answer ends it, and so does a ``Conflict``: by then the slot is somebody's, or has to be read. The other
        sending is left to itself, since breaking it off would cost its connection. What else goes wrong with one of
        them, the other may still put right: if both fail, ``Indeterminate`` goes before what was not applied.

        While ``HEDGE_STRAGGLERS_MAX`` of those are left, nothing is sent twice: a store that answers nobody gets no
        more than it would without. Cost: a task; the second request.
        """
        if self.after_s <= 0 or len(self._stragglers) >= HEDGE_STRAGGLERS_MAX:
            await request()
            return
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[object]] = [loop.create_task(request())]
        try:
            await asyncio.wait(tasks, timeout=self.after_s)
            if not tasks[0].done():
                self.sent += 1
                self._told()
                tasks.append(loop.create_task(request()))
            await self._decided(tasks)
        except asyncio.CancelledError:
            await _broken_off(tasks)
            raise

    async def drain(self) -> None:
        """Return when nothing is on its way (R10). What is left over is broken off: its slot is decided."""
        await _broken_off(list(self._stragglers))

    async def _decided(self, tasks: Sequence[asyncio.Task[object]]) -> None:
        while not (told := [task for task in tasks if task.done() and _tells(task)]):
            left = [task for task in tasks if not task.done()]
            if not left:
                raise _worst(tasks)
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.add_done_callback(unheard)
            if not task.done():
                self._stragglers.add(task)
                task.add_done_callback(self._stragglers.discard)
        errors = [task.exception() for task in told]
        if None not in errors and errors[0] is not None:
            raise errors[0]


def _tells(task: asyncio.Task[object]) -> bool:
    """Whether it was answered, or ended with what no other sending can put right."""
    error = task.exception()
    return not isinstance(error, HeadwaterError) or isinstance(error, Conflict)


def _worst(tasks: Sequence[asyncio.Task[object]]) -> BaseException:
    """What to say if all have failed: that it may have been applied, if one of them may; else what the last one met."""
    errors = [error for task in tasks if (error := task.exception()) is not None]
    return next((each for each in errors if isinstance(each, Indeterminate)), errors[-1])


async def _broken_off(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            unheard(task)
