"""The door: a URL becomes ``Verbs``, whether a bucket or a service stands behind it."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack
from urllib.parse import urlsplit

from headwater.clock import Clock, SystemClock, system_entropy
from headwater.errors import InvalidRequest

if TYPE_CHECKING:
    from types import TracebackType

    from headwater.api.verbs import Verbs
    from headwater.log.options import Options

Auth = Literal["iam", "token", "none"]


class ConnectOptions(TypedDict, total=False):
    """How to reach a namespace, besides its URL.

    ``token`` is an API key's token and ``auth="iam"`` signs with AWS credentials, both for ``https://``; without
    either, requests are anonymous. ``admin_url`` is where administration is served if that is another function.
    ``principal`` is who acts on a bucket without a service in between, and ``options`` are those of the log.
    """

    namespace: str
    token: str | None
    auth: Auth | None
    admin_url: str | None
    region: str | None
    timeout_s: float
    principal: str
    options: Options | None


class Connection:
    """A way to ``Verbs``: ``async with connect(url) as verbs``, or ``open`` and ``close`` by hand.

    Made around verbs that exist already it borrows them, and ``close`` leaves them open.
    """

    def __init__(
        self,
        target: str | Verbs,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        self.clock = clock or SystemClock()
        self.rng = rng or system_entropy()
        self._target = target
        self._options = options
        self._verbs: Verbs | None = None
        if not isinstance(target, str) and options:
            raise InvalidRequest(f"Verbs are connected already; {', '.join(options)} go with a URL.")

    def __repr__(self) -> str:
        # Options stay out: one of them is a secret.
        return f"Connection({shown(self._target)})"

    @property
    def verbs(self) -> Verbs:
        """The verbs. Raises ``InvalidRequest`` before ``open`` and after ``close``."""
        if self._verbs is None:
            raise InvalidRequest("This is not open: use it as `async with …`, or await its start() first.")
        return self._verbs

    @property
    def is_remote(self) -> bool:
        """Whether a service stands in between, whose requests are bounded in size."""
        return isinstance(self._target, str) and self._target.startswith(("http://", "https://"))

    async def open(self) -> Verbs:
        """The verbs; a second call returns the same ones.

        Raises:
            InvalidRequest: the URL or an option is wrong.
            Unauthorized, Forbidden, NotFound, Unavailable: the store cannot be read.
        """
        if self._verbs is None:
            self._verbs = await self._opened() if isinstance(self._target, str) else self._target
        return self._verbs

    async def close(self) -> None:
        """Let go of what ``open`` has opened. A second call does nothing."""
        verbs, self._verbs = self._verbs, None
        if verbs is not None and isinstance(self._target, str):
            await verbs.aclose()

    async def __aenter__(self) -> Verbs:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[None, None, Verbs]:
        return self.open().__await__()

    async def _opened(self) -> Verbs:
        assert isinstance(self._target, str)
        if self.is_remote:
            return self._remote(self._target)
        return await self._direct(self._target)

    def _remote(self, url: str) -> Verbs:
        from headwater.client.http import HttpVerbs

        options: dict[str, Any] = dict(self._options)
        if options.pop("options", None) is not None or options.pop("principal", None) is not None:
            raise InvalidRequest("`options` and `principal` are for a bucket's URL; a service has its own.")
        return HttpVerbs(url, clock=self.clock, rng=self.rng, **options)

    async def _direct(self, url: str) -> Verbs:
        from headwater.api.service import Service
        from headwater.log.namespace import Namespace
        from headwater.store import open_store

        for name in ("token", "auth", "admin_url", "region", "timeout_s"):
            if self._options.get(name) is not None:
                raise InvalidRequest(f"`{name}` is for http:// and https:// URLs; a bucket's credentials are its own.")
        store = open_store(url, clock=self.clock)
        try:
            namespace = await Namespace.open(
                store,
                self._options.get("namespace", "default"),
                clock=self.clock,
                rng=self.rng,
                options=self._options.get("options"),
                owns_store=True,
            )
        except BaseException:
            await store.aclose()
            raise
        return Service(namespace, principal=self._options.get("principal", "root"))


def connect(
    url: str,
    *,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    **options: Unpack[ConnectOptions],
) -> Connection:
    """A namespace's verbs: enter the connection, or await it and call ``aclose`` at the end.

    ``url`` is a bucket's (``s3://…``, ``file://…``, ``memory://…``), used without a service in between, or a service's
    (``https://…``, ``http://…``), with a ``token`` or ``auth="iam"``. Nothing is sent before the connection is entered.
    """
    return Connection(url, clock=clock, rng=rng, **options)


def shown(target: str | Verbs) -> str:
    """The target without what may be secret in it: credentials and query of a URL."""
    if not isinstance(target, str):
        return type(target).__name__
    parts = urlsplit(target)
    return repr(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl())
