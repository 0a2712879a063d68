r"""Files and folders under the directory store: names, a sorted walk, whole writes, durable folders.

A file name holds 255 bytes at most and a key's part may be longer, so a long part is cut into pieces of ``PIECE``
bytes, and each piece but the last becomes a folder whose name ends in a control character, which no key contains::

    key     segment/<300 bytes>
    file    segment/<240 bytes>\x01/<60 bytes>
"""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Iterator
from contextlib import suppress
from stat import S_ISDIR, S_ISLNK

from headwater.store.base import Body, parts_of

PIECE = 240
GOES_ON = b"\x01"  # ends the name of a folder that is a piece of a longer part
BUFFERS_MAX = 1_000  # what writev takes at once (IOV_MAX is 1,024)
WRITE_BYTES_MAX = 1 << 30  # one write of Linux ends a little below 2 GiB

Found = tuple[bytes, os.stat_result]


def file_path(root: bytes, key: bytes) -> bytes:
    """The file of a key."""
    if len(key) <= PIECE:
        return root + b"/" + key
    pieces = [root]
    for part in key.split(b"/"):
        while len(part) > PIECE:
            pieces.append(part[:PIECE] + GOES_ON)
            part = part[PIECE:]
        pieces.append(part)
    return b"/".join(pieces)


def walk(root: bytes, prefix: bytes, start_after: bytes, *, skip: bytes = b"") -> Iterator[Found]:
    """Keys with ``prefix`` after ``start_after``, in byte order, each with its ``stat``.

    Folders that cannot hold such a key are not opened, and a folder is read when its turn comes. ``skip`` is a
    name in ``root`` that is no part of the store. Cost: the names of each folder on the way are read once, and
    a ``stat`` is made for each key that comes out.
    """
    above, slash, _ = prefix.rpartition(b"/")
    if skip and slash and above.partition(b"/")[0] == skip:
        return iter(())
    folder = file_path(root, above) if slash else root
    return _walk(folder, above + slash, prefix, start_after, b"" if slash else skip)


def _walk(folder: bytes, base: bytes, prefix: bytes, after: bytes, skip: bytes) -> Iterator[Found]:
    """As ``walk``, for the keys that start with ``base``, all of which lie in ``folder``."""
    spans = sorted(_spans(folder, base, prefix, after, skip))
    for number, (span, name) in enumerate(spans):
        path = folder + b"/" + name
        if name.endswith(GOES_ON) and spans[number + 1 : number + 2] == [(span + b"/", name[: -len(GOES_ON)])]:
            # Both `x\x01/` and `x/` are there: their keys interleave. The folder `x/` is passed over next.
            pieces, beside = _walk(path, span, prefix, after, b""), folder + b"/" + name[: -len(GOES_ON)]
            yield from heapq.merge(pieces, _walk(beside, span + b"/", prefix, after, b""), key=lambda found: found[0])
        elif name.endswith(GOES_ON):
            yield from _walk(path, span, prefix, after, b"")
        elif span.endswith(b"/"):
            if number == 0 or spans[number - 1] != (span[:-1], name + GOES_ON):
                yield from _walk(path, span, prefix, after, b"")
        else:
            with suppress(FileNotFoundError):  # deleted since the folder was read
                yield span, os.lstat(path)


def _spans(folder: bytes, base: bytes, prefix: bytes, after: bytes, skip: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What ``folder`` holds of the wanted keys: ``(key, file)``, or ``(start of keys, folder)``."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            name = entry.name
            key = base + name.removesuffix(GOES_ON)
            # Most names of a large folder end here, before the system is asked what they are.
            if (key > after or after.startswith(key)) and key.startswith(prefix[: len(key)]) and name != skip:
                if not entry.is_dir(follow_symlinks=False):
                    if key > after and key.startswith(prefix):
                        yield key, name
                    continue
                start = key if name.endswith(GOES_ON) else key + b"/"
                if (start > after or after.startswith(start)) and start.startswith(prefix[: len(start)]):
                    yield start, name


def write_parts(fd: int, body: Body) -> None:
    """Write the parts one after another without joining them; a short write goes on where it ended."""
    waiting = [memoryview(part).cast("B") for part in parts_of(body)]
    waiting.reverse()
    while waiting:
        batch = [part[:WRITE_BYTES_MAX] for part in waiting[: -BUFFERS_MAX - 1 : -1]]
        written = os.writev(fd, batch)
        while waiting and written >= len(waiting[-1]):
            written -= len(waiting.pop())
        if waiting:
            waiting[-1] = waiting[-1][written:]


def make_folder(folder: bytes) -> list[bytes]:
    """Make the folder and those above it; the ones that were new, the topmost first."""
    while True:
        try:
            os.mkdir(folder)
        except FileExistsError:
            try:
                mode = os.lstat(folder).st_mode
            except FileNotFoundError:
                continue  # a deleter found it empty, and removed it between the two calls
            if not S_ISDIR(mode) and not (S_ISLNK(mode) and os.path.isdir(folder)):
                raise NotADirectoryError(errno.ENOTDIR, "an object of that name") from None
            return []
        except FileNotFoundError:
            return [*make_folder(os.path.dirname(folder)), *make_folder(folder)]
        return [folder]


def remove_empty_folders(folder: bytes, root: bytes) -> None:
    """Remove the folder if nothing is in it, and then the one above, up to ``root``."""
    while len(folder) > len(root):
        try:
            os.rmdir(folder)
        except OSError:
            return  # somebody wrote to it, or removed it first
        folder = os.path.dirname(folder)


def fsync_folder(folder: bytes) -> None:
    """Make the names in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
