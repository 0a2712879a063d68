"""What compaction writes: of some neighbouring files their successors, in the same order, over the same offsets.

A file that stays as it is is carried over. What is left of one that loses something goes into a new file, together
with what is left of its neighbours if all of it fits: small files would otherwise stay small for ever. Two things never
share a file: what is compacted now and what was before, and tombstones that wait for different times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.limits import OBJECT_BYTES_MAX
from headwater.log import keys, parquet
from headwater.log.namespace import Namespace
from headwater.log.operations import Column, File
from headwater.store.base import Body
from headwater.upkeep.latest import Latest
from headwater.upkeep.offload import Offload

JOIN_BYTES: Final = 32 << 20  # neighbours share a new file while it is smaller than that
CUT_BYTES: Final = OBJECT_BYTES_MAX - (16 << 20)  # a new file is closed here: a row group and the footer still fit


@dataclass(slots=True)
class Counts:
    """Records that were read, and how many of them went, by reason."""

    records: int = 0
    dropped: int = 0
    tombstones: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Which records of ``[base, end)`` stay: those of an older file, or those of a dirty one.

    With ``expired`` the tombstones of an older one go. What lies at or above ``dirty_end`` is for a later pass.
    """

    latest: Latest
    base: int
    end: int
    dirty: bool
    dirty_end: int
    expired: bool


def kept(table: pa.Table, rule: Rule, counts: Counts) -> pa.Table:
    """The rows that stay, of those inside the rule's range."""
    offsets: Any = table.column("offset")
    base, end = pa.scalar(rule.base, pa.int64()), pa.scalar(rule.end, pa.int64())
    inside: Any = pc.and_(pc.greater_equal(offsets, base), pc.less(offsets, end))
    if pc.all(inside).as_py() is False:
        table = table.filter(inside)
    counts.records += table.num_rows
    if rule.base >= rule.dirty_end or not table.num_rows:
        return table
    offsets, names = table.column("offset"), table.column("key")
    if rule.dirty:
        first, last = offsets[0].as_py(), offsets[-1].as_py()
        stays: Any = pc.or_(pc.is_in(offsets, value_set=rule.latest.survivors(first, last + 1)), pc.is_null(names))
    else:
        stays = pc.invert(rule.latest.superseded(names))
    left = table.filter(stays)
    counts.dropped += table.num_rows - left.num_rows
    if rule.expired:
        alive: Any = pc.or_(pc.is_valid(left.column("value")), pc.is_null(left.column("key")))
        table, left = left, left.filter(alive)
        counts.tombstones += table.num_rows - left.num_rows
    return left


def any_superseded(latest: Latest, batch: pa.RecordBatch) -> bool:
    """Whether an older file loses one of these records."""
    return bool(pc.any(latest.superseded(batch.column("key"))).as_py())


def rows_left(data: Any, meta: pq.FileMetaData, group: int, file: File, rule: Rule, counts: Counts) -> pa.Table:
    """What stays of a row group of the file whose bytes are ``data``, in all its columns. Raises ``Corrupt``."""
    names = meta.schema.to_arrow_schema().names
    return kept(parquet.decode_row_groups(pa.BufferReader(data), meta, [group], names, file), rule, counts)


@dataclass(slots=True)
class _Open:
    """A new file that is being filled from ``base`` on. ``waits`` is the ``cleaned_ms`` of tombstones that wait."""

    builder: parquet.FileBuilder
    base: int
    dirty: bool | None = None  # None while it holds no record
    waits: int = 0
    cleaned_ms: int = 0

    @property
    def size(self) -> int:
        """Bytes so far, or more: what waits for its row group is not packed yet."""
        return self.builder.bytes + self.builder.waiting

    def takes(self, dirty: bool, waits: int, size: int) -> bool:
        """Whether records of another file may join."""
        if self.dirty is None:
            return True
        fits = self.size + size <= JOIN_BYTES
        return fits and self.dirty == dirty and (not self.waits or not waits or self.waits == waits)


@dataclass(slots=True)
class Successors:
    """The files that take the place of others. ``marked`` are compacted for the first time, ``fresh`` ours alone."""

    namespace: Namespace
    offload: Offload
    topic: str
    partition: int
    columns: list[Column]
    at: int  # offsets below are in ``new``, or will be in the open file
    new: list[File] = field(default_factory=list)
    marked: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)
    written: int = 0
    changed: bool = False
    _open: _Open | None = None
    _began: int = -1  # the range whose records are being taken
    _empty: list[File] = field(default_factory=list)  # files without records that end where the next one begins

    async def carry(self, file: File, *, marked: bool) -> None:
        """The file stays as it is; with ``marked`` it is known from now on as compacted."""
        if marked:
            self.marked.add(file.key)
            self.changed = True
        if file.count:
            await self.close()
            self.new.append(file)
            self.at = file.end
        elif self._open is not None:
            self.changed = True
            self.at = file.end
        else:
            self._empty.append(file)  # a new file that begins behind it may take its offsets in

    async def take(self, table: pa.Table, file: File, rule: Rule) -> None:
        """Records of ``file`` that stay, in order of offset."""
        self.changed = True
        if not table.num_rows:
            return
        waits = 0 if rule.dirty or rule.expired else file.cleaned_ms
        if self._began != rule.base:  # these are its first records
            self._began = rule.base
            if self._open is not None and not self._open.takes(rule.dirty, waits, file.bytes):
                await self.close()
        held = self._opened()
        held.dirty, held.waits = rule.dirty, held.waits or waits
        held.cleaned_ms = max(held.cleaned_ms, file.cleaned_ms)
        await self.offload(held.builder.add, table)
        if held.size >= CUT_BYTES:
            self.at = table.column("offset")[-1].as_py() + 1
            await self.close()

    def reach(self, end: int) -> None:
        """Everything below ``end`` that stays has been taken."""
        self.changed = True
        if end > self.at:
            self._opened()
            self.at = end

    def _opened(self) -> _Open:
        if self._open is None:
            metadata = {"headwater.topic": self.topic, "headwater.partition": str(self.partition)}
            self._open = _Open(parquet.FileBuilder(self.columns, metadata), self.at)
            self._empty.clear()
        return self._open

    async def close(self) -> None:
        """Store the file that is open, if one is."""
        held, self._open = self._open, None
        if held is None:
            self.new += self._empty
            self.at = self._empty[-1].end if self._empty else self.at
            self._empty.clear()
            return
        built = await self.offload(held.builder.finish)
        if self.namespace.chain.is_stale():
            await self.namespace.refresh()  # R4: a name with the tip of days ago would be collected at once
        tip, nonce = self.namespace.state.seq, keys.fresh_name(self.namespace.chain.rng, 50)
        key = keys.archive_key(self.topic, self.partition, held.base, self.at, tip, nonce)
        self.new.append(parquet.placed(built, base=held.base, end=self.at, key=key, cleaned_ms=held.cleaned_ms))
        await self.put(key, memoryview(built.data))
        if held.dirty:
            self.marked.add(key)

    async def put(self, key: str, body: Body) -> None:
        """Store an object that the swap will name."""
        self.fresh.append(key)
        await self.namespace.chain.retry(lambda: self.namespace.store.put(key, body))
        self.written += len(body)
