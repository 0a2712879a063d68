"""Files of a replay: Parquet, Arrow, JSON lines or CSV, there as a whole or not at all.

A file is written beside its target as ``<name>.partial`` and takes its name when it is complete and on disk; an export
that was interrupted leaves at most that, and the next one begins it anew. Into a folder an export goes in parts, each a
range of offsets of one partition; the folder's ``_headwater.json`` says which export it is, as of which commit, and
which parts are done. So the next run goes on where the last one stopped, and all parts are one consistent cut.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headwater.errors import Conflict, InvalidRequest, StorageFull, Unavailable
from headwater.limits import EXPORT_PART_OFFSETS, MIB
from headwater.replay import text
from headwater.replay.ranges import Span
from headwater.replay.stream import Replay

Form: TypeAlias = Literal["parquet", "arrow", "jsonl", "json", "csv"]
EXTENSIONS: Final[dict[str, str]] = {"parquet": ".parquet", "arrow": ".arrow", "jsonl": ".jsonl", "csv": ".csv"}
STATE: Final = "_headwater.json"
GROUP_BYTES: Final = 32 * MIB  # of records in memory that become one row group
_DOCUMENTS: Final = ("value",)  # columns whose JSON is embedded in JSON lines


class Writer:
    """Writes record batches to ``sink`` in one form. To be used in a ``with``; leaving it ends the file."""

    def __init__(self, form: str, sink: IO[bytes], schema: pa.Schema, *, stream: bool = True) -> None:
        self.rows = 0
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._form = form
        self._sink = sink
        self._inner: Any = None
        if form == "parquet":
            self._inner = pq.ParquetWriter(sink, schema, compression="zstd")
        elif form == "arrow":
            whole: Any = sink
            self._inner = pa.ipc.new_stream(whole, schema) if stream else pa.ipc.new_file(whole, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows. Raises ``InvalidRequest`` for what the form cannot hold."""
        if self._form in ("jsonl", "json"):
            for piece in text.json_lines(batch, _DOCUMENTS):
                self._sink.write(piece)
        elif self._form == "csv":
            for line in text.csv_rows(batch, header=self.rows == 0):
                self._sink.write(line)
        elif batch.num_rows:
            self._held.append(batch)
            self._held_bytes += batch.nbytes
            if self._held_bytes >= GROUP_BYTES:
                self._flush()
        self.rows += batch.num_rows

    def _flush(self) -> None:
        """A row group, or a batch of Arrow, of a size that is worth reading: a replay's own may be small."""
        if self._held:
            whole = pa.Table.from_batches(self._held).combine_chunks()
            self._inner.write_table(whole, whole.num_rows)
        self._held, self._held_bytes = [], 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner is not None:
            if kind is None:
                self._flush()
            self._inner.close()


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name ``path`` when the block ends well. An error leaves nothing; a crash ``.partial``.

    Raises:
        Conflict: another process is writing the same file.
        StorageFull: the disk is full. What was there under that name is there still.
        Unavailable: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = partial.open("ab")
        with sink:
            try:
                fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another export is writing {path}. Wait for it, or choose another name.") from None
            try:
                sink.truncate(0)
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)


async def export_file(replay: Replay, form: str, path: Path) -> int:
    """The whole replay as one file; how many records it has. Raises as ``written``, and as the replay."""
    with written(path) as sink, Writer(form, sink, replay.schema, stream=False) as writer:
        async for batch in _shaped(replay, form):
            await _put(replay, writer, batch)
    return writer.rows


async def export_stream(replay: Replay, form: str, sink: IO[bytes]) -> int:
    """The whole replay as bytes that go on; how many records."""
    with Writer(form, sink, replay.schema) as writer:
        async for batch in _shaped(replay, form):
            await _put(replay, writer, batch)
        sink.flush()
    return writer.rows


class Exported(msgspec.Struct, forbid_unknown_fields=True):
    """A folder's ``_headwater.json``. ``parts`` are those that are done, with their numbers of records."""

    plan: dict[str, Any]
    commit: int
    parts: dict[str, int] = {}
    done: bool = False

    @property
    def records(self) -> int:
        """Records in all parts that are done."""
        return sum(self.parts.values())


