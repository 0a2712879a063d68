"""What Kafka's consumers say of themselves inside the classic protocol, and what they are told. Pure.

To the classic protocol both are bytes that only clients understand. They are read here so that a group can change to
KIP-848's protocol under its members, and written for those that still speak the classic one then.
Source: Kafka's ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json, versions 0 to 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

TYPE: Final = "consumer"  # the protocol type of members that speak of themselves so
_VERSION_MAX: Final = 3
_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """``claims`` are partitions that the member has not let go of to join; who lets go of all claims none (KIP-429)."""

    version: int
    topics: Sequence[str]
    claims: Sequence[tuple[str, int]] = ()


def decode_subscription(metadata: bytes) -> Subscription | None:
    """What the metadata says; None if it is no consumer's."""
    try:
        return _Reader(bytes(metadata)).subscription()
    except (struct.error, UnicodeDecodeError, ValueError):
        return None


def encode_subscription(topics: Sequence[str], claims: Sequence[tuple[str, int]] = ()) -> bytes:
    """Metadata of version 1, as a client of that age sends it."""
    return b"".join(
        [_SHORT.pack(1), _INT.pack(len(topics)), *map(_text, topics), _INT.pack(-1), _places(_nested(claims))]
    )


def encode_assignment(places: Mapping[str, Sequence[int]], version: int) -> bytes:
    """The partitions of a member by topic, as a consumer with a subscription of that version reads them."""
    return b"".join([_SHORT.pack(min(max(version, 0), _VERSION_MAX)), _places(places), _INT.pack(-1)])


def decode_assignment(data: bytes) -> list[tuple[str, int]]:
    """The partitions of an assignment. Raises ``ValueError`` for bytes that are none."""
    if not data:
        return []
    try:
        reader = _Reader(bytes(data))
        reader.short()
        return reader.places()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError("This is no assignment of a Kafka consumer.") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def subscription(self) -> Subscription:
        version = self.short()
        topics = [self._str() for _ in range(self._count())]
        if self._at < len(self._data) and (size := self.number()) > 0:
            self._take(size)  # what an assignor has to say to itself
        claims = self.places() if version >= 1 and self._at < len(self._data) else []
        return Subscription(version=version, topics=topics, claims=claims)

    def places(self) -> list[tuple[str, int]]:
        found = []
        for _ in range(self._count()):
            topic = self._str()
            found += [(topic, self.number()) for _ in range(self._count())]
        return found

    def short(self) -> int:
        found: int = _SHORT.unpack_from(self._data, self._at)[0]
        self._at += 2
        return found

    def number(self) -> int:
        found: int = _INT.unpack_from(self._data, self._at)[0]
        self._at += 4
        return found

    def _count(self) -> int:
        """How many follow; not more than there are bytes."""
        found = self.number()
        if found > len(self._data):
            raise ValueError("More entries than bytes.")
        return found

    def _str(self) -> str:
        return self._take(self.short()).decode()

    def _take(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._data):
            raise ValueError("A text ends beyond the bytes.")
        self._at += size
        return self._data[self._at - size : self._at]


def _text(text: str) -> bytes:
    data = text.encode()
    return _SHORT.pack(len(data)) + data


def _places(places: Mapping[str, Sequence[int]]) -> bytes:
    parts = [_INT.pack(len(places))]
    for topic, partitions in places.items():
        parts += [_text(topic), struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)]
    return b"".join(parts)


def _nested(claims: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for topic, partition in claims:
        found.setdefault(topic, []).append(partition)
    return found
