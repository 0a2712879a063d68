"""What a function is made of: the environment, one event loop, and namespaces that stay warm between invocations.

    handler(event, context) ──► App of this process, made on first use ──► answer ──► drain (R10) ──► return

Nothing is opened while the module is imported, so a snapshot of the initialised process (SnapStart) holds no
connection, no writer's name and no random state; after a restore or a fork everything is opened anew. A handler never
returns with a write in flight: commits give up well before the function's deadline, and what is still undecided then
is answered as ``Indeterminate``. It never raises either.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from headwater import limits, lines, tracing
from headwater.api import http, routes
from headwater.api.app import App
from headwater.api.figures import Figures
from headwater.clock import Clock, SystemClock, system_entropy
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.meters import PROCESS
from headwater.store import S3_CLIENT, open_store
from headwater.store.impatient import ImpatientStore
from headwater.store.metered import MeteredStore

if TYPE_CHECKING:
    from headwater.api.messages import Route
    from headwater.store.base import ObjectStore

# Without HEADWATER_LOG: a request that writes has a line of 400 bytes, 4 % of what its PUT costs; reads have none.
LOG_LEVEL: Final = "info"
DEADLINE_MS: Final = 30_000  # where the platform does not say
MARGIN_PART: Final = 0.1  # of the time that is left stays with the platform, …
MARGIN_S_MAX: Final = 1.0  # … but no more than this
SERVE_PART: Final = 0.9  # of the rest goes to the request, and what remains to draining
CHORES_PART: Final = 0.7  # of upkeep's time, after which its long chores begin nothing new
COMMIT_PART: Final = 0.4  # a commit is decided or given up in this part of a request's time, …
RETRY_PART: Final = 0.3  # … a read is given up after this, …
STORE_PART: Final = 0.2  # … and one request to the store after this


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The environment of a function. ``namespaces`` are those that it serves; ``tenant-*`` stands for a prefix."""

    store: str
    namespace: str = "default"
    namespaces: tuple[str, ...] = ()
    auth: str = "iam"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Raises ``InvalidRequest`` if there is no HEADWATER_STORE."""
        store = environment.get("HEADWATER_STORE", "")
        if not store:
            raise InvalidRequest("HEADWATER_STORE is not set: it names the bucket, as in s3://bucket/prefix.")
        namespace = environment.get("HEADWATER_NAMESPACE") or "default"
        listed = environment.get("HEADWATER_NAMESPACES", "")
        names = tuple(name.strip() for name in listed.split(",") if name.strip())
        return cls(
            store=store,
            namespace=namespace,
            namespaces=names or (namespace,),
            auth=environment.get("HEADWATER_AUTH") or "iam",
        )


def app_for(
    function: str,
    settings: Settings,
    *,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    options: Options | None = None,
    log: Callable[[str], object] | None = None,
    level: str = "error",
    kind: Callable[..., App] = App,
) -> App:
    """The app of a function (or of ``dev``: everything), over the store that the settings name or that is given.

    ``kind`` makes it: layers above add routes of their own. Lines of ``level`` go to ``log`` (default: stderr).

    A store that is given stays open when the app closes. Nothing is sent before the first request.
    """
    from headwater.api.auth import Authenticator

    clock, rng = clock or SystemClock(), rng or system_entropy()
    bucket = MeteredStore(open_store(settings.store, clock=clock), PROCESS) if store is None else store

    # Who only reads may not be able to write at all; and where keys are asked for, a namespace without a commit has
    # none, so nobody makes its first one here. Others probe once: a stranger's names are to cost no PUTs (R8).
    trusted = function == "fetch" or settings.auth == "token"

    async def open_namespace(name: str) -> Namespace:
        nonlocal trusted
        namespace = await Namespace.open(bucket, name, clock=clock, rng=rng, options=options, probe=not trusted)
        trusted = trusted or namespace.state.seq == 0
        return namespace

    return kind(
        (*routes.table(function), *_resident(function)),
        open_namespace=open_namespace,
        authenticator=Authenticator(settings.auth, clock=clock),
        clock=clock,
        rng=rng,
        namespace=settings.namespace,
        served=settings.namespaces,
        answer_bytes_max=limits.HTTP_FETCH_BYTES_MAX if function == routes.EVERYTHING else limits.ANSWER_BYTES_MAX,
        log=log,
        level=level,
        process=function,
        bucket=bucket,
        close=bucket.aclose if store is None else None,
        meters=options.meters if options is not None else PROCESS,
    )


def _resident(function: str) -> tuple[Route, ...]:
    """Routes of processes that stay: a function's figures would be those of one of many."""
    if function != routes.EVERYTHING:
        return ()
    from headwater.api.metrics import ROUTES

    return ROUTES


