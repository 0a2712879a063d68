"""Retention: the log start moves past what ``retention.ms`` and ``retention.bytes`` no longer keep.

Kafka's rule for segments, with chunks and archive files in their place: only whole ones go, from the oldest on, up
to the first that is still to be kept, and never what readers cannot see yet. One goes by time when its newest record
is older than ``retention.ms``; so, as in Kafka, a record with a timestamp in the future keeps what lies behind it
until then, unless ``retention.bytes`` or ``Namespace.trim`` move the log start past it. By size the oldest goes while
what remains is still at least ``retention.bytes``. Time is the store's, or the newest manifest's if that is later (R7).

All of it is a ``TrimLog`` for each partition; the bytes go by collection, once history no longer reaches them. Doing it
twice, or in two processes, trims once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial

from headwater.errors import Indeterminate, NotFound
from headwater.limits import READS_MAX
from headwater.log import keys
from headwater.log.config import FOREVER, TopicConfig
from headwater.log.namespace import Namespace
from headwater.log.operations import AnyOp, File, FilePage, TrimLog
from headwater.log.reader import LOOK_AGAIN_MAX
from headwater.log.state import Entry, Partition, State
from headwater.log.together import together

TRIMS_MAX = 1_000  # partitions trimmed by one commit: about 50 KB of a manifest
TRIES_MAX = 4  # of one commit, while topics vanish under it or the store falls silent


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionReport:
    """What a run did. ``offsets`` counts those that are now below a log start, ``bytes`` what was stored for them.

    ``next_due_ms`` is when the next thing falls due if nothing is committed until then; None for never.
    """

    looked_at: int = 0
    trimmed: int = 0
    offsets: int = 0
    bytes: int = 0
    next_due_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A partition whose topic deletes old records."""

    topic: int
    number: int
    config: TopicConfig


@dataclass(slots=True)
class _Cut:
    """Where the log of one partition is to start: at ``before``, ``bytes`` further on."""

    place: _Place
    start: int
    before: int
    bytes: int = 0
    next_due_ms: int | None = None

    @property
    def op(self) -> TrimLog:
        return TrimLog(topic=self.place.topic, partition=self.place.number, before=self.before)


async def retain(namespace: Namespace, *, now_ms: int | None = None) -> RetentionReport:
    """Trim every partition of a topic with cleanup.policy ``delete`` to what its configs keep.

    Raises:
        Unavailable, Indeterminate: the store is down. What was trimmed is trimmed; run it again.

    Cost: 1 GET, and nothing else while the state shows that nothing is due. Else 1 GET for the store's time, the first
    files or chunks of the partitions in question, 1 GET for each page that lists them; with ``retention.bytes`` the
    index of the hot part. 1 commit for up to 1,000 partitions. Memory: that of the lookup.
    """
    state, given = await namespace.refresh(), now_ms is not None
    now_ms = max(state.time_ms, namespace.chain.clock.wall_ms()) if now_ms is None else now_ms
    places = list(_places(state))
    report = _Sum(looked_at=len(places))
    due: list[_Place] = []
    for place in places:
        when = _due_ms(state, place)
        if when is not None and when <= now_ms:
            due.append(place)
        else:
            report.note_due(when)
    if due and not given:
        now_ms = await _store_ms(namespace, now_ms)
    cuts: list[_Cut] = []
    for at in range(0, len(due), READS_MAX):
        found = await together(*(_planned(namespace, place, now_ms) for place in due[at : at + READS_MAX]))
        for cut in found:
            report.note_due(cut.next_due_ms)
        cuts += [cut for cut in found if cut.before > cut.start]
        if len(cuts) >= TRIMS_MAX:
            report.note_done(await _commit(namespace, cuts[:TRIMS_MAX]))
            cuts = cuts[TRIMS_MAX:]
    report.note_done(await _commit(namespace, cuts))
    return report.done()


async def _store_ms(namespace: Namespace, now_ms: int) -> int:
    """The store's time, or that of the newest manifest: a clock of ours that is days fast must not delete anything.

    ``now_ms`` if neither object is there that would tell. Cost: 1 or 2 GETs of a byte.
    """
    chain = namespace.chain
    for key in (keys.manifest_key(chain.state.seq), keys.LATEST):
        try:
            blob = await chain.retry(partial(namespace.store.get, key, end=1))
            return max(chain.state.time_ms, blob.stat.date_ms)
        except NotFound:
            continue
    return now_ms


def next_due_ms(state: State) -> int | None:
    """When something may fall due by time, as far as the state alone can say: never too late, perhaps too early.

    None if nothing ever does. What falls due by size does so by a commit.
    """
    found = [_due_ms(state, place) for place in _places(state)]
    return min((when for when in found if when is not None), default=None)


def _places(state: State) -> Iterator[_Place]:
    """Partitions that retention may concern, in the order of their ids."""
    for topic in state.topics.values():
        config = TopicConfig.of(topic.config)
        if not config.delete or (config.retention_ms == FOREVER and config.retention_bytes == FOREVER):
            continue
        for number, partition in enumerate(topic.partitions):
            if partition.start < partition.stable_end:
                yield _Place(topic.id, number, config)


def _due_ms(state: State, place: _Place) -> int | None:
    """When to look at the partition more closely: 0 for now, since its size may be too large."""
    partition, config = state.partition(place.topic, place.number), place.config
    assert partition is not None, "places are those of this state"
    if config.retention_bytes != FOREVER and bytes_at_most(partition) > config.retention_bytes:
        return 0
    if config.retention_ms == FOREVER:
        return None
    first = _first(partition)
    return 0 if first is None else first + config.retention_ms + 1


