"""What must be in a namespace's folder: all that the oldest state that can be read names, and every commit since.

The rest are orphans: bytes that nobody committed, and what collection has not come to yet. They are no error. An object
that is named and missing is one, also if only a read as of an earlier commit needs it. Memory: the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from headwater.errors import Corrupt, NotFound
from headwater.log import files, keys
from headwater.log.chain import Chain
from headwater.log.operations import File, FilePage, SwapFiles
from headwater.log.state import Entry, PageRef, State
from headwater.log.verify_sums import Place

if TYPE_CHECKING:
    from headwater.log.verify import Listing, Report

KINDS = {
    keys.MANIFESTS: "manifests",
    keys.SEGMENTS: "segments",
    keys.ARCHIVE: "files",
    keys.FILE_PAGES: "file_pages",
    keys.INDEXES: "pages",
    keys.SNAPSHOTS: "snapshots",
    keys.BOUNDARIES: "boundaries",
}


class Kept:
    """The names that the present state ``final`` needs, or an earlier one; without those that lie in an origin."""

    def __init__(self, chain: Chain, final: State, boundary: int) -> None:
        self.chain = chain
        self.final = final
        self.boundary = boundary
        self.names: set[str] = set()
        self.present: set[str] = set()  # needed now; the others by the history alone

    def add(self, key: str, *, now: bool) -> None:
        """Note that the object is needed, and whether present readers need it."""
        if self.final.origins and self.chain.home(key, self.final) is not self.chain.store:
            return
        self.names.add(key)
        if now:
            self.present.add(key)

    def entries(self, placed: Iterable[tuple[Place, Entry]], state: State) -> None:
        """Note the objects of chunks that were live in ``state``."""
        for place, entry in placed:
            partition = state.partition(*place)
            if entry.codec == "gap" or partition is None or entry.end <= partition.hot:
                continue
            last = self.final.partition(*place)
            now = last is not None and entry.end > last.hot
            self._bytes_of(entry, now=now)

    def pages(self, refs: Iterable[PageRef], *, now: bool) -> None:
        """Note index pages."""
        for ref in refs:
            self.add(keys.index_key(ref.first, ref.last, ref.pruned), now=now)

    def swapped(self, op: SwapFiles) -> None:
        """Note what a commit has put into the archive."""
        items: list[File | FilePage] = [*op.pages, *op.files]
        for item in items:
            self.add(item.key, now=False)

    async def archive(self, state: State, *, now: bool) -> None:
        """Note the files and lists of files that ``state`` names. What cannot be read is reported elsewhere."""
        for item in _listed(state):
            self.add(item.key, now=now)
            if isinstance(item, FilePage):
                try:
                    found = files.decode(item, (await self.chain.read(item.key, state=state)).data)
                except (NotFound, Corrupt):
                    continue
                for file in found:
                    self.add(file.key, now=now)

    def reservations(self, state: State) -> None:
        """Note the bytes of open reservations."""
        for topic in state.topics.values():
            for partition in topic.partitions:
                for held in partition.held:
                    self._bytes_of(held.entry, now=True)

    def _bytes_of(self, entry: Entry, *, now: bool) -> None:
        """Manifests from the boundary on stay anyway: millions of names would say nothing."""
        key = entry.obj or keys.manifest_key(entry.seq)
        if not key.startswith(keys.MANIFESTS) or keys.parse_numbered_key(key) < self.boundary:
            self.add(key, now=now)

    async def report(self, listing: Listing, report: Report) -> None:
        """What is named and missing, and what is there and named by nothing, by kind with its bytes."""
        for key in sorted(self.names - listing.sizes.keys()):
            if any(problem.key == key for problem in report.problems) or await self._is_there(key):
                continue
            whom = "Present readers need it" if key in self.present else "Reads as of earlier commits need it"
            report.add("missing", key, f"The object does not exist. {whom}.")
        self._tell_orphans(listing, report)

    async def _is_there(self, key: str) -> bool:
        """It may be younger than the listing of its folder."""
        try:
            await self.chain.retry(lambda: self.chain.store.head(key))
        except NotFound:
            return False
        return True

    def _tell_orphans(self, listing: Listing, report: Report) -> None:
        history = 0
        for key, size in listing.sizes.items():
            if key in self.present or self._is_chain(key, listing):
                continue
            if key in self.names:
                report.count("history")
                history += size
                continue
            kind = KINDS[next(prefix for prefix in KINDS if key.startswith(prefix))]
            objects, total = report.orphans.get(kind, (0, 0))
            report.orphans[kind] = (objects + 1, total + size)
        report.count("history", 0)
        report.count("history_bytes", history)

    def _is_chain(self, key: str, listing: Listing) -> bool:
        """Manifests and snapshots that cold starts and reads as of a commit go by; what says that a name is taken."""
        if key.startswith(keys.MANIFESTS):
            seq = keys.parse_numbered_key(key)
            return seq >= listing.boundary or (seq == 1 and bool(self.final.origins))
        if key.startswith(keys.SNAPSHOTS):
            return keys.parse_numbered_key(key) >= listing.boundary - 1
        return key == keys.boundary_key(listing.boundary)


def _listed(state: State) -> Iterator[File | FilePage]:
    for topic in state.topics.values():
        for partition in topic.partitions:
            if partition.archive is not None:
                yield from partition.archive.pages
                yield from partition.archive.files
