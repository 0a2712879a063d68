"""A task's state from its changelog: one scan from the log's start, or from where a standby copy has come to.

Whoever owns the partition reads a log that nobody else appends to: its end does not move while it is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater.errors import NotFound, OffsetOutOfRange
from headwater.log.chunk import Chunk
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.state import State
from headwater.streams.failures import IncompatibleTopology
from headwater.streams.runner.changelog import Copy
from headwater.streams.runner.job import Job
from headwater.streams.task import Task
from headwater.upkeep.offload import Offload

STEP_BYTES = 8 << 20  # of a changelog, applied at once: the loop is free in between


@dataclass(slots=True, kw_only=True)
class Making:
    """How tasks of a job are made and let go. ``spill`` is a folder of this worker alone, or empty."""

    job: Job
    spill: str = ""
    memory_max: int = 0
    _folders: dict[int, str] = field(default_factory=dict)
    _made: int = 0

    def task(self, number: int) -> Task:
        """An empty task."""
        folder = ""
        if self.spill:
            self._made += 1
            folder = f"{self.spill}/{number}-{self._made}"
            Path(folder).mkdir(parents=True, exist_ok=True)
        task = Task(
            self.job.nodes,
            number,
            tasks=self.job.tasks,
            spill=folder,
            memory_max=self.memory_max,
            dead_letters=bool(self.job.dead_letters),
        )
        self._folders[id(task)] = folder
        return task

    def maker(self, number: int) -> Callable[[], Task]:
        """``task(number)``, to be called whenever an empty one is needed."""
        return lambda: self.task(number)

    def discard(self, task: Task) -> None:
        """Let go of a task and of what it has spilled: the changelog has it."""
        task.close()
        folder = self._folders.pop(id(task), "")
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


async def restore(namespace: Namespace, making: Making, number: int, copy: Copy | None, *, offload: Offload) -> Copy:
    """The state of a task as of now. ``copy`` is a standby's; if the log has left it behind it is of no use.

    Raises ``IncompatibleTopology``. Cost: 1 GET, and the changelog behind ``copy``, or all of it.
    """
    job = making.job
    while True:
        await namespace.refresh()
        _, place = namespace.reader.place(job.changelog, number)
        if copy is not None and copy.position < place.start:
            making.discard(copy.task)
            copy = None
        if copy is None:
            copy = new_copy(making, number, place.start)
        try:
            await read_on(namespace, job, number, copy, place.stable_end, offload=offload)
        except OffsetOutOfRange:
            continue  # it was trimmed under us: by a reset, or while this was a standby
        return copy


def new_copy(making: Making, number: int, start: int) -> Copy:
    """An empty copy of a task, which refuses state of a topology that ours cannot follow."""
    return Copy(making.maker(number), start, check=lambda document: check_compatible(making.job, document))


async def read_on(
    namespace: Namespace, job: Job, number: int, copy: Copy, end: int, *, offload: Offload, wait_ms: float = 0
) -> None:
    """Bring ``copy`` up to ``end`` at least, if the log reaches that far."""
    while copy.position < end:
        fetched = await namespace.reader.fetch(
            job.changelog, number, copy.position, bytes_max=STEP_BYTES, wait_ms=wait_ms, fresh=False
        )
        if not fetched.chunks and fetched.next_offset <= copy.position:
            return
        await apply(copy, fetched.chunks, offload=offload)
        copy.position = max(copy.position, fetched.next_offset)


async def apply(copy: Copy, chunks: list[Chunk], *, offload: Offload) -> None:
    """Apply chunks of the changelog."""

    def work() -> None:
        for chunk in chunks:
            copy.take(chunk.decode())

    await offload(work)


def check_compatible(job: Job, document: Mapping[str, Any]) -> None:
    """Refuse state that was made by a topology which this one cannot follow. Raises ``IncompatibleTopology``."""
    reasons = job.plan.incompatible(document)
    if reasons:
        raise IncompatibleTopology(
            f"The state of job {job.name!r} was made by another topology: {'; '.join(reasons)}.", job=job.name
        )


async def read_as_of(namespace: Namespace, topic: str, partition: int, state: State) -> list[pa.RecordBatch]:
    """All records of a partition as they were at an earlier commit. Raises ``NotFound`` if they were collected."""
    _, place = namespace.reader.place(topic, partition, state)
    return await read_range(namespace, topic, partition, place.start, place.stable_end, state)


async def read_range(
    namespace: Namespace, topic: str, partition: int, start: int, end: int, state: State
) -> list[pa.RecordBatch]:
    """Records ``[start, end)`` as of an earlier commit."""
    from headwater.log import batch

    found, position = [], start
    while position < end:
        fetched = await namespace.reader.fetch(topic, partition, position, bytes_max=STEP_BYTES, state=state)
        for chunk in fetched.chunks:
            placed = batch.slice_from(chunk.decode(), position)
            found.append(placed.slice(0, max(0, end - position)) if chunk.end > end else placed)
        if fetched.next_offset <= position:
            break
        position = fetched.next_offset
    return found


async def restore_as_of(namespace: Namespace, making: Making, number: int, commit: int, *, offload: Offload) -> Task:
    """A task with the state of an earlier commit, for questions only.

    Raises ``NotFound``: the commit's history was collected, or the job did not exist then. Cost: the changelog.
    """
    state = await state_at(namespace.chain, commit)
    if state.named(making.job.changelog) is None:
        raise NotFound(f"Job {making.job.name!r} did not exist at commit {commit}.")
    _, place = namespace.reader.place(making.job.changelog, number, state)
    copy = new_copy(making, number, place.start)
    for placed in await read_as_of(namespace, making.job.changelog, number, state):
        await offload(copy.take, placed)
    await offload(copy.task.restored, copy.progress)
    return copy.task
