"""A worker: a member of the job's group with the tasks that it owns, its standby copies, and how it ends.

    seat ──heartbeats──► what is ours ──► TaskRunner for each; stop those that are asked back, then release them
                                     └──► Standby for each task of the members before us in the ring

It is the same for a worker of many, for one alone, and for a run that ends: those differ in what makes them stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headwater.client.backoff import Backoff, poked
from headwater.errors import Fenced, HeadwaterError, Indeterminate, NotFound, Throttled, Unavailable
from headwater.limits import SESSION_MS, STREAMS_BATCH_BYTES, STREAMS_BUFFER_BYTES, STREAMS_TICK_MS
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember
from headwater.streams.runner.assigning import Seat, owners, standbys
from headwater.streams.runner.committing import Fence, Forgotten
from headwater.streams.runner.figures import looked_up
from headwater.streams.runner.job import Job
from headwater.streams.runner.reading import Budget
from headwater.streams.runner.restoring import Making
from headwater.streams.runner.standby import Standby
from headwater.streams.runner.stepping import Setting, TaskRunner, check_lost
from headwater.upkeep.offload import Offload, in_thread

LEAVE_S = 10.0  # a worker that is cancelled tries for so long to leave; else its session ends by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker behaves. None of it changes results.

    ``instance`` makes the member a static one (KIP-345): back within its session, it finds its tasks. ``reset`` says
    where a job begins that has committed nothing: earliest or latest. ``lost`` says what to do about records that
    retention took before they were read: raise or skip. ``spill`` is a folder for state that outgrows ``memory_max``
    bytes an operator. ``address`` is where others can ask this worker questions, an URL.
    """

    instance: str = ""
    address: str = ""
    num_standbys: int = 0
    session_ms: int = SESSION_MS
    reset: str = "earliest"
    lost: str = "raise"
    spill: str = ""
    memory_max: int = 0
    batch_bytes: int = STREAMS_BATCH_BYTES
    buffer_bytes: int = STREAMS_BUFFER_BYTES
    offload: Offload = in_thread


