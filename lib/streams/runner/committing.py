"""From a step to one intent: what it appends, where, and how the intent is brought to a known end.

Encoding is CPU work and may run in a thread. Committing is not: it ends only with an outcome. An unknown one is asked
for again under its token; until it is known nobody may build on the task's state, and nobody may make it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pyarrow as pa

from headwater import tracing
from headwater.client.backoff import Backoff
from headwater.errors import Indeterminate, StorageFull, Throttled, Unavailable
from headwater.limits import STREAMS_APPEND_BYTES, WINDOW
from headwater.log import batch
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.queue import parse_token
from headwater.log.state import Outcome
from headwater.log.writer import Append
from headwater.streams.frames import KEY, NEVER, OFFSET, TIME
from headwater.streams.model import Repartition, Sink
from headwater.streams.runner.job import Job
from headwater.streams.serde.dead import dead_rows
from headwater.streams.serde.encode import encode_by_partition
from headwater.streams.serde.keys import key_array
from headwater.streams.serde.packing import pack
from headwater.streams.serde.records import parted, records_of
from headwater.streams.task import Mark, Step

if TYPE_CHECKING:
    from headwater.types import Batch

Places = dict[tuple[str, int], "list[pa.RecordBatch]"]
_UNHEARD = Mark(NEVER, False)


@dataclass(slots=True)
class Output:
    """Batches by place, in order, ready to be appended."""

    batches: list[tuple[str, int, Batch]] = field(default_factory=list)
    rows: int = 0

    @property
    def nbytes(self) -> int:
        """Encoded bytes."""
        return sum(len(made.data) for _, _, made in self.batches)


def encode_step(
    job: Job,
    number: int,
    step: Step,
    told: dict[str, Mark],
    dead: Sequence[pa.RecordBatch],
    *,
    time_ms: int,
    carries: Sequence[tuple[str, bytes]] = (),
) -> Output:
    """What a step appends to sinks, repartition topics and dead letters. ``told`` are the marks that were sent.

    Records without headers, of sinks and of repartition topics, get ``carries`` as theirs.
    """
    places: Places = {}
    for node, frames in step.sinks.items():
        _to_sink(job, number, node, frames, places)
    for node in step.marks:
        _to_repartition(job, number, node, step, told, places, time_ms)
    if carries:
        places = {place: [_carrying(part, carries) for part in parts] for place, parts in places.items()}
    for records in [*dead, *_refused(job, number, step, time_ms)]:
        places.setdefault((job.dead_letters, number % job.count(job.dead_letters)), []).append(records)
    output = Output()
    for (topic, partition), parts in places.items():
        for part in parts:
            output.rows += part.num_rows
            output.batches += [(topic, partition, made) for made in encoded(part)]
    return output


def _carrying(records: pa.RecordBatch, carries: Sequence[tuple[str, bytes]]) -> pa.RecordBatch:
    at = records.schema.get_field_index("headers")
    made = tracing.header_column(records.num_rows, carries, records.schema.field(at).type)
    return records.set_column(at, records.schema.field(at), made)


def encoded(records: pa.RecordBatch) -> Iterable[Batch]:
    """Records as batches, none of which is too large."""
    rows = max(1, records.num_rows * STREAMS_APPEND_BYTES // max(records.nbytes, 1))
    for start in range(0, records.num_rows, rows):
        yield batch.encode_arrow(records.slice(start, rows), compression="lz4")


def _to_sink(job: Job, number: int, name: str, frames: Sequence[pl.DataFrame], places: Places) -> None:
    node = job.nodes[name]
    assert isinstance(node, Sink), name
    count = job.count(node.topic)
    frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical")
    for partition, records in encode_by_partition(node, frame, count, number % count):
        if records.num_rows:
            places.setdefault((node.topic, partition), []).append(records)


def _to_repartition(
    job: Job, number: int, name: str, step: Step, told: dict[str, Mark], places: Places, time_ms: int
) -> None:
    """Rows to where their key lies, and the mark to everyone if it is news."""
    mark, frames = step.marks[name], step.repartitions.get(name, [])
    is_news = mark != told.get(name, _UNHEARD)
    parts: Mapping[int, pl.DataFrame] = {}
    topic = job.plan.repartitions[name]
    if frames:
        frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical")
        frame = frame.drop(KEY, OFFSET, strict=False)  # they say nothing on the other side
        node = job.nodes[name]
        assert isinstance(node, Repartition), name
        parts = parted(frame, key_array(frame, node.by), job.tasks)
    said = {"task": number, "wm": mark.watermark, "idle": mark.idle}
    for partition in range(job.tasks) if is_news else sorted(parts):
        values = pack(parts[partition]) if partition in parts else [None]
        newest = parts[partition].get_column(TIME).max() if partition in parts else None
        # Only the last record of a frame that was cut up says how far time has come: it holds after all of them.
        keys = [msgspec.json.encode({**said, "wm": None, "idle": False})] * (len(values) - 1)
        at = max(newest if isinstance(newest, int) else time_ms, 0)
        records = records_of(
            at, pa.array([*keys, msgspec.json.encode(said)], pa.binary()), pa.array(values, pa.binary())
        )
        places.setdefault((topic, partition), []).append(records)
    told[name] = mark


def _refused(job: Job, number: int, step: Step, time_ms: int) -> list[pa.RecordBatch]:
    return [dead_rows(job.name, node, number, frame, time_ms) for node, frame in step.failed]


# -- the commit ----------------------------------------------------------------------------------------


class Forgotten(Exception):
    """The outcome of a commit can no longer be learned, but it is decided: the state is what the changelog says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """In whose name a task commits: refused once another member owns its partitions."""

    group: str
    member: str
    generation: int


