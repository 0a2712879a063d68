"""``bench cost``: dollars at S3's list prices for a GiB that is ingested, archived and collected, and for a day.

The engine, the archiver and the collector are the real ones, in virtual time, over a simulated bucket with the
latencies of S3 Standard; each request is counted by verb and folder. Three workloads: 1 MB/s into 10 topics, 100 MB/s
into 100 topics of 10 partitions (both in sum, as stored batches; each writer commits once a second, all partitions at
once), and none at all. Upkeep looks in every five minutes.

**Scaled down.** The machine is too small for 100 MB/s in virtual time, so that two partitions of each workload are
simulated at their true rate, for as long as each takes to fill a file of the archive. The sizes at which a writer cuts
segments, or lets records ride in a manifest, shrink with the number of partitions; so a commit takes as many requests
as the real one. What upkeep does for each partition (reads of segments, files, swaps) is multiplied by the partitions
that were left out, and so are all bytes, which counts the fixed part of a manifest many times: an upper bound. What is
left unarchived at the end of the simulated span is billed as if it had been archived at the same cost.

**Computed, not simulated:** listing for the collector, which sweeps once an hour at most: one LIST for each 1,000
objects of two days' commits and thirty days' files. Deletes are free. Neither computing nor traffic is in the figures.

What it says (60 MiB, seed 1, November 2026):

                                  USD a day   USD a GiB   written/ingested
    1 MB/s, 10 partitions              1.33      0.0165               1.87
    100 MB/s, 1,000 partitions       155         0.0194               1.89
    idle                               0.0002         -                  -

Of 155 dollars, 138 are for reading: the archiver asks for each chunk alone, and with 1,000 partitions that share a
commit a chunk has 25 KB (of the 1.33 it is 0.35, and 0.87 are commits). Fewer and larger chunks cost less in
proportion: a writer that commits every ten seconds pays a tenth. One core archives 59 MB/s of stored batches of 100 KB,
and 41 MB/s of 25 KB.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headwater.api.upkeep import keep_up
from headwater.bench import records
from headwater.clock import cpu_s, stopwatch_s
from headwater.limits import INLINE_BYTES_MAX, MIB, SEGMENT_BYTES_TARGET
from headwater.log import keys
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.latency import S3_STANDARD, ZERO
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.store.base import Blob, Body, Stat, size_of
from headwater.store.metered import GET_USD, LIST_PAGE_KEYS, PUT_USD, MeteredStore
from headwater.store.prefixed import PrefixedStore
from headwater.types import Batch
from headwater.upkeep import idle
from headwater.upkeep.offload import inline

# AWS's public price list for S3 Standard in us-east-1, as read in November 2026; that of requests is in
# `store.metered`: PUT and LIST 0.005 for 1,000, GET 0.0004 for 1,000, DELETE free.
STORAGE_USD_GIB_MONTH: Final = 0.023

GIB: Final = 1 << 30
DAY_S: Final = 86_400
UPKEEP_EVERY_S: Final = 300
SWEEPS_A_DAY: Final = 24
COMMITS_KEPT_DAYS: Final = 2  # history.retention.ms is a day, and the collector's grace about another one
FILES_KEPT_DAYS: Final = 30
FILE_MIB: Final = 60  # chunks of one file: archive.bytes is 64 MiB and the archiver takes at most 60
RATE: Final = 100_000  # bytes a second of one partition, in both workloads
SIMULATED: Final = 2  # partitions
RUNS_A_DAY: Final = DAY_S // UPKEEP_EVERY_S
BATCHES_MADE: Final = 128  # different ones, used by turns: farther apart than a codec looks back
QUIET_DAYS: Final = 8  # after which everything that can go is gone
_EACH: Final = {("put", "archive"), ("put", "manifest"), ("get", "segment"), ("get", "archive"), ("put", "files")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """So many partitions of 0.1 MB/s each, written by so many processes."""

    name: str
    topics: int
    partitions: int
    writers: int

    @property
    def left_out(self) -> float:
        """By how much the simulation is smaller."""
        return self.topics * self.partitions / SIMULATED


WORKLOADS: Final = (
    Workload(name="1 MB/s x 10 topics", topics=10, partitions=1, writers=1),
    Workload(name="100 MB/s x 100 topics x 10 partitions", topics=100, partitions=10, writers=4),
)


def bench(file_mib: int = FILE_MIB, seed: int = 1) -> dict[str, Any]:
    """The report of ``headwater bench cost``. Files smaller than 60 MiB make it faster, and archiving dearer."""
    began = stopwatch_s()
    loads = [run(_loaded(each, file_mib, seed), rng=random.Random(seed), steps_max=1 << 62) for each in WORKLOADS]
    rest = run(_idle(seed), rng=random.Random(seed), steps_max=1 << 62)
    return {
        "bench": "cost",
        "file_mib": file_mib,
        "seed": seed,
        "usd_per_1000": {"put_list": PUT_USD * 1_000, "get_head": GET_USD * 1_000, "delete": 0.0},
        "storage_usd_per_gib_month": STORAGE_USD_GIB_MONTH,
        "amplification_max": max(row["bytes_written_to_ingested"] for row in loads),
        "results": [*loads, rest],
        "wall_s": round(stopwatch_s() - began, 1),
    }


class BilledStore(MeteredStore):
    """Counts requests by verb and folder, too, and bytes sent by folder."""

    def __init__(self, inner: SimStore) -> None:
        super().__init__(inner)
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        self.kinds["get", _folder(key)] += 1
        return await super().get(key, start=start, end=end)

    async def head(self, key: str) -> Stat:
        self.kinds["get", _folder(key)] += 1
        return await super().head(key)

    async def put(self, key: str, body: Body) -> Stat:
        self._note(key, body)
        return await super().put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self._note(key, body)
        return await super().put_if_absent(key, body)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        self._note(key, body)
        return await super().put_if_match(key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        before = self.counts.list
        async for stat in super().list(prefix, start_after=start_after, limit=limit):
            yield stat
        self.kinds["list", _folder(prefix)] += max(1, self.counts.list - before)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.kinds["delete", _folder(key)] += 1
        await super().delete(keys)

    def _note(self, key: str, body: Body) -> None:
        self.kinds["put", _folder(key)] += 1
        self.sent[_folder(key)] += size_of(body)


def _folder(key: str) -> str:
    """The kind of object: keys begin with the namespace."""
    return key.split("/", 2)[1]


# -- a workload -----------------------------------------------------------------------------------------


async def _loaded(load: Workload, file_mib: int, seed: int) -> dict[str, Any]:
    bucket = SimBucket(sim_loop())
    seconds = -(-file_mib * MIB // RATE) + 1
    writing, keeping = _billed(bucket, S3_STANDARD, seed), _billed(bucket, S3_STANDARD, seed + 1)
    first = await _opened(keeping, seed, load)
    await first.create_topic("t", SIMULATED, {"archive.bytes": str(file_mib * MIB)})
    keeping.kinds.clear()
    keeping.sent.clear()
    batches = _batches(RATE // load.writers)
    kept = asyncio.create_task(_keep(first, seconds))
    logs = [await _opened(writing, seed + 2 + i, load) for i in range(load.writers)]
    sizes = await asyncio.gather(*(_write(log, batches, seconds, i, len(logs)) for i, log in enumerate(logs)))
    archived, archive_s = await kept
    ingested = sum(sizes)
    assert archived, "a file was archived"
    row = _figures(load, writing, keeping, seconds, ingested, archived)
    row["archive_mb_per_cpu_s"] = round(archived / archive_s / 1e6, 1)
    return row | await _collected(first, keeping)


def _billed(bucket: SimBucket, profile: Any, seed: int) -> BilledStore:
    return BilledStore(SimStore(bucket, loop=sim_loop(), rng=random.Random(seed), profile=profile))


async def _opened(store: BilledStore, seed: int, load: Workload) -> Namespace:
    options = Options(
        inline_bytes_max=int(INLINE_BYTES_MAX / load.left_out),
        segment_bytes_target=int(SEGMENT_BYTES_TARGET / load.left_out),
        threads=False,
    )
    clock = SimClock(sim_loop())
    return await Namespace.open(store, clock=clock, rng=random.Random(seed), options=options, probe=False)


def _batches(size: int) -> list[Batch]:
    """Compressed batches of about ``size`` bytes as stored, of records of 100 bytes."""
    made: list[Batch] = []
    for block in records.blocks("100 B"):
        rows, at = size // 55, 0
        while at + rows <= block.num_rows and len(made) < BATCHES_MADE:
            batch = encode_arrow(block.slice(at, rows))
            rows_wanted = rows * size // len(batch.data)
            made.append(encode_arrow(block.slice(at, min(rows_wanted, block.num_rows - at))))
            at += rows
        if len(made) == BATCHES_MADE:
            return made
    raise AssertionError("records never end")


async def _write(log: Namespace, batches: list[Batch], seconds: int, number: int, writers: int) -> int:
    """Bytes that one writer appended in so many seconds."""
    loop, clock = sim_loop(), log.chain.clock
    rng = random.Random(number)
    await clock.sleep(rng.random())
    sent, start_s = 0, loop.time()
    for second in range(seconds):
        at = (second * writers + number) * SIMULATED
        chosen = [batches[(at + place) % BATCHES_MADE] for place in range(SIMULATED)]
        await log.append_many([("t", place, batch) for place, batch in enumerate(chosen)])
        sent += sum(len(batch.data) for batch in chosen)
        await clock.sleep(max(0.0, start_s + second + 1 - loop.time()))
    await log.drain()
    return sent


async def _keep(log: Namespace, seconds: int) -> tuple[int, float]:
    """Upkeep every five minutes and once at the end: bytes that were archived, and the seconds of CPU for it."""
    start_s, archived, took_s = sim_loop().time(), 0, 0.0
    for at_s in _runs(seconds):
        await log.chain.clock.sleep(start_s + at_s - sim_loop().time())
        began = cpu_s()
        report = await keep_up(log, offload=inline)
        assert not report.failed, report.failed
        archived += report.bytes_archived
        took_s += (cpu_s() - began) if report.files_archived else 0.0
    return archived, took_s


def _runs(seconds: int) -> list[int]:
    """When upkeep looks in, in seconds from the start."""
    return [*range(UPKEEP_EVERY_S, seconds, UPKEEP_EVERY_S), seconds + 5]


async def _collected(log: Namespace, store: BilledStore) -> dict[str, Any]:
    """Days without commits: the rest is archived, and what is dead by then is deleted."""
    before = store.kinds.copy()
    for _ in range(QUIET_DAYS):
        await log.chain.clock.sleep(DAY_S)
        report = await keep_up(log, offload=inline)
        assert not report.failed, report.failed
    gone = store.kinds - before
    left = [stat.key async for stat in log.store.list(keys.SEGMENTS)]
    return {
        "collected": {folder: n for (verb, folder), n in sorted(gone.items()) if verb == "delete"},
        "segments_left": len(left),
    }


def _figures(
    load: Workload,
    writing: BilledStore,
    keeping: BilledStore,
    seconds: int,
    ingested: int,
    archived: int,
) -> dict[str, Any]:
    a_day = DAY_S / seconds
    requests = _a_day(load, writing, keeping, seconds, ingested / archived)
    to_ingested = keeping.sent["archive"] / archived
    overhead = keeping.sent.total() - keeping.sent["archive"]
    gib = ingested * a_day * load.left_out / GIB
    return {
        "workload": load.name,
        "partitions_simulated": SIMULATED,
        "multiplied_by": load.left_out,
        "simulated_s": seconds,
        "gib_per_day": round(gib, 2),
        **_bill(requests, gib),
        "archive_reads_usd_per_day": round(requests["get", "segment"] * GET_USD, 5),
        "bytes_written_to_ingested": round((writing.sent.total() + overhead) / ingested + to_ingested, 3),
        "archived_to_ingested": round(to_ingested, 3),
        "storage_usd_per_gib_month": round(STORAGE_USD_GIB_MONTH * to_ingested, 4),
        "requests_per_mib": round(_paid(requests) / (gib * 1_024), 3),
        "per_day": _by_kind(requests),
    }


def _a_day(
    load: Workload, writing: BilledStore, keeping: BilledStore, seconds: int, rest: float
) -> Counter[tuple[str, str]]:
    """Requests of a day of the whole workload. ``rest``: ingested bytes for each that was archived."""
    a_day, requests = DAY_S / seconds, Counter[tuple[str, str]]()
    for kind, count in writing.kinds.items():
        requests[kind] += round(count * a_day)
    for kind, count in keeping.kinds.items():
        if kind in _EACH:
            requests[kind] += round(count * a_day * load.left_out * rest)
        elif kind == ("get", "manifest"):  # it follows the writers' commits
            requests[kind] += round(count * a_day)
        else:
            requests[kind] += round(count * RUNS_A_DAY / len(_runs(seconds)))
    objects = COMMITS_KEPT_DAYS * (requests["put", "manifest"] + requests["put", "segment"])
    objects += FILES_KEPT_DAYS * requests["put", "archive"]
    requests["list", "sweep"] = SWEEPS_A_DAY * -(-objects // LIST_PAGE_KEYS)
    return requests


def _bill(requests: Counter[tuple[str, str]], gib: float) -> dict[str, Any]:
    verbs: Counter[str] = Counter()
    for (verb, _), count in requests.items():
        verbs[verb] += count
    usd = (verbs["put"] + verbs["list"]) * PUT_USD + verbs["get"] * GET_USD
    return {
        **{f"{verb}_per_day": verbs[verb] for verb in ("put", "get", "list")},
        "usd_per_day": round(usd, 5),
        "usd_per_gib": round(usd / gib, 5) if gib else None,
    }


def _paid(requests: Counter[tuple[str, str]]) -> int:
    return sum(count for (verb, _), count in requests.items() if verb != "delete")


def _by_kind(requests: Counter[tuple[str, str]]) -> dict[str, int]:
    return {f"{verb} {folder}": count for (verb, folder), count in sorted(requests.items()) if count}


# -- nothing at all -------------------------------------------------------------------------------------


async def _idle(seed: int) -> dict[str, Any]:
    """A day of a namespace that has come to rest, kept up by one process, and by a fresh process each time."""
    bucket = SimBucket(sim_loop())
    store = _billed(bucket, ZERO, seed)
    log = await _opened(store, seed, WORKLOADS[0])
    await log.create_topic("t")
    await log.append("t", 0, _batches(RATE)[0])
    for _ in range(QUIET_DAYS):
        await keep_up(log, offload=inline)
        await log.chain.clock.sleep(DAY_S)
    warm, cold = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for _ in range(DAY_S // UPKEEP_EVERY_S):
        before = store.kinds.copy()
        await keep_up(log, offload=inline)
        between = store.kinds.copy()
        await _cold(store, seed)
        warm += between - before
        cold += store.kinds - between
        await log.chain.clock.sleep(UPKEEP_EVERY_S)
    bills = {name: _bill(each, 0.0) for name, each in (("", warm), ("cold_", cold))}
    return {
        "workload": "idle",
        "gib_per_day": 0.0,
        **{f"{name}{figure}": value for name, bill in bills.items() for figure, value in bill.items()},
        "per_day": _by_kind(warm),
        "cold_per_day": _by_kind(cold),
    }


async def _cold(store: BilledStore, seed: int) -> None:
    """Upkeep by a process that knows nothing, as a function does it."""
    clock = SimClock(sim_loop())
    if not await idle.rests(PrefixedStore(store, "default/"), clock):
        await keep_up(await _opened(store, seed, WORKLOADS[0]), offload=inline)