def function(name: str, *, environment: Mapping[str, str] | None = None, store: ObjectStore | None = None) -> Function:
    """The handler of the function ``name``. Cost: its imports, now; the store and the namespace come on first use.

    ``store`` stands for the one that the environment names.
    """
    return Function(name, os.environ if environment is None else environment, store)


class Function:
    """One process's handler. The platform calls it with one event at a time. ``kind`` is as in ``app_for``."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        store: ObjectStore | None = None,
        *,
        kind: Callable[..., App] = App,
    ) -> None:
        assert name in routes.FUNCTIONS, name
        self.name = name
        self._kind = kind
        self._store = store
        self._environment = environment
        self._clock = SystemClock()
        self._figures = Figures(environment, name, clock=self._clock)
        self._level = lines.level_of(environment, LOG_LEVEL)
        self._said = lines.Lines(self._clock, level=self._level, always={"process": name})
        self._app: App | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        _preload(name, environment)
        _on_restore(self.forget)

    def __call__(self, event: object, context: object = None) -> dict[str, Any]:
        """Serve one event. Never raises."""
        try:
            if self._process != os.getpid():
                self.forget()
            begin_tracing(self._environment, self.name, self._said)
            left_s = _left_s(context)
            answer = self._running().run_until_complete(self._within(event, left_s, id_of(context)))
        except Exception as error:
            answer = self._broken(error, id_of(context))
        self._figures.tell()
        tracing.flush(MARGIN_S_MAX)  # the process may be frozen now
        return answer

    def forget(self) -> None:
        """Let go of everything that was opened: after a restore or a fork it belongs to another process.

        Nothing is closed, since the other one may still use it.
        """
        self._app, self._loop, self._process = None, None, os.getpid()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    async def _within(self, event: object, left_s: float, request_id: str = "") -> dict[str, Any]:
        """Answer, and then see to it that nothing of it goes on when the process is frozen."""
        start_s = self._clock.elapsed_s()
        app = self._opened(left_s)
        if _is_request(event):
            answer = await http.handle(event, app, budget_s=left_s * SERVE_PART, request_id=request_id)
        else:
            answer = await self._scheduled(app, left_s * SERVE_PART, request_id)
        try:
            async with asyncio.timeout(max(0.0, left_s - (self._clock.elapsed_s() - start_s))):
                await app.drain()
        except TimeoutError:
            # The store is silent. What was sent is Indeterminate to its caller already; a new start forgets it.
            await _cancel_others()
            self._app = None
        return answer

    def _opened(self, left_s: float) -> App:
        if self._app is None:
            budget_s = left_s * SERVE_PART
            options = Options(
                commit_timeout_s=min(limits.COMMIT_TIMEOUT_S, budget_s * COMMIT_PART),
                store_retry_s=min(limits.STORE_RETRY_S, budget_s * RETRY_PART),
            )
            settings = Settings.of(self._environment)
            store = self._store or open_store(settings.store, clock=self._clock)
            self._app = app_for(
                self.name,
                settings,
                store=MeteredStore(ImpatientStore(store, budget_s * STORE_PART), PROCESS),
                clock=self._clock,
                options=options,
                level=self._level,
                kind=self._kind,
            )
        return self._app

    async def _scheduled(self, app: App, budget_s: float, request_id: str) -> dict[str, Any]:
        """The schedule's event: upkeep of every namespace that is named."""
        if self.name != "maintain":
            raise InvalidRequest(f"The function {self.name} takes requests of its URL only.")
        from headwater.api.upkeep import keep_up

        reports: list[object] = []
        failed: list[str] = []
        start_s = self._clock.elapsed_s()
        try:
            async with asyncio.timeout(budget_s):
                names = await app.named()
                system_entropy().shuffle(names)  # so that each has its turn when there is not the time for all
                for name in names:
                    try:
                        namespace = await app.opened(name)
                        done = asdict(await keep_up(namespace, deadline_s=start_s + budget_s * CHORES_PART))
                        reports.append(done)
                        app.lines.say("info", "upkeep", request=request_id, namespace=name, done=done)
                    except HeadwaterError as error:
                        failed.append(f"{name}: {type(error).__name__}")
                        told = lines.error_of(error)
                        app.lines.say("error", "upkeep", request=request_id, namespace=name, error=told)
        except TimeoutError:
            failed.append("the rest: there was no time left")
            app.lines.say("error", "upkeep", request=request_id, error={"error": "Timeout", "message": failed[-1]})
        return {"reports": reports, "failed": failed}

    def _broken(self, error: Exception, request_id: str) -> dict[str, Any]:
        """The process cannot even begin to serve: wrong settings, or a mistake of ours."""
        from headwater.api.errors_http import unexpected

        name = request_id or f"{system_entropy().getrandbits(64):016x}"
        told = lines.error_of(error)
        self._said.say(
            "error", "broken", request=name, error=told if isinstance(error, InvalidRequest) else told["error"]
        )
        return http.answer(unexpected(name, reads=False), "")


