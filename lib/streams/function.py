"""A job as a function: an event comes, what is there is processed, the function ends. Between events nothing runs.

    # app.py of the function
    from headwater.streams.function import job
    handler = job()

    HEADWATER_STORE      the bucket, as in s3://bucket/prefix
    HEADWATER_NAMESPACE  default: default
    HEADWATER_TOPOLOGY   module:attribute, a Topology or a function without arguments that makes one
    HEADWATER_LOG        which lines to write, see headwater.lines; default: info, one line an event
    HEADWATER_EMF        what to tell CloudWatch, see headwater.meters.emf; default: off

Whatever the event is, a schedule's or a bucket's notification, the work is the same: ``run_once``. So results are those
of ``run``, and events may come twice, late, at once or never: two that meet share the tasks like any two members of the
group. An event that finds nothing to do reads once and writes nothing, hence a job whose own commits call it again
comes to rest.

When the time is nearly up the job is stopped between two micro-batches' commits; the next event goes on there. State
is restored first, so a job whose restore outlasts the function never gets on: give it more memory, which is more CPU.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from headwater import lines, tracing
from headwater.api.figures import Figures
from headwater.api.runtime import LOG_LEVEL, Settings, begin_tracing, id_of
from headwater.clock import Clock, SystemClock
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.meters import PROCESS
from headwater.store import open_store
from headwater.store.metered import MeteredStore
from headwater.streams.loading import load_topology
from headwater.streams.runner.app import Report, run_once

if TYPE_CHECKING:
    from headwater.store.base import ObjectStore
    from headwater.streams.runner.worker import WorkerOptions

DEADLINE_S: Final = 60.0  # where the platform does not say
LEAVE_PART: Final = 0.2  # of the time stays for leaving the group and for what is under way, …
FLUSH_S: Final = 1.0  # for sending spans, if any are made
LEAVE_S_MAX: Final = 15.0  # … but no more than this
RETRY_PART: Final = 0.1  # a request to the store is repeated for so long, and a commit is given up after twice this


def job(
    *,
    environment: Mapping[str, str] | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    options: WorkerOptions | None = None,
) -> JobFunction:
    """The handler of the job that the environment names. Cost: its imports, now; the store comes with the first event.

    ``store`` stands for the one that the environment names, ``clock`` for the machine's; ``options`` are those
    of the worker, as ``spill`` for state that outgrows the function's memory.

    Raises:
        InvalidRequest: HEADWATER_TOPOLOGY is missing, or names no topology.
    """
    return JobFunction(os.environ if environment is None else environment, store, clock, options)


class JobFunction:
    """One process's handler. The platform calls it with one event at a time."""

    def __init__(
        self,
        environment: Mapping[str, str],
        store: ObjectStore | None,
        clock: Clock | None,
        options: WorkerOptions | None,
    ) -> None:
        self._environment = environment
        self._store = store
        self._clock = clock or SystemClock()
        self._options = options
        self._topology = load_topology(environment.get("HEADWATER_TOPOLOGY", ""), "HEADWATER_TOPOLOGY")
        self._figures = Figures(environment, "process", clock=self._clock)
        level = lines.level_of(environment, LOG_LEVEL)
        self._lines = lines.Lines(self._clock, level=level, always={"process": "process", "job": self._topology.job})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._namespace: Namespace | None = None

    def __call__(self, event: object, context: object = None) -> dict[str, Any]:
        """Process what is there, or as much as there is time for. ``done`` says whether that was all.

        Raises what the job fails with, after a line in the log: the platform counts it, and calls again.
        """
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        begin_tracing(self._environment, self._topology.job, self._lines)
        name, begun_s = id_of(context), self._clock.elapsed_s()
        with lines.listening() as heard:
            try:
                answer = self._loop.run_until_complete(self.work(_left_s(context)))
            except Exception as error:
                self._namespace = None  # what it knew may be what was wrong
                self._lines.say("error", "job", request=name, **heard.fields(), error=lines.error_of(error))
                raise
            finally:
                self._figures.tell()
                tracing.flush(FLUSH_S)  # the process may be frozen now
        ms = (self._clock.elapsed_s() - begun_s) * 1_000
        self._lines.say("info", "job", request=name, ms=ms, **heard.fields(), **answer)
        return answer

    def close(self) -> None:
        """Let go of the store and of the event loop, where a process goes on without this. A function never does."""
        if self._loop is not None:
            if self._namespace is not None:
                self._loop.run_until_complete(self._namespace.close())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
        self._loop = self._namespace = None

    async def work(self, left_s: float) -> dict[str, Any]:
        """The same for whoever has an event loop: one run that ends within ``left_s``."""
        end_s = self._clock.elapsed_s() + left_s
        namespace = await self._opened(left_s)
        report: Report | None = None
        try:
            async with asyncio.timeout(left_s - min(LEAVE_S_MAX, left_s * LEAVE_PART)) as scope:
                report = await run_once(self._topology, namespace, options=self._options)
        except TimeoutError:
            if not scope.expired():
                raise
        await self._drained(namespace, end_s)
        if report is None:
            return {"done": False, "commit": namespace.state.seq}
        return {"done": True, **asdict(report)}

    async def _opened(self, left_s: float) -> Namespace:
        if self._namespace is None:
            settings = Settings.of(self._environment)
            options = Options(commit_timeout_s=2 * RETRY_PART * left_s, store_retry_s=RETRY_PART * left_s)
            bucket = MeteredStore(self._store or open_store(settings.store, clock=self._clock), PROCESS)
            self._namespace = await Namespace.open(bucket, settings.namespace, clock=self._clock, options=options)
        return self._namespace

    async def _drained(self, namespace: Namespace, end_s: float) -> None:
        """Nothing may be under way when the process is frozen (R10)."""
        try:
            async with asyncio.timeout(max(0.0, end_s - self._clock.elapsed_s())):
                await namespace.drain()
        except TimeoutError:
            self._namespace = None  # the store is silent: the next event opens it anew


def _left_s(context: object) -> float:
    tell = getattr(context, "get_remaining_time_in_millis", None)
    return max(1.0, float(tell()) / 1_000) if callable(tell) else DEADLINE_S
