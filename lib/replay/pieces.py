"""What a replay is made of: pieces of a partition, in order, each of which is read and decoded by itself.

    view ─► pieces of archive files (row groups) ─► pieces of the hot tail (chunks)
                          │ read, decode: several at once, within a budget of bytes
                          ▼
                 in_order: their batches, one piece after another

Pieces are made as late as there is room for them, so a replay of a long archive starts at once and holds no list of it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headwater.limits import REPLAY_PIECE_BYTES, REPLAY_PIECES_MAX
from headwater.replay.columns import Shape, fitted, range_filter
from headwater.replay.ranges import Span
from headwater.replay.view import View
from headwater.upkeep.offload import Offload, in_decoder, in_thread


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of offsets below ``end``. ``cost`` is a guess at the bytes that they take in memory."""

    partition: int
    end: int
    cost: int
    load: Callable[[], Awaitable[list[pa.RecordBatch]]]


@dataclass(frozen=True, slots=True)
class Job:
    """What all pieces of a replay share."""

    view: View
    shape: Shape
    offload: Offload
    decoders: asyncio.Semaphore  # of row groups
    helpers: asyncio.Semaphore  # of everything else: what comes first must not wait for what is large
    piece_bytes: int  # before compression: smaller row groups become one piece together

    @classmethod
    def of(cls, view: View, shape: Shape, offload: Offload, memory_bytes: int) -> Job:
        """A job that keeps every processor busy and no more."""
        piece_bytes = min(REPLAY_PIECE_BYTES, memory_bytes // 4)
        processors = os.cpu_count() or 1
        return cls(view, shape, offload, asyncio.Semaphore(processors), asyncio.Semaphore(processors), piece_bytes)

    async def work(self, work: Callable[..., Any], *args: Any) -> Any:
        """``work(*args)``, off the event loop, a few of them at once."""
        async with self.helpers:
            return await self.offload(work, *args)

    async def decode(self, work: Callable[..., Any], *args: Any) -> Any:
        """The same for the decoding of row groups: each in one thread, as many at once as there are processors."""
        async with self.decoders:
            return await (in_decoder if self.offload is in_thread else self.offload)(work, *args)


class Budget:
    """Bytes that pieces on their way may take together.

    How much a piece takes is known when it is decoded; until the first one is, two are on their way. From then on
    guesses are corrected by the worst ratio seen.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.ratio = 1.0
        self.known = False

    def guess(self, cost: int) -> int:
        """What a piece of that ``cost`` will take."""
        return int(cost * self.ratio)

    def has_room(self, cost: int, running: int) -> bool:
        """Whether one more may start beside ``running`` ones. The first always may."""
        if not running:
            return True
        if running >= (REPLAY_PIECES_MAX if self.known else 2):
            return False
        return self.used + self.guess(cost) <= self.total

    def learn(self, cost: int, size: int) -> None:
        """A piece of that ``cost`` took ``size`` bytes."""
        self.known = True
        self.ratio = max(self.ratio, size / max(cost, 1))


@dataclass(slots=True)
class _Running:
    piece: Piece
    held: int
    task: asyncio.Task[list[pa.RecordBatch]]


async def in_order(pieces: AsyncIterator[Piece], budget: Budget) -> AsyncIterator[tuple[Piece, list[pa.RecordBatch]]]:
    """The batches of all pieces, in order; later ones are on their way meanwhile, as far as the budget goes.

    A failure is raised in its place: what lies before it was given out. Nothing is under way afterwards (R10).
    """
    running: deque[_Running] = deque()
    following: asyncio.Task[Piece | None] | None = asyncio.ensure_future(_next(pieces))
    try:
        while following is not None or running:
            if following is not None and following.done():
                if following.exception() is None:
                    piece = following.result()
                    if piece is None:
                        following = None
                        continue
                    if budget.has_room(piece.cost, len(running)):
                        running.append(_started(piece, budget))
                        following = asyncio.ensure_future(_next(pieces))
                        continue
                elif not running:
                    following.result()
            if running and running[0].task.done():
                first = running.popleft()
                try:
                    batches = first.task.result()
                    first = _settled(first, batches, budget)
                    yield first.piece, batches
                finally:
                    budget.used -= first.held
                continue
            await _either(running, following)
    finally:
        await _end(running, following, pieces, budget)


async def _next(pieces: AsyncIterator[Piece]) -> Piece | None:
    return await anext(pieces, None)


def _started(piece: Piece, budget: Budget) -> _Running:
    held = budget.guess(piece.cost)
    budget.used += held
    return _Running(piece, held, asyncio.ensure_future(piece.load()))


def _settled(running: _Running, batches: list[pa.RecordBatch], budget: Budget) -> _Running:
    size = sum(batch.nbytes for batch in batches)
    budget.learn(running.piece.cost, size)
    held = max(size, 0)
    budget.used += held - running.held
    return _Running(running.piece, held, running.task)


async def _either(running: deque[_Running], following: asyncio.Task[Piece | None] | None) -> None:
    waited: list[asyncio.Task[Any]] = [running[0].task] if running else []
    if following is not None and not following.done():
        waited.append(following)
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)


async def _end(
    running: deque[_Running],
    following: asyncio.Task[Piece | None] | None,
    pieces: AsyncIterator[Piece],
    budget: Budget,
) -> None:
    tasks: list[asyncio.Task[Any]] = [one.task for one in running]
    if following is not None:
        tasks.append(following)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for one in running:
        budget.used -= one.held
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


@dataclass(frozen=True, slots=True)
class Clip:
    """What of a piece's rows is wanted, beside the filter: where its range sticks out of the span."""

    partition: int
    start: int | None = None
    end: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @classmethod
    def of(cls, span: Span, low: int, high: int, low_ms: int, high_ms: int) -> Clip:
        """The clip of rows with offsets of ``[low, high]`` and timestamps of ``[low_ms, high_ms]``."""
        timed = not span.holds(low_ms, high_ms)
        return cls(
            span.partition,
            span.start if low < span.start else None,
            span.end if high >= span.end else None,
            span.since_ms if timed else None,
            span.until_ms if timed else None,
        )

    def names(self) -> list[str]:
        """Columns that are needed for it."""
        by_offset = self.start is not None or self.end is not None
        by_time = self.since_ms is not None or self.until_ms is not None
        return ["offset"] * by_offset + ["timestamp"] * by_time


def finished(table: pa.Table, clip: Clip, shape: Shape) -> list[pa.RecordBatch]:
    """The wanted rows of ``table`` in the wanted columns. Copies nothing where whole columns are wanted as they are."""
    table = _within(table, clip)
    condition = range_filter(clip.since_ms, clip.until_ms)
    if condition is not None:
        table = table.filter(condition)
    if shape.filter is None:
        table = fitted(table, clip.partition, shape.schema.names, shape.whole)
    else:
        table = fitted(table, clip.partition, shape.needed, shape.whole).filter(shape.filter).select(shape.schema.names)
    return [batch for batch in table.to_batches() if batch.num_rows]


def _within(table: pa.Table, clip: Clip) -> pa.Table:
    if clip.start is None and clip.end is None:
        return table
    offsets = table.column("offset").combine_chunks()
    low = 0 if clip.start is None else _position(offsets, clip.start)
    high = len(offsets) if clip.end is None else _position(offsets, clip.end)
    return table.slice(low, max(0, high - low))


def _position(offsets: Any, wanted: int) -> int:
    """How many of the ascending ``offsets`` lie below ``wanted``."""
    low, high = 0, len(offsets)
    while low < high:
        middle = (low + high) // 2
        if offsets[middle].as_py() < wanted:
            low = middle + 1
        else:
            high = middle
    return low
