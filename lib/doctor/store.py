"""Is the store there, may we use it, is it fast enough, are its promises real, and does its clock agree with ours?"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, TypeVar

from headwater.clock import Clock
from headwater.doctor.findings import Finding, failed
from headwater.errors import Forbidden, HeadwaterError, Indeterminate, NotFound, Unauthorized, Unavailable
from headwater.limits import DOCTOR_SKEW_MS, DOCTOR_SLOW_MS
from headwater.store.base import ObjectStore
from headwater.store.probe import PROBE_FOLDER, probe_conditional_writes

AREA: Final = "store"
ROUNDS: Final = 5  # writes and reads that are timed
BODY: Final = bytes(range(256)) * 4

T = TypeVar("T")

_ADVICE: Final[dict[type[HeadwaterError], str]] = {
    Unauthorized: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile or role) for this bucket; see whether "
    "the session token has expired.",
    Forbidden: "Allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects.",
    NotFound: "Create the bucket, or mend the name and the region in the URL.",
    Unavailable: "See whether the endpoint is right and reachable from here: DNS, proxy, VPC endpoint, TLS.",
}


async def examine_store(store: ObjectStore, *, clock: Clock, rng: random.Random, writes: bool) -> list[Finding]:
    """Reads, and with ``writes`` also writes, below ``.probe/`` in the store; what is written is deleted again.

    Cost: 1 LIST; with ``writes`` about 40 requests, $0.0002 on S3. It ends at the first thing without which the others
    mean nothing.
    """
    found = [await _reachable(store, clock)]
    if found[0].level == "failure" or not writes:
        return found
    key = f"{PROBE_FOLDER}/doctor-{rng.getrandbits(96):024x}"
    try:
        found += await _written(store, key, clock)
    finally:
        with suppress(HeadwaterError):
            await store.delete([key])
    if any(finding.level == "failure" for finding in found):
        return found
    return [*found, await _conditional(store, rng), await _deletable(store, key)]


async def _reachable(store: ObjectStore, clock: Clock) -> Finding:
    async def first() -> None:
        async for _ in store.list("", limit=1):
            return

    try:
        took_ms, _ = await _timed(clock, first())
    except HeadwaterError as error:
        return failed(AREA, "reachable", error, _advice(error))
    return Finding(area=AREA, check="reachable", level="ok", says=f"{store.url} answers a LIST in {took_ms:.0f} ms.")


async def _written(store: ObjectStore, key: str, clock: Clock) -> list[Finding]:
    puts, gets, skews = [], [], []
    try:
        for _ in range(ROUNDS):
            before = clock.wall_ms()
            took_ms, _ = await _timed(clock, store.put(key, BODY))
            puts.append(took_ms)
            took_ms, blob = await _timed(clock, store.get(key))
            gets.append(took_ms)
            if blob.data != BODY:
                return [_damaged(store)]
            seen = await store.head(key)
            if seen.date_ms >= 0:
                # The answer was stamped between the two looks at our own clock.
                skews.append(seen.date_ms - (before + clock.wall_ms()) / 2)
        part = await store.get(key, start=10, end=20)
        if part.data != BODY[10:20]:
            return [_damaged(store)]
    except HeadwaterError as error:
        return [failed(AREA, "reads and writes", error, _advice(error))]
    return [_speed(puts, gets), *([_clocks(statistics.median(skews))] if skews else [])]


def _damaged(store: ObjectStore) -> Finding:
    return Finding(
        area=AREA,
        check="reads and writes",
        level="failure",
        says=f"{store.url} gave back other bytes than were written a moment ago.",
        do="Do not use this store: it breaks read-after-write, or its ranges are wrong. A proxy or a cache in between "
        "may be to blame.",
    )


def _speed(puts: list[float], gets: list[float]) -> Finding:
    put_ms, get_ms = statistics.median(puts), statistics.median(gets)
    says = f"A PUT takes {put_ms:.0f} ms and a GET {get_ms:.0f} ms (median of {ROUNDS})."
    if put_ms <= DOCTOR_SLOW_MS:
        return Finding(area=AREA, check="reads and writes", level="ok", says=says)
    return Finding(
        area=AREA,
        check="reads and writes",
        level="warning",
        says=f"{says} Every commit waits for a PUT.",
        do="Run in the bucket's region; if it is that already, look at the network and at the store's own load.",
    )


def _clocks(skew_ms: float) -> Finding:
    off = f"{abs(skew_ms) / 1_000:.1f} s {'behind' if skew_ms > 0 else 'ahead of'} the store's"
    if abs(skew_ms) <= DOCTOR_SKEW_MS:
        return Finding(area=AREA, check="clocks", level="ok", says=f"This machine's clock is {off}.")
    return Finding(
        area=AREA,
        check="clocks",
        level="warning",
        says=f"This machine's clock is {off}. Order and exactly once do not depend on it, but signatures (15 minutes), "
        "retention and transaction time-outs do.",
        do="Set it by NTP (chrony or systemd-timesyncd).",
    )


async def _conditional(store: ObjectStore, rng: random.Random) -> Finding:
    check = "conditional writes"
    try:
        await probe_conditional_writes(store, rng=rng)
    except HeadwaterError as error:
        return failed(AREA, check, error)
    says = "Put-if-absent has one winner, and a late writer loses."
    return Finding(area=AREA, check=check, level="ok", says=says)


async def _deletable(store: ObjectStore, key: str) -> Finding:
    check = "deletes"
    try:
        await store.delete([key])
    except HeadwaterError as error:
        do = "Allow s3:DeleteObject: retention and garbage collection need it, produce and fetch do not."
        return failed(AREA, check, error, do if isinstance(error, Forbidden) else "")
    return Finding(area=AREA, check=check, level="ok", says="An object can be deleted.")


def _advice(error: HeadwaterError) -> str:
    if isinstance(error, Indeterminate):
        return _ADVICE[Unavailable]
    return next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), "")


async def _timed(clock: Clock, work: Awaitable[T]) -> tuple[float, T]:
    start = clock.elapsed_s()
    result = await work
    return (clock.elapsed_s() - start) * 1_000, result
