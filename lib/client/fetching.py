"""The fetching half of a consumer: one task for each partition keeps a little more than its reader needs at hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from headwater.client.backoff import Backoff
from headwater.client.lanes import Lane
from headwater.client.records import TopicPartition
from headwater.clock import Clock
from headwater.errors import Indeterminate, NotFound, OffsetOutOfRange, Throttled, Unavailable
from headwater.limits import CLIENT_FETCHES_MAX, READ_AHEAD_BYTES_MAX

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs

Reset = Literal["earliest", "latest", "none"]
SHARED_WAIT_MS = 100.0  # a long poll while others wait for a turn


class NoOffset(NotFound):
    """Nothing was committed for a partition and ``auto_offset_reset`` is ``none``."""

    what_now = "Seek to where reading shall begin."


class Fetcher:
    """The lanes of a consumer. ``news`` is called whenever one of them has something to hand out."""

    def __init__(
        self,
        verbs: Verbs,
        *,
        clock: Clock,
        rng: random.Random,
        reset: Reset,
        bytes_max: int,
        wait_ms: float,
        news: Callable[[], None],
    ) -> None:
        self.verbs = verbs
        self.clock = clock
        self.rng = rng
        self.reset = reset
        self.bytes_max = bytes_max
        self.wait_ms = wait_ms
        self.lanes: dict[TopicPartition, Lane] = {}
        self.is_patient = False  # whether a topic that is gone is left to whoever assigns the partitions
        self._news = news
        self._slots = asyncio.Semaphore(CLIENT_FETCHES_MAX)

    # -- lanes come and go -------------------------------------------------------------------------------

    async def begin(self, tp: TopicPartition) -> Lane:
        """A lane for a partition of which nothing is committed, by ``auto_offset_reset``. It does not fetch yet."""
        if self.reset == "none":
            lane = Lane(tp, 0)
            lane.error = NoOffset(
                f"Nothing is committed for topic {tp.topic!r}, partition {tp.partition}, and auto_offset_reset is none."
            )
            return lane
        return Lane(tp, (await self.verbs.offset_of(tp.topic, tp.partition, self.reset)).offset)

    def add(self, lanes: Iterable[Lane]) -> None:
        """Begin to fetch."""
        for lane in lanes:
            assert lane.tp not in self.lanes, lane.tp
            self.lanes[lane.tp] = lane
            self._start(lane)

    async def drop(self, tps: Iterable[TopicPartition]) -> None:
        """Stop fetching, and return when nothing is on its way."""
        tasks = [lane.task for tp in tps if (lane := self.lanes.pop(tp, None)) is not None and lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def seek(self, lane: Lane, offset: int) -> None:
        """Go on at ``offset``."""
        if lane.task is not None:
            lane.task.cancel()  # what it may bring is of another place
        lane.seek(offset)
        self._start(lane)

    @property
    def nbytes(self) -> int:
        """Bytes at hand."""
        return sum(lane.nbytes for lane in self.lanes.values())

    # -- one lane ----------------------------------------------------------------------------------------

    def _start(self, lane: Lane) -> None:
        lane.task = asyncio.get_running_loop().create_task(self._fill(lane), name=f"headwater-fetch-{lane.tp}")

    async def _fill(self, lane: Lane) -> None:
        """Fetch whenever there is room, until cancelled, or until an error that the reader must hear of."""
        backoff = Backoff(self.clock, self.rng)
        while lane.error is None:
            lane.room.clear()
            if lane.paused or (lane.has_data and self._is_full(lane)):
                await lane.room.wait()
                continue
            try:
                await self._fetch(lane)
                backoff = Backoff(self.clock, self.rng)
            except (Throttled, Unavailable, Indeterminate) as error:
                await self.clock.sleep(backoff.next_s(error))
            except OffsetOutOfRange as error:
                self._put_right(lane, error)
            except NotFound as error:
                if not self.is_patient:
                    lane.error = error
                else:
                    await self.clock.sleep(backoff.next_s(error))
            except Exception as error:  # also a bug must reach the reader, who would wait for ever otherwise
                lane.error = error
        self._news()

    def _is_full(self, lane: Lane) -> bool:
        return lane.nbytes >= self.bytes_max or self.nbytes >= READ_AHEAD_BYTES_MAX

    async def _fetch(self, lane: Lane) -> None:
        async with self._slots:
            wait_ms = self.wait_ms if len(self.lanes) <= CLIENT_FETCHES_MAX else min(self.wait_ms, SHARED_WAIT_MS)
            fetched = await self.verbs.fetch(
                lane.tp.topic,
                lane.tp.partition,
                lane.fetch_at,
                bytes_max=self.bytes_max,
                wait_ms=wait_ms,
            )
        if lane.add(fetched):
            self._news()

    def _put_right(self, lane: Lane, error: OffsetOutOfRange) -> None:
        """The log has moved past the position, or was never that long: ``auto_offset_reset`` says what to do."""
        if self.reset == "none":
            lane.error = error
        elif not lane.has_data:
            lane.seek(error.log_start if self.reset == "earliest" else error.high_watermark)
        else:
            lane.fetch_at = error.log_start if self.reset == "earliest" else error.high_watermark
