"""The benches of the archive, cut short: what they report, and what must hold at any length."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.bench import formats, records


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return formats.bench(mib=1, rounds=1)


def test_three_formats_are_measured_on_three_kinds_of_records(report: dict[str, Any]) -> None:
    rows = {(row["records"], row["format"]): row for row in report["results"]}
    assert {(kind, name) for kind in records.KINDS for name in formats.FORMATS} == set(rows)
    for row in rows.values():
        assert 0 < row["size_percent"] < 110
        assert min(row["write_mb_per_s"], row["replay_mb_per_s"], row["project_mb_per_s"]) > 0
        assert row["seek_requests"] >= 1
        assert row["project_percent_read"] < 50


def test_parquet_is_smaller_and_read_by_all(report: dict[str, Any]) -> None:
    assert report["ratios"]["size"] < 1.05
    for row in report["results"]:
        assert "yes" == row["pyarrow"]
        if row["format"] == "parquet":
            assert "no" not in (row["polars"], row["duckdb"])


def test_records_have_the_size_that_their_kind_says() -> None:
    for kind, size in (("100 B", 100), ("1 KB", 1_000)):
        table = records.placed(kind, 1)
        assert size * table.num_rows == records.payload_bytes(table)
        assert list(range(table.num_rows)) == table.column("offset").to_pylist()
    assert records.payload_bytes(records.placed("flights", 1)) > 0
