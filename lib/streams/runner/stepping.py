"""One task's life in a worker: restore, then step after step, each committed by one intent.

    read ──► compute step n+1 ──► commit n+1
                  └── while the commit of n is in flight

A step is built on the state that the one before left, whether that is committed or not. So if a commit is refused the
task is thrown away with all it computed since, and its next owner begins at what the log says. At most one commit is in
flight, since a later one must never pass where an earlier one was refused.

A crash between any two awaits leaves either all of a step or nothing: outputs, changelog and offsets are one intent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater import tracing
from headwater.client.backoff import poked
from headwater.clock import Clock
from headwater.errors import Fenced, InvalidRequest
from headwater.limits import (
    STREAMS_BATCH_BYTES,
    STREAMS_SNAPSHOT_BYTES,
    STREAMS_STEPS_MAX,
    STREAMS_TICK_MS,
    STREAMS_TRIM_BYTES,
)
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.state import Outcome, Schema
from headwater.log.writer import Append
from headwater.streams.model import Process, Source
from headwater.streams.operator import Size
from headwater.streams.runner import changelog
from headwater.streams.runner.account import Account, figures_key
from headwater.streams.runner.changelog import Copy, Line, Weight
from headwater.streams.runner.committing import Fence, appends_of, offsets_op, settle
from headwater.streams.runner.computing import Computed, Computer
from headwater.streams.runner.figures import SIZED_S, Figures, Seen
from headwater.streams.runner.job import Job, committed, is_paused
from headwater.streams.runner.reading import Budget, DataLost, Lane, Reading, Taken
from headwater.streams.runner.restoring import Making, restore
from headwater.types import Batch
from headwater.upkeep.offload import Offload, in_thread

TIMINGS = 512  # commits whose latency is remembered


@dataclass(slots=True, kw_only=True)
class Setting:
    """What the tasks of a worker share."""

    namespace: Namespace
    job: Job
    making: Making
    budget: Budget = field(default_factory=Budget)
    offload: Offload = in_thread
    lost: str = "raise"
    reset: str = "earliest"
    batch_bytes: int = STREAMS_BATCH_BYTES
    limits: dict[tuple[str, int], int] | None = None  # of a run that ends: where each source ends
    paused: bool = False
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STREAMS_STEPS_MAX))
    figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.figures = Figures(self.namespace.chain.options.meters, self.namespace.name, self.job.name)

    @property
    def clock(self) -> Clock:
        """The namespace's."""
        return self.namespace.chain.clock


@dataclass(slots=True)
class Counts:
    """What one task did since it began, for metrics."""

    records: int = 0
    bytes: int = 0
    rows_out: int = 0
    commits: int = 0
    snapshots: int = 0
    restored_rows: int = 0
    restore_s: float = 0.0
    commit_s: deque[float] = field(default_factory=lambda: deque(maxlen=TIMINGS))


