"""Pages: a big frame in the order of a hash, cut into ranges, of which as many are in memory as its bound allows.

    starts   0 ────── 2^62 ────── 2^63 ─────────────   page i holds the hashes in [starts[i], starts[i + 1])
    pages    frame    file        frame

A page that outgrows its share is cut in two at the median of its hashes. When pages in memory outweigh the bound, those
that were not used for the longest are written to files of their own (Arrow IPC) and dropped; a page that did not change
since is dropped without writing. The bound that holds: pages in memory weigh at most ``memory_max`` bytes and one page.
Files are worth nothing to a later process, which restores from the changelog.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headwater.limits import STREAMS_PAGE_BYTES_MIN, STREAMS_PAGES_MIN
from headwater.streams.state.hashed import HASH


@dataclass(slots=True)
class Page:
    """A range of hashes: ``frame`` in memory, or its file, or both while they are the same."""

    start: int
    frame: pl.DataFrame | None
    rows: int = 0
    bytes: int = 0
    used: int = 0  # the number of the call that used it last
    file: Path | None = None  # holds what the page holds


class Pages:
    """Rows of ``schema`` sorted by ``HASH``. Without ``memory_max`` or a ``folder`` they are one page in memory."""

    def __init__(self, schema: dict[str, pl.DataType], memory_max: int = 0, folder: str = "") -> None:
        self._memory_max = memory_max if folder else 0
        self._page_max = max(memory_max // STREAMS_PAGES_MIN, STREAMS_PAGE_BYTES_MIN)
        self._folder = Path(folder) if folder else None
        self._pages = [Page(0, pl.DataFrame(schema=schema))]
        self._calls = 0
        self._files = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # what a process before this one has left

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def rows(self) -> int:
        """Rows of all pages."""
        return sum(page.rows for page in self._pages)

    @property
    def bytes(self) -> int:
        """Bytes of the pages in memory."""
        return sum(page.bytes for page in self._pages if page.frame is not None)

    @property
    def spilled(self) -> int:
        """Bytes, as they were in memory, of the pages that are on disk alone."""
        return sum(page.bytes for page in self._pages if page.frame is None)

    def cut(self, hashes: pl.Series) -> Iterator[tuple[int, int, int]]:
        """``(page, from, to)`` for the pages that sorted ``hashes`` touch, and where their share begins and ends."""
        if len(self._pages) == 1:
            yield 0, 0, hashes.len()
            return
        starts = pl.Series([page.start for page in self._pages], dtype=pl.UInt64)
        edges = [*hashes.search_sorted(starts, side="left").to_list(), hashes.len()]
        for number, (begin, end) in enumerate(itertools.pairwise(edges)):
            if begin < end:
                yield number, begin, end

    def get(self, number: int) -> pl.DataFrame:
        """The rows of a page, from disk if need be."""
        page = self._pages[number]
        self._calls += 1
        page.used = self._calls
        if page.frame is None:
            assert page.file is not None, "a page is in memory or on disk"
            page.frame = pl.read_ipc(page.file)
            self._shrink(page)
        return page.frame

    def replace(self, changed: dict[int, pl.DataFrame]) -> None:
        """Other rows for pages; call it page by page where memory matters. Page numbers may be others afterwards."""
        for number in sorted(changed, reverse=True):
            self._pages[number : number + 1] = self._made(self._pages[number], changed[number])
            self._shrink(self._pages[number])

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _made(self, old: Page, frame: pl.DataFrame) -> list[Page]:
        if old.file is not None:
            old.file.unlink(missing_ok=True)
        size = int(frame.estimated_size())
        if not self._memory_max or size <= self._page_max or frame.height < 2:
            return [Page(old.start, frame, frame.height, size, old.used)]
        return self._halved(old, frame)

    def _halved(self, old: Page, frame: pl.DataFrame) -> list[Page]:
        hashes = frame.get_column(HASH)
        middle = hashes.item(frame.height // 2)
        at = int(hashes.search_sorted(middle, side="left"))
        if at == 0:  # half of the rows share one hash, which cannot be cut
            return [Page(old.start, frame, frame.height, int(frame.estimated_size()), old.used)]
        # Not slices, which share their parent's memory and so would keep it alive.
        low = frame.select(pl.all().gather(pl.int_range(0, at)))
        high = frame.select(pl.all().gather(pl.int_range(at, pl.len())))
        lower = Page(old.start, None, used=old.used)
        upper = Page(middle, None, used=old.used)
        return [*self._made(lower, low), *self._made(upper, high)]

    def _shrink(self, keep: Page) -> None:
        """Let go of the pages used longest ago until the rest, without ``keep``, is within the bound."""
        if not self._memory_max:
            return
        inside = [page for page in self._pages if page.frame is not None and page is not keep]
        excess = sum(page.bytes for page in inside) - self._memory_max
        for page in sorted(inside, key=lambda each: each.used):
            if excess <= 0:
                return
            self._spill(page)
            excess -= page.bytes

    def _spill(self, page: Page) -> None:
        assert page.frame is not None
        assert self._folder is not None
        if page.file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files += 1
            page.file = self._folder / f"{self._files}.arrow"
            page.frame.write_ipc(page.file, compression="lz4")
        page.frame = None
