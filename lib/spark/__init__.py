"""Topics as sources and sinks of Apache Spark: batch and Structured Streaming, by Spark's Python Data Source API.

    from headwater.spark import HeadwaterDataSource

    spark.dataSource.register(HeadwaterDataSource)
    flights = spark.read.format("headwater").option("topic", "flights").load("s3://bucket/log")
    (flights.writeStream.format("headwater").option("topic", "late").option("checkpointLocation", "…")
        .start("s3://bucket/log"))

Headwater with its extra ``spark`` must be installed where executors run, under the Python that PYSPARK_PYTHON names.
``options`` lists what can be said; ``reader`` and ``writer`` say what is promised.
"""

from headwater.spark.source import HeadwaterDataSource

__all__ = ["HeadwaterDataSource"]