class TaskRunner:
    """A task that this worker owns, from the restore to its end."""

    def __init__(
        self, setting: Setting, number: int, fence: Fence, copy: Copy | None, *, news: Callable[[], None]
    ) -> None:
        self.setting = setting
        self.job = setting.job
        self.number = number
        self.fence = fence
        self.computer: Computer | None = None
        self.reading: Reading | None = None
        self.counts = Counts()
        self.sizes: dict[str, Size] = {}  # of the operators' state, as they were when somebody last looked
        self._sized_s = 0.0
        self._account = Account("", 0)
        self._flowed: dict[str, Seen] = {}
        self.lock = asyncio.Lock()  # held while the state changes: questions wait for the end of a step
        self.is_running = False  # restored, and committing
        self.looked = False  # a run that ends has given time a chance to pass
        self._copy = copy
        self._weight = Weight()
        self._trimmed: dict[str, int] = {}  # consumed bytes of repartition topics since their last trim
        self._quiet_s: dict[str, float] = {}  # when each source last brought something, by the clock that never jumps
        self._has_timers = any(isinstance(node, Process) for node in setting.job.nodes.values())
        self._ticked_s = 0.0
        self._stop = False
        self._wake = asyncio.Event()
        self._commit: asyncio.Task[Outcome] | None = None
        self._news = news

    # -- from outside ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End after the step that is under way, with all of it committed."""
        self._stop = True
        self._wake.set()

    def wake(self) -> None:
        """Something has changed that the task may wait for."""
        self._wake.set()

    async def run(self) -> None:
        """Live until stopped.

        Raises:
            Fenced, UnknownMember: the task is somebody else's. Forgotten: begin anew.
            OperatorFailed, IncompatibleTopology, DataLost, …: the job cannot go on.
        """
        copy: Copy | None = None
        try:
            copy = await self._restore()
            await self._live()
        except asyncio.CancelledError:
            if self._commit is not None:
                self._commit.cancel()  # the writer goes on with it; the member leaves, which fences it
            raise
        finally:
            self.is_running = False
            # A worker that loses its group and is stopped meanwhile cancels twice: the second one comes in here.
            try:
                if self.reading is not None:
                    await self.reading.stop()
            finally:
                await self._let_go(copy)

    async def _let_go(self, copy: Copy | None) -> None:
        if self._commit is not None:
            # Whatever ended the task: nobody may make it anew before this is decided.
            await asyncio.gather(self._commit, return_exceptions=True)
        async with self.lock:
            self.computer = None
            if copy is not None:
                self.setting.making.discard(copy.task)
        self._news()

    # -- the beginning ---------------------------------------------------------------------------------

    async def _restore(self) -> Copy:
        setting, clock = self.setting, self.setting.clock
        began_s = clock.elapsed_s()
        copy, self._copy = self._copy, None
        before = copy.rows if copy is not None else 0
        copy = await restore(setting.namespace, setting.making, self.number, copy, offload=setting.offload)
        await setting.offload(copy.task.restored, copy.progress)
        state = setting.namespace.state
        self._weight = copy.weight
        self.counts.restored_rows = copy.rows - before
        self.counts.restore_s = clock.elapsed_s() - began_s
        computer = Computer(self.job, self.number, copy.task, self._schemas())
        computer.resume(copy.progress)
        computer.writes_topology = copy.topology != self.job.plan.document()
        if computer.writes_topology and copy.topology is not None:
            self._weight.force()
        computer.offsets = self._positions(copy)
        place = committed(state, self.job.name, self.job.changelog, self.number)
        computer.anchors = place is None or not place.metadata
        told = setting.namespace.topic(self.job.changelog).config.get(figures_key(self.number), "")
        self._account = Account(told, clock.wall_ms())
        self.reading = self._lanes(computer)
        self.computer = computer
        now_s, now_ms = clock.elapsed_s(), clock.wall_ms()
        for names in self.job.sources.values():
            for name in names:
                seen = computer.seen.setdefault(name, now_ms)
                self._quiet_s[name] = now_s - max(now_ms - seen, 0) / 1_000
        return copy

    def _schemas(self) -> dict[str, list[Schema]]:
        """The topics' schemas as they are now: a producer may have given a new version a moment ago."""
        known = self.setting.namespace.state.topics
        return {name: known[topic.id].schemas for name, topic in self.job.topics.items() if topic.id in known}

    def _positions(self, copy: Copy) -> dict[tuple[str, int], int]:
        """Where to read on: what the group has committed; where that was forgotten, what the changelog says."""
        state = self.setting.namespace.state
        said = {
            (topic, partition): offset
            for topic, partition, offset in (copy.progress or {}).get("run", {}).get("offsets", ())
        }
        found = {}
        for topic, partition in self.job.places(self.number):
            if topic == self.job.changelog:
                continue
            known = committed(state, self.job.name, topic, partition)
            _, place = self.setting.namespace.reader.place(topic, partition)
            is_late = self.setting.reset == "latest" and topic in self.job.sources
            first = place.stable_end if is_late else place.start
            found[topic, partition] = known.offset if known is not None else said.get((topic, partition), first)
        return found

    def _lanes(self, computer: Computer) -> Reading:
        setting, job = self.setting, self.job
        lanes = []
        for (topic, partition), offset in computer.offsets.items():
            _, place = setting.namespace.reader.place(topic, partition)
            nodes = [job.nodes[name] for name in job.sources.get(topic, ())]
            is_table = bool(nodes) and all(isinstance(node, Source) and node.kind == "table" for node in nodes)
            limit = None
            if setting.limits is not None and topic in job.sources:
                limit = setting.limits.get((topic, partition), 0)
            lanes.append(Lane(topic, partition, offset, first=is_table, limit=limit, end=place.stable_end))
        for topic in job.tables:
            for partition in range(job.count(topic)):
                _, place = setting.namespace.reader.place(topic, partition)
                lanes.append(Lane(topic, partition, place.start, first=True, limit=None, end=place.stable_end))
        return Reading(setting.namespace, lanes, setting.budget, news=self._wake.set, lost=setting.lost)

    # -- step after step -------------------------------------------------------------------------------

    async def _live(self) -> None:
        assert self.reading is not None
        assert self.computer is not None
        self.reading.start()
        self.is_running = True
        self._news()
        while (idle := await self._await_work()) is not None:
            await self._step(idle)
            self.looked = True
        await self._settled()
        if self._account.is_owed:
            self._send_figures()
            await self._settled()

    async def _step(self, idle: Sequence[str]) -> None:
        assert self.reading is not None
        if not (tracing.is_on() and self.reading.has_batch):  # time that passes is nobody's message
            await self._stepped(idle, None)
            return
        with tracing.span(
            f"process {self.job.name}",
            "CONSUMER",
            messaging__system=tracing.SYSTEM,
            messaging__operation__name="process",
            messaging__operation__type="process",
            messaging__consumer__group__name=self.fence.group,
            headwater__job=self.job.name,
            headwater__task=self.number,
        ) as span:
            await self._stepped(idle, span)

    async def _stepped(self, idle: Sequence[str], span: Any) -> None:
        setting, reading, computer = self.setting, self.reading, self.computer
        assert reading is not None
        assert computer is not None
        now_s = setting.clock.elapsed_s()
        taken = reading.take(bytes_max=setting.batch_bytes)
        for part in taken:
            for name in self.job.sources.get(part.topic, ()):
                self._quiet_s[name] = now_s
            if part.topic in self.job.repartitions:
                self._trimmed[part.topic] = self._trimmed.get(part.topic, 0) + part.nbytes
        async with setting.slots, self.lock:
            computer.schemas = self._schemas()
            began_s, computer.carries = setting.clock.elapsed_s(), tracing.inject()
            computed: Computed = await setting.offload(computer.compute, taken, idle, setting.clock.wall_ms())
        self._count(computer, computed, began_s)
        if span is not None:
            _traced(span, taken, computed)
        await self._settled()
        self.counts.records += computed.records
        self.counts.bytes += computed.nbytes
        if computed.is_news:
            self.counts.rows_out += computed.rows_out
            self._send(computed)
        if self._weight.is_due:
            await self._settled()
            await self._snapshot()

    def _count(self, computer: Computer, computed: Computed, began_s: float) -> None:
        now_s = self.setting.clock.elapsed_s()
        self.setting.figures.computed(now_s - began_s, computed.records)
        self.setting.figures.flowed(computer.task.flows, self._flowed)
        if now_s >= self._sized_s + SIZED_S:  # whoever asks finds a busy task computing most of the time
            self.sizes, self._sized_s = computer.task.sizes(), now_s

    async def _await_work(self) -> list[str] | None:
        """Wait until there is something to compute; sources that have fallen silent. None: it is time to stop.

        While a commit is in flight a small batch is left to grow: it could not be committed earlier anyway.
        """
        reading = self.reading
        assert reading is not None
        while True:
            self._raise_errors(reading)
            if self._commit is not None and self._commit.done():
                await self._settled()
            if self._stop:
                return None
            if self._commit is None and self._account.is_quiet(self.setting.clock.elapsed_s()):
                self._send_figures()
            if not self._is_paused():
                is_full = self._commit is None or reading.nbytes >= self.setting.batch_bytes // 2
                if reading.has_batch and is_full:
                    return []
                idle = self._silent()
                if self._commit is None and (idle or self._ticks() or self._has_to_begin()):
                    return idle
            await poked(self._wake, STREAMS_TICK_MS / 1_000)

    def _raise_errors(self, reading: Reading) -> None:
        """Raise what ended a lane. What the group has committed is not lost: a new owner has read and trimmed it."""
        try:
            reading.raise_errors()
        except DataLost as lost:
            for (topic, partition), lane in reading.lanes.items():
                known = committed(self.setting.namespace.state, self.job.name, topic, partition)
                if lane.error is lost and known is not None and known.offset > lane.position:
                    raise Fenced(f"Somebody else has read topic {topic!r}, partition {partition} on.") from lost
            raise

    def _is_paused(self) -> bool:
        return self.setting.paused or is_paused(self.setting.namespace.state, self.job.changelog)

    def _has_to_begin(self) -> bool:
        """Whether the first step is due without input: there are sources that will never bring any, or the run ends,
        and then time has to pass once in each task.
        """
        assert self.computer is not None
        return bool(self.computer.absent or self.computer.anchors) or (
            self.setting.limits is not None and not self.looked
        )

    def _ticks(self) -> bool:
        """Whether it is time for wall-clock timers."""
        now_s = self.setting.clock.elapsed_s()
        if not self._has_timers or now_s < self._ticked_s + STREAMS_TICK_MS / 1_000:
            return False
        self._ticked_s = now_s
        return True

    def _silent(self) -> list[str]:
        """Sources that have just become silent for as long as they say."""
        assert self.computer is not None
        assert self.reading is not None
        now_s, found = self.setting.clock.elapsed_s(), []
        for topic, names in self.job.sources.items():
            lane = self.reading.lanes.get((topic, self.number))
            if lane is None or not lane.is_at_end:
                continue
            for name in names:
                node = self.job.nodes[name]
                assert isinstance(node, Source), name
                if node.idle < 0 or name in self.computer.idle or node.kind != "stream":
                    continue
                if now_s - self._quiet_s[name] >= node.idle / 1_000:
                    found.append(name)
        return found

    # -- committing ------------------------------------------------------------------------------------

    def _send(self, computed: Computed) -> None:
        """Commit a step in the background; ``_settled`` brings what became of it."""
        partition, batches = self.number, computed.batches
        changes: list[ops.AnyOp] = [self._fenced_offsets(computed.offsets, computed.due_ms, batches)]
        for topic, nbytes in self._trimmed.items():
            if nbytes >= STREAMS_TRIM_BYTES:
                before = computed.offsets[topic, partition]
                changes.append(ops.TrimLog(topic=self.job.topics[topic].id, partition=partition, before=before))
                self._trimmed[topic] = 0
        self._weight.add(computed.changelog_bytes)
        if self._account.is_due(self.setting.clock.elapsed_s()):
            changes.append(self._tell())
        else:
            self._account.owes(self.setting.clock.elapsed_s())
        self._begin(self._timed(appends_of(self.job, batches), changes))

    def _send_figures(self) -> None:
        """What is owed, by a commit that is no micro-batch's and so counts as none."""
        assert self.computer is not None
        fence = self._fenced_offsets(self.computer.offsets, self.computer.due_ms())
        self._begin(settle(self.setting.namespace, (), [fence, self._tell()]))

    def _begin(self, commit: Coroutine[Any, Any, Outcome]) -> None:
        name = f"streams-commit-{self.job.name}-{self.number}"
        self._commit = asyncio.get_running_loop().create_task(commit, name=name)
        self._commit.add_done_callback(lambda done: self._wake.set())

    def _tell(self) -> ops.AlterTopic:
        """What there is to know of this task from outside, in the job's own state. Nobody computes meanwhile."""
        assert self.computer is not None
        clock, task = self.setting.clock, self.computer.task
        told = self._account.told(task.flows, task.sizes(), clock.elapsed_s(), clock.wall_ms())
        return ops.AlterTopic(topic=self.job.topics[self.job.changelog].id, config={figures_key(self.number): told})

    async def _timed(self, appends: Sequence[Append], changes: Sequence[ops.AnyOp]) -> Outcome:
        began_s = self.setting.clock.elapsed_s()
        outcome = await settle(self.setting.namespace, appends, changes)
        seconds = self.setting.clock.elapsed_s() - began_s
        self.counts.commit_s.append(seconds)
        self.setting.figures.committed(seconds)
        self.counts.commits += 1
        return outcome

    def _fenced_offsets(
        self, offsets: dict[tuple[str, int], int], due_ms: int, batches: Sequence[tuple[str, int, Batch]] = ()
    ) -> ops.CommitOffsets:
        """Always with the changelog's own offset, so that a step without input is fenced, too.

        It is the changelog's end with ``batches`` in it, since nobody else writes there: a job is never behind its own
        state. Its metadata say when time alone makes something due, for a run that ends and may not have to begin.
        """
        now = self.setting.namespace.state.partition(self.job.topics[self.job.changelog].id, self.number)
        written = sum(made.count for topic, _, made in batches if topic == self.job.changelog)
        places = {**offsets, (self.job.changelog, self.number): written + (now.next if now is not None else 0)}
        return offsets_op(self.job, self.fence, places, metadata=str(due_ms))

    async def _settled(self) -> None:
        """Return when no commit is in flight. Raises what it was refused with."""
        if self._commit is None:
            return
        # A worker that is cancelled leaves the group before anybody else goes on.
        commit, self._commit = self._commit, None
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            self._commit = commit
            raise
        self._news()

    async def _snapshot(self) -> None:
        """Write all state anew, and trim the changelog to it once all of it is committed."""
        assert self.computer is not None
        pieces = self.computer.pieces()
        base = -1
        total = 0
        # The topology comes before what it has made, so that who cannot follow it hears so first.
        lines, is_last = [changelog.begin_line(), changelog.topology_line(self.job.plan.document())], False
        while not is_last:
            async with self.lock:
                is_last = await self.setting.offload(_fill, lines, pieces)
                if is_last:
                    lines += [changelog.end_line(), changelog.progress_line(self.computer.progress())]
            outcome = await self._commit_lines(lines)
            base = outcome.bases[0] if base < 0 else base
            total += changelog.size_of(lines)
            lines = []
        trim = ops.TrimLog(topic=self.job.topics[self.job.changelog].id, partition=self.number, before=base)
        await settle(
            self.setting.namespace, (), [self._fenced_offsets(self.computer.offsets, self.computer.due_ms()), trim]
        )
        self._weight.snapshot_is(total)
        self.counts.snapshots += 1

    async def _commit_lines(self, lines: Sequence[Line]) -> Outcome:
        assert self.computer is not None
        made = changelog.batches_of(lines, self.setting.clock.wall_ms())
        batches = [(self.job.changelog, self.number, each) for each in made]
        offsets = self._fenced_offsets(self.computer.offsets, self.computer.due_ms(), batches)
        return await settle(self.setting.namespace, appends_of(self.job, batches), [offsets])


def _traced(span: Any, taken: Sequence[Taken], computed: Computed) -> None:
    """What a step was about: where its records come from, and who sent them."""
    topics = sorted({part.topic for part in taken})
    if len(topics) == 1:
        span.update_name(f"process {topics[0]}")
        span.set_attribute("messaging.destination.name", topics[0])
    if len(taken) == 1:
        span.set_attribute("messaging.destination.partition.id", str(taken[0].partition))
        span.set_attribute("messaging.headwater.offset", taken[0].start)
    span.set_attribute("messaging.batch.message_count", computed.records)
    for link in computed.links:
        span.add_link(link.context)


def _fill(lines: list[Line], pieces: Iterator[Line]) -> bool:
    """Add pieces up to what one intent carries. Whether there are no more."""
    size = 0
    for piece in pieces:
        lines.append(piece)
        size += len(piece.value)
        if size >= STREAMS_SNAPSHOT_BYTES:
            return False
    return True


def check_lost(lost: str) -> str:
    """What to do about records that retention took first. Raises ``InvalidRequest``."""
    if lost not in ("raise", "skip"):
        raise InvalidRequest(f"lost is 'raise' or 'skip', not {lost!r}.")
    return lost
