"""Keeping cold starts short: seal index pages, write snapshots, point ``latest`` at them.

Whoever commits a manifest whose number is a multiple of ``snapshot_every`` does this in the background;
if that process dies first, a later one catches up. Everything is put-if-absent or a hint, so two
processes that do it at once only repeat each other.

A snapshot must not name pages that are being collected. The collector keeps those of every snapshot from its horizon
on; it writes its boundary, and then lists the snapshots. A house writes its snapshot, and then lists the boundary. So
one of the two sees the other: if the boundary has passed the snapshot from which this process has its pages, then
``latest`` is not moved to the new one, and the process starts again. That takes a sleep of a day in between. The
collector puts such a snapshot right, should it name what is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from headwater.errors import HeadwaterError, Unavailable
from headwater.log import index, keys, snapshot
from headwater.log.chain import Chain
from headwater.log.intents import Manifest
from headwater.log.state import Outcome, PageRef
from headwater.log.together import together

SNAPSHOT_TRIES = 3  # a process that slept between two steps begins again; twice in a row it does not sleep


class House:
    """The snapshot keeper of one process."""

    def __init__(self, chain: Chain, *, writer: str) -> None:
        self.chain = chain
        self._writer = writer
        self._bytes_at = 0
        self._snapshot_at = 0
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._unstored: dict[str, bytes] = {}  # pages sealed here and not in the store yet
        chain.listeners.append(self._folded)

    def page(self, ref: PageRef) -> bytes | None:
        """A page that is sealed and not stored yet."""
        return self._unstored.get(keys.index_key(ref.first, ref.last, ref.pruned))

    async def drain(self) -> None:
        """Return when no snapshot is being written (R10)."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def snapshot(self) -> int:
        """Seal the tails, store the page, merge pages that are due, store a snapshot. Its number.

        Cost: 3 PUTs, 1 GET, 1 LIST; every ``INDEX_FANOUT``-th time ``INDEX_FANOUT`` GETs and a PUT more.
        """
        async with self._writing:
            for _ in range(SNAPSHOT_TRIES):
                seq = await self._snapshot()
                if seq is not None:
                    return seq
                await self.chain.refresh()
        raise Unavailable("The log is collected faster than a snapshot of it can be stored. Try again.")

    async def _snapshot(self) -> int | None:
        """None if the pages that the snapshot names may have been collected meanwhile."""
        chain = self.chain
        await chain.adopt_pages()  # who pruned or merged pages meanwhile did not do it in vain
        sealed = index.seal(chain.state)
        if sealed is not None:
            self._unstored[keys.index_key(sealed[0].first, sealed[0].last)] = sealed[1]
        for key in list(self._unstored):
            await self.chain.put_once(key, self._unstored[key])
            del self._unstored[key]
        while due := index.plan_merge(chain.state.pages):
            await self._merge(due)
        seq, body, base = chain.state.seq, snapshot.encode(chain.state), chain.adopted
        ours = await self.chain.put_once(keys.snapshot_key(seq), body)
        if await chain.read_boundary() > base + 1:
            chain.forget()
            return None
        await chain.retry(lambda: chain.store.put(keys.LATEST, snapshot.encode_latest(seq)))
        self._snapshot_at, self._bytes_at = seq, chain.bytes_folded
        if ours:
            chain.adopted = seq
        else:
            await chain.adopt_pages()  # another process stored this number: its pages count, ours are nobody's
        return seq

    async def _merge(self, due: list[PageRef]) -> None:
        bodies = await together(*(self.load_page(ref) for ref in due))
        ref, body = index.merge(due, list(bodies), self.chain.state)
        if body is not None:
            await self.chain.put_once(keys.index_key(ref.first, ref.last, ref.pruned), body)
        pages = self.chain.state.pages
        at = pages.index(due[0]) if due[0] in pages else 0
        if pages[at : at + len(due)] == due:
            pages[at : at + len(due)] = [] if body is None else [ref]

    async def prune(self) -> int:
        """Write anew the pages half of whose entries nobody can read any more, and a snapshot. How many there were.

        Nothing is done while there is a snapshot of this very state: its number is taken, and no other could name
        the new pages. Whoever has a reason to collect makes a commit first.

        Cost: 1 GET a page; 2 PUTs and 1 GET for each that is written anew. Nothing if there is none.
        """
        async with self._writing:
            await self.chain.adopt_pages()
            if self.chain.state.seq == self.chain.adopted:
                return 0
            pages = list(self.chain.state.pages)
            bodies = await together(*(self.load_page(ref) for ref in pages))
            stale = []
            for ref, body in zip(pages, bodies, strict=True):
                header, _ = index.decode_header(body)
                if 2 * index.dead_rows(header, self.chain.state) >= max(ref.entries, 1):
                    stale.append(ref)
            for ref in stale:
                await self._merge([ref])
            if stale:
                await self._snapshot()
            return len(stale)

    async def load_page(self, ref: PageRef) -> bytes:
        """The whole page. Raises ``NotFound`` if it was merged away and collected."""
        found = self.page(ref)
        if found is not None:
            return found
        return (await self.chain.read(keys.index_key(ref.first, ref.last, ref.pruned))).data

    def _folded(self, manifest: Manifest, outcomes: list[Outcome]) -> None:
        options = self.chain.options
        if manifest.writer == self._writer:
            due = manifest.seq % options.snapshot_every == 0
            due |= self.chain.bytes_folded - self._bytes_at > options.snapshot_bytes
            due |= manifest.seq - max(self._snapshot_at, self.chain.state.paged) >= 2 * options.snapshot_every
            if due:
                self._start(self.snapshot)
        elif manifest.seq - self.chain.state.paged >= 2 * options.snapshot_every + options.snapshot_every // 2:
            self._start(self.chain.adopt_pages)

    def _start(self, work: Callable[[], Awaitable[object]]) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(_quietly(work), name="headwater-house")


async def _quietly(work: Callable[[], Awaitable[object]]) -> None:
    # A snapshot is a courtesy to the next cold start: if the store is down, a later one will do.
    with contextlib.suppress(HeadwaterError):
        await work()