class Worker:
    """Runs tasks of one job in this process until stopped. ``limits``: where each source ends, of a run that ends."""

    def __init__(
        self,
        namespace: Namespace,
        job: Job,
        options: WorkerOptions,
        *,
        limits: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self.namespace = namespace
        self.job = job
        self.options = options
        self._spill = _folder(options.spill, job.name)
        self.setting = Setting(
            namespace=namespace,
            job=job,
            making=Making(job=job, spill=self._spill, memory_max=options.memory_max),
            budget=Budget(bytes_max=options.buffer_bytes),
            offload=options.offload,
            lost=check_lost(options.lost),
            reset=options.reset,
            batch_bytes=options.batch_bytes,
            limits=limits,
        )
        self.tasks: dict[int, TaskRunner] = {}
        self.standbys: dict[int, Standby] = {}
        self.rebalances = 0
        self.listeners: list[Callable[[], None]] = []
        self._lives: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._stop = False
        self._applied: object | None = None
        self.seat = Seat(
            namespace,
            job,
            client=options.address or "streams",
            instance=options.instance,
            session_ms=options.session_ms,
            news=self._wake.set,
        )

    def stop(self) -> None:
        """Finish what is under way, give everything up, leave."""
        self._stop = True
        self._wake.set()

    def pause(self, paused: bool) -> None:
        """Hold the tasks of this process still, or let them go on. Not durable: see ``control.pause``."""
        self.setting.paused = paused
        for task in self.tasks.values():
            task.wake()

    async def run(self) -> None:
        """Work until ``stop``; at the end everything that was computed is committed and the group is left.

        Raises:
            OperatorFailed, IncompatibleTopology, DataLost, NotFound, …: the job cannot go on here. What was
                committed stays, and the job resumes there.
        """
        unlook = self.namespace.chain.options.meters.collect(lambda: looked_up(self))
        try:
            await self._take_seat()
            while not self._stop:
                self.job.check(self.namespace.state)
                await self._heed()
                await self._tend()
                self.seat.membership.polled()
                await poked(self._wake, STREAMS_TICK_MS / 1_000)
            await self._end(list(self._lives))
        finally:
            unlook()
            await self._close()

    # -- the group -------------------------------------------------------------------------------------

    async def _take_seat(self) -> None:
        chain = self.namespace.chain
        backoff = Backoff(chain.clock, chain.rng)
        while not self._stop:
            try:
                await self.seat.take()
                return
            except (Throttled, Unavailable, Indeterminate) as error:
                await chain.clock.sleep(backoff.next_s(error))

    async def _heed(self) -> None:
        """Do as the group said last."""
        membership = self.seat.membership
        if membership.error is not None:
            raise membership.error
        if membership.is_lost:
            await self._lose()
            await self._take_seat()
        heard = membership.latest
        if heard is None or heard is self._applied:
            return
        fences = self.seat.fences()
        gone = [number for number, task in self.tasks.items() if fences.get(number) != task.fence]
        if gone:
            await self._end(gone)
        if heard.revoke:
            try:
                await membership.release(list(heard.revoke))
            except UnknownMember:
                membership.is_lost = True
            except (Throttled, Unavailable, Indeterminate):
                return  # asked again at the next tick
            self._wake.set()
            if membership.is_lost:
                return
        for number in sorted(set(fences) - set(self.tasks)):
            await self._begin(number, fences[number])
        await self._keep_standbys()
        if membership.latest is heard:
            self._applied = heard

    async def _lose(self) -> None:
        """The group has let go of us: what we hold is somebody else's, and what is in flight is refused."""
        for task in self.tasks.values():
            task.stop()
        for life in self._lives.values():
            life.cancel()
        await self._gather(list(self._lives))

    # -- tasks -----------------------------------------------------------------------------------------

    async def _begin(self, number: int, fence: Fence) -> None:
        standby = self.standbys.pop(number, None)
        copy = await standby.take() if standby is not None else None
        task = TaskRunner(self.setting, number, fence, copy, news=self._news)
        self.tasks[number] = task
        self._lives[number] = asyncio.get_running_loop().create_task(
            task.run(), name=f"streams-task-{self.job.name}-{number}"
        )
        self._lives[number].add_done_callback(lambda done: self._wake.set())
        self.rebalances += 1
        self.setting.figures.started()

    async def _end(self, numbers: list[int]) -> None:
        """Stop these tasks; each commits what it has computed."""
        for number in numbers:
            self.tasks[number].stop()
        await self._gather(numbers)

    async def _gather(self, numbers: list[int]) -> None:
        lives = {number: self._lives[number] for number in numbers if number in self._lives}
        if lives:
            await asyncio.wait(lives.values())
        for number in lives:
            self._finish(number)

    def _finish(self, number: int) -> None:
        """Take note of how a task has ended. Raises what stops the job."""
        life = self._lives.pop(number)
        self.tasks.pop(number)
        error = None if life.cancelled() else life.exception()
        self.setting.figures.ended(error)
        if error is None or isinstance(error, Forgotten | Fenced | UnknownMember):
            return
        raise error

    async def _tend(self) -> None:
        """Look after tasks that have ended by themselves; those that are still ours begin anew."""
        ended = [number for number, life in self._lives.items() if life.done()]
        if not ended:
            return
        for number in ended:
            self._finish(number)
        self._applied = None
        self._wake.set()
        try:
            await self.seat.membership.release([])  # asks the fold, which knows better than what we heard last
        except UnknownMember:
            self.seat.membership.is_lost = True
        except (Throttled, Unavailable, Indeterminate):
            await self.namespace.chain.clock.sleep(STREAMS_TICK_MS / 1_000)

    async def _keep_standbys(self) -> None:
        state, me = self.namespace.state, self.seat.member
        wanted = standbys(state, self.job, me, self.options.num_standbys) - set(self.tasks)
        # What is ours already, or nobody's, is about to be begun from the copy.
        others = {number for number, owner in owners(state, self.job).items() if owner != me}
        for number in (set(self.standbys) & others) - wanted:
            await self.standbys.pop(number).stop()
        for number in wanted - set(self.standbys):
            self.standbys[number] = Standby(self.setting, number)

    def _news(self) -> None:
        for listener in self.listeners:
            listener()

    # -- the end ---------------------------------------------------------------------------------------

    async def _close(self) -> None:
        for life in self._lives.values():
            life.cancel()
        if self._lives:
            await asyncio.wait(self._lives.values())
        for number in list(self._lives):
            with contextlib.suppress(Exception):
                self._finish(number)
        for standby in self.standbys.values():
            await standby.stop()
        self.standbys.clear()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.seat.leave()
        except (TimeoutError, UnknownMember, NotFound, HeadwaterError):
            pass  # its session ends by itself
        if self._spill:
            shutil.rmtree(self._spill, ignore_errors=True)
        self._news()


def _folder(spill: str, job: str) -> str:
    """A folder of this worker alone inside ``spill``."""
    if not spill:
        return ""
    Path(spill).mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=f"{job}-", dir=spill)
