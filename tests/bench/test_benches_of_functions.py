"""The benches of functions, cut short: what they report, and what must hold at any length."""

from __future__ import annotations

import pytest

from headwater.bench import coldstart, http, serverless


def test_functions_under_contention_cost_what_handles_cost() -> None:
    report = serverless.bench(8, "s3-express", seconds=3.0)
    assert (report["callers"], report["profile"]) == (8, "s3-express")
    assert report["goodput_to_handles"] > 0.8
    assert report["put_per_batch"] < 1.3
    assert set(report["handles"]) <= set(report)


def test_functions_under_contention_are_the_same_twice() -> None:
    first, again = (serverless.bench(3, "s3-express", seconds=2.0, seed=5) for _ in range(2))
    assert {**first, "wall_s": 0} == {**again, "wall_s": 0}


@pytest.mark.slow
def test_http_is_measured_per_core_beside_the_log_alone() -> None:
    report = http.bench(0.02)
    rows = {(row["verb"], row["body"], row["records"]) for row in report["results"]}
    kinds = [("json", 1), ("json", 100), ("json", 10_000), ("arrow", 1), ("arrow", 100), ("arrow", 10_000)]
    assert rows == {(verb, *kind) for verb in ("produce", "fetch") for kind in kinds}
    assert report["ratio_to_raw_append"] > 0.1
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in report["latency_s3_standard"])


@pytest.mark.slow
def test_a_cold_start_answers_and_says_what_it_imported() -> None:
    report = coldstart.bench(manifests=1_000, rounds=1)
    for name in ("produce", "fetch"):
        assert report[name]["cpu_ms"] > 0
        assert {"headwater", "python", "obstore"} <= set(report[name]["imports"])
        assert report[name]["source"]["cpu_ms"] > report[name]["cpu_ms"]
    assert "pyarrow" not in report["produce"]["imports"], "a produce of JSON needs no Arrow"