def offsets_op(
    job: Job, fence: Fence, offsets: Mapping[tuple[str, int], int], *, metadata: str = ""
) -> ops.CommitOffsets:
    """The operation that moves a task's offsets, and that is refused if the task is not ours any more.

    ``metadata`` goes with the changelog's.
    """
    entries = [
        ops.OffsetEntry(job.topics[topic].id, partition, offset, metadata if topic == job.changelog else "")
        for (topic, partition), offset in offsets.items()
    ]
    return ops.CommitOffsets(group=fence.group, offsets=entries, generation=fence.generation, member=fence.member)


def appends_of(job: Job, batches: Iterable[tuple[str, int, Batch]]) -> list[Append]:
    """Batches by topic id, so that none ever lands in a namesake."""
    return [Append(topic=job.topics[topic].id, partition=partition, batch=made) for topic, partition, made in batches]


async def settle(namespace: Namespace, appends: Sequence[Append], changes: Sequence[ops.AnyOp]) -> Outcome:
    """Commit, and come back only when it is known what became of it.

    Raises:
        Fenced, UnknownMember: the task is somebody else's now. Not applied: throw it away.
        Forgotten: decided, nobody knows how. Throw the task away and read its changelog.
        StorageFull, NotFound, InvalidRequest, …: not applied, and no retry helps.
    """
    chain = namespace.chain
    backoff, token = Backoff(chain.clock, chain.rng), ""
    while True:
        try:
            return await namespace.writer.commit(appends, changes, token=token)
        except Indeterminate as error:
            token = error.token or token
            if token and _is_void(namespace, token):
                raise Forgotten(str(error)) from error
            await chain.clock.sleep(backoff.next_s(error))
        except StorageFull:
            raise
        except (Throttled, Unavailable) as error:
            token = ""  # not applied, so a new attempt is a new intent
            await chain.clock.sleep(backoff.next_s(error))


def _is_void(namespace: Namespace, token: str) -> bool:
    """Whether the intent's window is over, so that it takes no effect any more (R4)."""
    return parse_token(token)[1] + WINDOW <= namespace.state.seq
