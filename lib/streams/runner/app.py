"""What programs hold: ``run``, ``run_once`` and the ``App`` in between.

All three are one code path: prepare the topics, work as a member of the job's group, leave. ``run`` ends when it is
told to, ``run_once`` when what was there at its start is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headwater.errors import InvalidRequest
from headwater.limits import STREAMS_STANDBYS_MAX
from headwater.log.namespace import Namespace
from headwater.streams.runner import metrics, once
from headwater.streams.runner.job import Job, prepare
from headwater.streams.runner.queries import Server, StoreView, store_names
from headwater.streams.runner.worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from headwater.streams.model import Spec
    from headwater.streams.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run that ended has done, in this process. ``commit`` is the manifest as of which its goals were met."""

    job: str
    records: int
    rows_out: int
    commits: int
    commit: int


class App:
    """A running job in this process. Make it with ``App.start``, or use it as an asynchronous context manager."""

    def __init__(self, worker: Worker, *, server: Server | None = None) -> None:
        self.worker = worker
        self.job: Job = worker.job
        self._server = server
        self._running: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        topology: Topology | Spec,
        namespace: Namespace,
        options: WorkerOptions | None = None,
        *,
        listen: str = "",
    ) -> App:
        """Check the topology, make its internal topics, join the job's group, and work in the background.

        ``listen`` is ``host:port`` on which questions are answered (port 0: any free one); other workers send whoever
        asks them for what is ours to that address.

        Raises what ``job.prepare`` raises.
        """
        options = checked(options or WorkerOptions())
        job = await prepare(namespace, topology)
        server = None
        if listen:
            server = Server(listen)
            options = replace(options, address=options.address or await server.bind())
        app = cls(Worker(namespace, job, options), server=server)
        if server is not None:
            server.serve(app)
        app._running = asyncio.get_running_loop().create_task(app.worker.run(), name=f"streams-worker-{job.name}")
        return app

    async def __aenter__(self) -> App:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.stop()
        else:
            await self.abandon()

    async def wait(self) -> None:
        """Return when the worker has ended; raises what has ended it. A cancelled wait stops the worker."""
        assert self._running is not None, "an app is started"
        try:
            await asyncio.shield(self._running)
        except asyncio.CancelledError:
            await self.abandon()
            raise
        finally:
            if self._running.done():
                await self._close()

    async def stop(self) -> None:
        """Commit what was computed, give up the tasks, leave the group. Raises what the worker ended with."""
        self.worker.stop()
        await self.wait()

    async def abandon(self) -> None:
        """End at once: what is not committed will be computed again by whoever comes next."""
        assert self._running is not None, "an app is started"
        if self._running.cancel():
            await asyncio.wait([self._running])
        if not self._running.cancelled():
            self._running.exception()
        await self._close()

    async def _close(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()

    # -- what programs ask -----------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where questions over HTTP are answered; empty if nowhere."""
        return self.worker.options.address

    def stores(self) -> list[str]:
        """The names of the job's stores that can be asked."""
        return store_names(self.job)

    def store(self, name: str) -> StoreView:
        """A store, as far as this worker has it. Raises ``NotFound`` if the job has none of that name."""
        return StoreView(self.worker, name)

    def metrics(self) -> dict[str, Any]:
        """Counts, watermarks, lag, state and latencies, by task and operator, as plain data."""
        return metrics.of_worker(self.worker)

    def pause(self) -> None:
        """Hold this process's tasks still; they stay its own. For all workers: ``control.pause``."""
        self.worker.pause(True)

    def resume(self) -> None:
        """Go on."""
        self.worker.pause(False)


@contextlib.asynccontextmanager
async def opened(place: str | Namespace, namespace: str = "default") -> AsyncIterator[Namespace]:
    """The namespace at an URL, closed at the end; one that the caller has opened is left open."""
    if isinstance(place, Namespace):
        yield place
        return
    from headwater.store import open_store

    async with await Namespace.open(open_store(place), namespace, owns_store=True) as found:
        yield found


async def run(
    topology: Topology | Spec,
    place: str | Namespace,
    *,
    namespace: str = "default",
    listen: str = "",
    ready: Callable[[App], object] | None = None,
    options: WorkerOptions | None = None,
    **settings: Any,
) -> None:
    """Run a job until cancelled or until ``app.stop()``; ``ready`` hears the app once it works.

    ``place`` is a store's URL or an open namespace; ``settings`` are fields of ``WorkerOptions``. Any number of
    processes may run one job: its tasks, as many as its sources have partitions, are shared out among them.

    Raises:
        NotFound, InvalidRequest, IncompatibleTopology: the job cannot begin; nothing was processed.
        OperatorFailed, DataLost, …: the job cannot go on. It resumes where it stopped.

    Cost: 1 commit a micro-batch of each task, those of one moment in one manifest; at rest about 1 GET a second.
    """
    async with opened(place, namespace) as found:
        app = await App.start(topology, found, _options(options, settings), listen=listen)
        if ready is not None:
            ready(app)
        await app.wait()


async def run_once(
    topology: Topology | Spec,
    place: str | Namespace,
    *,
    namespace: str = "default",
    options: WorkerOptions | None = None,
    **settings: Any,
) -> Report:
    """Process what is there now, with all that follows from it, commit it, leave the group, and say what was done.

    The results are those of ``run``. A window stays open until a later run sees its end, as it would in ``run``; of
    a source that was silent for its ``idle`` since an earlier run, this one knows.

    Raises what ``run`` raises. Cost: the restore of the state, and 2 commits besides those of the micro-batches; 1 GET
    where there is nothing to do.
    """
    async with opened(place, namespace) as found:
        job = await prepare(found, topology)
        goals = once.source_goals(found.state, job)
        terms = replace(checked(_options(options, settings)), num_standbys=0)  # it is gone before anybody needs them
        worker = Worker(found, job, terms, limits=goals)
        tally = metrics.Tally(worker)
        if not once.is_idle(found.state, job, goals, found.chain.clock.wall_ms()):
            await once.work_off(worker, goals)
        return Report(
            job=job.name,
            records=tally.records,
            rows_out=tally.rows_out,
            commits=tally.commits,
            commit=found.state.seq,
        )


def _options(options: WorkerOptions | None, settings: dict[str, Any]) -> WorkerOptions:
    if options is not None and settings:
        raise InvalidRequest(f"Give options or {', '.join(sorted(settings))}, not both.")
    return options or WorkerOptions(**settings)


def checked(options: WorkerOptions) -> WorkerOptions:
    """Refuse senseless settings. Raises ``InvalidRequest``."""
    if not 0 <= options.num_standbys <= STREAMS_STANDBYS_MAX:
        raise InvalidRequest(f"num_standbys is 0 to {STREAMS_STANDBYS_MAX}, not {options.num_standbys}.")
    if options.reset not in ("earliest", "latest"):
        raise InvalidRequest(f"reset is 'earliest' or 'latest', not {options.reset!r}.")
    return options


__all__: Sequence[str] = ("App", "Report", "WorkerOptions", "run", "run_once")
