"""Which offsets a task of Spark reads: a topic's ranges cut into splits, and how much a micro-batch takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql.datasource import InputPartition
from pyspark.sql.streaming.datasource import ReadLimit, ReadMaxBytes, ReadMaxRows

from headwater.limits import SPARK_SPLITS_MAX
from headwater.log.state import Partition
from headwater.replay.ranges import Span
from headwater.spark.filters import Condition, bounds


@dataclass(frozen=True, kw_only=True)  # no slots: Spark's own class has none, and pickles by ``__dict__``
class Split(InputPartition):
    """What one task reads: a range of one partition, as of commit ``as_of`` if that is not None."""

    partition: int
    start: int
    end: int
    since_ms: int | None = None
    until_ms: int | None = None
    as_of: int | None = None

    @property
    def span(self) -> Span:
        """The same as a replay takes it."""
        return Span(self.partition, self.start, self.end, self.since_ms, self.until_ms)


def splits_of(spans: Sequence[Span], records: int, as_of: int | None = None) -> list[Split]:
    """The spans in pieces of ``records`` offsets, or larger ones if there were more than ``SPARK_SPLITS_MAX``."""
    total = sum(span.end - span.start for span in spans)
    step = max(records, -(-total // SPARK_SPLITS_MAX))
    return [
        Split(
            partition=span.partition,
            start=start,
            end=min(start + step, span.end),
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            as_of=as_of,
        )
        for span in spans
        for start in range(span.start, span.end, step)
    ]


def narrowed(spans: Sequence[Span], conditions: Sequence[Condition]) -> list[Span]:
    """The spans without partitions and offsets for which the conditions cannot hold."""
    first, behind = bounds(conditions, "partition")
    low, high = bounds(conditions, "offset")
    kept = [span for span in spans if first <= span.partition and (behind is None or span.partition < behind)]
    last = max((span.end for span in kept), default=0) if high is None else high
    cut = [replace(span, start=max(span.start, low), end=min(span.end, last)) for span in kept]
    return [span for span in cut if span.start < span.end]


def admitted(
    start: Mapping[int, int], ends: Mapping[int, int], places: Mapping[int, Partition], limit: ReadLimit
) -> dict[int, int]:
    """Where a micro-batch ends in each partition that begins at ``start`` and can go up to ``ends``.

    A bound is dealt out by how many records, or stored bytes, each partition lags, as in Spark's Kafka source; at least
    one record is taken. A record's bytes are the mean of its partition, which the state knows without a request.
    """
    lags = {partition: max(0, end - start.get(partition, 0)) for partition, end in ends.items()}
    if isinstance(limit, ReadMaxRows):
        shares = _shares(lags, dict.fromkeys(lags, 1.0), limit.max_rows)
    elif isinstance(limit, ReadMaxBytes):
        shares = _shares(lags, {p: _mean_bytes(places[p]) for p in lags}, limit.max_bytes)
    else:
        shares = lags
    return {partition: start.get(partition, 0) + shares[partition] for partition in ends}


def _shares(lags: Mapping[int, int], costs: Mapping[int, float], most: int) -> dict[int, int]:
    total = sum(lag * costs[partition] for partition, lag in lags.items())
    if total <= most:
        return dict(lags)
    shares = {partition: int(lag * most / total) for partition, lag in lags.items()}
    if not any(shares.values()):
        longest = max(lags, key=lambda partition: lags[partition])
        shares[longest] = 1
    return shares


def _mean_bytes(place: Partition) -> float:
    return place.bytes / place.next if place.next else 1.0


def as_json(topic: str, offsets: Mapping[int, int]) -> dict[str, Any]:
    """Offsets as Spark writes them into its checkpoint: as of a Kafka source, ``{"topic": {"0": 17}}``."""
    return {topic: {str(partition): offset for partition, offset in sorted(offsets.items())}}


def of_json(topic: str, said: Mapping[str, Any]) -> dict[int, int]:
    """What ``as_json`` made. A checkpoint of another topic holds nothing for this one, so it all begins anew."""
    return {int(partition): int(offset) for partition, offset in said.get(topic, {}).items()}
