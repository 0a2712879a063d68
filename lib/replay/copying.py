"""A replay into another topic of the namespace, exactly once.

Every transaction carries records and, as offsets of a group, how far the source is read: both become visible by one
commit, so a run that stops anywhere is gone on with where it stopped. The transactional id fences an earlier run that
is still alive. The group's name is made of all that decides what is copied, so the same command goes on and another one
begins anew. It is remembered as long as offsets of groups are.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import pyarrow as pa

from headwater.errors import AlreadyExists, Conflict, Indeterminate, InvalidRequest
from headwater.limits import BATCH_BYTES_MAX, COPY_BYTES, COPY_TRIES_MAX
from headwater.log import partitioner
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.log.producer import Producer, Transaction
from headwater.replay.stream import Replay

PREFIX: Final = "replay-"
COLUMNS: Final = ("partition", "offset", "timestamp", "key", "value", "headers")  # what a replay must give for a copy
_RECORD: Final = ("timestamp", "key", "value", "headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a run did. ``before`` is how many offsets earlier runs had passed already."""

    topic: str
    target: str
    group: str
    records: int
    transactions: int
    before: int


def group_of(target: str, plan: Mapping[str, Any]) -> str:
    """The group that remembers how far the copy of ``plan`` into ``target`` is."""
    digest = hashlib.sha256(msgspec.json.encode(dict(plan), order="deterministic")).hexdigest()
    return f"{PREFIX}{target}-{digest[:16]}"


async def copy(namespace: Namespace, replay: Replay, target: str, group: str) -> Copied:
    """Append the records of ``replay`` to ``target`` that earlier runs under ``group`` have not.

    A target that does not exist is made, with as many partitions as the source has. With as many partitions a record
    keeps its own; else its key decides, as for a producer. Timestamps and headers stay.

    Raises:
        InvalidRequest: source and target are one topic, or the target refuses a record.
        Conflict: another run of the same copy has taken over (``Fenced``), or keeps an outcome open.
        and what a replay raises. In all cases the next run goes on where this one stopped.

    Cost: 1 commit for each 8 MiB of records.
    """
    source = replay.view.topic.name
    if source == target:
        raise InvalidRequest(f"Topic {source!r} cannot be replayed into itself: name another one.")
    await _make(namespace, target, len(replay.view.topic.partitions))
    producer = await namespace.producer(group)  # from here on an earlier run can commit nothing
    run = _Run(namespace, producer, source, target, group)
    done = {p: place.offset for (topic, p), place in (await namespace.committed(group)).items() if topic == source}
    spans = [replace(span, start=min(max(span.start, done.get(span.partition, 0)), span.end)) for span in replay.spans]
    before = sum(new.start - old.start for new, old in zip(spans, replay.spans, strict=True))
    left = replace(replay, spans=[span for span in spans if span.start < span.end])
    async for gathered in _gathered(left):
        await run.send(gathered)
    ends = {span.partition: span.end for span in left.spans}
    if any(run.passed.get(partition, -1) < end for partition, end in ends.items()):
        await run.finish(ends)  # the last records may have been filtered out
    return Copied(
        topic=source, target=target, group=group, records=run.records, transactions=run.transactions, before=before
    )


async def _make(namespace: Namespace, target: str, partitions: int) -> None:
    await namespace.refresh()
    if namespace.state.named(target) is None:
        try:
            await namespace.create_topic(target, partitions)
        except AlreadyExists:
            await namespace.refresh()


class _Run:
    """One run of a copy."""

    def __init__(self, namespace: Namespace, producer: Producer, source: str, target: str, group: str) -> None:
        self.records = self.transactions = 0
        self.passed: dict[int, int] = {}
        self._namespace, self._producer = namespace, producer
        self._source, self._target, self._group = source, target, group
        self._sticky = partitioner.Sticky(COPY_BYTES, namespace.chain.rng)
        found = namespace.topic(target)
        self._partitions = len(found.partitions)
        self._keeps = self._partitions == len(namespace.topic(source).partitions)

    async def send(self, table: pa.Table) -> None:
        """One transaction of these records."""
        transaction = self._producer.transaction()
        for partition, rows in self._placed(table).items():
            for part in _batches(rows.select(_RECORD)):
                await transaction.append(self._target, partition, encode_arrow(part))
        last = table.group_by("partition").aggregate([("offset", "max")]).to_pylist()
        await self._commit(transaction, {row["partition"]: row["offset_max"] + 1 for row in last})
        self.records += table.num_rows

    async def finish(self, ends: Mapping[int, int]) -> None:
        """Remember that everything was looked at."""
        await self._commit(self._producer.transaction(), ends)

    def _placed(self, table: pa.Table) -> dict[int, pa.Table]:
        if self._keeps:
            return partitioner.grouped(table, table.column("partition"))
        return partitioner.split(table, self._partitions, self._sticky.take(self._partitions, table.nbytes))

    async def _commit(self, transaction: Transaction, passed: Mapping[int, int]) -> None:
        await transaction.send_offsets(self._group, {(self._source, p): offset for p, offset in passed.items()})
        for _ in range(COPY_TRIES_MAX):
            try:
                await transaction.commit()
                break
            except Indeterminate:
                continue  # the same commit takes effect once, and then says so
        else:
            raise Conflict("The store does not say what became of the last transaction. The next run finds out.")
        self.transactions += 1
        self.passed |= passed


async def _gathered(replay: Replay) -> AsyncIterator[pa.Table]:
    """The batches in tables of about COPY_BYTES."""
    held: list[pa.RecordBatch] = []
    nbytes = 0
    batches = replay.batches()
    try:
        async for batch in batches:
            for start, rows in _steps(batch, COPY_BYTES):
                held.append(batch.slice(start, rows))
                nbytes += held[-1].nbytes
                if nbytes >= COPY_BYTES:
                    yield pa.Table.from_batches(held)
                    held, nbytes = [], 0
    finally:
        await batches.aclose()  # type: ignore[attr-defined]
    if any(batch.num_rows for batch in held):
        yield pa.Table.from_batches(held)


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    """The rows in batches that are far below what one may hold."""
    whole = table.combine_chunks().to_batches()
    return [batch.slice(start, rows) for batch in whole for start, rows in _steps(batch, BATCH_BYTES_MAX // 2)]


def _steps(batch: pa.RecordBatch, nbytes: int) -> list[tuple[int, int]]:
    """Slices of about ``nbytes``, as (first row, rows)."""
    rows = max(1, batch.num_rows * nbytes // max(batch.nbytes, 1))
    return [(start, min(rows, batch.num_rows - start)) for start in range(0, batch.num_rows, rows)]
