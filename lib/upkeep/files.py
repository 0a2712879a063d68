"""A partition's list of archive files stays short, and its files large.

**Merging.** Files below an eighth of ``archive.bytes`` are small. Small neighbours become one file when there are at
least 8, together at least eight times the largest of them, and when they come to half of ``archive.bytes`` or are 64.

What that costs: written bytes / ingested bytes. Archiving writes every byte once. Merging puts a byte into a file that
is at least eight times as large, and never again once that is an eighth of ``archive.bytes``. With the defaults a
partition makes a small file at most every 6 hours. If it takes in more than 112 KiB in that time (5 bytes a second), 64
files come to 7 MiB, so its bytes are merged once: the ratio is at most 2. From 7 MiB on it makes no small file: the
ratio is 1. Slower partitions merge by 64 at a time: one of a KiB in 6 hours pays for three merges, of next to nothing.

**Listing.** The state lists 256 files of a partition. When more than half of that are there, the oldest move to a page,
an object that lists up to 4,096; the last page is written anew as long as it is not full. So 65 files or more share
the cost of one page of at most 200 KB.

Files that compaction has gone over, and those below its mark, are never put together with others: what one file says
of ``cleaned_ms`` and what the archive says of ``clean`` stays true. Of two marks the later one counts, which keeps
tombstones longer, never shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import pyarrow as pa

from headwater.errors import Conflict, HeadwaterError
from headwater.limits import FILES_MAX, MIB
from headwater.log import files, keys, parquet
from headwater.log.config import TopicConfig
from headwater.log.operations import File, SwapFiles
from headwater.log.state import Archive, Partition
from headwater.log.together import together
from headwater.upkeep.packing import Packer
from headwater.upkeep.swapping import Place, Swapper

MERGE_MIN: Final = 8  # files that are merged at once, at the least
MERGE_GROWTH: Final = 8  # how many times its size a file becomes at least: larger ones than an eighth cannot
MERGE_PART: Final = 2  # half of archive.bytes is worth a merge, and so are …
MERGE_SURE: Final = 64  # … so many files, however small they are
MERGED_BYTES_MAX: Final = 56 * MIB  # of a merged file: encoded anew it fits one object
LISTED_MAX: Final = FILES_MAX // 2  # files that the state lists itself before the oldest move to a page …
LISTED_KEPT: Final = FILES_MAX // 4  # … and how many stay
READ_BYTES: Final = 16 * MIB  # files read at once for a merge
READ_FILES: Final = 8
WORK_BYTES: Final = 2 * READ_BYTES + 40 * MIB  # of a merge, beside what is encoded already


def is_untidy(partition: Partition, config: TopicConfig) -> bool:
    """Whether there is something to do. Cost: nothing."""
    archive = partition.archive
    if archive is None:
        return False
    return len(archive.files) > LISTED_MAX or bool(small_neighbours(partition, config))


async def tidy(swapper: Swapper, place: Place, config: TopicConfig) -> int:
    """Do one thing that makes the partition's list tidier; says how many bytes were read for it.

    Raises:
        Conflict, NotFound: others were faster. Look again.
        Corrupt: a file is damaged; it stays as it is.

    Cost: a merge reads some files (1 GET each) and writes them as one (1 PUT), a move 1 PUT and perhaps 1 GET; then 1
    commit.
    """
    partition = swapper.partition(place)
    group = [] if partition is None else small_neighbours(partition, config)
    if group:
        await _merge(swapper, place, group)
        return sum(file.bytes for file in group)
    await make_room(swapper, place, 0)
    return 0


async def make_room(swapper: Swapper, place: Place, more: int) -> None:
    """Move the oldest listed files to a page if there would be too many of them with ``more``."""
    partition = swapper.partition(place)
    if partition is None or partition.archive is None:
        return
    listed = partition.archive.files
    if len(listed) + more <= LISTED_MAX or len(listed) <= LISTED_KEPT:
        return
    await _move(swapper, place, listed[: len(listed) - LISTED_KEPT])


# -- merging --------------------------------------------------------------------------------------------


def small_neighbours(partition: Partition, config: TopicConfig) -> list[File]:
    """Files that should be one, the oldest such; none if there are none. Pure."""
    if partition.archive is None:
        return []
    most = min(config.archive_bytes, MERGED_BYTES_MAX)
    for run in _runs(partition.archive, most):
        found = _worth(run, most // MERGE_PART)
        if found:
            return found
    return []


def _runs(archive: Archive, most: int) -> Iterator[list[File]]:
    """Small neighbours of one kind that fit one file of ``most`` bytes together."""

    def kind(file: File) -> tuple[bool, bool, bool]:
        return file.bytes * MERGE_GROWTH < most, file.cleaned_ms > 0, file.end <= archive.clean

    for (is_small, _, _), group in groupby(archive.files, kind):
        if not is_small:
            continue
        run: list[File] = []
        size = 0
        for file in group:
            if size + file.bytes > most:
                yield run
                run, size = [], 0
            run.append(file)
            size += file.bytes
        yield run


def _worth(run: Sequence[File], enough: int) -> list[File]:
    """The part of a run that is worth merging: without files that would hardly grow by it."""
    if len(run) < MERGE_MIN:
        return []
    size = sum(file.bytes for file in run)
    largest = max(range(len(run)), key=lambda i: run[i].bytes)
    if size < MERGE_GROWTH * run[largest].bytes:
        return _worth(run[:largest], enough) or _worth(run[largest + 1 :], enough)
    return list(run) if size >= enough or len(run) >= MERGE_SURE else []


async def _merge(swapper: Swapper, place: Place, group: list[File]) -> None:
    need = 2 * sum(file.bytes for file in group) + WORK_BYTES
    async with swapper.budget.hold(need):
        made = await _merged(swapper, place, group)
    op = SwapFiles(
        topic=place.topic,
        partition=place.number,
        base=group[0].base,
        end=group[-1].end,
        was=[file.key for file in group],
        files=made,
    )
    await swapper.swap(op, [file.key for file in made])
    swapper.totals.merged += len(group)


async def _merged(swapper: Swapper, place: Place, group: list[File]) -> list[File]:
    """The records of ``group`` in new files, mostly one."""
    name = swapper.topic_name(place)
    schema = swapper.namespace.state.topics[place.topic].schema
    metadata = {"headwater.topic": name, "headwater.partition": str(place.number)}
    packer = Packer(group[0].base, schema.columns if schema else [], metadata)
    made: list[File] = []
    try:
        for some in _together(group):
            read = await together(*(_read(swapper, file) for file in some))
            for file, data in zip(some, read, strict=True):
                await swapper.offload(_feed, packer, file, data)
            await _store(swapper, place, packer, group, made)
        await swapper.offload(packer.finish, group[-1].end)
        await _store(swapper, place, packer, group, made)
    except HeadwaterError:
        await swapper.discard([file.key for file in made])
        raise
    return made


async def _store(swapper: Swapper, place: Place, packer: Packer, group: list[File], made: list[File]) -> None:
    """Store what is finished, after a look whether it is still of use."""
    for ready in packer.take():
        await swapper.namespace.refresh()
        _see_that_they_are_there(swapper, place, group)
        made.append(await swapper.store(place, ready, max(file.cleaned_ms for file in group)))


def _see_that_they_are_there(swapper: Swapper, place: Place, group: list[File]) -> None:
    partition = swapper.partition(place)
    listed = [] if partition is None or partition.archive is None else partition.archive.files
    if not {file.key for file in group} <= {file.key for file in listed}:
        raise Conflict(f"Others have replaced files of [{group[0].base}, {group[-1].end}) by now.")


def _together(group: list[File]) -> Iterator[list[File]]:
    """Files that are read at the same time."""
    some: list[File] = []
    for file in group:
        if some and (len(some) == READ_FILES or sum(each.bytes for each in some) + file.bytes > READ_BYTES):
            yield some
            some = []
        some.append(file)
    yield some


async def _read(swapper: Swapper, file: File) -> bytes:
    blob = await swapper.namespace.chain.read(file.key)
    swapper.totals.bytes_read += len(blob.data)
    return blob.data


def _feed(packer: Packer, file: File, data: bytes) -> None:
    """Put the rows of a whole file into the packer. Raises ``Corrupt``."""
    parquet.check_whole(file, data)
    footer = parquet.read_footer(data[len(data) - file.footer :], file)
    names = footer.schema.to_arrow_schema().names
    for group in range(footer.num_row_groups):
        packer.add(parquet.decode_row_groups(pa.BufferReader(data), footer, [group], names, file))


# -- listing --------------------------------------------------------------------------------------------


async def _move(swapper: Swapper, place: Place, old: list[File]) -> None:
    """From now on a page lists ``old``, the oldest files that the state lists itself."""
    partition = swapper.partition(place)
    assert partition is not None, "who asks has looked"
    assert partition.archive is not None
    last = partition.archive.pages[-1:]
    was, whole = [file.key for file in old], old
    if last and last[0].files + len(old) <= files.PAGE_FILES:
        was = [last[0].key, *was]
        whole = [*await swapper.namespace.lookup.listed(last[0]), *old]
    nonce = keys.fresh_name(swapper.namespace.chain.rng, 50)
    key = keys.file_page_key(swapper.namespace.state.seq, place.topic, place.number, nonce)
    page, data = files.encode(whole, key)
    await swapper.put(key, data)
    op = SwapFiles(topic=place.topic, partition=place.number, base=page.base, end=page.end, was=was, pages=[page])
    await swapper.swap(op, [key])
    swapper.totals.pages += 1
