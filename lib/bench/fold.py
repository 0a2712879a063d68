"""``bench fold``: how fast the state is folded, and that a cold start does not grow with history.

A namespace of 1,000 partitions gets 10^3, 10^4 and 10^5 manifests of one append each, with snapshots and
index pages as in production (memory store). Then a fresh process opens it: time, requests and bytes of
that cold start must be about the same for all three.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from headwater.bench.history import append_manifest, encoded, first_manifest, grow
from headwater.clock import cpu_s
from headwater.log.intents import decode_manifest
from headwater.log.namespace import Namespace
from headwater.log.state import State, apply
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.types import Batch

PARTITIONS = 1_000
BATCH = Batch(codec="arrow", data=bytes(64), count=10, timestamp_min=0, timestamp_max=0, crc=1)


def bench(histories: tuple[int, ...] = (1_000, 10_000, 100_000)) -> dict[str, Any]:
    """The report of ``headwater bench fold``."""
    rng = random.Random(1)
    return {
        "bench": "fold",
        "partitions": PARTITIONS,
        **_pure(rng),
        "cold_start": [asyncio.run(_cold_start(manifests)) for manifests in histories],
    }


def _pure(rng: random.Random, manifests: int = 20_000) -> dict[str, Any]:
    """Decode and apply, nothing else."""
    state = State()
    apply(state, first_manifest(rng, PARTITIONS))
    slots = [encoded(append_manifest(rng, s, s % PARTITIONS, BATCH), BATCH.data) for s in range(2, manifests + 2)]
    began = cpu_s()
    for seq, data in enumerate(slots, 2):
        apply(state, decode_manifest(data, seq))
    spent = cpu_s() - began
    return {"manifests_per_s": round(manifests / spent), "us_per_intent": round(spent / manifests * 1e6, 2)}


async def _cold_start(manifests: int) -> dict[str, Any]:
    store = MemoryStore()
    await grow(store, manifests, partitions=PARTITIONS, batch=BATCH)
    metered = MeteredStore(store)
    runs = []
    for _ in range(3):
        began = cpu_s()
        fresh = await Namespace.open(metered)
        runs.append((cpu_s() - began) * 1_000)
        assert fresh.state.seq == manifests, "a cold start sees every manifest"
        total = sum(partition.next for partition in fresh.topic("t").partitions)
        assert total == (manifests - 1) * 10, "no offset is missing"
        await fresh.close()
    counts = {kind: getattr(metered.counts, kind) / len(runs) for kind in ("get", "list", "bytes_in")}
    snapshot = max([stat.size async for stat in store.list("default/snapshot/")], default=0)
    return {
        "manifests": manifests,
        "cpu_ms": round(min(runs), 1),
        "requests": counts,
        "snapshot_bytes": snapshot,
        "pages": len(fresh.state.pages),
    }
