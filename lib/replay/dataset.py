"""A topic as a dataset of Arrow: archive files as they lie, and the hot tail beside them.

Every file comes with what is known of its rows (partition, offsets, times), so a scan opens only those in which its
filter can hold. DuckDB, Polars and everything else that takes a ``pyarrow.dataset.Dataset`` push projections and
filters down to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs

from headwater.log.operations import File
from headwater.replay.archive import guarantee
from headwater.replay.columns import range_filter
from headwater.replay.filesystem import StoreHandler
from headwater.replay.ranges import Span
from headwater.replay.session import Session
from headwater.replay.sources import local_path
from headwater.replay.stream import Replay
from headwater.store.prefixed import PrefixedStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """A Parquet file of the archive, for tools that read it themselves: offsets ``[base, end)``, ``count`` records.

    ``start`` is the first offset that still belongs to the log: records below it are deleted, though the file has them.
    ``min`` and ``max`` are timestamps in ms since 1970.
    """

    url: str
    topic: str
    partition: int
    base: int
    end: int
    start: int
    count: int
    bytes: int
    min: int
    max: int


async def files_of(replay: Replay) -> AsyncIterator[tuple[Span, File]]:
    """The archive files in the spans of ``replay``, by partition and offset. Cost: 1 GET for each page of files."""
    view = replay.view
    for span in replay.spans:
        end = min(span.end, view.place(span.partition).archived)
        async for file in view.namespace.lookup.files(
            view.topic.id,
            span.partition,
            span.start,
            view.state,
            timestamp=span.since_ms,
            end=end,
            before=span.until_ms,
        ):
            if file.count:
                yield span, file


async def listed(replay: Replay) -> list[ArchiveFile]:
    """The same as a plain list."""
    view = replay.view
    return [
        ArchiveFile(
            url=f"{view.namespace.chain.home(file.key, view.state).url.partition('?')[0]}/{file.key}",
            topic=view.topic.name,
            partition=span.partition,
            base=file.base,
            end=file.end,
            start=max(file.base, span.start),
            count=file.count,
            bytes=file.bytes,
            min=file.min,
            max=file.max,
        )
        async for span, file in files_of(replay)
    ]


def dataset_of(session: Session, replay: Replay) -> ds.Dataset:
    """The dataset of what ``replay`` reads. Cost: the pages of files, and reading the hot tail into memory."""
    found = session.call(_listed(replay))
    hot = session.call(_hot(replay))
    whole = replay.shape.whole
    children: list[ds.Dataset] = []
    if found:
        children.append(_of_files(session, replay, found))
    if hot is not None or not found:
        children.append(ds.dataset(whole.empty_table() if hot is None else hot))
    dataset = children[0] if len(children) == 1 else ds.UnionDataset(whole, children)  # type: ignore[call-arg]
    condition = _condition(replay, [(span, file.base, file.end) for span, file in found])
    return dataset if condition is None else dataset.filter(condition)


async def _listed(replay: Replay) -> list[tuple[Span, File]]:
    return [pair async for pair in files_of(replay)]


async def _hot(replay: Replay) -> pa.Table | None:
    """The records that no file has."""
    view = replay.view
    spans = [replace(span, start=max(span.start, view.place(span.partition).archived)) for span in replay.spans]
    hot = replace(replay, spans=[span for span in spans if span.start < span.end], order="partition")
    batches = [batch async for batch in hot.batches()]
    return pa.Table.from_batches(batches, hot.schema) if batches else None


def _of_files(session: Session, replay: Replay, found: list[tuple[Span, File]]) -> ds.Dataset:
    view = replay.view
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)  # a flipped bit is an error, not an answer
    form = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    chain = view.namespace.chain
    sizes: dict[str, int] = {}
    remote = fs.PyFileSystem(StoreHandler(session, view.namespace.bucket, sizes))
    local = fs.LocalFileSystem(use_mmap=True)
    fragments = []
    for span, file in found:
        home = chain.home(file.key, view.state)
        path = local_path(home, file.key)
        if path is not None:
            where: tuple[str, Any] = str(path), local
        else:
            assert isinstance(home, PrefixedStore), "a namespace is a folder of its bucket"
            where = home.prefix + file.key, remote
            sizes[where[0]] = file.bytes
        fragments.append(form.make_fragment(where[0], where[1], guarantee(span.partition, file), file_size=file.bytes))
    return ds.FileSystemDataset(fragments, replay.shape.whole, form, local if not sizes else remote)


def _condition(replay: Replay, found: list[tuple[Span, int, int]]) -> Any | None:
    """Which rows of the files belong to the spans, if not all do: files reach beyond the log start, or an end."""
    sticks_out = {span.partition for span, base, end in found if base < span.start or end > span.end}
    if not sticks_out and not any(span.is_timed for span in replay.spans):
        return None
    condition: Any = None
    for span in replay.spans:
        one: Any = pc.field("partition") == pa.scalar(span.partition, pa.int32())
        if span.partition in sticks_out:
            one = one & (pc.field("offset") >= span.start) & (pc.field("offset") < span.end)
        times = range_filter(span.since_ms, span.until_ms)
        one = one if times is None else one & times
        condition = one if condition is None else condition | one
    return condition
