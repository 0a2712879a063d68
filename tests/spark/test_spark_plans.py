"""What the Spark source decides without Spark: options, splits, shares, conditions, and which batch is new."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from headwater.errors import Conflict, Indeterminate, InvalidRequest, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.state import Partition
from headwater.log.writer import Append
from headwater.replay.ranges import Commit, Span
from headwater.sim.faults import Faults, SimBucket, SimStore
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from tests.log.helpers import simulate
from tests.spark.helpers_spark import records

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'headwater[spark]'")

from pyspark.sql.datasource import EqualTo, GreaterThan, In, IsNotNull, LessThanOrEqual, Not, StringContains
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadMaxBytes, ReadMaxRows
from pyspark.sql.types import StructType

from headwater.spark.filters import bounds, conditions_of, expression
from headwater.spark.kinds import arrow_schema, fitted, spark_schema
from headwater.spark.options import settings_of
from headwater.spark.splits import admitted, as_json, narrowed, of_json, splits_of
from headwater.spark.writer import _appends, commit_batch

PLACE = {"path": "memory://x", "topic": "t"}


# -- options -------------------------------------------------------------------------------------------


def test_places_can_be_said_as_in_the_kafka_source() -> None:
    def start(**said: str) -> Any:
        return settings_of({**PLACE, **said}).start

    assert start() is None
    assert "latest" == start(startingOffsets="latest")
    assert {0: 17, 1: "earliest", 2: "latest"} == start(startingoffsets='{"t": {"0": 17, "1": -2, "2": -1}}')
    assert {0: 17, 1: "latest"} == start(STARTINGOFFSETS='{"0": 17, "1": "latest"}')
    assert Commit(12) == start(startingCommit="12")
    assert start(startingTimestamp="0") == start(startingTimestamp="1970-01-01T00:00:00")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"topic": ""}, "topic"),
        ({"path": ""}, "store"),
        ({"startingOffsets": "first"}, "startingOffsets"),
        ({"startingOffsets": '{"a": 1}'}, "startingOffsets"),
        ({"startingOffsets": '{"0": true}'}, "startingOffsets"),
        ({"endingOffsets": "[]"}, "endingOffsets"),
        ({"startingTimestamp": "noon"}, "startingTimestamp"),
        ({"startingTimestamp": "9" * 30}, "startingTimestamp"),
        ({"startingOffsets": "latest", "startingCommit": "1"}, "startingOffsets"),
        ({"maxOffsetsPerTrigger": "0"}, "maxOffsetsPerTrigger"),
        ({"recordsPerSplit": "many"}, "recordsPerSplit"),
        ({"failOnDataLoss": "perhaps"}, "failOnDataLoss"),
        ({"columns": " , "}, "columns"),
    ],
)
def test_an_option_without_a_meaning_is_named(said: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        settings_of({**PLACE, **said})
    assert named == caught.value.data["option"]


# -- splits and shares -----------------------------------------------------------------------------------


def test_splits_meet_end_to_end() -> None:
    splits = splits_of([Span(0, 5, 12, since_ms=3), Span(2, 0, 1)], 3)
    assert [(0, 5, 8), (0, 8, 11), (0, 11, 12), (2, 0, 1)] == [(s.partition, s.start, s.end) for s in splits]
    assert [3, 3, 3, None] == [split.span.since_ms for split in splits]


def test_there_are_never_too_many_splits() -> None:
    assert len(splits_of([Span(p, 0, 10**9) for p in range(10)], 10)) <= 10_000 + 10


def test_shares_follow_the_lag_and_something_always_moves() -> None:
    rng = random.Random(3)
    for _ in range(300):
        start = {p: rng.randrange(50) for p in range(rng.randint(1, 5))}
        ends = {p: offset + rng.randrange(60) for p, offset in start.items()}
        places = {p: Partition(next=max(end, 1), bytes=rng.randrange(1, 900)) for p, end in ends.items()}
        most = rng.randrange(1, 200)
        lag = sum(ends[p] - start[p] for p in ends)
        taken = admitted(start, ends, places, ReadMaxRows(most))
        moved = sum(taken[p] - start[p] for p in ends)
        assert all(start[p] <= taken[p] <= ends[p] for p in ends)
        assert (moved == lag) if lag <= most else (0 < moved <= most)
        assert ends == admitted(start, ends, places, ReadAllAvailable())
        by_bytes = admitted(start, ends, places, ReadMaxBytes(most))
        assert all(start[p] <= by_bytes[p] <= ends[p] for p in ends)
        assert lag == 0 or by_bytes != start


def test_a_partition_that_is_new_begins_at_its_beginning() -> None:
    assert {0: 5, 1: 3} == admitted({0: 5}, {0: 5, 1: 3}, {}, ReadAllAvailable())


def test_offsets_are_written_as_a_kafka_source_writes_them() -> None:
    assert {"t": {"0": 1, "10": 2}} == as_json("t", {10: 2, 0: 1})
    assert {0: 1, 10: 2} == of_json("t", as_json("t", {10: 2, 0: 1}))
    assert {} == of_json("another", as_json("t", {0: 1}))


# -- filters -------------------------------------------------------------------------------------------------


def test_filters_narrow_partitions_and_offsets() -> None:
    conditions = conditions_of(
        [EqualTo(("partition",), 1), GreaterThan(("offset",), 4), LessThanOrEqual(("offset",), 9)]
    )
    assert (1, 2) == bounds(conditions, "partition")
    assert [Span(1, 5, 10)] == narrowed([Span(0, 0, 99), Span(1, 0, 99), Span(2, 0, 99)], conditions)
    assert [] == narrowed([Span(1, 10, 99)], conditions)


def test_a_filter_is_left_to_spark_where_the_two_would_differ() -> None:
    table = pa.table({"f": [1.0, float("nan")], "n": [1, 2], "s": ["a", "b"]})

    def rows(*filters: Any) -> int:
        condition = expression(conditions_of(filters), table.schema)
        return ds.dataset(table).count_rows(filter=condition)

    assert 2 == rows(GreaterThan(("f",), 5.0))  # for Spark NaN is the greatest number of all
    assert 2 == rows(Not(EqualTo(("n",), 1)), StringContains(("s",), "a"), EqualTo(("a", "b"), 1), EqualTo(("x",), 1))
    assert 2 == rows(EqualTo(("n",), "word"))  # a value that the column cannot have
    assert 1 == rows(In(("n",), (2, 3)), IsNotNull(("s",)), EqualTo(("s",), "b"))


# -- types ----------------------------------------------------------------------------------------------------


def test_each_type_of_a_topic_has_one_in_spark_that_holds_it() -> None:
    kinds: dict[str, pa.DataType] = {
        "a": pa.uint8(),
        "b": pa.uint64(),
        "c": pa.time64("us"),
        "d": pa.large_string(),
        "e": pa.timestamp("s", "UTC"),
        "f": pa.list_(pa.struct([pa.field("x", pa.uint32()), pa.field("y", pa.timestamp("ms"))])),
        "g": pa.map_(pa.string(), pa.uint16()),
        "h": pa.binary(3),
        "i": pa.decimal128(9, 2),
    }
    schema = pa.schema(list(kinds.items()))
    shown = spark_schema(schema)
    assert isinstance(shown, StructType)
    target = arrow_schema(shown)
    rows = [
        {"a": 255, "b": 2**64 - 1, "d": "x", "f": [{"x": 2**32 - 1, "y": None}], "g": [("k", 65_535)], "h": b"abc"},
        dict.fromkeys(kinds),
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema)
    (made,) = fitted([batch], target, "here")
    assert target == made.schema
    first = made.to_pylist()[0]
    assert (255, 2**64 - 1, "x", b"abc") == (first["a"], int(first["b"]), first["d"], first["h"])
    assert [{"x": 2**32 - 1, "y": None}] == first["f"]


def test_a_value_that_is_no_text_is_refused_with_its_place() -> None:
    batch = pa.RecordBatch.from_pydict({"value": pa.array([b"\xff"], pa.binary())})
    with pytest.raises(InvalidRequest, match=r"partition 3.*'value'"):
        list(fitted([batch], pa.schema([pa.field("value", pa.string())]), "Topic 't', partition 3"))


# -- exactly once -----------------------------------------------------------------------------------------------


async def staged(namespace: Namespace, number: int) -> list[Any]:
    topic = await namespace.find_topic("t")
    return await namespace.writer.stage(_appends(topic, records(number * 10, 10).drop_columns(["key"]), number, 0))


_PROCESSES = itertools.count()


async def opened(store: Any) -> Namespace:
    """A process of its own: no two have the same randomness."""
    return await Namespace.open(
        store,
        clock=SimClock(sim_loop()),
        rng=random.Random(next(_PROCESSES)),
        options=Options(threads=False),
        probe=False,
    )


async def ends(namespace: Namespace) -> int:
    await namespace.refresh()
    return sum(partition.next for partition in namespace.topic("t").partitions)


def test_a_batch_that_comes_again_is_refused_whoever_sends_it() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        one, two = await opened(store), await opened(store)
        await one.create_topic("t", 2)
        assert await commit_batch(one, "t", "spark-q", 0, await staged(one, 0))
        assert await commit_batch(one, "t", "spark-q", 1, await staged(one, 1))
        assert not await commit_batch(two, "t", "spark-q", 1, await staged(two, 1))
        assert 20 == await ends(two)
        assert await commit_batch(two, "t", "spark-other", 1, await staged(two, 1))  # another query has its own numbers
        assert 30 == await ends(two)

    simulate(main())


def test_of_two_who_send_a_batch_at_once_one_writes_it() -> None:
    async def main() -> None:
        for seed in range(20):
            store = MemoryStore(f"at-once-{seed}", clock=SimClock(sim_loop()))
            desks = [await opened(store) for _ in range(3)]
            await desks[0].create_topic("t", 2)
            for batch in range(3):
                chunks = [await staged(desk, batch) for desk in desks]
                done = await asyncio.gather(
                    *(commit_batch(desk, "t", "spark-q", batch, mine) for desk, mine in zip(desks, chunks, strict=True))
                )
                assert [False, False, True] == sorted(done)
            assert 30 == await ends(desks[0])

    simulate(main())


def test_writers_that_share_a_name_without_end_are_told_so() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        namespace = await opened(store)
        await namespace.create_topic("t", 1)
        chunks = await staged(namespace, 0)
        commit = namespace.writer.commit_staged

        async def outrun(*arguments: Any, **options: Any) -> Any:
            await namespace.producer("spark-q")  # somebody else takes the next epoch just before
            return await commit(*arguments, **options)

        namespace.writer.commit_staged = outrun  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="writerId"):
            await commit_batch(namespace, "t", "spark-q", 0, chunks)
        assert 0 == await ends(namespace)

    simulate(main())


@pytest.mark.parametrize("seed", range(30))
def test_a_store_that_loses_answers_makes_no_batch_twice(seed: int) -> None:
    """As Spark does it: a batch that failed is staged anew by another process, and sent under its old number."""

    async def main() -> None:
        rng = random.Random(seed)
        bucket = SimBucket(sim_loop())
        calm = await opened(SimStore(bucket, loop=sim_loop(), rng=rng))
        await calm.create_topic("t", 2)
        faults = Faults(lost_request=0.1, lost_answer=0.2, false_503=0.1, own_412=0.1, unavailable=0.1)
        batch = tries = 0
        while batch < 5:
            tries += 1
            try:
                desk = await opened(SimStore(bucket, loop=sim_loop(), rng=rng, faults=faults))
                await commit_batch(desk, "t", "spark-q", batch, await staged(desk, batch))
                batch += 1
            except (Indeterminate, Unavailable):
                assert tries < 500
        assert 50 == await ends(calm)

    simulate(main())


def test_rows_go_where_they_say_or_where_their_key_goes() -> None:
    async def main() -> None:
        namespace = await opened(MemoryStore(clock=SimClock(sim_loop())))
        topic = await namespace.create_topic("t", 3)
        table = pa.table({"key": ["a", None, "a"], "value": ["1", "2", "3"], "partition": [None, None, 2]})
        made: list[Append] = _appends(topic, table, 4, 99)
        counts = {append.partition: append.batch.count for append in made}
        assert 3 == sum(counts.values())
        assert counts[1] >= 1  # the row without a key, of task 4
        assert counts[2] >= 1
        with pytest.raises(InvalidRequest, match="partition 7"):
            _appends(topic, pa.table({"value": ["1"], "partition": [7]}), 0, 0)
        with pytest.raises(InvalidRequest, match="need a column 'value'"):
            _appends(topic, pa.table({"a": [1]}), 0, 0)

    simulate(main())
