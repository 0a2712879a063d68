"""Interactive queries: a job's state, asked in process or over HTTP.

A worker answers for the tasks that it owns. Whoever asks for a key that lies elsewhere hears who has it (421). An
answer shows the state after the last step that was computed, which may be one commit ahead of what consumers of the
outputs see; ``as_of`` shows it exactly as an earlier commit left it, of every task, from the changelog.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from headwater.errors import HeadwaterError, InvalidRequest, NotFound, Unavailable
from headwater.limits import STREAMS_QUERY_ROWS_MAX
from headwater.log import partitioner
from headwater.streams.model import Node, Source
from headwater.streams.runner import metrics
from headwater.streams.runner.assigning import address
from headwater.streams.runner.job import Job
from headwater.streams.runner.restoring import restore_as_of
from headwater.streams.serde.keys import key_array
from headwater.streams.task import Task, without_system

if TYPE_CHECKING:
    from aiohttp import web

    from headwater.streams.runner.app import App
    from headwater.streams.runner.stepping import TaskRunner
    from headwater.streams.runner.worker import Worker

Rows = list[dict[str, Any]]


class Misdirected(NotFound):
    """Another worker has this key."""

    status = 421
    what_now = "Ask the worker at the address that the error names; ask again here if it names none."


def stores_of(job: Job) -> dict[str, Node]:
    """The nodes that have state which can be asked, by the name of their store."""
    found = {}
    for node in job.nodes.values():
        store = getattr(node, "store", None)
        if store is not None and not (isinstance(node, Source) and node.kind == "stream"):
            found[store or node.name] = node
    return found


def store_names(job: Job) -> list[str]:
    """The names of a job's stores."""
    return sorted(stores_of(job))


def key_columns(node: Node) -> tuple[str, ...]:
    """The columns that a store is asked by."""
    return tuple(getattr(node, "by", ()) or node.keys)


class StoreView:
    """One store as far as a worker has it. Raises ``NotFound`` for a name that the job has no store of."""

    def __init__(self, worker: Worker, name: str) -> None:
        found = stores_of(worker.job)
        if name not in found:
            raise NotFound(
                f"Job {worker.job.name!r} has no store {name!r}; it has {', '.join(sorted(found)) or 'none'}."
            )
        self.name = name
        self.node = found[name]
        self.keys = key_columns(self.node)
        self._worker = worker

    @property
    def is_global(self) -> bool:
        """Whether every task has all of it."""
        return isinstance(self.node, Source) and self.node.kind == "global"

    async def get(self, *key: object) -> Rows:
        """The rows of one key: none, one, or one for each window.

        Raises:
            InvalidRequest: the key has another number of parts, or parts of other types.
            Misdirected: another worker has the key; ``data`` names it.
            Unavailable: the key's task is being restored here. Ask again.
        """
        keys = self.key_frame([key])
        if self.is_global:
            return (await self._ask(self._any(), keys)).to_dicts()
        return (await self._ask(self._running(self.partition_of(keys)), keys)).to_dicts()

    async def frame(self, keys: pl.DataFrame | None = None, *, limit: int = STREAMS_QUERY_ROWS_MAX) -> pl.DataFrame:
        """Rows of all tasks that run here: those of ``keys``, or all, at most ``limit``. ``partitions`` says which."""
        parts = []
        left = min(limit, STREAMS_QUERY_ROWS_MAX)
        tasks = [self._any()] if self.is_global else [t for t in self._worker.tasks.values() if t.is_running]
        for task in sorted(tasks, key=lambda each: each.number):
            part = (await self._ask(task, keys)).head(left)
            parts.append(part)
            left -= part.height
            if left <= 0:
                break
        return pl.concat(parts, how="vertical") if parts else pl.DataFrame()

    async def as_of(self, commit: int, *key: object, limit: int = STREAMS_QUERY_ROWS_MAX) -> pl.DataFrame:
        """The store as commit ``commit`` left it: the rows of a key, or of all tasks, whoever runs them now.

        Raises ``NotFound`` if that commit's history was collected. Cost: reads the changelog of the key's task, or of
        all tasks one after another.
        """
        worker = self._worker
        keys = self.key_frame([key]) if key else None
        numbers = range(worker.job.tasks) if keys is None else [self.partition_of(keys)]
        parts: list[pl.DataFrame] = []
        for number in numbers:
            task = await restore_as_of(
                worker.namespace, worker.setting.making, number, commit, offload=worker.setting.offload
            )
            try:
                parts.append(await worker.setting.offload(_query, task, self.node.name, keys))
            finally:
                worker.setting.making.discard(task)
        return pl.concat(parts, how="vertical").head(limit)

    @property
    def partitions(self) -> list[int]:
        """The tasks that run here."""
        return sorted(number for number, task in self._worker.tasks.items() if task.is_running)

    def key_frame(self, keys: Sequence[Sequence[object]]) -> pl.DataFrame:
        """Keys as the operators know them; text is read as the column's type. Raises ``InvalidRequest``."""
        if not self.keys or any(len(key) != len(self.keys) for key in keys):
            raise InvalidRequest(
                f"Store {self.name!r} is asked by {', '.join(self.keys) or 'no key'}: give each of these one value."
            )
        schema = {name: self.node.schema.get(name, pl.String()) for name in self.keys}
        try:
            columns = [
                pl.Series(name, [key[at] for key in keys]).cast(kind, strict=True)
                for at, (name, kind) in enumerate(schema.items())
            ]
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise InvalidRequest(f"The key does not fit {dict(schema)} of store {self.name!r}: {error}") from error
        return pl.DataFrame(columns)

    def partition_of(self, keys: pl.DataFrame) -> int:
        """The task that a key belongs to."""
        found = partitioner.partitions_of(key_array(keys, self.keys), self._worker.job.tasks)
        number = found[0].as_py()
        return 0 if number is None else int(number)

    # -- below -----------------------------------------------------------------------------------------

    async def _ask(self, task: TaskRunner, keys: pl.DataFrame | None) -> pl.DataFrame:
        async with task.lock:
            if task.computer is None:
                raise self._elsewhere(task.number)
            found: pl.DataFrame = await self._worker.setting.offload(_query, task.computer.task, self.node.name, keys)
            return found

    def _running(self, number: int) -> TaskRunner:
        task = self._worker.tasks.get(number)
        if task is None:
            raise self._elsewhere(number)
        if not task.is_running:
            raise Unavailable(f"Task {number} of job {self._worker.job.name!r} is being restored here.")
        return task

    def _any(self) -> TaskRunner:
        running = [task for task in self._worker.tasks.values() if task.is_running]
        if not running:
            raise Unavailable(f"No task of job {self._worker.job.name!r} runs here now.")
        return running[0]

    def _elsewhere(self, number: int) -> HeadwaterError:
        job = self._worker.job
        member, where = address(self._worker.namespace.state, job, number)
        who = f"member {member!r}{f' at {where}' if where else ''}" if member else "nobody at the moment"
        return Misdirected(
            f"Partition {number} of store {self.name!r} of job {job.name!r} is with {who}.",
            partition=number,
            member=member,
            address=where,
        )


