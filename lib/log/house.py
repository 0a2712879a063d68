"""Keeping cold starts short: seal index pages, write snapshots, point ``latest`` at them.

Whoever commits a manifest whose number is a multiple of ``snapshot_every`` does this in the background;
if that process dies first, a later one catches up. Everything is put-if-absent or a hint, so two
processes that do it at once only repeat each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from headwater.errors import AlreadyExists, HeadwaterError, Indeterminate, Raced
from headwater.log import index, keys, snapshot
from headwater.log.chain import Chain
from headwater.log.intents import Manifest
from headwater.log.state import Outcome, PageRef
from headwater.log.together import together
from headwater.types import Body


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

        Cost: 3 PUTs; every ``INDEX_FANOUT``-th time ``INDEX_FANOUT`` GETs and a PUT more.
        """
        async with self._writing:
            return await self._snapshot()

    async def _snapshot(self) -> int:
        chain = self.chain
        await chain.adopt_pages()  # who pruned or merged pages meanwhile did not do it in vain
        sealed = index.seal(chain.state)
        if sealed is not None:
            self._unstored[keys.index_key(sealed[0].first, sealed[0].last)] = sealed[1]
        for key in list(self._unstored):
            await self._put_once(key, self._unstored[key])
            del self._unstored[key]
        while due := index.plan_merge(chain.state.pages):
            await self._merge(due)
        seq, body = chain.state.seq, snapshot.encode(chain.state)
        await self._put_once(keys.snapshot_key(seq), body)
        await chain.retry(lambda: chain.store.put(keys.LATEST, snapshot.encode_latest(seq)))
        self._snapshot_at, self._bytes_at = seq, chain.bytes_folded
        chain.adopted = seq
        return seq

    async def _merge(self, due: list[PageRef]) -> None:
        bodies = await together(*(self.load_page(ref) for ref in due))
        ref, body = index.merge(due, list(bodies), self.chain.state)
        if body is not None:
            await self._put_once(keys.index_key(ref.first, ref.last, ref.pruned), body)
        pages = self.chain.state.pages
        at = pages.index(due[0]) if due[0] in pages else 0
        if pages[at : at + len(due)] == due:
            pages[at : at + len(due)] = [] if body is None else [ref]

    async def prune(self) -> int:
        """Write anew the pages half of whose entries nobody can read any more, and a snapshot. How many there were.

        Cost: 1 GET a page; 2 PUTs and 1 GET for each that is written anew. Nothing if there is none.
        """
        async with self._writing:
            await self.chain.adopt_pages()
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

    async def _put_once(self, key: str, body: Body) -> None:
        """Store what anyone would store under this key in the same way; who does it does not matter."""

        async def put() -> None:
            try:
                await self.chain.store.put_if_absent(key, body)
            except AlreadyExists:
                return
            except Raced as error:
                raise Indeterminate(str(error)) from error

        await self.chain.retry(put)

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
