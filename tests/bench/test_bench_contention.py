"""``bench contention``: what its report says, of one run and of several."""

from __future__ import annotations

import pytest

from headwater.bench.contention import Result, bench, measure
from headwater.errors import InvalidRequest

ONE = Result(batches=1, seconds=2.0, latencies_ms=[10.0], put=1.0, get=4.0, list=0.0, manifests=1)
THREE = Result(batches=3, seconds=2.0, latencies_ms=[20.0, 30.0, 40.0], put=2.0, get=0.0, list=1.0, manifests=3)


def test_runs_are_pooled_by_what_each_of_them_has_done() -> None:
    both = Result.pooled([ONE, THREE])
    assert (4, 4.0, 4) == (both.batches, both.seconds, both.manifests)
    assert [10.0, 20.0, 30.0, 40.0] == sorted(both.latencies_ms)
    assert (1.75, 1.0, 0.75) == (both.put, both.get, both.list)
    assert ONE == Result.pooled([ONE])


def test_a_report_of_two_seeds_is_that_of_both_their_runs() -> None:
    report = bench(2, "s3-express", seconds=2.0, seed=5, seeds=2, naive=False)
    runs = [measure(2, "s3-express", seconds=2.0, seed=seed) for seed in (5, 6)]
    assert runs[0].latencies_ms != runs[1].latencies_ms
    assert sum(run.batches for run in runs) == report["batches"]
    assert max(max(run.latencies_ms) for run in runs) == pytest.approx(report["max_ms"], abs=0.1)
    assert (5, 2) == (report["seed"], report["seeds"])


def test_a_writer_that_sends_now_and_then_is_one_more_beside_gateways() -> None:
    report = bench(1, "s3-express", seconds=8.0, seeds=2, requests_per_s=50.0, pause_s=2.0)
    assert 4 <= report["sporadic_batches"] <= 16
    assert "naive" not in report
    with pytest.raises(InvalidRequest, match="--requests-per-s"):
        bench(1, "s3-express", pause_s=2.0)
