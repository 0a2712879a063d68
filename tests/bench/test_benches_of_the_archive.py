"""The benches of the archive, cut short: what they report, and what must hold at any length."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.bench import cost, formats, records, replay


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


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return cost.bench(file_mib=1)


def test_ingesting_costs_what_its_requests_cost(bill: dict[str, Any]) -> None:
    for row in bill["results"][:2]:
        per_day = row["per_day"]
        usd = sum(
            count * {"put": 5e-6, "list": 5e-6, "get": 4e-7, "delete": 0.0}[kind.split()[0]]
            for kind, count in per_day.items()
        )
        assert usd == pytest.approx(row["usd_per_day"], rel=1e-3)
        assert row["usd_per_gib"] == pytest.approx(row["usd_per_day"] / row["gib_per_day"], rel=1e-2)
        assert row["put_per_day"] == sum(count for kind, count in per_day.items() if kind.startswith("put"))
        assert {"put manifest", "put segment", "put archive", "get segment"} <= set(per_day)


def test_records_are_written_twice_at_most(bill: dict[str, Any]) -> None:
    assert 1 < bill["amplification_max"] <= 2


def test_everything_that_was_archived_is_collected(bill: dict[str, Any]) -> None:
    for row in bill["results"][:2]:
        assert 0 == row["segments_left"]
        assert row["collected"]["segment"] >= row["simulated_s"]


def test_an_idle_namespace_costs_a_get_for_each_look(bill: dict[str, Any]) -> None:
    idle = bill["results"][2]
    looks = cost.RUNS_A_DAY
    assert looks <= idle["get_per_day"] < 1.1 * looks
    assert idle["usd_per_day"] < 0.001
    assert 2 * looks == idle["cold_get_per_day"]


def test_a_bill_is_the_same_twice(bill: dict[str, Any]) -> None:
    def certain(report: dict[str, Any]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "archive_mb_per_cpu_s"} for row in report["results"]]

    assert certain(bill) == certain(cost.bench(file_mib=1))


def test_replay_is_measured_beside_others_and_a_seek_reads_little() -> None:
    report = replay.bench(mib=1, rounds=1, stores=("file",), seek_files=1_000)
    assert list(records.KINDS) == [row["records"] for row in report["results"]]
    assert report["ratio_to_pyarrow"] == min(row["ratio_to_pyarrow"] for row in report["results"])
    assert all(row["duckdb_mb_per_s"] > 0 and row["raw_mb_per_s"] > 0 for row in report["results"])
    assert report["seek"]["objects"] <= 3
    assert report["seek"]["bytes"] <= 1 << 20
