"""The gateway's benchmark measures what it says, in little."""

from __future__ import annotations

import pytest

from headwater.bench.kafka import IDLE_CONNECTIONS, SIZES, bench


@pytest.mark.slow
def test_it_measures_throughput_latency_and_idle_connections() -> None:
    found = bench(mib=1, seconds=1.0)
    assert found["produce"]["ratio_to_ceiling"] > 0
    assert found["fetch"]["ratio_to_ceiling"] > 0
    for name in ("ceiling", "memory", "file"):
        assert list(SIZES) == [row["value_bytes"] for row in found[name]]
    latency = found["latency_s3_standard"]
    assert 0 < latency["ack_p50_ms"] <= latency["ack_p99_ms"]
    assert 0 < latency["end_to_end_p50_ms"] <= latency["end_to_end_p99_ms"]
    assert IDLE_CONNECTIONS == found["idle"]["connections"]
