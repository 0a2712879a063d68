"""The registry of a namespace: the one place here that reads and writes its log.

Reading goes on from where this process was, so it costs one GET at the tip when nothing was written. Writing is a
compare-and-set without any server. A process takes the next epoch of the producer ``__registry``, which fences all
others, then reads to the end, decides, and appends in a transaction of that epoch. If the transaction is applied,
nobody took an epoch in between, so nobody wrote: the decision was made on all there was. If it is fenced, somebody
may have written: take an epoch, read, decide again. An epoch that nobody has taken away serves the next write too.

Tombstones stay for ever, or a process that slept would never hear of a deletion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from headwater.errors import AlreadyExists, Fenced, Indeterminate, Unavailable
from headwater.limits import REGISTRY_READ_BYTES, REGISTRY_TRIES_MAX, SMALL_RECORDS_MAX
from headwater.log import small
from headwater.log.outcomes import UnknownProducer
from headwater.registry.decide import Decision
from headwater.registry.fold import Registry
from headwater.types import Batch, Record

if TYPE_CHECKING:
    from headwater.log.chunk import Chunk
    from headwater.log.namespace import Namespace
    from headwater.log.producer import Producer, Transaction

T = TypeVar("T")

TOPIC: Final = "_schemas"  # Confluent's name
PRODUCER: Final = "__registry"
_CONFIG: Final = {"cleanup.policy": "compact", "delete.retention.ms": str(2**63 - 1)}
_SETTLE_TRIES_MAX: Final = 3


class Ledger:
    """The registry of one namespace, as this process knows it. Get it by ``namespace.shared(Ledger)``."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.registry = Registry()
        self._topic = -1  # the id of the topic that was read
        self._next = 0
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._producer: Producer | None = None

    async def refresh(self) -> Registry:
        """The registry with everything that was acknowledged anywhere before this call. Do not change it.

        Cost: 1 GET at the tip, and the records since the last call.
        """
        async with self._reading:
            await self.namespace.refresh()
            found = self.namespace.state.named(TOPIC)
            if found is None or found.id != self._topic:
                self.registry, self._next = Registry(), 0
                self._topic = -1 if found is None else found.id
            if found is not None:
                await self._catch_up()
            return self.registry

    async def change(self, decide: Callable[[Registry], Decision[T]]) -> T:
        """Make a decision true, whatever others write meanwhile. It is called again, on what they wrote.

        Raises:
            Refusal: what the decision raises; nothing was written.
            Unavailable: others were faster each time. Indeterminate: the store fell silent; ask again, and the
                decision will find what became of it.

        Cost: 1 GET if nothing is to be written; else 1 commit, and 1 more for a new epoch.
        """
        decision = decide(await self.refresh())
        if not decision.writes:
            return decision.answer
        async with self._writing:
            for _ in range(REGISTRY_TRIES_MAX):
                producer = await self._owner()
                decision = decide(await self.refresh())  # after the epoch was taken: what is read now is all there is
                if not decision.writes or await self._written(producer, decision.writes):
                    await self.refresh()
                    return decision.answer
        raise Unavailable("Other writers of the schema registry were faster each time.")

    async def _owner(self) -> Producer:
        """The producer, of the newest epoch as far as this process knows; and the topic, made on first use."""
        if self._topic < 0:
            try:
                await self.namespace.create_topic(TOPIC, 1, _CONFIG)
            except AlreadyExists:
                pass  # another process was first
        if self._producer is None:
            self._producer = await self.namespace.producer(PRODUCER)
        return self._producer

    async def _written(self, producer: Producer, writes: tuple[Record, ...]) -> bool:
        """Whether the records are in the log; False: another process holds a newer epoch, and they are not."""
        now_ms = max(self.namespace.state.time_ms, self.namespace.chain.clock.wall_ms())
        records = [replace(each, timestamp=now_ms) for each in writes]
        transaction = producer.transaction()
        try:
            await transaction.append(TOPIC, 0, _batch(records, now_ms))
            await self._settled(transaction)
        except (Fenced, UnknownProducer):
            self._producer = None
            return False
        except BaseException:
            self._producer = None  # what became of its sequence and epoch is not worth asking
            raise
        return True

    async def _settled(self, transaction: Transaction) -> None:
        """Commit; ask again what became of it while that is not known."""
        for attempt in range(_SETTLE_TRIES_MAX):
            try:
                await transaction.commit()
                return
            except Indeterminate:
                if attempt == _SETTLE_TRIES_MAX - 1:
                    raise

    async def _catch_up(self) -> None:
        reader = self.namespace.reader
        while True:
            _, place = reader.place(TOPIC, 0)
            self._next = max(self._next, place.start)
            if self._next >= place.stable_end:
                return
            fetched = await reader.fetch(TOPIC, 0, self._next, bytes_max=REGISTRY_READ_BYTES, fresh=False)
            for chunk in fetched.chunks:
                for offset, record in _records(chunk):
                    if offset >= self._next:
                        self.registry.apply(record)
            if fetched.next_offset <= self._next:
                return
            self._next = fetched.next_offset


def _batch(records: list[Record], now_ms: int) -> Batch:
    if len(records) <= SMALL_RECORDS_MAX:
        return small.batch_of(records)
    from headwater.log.batch import batch_of_records

    return batch_of_records(records, default_timestamp=now_ms)


def _records(chunk: Chunk) -> list[tuple[int, Record]]:
    """The records of a chunk with their offsets; few uncompressed ones are read without pyarrow."""
    few = small.records_in(chunk.data) if chunk.codec == "kafka2" and chunk.upto < 0 else None
    if few is not None:
        return list(enumerate(few, start=chunk.base))
    rows = chunk.decode()
    columns = (rows.column(name).to_pylist() for name in ("offset", "key", "value"))
    return [(offset, Record(key=key, value=value)) for offset, key, value in zip(*columns, strict=True)]
