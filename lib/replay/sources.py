"""The bytes of an archive file, as Arrow's reader wants them.

A file in a directory of this machine is mapped into memory. Of any other object the wanted byte ranges are fetched
first, by as few requests as their distances allow; Arrow then reads from these.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from headwater.errors import Corrupt, NotFound, Unavailable
from headwater.limits import REPLAY_HOLE_BYTES
from headwater.log.operations import File
from headwater.log.together import together
from headwater.replay.view import View
from headwater.store.base import ObjectStore
from headwater.store.local import LocalStore
from headwater.store.prefixed import PrefixedStore

MAGIC: Final = b"PAR1"
Range = tuple[int, int]


def local_path(store: ObjectStore, key: str) -> Path | None:
    """Where the object lies on this machine, if its store is a directory that nobody stands before."""
    while isinstance(store, PrefixedStore):
        key = store.prefix + key
        store = store.inner
    return store.root / key if isinstance(store, LocalStore) else None


def mapped(path: Path, file: File) -> Any:
    """The file as mapped memory.

    Raises:
        NotFound: it is gone (R6).
        Corrupt: it has another size than the log says.
        Unavailable: it cannot be read.
    """
    try:
        size = os.stat(path).st_size
        if size != file.bytes:
            raise Corrupt(f"{file.key!r} has {size} bytes and the log says {file.bytes}: it was cut.", key=file.key)
        return pa.memory_map(str(path))
    except FileNotFoundError:
        raise NotFound(f"{file.key!r} is gone.", key=file.key) from None
    except OSError as error:
        raise Unavailable(f"{file.key!r} cannot be read: {error}.", key=file.key) from error


async def fetched(view: View, file: File, ranges: Sequence[Range]) -> Any:
    """Some bytes of an object, as a file that has nothing else. Raises ``NotFound`` (R6), ``Corrupt``."""
    joined = coalesced(ranges)
    blobs = await together(*(read_range(view, file, start, end) for start, end in joined))
    return sparse(file.bytes, [start for start, _ in joined], blobs)


def sparse(size: int, starts: list[int], blobs: list[bytes]) -> Any:
    """An Arrow file that has some ranges of ``size`` bytes, and nothing else."""
    opened: Any = Sparse(size, starts, blobs)
    return pa.PythonFile(opened, mode="r")


async def read_range(view: View, file: File, start: int, end: int) -> bytes:
    """The bytes ``[start, end)`` of the object, all of them. Raises ``NotFound`` (R6), ``Corrupt``. Cost: 1 GET."""
    blob = await view.namespace.chain.read(file.key, start=start, end=end, state=view.state)
    if len(blob.data) != end - start or blob.stat.size != file.bytes:
        raise Corrupt(
            f"{file.key!r} has {blob.stat.size} bytes and the log says {file.bytes}: it was cut.", key=file.key
        )
    return blob.data


def coalesced(ranges: Sequence[Range]) -> list[Range]:
    """The ranges in order, those joined between which little lies."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start - joined[-1][1] <= REPLAY_HOLE_BYTES:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


@dataclass(slots=True)
class Sparse:
    """A file of ``size`` bytes of which some ranges are there; reading another is an error. Reads copy nothing."""

    size: int
    starts: list[int]
    blobs: list[bytes]
    position: int = 0
    closed: bool = False

    def read_buffer(self, nbytes: int | None = None) -> Any:
        """What Arrow calls if there is such a method."""
        start = self.position
        end = self.size if nbytes is None or nbytes < 0 else min(start + nbytes, self.size)
        self.position = end
        if end <= start:
            return pa.py_buffer(b"")
        at = bisect_right(self.starts, start) - 1
        blob = self.blobs[at] if at >= 0 else b""
        begin = start - self.starts[at] if at >= 0 else 0
        if at < 0 or begin + end - start > len(blob):
            raise OSError(f"bytes {start} to {end} were not fetched")
        return pa.py_buffer(blob).slice(begin, end - start)

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
        """Let go of the bytes."""
        self.closed = True
        self.blobs = []
        self.starts = []
