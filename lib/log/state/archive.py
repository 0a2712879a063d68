"""The archive's index: which files hold a partition's old offsets, and how they change hands.

A partition reads as files below ``archive.end`` and as chunks from there on. ``SwapFiles`` is the one way to change
that: it archives (nothing held the range before), lists files by a page, merges, and compacts. It names what it
replaces, so of two processes that do the same work one is refused as ``stale``, and its files are nobody's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import structs

from headwater.limits import FILE_PAGES_MAX, FILES_MAX
from headwater.log.operations import File, FilePage, SwapFiles
from headwater.log.operations_base import Op
from headwater.log.state.appends import partition_of
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Archive, Partition, State

Item: TypeAlias = FilePage | File

ARCHIVE, FILE_PAGES = "archive/", "files/"


def _swap(change: Change, op: SwapFiles) -> None:
    partition = partition_of(change.state, op.topic, op.partition)
    if op.end > partition.stable_end:
        raise Refused("out_of_range", f"The log ends at {partition.stable_end}; it cannot be archived up to {op.end}.")
    _check_new(change.state, op)
    before = partition.archive or Archive()
    below, above = _surroundings(before, partition, op)
    after = _joined(before, below, _dated(op, before, change.state.time_ms), above)
    # Whoever archived while the log was trimmed must not leave files that nobody can read, with a gap behind them.
    change.set(partition, "archive", trimmed(after, partition.start))


def _surroundings(before: Archive, partition: Partition, op: SwapFiles) -> tuple[list[Item], list[Item]]:
    """What lies below and above the range; a refusal unless in it lies exactly what the operation names."""
    items: list[Item] = [*before.pages, *before.files]
    below = [item for item in items if item.end <= op.base]
    inside = [item for item in items if item.end > op.base and item.base < op.end]
    above = [item for item in items if item.base >= op.end]
    if [item.key for item in inside] != op.was:
        raise Refused("stale", f"Other files hold the offsets [{op.base}, {op.end}) by now: look again.")
    if inside:
        fits = inside[0].base == op.base and (inside[-1].end == op.end or op.end > before.end == inside[-1].end)
    else:
        # Between the archive and what is new there may be a gap that nobody can read any more.
        fits = before.end <= op.base and (op.base == before.end or op.base <= partition.start)
    if not fits:
        raise Refused("stale", f"The archive ends at {before.end}; no file begins or ends at [{op.base}, {op.end}).")
    return below, above


def _check_new(state: State, op: SwapFiles) -> None:
    new: list[Item] = [*op.pages, *op.files]
    position = op.base
    for item in new:
        if item.base != position or item.end <= item.base or item.count > item.end - item.base:
            raise Refused("invalid", f"{item.key[:200]!r} does not begin at {position}, or holds what cannot be there.")
        position = item.end
    if position != op.end or not new:
        raise Refused("invalid", f"The new files end at {position} and should hold all up to {op.end}.")
    if op.clean > op.end:
        raise Refused("invalid", f"Offsets up to {op.clean} cannot be compacted where the new files end at {op.end}.")
    for page in op.pages:
        _check_key(state, op, page.key, FILE_PAGES)
    for file in op.files:
        _check_key(state, op, file.key, ARCHIVE)


def _check_key(state: State, op: SwapFiles, key: str, folder: str) -> None:
    """R4: an object below the floor may be collected at any moment, unless it is in use already."""
    tip = key[-28:-8] if folder == ARCHIVE else key[6:26]
    if not key.startswith(folder) or not (len(tip) == 20 and tip.isascii() and tip.isdigit()):
        raise Refused("invalid", f"{key[:200]!r} is not the name of a file of the archive.")
    if int(tip) < state.floor and key not in op.was:
        raise Refused("gone", f"{key[:200]!r} was made at tip {int(tip)}; those below {state.floor} are collected.")


def _dated(op: SwapFiles, before: Archive, time_ms: int) -> SwapFiles:
    """R7: what is compacted for the first time is so from this manifest on, however long ago its writer looked at a
    clock. A tombstone may therefore never go before its time.
    """
    files = [
        structs.replace(file, cleaned_ms=max(file.cleaned_ms, time_ms))
        if file.cleaned_ms and before.clean <= file.base < op.clean
        else file
        for file in op.files
    ]
    return structs.replace(op, files=files) if files != op.files else op


def _joined(before: Archive, below: list[Item], op: SwapFiles, above: list[Item]) -> Archive:
    items: list[Item] = [*below, *op.pages, *op.files, *above]
    pages = [item for item in items if isinstance(item, FilePage)]
    files = [item for item in items if isinstance(item, File)]
    if pages and files and pages[-1].base > files[0].base:
        raise Refused("invalid", "Pages list the files below those that the state lists itself.")
    if len(files) > FILES_MAX or len(pages) > FILE_PAGES_MAX:
        raise Refused("too_many", f"A partition lists {FILES_MAX} files itself and {FILE_PAGES_MAX} pages of others.")
    return Archive(max(before.end, op.end), max(before.clean, op.clean), pages, files)


def trimmed(archive: Archive | None, start: int) -> Archive | None:
    """The archive without what lies wholly below ``start``; the same one if nothing does."""
    if archive is None:
        return None
    lowest: list[Item] = [*archive.pages[:1], *archive.files[:1]]
    if not lowest or lowest[0].end > start:
        return archive
    return Archive(
        archive.end,
        archive.clean,
        [page for page in archive.pages if page.end > start],
        [file for file in archive.files if file.end > start],
    )


OPERATIONS: dict[type[Op], Any] = {SwapFiles: _swap}
