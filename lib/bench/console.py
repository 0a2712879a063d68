"""``bench console``: what the console's pages cost its server where a namespace is large.

10,000 partitions and 65,000 groups are made straight in the fold, by manifests that lie in a memory store as writers
would have left them. Then each page is asked for through the whole application, in process. Before each time one more
manifest is there, so that nothing which is kept by the commit's number helps: the state is warm, the page is not. The
figure is CPU time of the server, the fold of that manifest and the page's reading included.
"""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
from typing import Any, Final

from headwater.api import http
from headwater.api.app import App
from headwater.api.runtime import Settings, app_for
from headwater.clock import SystemClock, cpu_s
from headwater.console.app import ConsoleApp
from headwater.log import frame, keys
from headwater.log.batch import batch_of_records
from headwater.log.intents import FORMAT, Intent, Manifest, encode_manifest, new_id
from headwater.log.namespace import Namespace
from headwater.log.operations import AnyOp, Chunk, CommitOffsets, CreateTopic, JoinGroup, OffsetEntry
from headwater.log.options import Options
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.types import Record

TOPIC_PARTITIONS: Final = 100
PLACES: Final = 4  # partitions that a group has committed
MANIFEST_OPS: Final = 500  # groups that one manifest moves
MEMBERS_EVERY: Final = 20  # one group in so many has a member
BASE: Final = 1 << 18  # where the payload of each manifest lies
BUDGET_MS: Final = 300
PAGES: Final = {
    "overview": "",
    "topics": "/topics",
    "topics by bytes": "/topics?sort=bytes",
    "topic": "/topics/topic-00000",
    "messages": "/topics/topic-00000/messages?from=earliest",
    "groups by lag": "/groups",
    "groups by name": "/groups?sort=name",
    "groups found": "/groups?q=0001",
    "group": "/groups/group-00001",
    "transactions": "/transactions",
    "streams": "/streams",
    "commits": "/commits",
    "storage": "/storage",
}


def bench(partitions: int = 10_000, groups: int = 65_000, rounds: int = 10) -> dict[str, Any]:
    """The report of ``headwater bench console``."""
    return asyncio.run(_bench(partitions, groups, rounds))


async def _bench(partitions: int, groups: int, rounds: int) -> dict[str, Any]:
    before = _memory_mib()
    store = MemoryStore()
    world = _World(store, partitions, groups)
    await world.make()
    app = app_for("dev", Settings(store="memory://", auth="none"), store=store, kind=ConsoleApp)
    pages = {}
    for name, path in PAGES.items():
        await _timed(app, path)  # opens, loads and compiles
        spent = []
        for _ in range(rounds):
            await world.grow()
            spent.append(await _timed(app, path))
        pages[name] = {"p50_ms": round(statistics.median(spent), 1), "max_ms": round(max(spent), 1)}
    await app.close()
    return {
        "bench": "console",
        "partitions": world.partitions,
        "groups": groups,
        "commits": world.seq,
        "rounds": rounds,
        "pages": pages,
        "budget_ms": BUDGET_MS,
        "within": all(page["p50_ms"] < BUDGET_MS for page in pages.values()),
        "memory_mib": {"before": before, "most": _memory_mib()},
    }


class _World:
    """A namespace that grows by a manifest whenever it is asked to."""

    def __init__(self, store: ObjectStore, partitions: int, groups: int) -> None:
        self._rng = random.Random(1)
        self._topics = max(1, partitions // TOPIC_PARTITIONS)
        self._wide = min(partitions, TOPIC_PARTITIONS)
        self._groups = groups
        self._batch = batch_of_records(
            [Record(key=b"key-%d" % n, value=b'{"number": %d}' % n) for n in range(10)], default_timestamp=0
        )
        options = Options(snapshot_every=1 << 60, snapshot_bytes=1 << 60)
        self._log = Namespace(store, clock=SystemClock(), options=options)
        self.partitions = self._topics * self._wide
        self.seq = 0

    async def make(self) -> None:
        """Topics, a chunk in each partition, groups with their offsets, some with a member, and a snapshot of it."""
        for topic in range(self._topics):
            await self._commit([CreateTopic(name=f"topic-{topic:05}", partitions=self._wide)])
        for topic in range(self._topics):
            await self._commit([], [(topic + 1, number) for number in range(self._wide)])
        for first in range(0, self._groups, MANIFEST_OPS):
            await self._commit([self._moved(n) for n in range(first, min(first + MANIFEST_OPS, self._groups))])
        alive = range(0, self._groups, MEMBERS_EVERY)
        for first in range(0, len(alive), MANIFEST_OPS):
            await self._commit([self._joined(number) for number in alive[first : first + MANIFEST_OPS]])
        await self._log.house.snapshot()

    async def grow(self) -> None:
        """One commit more: a chunk, and ten groups that moved."""
        place = self._rng.randrange(self._topics) + 1, self._rng.randrange(self._wide)
        idle = [n for n in range(self._groups) if n % MEMBERS_EVERY]
        await self._commit([self._moved(n) for n in self._rng.sample(idle, min(10, len(idle)))], [place])

    def _moved(self, number: int) -> AnyOp:
        places = self._rng.sample(range(self._wide), min(PLACES, self._wide))
        offsets = [OffsetEntry(number % self._topics + 1, at, self._rng.randrange(10)) for at in places]
        return CommitOffsets(group=f"group-{number:05}", offsets=offsets)

    def _joined(self, number: int) -> AnyOp:
        topics = [f"topic-{number % self._topics:05}"]
        return JoinGroup(group=f"group-{number:05}", member=f"member-{number:05}", topics=topics)

    async def _commit(self, ops: list[AnyOp], places: list[tuple[int, int]] | None = None) -> None:
        self.seq += 1
        places = places or []
        chunks = [self._chunk(topic, partition, at) for at, (topic, partition) in enumerate(places)]
        intent = Intent(id=new_id(self._rng), tip=self.seq - 1, appends=chunks, ops=ops)
        now_ms = self._log.chain.clock.wall_ms()
        manifest = Manifest(
            v=FORMAT,
            kind="manifest",
            seq=self.seq,
            id=new_id(self._rng),
            writer="bench",
            time=now_ms,
            intents=[intent],
        )
        payload = bytes(self._batch.data) * len(places)
        data = encode_manifest(manifest, len(payload), BASE) + payload
        await self._log.store.put(keys.manifest_key(self.seq), data)
        self._log.chain.fold(manifest, len(data))

    def _chunk(self, topic: int, partition: int, at: int) -> Chunk:
        batch = self._batch
        return Chunk(
            topic=topic,
            partition=partition,
            count=batch.count,
            codec=batch.codec,
            pos=BASE + at * len(batch.data),
            len=len(batch.data),
            crc=frame.checksum(batch.data),
            min=batch.timestamp_min,
            max=batch.timestamp_max,
        )


async def _timed(app: App, path: str) -> float:
    """CPU ms of one page."""
    raw_path, _, raw_query = f"/console{path}".partition("?")
    incoming = http.Incoming(method="GET", raw_path=raw_path, raw_query=raw_query, headers={"accept": "text/html"})
    began = cpu_s()
    response = await http.serve(incoming, app)
    spent = (cpu_s() - began) * 1_000
    assert response.status == 200, response.body
    return spent


def _memory_mib() -> int:
    """What this process has held at the most, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
