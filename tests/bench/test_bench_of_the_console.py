from __future__ import annotations

from headwater.bench import console


def test_every_page_over_a_large_namespace_is_measured_from_a_warm_state() -> None:
    report = console.bench(partitions=200, groups=600, rounds=2)
    assert ("console", 200, 600) == (report["bench"], report["partitions"], report["groups"])
    assert list(console.PAGES) == list(report["pages"])
    for page in report["pages"].values():
        assert 0 < page["p50_ms"] <= page["max_ms"]
    assert 0 < report["memory_mib"]["before"] <= report["memory_mib"]["most"]


def test_a_namespace_smaller_than_a_topic_of_the_bench_is_measured_too() -> None:
    report = console.bench(partitions=2, groups=2, rounds=1)
    assert (2, 2) == (report["partitions"], report["groups"])
