"""``file:///dir``: objects as files in a directory, durable and atomic between processes of one machine.

A write goes to a file under ``.tmp/``, is fsynced, and only then gets its name: by ``link``, which fails when the
name is taken (C3), or by ``rename``, which replaces. The folder is fsynced before the write answers (C5), as is every
folder above it that had to be made. A process that is killed on the way leaves a file in ``.tmp/`` and nothing else;
a later process removes what is older than an hour. LIST never looks there.

Several processes may share the directory, if they are on one machine: locks and ``link`` of network file systems are
not relied on. The store's clock is this machine's (C8): a write stamps the file with it. The nanoseconds below the
millisecond are a counter, so that two writes in one tick differ in their ETag, which is inode, time stamp and size.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import TypeVar

from headwater.clock import Clock, SystemClock
from headwater.errors import Conflict, HeadwaterError, InvalidRequest, Unavailable
from headwater.store.base import Blob, Body, Stat, check_key, size_of
from headwater.store.local_errors import translated
from headwater.store.local_files import (
    Found,
    file_path,
    fsync_folder,
    make_folder,
    remove_empty_folders,
    walk,
    write_parts,
)

T = TypeVar("T")

INLINE_BYTES_MAX = 1 << 20  # reads up to this are done at once; longer ones go to a thread, lest the loop stalls
LIST_PAGE_KEYS = 1_000  # keys that a thread collects before the loop sees them
THREADS_MAX = 16  # fsyncs at once; a journalling file system makes one flush of many
TMP = ".tmp"
TMP_AGE_S_MAX = 3_600  # no write takes this long, so an older temporary file belongs to a dead process
TRIES_MAX = 100  # times that a folder may vanish between its making and its use, or a new name be taken

_serial = itertools.count()


class LocalStore:
    """An object store in the directory ``root``, which the first write creates.

    ``fsync=False`` gives up C5 for the machine, and keeps it for the process: for tests and caches.
    """

    key_bytes_max = 1_024

    def __init__(self, root: str | Path, *, fsync: bool = True, clock: Clock | None = None) -> None:
        self.root = Path(root).absolute()
        self.url = self.root.as_uri()
        self._root = os.fsencode(self.root)
        self._tmp = os.path.join(self._root, TMP.encode())
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._is_open = False

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        path = self._path(key)
        with self._errors(key, "get"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._errors(key, "get"):
                found = os.fstat(fd)
                if S_ISDIR(found.st_mode):
                    raise IsADirectoryError(errno.EISDIR, "a folder")
                count = max(0, min(found.st_size if end is None else end, found.st_size) - start)
                if count <= INLINE_BYTES_MAX:
                    data = _pread(fd, count, start)
                else:
                    data = await self._in_thread(lambda: _pread(fd, count, start))
        finally:
            os.close(fd)
        return Blob(data=data, stat=self._stat(key, found))

    async def head(self, key: str) -> Stat:
        path = self._path(key)
        with self._errors(key, "head"):
            found = os.stat(path)
            if S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, "a folder")
        return self._stat(key, found)

    async def put(self, key: str, body: Body) -> Stat:
        return await self._write(key, body, self._replace)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._write(key, body, os.link)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        def replace_if_match(tmp: bytes, path: bytes) -> None:
            with self._folder_lock(fcntl.LOCK_EX):
                try:
                    now = _etag(os.stat(path))
                except (FileNotFoundError, NotADirectoryError):
                    raise Conflict(f"The object {key!r} in {self.url} is gone.") from None
                if now != etag:
                    raise Conflict(f"The object {key!r} in {self.url} has changed: its ETag is {now}, not {etag}.")
                os.replace(tmp, path)

        return await self._write(key, body, replace_if_match)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        found = walk(self._root, prefix.encode(), start_after.encode(), skip=TMP.encode())
        left = limit
        while left is None or left > 0:
            count = LIST_PAGE_KEYS if left is None else min(left, LIST_PAGE_KEYS)
            with self._errors(prefix, "list"):
                page = await self._in_thread(partial(_take, found, count))
            for key, stat in page:
                yield self._stat(key.decode(), stat)
            if len(page) < count:
                return
            left = None if left is None else left - count

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        if paths:
            with self._errors(keys[0], "delete"):
                await self._in_thread(lambda: self._delete_now(paths))

    async def aclose(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    # -- writing ---------------------------------------------------------------------------------

    async def _write(self, key: str, body: Body, publish: Callable[[bytes, bytes], None]) -> Stat:
        path = self._path(key)
        if self._fsync or size_of(body) > INLINE_BYTES_MAX:
            return await self._in_thread(lambda: self._write_now(key, path, body, publish))
        return self._write_now(key, path, body, publish)

    def _write_now(self, key: str, path: bytes, body: Body, publish: Callable[[bytes, bytes], None]) -> Stat:
        tmp = b""
        try:
            with self._errors(key, "put"):
                self._open()
                tmp, fd = self._new_file()
                found = self._fill(fd, body)
                made = self._publish(publish, tmp, path)
            with self._errors(key, "put", published=True):
                self._settle(path, made)
        finally:
            if tmp:
                with suppress(OSError):
                    os.unlink(tmp)
        return self._stat(key, found)

    def _new_file(self) -> tuple[bytes, int]:
        """A temporary file of our own, and its descriptor.

        It must be new (``O_EXCL``): a process that was killed after ``link`` left a second name of its *object*
        here, and in a container the next process has the same id. To truncate that file would destroy the object.
        """
        for _ in range(TRIES_MAX):
            tmp = os.path.join(self._tmp, b"%d-%d-%d" % (os.getpid(), self._clock.wall_ms(), next(_serial)))
            with suppress(FileExistsError):
                return tmp, os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        raise Unavailable(f"{TRIES_MAX} names of temporary files were taken in {os.fsdecode(self._tmp)}.")

    def _fill(self, fd: int, body: Body) -> os.stat_result:
        try:
            write_parts(fd, body)
            stamp_ns = self._clock.wall_ms() * 1_000_000 + (os.getpid() * 7_919 + next(_serial)) % 1_000_000
            os.utime(fd, ns=(stamp_ns, stamp_ns))
            if self._fsync:
                os.fsync(fd)
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _publish(self, publish: Callable[[bytes, bytes], None], tmp: bytes, path: bytes) -> Sequence[bytes]:
        """Give the file its name; the folders that were made for it, which are to be fsynced too."""
        made: list[bytes] = []
        for _ in range(TRIES_MAX):
            try:
                publish(tmp, path)
                return made
            except FileNotFoundError:
                made += make_folder(os.path.dirname(path))
            except FileExistsError:
                if os.path.isdir(path):
                    raise IsADirectoryError(errno.EISDIR, "a folder") from None
                raise
        raise Unavailable(f"The folder of {os.fsdecode(path)} vanished {TRIES_MAX} times while it was written to.")

    def _replace(self, tmp: bytes, path: bytes) -> None:
        with self._folder_lock(fcntl.LOCK_SH):
            os.replace(tmp, path)

    def _settle(self, path: bytes, made: Sequence[bytes]) -> None:
        """Make the new name durable, and the names of the folders that were made for it."""
        if self._fsync:
            for folder in {os.path.dirname(path), *(os.path.dirname(new) for new in made)}:
                # A folder that a delete has taken away meanwhile holds nothing of ours any more.
                with suppress(FileNotFoundError):
                    fsync_folder(folder)

    def _delete_now(self, paths: Sequence[bytes]) -> None:
        self._open()
        with self._folder_lock(fcntl.LOCK_SH):
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    os.unlink(path)
        for folder in {os.path.dirname(path) for path in paths}:
            with suppress(FileNotFoundError, NotADirectoryError):
                if self._fsync:
                    fsync_folder(folder)
                remove_empty_folders(folder, self._root)

    @contextmanager
    def _folder_lock(self, kind: int) -> Iterator[None]:
        """``put`` and ``delete`` share it; ``put_if_match`` has it alone between its look and its write."""
        fd = os.open(os.path.join(self._tmp, b"lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)

    def _open(self) -> None:
        """Before the first write: make the folders, and remove what dead processes left."""
        if self._is_open:
            return
        for new in make_folder(self._tmp):
            fsync_folder(os.path.dirname(new))
        old_s = self._clock.wall_ms() / 1_000 - TMP_AGE_S_MAX
        with os.scandir(self._tmp) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.name != b"lock" and entry.stat().st_mtime < old_s:
                        os.unlink(entry.path)
        self._is_open = True

    # -- helpers ---------------------------------------------------------------------------------

    def _path(self, key: str) -> bytes:
        check_key(key, self.key_bytes_max)
        if key == TMP or key.startswith(f"{TMP}/"):
            raise InvalidRequest(f"The key {key!r} lies in {TMP}/, where {self.url} keeps its unfinished files.")
        return file_path(self._root, key.encode())

    def _stat(self, key: str, found: os.stat_result) -> Stat:
        modified_ms = found.st_mtime_ns // 1_000_000
        now_ms = self._clock.wall_ms()
        return Stat(key=key, size=found.st_size, etag=_etag(found), modified_ms=modified_ms, date_ms=now_ms)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="headwater-file")
            future = self._threads.submit(work)
        return await asyncio.wrap_future(future)

    @contextmanager
    def _errors(self, key: str, verb: str, *, published: bool = False) -> Iterator[None]:
        try:
            yield
        except HeadwaterError:
            raise
        except OSError as error:
            raise translated(error, verb, key, self.url, published=published) from error


def _etag(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _take(found: Iterator[Found], count: int) -> list[Found]:
    return list(itertools.islice(found, count))


def _pread(fd: int, count: int, start: int) -> bytes:
    """``count`` bytes from ``start``; one ``pread`` as a rule, more for a very large file."""
    data = os.pread(fd, count, start) if count else b""
    while len(data) < count and (more := os.pread(fd, count - len(data), start + len(data))):
        data += more
    return data
