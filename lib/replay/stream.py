"""A replay: the one moment that it reads, what it gives, and its batches in order.

    async with await Namespace.open(store) as namespace:
        async for batch in replay_batches(namespace, "flights"):
            ...

The state is taken once, so all partitions are as of one commit. An object that vanishes meanwhile was replaced or
trimmed (R6): the replay looks where the records lie now and goes on at the next offset, without loss or repetition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from headwater.errors import Corrupt, InvalidRequest, NotFound, OffsetOutOfRange
from headwater.limits import REPLAY_BYTES, REPLAY_BYTES_MIN, REPLAY_HOT_BYTES
from headwater.log.namespace import Namespace
from headwater.replay.archive import file_pieces
from headwater.replay.columns import Filter, Shape, shape_of
from headwater.replay.hot import hot_pieces
from headwater.replay.merge import merged
from headwater.replay.pieces import Budget, Job, Piece, in_order
from headwater.replay.ranges import Moment, Places, Span, commit_of, spans_of
from headwater.replay.view import View, again, view_of
from headwater.upkeep.offload import Offload, in_thread

Order: TypeAlias = Literal["partition", "timestamp"]
LOOK_AGAIN_MAX = 3  # R6: how often objects may vanish without a record in between before they are called lost


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: records and bytes given out, and offsets passed of all that are to be."""

    topic: str
    records: int
    bytes: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What is to be read, decided. ``batches`` may be called any number of times."""

    view: View
    spans: list[Span]
    shape: Shape
    order: Order
    memory_bytes: int
    offload: Offload
    progress: Callable[[Progress], object] | None = None

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self.shape.schema

    @property
    def commit(self) -> int:
        """The commit as of which it reads."""
        return self.view.state.seq

    async def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """The record batches. Raises what ``replay_batches`` raises while it reads."""
        source = self.groups()
        try:
            async for group in source:
                for batch in group:
                    yield batch
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    async def groups(self) -> AsyncIterator[list[pa.RecordBatch]]:
        """The same, as many at a time as are at hand: for whoever has a long way to each."""
        count = _Counter(self)
        if self.order == "timestamp" and len(self.spans) > 1:
            source = _alone(self._merged(count))
        else:
            source = self._grouped(self.shape, self.spans, self.memory_bytes, count)
        try:
            async for group in source:
                for batch in group:
                    count.gave(batch)
                yield group
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    def _merged(self, count: _Counter) -> AsyncIterator[pa.RecordBatch]:
        share = self.memory_bytes // len(self.spans)
        shape = self.shape.with_timestamp()
        lanes = [self._one_by_one(shape, [span], share, count) for span in self.spans]
        return merged(lanes, self.schema, self.offload)

    async def _one_by_one(
        self, shape: Shape, spans: list[Span], memory_bytes: int, count: _Counter
    ) -> AsyncIterator[pa.RecordBatch]:
        source = self._grouped(shape, spans, memory_bytes, count)
        try:
            async for group in source:
                for batch in group:
                    yield batch
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    async def _grouped(
        self, shape: Shape, spans: list[Span], memory_bytes: int, count: _Counter
    ) -> AsyncIterator[list[pa.RecordBatch]]:
        """The spans one after another; what lies ahead is read meanwhile, across the end of a span too."""
        view, left, tries = self.view, list(spans), 0
        budget = Budget(memory_bytes)
        while left:
            job = Job.of(view, shape, self.offload, memory_bytes)
            pieces = in_order(_pieces(job, left, memory_bytes), budget)
            try:
                async for piece, batches in pieces:
                    if batches:
                        yield batches
                    left, tries = _behind(left, piece), 0
                    count.passed(piece)
                return
            except NotFound as gone:
                tries += 1
                view = await _look_again(view, gone, tries)
                left = _still_there(view, left)
            finally:
                await pieces.aclose()  # type: ignore[attr-defined]


async def _alone(batches: AsyncIterator[pa.RecordBatch]) -> AsyncIterator[list[pa.RecordBatch]]:
    """Each batch as a group of one."""
    try:
        async for batch in batches:
            yield [batch]
    finally:
        await batches.aclose()  # type: ignore[attr-defined]


async def open_replay(
    namespace: Namespace,
    topic: str,
    *,
    partitions: Iterable[int] | None = None,
    start: Places = "earliest",
    end: Places | None = None,
    columns: Sequence[str] | None = None,
    filter: Filter | None = None,  # noqa: A002 - Arrow's word
    order: Order = "partition",
    memory_bytes: int = REPLAY_BYTES,
    progress: Callable[[Progress], object] | None = None,
    as_of: Moment | None = None,
    offload: Offload = in_thread,
) -> Replay:
    """Decide what a replay reads, as of one commit; nothing of the records is read yet.

    Raises: as ``replay_batches``. Cost: 1 GET; with ``as_of`` or a ``Commit`` what ``state_at`` costs.
    """
    if order not in ("partition", "timestamp"):
        raise InvalidRequest(f"The order is 'partition' or 'timestamp', not {order!r}.")
    if memory_bytes < REPLAY_BYTES_MIN:
        raise InvalidRequest(f"A replay needs at least {REPLAY_BYTES_MIN} bytes of memory, not {memory_bytes}.")
    view = await view_of(namespace, topic, await commit_of(namespace, as_of))
    shape = shape_of(view.topic, columns, filter)
    spans = [span for span in await spans_of(view, partitions, start, end) if span.start < span.end]
    return Replay(view, spans, shape, order, memory_bytes, offload, progress)


async def replay_batches(namespace: Namespace, topic: str, **options: Any) -> AsyncIterator[pa.RecordBatch]:
    """The record batches of a topic, from an open namespace; ``headwater.replay.replay`` says what the options mean.

    Raises:
        NotFound: no such topic, partition or commit; or the commit can no longer be read.
        OffsetOutOfRange: an offset that the partition does not have, or no longer has.
        InvalidRequest: an unknown column, a filter that does not fit, a start behind the end.
        Corrupt: stored bytes break a rule, or are gone for good; the message names the object.
    """
    replay = await open_replay(namespace, topic, **options)
    source = replay.batches()
    try:
        async for batch in source:
            yield batch
    finally:
        await source.aclose()  # type: ignore[attr-defined]


async def _pieces(job: Job, spans: list[Span], memory_bytes: int) -> AsyncIterator[Piece]:
    hot_bytes = max(min(REPLAY_HOT_BYTES, memory_bytes // 16), 1)
    for span in spans:
        archived = job.view.place(span.partition).archived
        for source in (
            file_pieces(job, replace(span, end=min(span.end, archived))) if span.start < archived else None,
            hot_pieces(job, replace(span, start=max(span.start, archived)), hot_bytes) if archived < span.end else None,
        ):
            if source is None:
                continue
            try:
                async for piece in source:
                    yield piece
            finally:
                await source.aclose()  # type: ignore[attr-defined]


def _behind(spans: list[Span], piece: Piece) -> list[Span]:
    """What is left of ``spans`` after a piece: pieces come in their order."""
    at = next(i for i, span in enumerate(spans) if span.partition == piece.partition)
    first = replace(spans[at], start=piece.end)
    return [first, *spans[at + 1 :]] if first.start < first.end else spans[at + 1 :]


async def _look_again(view: View, gone: NotFound, tries: int) -> View:
    """The present view. Raises if there is none, or if the same thing is missing in that one too."""
    if isinstance(gone, OffsetOutOfRange):
        raise gone
    if view.fixed:
        raise NotFound(
            f"Commit {view.state.seq} can no longer be read: {gone.message} "
            "A longer history.retention.ms keeps what later commits will replace."
        ) from gone
    if tries > LOOK_AGAIN_MAX:
        raise Corrupt(
            f"Topic {view.topic.name!r} needs an object that does not exist: {gone.message} Run `headwater verify`."
        ) from gone
    return await again(view)


def _still_there(view: View, spans: list[Span]) -> list[Span]:
    """The same spans. Raises ``OffsetOutOfRange`` if their records were deleted meanwhile."""
    for span in spans:
        place = view.place(span.partition)
        if span.start < place.start:
            raise OffsetOutOfRange(
                f"Topic {view.topic.name!r}, partition {span.partition}: the offsets [{span.start}, {place.start}) "
                "were deleted while they were replayed.",
                log_start=place.start,
                high_watermark=place.next,
            )
    return spans


class _Counter:
    """Counts what is given out, and tells whoever wants to know."""

    def __init__(self, replay: Replay) -> None:
        self._tell = replay.progress
        self._topic = replay.view.topic.name
        self._starts = {span.partition: span.start for span in replay.spans}
        self._passed: dict[int, int] = {}
        self._total = sum(span.end - span.start for span in replay.spans)
        self._records = self._bytes = 0

    def gave(self, batch: pa.RecordBatch) -> None:
        self._records += batch.num_rows
        self._bytes += batch.nbytes
        self._say()

    def passed(self, piece: Piece) -> None:
        self._passed[piece.partition] = piece.end - self._starts[piece.partition]
        self._say()

    def _say(self) -> None:
        if self._tell is not None:
            done = sum(self._passed.values())
            self._tell(Progress(self._topic, self._records, self._bytes, done, self._total))
