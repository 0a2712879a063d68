"""Whether an index page that leaves out what is dead holds all that was live, and nothing else.

Such a page says by which state it was pruned. Until the fold comes there, the entries of its manifests are remembered;
then those that are live are summed up, and the page must have the same sum. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from headwater.log.state import Entry, State
from headwater.log.verify_sums import Place, Sums, digest

PageName: TypeAlias = tuple[int, int, int]  # first, last, pruned

WATCHED_MAX: Final = 1_000_000  # entries remembered at once, about 100 bytes each; pages beyond that are not compared


class Pruned:
    """The pruned pages of a listing, and what each should hold."""

    def __init__(self, pages: Sequence[PageName]) -> None:
        self._waiting = sorted((page for page in pages if page[2]), key=lambda page: page[2])
        self._entries: dict[PageName, list[tuple[Place, int, int]]] = {}
        self._watched = 0
        self._expected: dict[PageName, Sums] = {}

    def add(self, seq: int, placed: Sequence[tuple[Place, Entry]], state: State) -> None:
        """Take in what manifest ``seq`` made readable; ``state`` is the one after it."""
        for page in self._waiting:
            first, last, _ = page
            if seq == first:
                self._entries[page] = []
            watched = self._entries.get(page)
            if watched is None or not first <= seq <= last:
                continue
            watched += [(place, entry.end, digest(*place, entry)) for place, entry in placed]
            self._watched += len(placed)
            if self._watched > WATCHED_MAX:
                self._drop(page)
        while self._waiting and self._waiting[0][2] <= seq:
            page = self._waiting.pop(0)
            if page in self._entries:
                self._expected[page] = _live(self._entries[page], state)
                self._drop(page)

    def give_up(self, seq: int) -> None:
        """Manifests up to ``seq`` could not be folded: pages that need them cannot be compared."""
        for page in [page for page in self._waiting if page[0] <= seq]:
            self._waiting.remove(page)
            self._drop(page)

    def wrong(self, page: PageName, runs: Mapping[Place, Sequence[Entry]]) -> list[Place]:
        """The places of a page that hold something else than they should. Empty if that is not known."""
        expected = self._expected.get(page)
        if expected is None:
            return []
        actual = Sums()
        for place, entries in runs.items():
            for entry in entries:
                actual.add(*place, entry)
        places = sorted({*expected.places(), *actual.places()})
        return [place for place in places if expected.of(*place) != actual.of(*place)]

    def _drop(self, page: PageName) -> None:
        self._watched -= len(self._entries.pop(page, ()))


def _live(watched: Sequence[tuple[Place, int, int]], state: State) -> Sums:
    found = Sums()
    for place, end, mark in watched:
        partition = state.partition(*place)
        if partition is not None and end > partition.hot:
            found.add_digest(place, mark)
    return found
