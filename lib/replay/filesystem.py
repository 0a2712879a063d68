"""A bucket as Arrow's file system, so that any tool on Arrow reads the archive where no directory is at hand.

Read only. A file's bytes are fetched by ranges, and read ahead a little where reads follow each other; Arrow's own
``pre_buffer`` joins the ranges of a row group. Files open in Arrow's threads; the requests are made in the session's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as fs

from headwater.errors import InvalidRequest, NotFound
from headwater.limits import MIB
from headwater.log.sparse import ReadOnly
from headwater.replay.session import Session
from headwater.store.base import Blob, ObjectStore, Stat

READ_AHEAD_BYTES: Final = MIB // 4  # fetched for a smaller read: a footer, or the next page, is mostly in it


class StoreHandler(fs.FileSystemHandler):
    """``store`` for ``pyarrow.fs.PyFileSystem``. Paths are keys; ``sizes`` are those that are known already."""

    def __init__(self, session: Session, store: ObjectStore, sizes: dict[str, int] | None = None) -> None:
        self.session = session
        self.store = store
        self.sizes = sizes if sizes is not None else {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreHandler) and self.store is other.store

    def __ne__(self, other: object) -> bool:
        return not self == other

    def get_type_name(self) -> str:
        """What Arrow shows."""
        return "headwater"

    def normalize_path(self, path: str) -> str:
        """The key as it is."""
        return path

    def get_file_info(self, paths: str | list[str]) -> list[fs.FileInfo]:
        """Size and kind of each. Cost: 1 HEAD for each whose size is not known."""
        return [self._info(path) for path in ([paths] if isinstance(paths, str) else paths)]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """All objects below a folder. Cost: 1 LIST for each thousand."""
        stats = self.session.call(self._listed(selector.base_dir.rstrip("/") + "/"))
        if not stats and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        return [fs.FileInfo(stat.key, fs.FileType.File, size=stat.size) for stat in stats]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A file that is read at any place. Raises ``FileNotFoundError``."""
        size = self.sizes.get(path)
        if size is None:
            info = self._info(path)
            if info.type != fs.FileType.File:
                raise FileNotFoundError(path)
            size = info.size
        opened: Any = _Ranged(size, handler=self, path=path)
        return pa.PythonFile(opened, mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """The same, from its beginning."""
        return self.open_input_file(path)

    def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``[start, end)``. Cost: 1 GET."""
        try:
            return self.session.call(self._get(path, start, end)).data
        except NotFound as gone:
            raise FileNotFoundError(path) from gone

    async def _get(self, path: str, start: int, end: int) -> Blob:
        return await self.session.namespace.chain.retry(lambda: self.store.get(path, start=start, end=end))

    async def _head(self, path: str) -> Stat:
        return await self.session.namespace.chain.retry(lambda: self.store.head(path))

    async def _listed(self, prefix: str) -> list[Stat]:
        return await self.session.namespace.chain.listed(prefix, store=self.store)

    def _info(self, path: str) -> fs.FileInfo:
        size = self.sizes.get(path)
        try:
            size = self.session.call(self._head(path)).size if size is None else size
        except NotFound:
            return fs.FileInfo(path, fs.FileType.NotFound)
        return fs.FileInfo(path, fs.FileType.File, size=size)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidRequest("The log is written by its own commands; this file system only reads.")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse


@dataclass(slots=True, kw_only=True)
class _Ranged(ReadOnly):
    """One object as a Python file. Small reads fetch some more, which the next one may find here."""

    handler: StoreHandler
    path: str
    _held: bytes = b""
    _held_at: int = 0

    def take(self, start: int, end: int) -> Any:
        if not (self._held_at <= start and end <= self._held_at + len(self._held)):
            self._fetch(start, end)
        return pa.py_buffer(self._held).slice(start - self._held_at, end - start)

    def _fetch(self, start: int, end: int) -> None:
        if end - start < READ_AHEAD_BYTES:
            # Near the end of the file what lies before is wanted next, else what follows.
            start = min(start, max(0, self.size - READ_AHEAD_BYTES))
            end = min(self.size, start + READ_AHEAD_BYTES)
        data = self.handler.read(self.path, start, end)
        if len(data) != end - start:
            raise OSError(f"{self.path!r} ends before byte {end}: it was cut.")
        self._held, self._held_at = data, start

    def close(self) -> None:
        self.closed, self._held = True, b""
