"""Lanes: what a task reads ahead of its partitions, within a budget that all tasks of a worker share.

A lane fetches while it has room and otherwise waits: a task that is slower than its sources holds up the reading, not
the memory. What is handed out are whole chunks; they are decoded where the step is computed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headwater.client.backoff import Backoff
from headwater.errors import Indeterminate, OffsetOutOfRange, Throttled, Unavailable
from headwater.limits import (
    STREAMS_BATCH_BYTES,
    STREAMS_BATCH_RECORDS,
    STREAMS_BUFFER_BYTES,
    STREAMS_LANE_BYTES,
    STREAMS_POLL_MS,
)
from headwater.log.chunk import Chunk
from headwater.log.namespace import Namespace


class DataLost(OffsetOutOfRange):
    """Retention has taken records that the job had not read yet."""

    what_now = (
        "Accept the loss with `headwater streams run --lost skip`, or begin anew with `headwater streams reset`. "
        "A longer retention.ms of the topic keeps more."
    )


@dataclass(slots=True)
class Budget:
    """Bytes that the lanes of one worker may hold together."""

    bytes_max: int = STREAMS_BUFFER_BYTES
    used: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether only empty lanes may fetch."""
        return self.used >= self.bytes_max


@dataclass(frozen=True, slots=True)
class Taken:
    """Chunks of one partition for one step: records from ``start`` on; ``next`` is the offset behind them."""

    topic: str
    partition: int
    start: int
    next: int
    chunks: Sequence[Chunk]

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return sum(len(chunk.data) for chunk in self.chunks)


class Lane:
    """One partition of a task's input. ``position`` is the next offset to hand out, ``end`` the log's end as known."""

    def __init__(self, topic: str, partition: int, position: int, *, first: bool, limit: int | None, end: int) -> None:
        self.topic = topic
        self.partition = partition
        self.position = position
        self.first = first  # a table: read before streams
        self.limit = limit  # where a run that ends stops reading
        self.end = end
        self.goal = end  # of a table: streams wait until it is reached
        self.fetch_at = position
        self.chunks: deque[Chunk] = deque()
        self.nbytes = 0
        self.error: Exception | None = None
        self.skipped = 0
        self.room = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def is_at_end(self) -> bool:
        """Whether all there was at the last look has been handed out."""
        return not self.chunks and self.position >= self.target

    @property
    def target(self) -> int:
        """Where this lane has nothing more to read, as far as is known."""
        return self.end if self.limit is None else min(self.end, self.limit)

    @property
    def lag(self) -> int:
        """Records that were there at the last look and are not handed out."""
        return max(self.end - self.position, 0)

    @property
    def head_ms(self) -> int:
        """The least timestamp of the next chunk."""
        return self.chunks[0].timestamp_min


