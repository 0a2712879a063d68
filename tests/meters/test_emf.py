"""What functions tell CloudWatch: what came in between, within the format's bounds, and at a price one can say."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from headwater.limits import METER_TOPICS_MAX
from headwater.meters import Meters, emf, families

NOW_MS = 1_764_172_800_000


def told(meters: Meters, before: Any = None, mode: str = "basic") -> list[dict[str, Any]]:
    found = emf.lines(before or {}, meters.snapshot(), mode=mode, function="produce-1", now_ms=NOW_MS)
    assert not any("\n" in line for line in found)
    return [json.loads(line) for line in found]


def busy() -> Meters:
    """One of everything that a line can say."""
    meters = Meters()
    for metric in emf.METRICS:
        labels = tuple("failed" if label == "outcome" else f"a-{label}" for label in metric.family.labels)
        if metric.family.kind == "histogram":
            meters.histogram(metric.family, *labels).observe(0.02)
        else:
            meters.counter(metric.family, *labels).add(3)
    meters.counter(families.MAINTAIN_ROUNDS, "a-namespace", "done").add()
    return meters


def test_a_line_is_the_document_that_the_format_asks_for() -> None:
    meters = Meters()
    meters.counter(families.PRODUCED_BYTES, "default", "t").add(1_024)
    assert [
        {
            "_aws": {
                "Timestamp": NOW_MS,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "Headwater",
                        "Dimensions": [["Function"]],
                        "Metrics": [{"Name": "ProducedBytes", "Unit": "Bytes"}],
                    }
                ],
            },
            "Function": "produce-1",
            "ProducedBytes": 1_024,
        }
    ] == told(meters)


def test_only_what_came_in_between_is_told_and_nothing_if_nothing_did() -> None:
    meters = busy()
    before = meters.snapshot()
    assert [] == told(meters, before)
    meters.counter(families.COMMITS, "default").add(2)
    meters.histogram(families.COMMIT_SECONDS, "a-namespace").observe(0.3)
    (line,) = told(meters, before)
    assert 2 == line["Commits"]
    assert {"Values": [0.3], "Counts": [1], "Min": 0.3, "Max": 0.3, "Sum": 0.3, "Count": 1} == line["CommitLatency"]
    assert {"_aws", "Function", "Commits", "CommitLatency"} == set(line)


def test_answers_of_the_store_are_no_errors() -> None:
    meters = Meters()
    for outcome in ("ok", "NotFound", "AlreadyExists", "Conflict", "cancelled"):
        meters.counter(families.STORE_REQUESTS, "get", "manifest", outcome).add()
    (line,) = told(meters)
    assert (5, False) == (line["StoreRequests"], "StoreErrors" in line)
    meters.counter(families.STORE_REQUESTS, "get", "manifest", "Unavailable").add()
    (line,) = told(meters)
    assert (6, 1) == (line["StoreRequests"], line["StoreErrors"])


def test_a_round_of_maintenance_is_whole_or_failed() -> None:
    meters = Meters()
    for outcome, count in (("rested", 1), ("done", 2), ("left", 4), ("failed", 8), ("unreadable", 16)):
        meters.counter(families.MAINTAIN_ROUNDS, "default", outcome).add(count)
    (line,) = told(meters)
    assert (7, 24) == (line["MaintenanceRounds"], line["MaintenanceFailures"])


@pytest.mark.parametrize("seed", range(20))
def test_values_of_a_histogram_lie_in_their_buckets_and_add_up_to_what_was_seen(seed: int) -> None:
    rng = random.Random(seed)
    meters = Meters()
    seen = [rng.lognormvariate(-3, 3) for _ in range(rng.randrange(1, 400))] + [500.0] * (seed % 3)
    for value in seen:
        meters.histogram(families.STORE_SECONDS, "get").observe(value)
    (line,) = told(meters)
    cell, read = line["StoreLatency"], meters.snapshot()["headwater_store_request_seconds"].total()
    assert [count for count in read.counts if count] == cell["Counts"]
    assert sum(cell["Counts"]) == len(seen) == cell["Count"]
    assert sum(seen) == pytest.approx(cell["Sum"])
    ends = [
        (low, high, count)
        for low, high, count in zip((0.0, *read.bounds), (*read.bounds, float("inf")), read.counts, strict=True)
        if count
    ]
    assert all(low - 1e-9 <= value <= high for (low, high, _), value in zip(ends, cell["Values"], strict=True))
    whole = sum(value * count for value, count in zip(cell["Values"], cell["Counts"], strict=True))
    assert read.counts[-1] or whole == pytest.approx(sum(seen), rel=1e-6)
    assert sorted(cell["Values"]) == cell["Values"]
    assert (cell["Values"][0], cell["Values"][-1]) == (cell["Min"], cell["Max"])


@pytest.mark.parametrize(
    ("mode", "dimensions"),
    [
        ("off", []),
        ("basic", [["Function"]]),
        ("namespaces", [["Function"], ["Function", "Namespace"]]),
        ("topics", [["Function"], ["Function", "Namespace"], ["Function", "Namespace", "Topic"]]),
    ],
)
def test_a_mode_says_which_dimensions_there_are(mode: str, dimensions: list[list[str]]) -> None:
    found = told(busy(), mode=mode)
    assert dimensions == [line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0] for line in found]
    for line in found:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert {*directive["Dimensions"][0], *(metric["Name"] for metric in directive["Metrics"])} == {*line} - {"_aws"}


def test_everything_at_once_fits_the_bounds_of_the_format() -> None:
    meters = busy()
    for metric in emf.METRICS:
        if metric.family.kind == "histogram":
            cell = meters.histogram(metric.family, *(f"a-{label}" for label in metric.family.labels))
            for bound in metric.family.bounds:
                cell.observe(bound)
            cell.observe(1e9)
    (line,) = emf.lines({}, meters.snapshot(), mode="basic", function="f" * 64, now_ms=NOW_MS)
    assert len(line) < emf.LINE_BYTES_MAX / 40
    document = json.loads(line)
    metrics = document["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    assert {metric.name for metric in emf.METRICS} == {metric["Name"] for metric in metrics}
    assert len(metrics) <= emf.METRICS_MAX
    assert {"Count", "Seconds", "Bytes", "None"} == {metric["Unit"] for metric in metrics}
    assert all(
        len(cell["Values"]) <= emf.MEMBERS_MAX
        for cell in document.values()
        if isinstance(cell, dict) and "Values" in cell
    )


def test_topics_that_others_choose_are_bounded_and_still_add_up() -> None:
    meters = Meters()
    for number in range(METER_TOPICS_MAX + 50):
        meters.counter(families.PRODUCED_RECORDS, "default", f"t{number}").add()
    whole, namespace, *topics = told(meters, mode="topics")
    assert METER_TOPICS_MAX + 50 == whole["ProducedRecords"] == namespace["ProducedRecords"]
    assert METER_TOPICS_MAX + 1 == len(topics)
    assert 50 == next(line for line in topics if line["Topic"] == "other")["ProducedRecords"]
