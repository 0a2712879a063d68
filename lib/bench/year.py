"""``bench year``: a simulated year of a namespace, archived and collected as it goes; nothing may grow with history.

Real: the fold, snapshots and index pages, the archiver with its Parquet files, the collector, cold starts and commits.
Synthetic: time, which a clock of our own moves on; the store, which is memory; and how manifests come about, namely one
after another without a journal. One manifest in ``manifests / segments`` names a segment of its own with a few small
records; the others commit a group's offset, as readers do. Every day of the year the namespace is kept, as ``headwater
maintain`` does it.

Of objects that a year leaves behind, only the archive's files may grow, since they hold the records.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from headwater.clock import SystemClock, cpu_s
from headwater.log import frame, keys, small
from headwater.log.intents import FORMAT, Intent, Manifest, SegmentHeader, encode_manifest, encode_segment, new_id
from headwater.log.namespace import Namespace
from headwater.log.operations import Chunk, CommitOffsets, CreateTopic, OffsetEntry
from headwater.log.options import Options
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.types import Batch, Record
from headwater.upkeep.archiver import archive
from headwater.upkeep.collector import collect
from headwater.upkeep.offload import inline

DAYS: Final = 365
DAY_MS: Final = 86_400_000
START_MS: Final = 1_800_000_000_000
COMMITS: Final = 200  # made at each checkpoint, to see what one costs
SNAPSHOT_EVERY: Final = Options().snapshot_every
KINDS: Final = (
    *(keys.MANIFESTS, keys.SEGMENTS, keys.SNAPSHOTS, keys.INDEXES, keys.BOUNDARIES),
    *(keys.FILE_PAGES, keys.ARCHIVE),
)


class Calendar:
    """A clock that moves when it is told to, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now_ms = float(START_MS)

    def wall_ms(self) -> int:
        return int(self.now_ms)

    def elapsed_s(self) -> float:
        return self.now_ms / 1_000

    async def sleep(self, seconds: float) -> None:
        self.now_ms += seconds * 1_000
        await SystemClock().sleep(0)


