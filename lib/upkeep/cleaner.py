"""The hands of compaction: reads files, writes what is left of them, and swaps the ones for the others.

A pass over a partition goes from the log start to the end of the dirty section in strides: some files, their
successors, one ``SwapFiles``. Each stride begins from the state as it is then, so an archiver that lists files by a
page meanwhile does not disturb it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
from msgspec import structs

from headwater.errors import HeadwaterError, Indeterminate, NotFound
from headwater.log import files, keys, parquet
from headwater.log.config import TopicConfig
from headwater.log.namespace import Namespace
from headwater.log.operations import Column, File, FilePage, SwapFiles
from headwater.log.state import Partition, Topic
from headwater.types import Progress
from headwater.upkeep.latest import Latest
from headwater.upkeep.offload import Offload
from headwater.upkeep.rewriting import Counts, Rule, Successors, any_superseded, rows_left

KEYS_BYTES: Final = 64 << 20  # of records whose keys are read at once
STRIDE_BYTES: Final = 512 << 20  # read anew between two swaps: what a crash costs
STRIDE_FILES: Final = 256  # looked at between two swaps, if some of them changed
LATE_MS: Final = 3_600_000  # a swap whose files are listed by a page counts as made so late
ANSWERS_MAX: Final = 4  # how often the store is asked what became of a swap


@dataclass(slots=True)
class Totals:
    """What was done so far. ``files`` are those that were written anew."""

    files: int = 0
    swaps: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    counts: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class _Section:
    """The dirty section ``[start, end)``, the latest offset of its keys, and how many of a file's records have none."""

    start: int
    end: int
    latest: Latest
    first: str  # the key of its first file
    keyless: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Work:
    """A pass over one partition."""

    topic: int
    number: int
    config: TopicConfig
    section: _Section
    now_ms: int


@dataclass(slots=True)
class _Stride:
    """Neighbours that are swapped together: ``listed`` is all that lies in their page, or that the state lists."""

    page: FilePage | None
    listed: list[File]
    first: int
    out: Successors
    at: int = 0  # of ``listed``: files below were carried over
    read: int = 0

    @property
    def is_enough(self) -> bool:
        return self.read >= STRIDE_BYTES or (self.out.changed and self.at - self.first >= STRIDE_FILES)


