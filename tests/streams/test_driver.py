"""The test driver: what it says of a topology is what a job would say, in any number of partitions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl
import pytest

from headwater.errors import InvalidRequest, NotFound
from headwater.streams import TestDriver, Topology, agg, col, tumbling
from headwater.streams.failures import OperatorFailed

EVENT = {"k": pl.String(), "g": pl.String(), "v": pl.Int64(), "ts": pl.Int64()}
NAME = {"k": pl.String(), "name": pl.String()}


def windows(*, dead_letters: str = "") -> Topology:
    topology = Topology("job", dead_letters=dead_letters)
    events = topology.stream("in", schema=EVENT, key="k", time="ts", out_of_order="2s", idle="1m")
    counted = events.group_by("g").window(tumbling("10s")).aggregate(n=agg.count(), total=agg.sum("v"))
    counted.suppress().to("out", key="g")
    return topology


def event(at: int, k: str, v: int = 1) -> dict[str, Any]:
    return {"k": k, "g": k[0], "v": v, "ts": at}


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


EVENTS = [event(at * 500, f"{'ab'[at % 2]}{at % 7}", at) for at in range(60)]


def results(driver: TestDriver) -> list[tuple[Any, ...]]:
    return sorted((row["g"], row["window_start"], row["n"], row["total"]) for row in driver.read("out"))


EXPECTED = [
    ("a", moment(0), 10, 90),
    ("a", moment(10), 10, 290),
    ("a", moment(20), 10, 490),
    ("b", moment(0), 10, 100),
    ("b", moment(10), 10, 300),
    ("b", moment(20), 10, 500),
]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_windows_come_out_the_same_whatever_the_partitions_and_batches(partitions: int, size: int) -> None:
    driver = TestDriver(windows(), partitions=partitions)
    for start in range(0, 60, size):
        driver.pipe("in", EVENTS[start : start + size])
    driver.end()
    assert EXPECTED == results(driver)
    assert [] == driver.read("out")


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_restart_between_any_two_batches_changes_nothing(snapshot: bool) -> None:
    driver = TestDriver(windows(), partitions=2)
    for start in range(0, 60, 10):
        driver.pipe("in", EVENTS[start : start + 10])
        driver.restart(snapshot=snapshot)
    driver.end()
    assert EXPECTED == results(driver)


def test_event_time_closes_windows_and_wall_time_lets_silent_partitions_go() -> None:
    driver = TestDriver(windows(), partitions=2)
    driver.pipe("in", [event(1_000, "a")], partition=0)
    driver.pipe("in", [event(30_000, "b")], partition=0)
    assert [] == driver.read("out")  # partition 1 may still bring something older
    driver.advance("2m")
    assert [("a", moment(0), 1, 1)] == results(driver)
    driver.advance_event_time(moment(60))
    assert [("b", moment(30), 1, 1)] == results(driver)
    assert 60_000 == driver.watermark("in")


def test_rows_frames_and_bytes_are_the_same_records() -> None:
    found = []
    for given in (EVENTS, pl.DataFrame(EVENTS), [orjson.dumps(row) for row in EVENTS]):
        driver = TestDriver(windows())
        driver.pipe("in", given)
        driver.end()
        found.append(results(driver))
    assert [EXPECTED] * 3 == found


def test_a_table_is_read_by_key_and_a_deleted_row_is_gone() -> None:
    topology = Topology("job")
    names = topology.table("names", schema=NAME, key="k", store="names")
    names.filter(col("name") != "x").to("out")
    driver = TestDriver(topology, partitions=2)
    driver.pipe("names", [{"k": "1", "name": "one"}, {"k": "2", "name": "two"}, {"k": "3", "name": "three"}])
    driver.pipe("names", {"k": "2", "name": "zwei"})
    driver.delete("names", {"k": "1"})
    driver.pipe("names", {"k": "3", "name": "x"})
    assert {"2": {"k": "2", "name": "zwei"}} == driver.read_table("out")
    assert [("2", "zwei"), ("3", "x")] == sorted(driver.store("names").rows())
    rows = driver.read("out")
    assert {"k": "1"} in rows
    assert {"k": "3"} in rows


def test_a_stream_meets_a_global_table_of_all_partitions() -> None:
    topology = Topology("job")
    names = topology.global_table("names", schema=NAME, key="k")
    topology.stream("in", schema=EVENT, key="k", time="ts").join(names, on="k").select("k", "name").to("out", key="k")
    driver = TestDriver(topology, partitions=3)
    driver.pipe("names", [{"k": f"a{at}", "name": str(at)} for at in range(7)])
    driver.pipe("in", [event(at, f"a{at}") for at in range(7)])
    assert [{"k": f"a{at}", "name": str(at)} for at in range(7)] == sorted(driver.read("out"), key=lambda row: row["k"])


def test_poison_goes_to_the_dead_letters_with_the_reason_in_headers() -> None:
    driver = TestDriver(windows(dead_letters="dead"))
    driver.pipe("in", [event(0, "a"), b"poison", event(1, "a")])
    driver.pipe("in", b'{"k":"a"}')
    first, second = driver.read_records("dead")
    headers = dict(first.headers)
    assert (b"poison", b"1", b"in") == (
        first.value,
        headers["__streams.errors.offset"],
        headers["__streams.errors.topic"],
    )
    assert b'{"k":"a"}' == second.value  # without an event time
    driver.end()
    assert [("a", moment(0), 2, 2)] == results(driver)


def test_poison_without_dead_letters_names_operator_topic_partition_and_offset() -> None:
    driver = TestDriver(windows())
    with pytest.raises(OperatorFailed, match="topic 'in', partition 0 at offset 1") as caught:
        driver.pipe("in", [event(0, "a"), b"poison"])
    assert (0, 1) == (caught.value.data["partition"], caught.value.data["offset"])


def test_rows_that_a_function_refuses_are_dead_letters_too() -> None:
    topology = Topology("job", dead_letters="dead")
    topology.stream("in", schema=EVENT).map(lambda row: {**row, "v": 6 // row["v"]}, schema=EVENT).to("out")
    driver = TestDriver(topology)
    driver.pipe("in", [event(0, "a", 2), event(1, "a", 0), event(2, "a", 3)])
    assert [3, 2] == [row["v"] for row in driver.read("out")]
    (dead,) = driver.read_records("dead")
    assert b"ZeroDivisionError" == dict(dead.headers)["__streams.errors.exception"]
    assert event(1, "a", 0) == orjson.loads(dead.value or b"")


def test_timestamps_and_keys_of_records_are_as_given() -> None:
    topology = Topology("job")
    topology.stream("in", schema={"v": pl.Int64}).to("out", key="v")
    driver = TestDriver(topology, now_ms=5)
    driver.pipe("in", {"v": 1})
    driver.pipe("in", {"v": 2}, time=moment(1))
    assert [(b"1", 5), (b"2", 1_000)] == [(each.key, each.timestamp) for each in driver.read_records("out")]


def test_frames_and_bytes_are_formats_as_well() -> None:
    topology = Topology("job")
    topology.stream("frames", schema=EVENT, format="frame", time="ts").to("out", format="frame")
    topology.stream("plain").to("copied", format="bytes")
    driver = TestDriver(topology)
    driver.pipe("frames", EVENTS)
    driver.pipe("plain", [b"x", b"y"])
    assert EVENTS == driver.read("out")
    assert [{"value": b"x"}, {"value": b"y"}] == driver.read("copied")


@pytest.mark.parametrize("rows", [{"nothing": 1}, {"v": "text"}, pl.DataFrame({"v": ["text"]})])
def test_rows_of_another_schema_are_refused(rows: Any) -> None:
    with pytest.raises(InvalidRequest, match="opic 'in'"):
        TestDriver(windows()).pipe("in", rows)


def test_names_that_are_not_there_are_refused() -> None:
    driver = TestDriver(windows())
    for call in (
        lambda: driver.pipe("out", {}),
        lambda: driver.read("in"),
        lambda: driver.store("nothing"),
    ):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(InvalidRequest, match="has 1 partitions"):
        driver.pipe("in", EVENTS, partition=1)


def test_a_join_goes_on_when_one_of_its_streams_falls_silent() -> None:
    """An idle source held back whatever it was joined with, for ever; only partitions of one source let go."""
    topology = Topology("job")
    left = topology.stream("left", schema=EVENT, key="k", time="ts", idle=-1)
    right = topology.stream("right", schema=NAME, key="k", idle="1m")
    left.join_asof(right, on="k").to("out", key="k")
    driver = TestDriver(topology)
    driver.pipe("right", {"k": "a", "name": "one"}, time=1_000)
    driver.pipe("left", [event(at, "a") for at in (2_000, 3_000, 4_000)])
    assert [] == driver.read("out")
    driver.advance("1m")
    driver.pipe("left", [event(5_000, "a")])
    assert [(2_000, "one"), (3_000, "one"), (4_000, "one")] == [(row["ts"], row["name"]) for row in driver.read("out")]
