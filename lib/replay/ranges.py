"""Where a replay begins and ends: what a caller says, as offsets and times of each partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from headwater.errors import InvalidRequest
from headwater.log.history import state_at
from headwater.log.moments import commit_at
from headwater.log.namespace import Namespace
from headwater.log.reader import check_range
from headwater.log.state import State
from headwater.replay.view import View

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Commit:
    """A place in time by commit number: what commits up to ``seq`` made readable lies before it, the rest behind.

    So ``start=Commit(a), end=Commit(b)`` is exactly what the commits ``a + 1`` to ``b`` made readable.
    """

    seq: int


Place: TypeAlias = str | int | datetime | Commit
Places: TypeAlias = Place | Mapping[int, Place]
Moment: TypeAlias = int | datetime | Commit


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets ``[start, end)`` of a partition, and of these the records with timestamps ``[since, until)``."""

    partition: int
    start: int
    end: int
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_timed(self) -> bool:
        """Whether timestamps count at all."""
        return self.since_ms is not None or self.until_ms is not None

    def holds(self, low: int, high: int) -> bool:
        """Whether every time of ``[low, high]`` is wanted."""
        after = self.since_ms is None or low >= self.since_ms
        return after and (self.until_ms is None or high < self.until_ms)

    def misses(self, low: int, high: int) -> bool:
        """Whether no time of ``[low, high]`` is wanted."""
        before = self.since_ms is not None and high < self.since_ms
        return before or (self.until_ms is not None and low >= self.until_ms)


async def commit_of(namespace: Namespace, moment: Moment | None) -> int | None:
    """The commit that a moment means. Raises ``InvalidRequest``, or ``NotFound`` for one that is too long ago."""
    if moment is None:
        return None
    if isinstance(moment, Commit):
        return _commit_number(moment.seq)
    if isinstance(moment, datetime):
        return await commit_at(namespace.chain, floor_ms(moment))
    return _commit_number(moment)


async def spans_of(view: View, partitions: Iterable[int] | None, start: Places, end: Places | None) -> list[Span]:
    """What is to be read of each partition, in their order. Partitions without anything are there too.

    Raises:
        NotFound: a partition or a commit does not exist.
        OffsetOutOfRange: an offset that the partition does not have.
        InvalidRequest: something is no place, or ``start`` lies behind ``end``.

    Cost: nothing, but for a ``Commit`` what ``state_at`` costs.
    """
    chosen = _chosen(view, partitions)
    _check_keys(view, start)
    _check_keys(view, end)
    return [await _span(view, number, _of(start, number, "earliest"), _of(end, number, "latest")) for number in chosen]


def floor_ms(moment: datetime) -> int:
    """Milliseconds since 1970, the last whole one at or before ``moment``. Without a zone it is UTC."""
    delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000


def ceiling_ms(moment: datetime) -> int:
    """The first whole millisecond at or after ``moment``."""
    return floor_ms(moment) + (1 if moment.microsecond % 1_000 else 0)


def _chosen(view: View, partitions: Iterable[int] | None) -> list[int]:
    count = len(view.topic.partitions)
    if partitions is None:
        return list(range(count))
    if isinstance(partitions, int):
        partitions = [partitions]
    chosen = list(partitions)
    for number in chosen:
        if not _is_number(number):
            raise InvalidRequest(f"A partition is a number from 0 to {count - 1}, not {number!r}.")
        view.place(number)
    if len(set(chosen)) < len(chosen):
        raise InvalidRequest(f"The partitions {chosen} name one twice.")
    return sorted(chosen)


def _check_keys(view: View, places: Places | None) -> None:
    if isinstance(places, Mapping):
        for number in places:
            if not _is_number(number):
                raise InvalidRequest(f"Places are given by partition, a number, not by {number!r}.")
            view.place(number)


def _of(places: Places | None, partition: int, default: Place) -> Place:
    if places is None:
        return default
    return places.get(partition, default) if isinstance(places, Mapping) else places


async def _span(view: View, partition: int, start: Place, end: Place) -> Span:
    place = view.place(partition)
    whole = Span(partition, place.start, place.stable_end)
    span = await _begin(view, whole, start)
    span = await _finish(view, span, end)
    if span.end < span.start and _is_number(start) and _is_number(end):
        raise InvalidRequest(
            f"Partition {partition} of topic {view.topic.name!r} should be read from {start} to {end}: "
            "the start lies behind the end."
        )
    since, until = span.since_ms, span.until_ms
    if since is not None and until is not None and since > until:
        raise InvalidRequest(f"The start, {since} ms, lies behind the end, {until} ms.")
    return replace(span, end=max(span.start, span.end))


async def _begin(view: View, span: Span, start: Place) -> Span:
    if isinstance(start, datetime):
        return replace(span, since_ms=ceiling_ms(start))
    if isinstance(start, Commit):
        return replace(span, start=max(span.start, await _end_at(view, start, span.partition)))
    if start == "earliest":
        return span
    if start == "latest":
        return replace(span, start=span.end)
    offset = _offset(start)
    check_range(view.topic.name, span.partition, view.place(span.partition), offset)
    return replace(span, start=offset)


async def _finish(view: View, span: Span, end: Place) -> Span:
    if isinstance(end, datetime):
        return replace(span, until_ms=ceiling_ms(end))
    if isinstance(end, Commit):
        return replace(span, end=min(span.end, await _end_at(view, end, span.partition)))
    if end == "latest":
        return span
    if end == "earliest":
        return replace(span, end=span.start)
    return replace(span, end=min(span.end, _offset(end)))


async def _end_at(view: View, commit: Commit, partition: int) -> int:
    """Where readers of the partition stopped at ``commit``."""
    seq = _commit_number(commit.seq)
    past: State = view.state if seq == view.state.seq else await state_at(view.namespace.chain, seq)
    found = past.partition(view.topic.id, partition)
    return 0 if found is None else found.stable_end


def _offset(place: Any) -> int:
    if not _is_number(place):
        raise InvalidRequest(
            f"{place!r} is no place in a topic: give 'earliest', 'latest', an offset, a datetime, a Commit, "
            "or a mapping from partitions to these."
        )
    if place < 0:
        raise InvalidRequest(f"An offset is 0 or more, not {place}.")
    return int(place)


def _commit_number(seq: Any) -> int:
    if not _is_number(seq) or seq < 0:
        raise InvalidRequest(f"A commit is a number from 0 on, or a datetime, not {seq!r}.")
    return int(seq)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
