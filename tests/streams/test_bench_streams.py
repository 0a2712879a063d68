"""The benchmark of kernels runs, and its windows do not grow."""

from __future__ import annotations

import pytest

from headwater.bench import streams


def test_kernels_are_timed_and_their_state_stays_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH", 1_000)
    monkeypatch.setattr(streams, "RESTORED", 10_000)
    report = streams.bench(60, rounds=1)
    assert report["restored_keys_per_s"] > 0
    assert report["restored_keys_per_s_log"] > 0
    for row in report["results"]:
        assert row["held_rows_per_s"] > 0
        assert row["committed_rows_per_s"] > 0
        assert row["flat"][-1] <= 40_000
