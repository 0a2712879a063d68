"""The course of the demonstration: load, produce unless it is there already, archive, read with two readers, check.

The flights are archived at once and read from Parquet files; the weather stays in chunks. What the archive is good for
comes last (``demo.history``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from headwater.clock import stopwatch_s, system_entropy
from headwater.demo import history as past
from headwater.demo.check import Check, Mismatch
from headwater.demo.history import History
from headwater.demo.source import PACKAGE, Source, load
from headwater.errors import Conflict
from headwater.log import partitioner
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Appended, Namespace
from headwater.schemas.change import set_schema
from headwater.store.base import ObjectStore
from headwater.store.metered import Counts, MeteredStore
from headwater.types import Batch

MARK = "headwater.demo"  # the configuration that tells our topics from others of the same name
CONFIG = {
    "flights": {"archive.ms": "1"},
    "weather": {"archive.enable": "false"},
    "departures": {"archive.enable": "false"},
    "planes": {"cleanup.policy": "compact"},
}
BATCH_BYTES = 1 << 20
IN_FLIGHT_MAX = 4  # commits, each of a block of rows

Progress = Callable[[str, str, int, int], None]  # what is done ("produce", "consume", …), topic, records done, of


class NotOurs(Conflict):
    """A topic of the demonstration's name exists, and somebody else made it."""

    what_now = "Choose another --namespace or --store."


@dataclass(slots=True, kw_only=True)
class Figures:
    """What the run did. Times in seconds; ``out_s`` is reading without the comparing, ``check_s``."""

    store: str
    namespace: str
    produced: bool = False
    records: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    value_bytes: int = 0
    objects: int = 0
    bytes: int = 0
    in_s: float = 0.0
    out_s: float = 0.0
    check_s: float = 0.0
    written: Counts = field(default_factory=Counts)
    read: Counts = field(default_factory=Counts)
    history: History = field(default_factory=History)

    def as_dict(self) -> dict[str, Any]:
        total = sum(self.records.values())
        return {
            **asdict(self),
            "records_per_s_in": round(total / self.in_s) if self.in_s else None,
            "records_per_s_out": round(total / self.out_s) if self.out_s else None,
            "cost_usd_in": self.written.cost_usd(),
            "cost_usd_out": self.read.cost_usd(),
        }


async def run(store: ObjectStore, namespace: str, *, limit: int | None, on_progress: Progress) -> Figures:
    """The whole demonstration on ``store``. A second call finds complete topics, and reads and checks them again.

    Raises:
        DataMissing: the extra ``demo`` is not installed.
        NotOurs: a topic ``flights`` or ``weather`` is there and was not made by the demonstration.
        Mismatch: what was read is not what was written.
    """
    sources = await asyncio.to_thread(load, limit)
    metered = MeteredStore(store)
    figures = Figures(store=store.url, namespace=namespace)
    async with await Namespace.open(metered, namespace) as log:
        refuse_others(log, [source.topic for source in sources])
        complete = all(is_complete(log, source) for source in sources)
        if complete:
            try:
                await past.archived(log, figures.history)
                await _read_back(metered, figures, sources, on_progress)
            except Mismatch:
                complete = False  # an older version's rows, for one: make them anew
        if not complete:
            await _produce(log, metered, figures, sources, on_progress)
            await log.drain()
            await past.archived(log, figures.history)
            await _read_back(metered, figures, sources, on_progress)
        figures.history.commit = (await log.refresh()).seq
        flights = sources[0]
        await past.shown(
            log, store, flights, figures.history, lambda what, done: on_progress(what, flights.topic, done, 1)
        )
        await _measure(log, figures)
    return figures


def refuse_others(log: Namespace, topics: Iterable[str]) -> None:
    """Raise ``NotOurs`` if somebody else made one of these."""
    for topic in topics:
        found = log.state.named(topic)
        if found is not None and found.config.get(MARK) != PACKAGE:
            raise NotOurs(f"Namespace {log.name!r} has a topic {topic!r} that the demo did not make.")


