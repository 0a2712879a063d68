"""Where the work that keeps a processor busy is done: in a thread, or right here where time is simulated."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeAlias

Offload: TypeAlias = Callable[..., Awaitable[Any]]  # (function, *arguments) → what the function returns

in_thread: Offload = asyncio.to_thread


async def in_decoder(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in one of as many threads as there are processors, which all of this process share.

    For what allocates much: a thread's allocator gives it the memory again that it had just now, warm and mapped. Among
    the many threads of ``in_thread`` each batch would begin with page faults (a third of the time of a replay).
    """
    return await asyncio.get_running_loop().run_in_executor(_decoders(os.getpid()), function, *args)


async def inline(function: Callable[..., Any], *args: Any) -> Any:
    """Call it here. The event loop stands still meanwhile."""
    return function(*args)


@cache
def _decoders(_pid: int) -> ThreadPoolExecutor:
    # By process: a fork has none of its parent's threads.
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="headwater-decode")
