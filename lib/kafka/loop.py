"""The event loop that a gateway runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on uvloop, where there is one: a gateway's turns are many and short, and it takes them in C.

    Measured with librdkafka's batches of 1 MB: 15 % more bytes a CPU second in, 5 to 15 % more out.
    """
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
