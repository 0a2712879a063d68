"""Pieces of the hot tail: chunks that are not archived yet, as the reader fetches and checks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa

from headwater.limits import REPLAY_HOT_BYTES
from headwater.log.batch import PLACED_SCHEMA
from headwater.log.chunk import Chunk
from headwater.log.reader import Fetched
from headwater.log.state import Topic
from headwater.replay.pieces import Clip, Job, Piece, finished
from headwater.replay.ranges import Span


async def hot_pieces(job: Job, span: Span, bytes_max: int = REPLAY_HOT_BYTES) -> AsyncIterator[Piece]:
    """The pieces of chunks in ``span``, which begins at or above what is archived. Raises ``NotFound`` (R6).

    Cost: 1 range GET for each run of neighbouring chunks, 16 at once; the next fetch overlaps with the present one.
    """
    position = span.start
    ahead = asyncio.ensure_future(_fetch(job, span, position, bytes_max)) if position < span.end else None
    try:
        while ahead is not None:
            fetched, ahead = await ahead, None
            if fetched.next_offset <= position:
                return
            position = fetched.next_offset
            if position < span.end:
                ahead = asyncio.ensure_future(_fetch(job, span, position, bytes_max))
            chunks = [chunk for chunk in fetched.chunks if chunk.base < span.end and _timely(chunk, span)]
            if chunks:
                yield _piece(job, span, chunks, min(position, span.end))
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


async def _fetch(job: Job, span: Span, offset: int, bytes_max: int) -> Fetched:
    view = job.view
    return await view.namespace.reader.fetch(
        view.topic.name, span.partition, offset, bytes_max=bytes_max, state=view.state
    )


def _timely(chunk: Chunk, span: Span) -> bool:
    return not span.misses(chunk.timestamp_min, chunk.timestamp_max)


def _piece(job: Job, span: Span, chunks: list[Chunk], end: int) -> Piece:
    cost = sum(len(chunk.data) for chunk in chunks)

    async def load() -> list[pa.RecordBatch]:
        return await job.work(_rows, job, span, chunks)  # type: ignore[no-any-return]

    return Piece(span.partition, end, cost, load)


def _rows(job: Job, span: Span, chunks: list[Chunk]) -> list[pa.RecordBatch]:
    """The wanted rows. Small chunks are put together, so that nobody pays for each of a thousand tiny batches."""
    table = pa.Table.from_batches([chunk.decode() for chunk in chunks], PLACED_SCHEMA).combine_chunks()
    if job.shape.typed:
        table = with_columns(job.view.topic, table)
    low, high = chunks[0].base, chunks[-1].end - 1
    times = [chunk.timestamp_min for chunk in chunks], [chunk.timestamp_max for chunk in chunks]
    return finished(table, Clip.of(span, low, high, min(times[0]), max(times[1])), job.shape)


def with_columns(topic: Topic, table: pa.Table) -> pa.Table:
    """``table`` with the typed columns of its topic, null where a value does not fit the schema."""
    if not topic.schemas:
        return table
    from headwater.schemas.typed import typed

    values: Any = table.column("value").combine_chunks()
    parsed: Any = typed(topic.schemas, values, strict=False)
    for field in parsed.schema:
        table = table.append_column(field, parsed.column(field.name))
    return table
