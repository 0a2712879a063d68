"""A streaming query is killed with SIGKILL at the two worst moments and started again: nothing is lost or doubled."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from headwater.log.namespace import Namespace
from tests.spark.helpers_spark import fill, in_namespace, records, run_program, skip_without_spark, values

skip_without_spark()
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]

# The class is sent by value to Spark's workers; there the sink kills Java and the driver around its own commit.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from headwater.spark import HeadwaterDataSource
from headwater.spark.writer import HeadwaterStreamWriter
from tests.spark.helpers_spark import spark_session

url, scratch, moment, number = sys.argv[1:]

class Dying(HeadwaterStreamWriter):
    def commit(self, messages, batchId):
        if (self.moment, self.number) == ("before", batchId):
            self.die()
        super().commit(messages, batchId)
        if (self.moment, self.number) == ("after", batchId):
            self.die()

    def die(self):
        for victim in self.victims:
            os.kill(victim, signal.SIGKILL)
        os._exit(1)

class Source(HeadwaterDataSource):
    def streamWriter(self, schema, overwrite):
        writer = Dying(self.settings, schema)
        writer.moment, writer.number = self.options["moment"], int(self.options["number"])
        writer.victims = [int(pid) for pid in self.options["victims"].split(",")]
        return writer

spark = spark_session(Path(scratch) / "spark")
spark.dataSource.register(Source)
victims = f"{spark.sparkContext._jvm.ProcessHandle.current().pid()},{os.getpid()}"
rows = spark.readStream.format("headwater").options(topic="a", startingOffsets="earliest", maxOffsetsPerTrigger="200")
query = (
    rows.load(url).select("key", "value").repartition(2).writeStream.format("headwater")
    .options(topic="b", checkpointLocation=scratch + "/checkpoint", moment=moment, number=number, victims=victims)
    .trigger(availableNow=True).start(url)
)
query.awaitTermination()
spark.stop()
"""


def test_a_killed_stream_writes_every_batch_once(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'log'}"
    fill(url, "a", {p: [records(0, 400, partition=p)] for p in range(2)})

    async def make(namespace: Namespace) -> None:
        await namespace.create_topic("b", 2)

    in_namespace(url, make)
    code, said = run_program(PROGRAM, [url, str(tmp_path), "after", "1"], tmp_path)
    assert -signal.SIGKILL == code, said
    assert 400 == len(values(url, "b"))  # batches 0 and 1 are in the log; of 1 Spark does not know it
    code, said = run_program(PROGRAM, [url, str(tmp_path), "before", "3"], tmp_path)
    assert -signal.SIGKILL == code, said
    assert 600 == len(values(url, "b"))  # batch 1 came again and was refused; batch 3 was staged and not committed
    code, said = run_program(PROGRAM, [url, str(tmp_path), "never", "0"], tmp_path)
    assert 0 == code, said
    assert values(url, "a") == values(url, "b")
