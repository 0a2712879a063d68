"""A consumer's partitions: what was fetched and not yet handed out, and how far each of them has come.

    fetch_at ──► batches ──► rows ──► position ──(next poll)──► processed
               as Arrow    as records   handed out               may be committed

``position`` is the next offset to hand out. ``processed`` follows it at the next poll, since only then has the program
done with what it was given; so what is committed automatically was processed at least once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.client.records import ConsumerRecord, TopicPartition, Undecodable
from headwater.client.serializers import Deserializer

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.api.verbs import Fetched


ROWS_AT_ONCE = 512  # records that are made of a batch at once; making them singly would cost three times as much


@dataclass(slots=True)
class Lane:
    """One partition of a consumer."""

    tp: TopicPartition
    position: int
    processed: int = -1
    fetch_at: int = -1
    paused: bool = False
    error: Exception | None = None  # raised when the lane's turn comes; a seek takes it away
    log_start: int = 0
    high_watermark: int = -1
    metadata: str = ""  # of the committed offset
    nbytes: int = 0  # of ``batches``, as Arrow
    batches: deque[pa.RecordBatch] = field(default_factory=deque)
    rows: deque[ConsumerRecord] = field(default_factory=deque)
    source: pa.RecordBatch | None = None  # what ``rows`` were made of
    room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.processed = self.fetch_at = self.position

    @property
    def has_data(self) -> bool:
        return bool(self.rows or self.batches)

    def seek(self, offset: int) -> None:
        """Go on at ``offset``, and forget what was fetched for another place."""
        self.position = self.processed = self.fetch_at = offset
        self.error = None
        self.batches.clear()
        self.rows.clear()
        self.source, self.nbytes = None, 0
        self.room.set()

    def add(self, fetched: Fetched) -> bool:
        """Take in what was fetched from ``fetch_at``; whether that is anything. Raises ``Corrupt``."""
        from headwater.log.batch import slice_from

        self.log_start, self.high_watermark = fetched.log_start, fetched.high_watermark
        for chunk in fetched.chunks:
            records = slice_from(chunk.decode(), self.fetch_at)
            if records.num_rows:
                self.batches.append(records)
                self.nbytes += records.nbytes
            self.fetch_at = max(self.fetch_at, chunk.end)
        self.fetch_at = max(self.fetch_at, fetched.next_offset)
        if not self.has_data:
            self.position = self.fetch_at  # a gap without records: nothing is left to hand out below
        return self.has_data

    def take_rows(self, count: int, codecs: Codecs) -> list[ConsumerRecord]:
        """Hand out up to ``count`` records. Raises ``Undecodable`` if the very first one is."""
        taken: list[ConsumerRecord] = []
        while len(taken) < count and self.has_data:
            if not self.rows:
                try:
                    self._convert(codecs)
                except Undecodable:
                    if taken:
                        break  # its turn comes next time, when nothing is lost by raising
                    raise
            taken += [self.rows.popleft() for _ in range(min(count - len(taken), len(self.rows)))]
        if taken:
            self.position = taken[-1].offset + 1
        self._close()
        return taken

    def take_arrow(self) -> list[pa.RecordBatch]:
        """Hand out all that was fetched, without looking into it."""
        from headwater.log.batch import slice_from

        taken = list(self.batches)
        if self.rows:
            assert self.source is not None, "rows are made of a batch"
            taken.insert(0, slice_from(self.source, self.position))
        self.rows.clear()
        self.batches.clear()
        self.nbytes = 0
        self._close()
        return taken

    def _convert(self, codecs: Codecs) -> None:
        """Make records of the front of the first batch. Raises ``Undecodable`` if there is none before a bad one."""
        batch = self.batches[0]
        try:
            for record in records_of(self.tp, batch.slice(0, ROWS_AT_ONCE), codecs):
                self.rows.append(record)
        except Undecodable:
            if not self.rows:
                raise
        self.source, rest = batch.slice(0, len(self.rows)), batch.slice(len(self.rows))
        self.batches.popleft()
        self.nbytes -= batch.nbytes
        if rest.num_rows:
            self.batches.appendleft(rest)
            self.nbytes += rest.nbytes

    def _close(self) -> None:
        if not self.has_data:
            self.position, self.source = self.fetch_at, None
        self.room.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Codecs:
    """How keys and values become a program's own; None leaves bytes."""

    key: Deserializer | None = None
    value: Deserializer | None = None


def records_of(tp: TopicPartition, placed: pa.RecordBatch, codecs: Codecs) -> Iterator[ConsumerRecord]:
    """The rows of ``placed`` as records. Raises ``Undecodable``. Cost: about 1 us for each."""
    import pyarrow as pa

    from headwater.log.codec_kafka2 import header_lists

    topic, partition = tp
    headers: Any = placed.column("headers")
    rows: Iterator[Any] = zip(
        placed.column("offset").to_pylist(),
        placed.column("timestamp").view(pa.int64()).to_pylist(),
        placed.column("key").to_pylist(),
        placed.column("value").to_pylist(),
        [()] * len(headers) if headers.null_count == len(headers) else map(tuple, header_lists(headers)),
        strict=True,
    )
    for offset, timestamp, key, value, pairs in rows:
        if codecs.key is not None and key is not None:
            key = _decoded(tp, offset, "key", key, codecs.key)
        if codecs.value is not None and value is not None:
            value = _decoded(tp, offset, "value", value, codecs.value)
        yield ConsumerRecord(topic, partition, offset, timestamp, key, value, pairs)


def _decoded(tp: TopicPartition, offset: int, what: str, data: bytes, codec: Deserializer) -> Any:
    try:
        return codec(data)
    except Exception as error:
        raise Undecodable(
            f"The {what} deserializer refused the record at offset {offset} of topic {tp.topic!r}, "
            f"partition {tp.partition}: {error!r}",
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
        ) from error
