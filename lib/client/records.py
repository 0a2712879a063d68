"""The small data that producers and consumers hand to their users, under the names that Kafka's clients gave it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from headwater.errors import InvalidRequest
from headwater.types import Header


class TopicPartition(NamedTuple):
    """A partition by name. It is the plain pair ``(topic, partition)``, which every method takes as well."""

    topic: str
    partition: int


class RecordMetadata(msgspec.Struct, frozen=True, gc=False):
    """Where an acknowledged record lies, for ever. Of a batch: its first record, and how many there are."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    count: int = 1


class OffsetAndMetadata(NamedTuple):
    """The next offset to read, and what its committer wished to remember with it."""

    offset: int
    metadata: str = ""


class OffsetAndTimestamp(NamedTuple):
    """The first record at or after a time: its offset and its own timestamp in ms."""

    offset: int
    timestamp: int


class GroupMetadata(NamedTuple):
    """What fences a commit: the group, the member, and its epoch (-1: the group has no members)."""

    group: str
    member: str = ""
    generation: int = -1


class ConsumerRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as a consumer gets it. ``timestamp`` in ms since 1970 UTC; a ``None`` value is a tombstone.

    A msgspec struct, since making one costs a fifth of what a frozen dataclass costs, and there are many.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Any
    value: Any
    headers: tuple[Header, ...] = ()


class Undecodable(InvalidRequest):
    """A deserializer refused a record. ``data`` has topic, partition and offset; the position stays in front of it."""

    what_now = "Seek past the offset that the message names, or use another deserializer."
