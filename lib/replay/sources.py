"""The bytes of an archive file, as Arrow's reader wants them.

A file in a directory of this machine is mapped into memory. Of any other object the wanted byte ranges are fetched
first, by as few requests as their distances allow; Arrow then reads from these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from headwater.errors import Corrupt, NotFound, Unavailable
from headwater.log.operations import File
from headwater.log.sparse import Range, sparse
from headwater.log.together import together
from headwater.replay.view import View
from headwater.store.base import ObjectStore
from headwater.store.local import LocalStore
from headwater.store.prefixed import PrefixedStore

MAGIC: Final = b"PAR1"


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
    """Some ranges of an object, in order, as a file that has nothing else. Raises ``NotFound`` (R6), ``Corrupt``."""
    blobs = await together(*(read_range(view, file, start, end) for start, end in ranges))
    return sparse(file.bytes, [start for start, _ in ranges], blobs)


async def read_range(view: View, file: File, start: int, end: int) -> bytes:
    """The bytes ``[start, end)`` of the object, all of them. Raises ``NotFound`` (R6), ``Corrupt``. Cost: 1 GET."""
    blob = await view.namespace.chain.read(file.key, start=start, end=end, state=view.state)
    if len(blob.data) != end - start or blob.stat.size != file.bytes:
        raise Corrupt(
            f"{file.key!r} has {blob.stat.size} bytes and the log says {file.bytes}: it was cut.", key=file.key
        )
    return blob.data
