"""What was counted in between two snapshots, as lines of CloudWatch's Embedded Metric Format. Pure.

A function prints such a line, CloudWatch Logs makes metrics of it, and nobody has to be asked or waited for
(docs.aws.amazon.com, "Specification: Embedded metric format"). A counter is the sum of what came in between. A
histogram is ``Values`` and ``Counts``, one for each bucket that was met, with ``Min``, ``Max``, ``Sum`` and ``Count``,
as AWS's exporter for OpenTelemetry writes them: percentiles are right to within a bucket, averages and sums exactly.

Every metric that can come is in ``METRICS``, below ``NAMESPACE``. All have the dimension Function, the function's name
as in Lambda's own metrics, which know invocations, errors, durations and statuses of URLs already. ``mode`` says what
else there is:

    off          nothing
    basic        Function alone
    namespaces   … and Function with Namespace
    topics       … and Function, Namespace and Topic, for what has topics

**Cost.** CloudWatch bills each name with each set of dimension values: $0.30 a month at list price (us-east-1, 2026),
by the hour in which it came. A function meets 4 (maintenance at rest) to 13 names, so ``basic`` is $1.20 a month for a
deployment that nobody uses and about $13 for one whose five functions are busy all month. A line of about 1 KB costs
$0.50 for a million invocations (Logs, $0.50 a GB). ``namespaces`` adds up to $3 a month for each namespace and function
that serves it, ``topics`` up to $1.20 for each topic and function. Each process bounds the names that it tells apart
(``families.KEPT``); which ones those are may differ from process to process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headwater.meters import families
from headwater.meters.cells import Distribution, Family
from headwater.meters.meters import Reading

NAMESPACE: Final = "Headwater"
MODES: Final = ("off", "basic", "namespaces", "topics")
METRICS_MAX: Final = 100  # the format's bound on a line …
MEMBERS_MAX: Final = 100  # … and on the members of an array
LINE_BYTES_MAX: Final = 256 << 10  # of one event of CloudWatch Logs as it was for most of its life; it is 1 MiB now

# What became of a request and is no fault of the store's: answers, and callers that left.
ANSWERS: Final = frozenset({"ok", "NotFound", "AlreadyExists", "Conflict", "Raced", "cancelled"})
# How a task ends that others take over.
_LEFT: Final = frozenset({"ok", "Fenced", "UnknownMember", "Forgotten"})
_WHOLE: Final = frozenset({"rested", "done", "left"})  # rounds of maintenance in which no chore failed

Cells = Mapping[tuple[str, ...], float | Distribution]


@dataclass(frozen=True, slots=True)
class Metric:
    """``name`` in CloudWatch is ``family``, all of it or the cells whose ``label`` has one of ``values`` (or, with
    ``others``, has none of them).
    """

    name: str
    family: Family
    unit: str
    label: str = ""
    values: frozenset[str] = frozenset()
    others: bool = False

    def takes(self, key: tuple[str, ...]) -> bool:
        """Whether the cell with these label values counts."""
        return not self.label or (key[self.family.labels.index(self.label)] in self.values) is not self.others


METRICS: Final = (
    Metric("StoreRequests", families.STORE_REQUESTS, "Count"),
    Metric("StoreErrors", families.STORE_REQUESTS, "Count", "outcome", ANSWERS, others=True),
    Metric("StoreLatency", families.STORE_SECONDS, "Seconds"),
    Metric("StoreDollars", families.STORE_DOLLARS, "None"),
    Metric("Commits", families.COMMITS, "Count"),
    Metric("CommitAttemptsLost", families.COMMITS_LOST, "Count"),
    Metric("CommitLatency", families.COMMIT_SECONDS, "Seconds"),
    Metric("ProducedRecords", families.PRODUCED_RECORDS, "Count"),
    Metric("ProducedBytes", families.PRODUCED_BYTES, "Bytes"),
    Metric("ProduceLatency", families.PRODUCE_SECONDS, "Seconds"),
    Metric("FetchedRecords", families.FETCHED_RECORDS, "Count"),
    Metric("FetchedBytes", families.FETCHED_BYTES, "Bytes"),
    Metric("FetchLatency", families.FETCH_SECONDS, "Seconds"),
    Metric("MaintenanceRounds", families.MAINTAIN_ROUNDS, "Count", "outcome", _WHOLE),
    Metric("MaintenanceFailures", families.MAINTAIN_ROUNDS, "Count", "outcome", _WHOLE, others=True),
    Metric("JobRecords", families.STREAMS_RECORDS, "Count"),
    Metric("JobBatchLatency", families.STREAMS_BATCH_SECONDS, "Seconds"),
    Metric("JobCommitLatency", families.STREAMS_COMMIT_SECONDS, "Seconds"),
    Metric("JobTaskFailures", families.STREAMS_ENDS, "Count", "outcome", _LEFT, others=True),
)
assert len(METRICS) <= METRICS_MAX


def lines(
    before: Mapping[str, Reading], after: Mapping[str, Reading], *, mode: str, function: str, now_ms: int
) -> list[str]:
    """One line of JSON for each set of dimension values under which something was counted since ``before``.

    ``before`` may be empty: then it is all that ``after`` has. ``now_ms`` is since 1970.

    Cost: about 1 us a cell of the families in ``METRICS``, and about 0.1 ms a line.
    """
    assert mode in MODES, mode
    if mode == "off":
        return []
    grown = {metric.family.name: _grown(metric.family, before, after) for metric in METRICS}
    found: list[str] = []
    for labels in _LEVELS[: MODES.index(mode)]:
        sums: dict[tuple[str, ...], dict[str, Any]] = {}
        for metric in METRICS:
            if set(labels) <= set(metric.family.labels):
                for values, amount in _by(labels, metric, grown[metric.family.name]).items():
                    sums.setdefault(values, {})[metric.name] = amount
        for values, amounts in sorted(sums.items()):
            dimensions = {"Function": function, **{_DIMENSION[name]: v for name, v in zip(labels, values, strict=True)}}
            found.append(_line(dimensions, amounts, now_ms))
    return found


_LEVELS: Final = ((), ("namespace",), ("namespace", "topic"))
_DIMENSION: Final = {"namespace": "Namespace", "topic": "Topic"}
_UNITS: Final = {metric.name: metric.unit for metric in METRICS}


def _grown(family: Family, before: Mapping[str, Reading], after: Mapping[str, Reading]) -> Cells:
    """What came to each cell; those to which nothing came are left out."""
    old: Cells = before[family.name].cells if family.name in before else {}
    found: dict[tuple[str, ...], float | Distribution] = {}
    for key, cell in after[family.name].cells.items():
        then = old.get(key)
        if isinstance(cell, Distribution):
            more = cell - then if isinstance(then, Distribution) else cell
            if more.count:
                found[key] = more
        elif (amount := cell - then if isinstance(then, float | int) else cell) > 0:
            found[key] = amount
    return found


def _by(labels: tuple[str, ...], metric: Metric, grown: Cells) -> dict[tuple[str, ...], float | Distribution]:
    """Sums of the metric's cells by the values of ``labels``."""
    places = [metric.family.labels.index(label) for label in labels]
    found: dict[tuple[str, ...], Any] = {}
    for key, cell in grown.items():
        if metric.takes(key):
            values = tuple(key[place] for place in places)
            found[values] = found[values] + cell if values in found else cell
    return found


