r"""What a task writes into its changelog, and what of it counts when it is read again. Pure.

    node \\0 tag        a delta: what one operator changed in one micro-batch, as an Arrow IPC frame
    \\1 node \\0 tag     a piece of a snapshot
    \\0progress         how far the task had come: offsets, event time (JSON); the newest one holds
    \\0topology         what the state was made by (JSON); the newest one holds
    \\0begin  \\0end     around the pieces of a snapshot; ``{"replace": true}``: what lies before is void

A snapshot says what the deltas before it say, so whoever has read those skips it. It is taken only by a reader who
begins with it: its owner trims the partition to a snapshot once all of that is committed, so a torn one is never at the
start of the log. One that replaces was written by ``reset`` or ``restart``, by one intent, and is taken by everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from headwater.errors import Corrupt
from headwater.limits import STREAMS_APPEND_BYTES, STREAMS_CHANGELOG_BYTES_MIN, STREAMS_CHANGELOG_COMMIT_BYTES
from headwater.log import batch
from headwater.streams.operator import Delta
from headwater.streams.serde.packing import pack, unpack
from headwater.streams.task import Task
from headwater.types import Batch, Record

PROGRESS, TOPOLOGY, BEGIN, END = b"\0progress", b"\0topology", b"\0begin", b"\0end"
PIECE = b"\1"


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a changelog."""

    key: bytes
    value: bytes


def lines_of(deltas: Iterable[tuple[str, Delta]], *, piece: bool = False) -> Iterator[Line]:
    """Deltas, or pieces of a snapshot, as records of at most ``FRAME_BYTES_MAX``."""
    for node, delta in deltas:
        key = (PIECE if piece else b"") + node.encode() + b"\0" + delta.tag.encode()
        for data in pack(delta.frame):
            yield Line(key, data)


def progress_line(progress: Mapping[str, Any]) -> Line:
    """How far the task has come."""
    return Line(PROGRESS, msgspec.json.encode(progress))


def topology_line(document: Mapping[str, Any]) -> Line:
    """What the state is made by."""
    return Line(TOPOLOGY, msgspec.json.encode(document))


def begin_line(*, replace: bool = False) -> Line:
    """A snapshot begins."""
    return Line(BEGIN, msgspec.json.encode({"replace": replace}))


def end_line() -> Line:
    """A snapshot is whole."""
    return Line(END, b"{}")


def size_of(lines: Iterable[Line]) -> int:
    """Bytes of keys and values."""
    return sum(len(line.key) + len(line.value) for line in lines)


def batches_of(lines: Sequence[Line], time_ms: int) -> list[Batch]:
    """Lines as batches for one partition, in order, each of about ``STREAMS_APPEND_BYTES``.

    Not compressed: frames are already.
    """
    groups: list[list[Record]] = []
    size = 0
    for line in lines:
        if not groups or size + len(line.value) > STREAMS_APPEND_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(Record(key=line.key, value=line.value))
        size += len(line.value)
    return [batch.batch_of_records(group, default_timestamp=time_ms, compression=None) for group in groups]


@dataclass(slots=True)
class Weight:
    """Whether the changes since the last snapshot outweigh it, so that a new one makes restores cheaper."""

    deltas: int = 0
    snapshot: int = 0

    def add(self, nbytes: int) -> None:
        """A commit has written so many bytes."""
        self.deltas += max(nbytes, STREAMS_CHANGELOG_COMMIT_BYTES)

    def force(self) -> None:
        """Make a snapshot due: what an earlier topology has left is not to be read again."""
        self.deltas = max(STREAMS_CHANGELOG_BYTES_MIN, self.snapshot) + 1

    def snapshot_is(self, nbytes: int) -> None:
        """A snapshot was written."""
        self.deltas, self.snapshot = 0, nbytes

    @property
    def is_due(self) -> bool:
        """Whether to write a snapshot now. At most half of what is ever written is snapshots."""
        return self.deltas > max(STREAMS_CHANGELOG_BYTES_MIN, self.snapshot)