class Cleaner:
    """Compacts partitions of one namespace, one after the other."""

    def __init__(
        self,
        namespace: Namespace,
        offload: Offload,
        progress: Progress | None,
        memory_bytes_max: int,
        deadline_s: float | None,
        now_ms: int | None,
    ) -> None:
        self.namespace = namespace
        self.chain = namespace.chain
        self.offload = offload
        self.progress = progress
        self.memory_bytes_max = memory_bytes_max
        self.deadline_s = deadline_s
        self.totals = Totals()
        self._now_ms = now_ms

    @property
    def late(self) -> bool:
        """Whether the time for this run is over."""
        return self.deadline_s is not None and self.chain.clock.elapsed_s() >= self.deadline_s

    def now_ms(self) -> int:
        """The time that a manifest would carry which is made now (R7)."""
        return max(self.chain.state.time_ms, self.chain.clock.wall_ms()) if self._now_ms is None else self._now_ms

    async def _store_ms(self, key: str) -> int:
        """What the store's clock says: the life of a tombstone is measured by it, and not by clocks of ours that may
        be days off. Cost: 1 GET of one byte of the object.
        """
        if self._now_ms is not None:
            return self._now_ms
        return (await self.chain.read(key, end=1)).stat.date_ms

    async def clean(self, topic: int, number: int, config: TopicConfig, dirty_end: int) -> None:
        """Compact as much of the dirty section up to ``dirty_end`` as its keys fit the memory, or as there is time for.

        Raises:
            Conflict, NotFound: others were faster, or the topic has gone. What was swapped stays swapped.
        """
        section = await self._section(topic, number, dirty_end)
        if section is None:
            return
        work = _Work(topic, number, config, section, await self._store_ms(section.first))
        cursor = self._partition(work).start
        while cursor < section.end and not self.late:
            cursor = await self._stride(work, cursor)

    # -- the dirty section --------------------------------------------------------------------------------

    async def _section(self, topic: int, number: int, dirty_end: int) -> _Section | None:
        """The part of the dirty section whose keys fit the memory; None if there is none, or if time was over.

        It ends where a file ends, unless the first file alone has too many keys.
        """
        partition = self.namespace.state.partition(topic, number)
        if partition is None or partition.archive is None:
            return None
        section: _Section | None = None
        async for file in self.namespace.lookup.files(topic, number, max(partition.archive.clean, partition.start)):
            if file.base >= dirty_end or self.late:
                break
            if section is None:
                # A file across the mark counts as dirty, whole.
                section = _Section(file.base, file.base, Latest(self.memory_bytes_max), file.key)
            reached, keyless = await self._add_keys(section.latest, file)
            if reached < file.end and section.end > section.start:
                break  # its keys in the map do no harm: they supersede what they would supersede in the next part
            section.end = reached
            section.keyless[file.key] = keyless if reached == file.end else -1
            if section.latest.full:
                break
        if section is None or section.end == section.start or self.late:
            return None
        await self.offload(section.latest.seal)
        return section

    async def _add_keys(self, latest: Latest, file: File) -> tuple[int, int]:
        """Add a file's keys until the map is full: the offset reached, and how many records had no key."""
        offset, keyless = file.base, 0
        while offset < file.end and not latest.full:
            batch, offset = await self._keys(file, offset)
            keyless += batch.column("key").null_count
            if batch.num_rows:
                await self.offload(latest.add, batch)
        return offset, keyless

    async def _keys(self, file: File, offset: int) -> tuple[pa.RecordBatch, int]:
        archived = self.namespace.reader.archived
        return await archived.rows(file, offset, bytes_max=KEYS_BYTES, columns=["offset", "key"])

    # -- a stride -----------------------------------------------------------------------------------------

    async def _stride(self, work: _Work, cursor: int) -> int:
        """Go over some files from ``cursor`` on, and swap those that change. Returns where to go on."""
        stride = await self._begin(work, cursor)
        if stride is None:
            return work.section.end  # all of it was trimmed meanwhile
        try:
            for file in stride.listed[stride.first :]:
                if file.base >= work.section.end or stride.is_enough or (self.late and stride.at > stride.first):
                    break
                await self._one(work, stride, file)
                stride.at += 1
            await stride.out.close()
            op = await self._op(work, stride)
        except HeadwaterError:
            await self._discard(stride.out)
            raise
        if op is not None:
            await self._commit(op, stride.out)
        return min(stride.out.at, work.section.end)

    async def _begin(self, work: _Work, cursor: int) -> _Stride | None:
        """What is swapped together: files of the page that holds ``cursor``, or of those that the state lists."""
        archive = self._partition(work).archive
        if archive is None:
            return None
        page = next((page for page in archive.pages if page.end > cursor), None)
        listed = list(archive.files if page is None else await self.namespace.lookup.listed(page))
        first = next((i for i, file in enumerate(listed) if file.end > cursor), len(listed))
        if first == len(listed) or listed[first].base >= work.section.end:
            return None
        topic = self._topic(work)
        columns: list[Column] = [] if topic.schema is None else list(topic.schema.columns)
        base = listed[first].base
        out = Successors(self.namespace, self.offload, topic.name, work.number, columns, base)
        return _Stride(page, listed, first, out, first)

    async def _one(self, work: _Work, stride: _Stride, file: File) -> None:
        """Carry one file over: as it is, or what is left of it."""
        section, out = work.section, stride.out
        if self.progress is not None:
            self.progress("compact", file.end, section.end)
        dirty = file.end > section.start
        if not await self._loses(work, file):
            await out.carry(file, marked=dirty)
            return
        data = await self._whole(file)
        stride.read += file.bytes
        meta = (await self.namespace.reader.archived.footer(file)).meta
        cuts = [file.base, min(file.end, section.end) if dirty else file.end, file.end]
        for base, end in pairwise(cuts):
            if base >= end:
                continue
            if base >= section.end:
                await out.close()  # the map was full inside this file: its rest stays dirty, in a file of its own
            first = dirty and base < section.end
            rule = Rule(section.latest, base, end, first, section.end, self._expired(work, file))
            for group in range(meta.num_row_groups):
                table = await self.offload(rows_left, data, meta, group, file, rule, self.totals.counts)
                await out.take(table, file, rule)
            out.reach(end)
        self.totals.files += 1

    async def _loses(self, work: _Work, file: File) -> bool:
        """Whether something in the file is to go. Cost: for an older file its keys; for a dirty one nothing."""
        section = work.section
        if file.count == 0:
            return False
        if file.end > section.start:
            keyless = section.keyless.get(file.key, -1)
            return keyless < 0 or len(section.latest.survivors(file.base, file.end)) + keyless < file.count
        if self._expired(work, file) and await self.namespace.reader.archived.nulls(file, "value"):
            return True
        offset = file.base
        while offset < file.end and len(section.latest):
            batch, offset = await self._keys(file, offset)
            found: bool = await self.offload(any_superseded, section.latest, batch)
            if found:
                return True
        return False

    def _expired(self, work: _Work, file: File) -> bool:
        """Whether tombstones of the file have been kept for ``delete.retention.ms`` since it was first compacted."""
        clean = file.cleaned_ms > 0 and file.end <= work.section.start
        return clean and work.now_ms >= file.cleaned_ms + work.config.delete_retention_ms

    async def _whole(self, file: File) -> Any:
        blob = await self.chain.read(file.key)
        self.totals.bytes_read += len(blob.data)
        parquet.check_whole(file, blob.data)
        return blob.data

    # -- the swap -----------------------------------------------------------------------------------------

    async def _op(self, work: _Work, stride: _Stride) -> SwapFiles | None:
        """What makes the successors of a stride true, and moves ``clean`` with them; None if nothing changed."""
        out, listed = stride.out, stride.listed
        if not out.changed:
            return None
        # It is from the swap on that a tombstone is kept. The fold sees to that, but not inside a list of files.
        now_ms = await self._store_ms(listed[stride.first].key) if out.marked else 0
        now_ms += LATE_MS if stride.page is not None else 0
        new = [structs.replace(file, cleaned_ms=now_ms) if file.key in out.marked else file for file in out.new]
        base, end, was = listed[stride.first].base, out.at, [file.key for file in listed[stride.first : stride.at]]
        pages: list[FilePage] = []
        if stride.page is not None:
            base, end, was = stride.page.base, stride.page.end, [stride.page.key]
            pages = await self._pages(work, out, [*listed[: stride.first], *new, *listed[stride.at :]])
            new = []
        reached = min(out.at, work.section.end)
        clean = reached if reached > work.section.start else -1
        return SwapFiles(
            topic=work.topic, partition=work.number, base=base, end=end, was=was, pages=pages, files=new, clean=clean
        )

    async def _pages(self, work: _Work, out: Successors, whole: list[File]) -> list[FilePage]:
        pages = []
        for at in range(0, len(whole), files.PAGE_FILES):
            nonce = keys.fresh_name(self.chain.rng, 50)
            key = keys.file_page_key(self.namespace.state.seq, work.topic, work.number, nonce)
            page, data = files.encode(whole[at : at + files.PAGE_FILES], key)
            await out.put(key, data)
            pages.append(page)
        return pages

    async def _commit(self, op: SwapFiles, out: Successors) -> None:
        """Commit. Of a silent store it is asked again what became of it; a refused swap takes its objects with it."""
        token = ""
        for attempt in range(ANSWERS_MAX):
            try:
                await self.namespace.writer.commit(ops=[op], token=token)
                break
            except Indeterminate as error:
                if attempt == ANSWERS_MAX - 1 or not error.token:
                    raise
                token = error.token
            except HeadwaterError as error:
                # The fold has said no, and will never say otherwise. Behind a silence it may have said yes before.
                if error.data.get("reason") and not token:
                    await self._discard(out)
                raise
        self.totals.swaps += 1
        self.totals.bytes_written += out.written

    async def _discard(self, out: Successors) -> None:
        """Delete what no swap names. Whatever keeps us from it, the collector will find them by their tip (R4)."""
        if out.fresh:
            with contextlib.suppress(HeadwaterError):
                await self.namespace.store.delete(out.fresh)

    # -- small things -------------------------------------------------------------------------------------

    def _topic(self, work: _Work) -> Topic:
        found = self.namespace.state.topics.get(work.topic)
        if found is None:
            raise NotFound(f"Topic {work.topic} was deleted while it was being compacted.")
        return found

    def _partition(self, work: _Work) -> Partition:
        return self._topic(work).partitions[work.number]