class Reading:
    """The lanes of one task. ``news`` is called when one of them has something new to say."""

    def __init__(
        self, namespace: Namespace, lanes: Iterable[Lane], budget: Budget, *, news: Callable[[], None], lost: str
    ) -> None:
        self.namespace = namespace
        self.lanes = {(lane.topic, lane.partition): lane for lane in lanes}
        self.budget = budget
        self._news = news
        self._lost = lost

    def start(self) -> None:
        """Begin to fetch."""
        for lane in self.lanes.values():
            lane.task = asyncio.get_running_loop().create_task(
                self._fill(lane), name=f"streams-read-{lane.topic}-{lane.partition}"
            )

    async def stop(self) -> None:
        """Stop fetching, and return when nothing is on its way."""
        tasks = [lane.task for lane in self.lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for lane in self.lanes.values():
            self.budget.used -= lane.nbytes
            lane.nbytes = 0
            lane.chunks.clear()

    # -- handing out -----------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes at hand."""
        return sum(lane.nbytes for lane in self.lanes.values())

    def raise_errors(self) -> None:
        """Raise what ended a lane."""
        for lane in self.lanes.values():
            if lane.error is not None:
                raise lane.error

    @property
    def has_batch(self) -> bool:
        """Whether there is something to hand out now."""
        return any(lane.chunks for lane in self._open())

    def take(self, *, bytes_max: int = STREAMS_BATCH_BYTES, records_max: int = STREAMS_BATCH_RECORDS) -> list[Taken]:
        """The next micro-batch: chunks of the lanes that are furthest behind in time, at least one if there is any.

        Streams come after the tables that they may meet: those are read to their end as of the last batch first.
        """
        taken: dict[tuple[str, int], list[Chunk]] = {}
        starts: dict[tuple[str, int], int] = {}
        size = records = 0
        while True:
            ready = [lane for lane in self._open() if lane.chunks]
            if not ready:
                break
            lane = min(ready, key=lambda each: (each.head_ms, each.topic, each.partition))
            chunk = lane.chunks[0]
            if taken and (size + len(chunk.data) > bytes_max or records + chunk.count > records_max):
                break
            place = (lane.topic, lane.partition)
            starts.setdefault(place, lane.position)
            taken.setdefault(place, []).append(lane.chunks.popleft())
            lane.position = chunk.end if lane.chunks else lane.fetch_at  # behind gaps there is nothing to wait for
            lane.nbytes -= len(chunk.data)
            self.budget.used -= len(chunk.data)
            lane.room.set()
            size += len(chunk.data)
            records += chunk.count
        if not self._tables():
            for lane in self.lanes.values():
                lane.goal = lane.end
        return [
            Taken(topic, partition, starts[topic, partition], self.lanes[topic, partition].position, chunks)
            for (topic, partition), chunks in taken.items()
        ]

    def _tables(self) -> list[Lane]:
        """Tables that streams have to wait for."""
        return [lane for lane in self.lanes.values() if lane.first and lane.position < min(lane.goal, lane.target)]

    def _open(self) -> list[Lane]:
        """The lanes whose turn it is. All wait for one that is about to bring older records than the others have."""
        lanes = self._tables() or list(self.lanes.values())
        late = [lane for lane in lanes if not lane.chunks and lane.position < lane.target and lane.error is None]
        return [] if late else lanes

    # -- fetching --------------------------------------------------------------------------------------

    async def _fill(self, lane: Lane) -> None:
        chain = self.namespace.chain
        backoff = Backoff(chain.clock, chain.rng)
        while lane.error is None:
            lane.room.clear()
            if lane.limit is not None and lane.fetch_at >= lane.limit:
                return
            if lane.nbytes >= STREAMS_LANE_BYTES or (lane.chunks and self.budget.is_spent):
                await lane.room.wait()
                continue
            try:
                await self._fetch(lane)
                backoff = Backoff(chain.clock, chain.rng)
            except (Throttled, Unavailable, Indeterminate) as error:
                await chain.clock.sleep(backoff.next_s(error))
            except OffsetOutOfRange as error:
                if lane.chunks:
                    await lane.room.wait()
                else:
                    self._lose(lane, error)
            except Exception as error:  # also a bug must reach the task, which would wait for ever otherwise
                lane.error = error
        self._news()

    async def _fetch(self, lane: Lane) -> None:
        fetched = await self.namespace.reader.fetch(
            lane.topic,
            lane.partition,
            lane.fetch_at,
            bytes_max=STREAMS_LANE_BYTES // 2,
            wait_ms=STREAMS_POLL_MS,
            fresh=lane.fetch_at >= lane.end,
        )
        lane.end = max(lane.end, fetched.stable_end)
        if not fetched.chunks and fetched.next_offset > lane.fetch_at and not lane.chunks:
            lane.position = fetched.next_offset  # only gaps
        lane.fetch_at = fetched.next_offset
        lane.chunks.extend(fetched.chunks)
        size = sum(len(chunk.data) for chunk in fetched.chunks)
        lane.nbytes += size
        self.budget.used += size
        self._news()

    def _lose(self, lane: Lane, error: OffsetOutOfRange) -> None:
        """Retention was faster than the job, or the topic is another one now."""
        if self._lost == "skip" and lane.fetch_at < error.log_start:
            lane.skipped += error.log_start - lane.fetch_at
            lane.fetch_at = lane.position = error.log_start
            return
        lane.error = DataLost(
            f"The job's next offset of topic {lane.topic!r}, partition {lane.partition} is {lane.fetch_at}, and the "
            f"log holds [{error.log_start}, {error.high_watermark}).",
            log_start=error.log_start,
            high_watermark=error.high_watermark,
        )