def _query(task: Task, node: str, keys: pl.DataFrame | None) -> pl.DataFrame:
    return without_system(task.operators[node].query(keys))


# -- over HTTP ------------------------------------------------------------------------------------------


class Server:
    """Answers questions about one app: ``/stores``, ``/stores/NAME``, ``/metrics.json``, ``/health``."""

    def __init__(self, listen: str) -> None:
        host, mark, port = listen.rpartition(":")
        if not mark or not port.isdigit() or int(port) > 65_535:
            raise InvalidRequest(f"Listen on host:port, as 127.0.0.1:8090, not {listen!r}.")
        self._host = host.strip("[]") or "127.0.0.1"
        self._port = int(port)
        self._app: App | None = None
        self._runner: web.AppRunner | None = None

    async def bind(self) -> str:
        """Take the address; the URL under which this worker is asked. Raises ``OSError`` if it is taken."""
        from aiohttp import web  # a function that is run by schedule answers nobody, and goes without it

        application = web.Application()
        application.router.add_get("/health", self._guarded(self._health))
        application.router.add_get("/metrics.json", self._guarded(self._metrics))
        application.router.add_get("/stores", self._guarded(self._stores))
        application.router.add_get("/stores/{name}", self._guarded(self._store))
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def serve(self, app: App) -> None:
        """From now on there is somebody to answer."""
        self._app = app

    async def close(self) -> None:
        """Let go of the address."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _guarded(
        self, answer: Callable[[App, web.Request], Awaitable[object]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                if self._app is None:
                    raise Unavailable("The worker is starting.")
                return _json(await answer(self._app, request), 200)
            except HeadwaterError as error:
                return _json(error.as_dict(), error.status)

        return handle

    async def _health(self, app: App, request: web.Request) -> object:
        tasks = app.worker.tasks
        ready = all(task.is_running for task in tasks.values())
        return {"status": "ok" if ready else "restoring", "job": app.job.name, "tasks": sorted(tasks)}

    async def _metrics(self, app: App, request: web.Request) -> object:
        return metrics.of_worker(app.worker)

    async def _stores(self, app: App, request: web.Request) -> object:
        views = [app.store(name) for name in app.stores()]
        return {
            "job": app.job.name,
            "tasks": app.job.tasks,
            "stores": [
                {"name": view.name, "keys": list(view.keys), "global": view.is_global, "partitions": view.partitions}
                for view in views
            ],
        }

    async def _store(self, app: App, request: web.Request) -> object:
        view = app.store(request.match_info["name"])
        query = request.query
        limit = min(_number(query.get("limit", ""), STREAMS_QUERY_ROWS_MAX, "limit"), STREAMS_QUERY_ROWS_MAX)
        key = query.getall("key", [])
        commit = _number(query.get("as_of", ""), -1, "as_of")
        if commit >= 0:
            rows = (await view.as_of(commit, *key, limit=limit)).to_dicts()
        elif key:
            rows = (await view.get(*key))[:limit]
        else:
            rows = (await view.frame(limit=limit)).to_dicts()
        return {"store": view.name, "partitions": view.partitions, "tasks": app.job.tasks, "rows": rows}


def _number(text: str, default: int, name: str) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{name} is a whole number, not {text[:40]!r}.")
    return int(text)


def _json(document: object, status: int) -> web.Response:
    from aiohttp import web

    return web.Response(
        body=orjson.dumps(document, default=_plain, option=orjson.OPT_NON_STR_KEYS),
        status=status,
        content_type="application/json",
    )


def _plain(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
