"""What a fetch found, as the body of an answer: an Arrow stream, a frame of stored batches, or JSON.

A frame passes stored bytes on as they are. The other forms are made of rows, so they begin at the very offset that was
asked for and stop where the answer is full; ``next_offset`` is then inside a batch, and the next fetch goes on there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from headwater.api import frames, media
from headwater.api.messages import HttpError, Response
from headwater.log.chunk import Chunk
from headwater.log.reader import Fetched

if TYPE_CHECKING:
    import pyarrow as pa

FETCHED_TYPES: Final = (media.KAFKA_JSON, media.KAFKA_BINARY, media.ARROW, media.FRAME, media.JSON)

HEADERS: Final = {
    "Headwater-Base-Offset": "the first offset that the body stands for",
    "Headwater-Next-Offset": "where to go on",
    "Headwater-Log-Start": "the first offset that the partition still has",
    "Headwater-High-Watermark": "the end of the log",
    "Headwater-Stable-End": "where readers stop: before the first open reservation",
    "Headwater-Commit": "the commit as of which all this holds",
    "Headwater-Count": "records in the body",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A body, and the offsets ``[base, next_offset)`` that it stands for; ``count`` of them are records."""

    body: bytes
    base: int
    next_offset: int
    count: int


def respond(kind: str, fetched: Fetched, offset: int, bytes_max: int) -> Response:
    """The answer to a fetch from ``offset`` on, in media type ``kind``, of about ``bytes_max`` bytes at most.

    Raises:
        Corrupt: stored bytes cannot be read as records.
        HttpError: 413, a single batch is too large for this answer.
    """
    if kind == media.FRAME:
        part = _frame(fetched, offset, bytes_max)
    elif kind == media.ARROW:
        part = _arrow(fetched, offset, bytes_max)
    else:
        part = _json(kind, fetched, offset, bytes_max)
    return Response(headers=_headers(kind, fetched, part), body=part.body)


def _headers(kind: str, fetched: Fetched, part: Part) -> dict[str, str]:
    numbers = (
        part.base,
        part.next_offset,
        fetched.log_start,
        fetched.high_watermark,
        fetched.stable_end,
        fetched.commit,
        part.count,
    )
    return {"content-type": kind} | {name.lower(): str(number) for name, number in zip(HEADERS, numbers, strict=True)}


# -- stored batches --------------------------------------------------------------------------------------


def _frame(fetched: Fetched, offset: int, bytes_max: int) -> Part:
    size, kept = 0, 0
    for chunk in fetched.chunks:
        size += len(chunk.data)
        if size > bytes_max and kept:
            break
        kept += 1
    if kept < len(fetched.chunks):
        fetched = replace(fetched, chunks=fetched.chunks[:kept], next_offset=fetched.chunks[kept - 1].end)
    if size > bytes_max and kept == 1 and bytes_max < len(fetched.chunks[0].data):
        fetched = _halved(fetched, offset, bytes_max)
    chunks = fetched.chunks
    return Part(
        body=frames.pack_fetched(fetched),
        base=chunks[0].base if chunks else offset,
        next_offset=fetched.next_offset,
        count=sum(chunk.count for chunk in chunks),
    )


def _halved(fetched: Fetched, offset: int, bytes_max: int) -> Fetched:
    """The beginning of a batch that does not fit, encoded anew."""
    from headwater.log import batch

    chunk = fetched.chunks[0]
    rows = batch.slice_from(chunk.decode(), offset)
    while True:
        cut = Chunk.of_rows(chunk.topic, chunk.partition, rows)
        if len(cut.data) <= bytes_max:
            break
        if rows.num_rows == 1:
            raise _one_is_too_large(offset)
        rows = rows.slice(0, max(1, rows.num_rows // 2))
    return replace(fetched, chunks=[cut], next_offset=cut.end)


# -- rows ------------------------------------------------------------------------------------------------


def _arrow(fetched: Fetched, offset: int, bytes_max: int) -> Part:
    import pyarrow as pa

    from headwater.log.batch import PLACED_SCHEMA

    rows, next_offset = rows_of(fetched, offset, bytes_max)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PLACED_SCHEMA) as stream:
        for each in rows:
            stream.write_batch(each)
    return Part(
        body=sink.getvalue().to_pybytes(),
        base=_first(rows, offset),
        next_offset=next_offset,
        count=sum(each.num_rows for each in rows),
    )


def rows_of(fetched: Fetched, offset: int, bytes_max: int) -> tuple[list[pa.RecordBatch], int]:
    """The records from ``offset`` on that fit ``bytes_max``, at least one if there is any, and where to go on."""
    from headwater.log.batch import slice_from

    found: list[pa.RecordBatch] = []
    left = bytes_max
    for chunk in fetched.chunks:
        rows = slice_from(chunk.decode(), offset)
        if not rows.num_rows:
            continue
        size = max(rows.nbytes, 1)
        if size > left:
            fitting = rows.num_rows * left // size
            if not fitting and found:
                return found, found[-1].column("offset")[-1].as_py() + 1
            found.append(rows.slice(0, max(1, fitting)))
            return found, found[-1].column("offset")[-1].as_py() + 1
        found.append(rows)
        left -= size
    return found, fetched.next_offset


def _json(kind: str, fetched: Fetched, offset: int, bytes_max: int) -> Part:
    from headwater.api import rest_records

    chunks = fetched.chunks
    if not chunks:
        return Part(body=b"[]", base=offset, next_offset=fetched.next_offset, count=0)
    form: rest_records.Format = "binary" if kind == media.KAFKA_BINARY else "json"
    found = rest_records.encode_some(
        form, chunks[0].topic, chunks[0].partition, chunks, offset=offset, bytes_max=bytes_max
    )
    whole = found.next_offset >= chunks[-1].end
    return Part(
        body=rest_records.array_of([found]),
        base=max(offset, chunks[0].base),
        next_offset=fetched.next_offset if whole else found.next_offset,
        count=found.count,
    )


def _first(rows: Sequence[pa.RecordBatch], offset: int) -> int:
    return int(rows[0].column("offset")[0].as_py()) if rows else offset


def _one_is_too_large(offset: int) -> HttpError:
    return HttpError(
        413, f"The record at offset {offset} is too large for one answer; read it by the partition's /ranges."
    )
