"""Columns as records, and the one way to part frames."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

from headwater.log.codec_schema import RECORD_SCHEMA
from headwater.log.small import partition_of
from headwater.streams.serde.keys import key_array
from headwater.streams.serde.records import FILTERS_MAX, parted, placed_at, records_of

FRAME = pl.DataFrame({"k": [f"key{i % 23}" for i in range(200)], "n": range(200)})


@pytest.mark.parametrize("partitions", [1, 2, FILTERS_MAX, FILTERS_MAX + 1, 40])
def test_rows_go_where_their_key_says_in_the_old_order(partitions: int) -> None:
    wanted: dict[int, list[int]] = {}
    for key, n in FRAME.iter_rows():
        wanted.setdefault(partition_of(key.encode(), partitions), []).append(n)
    found = parted(FRAME, key_array(FRAME, ["k"]), partitions)
    assert wanted == {number: part.get_column("n").to_list() for number, part in found.items()}
    assert {("k", "n")} == {tuple(part.columns) for part in found.values()}


@pytest.mark.parametrize("partitions", [3, FILTERS_MAX + 1])
def test_rows_without_a_key_go_where_they_are_told(partitions: int) -> None:
    frame = pl.DataFrame({"k": [None, None], "n": [1, 2]}, schema={"k": pl.String, "n": pl.Int64})
    assert [2] == list(parted(frame, key_array(frame, ["k"]), partitions, 2))
    assert [0] == list(parted(frame, key_array(frame, ["k"]), partitions))
    assert [2] == list(parted(frame, key_array(frame, []), partitions, 2))


def test_records_have_the_schema_of_the_log() -> None:
    made = records_of(7, None, pa.array([b"a", b"b"], pa.binary()))
    assert RECORD_SCHEMA == made.schema
    assert [7, 7] == made.column("timestamp").cast(pa.int64()).to_pylist()
    assert [None, None] == made.column("key").to_pylist()
    assert [5, 6] == placed_at(made, 5).column("offset").to_pylist()
    assert made.equals(placed_at(made, 5).drop_columns(["offset"]))


def test_no_values_are_no_records() -> None:
    assert 0 == records_of(7, None, pa.array([], pa.binary())).num_rows
