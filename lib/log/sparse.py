"""Parts of a Parquet file as Arrow reads them: the bytes of a column chunk, and a file of which some ranges are there.

Pure: whoever has fetched the ranges hands them over.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

Range: TypeAlias = tuple[int, int]  # bytes [start, end)


def chunk_range(column: Any) -> Range:
    """Where the column chunk of a row group lies, from its metadata."""
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    return start, start + column.total_compressed_size


def coalesced(ranges: Sequence[Range], hole_bytes: int) -> list[Range]:
    """The ranges in order, those joined between which at most ``hole_bytes`` lie: cheaper to read than to ask twice."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start - joined[-1][1] <= hole_bytes:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def taker(source: Any) -> Any:
    """``take(start, end)`` of an Arrow file that nobody else is reading now."""

    def take(start: int, end: int) -> Any:
        source.seek(start)
        return source.read_buffer(end - start)

    return take


def sparse(size: int, starts: list[int], blobs: list[bytes]) -> Any:
    """An Arrow file that has some ranges of ``size`` bytes, and nothing else."""
    opened: Any = Sparse(size, starts=starts, blobs=blobs)
    return pa.PythonFile(opened, mode="r")


@dataclass(slots=True)
class ReadOnly:
    """A file as ``pa.PythonFile`` wants it; what it holds is for ``take``."""

    size: int
    position: int = 0
    closed: bool = False

    def take(self, start: int, end: int) -> Any:
        """The bytes ``[start, end)``, not none of them, as an Arrow buffer. Raises ``OSError``."""
        raise NotImplementedError

    def read_buffer(self, nbytes: int | None = None) -> Any:
        """What Arrow calls if there is such a method; copies nothing."""
        start = self.position
        end = self.size if nbytes is None or nbytes < 0 else min(start + nbytes, self.size)
        self.position = max(start, end)
        return self.take(start, end) if end > start else pa.py_buffer(b"")

    def read(self, nbytes: int | None = None) -> bytes:
        """The same as bytes."""
        return bytes(self.read_buffer(nbytes))

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move; nothing is read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + position
        return self.position

    def tell(self) -> int:
        """The position."""
        return self.position

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """It is."""
        return True

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let go of what is held."""
        self.closed = True


@dataclass(slots=True, kw_only=True)
class Sparse(ReadOnly):
    """A file of which some ranges are there, each within one of ``blobs``; reading another is an error."""

    starts: list[int]
    blobs: list[bytes]

    def take(self, start: int, end: int) -> Any:
        at = bisect_right(self.starts, start) - 1
        blob = self.blobs[at] if at >= 0 else b""
        begin = start - self.starts[at] if at >= 0 else 0
        if at < 0 or begin + end - start > len(blob):
            raise OSError(f"bytes {start} to {end} were not fetched")
        return pa.py_buffer(blob).slice(begin, end - start)

    def close(self) -> None:
        self.closed = True
        self.blobs = []
        self.starts = []
