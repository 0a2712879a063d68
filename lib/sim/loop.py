"""An asyncio event loop in virtual time, and the clock of a simulated machine.

Nothing waits for real: when no callback is ready, time jumps to the next timer. There is no I/O
and there are no threads, so one program with one seed runs in one order. What asyncio leaves to
chance is decided here: timers of one instant fire in the order in which they were set (or in a
seeded one), and tasks hash by their number, so that sets of tasks iterate alike in every run.
A set of strings still iterates by PYTHONHASHSEED: sort before you iterate over one.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import math
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_MAX = 20_000_000  # callbacks of one simulation; more is a program that spins without waiting
CANCEL_ROUNDS_MAX = 16  # how often a leftover task may catch its cancellation and wait again
CANCEL_STEPS_MAX = 1_000_000  # callbacks of all the cleaning up
PRUNE_TASKS = 256  # finished tasks kept before they are swept out of the list
START_WALL_MS = 1_800_000_000_000  # January 2027

OWNER: ContextVar[object | None] = ContextVar("owner", default=None)
"""Whom a task belongs to; a task inherits it from the task that creates it."""


class Deadlock(Exception):
    """Nothing is ready, no timer is set, and the main task is not done. ``tasks`` names who waits."""

    def __init__(self, message: str, tasks: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tasks = tasks


class Overrun(Exception):
    """The simulation passed its limit of virtual time or of steps: most likely it never ends."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number in the loop, so that sets of tasks have one order."""

    def __init__(self, coro: Any, *, serial: int, owner: object | None, loop: SimLoop, name: str, context: Any) -> None:
        self.serial = serial  # before the task exists for asyncio, which puts it into a set at once
        self.owner = owner
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.serial


class _Handle(asyncio.TimerHandle):
    """asyncio's handles without their debugging aids: making handles is most of what a loop does."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: SimLoop, context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._source_traceback = None
        self._repr = None
        self._when = when
        self._scheduled = False


class SimLoop(asyncio.BaseEventLoop):
    """A virtual-time event loop without I/O and without threads.

    ``rng`` shuffles timers that are due at one instant; without it they fire in the order in which
    they were set. ``limit_s`` bounds virtual time and ``steps_max`` the number of callbacks.

    Raises (out of ``run_until_complete``):
        Deadlock: nobody can ever wake the main task.
        Overrun: a limit was passed.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(
        self,
        *,
        start_s: float = 0.0,
        rng: random.Random | None = None,
        limit_s: float = math.inf,
        steps_max: int = STEPS_MAX,
    ) -> None:
        super().__init__()
        self.set_debug(False)
        self.steps = 0
        self._now = start_s
        self._limit_s = limit_s
        self._steps_max = steps_max
        self._rng = rng
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._serial = 0
        self._tasks: list[SimTask] = []
        self._prune_at = PRUNE_TASKS
        self._stop_when_idle = False
        self.errors: list[BaseException] = []

    # -- time and callbacks ---------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(self._now, callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _Handle(when, callback, args, self, context)
        self._serial += 1
        tie = 0.0 if self._rng is None else self._rng.random()
        heapq.heappush(self._timers, (when, tie, self._serial, handle))
        return handle

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass; other tasks run meanwhile."""
        awake: asyncio.Future[None] = self.create_future()
        timer = self.call_later(max(seconds, 0.0), _wake, awake)
        try:
            await awake
        finally:
            timer.cancel()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's notice of a cancelled timer: it stays in the heap and is dropped when it is due."""

    def _run_once(self) -> None:
        ready = self._ready
        while not self._stopping:
            while ready and not self._stopping:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                self.steps += 1
                if self.steps > self._steps_max:
                    raise Overrun(f"The simulation made more than {self._steps_max} steps by {self._now:.3f} s.")
            if not self._stopping:
                self._jump()

    def _jump(self) -> None:
        """Move time to the next timer and make everything that is due then ready."""
        timers = self._timers
        while timers and timers[0][3]._cancelled:
            heapq.heappop(timers)
        if self._stop_when_idle:
            self.stop()
        elif not timers:
            names = tuple(task.get_name() for task in self.pending())
            raise Deadlock(f"Nothing can happen any more at {self._now:.3f} s; these wait: {', '.join(names)}.", names)
        else:
            now = max(self._now, timers[0][0])
            if now > self._limit_s:
                raise Overrun(f"The simulation would pass its limit of {self._limit_s} virtual seconds.")
            self._now = now
            while timers and timers[0][0] <= now:
                self._ready.append(heapq.heappop(timers)[3])

    # -- tasks --------------------------------------------------------------------------------------

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """A task that knows its number and its owner (``OWNER`` of the context that it is made in)."""
        self._serial += 1
        owner = OWNER.get() if context is None else context.get(OWNER)
        task = SimTask(
            coro, serial=self._serial, owner=owner, loop=self, name=str(name or f"task-{self._serial}"), context=context
        )
        if len(self._tasks) >= self._prune_at:
            self._tasks = [kept for kept in self._tasks if not kept.done() or _is_unseen(kept)]
            self._prune_at = 2 * len(self._tasks) + PRUNE_TASKS
        self._tasks.append(task)
        return cast("asyncio.Task[T]", task)

    def pending(self, owner: object | None = None) -> list[SimTask]:
        """Tasks that are not done, oldest first; with ``owner`` only those that belong to it."""
        return [task for task in self._tasks if not task.done() and (owner is None or task.owner is owner)]

    async def cancel(self, owner: object, timeout_s: float = 0.1) -> None:
        """Cancel the tasks of ``owner``, but for the one that asks, and let them clean up for so long."""
        tasks = [task for task in self.pending(owner) if task is not asyncio.current_task(self)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=timeout_s) if tasks else None
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # nobody is left to look at it

    def cancel_leftovers(self) -> None:
        """Cancel every task and let each clean up, without moving time. Raises ``Deadlock`` if one never ends."""
        self._steps_max = self.steps + CANCEL_STEPS_MAX
        for _ in range(CANCEL_ROUNDS_MAX):
            for task in (pending := self.pending()):
                task.cancel()
            self._stop_when_idle = True
            self.run_forever()
            self._stop_when_idle = False
            if not pending:
                return
        names = tuple(task.get_name() for task in self.pending())
        raise Deadlock(f"These tasks do not let themselves be cancelled: {', '.join(names)}.", names)

    def unseen(self) -> list[BaseException]:
        """Exceptions that ended a task or a callback and that nobody has looked at. A second call finds none."""
        found, self.errors = self.errors, []
        return found + [_exception(task) for task in self._tasks if task.done() and _is_unseen(task)]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error for ``unseen``. A failed callback is a bug of the simulation, so it stops the loop."""
        self.errors.append(context.get("exception") or RuntimeError(str(context.get("message"))))
        if "handle" in context:
            self.stop()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        if not self.is_closed():
            self.call_soon(self.create_task, agen.aclose())

    # -- what a simulation must not do ------------------------------------------------------------

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> NoReturn:
        raise RuntimeError("The simulation has no threads: nothing may call call_soon_threadsafe.")

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> NoReturn:
        raise RuntimeError(f"The simulation has no threads: {func!r} cannot run in an executor.")

    def _process_events(self, event_list: object) -> NoReturn:
        raise RuntimeError("The simulation does no I/O.")


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _is_unseen(task: SimTask) -> bool:
    return not task.cancelled() and task._log_traceback


def _exception(task: SimTask) -> BaseException:
    error = task.exception()
    assert error is not None, "an unseen task has an exception"
    error.add_note(f"in task {task.get_name()!r} of the simulation")
    return error


def sim_loop() -> SimLoop:
    """The loop that runs the caller."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop), "sim_loop() is for code that runs under headwater.sim.loop.run"
    return loop


