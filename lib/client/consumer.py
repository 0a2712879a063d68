"""The consumer: records of topics, in a group or alone, one by one, in batches, or as Arrow.

    async with Consumer("s3://bucket/prefix", "clicks", group_id="counts", value_deserializer="json") as consumer:
        async for record in consumer:
            count(record.value)

What it reads is always committed (``read_committed``). In a group, partitions come and go inside polls: a program that
is given records has all of them in work until its next poll, and only then are they given up or committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from headwater import tracing
from headwater.client.assignment import Assignment
from headwater.client.backoff import poked
from headwater.client.connection import Connection, ConnectOptions, shown
from headwater.client.fetching import Fetcher, Reset
from headwater.client.lanes import Codecs, Lane
from headwater.client.membership import GroupOptions
from headwater.client.records import (
    ConsumerRecord,
    GroupMetadata,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)
from headwater.client.serializers import DeserializerLike, deserializer
from headwater.client.subscription import RebalanceListener, Subscription, place
from headwater.clock import Clock
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.limits import BATCH_RECORDS_MAX, MIB, SESSION_MS, TRACE_LINKS_MAX

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from headwater.api.verbs import Verbs, Where
    from headwater.client.transaction import OffsetsLike

TP = tuple[str, int]
NOW_MS = 1.0  # the time that ``getmany(timeout_ms=0)`` gives to what is already on its way


class Consumer:
    """Reads topics. Use one from one task at a time.

    Args:
        target: the URL of a bucket or a service (``connect`` says more), or ``Verbs``.
        topics: what to subscribe to; ``subscribe`` and ``assign`` do the same later.
        group_id: the group to be a member of. Without it, all partitions of the topics are read, and nothing is
            committed.
        group_instance_id: a name that makes the member a static one: whoever comes back under it within the session
            finds its partitions (KIP-345).
        auto_offset_reset: where to begin without a committed offset, and outside the log: ``latest``, ``earliest``,
            or ``none``, which raises.
        enable_auto_commit: commit what was processed every ``auto_commit_interval_ms``, when partitions are given up,
            and at the end.
        session_timeout_ms: after this much silence the group gives the partitions to others.
        heartbeat_interval_ms: how often to ask the group for news: one GET, and at most 4 PUTs a minute.
        max_poll_interval_ms: a program that does not poll for so long leaves the group.
        partition_assignment_strategy: range, roundrobin, sticky or cooperative-sticky; "" for the group's.
        max_poll_records: records that ``getmany`` returns at most.
        fetch_max_bytes: bytes of one request.
        fetch_max_wait_ms: how long a request waits for records.
        metadata_max_age_ms: how often topics are looked at again for a pattern, and for new partitions without a group.
        connection: what ``connect`` takes besides the URL: namespace, token, auth, …
    """

    def __init__(
        self,
        target: str | Verbs,
        *topics: str,
        group_id: str | None = None,
        group_instance_id: str = "",
        client_id: str = "",
        auto_offset_reset: Reset = "latest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: float = 5_000,
        session_timeout_ms: int = SESSION_MS,
        heartbeat_interval_ms: int = 3_000,
        max_poll_interval_ms: int = 300_000,
        partition_assignment_strategy: str = "",
        max_poll_records: int = 500,
        fetch_max_bytes: int = 4 * MIB,
        fetch_max_wait_ms: float = 10_000,
        metadata_max_age_ms: float = 30_000,
        isolation_level: Literal["read_committed"] = "read_committed",
        key_deserializer: DeserializerLike = None,
        value_deserializer: DeserializerLike = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        **connection: Unpack[ConnectOptions],
    ) -> None:
        if auto_offset_reset not in ("earliest", "latest", "none"):
            raise InvalidRequest(f"auto_offset_reset is earliest, latest or none, not {auto_offset_reset!r}.")
        if isolation_level != "read_committed":
            raise InvalidRequest("isolation_level is read_committed: nothing else can be read here.")
        if group_instance_id and not group_id:
            raise InvalidRequest("group_instance_id needs a group_id.")
        if min(max_poll_records, fetch_max_bytes, heartbeat_interval_ms, auto_commit_interval_ms) <= 0:
            raise InvalidRequest("Bounds and intervals of a consumer are more than 0.")
        self.group_id = group_id
        self.max_poll_records = max_poll_records
        self._connection = Connection(target, clock=clock, rng=rng, **connection)
        self.clock = self._connection.clock
        self._codecs = Codecs(key=deserializer(key_deserializer), value=deserializer(value_deserializer))
        self._terms = GroupOptions(
            group=group_id or "",
            instance=group_instance_id,
            client=client_id,
            assignor=partition_assignment_strategy,
            session_ms=session_timeout_ms,
            heartbeat_ms=heartbeat_interval_ms,
            max_poll_ms=max_poll_interval_ms,
        )
        self._reset: Reset = auto_offset_reset
        self._fetch_bytes_max, self._fetch_wait_ms = fetch_max_bytes, fetch_max_wait_ms
        self._metadata_max_age_s = metadata_max_age_ms / 1_000
        self._auto_commit_s = auto_commit_interval_ms / 1_000 if enable_auto_commit and group_id else None
        self._news = asyncio.Event()
        self._in_work: list[Lane] = []  # whose records the program was given since the last poll
        self._turn: TopicPartition | None = None  # whose records ``getone`` is handing out
        self._subscription = Subscription()
        self._fetcher: Fetcher | None = None
        self._assignment: Assignment | None = None
        if topics:
            self.subscribe(topics)

    def __repr__(self) -> str:
        return f"Consumer({shown(self._connection._target)}, group_id={self.group_id!r})"

    # -- its life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and join the group if topics are subscribed to. ``async with`` does it."""
        if self._assignment is not None:
            return
        verbs = await self._connection.open()
        self._fetcher = Fetcher(
            verbs,
            clock=self.clock,
            rng=self._connection.rng,
            reset=self._reset,
            bytes_max=self._fetch_bytes_max,
            wait_ms=self._fetch_wait_ms,
            news=self._news.set,
        )
        self._assignment = Assignment(
            verbs,
            self._subscription,
            self._fetcher,
            self._terms,
            auto_commit_s=self._auto_commit_s,
            metadata_max_age_s=self._metadata_max_age_s,
            news=self._news.set,
        )
        try:
            await self._assignment.follow()
        except BaseException:
            with contextlib.suppress(HeadwaterError):  # the first error is the story to tell
                await self._let_go(processed=False)
            raise

    async def stop(self) -> None:
        """Commit what was handed out (with ``enable_auto_commit``), leave the group, and let go."""
        await self._let_go(processed=True)

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Who leaves by an exception has perhaps not done with the last record: it will be read again.
        try:
            await self._let_go(processed=error is None or isinstance(error, GeneratorExit))
        except HeadwaterError:
            if error is None:
                raise

    async def _let_go(self, *, processed: bool) -> None:
        try:
            if self._assignment is not None:
                await self._assignment.close(processed=processed)
        finally:
            self._assignment = self._fetcher = None
            await self._connection.close()

    # -- what to read -----------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Iterable[str] | str = (),
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read these topics, or all whose name begins with a match of ``pattern``. It shows at the next poll."""
        self._subscription.subscribe(topics, pattern, listener)
        self._news.set()

    def assign(self, partitions: Iterable[TP]) -> None:
        """Read exactly these partitions, without the group's say. Its offsets can still be committed."""
        self._subscription.assign(partitions)
        self._news.set()

    async def unsubscribe(self) -> None:
        """Read nothing, and leave the group."""
        self._subscription.clear()
        if self._assignment is not None:
            await self._assignment.follow()

    def subscription(self) -> frozenset[str]:
        """The topics that are subscribed to; those of a pattern as last seen."""
        return frozenset(self._subscription.topics)

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are being read."""
        return frozenset(self._fetcher.lanes) if self._fetcher is not None else frozenset()

    # -- reading ------------------------------------------------------------------------------------------

    async def getmany(
        self, *partitions: TP, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Records that are at hand, by partition; waits up to ``timeout_ms`` for the first one.

        Raises:
            NoOffset, OffsetOutOfRange: with ``auto_offset_reset="none"``: seek, and go on.
            Undecodable: the next record is one: seek past it, and go on.
            HeadwaterError: what the service said. Calling again tries again.
        """
        wanted = {place(tp) for tp in partitions}
        limit = max_records or self.max_poll_records
        deadline_s = self._poll_begins() + max(timeout_ms, NOW_MS) / 1_000
        while True:
            await self._running().follow()
            found = self._collect(wanted, limit)
            if found and tracing.is_on():
                self._polled(found, [link for each in found.values() for link in tracing.links_of_records(each)])
            left_s = deadline_s - self.clock.elapsed_s()
            if found or left_s <= 0:
                return found
            await poked(self._news, min(left_s, self._running().look_again_s()))

    async def getone(self, *partitions: TP, timeout_ms: float | None = None) -> ConsumerRecord | None:
        """The next record; None only after ``timeout_ms``. Raises as ``getmany``."""
        wanted = {place(tp) for tp in partitions}
        now_s = self._poll_begins()
        deadline_s = None if timeout_ms is None else now_s + max(timeout_ms, NOW_MS) / 1_000
        while True:
            await self._running().follow()
            record = self._next(wanted)
            left_s = None if deadline_s is None else deadline_s - self.clock.elapsed_s()
            if record is not None or (left_s is not None and left_s <= 0):
                return record
            again_s = self._running().look_again_s()
            await poked(self._news, again_s if left_s is None else min(left_s, again_s))

    def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        return self

    async def __anext__(self) -> ConsumerRecord:
        while True:
            record = await self.getone()
            if record is not None:
                return record

    async def poll_arrow(self, *partitions: TP, timeout_ms: float = 0) -> dict[TopicPartition, pa.Table]:
        """Like ``getmany``, as Arrow: all that is at hand, with the columns offset, timestamp, key, value and headers.

        No record is looked at, and none is deserialized. Cost: nothing for a single record.
        """
        import pyarrow as pa

        wanted = {place(tp) for tp in partitions}
        deadline_s = self._poll_begins() + max(timeout_ms, NOW_MS) / 1_000
        while True:
            await self._running().follow()
            ready = self._ready(wanted)
            self._in_work += ready
            found = {lane.tp: pa.Table.from_batches(lane.take_arrow()) for lane in ready}
            if found and tracing.is_on():
                self._polled(found, [link for each in found.values() for link in _links(each)])
            left_s = deadline_s - self.clock.elapsed_s()
            if found or left_s <= 0:
                return found
            await poked(self._news, min(left_s, self._running().look_again_s()))

    def _polled(self, found: Mapping[TopicPartition, Sequence[ConsumerRecord] | pa.Table], links: list[Any]) -> None:
        """A span that says what was handed out, and whose senders it came from."""
        topics, places = sorted({tp.topic for tp in found}), list(found)
        with tracing.span(
            f"poll {topics[0]}" if len(topics) == 1 else "poll",
            "CLIENT",
            links=links[:TRACE_LINKS_MAX],
            messaging__system=tracing.SYSTEM,
            messaging__operation__name="poll",
            messaging__operation__type="receive",
            messaging__destination__name=topics[0] if len(topics) == 1 else None,
            messaging__destination__partition__id=str(places[0].partition) if len(places) == 1 else None,
            messaging__batch__message_count=sum(map(len, found.values())),
            messaging__consumer__group__name=self.group_id,
        ):
            pass

    # -- positions ----------------------------------------------------------------------------------------

    async def seek(self, partition: TP, offset: int) -> None:
        """Go on at ``offset``. What was fetched and not yet handed out is dropped."""
        self.rewind(partition, offset)

    def rewind(self, partition: TP, offset: int) -> None:
        """``seek`` for callers that cannot wait, such as a plain rebalance listener."""
        if offset < 0:
            raise InvalidRequest(f"An offset is 0 or more, not {offset}.")
        self._fetching().seek(self._lane(partition), offset)

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Go on at the start of the log, of all partitions that are assigned if none is named."""
        await self._seek_to(partitions, "earliest")

    async def seek_to_end(self, *partitions: TP) -> None:
        """Go on at the end of the log."""
        await self._seek_to(partitions, "latest")

    async def position(self, partition: TP) -> int:
        """The offset that is handed out next."""
        return self._lane(partition).position

    def positions(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """All positions: what ``commit()`` commits, and what a transaction takes."""
        return self._running().positions()

    def pause(self, *partitions: TP) -> None:
        """Hand out nothing of these until ``resume``. They stay assigned."""
        for tp in partitions:
            self._lane(tp).paused = True

    def resume(self, *partitions: TP) -> None:
        """Go on handing out."""
        for tp in partitions:
            lane = self._lane(tp)
            lane.paused = False
            lane.room.set()
        self._news.set()

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(lane.tp for lane in self._fetching().lanes.values() if lane.paused)

    # -- the group's offsets --------------------------------------------------------------------------------

    async def commit(self, offsets: OffsetsLike | None = None) -> None:
        """Commit offsets for the group: those given, or all positions.

        Raises:
            Fenced: a partition is not ours any more. What was processed of it is processed by others as well.
        """
        await self._running().commit(self.positions() if offsets is None else offsets)

    def commit_async(self, offsets: OffsetsLike | None = None) -> asyncio.Task[None]:
        """``commit`` in the background; commits keep their order. The task has the outcome."""
        running = self._running()
        places = self.positions() if offsets is None else dict(offsets)
        return asyncio.get_running_loop().create_task(running.commit(places), name="headwater-commit")

    async def committed(self, partition: TP) -> int | None:
        """The group's committed offset of a partition, or None."""
        found = await self._running().committed()
        return found[place(partition)].offset if place(partition) in found else None

    def group_metadata(self) -> GroupMetadata:
        """What fences a transaction's ``send_offsets`` (KIP-447)."""
        return self._running().group_metadata()

    # -- the log's offsets ------------------------------------------------------------------------------------

    async def beginning_offsets(self, partitions: Iterable[TP]) -> dict[TopicPartition, int]:
        """The first offset of each."""
        return await self._offsets_of(partitions, "earliest")

    async def end_offsets(self, partitions: Iterable[TP]) -> dict[TopicPartition, int]:
        """One past the last offset of each."""
        return await self._offsets_of(partitions, "latest")

    async def offsets_for_times(self, times: Mapping[TP, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (ms since 1970 UTC) in each; None where there is none."""
        verbs = self._connection.verbs
        found = await asyncio.gather(*(verbs.offset_of(tp[0], tp[1], at) for tp, at in times.items()))
        return {
            place(tp): OffsetAndTimestamp(at.offset, at.timestamp) if at.timestamp >= 0 else None
            for tp, at in zip(times, found, strict=True)
        }

    async def lag(self, *partitions: TP) -> dict[TopicPartition, int]:
        """Records between the positions and the ends of the log, of all assigned partitions if none is named."""
        lanes = [self._lane(tp) for tp in partitions] or list(self._fetching().lanes.values())
        ends = await self.end_offsets([lane.tp for lane in lanes])
        return {lane.tp: max(ends[lane.tp] - lane.position, 0) for lane in lanes}

    def highwater(self, partition: TP) -> int | None:
        """The end of the log as the last fetch saw it; None before the first."""
        mark = self._lane(partition).high_watermark
        return mark if mark >= 0 else None

    async def topics(self) -> set[str]:
        """The topics there are."""
        return {info.name for info in await self._connection.verbs.topics()}

    async def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions of a topic. Raises ``NotFound``."""
        return {info.partition for info in (await self._connection.verbs.topic(topic)).partitions}

    # -- below ------------------------------------------------------------------------------------------------

    def _poll_begins(self) -> float:
        """What was handed out before this poll is processed."""
        self._running().polled(self._in_work)
        self._in_work.clear()
        return self.clock.elapsed_s()

    def _ready(self, wanted: set[TopicPartition]) -> list[Lane]:
        """The lanes with something to hand out, of those ``wanted`` (none: all); the last one's turn comes last."""
        lanes = [lane for lane in self._fetching().lanes.values() if not wanted or lane.tp in wanted]
        if self._turn in self._fetching().lanes:
            order = [lane.tp for lane in lanes]
            at = order.index(self._turn) + 1 if self._turn in order else 0
            lanes = lanes[at:] + lanes[:at]
        ready = []
        for lane in lanes:
            if lane.error is not None and not lane.has_data and not lane.paused:
                self._raise(lane)
            if lane.has_data and not lane.paused:
                ready.append(lane)
        return ready

    def _raise(self, lane: Lane) -> None:
        """Raise a lane's error, and let it try again at the next poll unless only a seek can help."""
        error = lane.error
        assert error is not None
        if lane.position >= 0 and self._reset != "none":
            self._fetching().seek(lane, lane.position)
        raise error

    def _collect(self, wanted: set[TopicPartition], limit: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        left = min(limit, BATCH_RECORDS_MAX)
        for lane in self._ready(wanted):
            if left <= 0:
                break
            try:
                records = lane.take_rows(left, self._codecs)
            except HeadwaterError:
                if not found:
                    raise
                break
            self._turn = lane.tp
            self._in_work.append(lane)
            found[lane.tp] = records
            left -= len(records)
        return found

    def _next(self, wanted: set[TopicPartition]) -> ConsumerRecord | None:
        """The next record of the lane whose records were converted last, then of the next lane that has any."""
        lane = self._fetching().lanes.get(self._turn) if self._turn is not None else None
        if lane is None or not lane.rows or lane.paused or (wanted and lane.tp not in wanted):
            ready = self._ready(wanted)
            if not ready:
                return None
            lane = ready[0]
        self._turn = lane.tp
        self._in_work.append(lane)
        return lane.take_rows(1, self._codecs)[0]

    async def _seek_to(self, partitions: Sequence[TP], where: Where) -> None:
        lanes = [self._lane(tp) for tp in partitions] or list(self._fetching().lanes.values())
        offsets = await self._offsets_of([lane.tp for lane in lanes], where)
        for lane in lanes:
            self._fetching().seek(lane, offsets[lane.tp])

    async def _offsets_of(self, partitions: Iterable[TP], where: Where) -> dict[TopicPartition, int]:
        tps = [place(tp) for tp in partitions]
        verbs = self._connection.verbs
        found = await asyncio.gather(*(verbs.offset_of(tp.topic, tp.partition, where) for tp in tps))
        return {tp: at.offset for tp, at in zip(tps, found, strict=True)}

    def _lane(self, partition: TP) -> Lane:
        lane = self._fetching().lanes.get(place(partition))
        if lane is None:
            raise InvalidRequest(f"{place(partition)} is not assigned to this consumer.")
        return lane

    def _fetching(self) -> Fetcher:
        self._running()
        assert self._fetcher is not None
        return self._fetcher

    def _running(self) -> Assignment:
        if self._assignment is None:
            raise InvalidRequest("This consumer is not running: use it as `async with …`, or await start() first.")
        return self._assignment


def _links(table: pa.Table) -> list[Any]:
    """Links to the senders of records of each piece of a table."""
    return [link for piece in table.column("headers").chunks for link in tracing.links_of_column(piece)]
