"""Compaction: of every key the latest record stays (cleanup.policy=compact), with Kafka's meaning of every config.

It works on the archive only: the hot part is what Kafka calls the active segment. Of a partition

    [start ──────── clean) [clean ──────── dirty end) [young) [hot)
     compacted before        to be compacted now       min.compaction.lag.ms

the keys of the dirty section go into a map of their latest offsets (``Latest``), as many as fit the memory; then every
file from the log start on loses the records that the map supersedes, and the dirty ones what is not the latest of its
key. A file that loses nothing stays as it is. Offsets never change, and the range of a file grows over what vanished.

Order is what makes it safe. Older files are swapped first, the dirty ones last, and the mark ``clean`` moves with
them: so whatever crashes, a record below ``clean`` has no older one of its key before it. Only therefore may a
tombstone go, ``delete.retention.ms`` after its file was first compacted (``File.cleaned_ms``): nothing is left that it
hides. Two compactors at once are harmless: records only vanish, those that vanish are superseded by records that
both keep, and a swap names what it replaces, so one of the two is refused and deletes its own files.

One thing differs from Kafka: its cleaner drops records without a key, which it refuses at produce time anyway. Here
they are kept, since they supersede nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.errors import Conflict, Corrupt, InvalidRequest, NotFound
from headwater.limits import COMPACT_MEMORY_BYTES
from headwater.log.config import TopicConfig
from headwater.log.namespace import Namespace
from headwater.log.operations import File, FilePage
from headwater.log.reader import LOOK_AGAIN_MAX
from headwater.log.state import Partition, State
from headwater.types import Progress
from headwater.upkeep.cleaner import Cleaner, Totals
from headwater.upkeep.offload import Offload, in_thread

NEVER_MS = 1 << 62  # a max.compaction.lag.ms of this or more is none
TRIES_MAX = 4  # of one partition in one run, while others are faster


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport:
    """What a run did. ``files`` counts those that were read and written anew, ``swaps`` commits.

    ``partitions`` are those that are clean now, ``lost`` those where others were faster time and again; ``left`` says
    that the time was over before the work was. ``next_due_ms`` is when the next thing falls due if nothing is
    committed until then; None for never.
    """

    partitions: int = 0
    files: int = 0
    swaps: int = 0
    records: int = 0  # in the files that were read
    dropped: int = 0  # of them, because a later one of their key follows
    tombstones: int = 0  # of them, because their time was over
    bytes_read: int = 0
    bytes_written: int = 0
    lost: int = 0
    left: bool = False
    next_due_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    topic: int
    number: int
    config: TopicConfig


@dataclass(slots=True)
class _Measured:
    """How dirty a partition is, and until when it may stay so."""

    clean_bytes: int = 0
    dirty_bytes: int = 0
    dirty_end: int = 0
    oldest_ms: int = NEVER_MS  # of the dirty section
    due: list[int] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return self.dirty_bytes / max(self.dirty_bytes + self.clean_bytes, 1)


async def compact(
    namespace: Namespace,
    *,
    offload: Offload = in_thread,
    progress: Progress | None = None,
    memory_bytes_max: int = COMPACT_MEMORY_BYTES,
    deadline_s: float | None = None,
    now_ms: int | None = None,
) -> CompactionReport:
    """Compact every partition that its topic's configs call for, the dirtiest first. A second call finds nothing to do.

    A partition is due when more than ``min.cleanable.dirty.ratio`` of its archived bytes are dirty, or when its oldest
    dirty record is older than ``max.compaction.lag.ms``. ``deadline_s`` is on the clock's ``elapsed_s``.

    Raises:
        Unavailable, Indeterminate: the store is down. What was swapped is swapped; run it again.
        Corrupt: an archive file is damaged. Its partition stays as it is; the others are compacted first.

    Cost: 1 GET while nothing is due. Else each dirty file twice (keys, then all of it) and the keys of each older one;
    what is written is what lost something. Memory: about twice ``memory_bytes_max``, and two files.
    """
    await namespace.refresh()
    cleaner = Cleaner(namespace, offload, progress, memory_bytes_max, deadline_s, now_ms)
    due: list[int] = []
    found: list[tuple[float, int, _Place]] = []
    for place in _places(namespace.state):
        measured = await _looked_at(namespace, place, cleaner.now_ms())
        if _is_due(place.config, measured, cleaner.now_ms()):
            found.append((-measured.ratio, len(found), place))
        else:
            due += measured.due
    outcomes: list[str] = []
    damaged: Corrupt | None = None
    for _, _, place in sorted(found):
        if cleaner.late:
            outcomes.append("left")
            break
        try:
            outcomes.append(await _compact(cleaner, place))
        except Corrupt as error:
            damaged = damaged or error  # the other partitions need not suffer for it
            continue
        if outcomes[-1] == "lost":
            due.append(cleaner.now_ms())
        due += (await _looked_at(namespace, place, cleaner.now_ms())).due
    if damaged is not None:
        raise damaged
    return _report(cleaner.totals, outcomes, min(due, default=None))


def _report(totals: Totals, outcomes: list[str], next_due_ms: int | None) -> CompactionReport:
    return CompactionReport(
        partitions=outcomes.count("done"),
        files=totals.files,
        swaps=totals.swaps,
        records=totals.counts.records,
        dropped=totals.counts.dropped,
        tombstones=totals.counts.tombstones,
        bytes_read=totals.bytes_read,
        bytes_written=totals.bytes_written,
        lost=outcomes.count("lost"),
        left="left" in outcomes,
        next_due_ms=next_due_ms,
    )


async def _compact(cleaner: Cleaner, place: _Place) -> str:
    """Part after part of the dirty section, until it is clean: ``done``, ``left``, or ``lost`` to others."""
    namespace = cleaner.namespace
    for _ in range(TRIES_MAX):
        try:
            while not cleaner.late:
                measured = await _looked_at(namespace, place, cleaner.now_ms())
                if not measured.dirty_bytes:
                    return "done"
                await cleaner.clean(place.topic, place.number, place.config, measured.dirty_end)
            return "left"
        except (Conflict, NotFound):
            # Others were faster, or a file vanished because they were (R6): look again at what is there now.
            await namespace.refresh()
        except InvalidRequest as error:
            if error.data.get("reason") != "too_many":
                raise
            break  # the partition lists as many files as it may: the archiver will move some to a page
    return "lost"


# -- what is due ----------------------------------------------------------------------------------------


def _places(state: State) -> list[_Place]:
    found = []
    for topic in state.topics.values():
        config = TopicConfig.of(topic.config)
        if config.compact:
            found += [
                _Place(topic.id, number, config)
                for number, partition in enumerate(topic.partitions)
                if max(clean_of(partition), partition.start) < partition.archived
            ]
    return found


def clean_of(partition: Partition) -> int:
    """Offsets below this were compacted."""
    return 0 if partition.archive is None else partition.archive.clean


def _is_due(config: TopicConfig, measured: _Measured, now_ms: int) -> bool:
    if not measured.dirty_bytes:
        return False
    return (
        measured.ratio > config.min_cleanable_dirty_ratio or now_ms - measured.oldest_ms > config.max_compaction_lag_ms
    )


async def _looked_at(namespace: Namespace, place: _Place, now_ms: int) -> _Measured:
    """How dirty the partition is, from a fresh look if a list of files has vanished meanwhile (R6)."""
    for _ in range(LOOK_AGAIN_MAX):
        try:
            return await _measured(namespace, place, now_ms)
        except NotFound:
            await namespace.refresh()
    return await _measured(namespace, place, now_ms)


async def _measured(namespace: Namespace, place: _Place, now_ms: int) -> _Measured:
    """How dirty the partition is. Cost: nothing, or 1 GET for each list of files in the dirty section."""
    found = _Measured()
    partition = namespace.state.partition(place.topic, place.number)
    if partition is None or partition.archive is None:
        return found
    archive, clean = partition.archive, max(partition.archive.clean, partition.start)
    listed: list[FilePage | File] = [*archive.pages, *archive.files]
    for item in listed:
        if item.end <= clean:
            found.clean_bytes += item.bytes
            continue
        files = await namespace.lookup.listed(item) if isinstance(item, FilePage) else [item]
        for file in files:
            if file.end <= clean:
                found.clean_bytes += file.bytes if file.end > partition.start else 0
            elif not _measure(found, file, place.config, now_ms):
                return found
    return found


def _measure(found: _Measured, file: File, config: TopicConfig, now_ms: int) -> bool:
    """Count a file above the mark. False if it is too young, and with it all that follows, as in Kafka."""
    if config.min_compaction_lag_ms and file.max > now_ms - config.min_compaction_lag_ms:
        found.due.append(file.max + config.min_compaction_lag_ms)
        return False
    found.dirty_bytes += file.bytes
    found.dirty_end = file.end
    found.oldest_ms = min(found.oldest_ms, file.min)
    if config.max_compaction_lag_ms < NEVER_MS:
        found.due.append(file.min + config.max_compaction_lag_ms + 1)
    return True
