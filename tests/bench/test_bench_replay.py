"""``bench replay``, cut short: what it reports, and what a seek may read."""

from __future__ import annotations

import asyncio

import pytest

from headwater.bench import replay


@pytest.mark.slow
def test_replay_is_measured_beside_others_that_read_the_same_files() -> None:
    report = replay.bench(2, rounds=1, stores=("file",), seek_files=300)
    assert [(row["store"], row["records"]) for row in report["results"]] == [("file", kind) for kind in replay.KINDS]
    for row in report["results"]:
        assert all(row[name] > 0 for name in row if name.endswith("_per_s"))
    assert report["ratio_to_pyarrow"] == min(row["ratio_to_pyarrow"] for row in report["results"])


@pytest.mark.slow
def test_a_bucket_of_s3_is_measured_too() -> None:
    (row, *_) = replay.bench(1, rounds=1, stores=("s3",), seek_files=10)["results"]
    assert (row["store"], row["duckdb_mb_per_s"]) == ("s3", None)
    assert row["mb_per_s"] > 0


@pytest.mark.slow
def test_a_seek_among_ten_thousand_files_reads_three_objects_at_most() -> None:
    seek = asyncio.run(replay._seek(10_000))
    assert seek["files"] == 10_000
    assert seek["objects"] <= 3
    assert seek["bytes"] <= 1 << 20


def test_a_seek_among_hundreds_of_files_reads_a_page_and_a_file() -> None:
    assert asyncio.run(replay._seek(400))["objects"] <= 2
