"""All checks of one visit, in the order in which their answers build on each other."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

from headwater.clock import Clock
from headwater.doctor.findings import Finding, failed, worst
from headwater.doctor.namespace import AREA, examine_state
from headwater.doctor.store import examine_store
from headwater.errors import HeadwaterError, NotFound
from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.log.snapshot import decode_latest
from headwater.store.base import ObjectStore


async def visit(
    store: ObjectStore, name: str, *, clock: Clock, rng: random.Random, writes: bool = True, round_trip: bool = False
) -> AsyncIterator[Finding]:
    """What there is to say about a store and a namespace of it, as it is found out.

    Without ``writes`` nothing is written. ``round_trip`` makes a topic, sends a record through it and deletes it.
    """
    found = await examine_store(store, clock=clock, rng=rng, writes=writes)
    for finding in found:
        yield finding
    if worst(found) == "failure":
        return
    namespace = Namespace(store, name, clock=clock, rng=rng)
    try:
        try:
            state = await namespace.refresh()
        except HeadwaterError as error:
            yield failed(AREA, "opens", error)
            return
        snapshot = await _newest_snapshot(namespace)
        for finding in examine_state(state, now_ms=clock.wall_ms(), tip=state.seq, snapshot=snapshot):
            yield finding
    finally:
        await namespace.close()
    if round_trip:
        async for finding in _round_trip(store, name, clock, rng):
            yield finding


async def _newest_snapshot(namespace: Namespace) -> int:
    try:
        return decode_latest((await namespace.store.get(keys.LATEST)).data)
    except NotFound:
        return 0


async def _round_trip(store: ObjectStore, name: str, clock: Clock, rng: random.Random) -> AsyncIterator[Finding]:
    from headwater.api.service import Service
    from headwater.doctor.deployment import examine_round_trip

    async with await Namespace.open(store, name, clock=clock, rng=rng, probe=False) as namespace:
        yield await examine_round_trip(Service(namespace), area=AREA, clock=clock, rng=rng)
