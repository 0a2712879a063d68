"""The data source itself: what Spark asks for first, in its driver's Python worker."""

from __future__ import annotations

from pyspark.sql.datasource import (
    DataSource,
    DataSourceReader,
    DataSourceStreamReader,
    DataSourceStreamWriter,
    DataSourceWriter,
)
from pyspark.sql.types import StructType

from headwater.errors import InvalidRequest
from headwater.spark.options import Settings, settings_of
from headwater.spark.reader import FilteringReader, HeadwaterReader, HeadwaterStreamReader, topic_schema
from headwater.spark.writer import HeadwaterStreamWriter, HeadwaterWriter


class HeadwaterDataSource(DataSource):
    """``format("headwater")``. ``headwater.spark.options`` lists the options."""

    @classmethod
    def name(cls) -> str:
        return "headwater"

    @property
    def settings(self) -> Settings:
        """The options, checked. Raises ``InvalidRequest``."""
        return settings_of(self.options)

    def schema(self) -> StructType:
        return topic_schema(self.settings)

    def reader(self, schema: StructType) -> DataSourceReader:
        settings = self.settings
        return (FilteringReader if settings.push_filters else HeadwaterReader)(settings, schema)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        return HeadwaterStreamReader(self.settings, schema)

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:
        _refuse_overwriting(overwrite)
        return HeadwaterWriter(self.settings, schema)

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamWriter:  # noqa: N802 - Spark's name
        _refuse_overwriting(overwrite)
        return HeadwaterStreamWriter(self.settings, schema)


def _refuse_overwriting(overwrite: bool) -> None:
    if overwrite:
        raise InvalidRequest('A log is only appended to: say mode("append"), and outputMode("append") or ("update").')
