"""Which chunks or archive files hold an offset or a time: what the state lists, then pages in the store.

Of a page only the directory and the runs that are asked for are fetched; both never change and are
cached. A page may vanish when it was merged away and collected: the caller refreshes and asks again (R6).

Whoever reads "as of" an earlier commit gives that commit's state; otherwise it is the present one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator

from headwater.log import files, index, keys
from headwater.log.chain import Chain
from headwater.log.house import House
from headwater.log.index import PageHeader, Run
from headwater.log.operations import File, FilePage
from headwater.log.state import Entry, PageRef, Partition, State
from headwater.log.together import together

HEAD_BYTES_GUESS = 64 * 1024
DIRECTORIES_MAX = 256  # directories kept in memory
RUN_ENTRIES_MAX = 1 << 18  # decoded entries kept in memory
FILE_PAGES_KEPT = 16  # lists of archive files kept in memory, about 1 MB each


class Lookup:
    """Finds chunk entries for readers of one process."""

    def __init__(self, chain: Chain, house: House) -> None:
        self.chain = chain
        self.house = house
        self._directories: OrderedDict[str, tuple[PageHeader, int]] = OrderedDict()
        self._runs: OrderedDict[tuple[str, int, int], list[Entry]] = OrderedDict()
        self._run_entries = 0
        self._files: OrderedDict[str, list[File]] = OrderedDict()

    async def entries(
        self, topic: int, partition: int, offset: int, state: State | None = None
    ) -> AsyncIterator[Entry]:
        """Entries of the partition that end above ``offset``, in offset order, up to the end as known now.

        Those below ``Partition.hot`` may be missing: they are dead. Pages are opened only when the iteration reaches
        them. Raises ``NotFound`` if a page has gone (R6).
        """
        state = state or self.chain.state
        found = state.partition(topic, partition)
        if found is None:
            return
        tail = index.from_offset(found.tail, offset)
        runs = await self._runs_above(topic, partition, offset, found, tail, state)
        async for entry in self._in_order(runs, tail, offset, state):
            yield entry

    async def first_reaching(
        self, topic: int, partition: int, timestamp: int, state: State | None = None
    ) -> AsyncIterator[Entry]:
        """Hot entries whose newest record is at or above ``timestamp``, in offset order."""
        state = state or self.chain.state
        found = state.partition(topic, partition)
        if found is None:
            return
        tail = [entry for entry in found.tail if entry.max >= timestamp and entry.end > found.hot]
        runs = await self._runs_above(topic, partition, found.hot, found, [], state)
        runs = [pair for pair in runs if pair[1].max_ms >= timestamp]
        async for entry in self._in_order(runs, tail, found.hot, state):
            if entry.max >= timestamp and entry.codec != "gap":
                yield entry

    async def files(
        self,
        topic: int,
        partition: int,
        offset: int,
        state: State | None = None,
        *,
        timestamp: int | None = None,
        end: int | None = None,
        before: int | None = None,
    ) -> AsyncIterator[File]:
        """Archive files of the partition that end above ``offset`` and begin below ``end``, in offset order.

        With ``timestamp`` those only whose newest record is at or above it, with ``before`` those whose oldest one is
        below it. Cost: 1 GET for each page with such files that the iteration reaches and that is not in memory.
        """
        found = (state or self.chain.state).partition(topic, partition)
        if found is None or found.archive is None:
            return
        offset = max(offset, found.start)

        def wanted(item: FilePage | File) -> bool:
            timely = (timestamp is None or item.max >= timestamp) and (before is None or item.min < before)
            return timely and item.end > offset and (end is None or item.base < end)

        listed: list[FilePage | File] = [*found.archive.pages, *found.archive.files]
        for item in listed:
            if not wanted(item):
                continue
            for file in await self.listed(item, state) if isinstance(item, FilePage) else [item]:
                if wanted(file):
                    yield file

    async def listed(self, page: FilePage, state: State | None = None) -> list[File]:
        """The files of a page; change nothing in the list. Raises ``NotFound`` if it has gone (R6)."""
        known = self._files.get(page.key)
        if known is None:
            blob = await self.chain.read(page.key, state=state)
            known = self._files[page.key] = files.decode(page, blob.data)
        self._files.move_to_end(page.key)
        while len(self._files) > FILE_PAGES_KEPT:
            self._files.popitem(last=False)
        return known

    async def _in_order(
        self, runs: list[tuple[PageRef, Run]], tail: list[Entry], offset: int, state: State
    ) -> AsyncIterator[Entry]:
        """The entries of ``runs`` (by base) and ``tail`` that end above ``offset``, by base; runs are read one by one.

        A reservation that was released late lies in a later page than its neighbours, or in the tail: so only
        what lies below everything that is still to come is handed out.
        """
        held: list[Entry] = []
        for i, (ref, run) in enumerate(runs):
            held = index.overlapping([*held, *await self._load_run(ref, run, state)], offset)
            to_come = [later.base for _, later in runs[i + 1 : i + 2]] + [entry.base for entry in tail[:1]]
            ready = [entry for entry in held if not to_come or entry.base < min(to_come)]
            held = held[len(ready) :]
            for entry in ready:
                yield entry
        for entry in index.overlapping([*held, *tail], offset):
            yield entry

    async def _runs_above(
        self, topic: int, partition: int, offset: int, found: Partition, tail: list[Entry], state: State
    ) -> list[tuple[PageRef, Run]]:
        if _covers(tail, offset, found.stable_end):
            return []  # the common case of a reader near the end: everything it can read is in the tail
        pages = list(state.pages)
        directories = await together(*(self._directory(ref, state) for ref in pages))
        runs = [
            (ref, run)
            for ref, (header, _) in zip(pages, directories, strict=True)
            for run in header.runs
            if run.topic == topic and run.partition == partition and run.end > offset
        ]
        return sorted(runs, key=lambda pair: pair[1].base)

    async def _directory(self, ref: PageRef, state: State) -> tuple[PageHeader, int]:
        key = keys.index_key(ref.first, ref.last, ref.pruned)
        known = self._directories.get(key)
        if known is not None:
            self._directories.move_to_end(key)
            return known
        page = self.house.page(ref)
        if page is not None:
            # Not remembered: somebody else may store the same entries, packed by another build of zlib.
            return index.decode_header(page)
        page = await self._read(key, 0, HEAD_BYTES_GUESS, state)
        if len(page) == HEAD_BYTES_GUESS:
            needed = index.header_bytes(page)
            if needed > len(page):
                page = await self._read(key, 0, needed, state)
        found = self._directories[key] = index.decode_header(page, whole=False)
        while len(self._directories) > DIRECTORIES_MAX:
            self._directories.popitem(last=False)
        return found

    async def _load_run(self, ref: PageRef, run: Run, state: State) -> list[Entry]:
        key = keys.index_key(ref.first, ref.last, ref.pruned)
        place = (key, run.topic, run.partition)
        known = self._runs.get(place)
        if known is not None:
            self._runs.move_to_end(place)
            return known
        header, base = await self._directory(ref, state)
        page = self.house.page(ref)
        run = next(found for found in header.runs if (found.topic, found.partition) == place[1:])
        start = base + run.pos
        packed = page[start : start + run.len] if page else await self._read(key, start, start + run.len, state)
        entries = index.decode_run(run, packed)
        if place not in self._runs:  # another task may have been as fast
            self._runs[place] = entries
            self._run_entries += len(entries)
        while self._run_entries > RUN_ENTRIES_MAX and len(self._runs) > 1:
            self._run_entries -= len(self._runs.popitem(last=False)[1])
        return entries

    async def _read(self, key: str, start: int, end: int, state: State) -> bytes:
        return (await self.chain.read(key, start=start, end=end, state=state)).data


def _covers(tail: list[Entry], offset: int, stable_end: int) -> bool:
    """Whether the tail alone holds all of ``[offset, stable_end)``. A late-released reservation leaves holes in it."""
    if not tail or tail[0].base > offset or tail[-1].end < stable_end:
        return False
    return sum(entry.count for entry in tail) == tail[-1].end - tail[0].base