def begun(folder: Path, plan: Mapping[str, Any]) -> Exported | None:
    """The export that was begun in ``folder``, if there is one.

    Raises:
        Conflict: it is another export, or the folder holds other things. Nothing is touched.
    """
    path = folder / STATE
    with _translated(path):
        if not path.exists():
            if folder.exists() and any(folder.iterdir()):
                raise Conflict(f"The folder {folder} is not empty and holds no export of ours. Choose another one.")
            return None
        data = path.read_bytes()
    try:
        found = msgspec.json.decode(data, type=Exported)
    except msgspec.MsgspecError as error:
        raise Conflict(f"{path} cannot be read ({error}). Remove the folder, or choose another one.") from error
    if found.plan != plan:
        changed = sorted(name for name in {*plan, *found.plan} if plan.get(name) != found.plan.get(name))
        raise Conflict(
            f"The folder {folder} holds an export with another {', '.join(changed)}. Repeat that one, or choose "
            "another folder."
        )
    return found


async def export_parts(replay: Replay, form: str, folder: Path, state: Exported) -> Exported:
    """Write the parts that are missing. ``replay`` reads as of ``state.commit``. Raises as ``written``."""
    if replay.order != "partition" and len(replay.spans) > 1:
        raise InvalidRequest("Parts of a folder are by partition and offset: write one file to have them by time.")
    _save(folder, state)
    for span in parts_of(replay.spans):
        name = f"{replay.view.topic.name}-{span.partition:05d}-{span.start:020d}{EXTENSIONS[form]}"
        if name not in state.parts:
            state.parts[name] = await _export_part(replace(replay, spans=[span]), form, folder / name)
            _save(folder, state)
    state.done = True
    _save(folder, state)
    return state


def parts_of(spans: list[Span]) -> Iterator[Span]:
    """The spans, cut at multiples of EXPORT_PART_OFFSETS: where a part begins depends on the offsets alone."""
    for span in spans:
        start = span.start
        while start < span.end:
            end = min((start // EXPORT_PART_OFFSETS + 1) * EXPORT_PART_OFFSETS, span.end)
            yield replace(span, start=start, end=end)
            start = end


async def _export_part(replay: Replay, form: str, path: Path) -> int:
    """One part; without records there is no file."""
    batches = _shaped(replay, form)
    try:
        first = await anext(batches, None)
        while first is not None and not first.num_rows:
            first = await anext(batches, None)
        if first is None:
            return 0
        with written(path) as sink, Writer(form, sink, replay.schema, stream=False) as writer:
            await _put(replay, writer, first)
            async for batch in batches:
                await _put(replay, writer, batch)
        return writer.rows
    finally:
        await batches.aclose()  # type: ignore[attr-defined]


async def _put(replay: Replay, writer: Writer, batch: pa.RecordBatch) -> None:
    """Write in a thread, so that the replay reads on; never broken off, since the file is closed next."""
    writing = asyncio.ensure_future(replay.offload(writer.write, batch))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


async def _shaped(replay: Replay, form: str) -> AsyncIterator[pa.RecordBatch]:
    """The batches as the form has them: JSON lines are those of ``consume --json``."""
    batches = replay.batches()
    try:
        async for batch in batches:
            yield _as_consumed(batch, replay.view.topic.name) if form == "jsonl" else batch
    finally:
        await batches.aclose()  # type: ignore[attr-defined]


def _as_consumed(batch: pa.RecordBatch, topic: str) -> pa.RecordBatch:
    """With the topic's name, and the timestamp in ms since 1970."""
    names = batch.schema.names
    columns = [
        column.cast(pa.int64()) if name == "timestamp" else column
        for name, column in zip(names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays([pa.repeat(topic, batch.num_rows), *columns], names=["topic", *names])


def _save(folder: Path, state: Exported) -> None:
    with written(folder / STATE) as sink:
        sink.write(msgspec.json.format(msgspec.json.encode(state), indent=1))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No space is left for {path}. The log is as it was, and so is what {path} held."
            ) from error
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}.") from error


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
