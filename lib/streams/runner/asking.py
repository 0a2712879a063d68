"""How to ask a job's workers for rows of a store from anywhere: find who answers, and go where it sends us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from headwater.errors import HeadwaterError, NotFound, Unavailable
from headwater.log.namespace import Namespace

TIMEOUT_S = 30.0
HOPS_MAX = 5  # how often one question is sent on before we believe that the tasks are on the move


class Refused(HeadwaterError):
    """A worker has refused the question."""

    what_now = "Read its words; they name the store and the key."


async def rows(
    namespace: Namespace, job: str, store: str, key: Sequence[str] = (), *, limit: int = 100, as_of: int | None = None
) -> list[dict[str, Any]]:
    """The rows of a key, wherever it lies, or up to ``limit`` rows of all workers.

    Raises:
        NotFound: no worker of the job answers questions, or there is no such store.
        Unavailable: the tasks are on the move. Ask again.
    """
    group = (await namespace.refresh()).groups.get(job)
    places = [member.client for member in (group.members.values() if group else ()) if member.client.startswith("http")]
    if not places:
        raise NotFound(f"No worker of job {job!r} answers questions: start one with --listen HOST:PORT.", job=job)
    params = [("key", part) for part in key] + [("limit", str(limit))]
    if as_of is not None:
        params.append(("as_of", str(as_of)))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        if key or as_of is not None:
            return await _one(session, places[0], store, params)
        found: list[dict[str, Any]] = []
        for place in places:
            found += await _one(session, place, store, params)
        return found[:limit]


async def _one(
    session: aiohttp.ClientSession, place: str, store: str, params: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    for _ in range(HOPS_MAX):
        status, document = await _get(session, place, store, params)
        if status == 200:
            answered: list[dict[str, Any]] = document["rows"]
            return answered
        message = str(document.get("message", document))
        if status == 421 and document.get("address"):
            place = str(document["address"])
            continue
        if status == 404:
            raise NotFound(message)
        if status in (421, 503):
            raise Unavailable(message)
        raise Refused(f"The worker at {place} answered {status}: {message}")
    raise Unavailable(f"The key's task is on the move: {HOPS_MAX} workers in a row have sent us on.")


async def _get(
    session: aiohttp.ClientSession, place: str, store: str, params: Sequence[tuple[str, str]]
) -> tuple[int, Any]:
    try:
        async with session.get(f"{place}/stores/{store}", params=list(params)) as response:
            return response.status, orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
        raise Unavailable(f"The worker at {place} does not answer: {error!r}") from error
