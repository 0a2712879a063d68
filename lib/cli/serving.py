"""Commands that serve until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


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