class Copy:
    """A task's state as far as its changelog was read: what a restore fills and a standby keeps.

    ``position`` is the next offset to read. ``whole`` is False while a snapshot is half read.
    """

    def __init__(
        self, make: Callable[[], Task], start: int, *, check: Callable[[Mapping[str, Any]], None] | None = None
    ) -> None:
        self._make = make
        self._check = check  # hears each topology before anything that it has left is applied
        self.task = make()
        self.position = start
        self.progress: dict[str, Any] | None = None
        self.topology: dict[str, Any] | None = None
        self.weight = Weight()
        self.rows = 0
        self._is_first = True
        self._taking = self._inside = False
        self._snapshot_bytes = 0

    @property
    def whole(self) -> bool:
        """Whether the state is one that was committed."""
        return not (self._inside and self._taking)

    def take(self, placed: pa.RecordBatch) -> None:
        """Apply records of the changelog, the next ones. CPU only; about 10 M keys/s.

        Raises ``Corrupt`` for a record that no version of ours has written.
        """
        placed = batch.slice_from(placed, self.position)
        if not placed.num_rows:
            return
        keys: Any = placed.column("key")
        values: Any = placed.column("value")
        size = 0
        for row in range(placed.num_rows):
            key, value = keys[row].as_py(), values[row].as_buffer()
            size += self._line(key, value)
        if size:
            self.weight.add(size)
        last: Any = placed.column("offset")[-1]
        self.position = last.as_py() + 1

    def _line(self, key: bytes, value: pa.Buffer) -> int:
        """Apply one record; its bytes if it is no part of a snapshot."""
        first, self._is_first = self._is_first, False
        if key == BEGIN:
            self._begin(msgspec.json.decode(value), first)
        elif key == END:
            if self._taking:
                self.weight.snapshot_is(self._snapshot_bytes)
            self._taking = self._inside = False
        elif key == PROGRESS:
            self.progress = msgspec.json.decode(value) or None
            return 0 if self._inside else value.size
        elif key == TOPOLOGY:
            self.topology = msgspec.json.decode(value) or None
            if self._check is not None and self.topology is not None:
                self._check(self.topology)
        elif key.startswith(PIECE):
            if self._taking:
                self._snapshot_bytes += value.size
                self._apply(key[1:], value)
        else:
            # Behind a torn snapshot its task went on with deltas.
            self._inside = self._taking = False
            self._apply(key, value)
            return value.size
        return 0

    def _begin(self, said: Mapping[str, Any], first: bool) -> None:
        replace = bool(said.get("replace"))
        if replace and not first:
            self.task.close()
            self.task = self._make()
        if replace:
            self.progress = self.topology = None
        self._inside, self._taking, self._snapshot_bytes = True, first or replace, 0

    def _apply(self, key: bytes, value: pa.Buffer) -> None:
        node, mark, tag = key.partition(b"\0")
        if not mark or not node:
            raise Corrupt(f"The changelog has a record at offset {self.position} or later whose key is {key[:80]!r}.")
        frame: pl.DataFrame = unpack(value)
        self.rows += frame.height
        self.task.restore(node.decode(), Delta(tag.decode(), frame))


def effective(batches: Iterable[pa.RecordBatch]) -> tuple[list[Line], Line | None, Line | None]:
    """What a changelog's records come to, without making state of them: pieces in order, progress, topology.

    The pieces and deltas that a restore would apply, all as pieces: written between two marks they are a snapshot.
    """
    pieces: list[Line] = []
    progress: Line | None = None
    topology: Line | None = None
    first, taking = True, False
    for placed in batches:
        for key, value in zip(placed.column("key").to_pylist(), placed.column("value").to_pylist(), strict=True):
            assert isinstance(key, bytes), "a changelog's records have keys"
            assert isinstance(value, bytes), "and values"
            if key == BEGIN:
                replace = bool(msgspec.json.decode(value).get("replace"))
                taking = first or replace
                if replace:
                    pieces, progress, topology = [], None, None
            elif key == END:
                taking = False
            elif key == PROGRESS:
                progress = Line(key, value)
            elif key == TOPOLOGY:
                topology = Line(key, value)
            elif not key.startswith(PIECE):
                pieces.append(Line(PIECE + key, value))
            elif taking:
                pieces.append(Line(key, value))
            first = False
    return pieces, progress, topology
