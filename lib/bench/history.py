"""A namespace with a long history, made at once: manifests, snapshots and pages as a busy year would have left them."""

from __future__ import annotations

import random

from headwater.clock import SystemClock
from headwater.log import keys
from headwater.log.intents import FORMAT, Intent, Manifest, encode_manifest, new_id
from headwater.log.namespace import Namespace
from headwater.log.operations import Chunk, CreateTopic
from headwater.log.options import Options
from headwater.log.state import State
from headwater.store.base import ObjectStore
from headwater.types import Batch

BASE = 512  # where the payload of each manifest lies


def first_manifest(rng: random.Random, partitions: int) -> Manifest:
    """Manifest 1: the topic ``t``."""
    return _manifest(rng, 1, Intent(id=new_id(rng), tip=0, ops=[CreateTopic(name="t", partitions=partitions)]))


def append_manifest(rng: random.Random, seq: int, partition: int, batch: Batch) -> Manifest:
    """Manifest ``seq``, with ``batch`` inline."""
    chunk = Chunk(
        topic=1,
        partition=partition,
        count=batch.count,
        codec=batch.codec,
        pos=BASE,
        len=len(batch.data),
        crc=batch.crc,
        min=batch.timestamp_min,
        max=batch.timestamp_max,
    )
    return _manifest(rng, seq, Intent(id=new_id(rng), tip=seq - 1, appends=[chunk]))


def encoded(manifest: Manifest, data: bytes = b"") -> bytes:
    """The manifest as an object."""
    return encode_manifest(manifest, len(data), BASE) + data


async def grow(
    store: ObjectStore,
    manifests: int,
    *,
    partitions: int,
    batch: Batch,
    snapshot_every: int = Options().snapshot_every,
) -> State:
    """Give the empty namespace ``default`` of ``store`` a history of ``manifests`` appends of ``batch``."""
    rng = random.Random(1)
    log = Namespace(store, clock=SystemClock(), options=Options(snapshot_every=1 << 60, snapshot_bytes=1 << 60))
    first = first_manifest(rng, partitions)
    await log.store.put(keys.manifest_key(1), encoded(first))
    await log.chain.refresh()
    for seq in range(2, manifests + 1):
        manifest = append_manifest(rng, seq, seq % partitions, batch)
        data = encoded(manifest, batch.data)
        await log.store.put(keys.manifest_key(seq), data)
        log.chain.fold(manifest, len(data))
        if seq % snapshot_every == 0:
            await log.house.snapshot()
    return log.state


def _manifest(rng: random.Random, seq: int, intent: Intent) -> Manifest:
    return Manifest(v=FORMAT, kind="manifest", seq=seq, id=new_id(rng), writer="bench", time=seq, intents=[intent])