def _line(dimensions: Mapping[str, str], amounts: Mapping[str, float | Distribution], now_ms: int) -> str:
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in amounts],
    }
    told = {name: _spread(cell) if isinstance(cell, Distribution) else _round(cell) for name, cell in amounts.items()}
    document = {"_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [directive]}, **dimensions, **told}
    line = msgspec.json.encode(document).decode()
    assert len(line) <= LINE_BYTES_MAX, "a metric has a value for each bucket, and there are few of both"
    return line


def _spread(found: Distribution) -> dict[str, Any]:
    """A value for each bucket that was met, all at the same part of their buckets, so that they add up to the sum.

    Above the last bound a bucket has no end: its values get what the others, in their middles, leave of the sum.
    """
    met = [(index, count) for index, count in enumerate(found.counts) if count]
    lows = (0.0, *found.bounds)
    ends = [(lows[index], found.bounds[index], count) for index, count in met if index < len(found.bounds)]
    above = found.counts[-1]
    least = sum(low * count for low, _, count in ends)
    width = sum((high - low) * count for low, high, count in ends)
    part = 0.5 if above else min(1.0, max(0.0, (found.sum - least) / width))
    values = [low + (high - low) * part for low, high, _ in ends]
    if above:
        rest = found.sum - least - width * part
        values.append(max(found.bounds[-1], rest / above))
    assert len(values) == len(met) <= MEMBERS_MAX
    return {
        "Values": _rounded(values),
        "Counts": [count for _, count in met],
        "Min": _round(values[0]),
        "Max": _round(values[-1]),
        "Sum": _round(found.sum),
        "Count": found.count,
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [_round(value) for value in values]


def _round(value: float) -> float:
    """To what is worth a byte in a log: a nanosecond, a ten-millionth of a cent; whole numbers as such."""
    return int(value) if value == int(value) else round(value, 9)
