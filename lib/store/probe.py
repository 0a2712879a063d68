"""R8: find out whether a store's conditional writes are real before anything relies on them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from headwater.errors import AlreadyExists, Conflict, HeadwaterError, Indeterminate, InvalidRequest, Raced
from headwater.store.base import ObjectStore

PROBE_KEYS = 3  # a store that checks before it writes, without a lock, loses at least one of these races
PROBE_WRITERS = 8
PROBE_FOLDER = ".probe"


async def probe_conditional_writes(store: ObjectStore, *, rng: random.Random) -> None:
    """Race put-if-absent writers on fresh keys and refuse a store in which more than one of them wins.

    Then one more writer comes late, and must lose. The keys are fresh and are deleted again, whatever happens, so
    any number of processes may probe one bucket at once.

    Raises:
        InvalidRequest: the store fakes conditional writes. Use another store, or a newer version of it.
        Unavailable, Throttled, Unauthorized, …: as the store says; nothing is known. Try again.

    Cost: 27 PUT, 3 GET, 1 DELETE; about $0.00014, in three round trips and one more.
    """
    keys = [f"{PROBE_FOLDER}/{rng.getrandbits(96):024x}" for _ in range(PROBE_KEYS)]
    failures = await asyncio.gather(*(_probe(store, key) for key in keys), return_exceptions=True)
    with suppress(HeadwaterError):  # what stays behind is small and harms nobody; not everyone may delete
        await store.delete(keys)
    for failure in failures:
        if failure is not None:
            raise failure


async def _probe(store: ObjectStore, key: str) -> None:
    bodies = [f"{key} writer {number}".encode() for number in range(PROBE_WRITERS)]
    answers = await asyncio.gather(*(store.put_if_absent(key, body) for body in bodies), return_exceptions=True)
    winners = [body for body, answer in zip(bodies, answers, strict=True) if not isinstance(answer, BaseException)]
    silent = [body for body, answer in zip(bodies, answers, strict=True) if isinstance(answer, Indeterminate)]
    if len(winners) > 1:
        raise _refusal(store, f"{len(winners)} of {PROBE_WRITERS} racing writers won one key")
    if not winners and not silent:
        _raise_failure(answers)
        # Every writer lost, which a store may say of a race that it gave up on: one alone must win.
        winners = bodies[:1]
        await store.put_if_absent(key, winners[0])
    held = (await store.get(key)).data
    if held not in (winners or silent):
        raise _refusal(store, "after a race the key did not hold the winner's bytes")
    try:
        await store.put_if_absent(key, b"late")
    except Conflict:
        return
    raise _refusal(store, "a taken key was written again")


def _raise_failure(answers: Sequence[object]) -> None:
    """Raise the first answer that is neither success nor a lost race."""
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, AlreadyExists | Raced):
            raise answer


def _refusal(store: ObjectStore, fact: str) -> HeadwaterError:
    return InvalidRequest(
        f"The store {store.url} fakes conditional writes: {fact}. Headwater would lose data there; use a store that "
        "honours If-None-Match (AWS S3, MinIO, Ceph, LocalStack, MiniStack, SeaweedFS), a directory or memory.",
        url=store.url,
    )
