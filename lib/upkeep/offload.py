"""Where the work that keeps a processor busy is done: in a thread, or right here where time is simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Offload: TypeAlias = Callable[..., Awaitable[Any]]  # (function, *arguments) → what the function returns

in_thread: Offload = asyncio.to_thread


async def inline(function: Callable[..., Any], *args: Any) -> Any:
    """Call it here. The event loop stands still meanwhile."""
    return function(*args)
