"""``bench append`` and ``bench fetch``: one process, one core, beside a baseline that only moves the same bytes.

Batches are 1 MiB. ``kafka2`` batches are opaque bytes that are never looked into; ``kafka2 from a client`` adds
what an edge does first: check the CRC and parse the header. ``arrow`` batches are encoded from columns, so
their cost is the codec's. The baseline PUTs (or GETs) the same bytes to the same store with the same number
in flight, and does nothing else.

Every round runs in a fresh process, since a process that reuses freed memory writes to memory several
times faster than one that must ask the kernel for it, and whose turn that is would decide the figure.
Ours and the baseline go first in turn. Rates are the best of the rounds and ratios their median, because
machines are noisy.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from headwater.clock import SystemClock, stopwatch_s
from headwater.log import batch as codecs
from headwater.log.namespace import Namespace
from headwater.store import open_store
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.types import Batch

BATCH_BYTES = 1 << 20
IN_FLIGHT = 32
ROUNDS = 7
PARTITIONS = 4
_LINE = b" " * 255 + b"\n"


def bench_append(stores: tuple[str, ...] = ("memory", "file"), batches: int = 64) -> dict[str, Any]:
    """The report of ``headwater bench append``."""
    results = [
        _append(kind, codec, size, batches)
        for kind in stores
        for codec in ("kafka2", "kafka2 from a client", "arrow")
        for size in (100, 1_000)
    ]
    return {"bench": "append", "batch_bytes": BATCH_BYTES, "in_flight": IN_FLIGHT, "results": results}


def bench_fetch(stores: tuple[str, ...] = ("memory", "file"), batches: int = 64) -> dict[str, Any]:
    """The report of ``headwater bench fetch``."""
    results = [
        asyncio.run(_fetch(kind, codec, size, batches))
        for kind in stores
        for codec in ("kafka2", "arrow")
        for size in (100, 1_000)
    ]
    return {"bench": "fetch", "batch_bytes": BATCH_BYTES, "results": results}


def _append(kind: str, codec: str, record_bytes: int, batches: int) -> dict[str, Any]:
    best, base, ratios = float("inf"), float("inf"), []
    for round_ in range(ROUNDS):
        # Spawned: a forked child would inherit this process's memory, free lists and all.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            ours, plain = fresh.submit(_append_round, kind, codec, record_bytes, batches, round_).result()
        best, base = min(best, ours), min(base, plain)
        ratios.append(plain / ours)
    _, raw = _input(codec, record_bytes)
    figures = _figures(kind, codec, record_bytes, batches * len(raw.data), batches * raw.count, best, base)
    return figures | {"ratio_to_baseline": round(median(ratios), 3)}


def _append_round(kind: str, codec: str, record_bytes: int, batches: int, round_: int) -> tuple[float, float]:
    """Seconds of ours and of the baseline, in one process; both keep their bytes to the end."""
    return asyncio.run(_append_both(kind, codec, record_bytes, batches, baseline_first=round_ % 2 == 1))


async def _append_both(
    kind: str, codec: str, record_bytes: int, batches: int, *, baseline_first: bool
) -> tuple[float, float]:
    table, raw = _input(codec, record_bytes)
    seconds: dict[bool, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = _store(kind, f"{folder}/plain")
        async with _Handle(kind, f"{folder}/log") as log:

            async def ours(i: int) -> None:
                if codec == "arrow":
                    found = codecs.encode_arrow(table, compression=None)
                else:
                    found = raw if codec == "kafka2" else codecs.batch_of_kafka2(raw.data)
                await log.append("t", i % PARTITIONS, found)

            async def baseline(i: int) -> None:
                # In two parts, as a frame is, so that a store in memory has to copy here too.
                await plain.put(f"baseline/{i}", [_LINE, raw.data])

            await ours(0)
            await baseline(-1)
            for is_baseline in (baseline_first, not baseline_first):
                seconds[is_baseline] = await _timed(baseline if is_baseline else ours, batches)
            total = sum(partition.next for partition in log.topic("t").partitions)
            assert total == (batches + 1) * raw.count, "every record is in the log"
        await plain.aclose()
    return seconds[False], seconds[True]


async def _fetch(kind: str, codec: str, record_bytes: int, batches: int) -> dict[str, Any]:
    _, raw = _input(codec, record_bytes)
    size = len(raw.data)
    best, decoded, base = float("inf"), float("inf"), float("inf")
    with tempfile.TemporaryDirectory() as folder:
        async with _Handle(kind, folder) as log:
            await asyncio.gather(*(log.append("t", 0, raw) for _ in range(batches)))
            store = log.bucket
            for i in range(batches):
                await store.put(f"baseline/{i:06d}", raw.data)
            for _ in range(ROUNDS):
                began, read = stopwatch_s(), 0
                async for chunk in log.reader.chunks("t", 0, 0):
                    read += chunk.count
                best = min(best, stopwatch_s() - began)
                assert read == batches * raw.count, "every record is read"
                began, rows = stopwatch_s(), 0
                async for chunk in log.reader.chunks("t", 0, 0):
                    rows += chunk.decode().num_rows
                decoded = min(decoded, stopwatch_s() - began)

                async def get(i: int, store: ObjectStore = store) -> None:
                    assert len((await store.get(f"baseline/{i:06d}")).data) == size

                base = min(base, await _timed(get, batches))
    figures = _figures(kind, codec, record_bytes, batches * size, batches * raw.count, best, base)
    figures["decoded_records_per_s"] = round(batches * raw.count / decoded)
    return figures


async def _timed(one: Callable[[int], Awaitable[None]], count: int) -> float:
    """Seconds for ``count`` calls with ``IN_FLIGHT`` of them at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for i in numbers:
            await one(i)

    began = stopwatch_s()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return stopwatch_s() - began


def _input(codec: str, record_bytes: int) -> tuple[pa.Table, Batch]:
    """Columns of records, and the same as one encoded batch of about 1 MiB."""
    count = BATCH_BYTES // (record_bytes + 12)
    now_ms = SystemClock().wall_ms()
    value = bytes(i * 7 % 251 for i in range(record_bytes))
    table = pa.table(
        {
            "timestamp": pa.array([now_ms] * count, pa.timestamp("ms", tz="UTC")),
            "key": pa.array([None] * count, pa.binary()),
            "value": pa.array([value] * count, pa.binary()),
        }
    )
    if codec != "arrow":
        data = codecs.encode_kafka2(table, compression="none")
        return table, codecs.batch_of_kafka2(data)
    return table, codecs.encode_arrow(table, compression=None)


def _store(kind: str, folder: str) -> ObjectStore:
    return MemoryStore() if kind == "memory" else open_store(Path(folder).absolute().as_uri())


class _Handle:
    """A namespace with topic ``t`` on a fresh store."""

    def __init__(self, kind: str, folder: str) -> None:
        self.store = _store(kind, folder)

    async def __aenter__(self) -> Namespace:
        self.log = await Namespace.open(self.store)
        await self.log.create_topic("t", PARTITIONS)
        return self.log

    async def __aexit__(self, *_: object) -> None:
        await self.log.close()
        await self.store.aclose()


def _figures(
    kind: str, codec: str, record_bytes: int, size: int, records: int, best: float, base: float
) -> dict[str, Any]:
    return {
        "store": kind,
        "codec": codec,
        "record_bytes": record_bytes,
        "mb_per_s": round(size / best / 1e6, 1),
        "records_per_s": round(records / best),
        "baseline_mb_per_s": round(size / base / 1e6, 1),
        "ratio_to_baseline": round(base / best, 3),
    }