def bench(
    manifests: int = 100_000, segments: int = 10_000, *, partitions: int = 4, checkpoints: int = 10
) -> dict[str, Any]:
    """The report of ``headwater bench year``."""
    year = _Year(manifests, max(1, manifests // max(segments, 1)), partitions)
    return asyncio.run(year.run(checkpoints))


class _Year:
    """The namespace, and what its life has cost so far."""

    def __init__(self, manifests: int, every: int, partitions: int) -> None:
        self.clock = Calendar()
        self.store = MemoryStore(clock=self.clock)
        self.rng = random.Random(1)
        self.manifests = manifests
        self.every = every  # one manifest in so many names a segment
        self.partitions = partitions
        self.batch = _batch()
        self.line = encode_segment(SegmentHeader(v=FORMAT, kind="segment", writer="year"), len(self.batch.data))
        self.log = Namespace(
            self.store,
            clock=self.clock,
            rng=self.rng,
            options=Options(snapshot_every=1 << 60, snapshot_bytes=1 << 60),
        )
        self.cpu = {"append": 0.0, "snapshots": 0.0, "archive": 0.0, "collect": 0.0}
        self.counts = {"segments": 0, "files": 0, "merged": 0, "collected": 0, "raised": 0, "pruned": 0}

    async def run(self, checkpoints: int) -> dict[str, Any]:
        began = cpu_s()
        topic = CreateTopic(name="t", partitions=self.partitions)
        self._put([Intent(id=new_id(self.rng), tip=0, ops=[topic])])
        points = []
        for day in range(1, DAYS + 1):
            await self._live(self.manifests * day // DAYS)
            self.clock.now_ms = START_MS + day * DAY_MS
            await self._keep()
            if day * checkpoints % DAYS < checkpoints:
                points.append({"day": day, **await self._checkpoint()})
        return {
            "bench": "year",
            "manifests": self.log.state.seq,
            "partitions": self.partitions,
            **self.counts,
            "archived_records": sum(place.archived for place in self.log.topic("t").partitions),
            "checkpoints": points,
            "growth": _growth(points),
            "cpu_s": {name: round(spent, 1) for name, spent in self.cpu.items()},
            "cpu_s_total": round(cpu_s() - began, 1),
        }

    # -- a day -----------------------------------------------------------------------------------------

    async def _live(self, until: int) -> None:
        """Manifests up to number ``until``, and a snapshot whenever one is due."""
        state, began, snapshots = self.log.state, cpu_s(), 0.0
        step_ms = DAYS * DAY_MS / self.manifests
        while state.seq < until:
            self.clock.now_ms += step_ms
            seq = state.seq + 1
            if seq % self.every:
                self._put([self._offsets(seq)])
            else:
                self._put([await self._segment(seq)])
            if seq % SNAPSHOT_EVERY == 0:
                at = cpu_s()
                await self.log.house.snapshot()
                snapshots += cpu_s() - at
                state = self.log.state
        self.cpu["snapshots"] += snapshots
        self.cpu["append"] += cpu_s() - began - snapshots

    def _put(self, intents: list[Intent]) -> None:
        seq = self.log.state.seq + 1
        manifest = Manifest(
            v=FORMAT,
            kind="manifest",
            seq=seq,
            id=f"year-{seq}",
            writer="year",
            time=self.clock.wall_ms(),
            intents=intents,
        )
        data = encode_manifest(manifest, 0)
        _now(self.log.store.put(keys.manifest_key(seq), data))
        self.log.chain.fold(manifest, len(data))
        self.log.chain.known(self.log.chain.now())

    def _offsets(self, seq: int) -> Intent:
        entry = OffsetEntry(1, seq % self.partitions, seq)
        op = CommitOffsets(group=f"g{seq % 8}", offsets=[entry])
        return Intent(id=f"offsets-{seq}", tip=seq - 1, ops=[op])

    async def _segment(self, seq: int) -> Intent:
        """A segment with one batch, and the intent that names it."""
        self.counts["segments"] += 1
        key = keys.segment_key(seq - 1, "year", seq)
        await self.log.store.put(key, [self.line, self.batch.data])
        chunk = Chunk(
            topic=1,
            partition=self.counts["segments"] % self.partitions,
            count=self.batch.count,
            codec=self.batch.codec,
            pos=len(self.line),
            len=len(self.batch.data),
            crc=frame.checksum(self.batch.data),
            min=self.batch.timestamp_min,
            max=self.batch.timestamp_max,
            obj=key,
        )
        return Intent(id=f"segment-{seq}", tip=seq - 1, appends=[chunk])

    async def _keep(self) -> None:
        """What ``headwater maintain`` does for the log itself."""
        began = cpu_s()
        archived = await archive(self.log, offload=inline)
        self.cpu["archive"] += cpu_s() - began
        self.counts["files"] += archived.files
        self.counts["merged"] += archived.merged
        began = cpu_s()
        self.counts["pruned"] += await self.log.house.prune()
        report = await collect(self.log)
        self.counts["collected"] += report.objects
        self.counts["raised"] += report.raised
        await self.log.drain()
        self.cpu["collect"] += cpu_s() - began

    # -- what must not grow ----------------------------------------------------------------------------

    async def _checkpoint(self) -> dict[str, Any]:
        state = self.log.state
        objects = {kind.rstrip("/"): 0 for kind in KINDS}
        sizes = dict(objects)
        async for stat in self.log.store.list(""):
            kind = stat.key.partition("/")[0]
            if kind in objects:
                objects[kind] += 1
                sizes[kind] += stat.size
        return {
            "seq": state.seq,
            "state_bytes": len(msgspec.json.encode(state)),
            "snapshot_bytes": sizes["snapshot"] // max(objects["snapshot"], 1),
            "pages": len(state.pages),
            "objects": objects,
            "bytes": sum(sizes.values()) - sizes["archive"],
            "archive_bytes": sizes["archive"],
            "cold_start": await self._cold_start(),
            "commit_us": await self._commits(),
        }

    async def _cold_start(self) -> dict[str, Any]:
        """Requests and CPU of a process that opens the namespace; the best of three."""
        runs = []
        for _ in range(3):
            metered = MeteredStore(self.store)
            began = cpu_s()
            fresh = await Namespace.open(metered, clock=self.clock, rng=random.Random(2), probe=False)
            runs.append((round((cpu_s() - began) * 1_000, 1), metered.counts.get, metered.counts.list))
            assert fresh.state.seq == self.log.state.seq, "a cold start sees every manifest"
        cpu_ms, gets, lists = min(runs)
        return {"gets": gets, "lists": lists, "cpu_ms": cpu_ms}

    async def _commits(self) -> float:
        """CPU of a commit of a group's offset through the whole write path, in µs."""
        spent = []
        for number in range(COMMITS):
            began = cpu_s()
            await self.log.commit_offsets("checkpoint", {("t", 0): number})
            spent.append(cpu_s() - began)
        return round(sorted(spent)[COMMITS // 2] * 1e6, 1)


def _batch() -> Batch:
    """Ten records of about 20 bytes."""
    records = [Record(key=b"k%d" % i, value=b"a simulated value", timestamp=START_MS + i) for i in range(10)]
    return small.batch_of(records)


def _now(call: Any) -> None:
    """Run what never waits: a call of the store in memory costs a task otherwise."""
    try:
        call.send(None)
    except StopIteration:
        return
    raise AssertionError("the store in memory does not wait")


def _growth(points: list[dict[str, Any]]) -> dict[str, float]:
    """The later half of the year as a multiple of the earlier one: the most of either; of CPU times the least.

    Files gather and are merged, so a single checkpoint says where in that cycle it is, and not whether anything grows.
    """
    half = max(len(points) // 2, 1)
    before, after = points[:half], points[half:] or points

    def ratio(of: Callable[[dict[str, Any]], float], best: Callable[[Iterable[float]], float] = max) -> float:
        return round(float(best(map(of, after))) / max(best(map(of, before)), 1e-9), 3)

    return {
        "state_bytes": ratio(lambda point: point["state_bytes"]),
        "snapshot_bytes": ratio(lambda point: point["snapshot_bytes"]),
        "pages": ratio(lambda point: point["pages"]),
        "objects_but_files": ratio(lambda point: sum(point["objects"].values()) - point["objects"]["archive"]),
        "bytes_but_files": ratio(lambda point: point["bytes"]),
        "cold_start_gets": ratio(lambda point: point["cold_start"]["gets"]),
        "cold_start_cpu": ratio(lambda point: point["cold_start"]["cpu_ms"], min),
        "commit_us": ratio(lambda point: point["commit_us"], min),
    }