def run(
    main: Coroutine[Any, Any, T],
    *,
    start_s: float = 0.0,
    rng: random.Random | None = None,
    limit_s: float = math.inf,
    steps_max: int = STEPS_MAX,
) -> T:
    """Run ``main`` in virtual time to its end, cancel what it left behind, and return its result.

    The cyclic garbage collector rests meanwhile: a finaliser at a moment of its choosing would be
    the one thing that no seed decides.

    Raises:
        Deadlock, Overrun: as in ``SimLoop``.
        ExceptionGroup: ``main`` returned, and tasks or callbacks had failed without anyone looking.
            If ``main`` itself failed, its own error is raised, with a note for each of them.
    """
    loop = SimLoop(start_s=start_s, rng=rng, limit_s=limit_s, steps_max=steps_max)
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _run_in(loop, main)
    finally:
        loop.close()
        if collecting:
            gc.enable()


def _run_in(loop: SimLoop, main: Coroutine[Any, Any, T]) -> T:
    task = loop.create_task(main, name="main")
    try:
        result = loop.run_until_complete(task)
    except BaseException as caught:
        # A failed callback stops the loop before main is done, and then its error is the story to tell.
        error = loop.errors.pop(0) if loop.errors and not task.done() else caught
        loop.cancel_leftovers()
        for other in loop.unseen():
            error.add_note(f"Also unseen: {other!r}")
        if error is caught:
            raise
        raise error from None
    loop.cancel_leftovers()
    if unseen := loop.unseen():
        raise BaseExceptionGroup("Tasks of the simulation failed and nobody looked.", unseen)
    return result


class Checkpoint(Protocol):
    """Where a crash or a pause may strike."""

    async def checkpoint(self) -> None: ...


class SimClock:
    """The clock of one simulated machine (``headwater.clock.Clock``), on the loop's virtual time.

    It shows ``start_ms`` plus ``skew_ms`` at the moment it is made and runs at ``drift`` seconds a second.
    ``process`` is asked before and after each sleep, so a paused or crashed machine does not wake.
    """

    def __init__(
        self,
        loop: SimLoop,
        *,
        skew_ms: int = 0,
        drift: float = 1.0,
        start_ms: int = START_WALL_MS,
        process: Checkpoint | None = None,
    ) -> None:
        assert drift > 0, "a clock that stands still never wakes a sleeper"
        self._loop = loop
        self._drift = drift
        self._wall_ms = start_ms + skew_ms
        self._from_s = loop.time()
        self._process = process

    def wall_ms(self) -> int:
        return self._wall_ms + int(self.elapsed_s() * 1_000)

    def elapsed_s(self) -> float:
        return (self._loop.time() - self._from_s) * self._drift

    def jump(self, ms: int) -> None:
        """Move the wall clock, as an administrator or NTP does; ``elapsed_s`` does not notice."""
        self._wall_ms += ms

    async def sleep(self, seconds: float) -> None:
        if self._process is not None:
            await self._process.checkpoint()
        await self._loop.sleep(seconds / self._drift)
        if self._process is not None:
            await self._process.checkpoint()
