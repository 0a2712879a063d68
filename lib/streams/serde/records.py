"""Columns as records, and frames by the partition of their keys: what sinks and repartitions have in common."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pyarrow as pa

from headwater.log import partitioner
from headwater.log.codec_schema import RECORD_SCHEMA, TIMESTAMP

FILTERS_MAX: Final = 8  # partitions up to which a filter for each is faster than one sort by partition


def records_of(times_ms: Any, keys: Any, values: Any) -> pa.RecordBatch:
    """Records without headers: columns of ``times_ms`` (int64, none negative), ``keys`` and ``values`` (binary).

    One time stands for all records. None as keys is no key.
    """
    count = len(values)
    times = pa.array([times_ms] * count, pa.int64()) if isinstance(times_ms, int) else times_ms
    return pa.RecordBatch.from_arrays(
        [
            times.cast(TIMESTAMP),
            pa.nulls(count, pa.binary()) if keys is None else keys,
            values,
            pa.nulls(count, RECORD_SCHEMA.field("headers").type),
        ],
        schema=RECORD_SCHEMA,
    )


def placed_at(records: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """Records with their offsets, of which the first is ``first``: as a reader gets them."""
    offsets = pa.array(range(first, first + records.num_rows), pa.int64())
    schema = RECORD_SCHEMA.insert(0, pa.field("offset", pa.int64(), nullable=False))
    return pa.RecordBatch.from_arrays([offsets, *records.columns], schema=schema)


def parted(frame: pl.DataFrame, keys: Any, partitions: int, otherwise: int = 0) -> dict[int, pl.DataFrame]:
    """The rows of ``frame`` by the partition of their key in ``keys``, each part in the old order.

    Rows whose key is null go to ``otherwise``. Cost: the hashing, and a filter a partition or one sort.
    """
    if partitions == 1:
        return {0: frame}
    hashed = pl.from_arrow(partitioner.partitions_of(keys, partitions))
    assert isinstance(hashed, pl.Series)
    chosen = hashed.fill_null(otherwise)
    if partitions <= FILTERS_MAX:
        parts = ((number, frame.filter(chosen == number)) for number in range(partitions))
        return {number: part for number, part in parts if part.height}
    found = frame.with_columns(chosen.alias("_partition")).partition_by(
        "_partition", as_dict=True, include_key=False, maintain_order=True
    )
    return {int(key[0]): part for key, part in found.items()}
