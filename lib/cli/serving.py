"""Commands that serve until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.meters import Sample

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


async def until_stopped(work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` returns; None if SIGTERM has cancelled it. Ctrl-C comes out as ``KeyboardInterrupt``."""
    task = asyncio.ensure_future(work)
    with contextlib.suppress(NotImplementedError):  # as on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        return None


def address(port: int) -> Callable[[F], F]:
    """The options that say where to listen: ``--host``, and ``--port`` with ``port`` as its default."""
    place = "Where to listen; 0.0.0.0 is everywhere."
    host = click.option("--host", default="127.0.0.1", show_default=True, help=place)
    free = "0 takes any free one."
    gate = click.option("--port", type=click.IntRange(0, 65535), default=port, show_default=True, help=free)
    return lambda command: host(gate(command))


@contextlib.contextmanager
def friendly(host: str, port: int) -> Iterator[None]:
    """An address that is taken becomes a sentence."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- traces, lines and metrics ---------------------------------------------------------------------------------


class Address(click.ParamType[tuple[str, int]]):
    """``HOST:PORT``, or ``PORT`` alone, which is of this machine only."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        is_cut = ":" in host and not (host.startswith("[") and host.endswith("]"))  # an IPv6 address without brackets
        if is_cut or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            self.fail(f"{value!r} is no address; write HOST:PORT, as in 127.0.0.1:9464 or [::1]:9464.", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@contextlib.contextmanager
def traced(command: str) -> Iterator[None]:
    """Trace to where OTEL_EXPORTER_OTLP_ENDPOINT says, if it says so; at the end send what is left."""
    from headwater import tracing

    tracing.start(os.environ, f"headwater-{command}")
    try:
        yield
    finally:
        tracing.stop()


OF_REQUESTS = "requests that changed the log or were refused, with their id and the commits; with debug all requests"


def log_option(default: str, says: str = OF_REQUESTS) -> Callable[[F], F]:
    """The option ``--log-level``; ``says`` what is told beside errors."""
    from headwater.lines import LEVELS, VARIABLE

    says = f"Which lines to write on stderr, one JSON object each: errors; with info also {says}."
    kind = click.Choice(LEVELS, case_sensitive=False)
    return click.option("--log-level", type=kind, default=default, show_default=True, envvar=VARIABLE, help=says)


def metrics_option(command: F) -> F:
    """The option ``--metrics``."""
    says = (
        "Answer GET /metrics there, for Prometheus, and GET /healthz. It tells of all namespaces and asks for no "
        "credentials; without HOST only this machine reaches it. Port 0 takes any free one."
    )
    return click.option("--metrics", type=Address(), metavar="[HOST:]PORT", help=says)(command)


@contextlib.asynccontextmanager
async def metrics_at(
    place: tuple[str, int] | None, namespaces: Callable[[], Iterable[Namespace]]
) -> AsyncIterator[str | None]:
    """Serve this process's metrics at ``place``, with the chains and the lag of ``namespaces``; yields the URL.

    Without a place nothing is served, and the URL is None.
    """
    if place is None:
        yield None
        return
    from headwater.api.metrics import gauges
    from headwater.meters import PROCESS
    from headwater.meters.server import MetricsServer

    def looked_up() -> Iterator[Sample]:
        for namespace in namespaces():
            yield from gauges(namespace)

    server = MetricsServer(*place)
    with friendly(*place):
        await server.start()
    if not is_loopback(server.host):
        click.echo(f"headwater: everybody who reaches {server.host} may read the names of topics and groups.", err=True)
    leave = PROCESS.collect(looked_up)
    try:
        yield server.url
    finally:
        leave()
        await server.stop()
