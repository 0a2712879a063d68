"""The chunk index of old manifests, spilled to pages, so that no object and no process grows with history.

The state keeps the chunk entries of recent manifests in its partitions' tails. Now and then a process
seals the tails into a page, an object ``index/<first>-<last>`` that holds exactly the entries which
manifests ``first..last`` made readable, sorted by partition and offset. Whoever seals the same range
writes the same entries, so pages need no agreement. ``INDEX_FANOUT`` pages of one level merge into one
of the next (a log-structured merge tree), so a log of n manifests has O(log n) pages until they reach
``INDEX_PAGE_ENTRIES_MAX``. What archive, log start or the end of a topic have made dead by then is left
out when pages merge; such a page is named by the state that said so, ``index/<first>-<last>-<pruned>``.

A page is a frame; its header has a directory of runs (one a partition), and each run is a byte range
of the payload that can be fetched by itself: zlib over msgpack.

Everything here is pure; ``log.house`` stores pages and ``log.lookup`` reads them.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from headwater.errors import Corrupt
from headwater.limits import INDEX_FANOUT, INDEX_PAGE_ENTRIES_MAX, OBJECT_BYTES_MAX
from headwater.log import frame, intents
from headwater.log.state.model import Entry, PageRef, State

Place: TypeAlias = tuple[int, int]  # topic id, partition


class Run(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One partition's entries in a page: offsets ``[base, end)``, timestamps up to ``max_ms``, bytes of the payload."""

    topic: int
    partition: int
    rows: int
    base: int
    end: int
    max_ms: int
    pos: int
    len: int
    crc: int


class PageHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """The directory of a page."""

    v: int
    kind: str
    first: int
    last: int
    runs: list[Run]


_headers = msgspec.json.Decoder(PageHeader)
_entries = msgspec.msgpack.Decoder(list[Entry])


def seal(state: State) -> tuple[PageRef, bytes] | None:
    """Move all tail entries into a page that covers every manifest since the last one.

    The caller owns the page's bytes until they are stored. None if there was nothing to move, in which
    case the coverage still advances.
    """
    first, last = state.paged + 1, state.seq
    if last < first:
        return None
    runs: dict[Place, list[Entry]] = {}
    for topic in state.topics.values():
        for number, partition in enumerate(topic.partitions):
            if partition.tail:
                runs[topic.id, number] = partition.tail
                partition.tail = []
    state.paged = last
    state.tail_entries = 0
    entries = sum(len(run) for run in runs.values())
    if not entries:
        return None
    ref = PageRef(first, last, 0, entries)
    state.pages.append(ref)
    return ref, encode(ref, runs)


def adopt(state: State, pages: list[PageRef], paged: int) -> bool:
    """Take over the pages of another process's snapshot, which cover manifests up to ``paged``; whether that was done.

    Not if some leave out what is dead by a later state than this one: here it may still be alive.
    """
    if paged < state.paged or paged > state.seq or any(page.pruned > state.seq for page in pages):
        return False
    dropped = 0
    for topic in state.topics.values():
        for partition in topic.partitions:
            kept = [entry for entry in partition.tail if entry.seq > paged]
            dropped += len(partition.tail) - len(kept)
            partition.tail = kept
    state.tail_entries -= dropped
    state.pages = list(pages)
    state.paged = paged
    return True


def plan_merge(pages: list[PageRef]) -> list[PageRef]:
    """The newest pages that should become one, or none."""
    if len(pages) < INDEX_FANOUT:
        return []
    last = pages[-INDEX_FANOUT:]
    same_level = all(page.level == last[0].level for page in last)
    return last if same_level and sum(page.entries for page in last) <= INDEX_PAGE_ENTRIES_MAX else []


