"""Sums of chunk entries: whether an index page holds what the manifests say, without keeping the entries.

Each entry has a digest; a page is right if, partition by partition, the sum of its entries' digests is
the sum over the manifests that it covers. Sums are kept for the spans between page ends only, so memory grows
with the number of pages, not of chunks. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TypeAlias

from headwater.log.state import Entry

Place: TypeAlias = tuple[int, int]  # topic id, partition
Sum: TypeAlias = tuple[int, int]  # digests modulo 2^64, entries

_MASK = (1 << 64) - 1


def digest(topic: int, partition: int, entry: Entry) -> int:
    """64 bits that stand for the entry at its place, within this process."""
    fields = (entry.base, entry.count, entry.codec, entry.seq, entry.obj, entry.pos, entry.len, entry.crc)
    return hash((topic, partition, *fields, entry.min, entry.max)) & _MASK


class Sums:
    """One sum for each place. ``complete`` is False if some manifests could not be added."""

    def __init__(self) -> None:
        self._sums: dict[Place, Sum] = {}
        self.complete = True

    def add(self, topic: int, partition: int, entry: Entry) -> None:
        """Count the entry in."""
        self.add_digest((topic, partition), digest(topic, partition, entry))

    def add_digest(self, place: Place, mark: int) -> None:
        """Count an entry in by its digest."""
        total, entries = self._sums.get(place, (0, 0))
        self._sums[place] = (total + mark) & _MASK, entries + 1

    def of(self, topic: int, partition: int) -> Sum:
        """The sum of a place."""
        return self._sums.get((topic, partition), (0, 0))

    def places(self) -> Iterable[Place]:
        """The places with entries."""
        return self._sums.keys()


class Spans:
    """Sums for the spans between the manifest numbers ``ends``."""

    def __init__(self, ends: Iterable[int]) -> None:
        self._ends = sorted(set(ends))
        self._spans: dict[int, Sums] = {}
        self.folded: list[tuple[int, int]] = []  # manifests [first, last] that were counted in

    def at(self, seq: int) -> Sums:
        """The sums that entries of manifest ``seq`` are counted in."""
        if self.folded and self.folded[-1][1] in (seq - 1, seq):
            self.folded[-1] = (self.folded[-1][0], seq)
        else:
            self.folded.append((seq, seq))
        return self._spans.setdefault(bisect_left(self._ends, seq), Sums())

    def covers(self, first: int, last: int) -> bool:
        """Whether every manifest of ``[first, last]`` was counted in."""
        return any(start <= first and last <= end for start, end in self.folded)

    def over(self, first: int, last: int, place: Place) -> Sum:
        """The sum of a place over manifests ``[first, last]``, both ends being among ``ends``."""
        total = entries = 0
        for span in range(bisect_left(self._ends, first), bisect_left(self._ends, last) + 1):
            if span in self._spans:
                more, count = self._spans[span].of(*place)
                total, entries = (total + more) & _MASK, entries + count
        return total, entries

    def places(self, first: int, last: int) -> set[Place]:
        """The places with entries in manifests ``[first, last]``."""
        found: set[Place] = set()
        for span in range(bisect_left(self._ends, first), bisect_left(self._ends, last) + 1):
            if span in self._spans:
                found.update(self._spans[span].places())
        return found
