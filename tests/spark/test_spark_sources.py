"""Spark itself reads and writes topics: one local session, batch and Structured Streaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.log.namespace import Namespace
from headwater.log.partitioner import partition_of
from headwater.schemas.change import set_schema
from tests.spark.helpers_spark import fill, in_namespace, records, skip_without_spark, spark_session, values

skip_without_spark()
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from headwater.spark import HeadwaterDataSource

    session = spark_session(tmp_path_factory.mktemp("spark"))
    session.dataSource.register(HeadwaterDataSource)
    yield session
    session.stop()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'log'}"


def source(spark: Any, url: str, topic: str, **options: str) -> Any:
    return spark.read.format("headwater").options(topic=topic, **options).load(url)


def test_a_batch_is_read_in_splits_with_the_columns_and_rows_that_were_asked_for(spark: Any, url: str) -> None:
    fill(url, "a", {p: [records(0, 300, partition=p), records(300, 300, partition=p)] for p in range(2)})
    rows = source(spark, url, "a", recordsPerSplit="250", where="offset >= 590 and partition == 1")
    assert 6 == rows.rdd.getNumPartitions()
    assert ["partition", "offset", "timestamp", "key", "value", "headers"] == rows.columns
    assert [(1, n, f"1-{n}".encode()) for n in range(590, 600)] == sorted(
        (row.partition, row.offset, bytes(row.value)) for row in rows.collect()
    )

    starts = '{"a": {"0": 598, "1": -1}}'
    texts = spark.read.format("headwater").options(topic="a", startingOffsets=starts).schema("value string").load(url)
    assert ["0-598", "0-599"] == sorted(row.value for row in texts.collect())


def test_times_and_commits_bound_what_is_read(spark: Any, url: str) -> None:
    fill(url, "a", {0: [records(0, 10), records(10, 10)]})
    timed = source(
        spark, url, "a", columns="offset", startingTimestamp="5000", endingTimestamp="1970-01-01T00:00:08+00:00"
    )
    assert [5, 6, 7] == sorted(row.offset for row in timed.collect())
    newest = in_namespace(url, _seq)
    assert 10 == source(spark, url, "a", columns="offset", startingCommit=str(newest - 1)).count()
    assert 10 == source(spark, url, "a", columns="offset", asOf=str(newest - 1)).count()


async def _seq(namespace: Namespace) -> int:
    return namespace.state.seq


def test_filters_of_spark_choose_partitions_and_offsets_on_request(spark: Any, url: str) -> None:
    fill(url, "a", {p: [records(0, 400, partition=p)] for p in range(3)})
    rows = source(spark, url, "a", recordsPerSplit="100", pushFilters="true")
    few = rows.where("partition = 2 AND offset > 150 AND offset <= 260 AND timestamp < timestamp'1970-01-01 00:04:00'")
    assert 2 == few.rdd.getNumPartitions()
    assert list(range(151, 240)) == sorted(row.offset for row in few.collect())


def test_typed_columns_go_through_spark_and_back(spark: Any, url: str) -> None:
    definition = {
        "name": "string not null",
        "small": "uint32",
        "at": "timestamp[ms, tz=UTC]",
        "tags": "list<item: string>",
    }

    async def make(namespace: Namespace) -> None:
        for name in ("typed", "copy"):
            await namespace.create_topic(name, 1)
            await set_schema(namespace, name, "arrow", definition)

    in_namespace(url, make)
    wanted = [
        b'{"name":"a","small":4294967295,"at":"2020-01-01T00:00:00Z","tags":["x","y"]}',
        b'{"name":"b","small":null,"at":null,"tags":null}',
    ]
    fill(url, "typed", {0: [pa.table({"timestamp": pa.array([1, 2], pa.timestamp("ms", "UTC")), "value": wanted})]})
    rows = source(spark, url, "typed", columns="name,small,at,tags")
    assert [("name", "string"), ("small", "bigint"), ("at", "timestamp"), ("tags", "array<string>")] == rows.dtypes
    rows.write.format("headwater").options(topic="copy").mode("append").save(url)
    copied = source(spark, url, "copy", columns="name,small,at,tags")
    assert rows.orderBy("name").collect() == copied.orderBy("name").collect()


def test_a_batch_job_with_a_key_writes_once(spark: Any, url: str) -> None:
    fill(url, "a", {0: [records(0, 500)]})
    fill(url, "b", {2: [records(0, 1)]})
    rows = source(spark, url, "a", recordsPerSplit="100").select("timestamp", "key", "value")
    for _ in range(2):
        rows.write.format("headwater").options(topic="b", once="job 7").mode("append").save(url)
    assert sorted(["0-0", *values(url, "a")]) == values(url, "b")
    # Keys go where Kafka's partitioner sends them, as from any other client.
    read = source(spark, url, "b", where="key is not None", columns="partition,key,value").collect()
    assert all(row.partition == partition_of(bytes(row.key), 3) for row in read if row.value != b"0-0")


def test_what_cannot_be_done_is_refused_with_a_sentence(spark: Any, url: str) -> None:
    fill(url, "a", {0: [records(0, 1)]})
    with pytest.raises(Exception, match="There is no topic 'nothing'"):
        source(spark, url, "nothing").count()
    with pytest.raises(Exception, match="exclude each other"):
        source(spark, url, "a", startingOffsets="latest", startingCommit="1").count()
    rows = source(spark, url, "a")
    with pytest.raises(Exception, match="Column 'offset' cannot be written"):
        rows.write.format("headwater").options(topic="a").mode("append").save(url)


def test_a_stream_goes_on_where_its_checkpoint_ends(spark: Any, url: str, tmp_path: Path) -> None:
    fill(url, "a", {p: [records(0, 600, partition=p)] for p in range(2)})
    fill(url, "b", {0: [records(0, 1)]})

    def run() -> list[int]:
        stream = (
            spark.readStream.format("headwater")
            .options(topic="a", startingOffsets="earliest", maxOffsetsPerTrigger="500", groupId="watcher")
            .load(url)
        )
        query = (
            stream.select("key", "value")
            .writeStream.format("headwater")
            .options(topic="b", checkpointLocation=str(tmp_path / "checkpoint"))
            .trigger(availableNow=True)
            .start(url)
        )
        query.awaitTermination()
        return [progress["numInputRows"] for progress in query.recentProgress if progress["numInputRows"]]

    assert [500, 500, 200] == run()
    fill(url, "a", {1: [records(600, 7, partition=1)]})
    assert [7] == run()
    assert sorted(["0-0", *values(url, "a")]) == values(url, "b")

    async def committed(namespace: Namespace) -> dict[tuple[str, int], int]:
        return {place: found.offset for place, found in (await namespace.committed("watcher")).items()}

    # Spark tells a source that a batch is done when it begins the next one.
    assert {("a", 0): 600, ("a", 1): 600} == in_namespace(url, committed)