def _preload(name: str, environment: Mapping[str, str]) -> None:
    """Import now what the first request will need: the platform lends a whole core, and SnapStart keeps it."""
    from headwater.api import auth, quotas, service  # noqa: F401 - for later

    routes.table(name)
    s3 = environment.get("HEADWATER_STORE", "").startswith("s3://")
    if s3 and environment.get("HEADWATER_S3_CLIENT", S3_CLIENT) == S3_CLIENT:
        importlib.import_module("headwater.store.s3_obstore")


def _is_request(event: object) -> bool:
    context = event.get("requestContext") if isinstance(event, dict) else None
    return isinstance(context, dict) and "http" in context


def begin_tracing(environment: Mapping[str, str], name: str, said: lines.Lines) -> None:
    """Trace if the environment asks for it. Where that cannot be, a function serves all the same, and says so once."""
    try:
        tracing.start(environment, f"headwater-{name}")
    except InvalidRequest as error:
        if not _warned:
            _warned.append(name)
            said.say("error", "tracing", error=lines.error_of(error))


_warned: list[str] = []  # by this process


def id_of(context: object) -> str:
    """What the platform calls this invocation, in its own lines too."""
    return lines.request_id(str(getattr(context, "aws_request_id", "")))


def _left_s(context: object) -> float:
    """Seconds that this invocation may take, less a margin for the way back."""
    tell = getattr(context, "get_remaining_time_in_millis", None)
    left_s = float(tell() if callable(tell) else DEADLINE_MS) / 1_000
    return max(0.1, left_s - min(MARGIN_S_MAX, left_s * MARGIN_PART))


async def _cancel_others() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=0.1)


def _on_restore(forget: Callable[[], None]) -> None:
    """SnapStart's hook, on platforms that have it; others are told apart by their process id."""
    try:
        hooks = importlib.import_module("snapshot_restore_py")
    except ImportError:
        return
    hooks.register_after_restore(forget)