def merge(refs: list[PageRef], bodies: list[bytes], state: State) -> tuple[PageRef, bytes | None]:
    """One page of the next level from neighbours, or of the same level from one alone, without what is dead by now.

    The bytes are None if nothing is left. Cost: decodes and encodes all of them.
    """
    runs: dict[Place, list[Entry]] = defaultdict(list)
    present = 0
    for body in bodies:
        header, base = decode_header(body)
        for run in header.runs:
            present += run.rows
            if run.end > _hot(state, run.topic, run.partition):
                runs[run.topic, run.partition] += decode_run(run, body[base + run.pos : base + run.pos + run.len])
    kept = {}
    for (topic, partition), entries in runs.items():
        hot = _hot(state, topic, partition)
        if living := [entry for entry in entries if entry.end > hot]:
            kept[topic, partition] = living
    count = sum(len(entries) for entries in kept.values())
    # The same entries must come from whoever makes a page of this name: once something was left out, by which state.
    pruned = state.seq if count < present or any(ref.pruned for ref in refs) else 0
    ref = PageRef(refs[0].first, refs[-1].last, refs[0].level + (len(refs) > 1), count, pruned)
    return ref, encode(ref, kept) if count else None


def dead_rows(header: PageHeader, state: State) -> int:
    """About how many entries of a page nobody can read any more: by offsets, where a run is partly dead."""
    dead = 0
    for run in header.runs:
        below = min(max(_hot(state, run.topic, run.partition) - run.base, 0), run.end - run.base)
        dead += run.rows * below // max(run.end - run.base, 1)
    return dead


def _hot(state: State, topic: int, partition: int) -> int:
    """Entries that end at or below this are dead; all are, if their topic was deleted."""
    found = state.partition(topic, partition)
    return 1 << 63 if found is None else found.hot


def encode(ref: PageRef, runs: dict[Place, list[Entry]]) -> bytes:
    """The bytes of a page. Equal entries give equal bytes."""
    directory, payload, pos = [], [], 0
    for (topic, partition), entries in sorted(runs.items()):
        entries = sorted(entries, key=_base)
        packed = zlib.compress(msgspec.msgpack.encode(entries), 1)
        directory.append(
            Run(
                topic,
                partition,
                len(entries),
                entries[0].base,
                max(entry.end for entry in entries),
                max(entry.max for entry in entries),
                pos,
                len(packed),
                frame.checksum(packed),
            )
        )
        payload.append(packed)
        pos += len(packed)
    header = PageHeader(intents.FORMAT, "index", ref.first, ref.last, directory)
    return frame.encode(msgspec.json.encode(header), pos) + b"".join(payload)


def header_bytes(data: bytes) -> int:
    """How many bytes the directory needs, from the page's beginning. Raises ``Corrupt``."""
    return frame.header_bytes(data)


def decode_header(data: bytes, *, whole: bool = True) -> tuple[PageHeader, int]:
    """A page's directory and where its payload starts. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, base = frame.decode(data, whole=whole)
    header = intents.decode_header(_headers, line, "index page")
    if header.kind != "index":
        raise Corrupt(f"An index page's key holds a {header.kind}.")
    return header, base


def decode_run(run: Run, packed: bytes) -> list[Entry]:
    """The entries of one run. Raises ``Corrupt``."""
    if len(packed) != run.len or frame.checksum(packed) != run.crc:
        raise Corrupt(f"The index run of topic {run.topic}, partition {run.partition} fails its CRC32C.")
    what = f"index run of topic {run.topic}, partition {run.partition}"
    try:
        raw = zlib.decompressobj().decompress(packed, OBJECT_BYTES_MAX)
    except zlib.error as error:
        raise Corrupt(f"The {what} cannot be inflated: {error}.") from error
    entries = intents.decode_known(_entries, raw, what)
    if len(entries) != run.rows:
        raise Corrupt(f"The index run of topic {run.topic} has {len(entries)} entries and should have {run.rows}.")
    return entries


def from_offset(tail: list[Entry], offset: int) -> list[Entry]:
    """The part of a tail (by base, without overlaps) that ends above ``offset``. Cost: a bisection and a slice."""
    at = bisect_right(tail, offset, key=_base)
    return tail[at - 1 if at and tail[at - 1].end > offset else at :]


def overlapping(entries: Iterable[Entry], offset: int) -> list[Entry]:
    """The entries that end above ``offset``, by base."""
    return sorted((entry for entry in entries if entry.end > offset), key=_base)


def _base(entry: Entry) -> int:
    return entry.base