def bytes_at_most(partition: Partition) -> int:
    """Stored bytes of the partition, or more: those of the hot part may be known to index pages alone."""
    hot = [entry for entry in partition.tail if entry.end > partition.hot]
    is_whole = sum(entry.count for entry in hot) >= partition.stable_end - partition.hot
    known = sum(entry.len for entry in hot) if is_whole else partition.bytes
    return known + sum(item.bytes for item in _listed(partition)) + sum(held.entry.len for held in partition.held)


def _first(partition: Partition) -> int | None:
    """When the newest record of the oldest chunk or file was written, or a time before that. None if unknown."""
    for item in _listed(partition):
        # Of a page's first file no more is known than that it holds nothing older than the page's oldest record.
        return item.min if isinstance(item, FilePage) else item.max
    for entry in partition.tail:
        if entry.base <= partition.hot < entry.end:
            return entry.max
    return None


def _listed(partition: Partition) -> list[FilePage | File]:
    archive = partition.archive
    return [] if archive is None else [*archive.pages, *archive.files]


# -- one partition --------------------------------------------------------------------------------------


async def _planned(namespace: Namespace, place: _Place, now_ms: int) -> _Cut:
    """Where the log is to start, from a fresh look if lists of files or chunks vanish meanwhile (R6)."""
    for _ in range(LOOK_AGAIN_MAX):
        try:
            return await _plan(namespace, place, now_ms)
        except NotFound:
            await namespace.chain.refresh()
    return await _plan(namespace, place, now_ms)


async def _plan(namespace: Namespace, place: _Place, now_ms: int) -> _Cut:
    partition = namespace.state.partition(place.topic, place.number)
    if partition is None:
        return _Cut(place, 0, 0)
    config, stable_end = place.config, partition.stable_end
    cut = _Cut(place, partition.start, partition.start)
    # What may go by size: as much as lies above ``retention.bytes``.
    spare = -1
    if config.retention_bytes != FOREVER and bytes_at_most(partition) > config.retention_bytes:
        spare = await _stored_bytes(namespace, place) - config.retention_bytes
    async for unit in _units(namespace, place):
        if unit.end > stable_end:
            break  # nobody may read it yet
        if unit.base > cut.before:
            cut.next_due_ms = now_ms  # the archive has grown between two looks: the next run goes on
            break
        old_ms = unit.max + config.retention_ms + 1
        is_old = config.retention_ms != FOREVER and old_ms <= now_ms
        if not is_old and spare < _size(unit):
            cut.next_due_ms = None if config.retention_ms == FOREVER else old_ms
            break
        cut.before = unit.end
        cut.bytes += _size(unit)
        spare -= _size(unit)
    return cut


async def _units(namespace: Namespace, place: _Place) -> AsyncIterator[File | Entry]:
    """Files, then chunks, in offset order. Lists and index pages are opened when the iteration reaches them."""
    async for file in namespace.lookup.files(place.topic, place.number, 0):
        yield file
    partition = namespace.state.partition(place.topic, place.number)
    async for entry in namespace.lookup.entries(place.topic, place.number, partition.hot if partition else 0):
        yield entry


async def _stored_bytes(namespace: Namespace, place: _Place) -> int:
    """Stored bytes of everything that is not below the log start; reserved ranges count too, as in Kafka."""
    partition = namespace.state.partition(place.topic, place.number)
    if partition is None:
        return 0
    total, start = sum(held.entry.len for held in partition.held), partition.start
    for item in _listed(partition):
        if isinstance(item, FilePage) and item.base < start:
            total += sum(file.bytes for file in await namespace.lookup.listed(item) if file.end > start)
        else:
            total += item.bytes
    async for entry in namespace.lookup.entries(place.topic, place.number, partition.hot):
        total += entry.len
    return total


def _size(unit: File | Entry) -> int:
    return unit.bytes if isinstance(unit, File) else unit.len


# -- what is done ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sum:
    looked_at: int = 0
    cuts: list[int] = field(default_factory=lambda: [0, 0, 0])
    next_due_ms: int | None = None

    def note_due(self, when: int | None) -> None:
        if when is not None:
            self.next_due_ms = when if self.next_due_ms is None else min(self.next_due_ms, when)

    def note_done(self, cuts: list[_Cut]) -> None:
        self.cuts[0] += len(cuts)
        self.cuts[1] += sum(cut.before - cut.start for cut in cuts)
        self.cuts[2] += sum(cut.bytes for cut in cuts)

    def done(self) -> RetentionReport:
        trimmed, offsets, size = self.cuts
        return RetentionReport(
            looked_at=self.looked_at, trimmed=trimmed, offsets=offsets, bytes=size, next_due_ms=self.next_due_ms
        )


async def _commit(namespace: Namespace, cuts: list[_Cut]) -> list[_Cut]:
    """Trim; a topic that was deleted meanwhile refuses the whole commit, so it is left out and the others done."""
    token = ""
    for attempt in range(TRIES_MAX):
        if not cuts:
            break
        ops: list[AnyOp] = [cut.op for cut in cuts]
        try:
            await namespace.writer.commit(ops=ops, token=token)
            break
        except Indeterminate as error:
            if attempt == TRIES_MAX - 1 or not error.token:
                raise
            token = error.token
        except NotFound:
            if attempt == TRIES_MAX - 1:
                raise
            token = ""
            state = await namespace.refresh()
            cuts = [cut for cut in cuts if state.partition(cut.place.topic, cut.place.number) is not None]
    return cuts
