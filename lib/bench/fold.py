"""``bench fold``: how fast the state is folded, and that a cold start does not grow with history.

A namespace of 1,000 partitions gets 10^3, 10^4 and 10^5 manifests of one append each, with snapshots and
index pages as in production (memory store). Then a fresh process opens it: time, requests and bytes of
that cold start must be about the same for all three.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from headwater.clock import SystemClock, cpu_s
from headwater.log import keys
from headwater.log.intents import FORMAT, Chunk, CreateTopic, Intent, Manifest, decode_manifest, encode_manifest, new_id
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.state import State, apply
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore

PARTITIONS = 1_000


def bench(histories: tuple[int, ...] = (1_000, 10_000, 100_000)) -> dict[str, Any]:
    """The report of ``headwater bench fold``."""
    rng = random.Random(1)
    return {
        "bench": "fold",
        "partitions": PARTITIONS,
        **_pure(rng),
        "cold_start": [asyncio.run(_cold_start(rng, manifests)) for manifests in histories],
    }


def _manifest(rng: random.Random, seq: int) -> Manifest:
    chunk = Chunk(
        topic=1, partition=seq % PARTITIONS, count=10, codec="arrow", pos=512, len=64, crc=1, min=seq, max=seq
    )
    return Manifest(
        v=FORMAT,
        kind="manifest",
        seq=seq,
        id=new_id(rng),
        writer="bench",
        time=seq,
        intents=[Intent(id=new_id(rng), tip=seq - 1, appends=[chunk])],
    )


def _first(rng: random.Random) -> Manifest:
    intent = Intent(id=new_id(rng), tip=0, ops=[CreateTopic(name="t", partitions=PARTITIONS)])
    return Manifest(v=FORMAT, kind="manifest", seq=1, id=new_id(rng), writer="bench", time=1, intents=[intent])


def _encoded(manifest: Manifest) -> bytes:
    return encode_manifest(manifest, 64, 512) + bytes(64)


def _pure(rng: random.Random, manifests: int = 20_000) -> dict[str, Any]:
    """Decode and apply, nothing else."""
    state = State()
    apply(state, _first(rng))
    slots = [_encoded(_manifest(rng, seq)) for seq in range(2, manifests + 2)]
    began = cpu_s()
    for seq, data in enumerate(slots, 2):
        apply(state, decode_manifest(data, seq))
    spent = cpu_s() - began
    return {"manifests_per_s": round(manifests / spent), "us_per_intent": round(spent / manifests * 1e6, 2)}


async def _cold_start(rng: random.Random, manifests: int) -> dict[str, Any]:
    store = MemoryStore()
    log = Namespace(store, clock=SystemClock(), options=Options(snapshot_every=1 << 60, snapshot_bytes=1 << 60))
    interval = Options().snapshot_every
    log.chain.fold(_first(rng), 0)
    await log.store.put(keys.manifest_key(1), encode_manifest(_first(rng), 0))
    await log.chain.refresh()
    for seq in range(2, manifests + 1):
        manifest = _manifest(rng, seq)
        data = _encoded(manifest)
        await log.store.put(keys.manifest_key(seq), data)
        log.chain.fold(manifest, len(data))
        if seq % interval == 0:
            await log.house.snapshot()
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