def is_complete(log: Namespace, source: Source) -> bool:
    """Whether the topic is there, with a schema and as many records as the source."""
    found = log.state.named(source.topic)
    if found is None or found.schema is None or len(found.partitions) != source.partitions:
        return False  # one without a schema is an older version's
    return all(p.start == 0 for p in found.partitions) and sum(p.next for p in found.partitions) == len(source)


# -- in ---------------------------------------------------------------------------------------------------


async def _produce(
    log: Namespace, metered: MeteredStore, figures: Figures, sources: list[Source], on_progress: Progress
) -> None:
    before, started = metered.counts.copy(), stopwatch_s()
    await produce(log, sources, on_progress)
    figures.produced = True
    figures.in_s = stopwatch_s() - started
    figures.written = metered.counts - before


async def produce(log: Namespace, sources: list[Source], on_progress: Progress) -> None:
    """Make the topics anew, and append all rows."""
    for source in sources:
        if log.state.named(source.topic) is not None:
            await log.delete_topic(source.topic)
        await log.create_topic(source.topic, source.partitions, {MARK: PACKAGE, **CONFIG[source.topic]})
        await set_schema(log, source.topic, "json", source.schema())
    for source in sources:
        await _produce_topic(log, source, on_progress)


async def _produce_topic(log: Namespace, source: Source, on_progress: Progress) -> None:
    """Blocks in order, several commits in flight; the next block is encoded in a thread meanwhile."""
    flying: deque[asyncio.Task[list[Appended]]] = deque()
    sticky = partitioner.Sticky(BATCH_BYTES, system_entropy())
    blocks = source.blocks()
    done = 0

    async def land() -> None:
        nonlocal done
        done += sum(placed.count for placed in await flying.popleft())
        on_progress("produce", source.topic, done, len(source))

    try:
        while batches := await asyncio.to_thread(_encode_next, source, blocks, sticky):
            while len(flying) >= IN_FLIGHT_MAX:
                await land()
            flying.append(asyncio.get_running_loop().create_task(log.append_many(batches)))
            await log.chain.clock.sleep(0)  # send it off before the next block is encoded
        while flying:
            await land()
    finally:
        await asyncio.gather(*flying, return_exceptions=True)


def _encode_next(source: Source, blocks: Any, sticky: partitioner.Sticky) -> list[tuple[str, int, Batch]]:
    block: pa.Table | None = next(blocks, None)
    if block is None:
        return []
    parts = partitioner.split(block, source.partitions, sticky.take(source.partitions, block.nbytes))
    return [(source.topic, partition, encode_arrow(rows)) for partition, rows in parts.items()]


# -- out --------------------------------------------------------------------------------------------------


async def _read_back(metered: MeteredStore, figures: Figures, sources: list[Source], on_progress: Progress) -> None:
    """Two readers that know nothing of the writer, each with every other partition."""
    checks = [await asyncio.to_thread(Check, source) for source in sources]
    figures.batches = figures.value_bytes = 0
    before, started = metered.counts.copy(), stopwatch_s()
    readers = [asyncio.create_task(_read_half(metered, figures, checks, half, on_progress)) for half in (0, 1)]
    try:
        await asyncio.gather(*readers)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    for check in checks:
        check.finish()
        figures.records[check.source.topic] = check.seen
    figures.check_s = sum(check.spent_s for check in checks)
    figures.out_s = stopwatch_s() - started - figures.check_s
    figures.read = metered.counts - before


async def _read_half(
    metered: MeteredStore, figures: Figures, checks: list[Check], half: int, on_progress: Progress
) -> None:
    async with await Namespace.open(metered, figures.namespace) as log:
        for check in checks:
            topic = check.source.topic
            for partition in range(half, check.source.partitions, 2):
                async for chunk in log.reader.chunks(topic, partition, 0):
                    rows = chunk.decode()
                    figures.batches += 1
                    figures.value_bytes += rows.column("value").nbytes
                    check.feed(partition, rows)
                    on_progress("consume", topic, check.seen, len(check.source))


async def _measure(log: Namespace, figures: Figures) -> None:
    async for stat in log.store.list(""):
        figures.objects += 1
        figures.bytes += stat.size
