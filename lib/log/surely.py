"""Commits whose outcome is asked for, a few times, if the store falls silent over it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from headwater.errors import Indeterminate
from headwater.limits import SURELY_TRIES_MAX
from headwater.log.operations import AnyOp
from headwater.log.outcomes import checked
from headwater.log.state import Outcome

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.log.queue import Told
    from headwater.log.writer import Append


async def commit_surely(
    namespace: Namespace,
    ops: Sequence[AnyOp],
    appends: Sequence[Append] = (),
    *,
    caller: Hashable = None,
    told: Told | None = None,
    begun: asyncio.Future[Outcome] | None = None,
) -> Outcome:
    """One intent, asked for again under its token where nobody knows its outcome.

    ``begun`` is what ``Writer.begin`` gave for the very same intent, if it was begun there.

    Raises what ``Writer.commit`` raises.
    """
    token = ""
    for _ in range(SURELY_TRIES_MAX):
        try:
            if begun is not None and not token:
                return checked(await asyncio.shield(begun))
            return await namespace.writer.commit(appends, ops, token=token, caller=caller, told=told)
        except Indeterminate as error:
            last, token = error, error.token or token
    raise last
