"""What a reader gets: records of one partition, as stored or made anew from the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.errors import Corrupt
from headwater.log import kafka2
from headwater.types import Codec

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """``count`` records of one partition from offset ``base`` on, in their codec.

    Their offsets are ``base``, ``base + 1``, …, unless ``upto`` is given: then compaction has left gaps, ``data`` is an
    Arrow stream that has the offsets in a column of its own, and ``upto`` is one past the last of them.
    """

    topic: str
    partition: int
    base: int
    count: int
    codec: Codec
    data: bytes
    timestamp_min: int
    timestamp_max: int
    upto: int = -1

    @property
    def end(self) -> int:
        """One past the last offset."""
        return self.base + self.count if self.upto < 0 else self.upto

    @classmethod
    def of_rows(cls, topic: str, partition: int, rows: pa.RecordBatch) -> Chunk:
        """A chunk of placed records, at least one. Cost: an encoding."""
        from headwater.log import batch

        offsets: Any = rows.column("offset")
        base, last = offsets[0].as_py(), offsets[-1].as_py()
        dense = last - base == rows.num_rows - 1
        made = batch.encode_arrow(rows.drop_columns(["offset"])) if dense else batch.encode_sparse(rows)
        return cls(
            topic=topic,
            partition=partition,
            base=base,
            count=made.count,
            codec="arrow",
            data=made.data,
            timestamp_min=made.timestamp_min,
            timestamp_max=made.timestamp_max,
            upto=-1 if dense else last + 1,
        )

    def decode(self) -> pa.RecordBatch:
        """The records as Arrow: offset, timestamp, key, value, headers. Raises ``Corrupt``."""
        from headwater.log import batch

        sparse = self.upto >= 0
        placed = batch.decode_sparse(self.data) if sparse else batch.decode(self.codec, self.data, self.base)
        if placed.num_rows != self.count:
            raise Corrupt(
                f"Topic {self.topic!r}, partition {self.partition}: the batch at offset {self.base} holds "
                f"{placed.num_rows} records and the log says {self.count}."
            )
        return placed

    def kafka2(self) -> bytes:
        """The same as Kafka RecordBatch v2 bytes with their place in the log written in."""
        if self.codec == "kafka2":
            return kafka2.with_base_offset(self.data, self.base)
        from headwater.log import batch

        return batch.encode_kafka2(self.decode(), self.base)


def first_of_file(topic: str, partition: int, data: bytes, offset: int, bytes_max: int) -> Chunk | None:
    """The first records at ``offset`` and above of a whole archive file: about ``bytes_max`` of them, at least one.

    None if the file has none. Raises ``Corrupt``. Cost: decodes all of it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headwater.log import batch

    try:
        table = pq.read_table(pa.BufferReader(data), columns=batch.PLACED_SCHEMA.names).cast(batch.PLACED_SCHEMA)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"A file of topic {topic!r}, partition {partition} cannot be read: {error}.") from error
    for rows in table.to_batches():
        found = batch.slice_from(rows, offset)
        if found.num_rows:
            fitting = found.num_rows * bytes_max // max(found.nbytes, 1)
            return Chunk.of_rows(topic, partition, found.slice(0, max(1, fitting)))
    return None
