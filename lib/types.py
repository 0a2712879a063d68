"""Plain frozen data that several layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Body: TypeAlias = Buffer | Sequence[Buffer]  # parts are written one after another, without being joined first
Codec: TypeAlias = Literal["arrow", "kafka2"]
Header: TypeAlias = tuple[str, bytes | None]
Progress: TypeAlias = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event before it has a place: ``timestamp`` in ms since 1970 UTC; a ``None`` value is a tombstone."""

    value: bytes | None
    key: bytes | None = None
    timestamp: int = -1
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRecord:
    """One event at its place in the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A record batch of one partition, encoded and not yet placed.

    ``data`` is opaque from here to the bucket: an Arrow IPC stream (``arrow``) or Kafka RecordBatch v2
    bytes (``kafka2``), one or several, back to back. Timestamps in ms since 1970 UTC. A batch of an idempotent
    producer carries its id, epoch and the sequence of its first record; -1 means none. ``crc`` is the CRC32C
    of ``data`` where that is known already, -1 where not. ``keyless`` is the row of the first record without a key,
    -1 if all have one or if nobody has looked into the records.
    """

    codec: Codec
    data: bytes
    count: int
    timestamp_min: int
    timestamp_max: int
    producer_id: int = -1
    producer_epoch: int = -1
    sequence: int = -1
    crc: int = -1
    keyless: int = field(default=-1, compare=False)
