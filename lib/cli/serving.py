"""Commands that serve until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


async def until_stopped(work: Coroutine[Any, Any, object]) -> None:
    """Run ``work`` to its end, or until SIGTERM cancels it. Ctrl-C comes out as ``KeyboardInterrupt``."""
    task = asyncio.ensure_future(work)
    with contextlib.suppress(NotImplementedError):  # as on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise


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
