from __future__ import annotations

import asyncio
import re

import pytest

from headwater.api import metrics
from headwater.api.messages import Request, Response
from headwater.api.runtime import Settings, app_for
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.small import batch_of
from headwater.meters import Meters, families
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.types import Record

LINE = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="(\\.|[^"\\])*")*\})? [0-9.e+-]+\Z')


def asked(path: str, *, auth: str = "none", namespace: str = "default", function: str = "dev") -> Response:
    meters = Meters()

    async def work() -> Response:
        app = app_for(
            function,
            Settings(store="memory://x", auth=auth, namespaces=("default", "other")),
            store=MeteredStore(MemoryStore(), meters),
            options=Options(meters=meters),
        )
        for name in ("default", "other"):
            log = await app.opened(name)
            await log.create_topic(f"topic-of-{name}")
            await log.append(f"topic-of-{name}", 0, batch_of([Record(value=b"x", timestamp=1)] * 5))
            await log.commit_offsets('g"\n', {(f"topic-of-{name}", 0): 2})
        response = await app.serve(Request(method="GET", path=path, namespace=namespace))
        await app.close()
        return response

    return asyncio.run(work())


def test_metrics_are_prometheus_text_with_help_and_type_for_each_family() -> None:
    response = asked("/metrics")
    assert 200 == response.status
    assert "text/plain; version=0.0.4; charset=utf-8" == response.headers["content-type"]
    lines = response.body.decode().splitlines()
    assert 'headwater_commits_total{namespace="default"} 3.0' in lines
    assert 'headwater_produce_records_total{namespace="default",topic="topic-of-default"} 5.0' in lines
    assert 'headwater_group_lag_records{namespace="default",group="g\\"\\n",topic="topic-of-default"} 3.0' in lines
    assert 'headwater_produce_seconds_bucket{namespace="default",le="+Inf"} 1' in lines
    assert "# TYPE headwater_store_requests_total counter" in lines
    for line in lines:
        assert line.startswith(("# HELP headwater_", "# TYPE headwater_")) or LINE.match(line.replace("+Inf", "9")), (
            line
        )


def test_requests_are_told_by_the_pattern_of_their_path_and_what_became_of_them() -> None:
    meters = Meters()

    async def work() -> None:
        app = app_for(
            "dev", Settings(store="memory://x", auth="none"), store=MemoryStore(), options=Options(meters=meters)
        )
        for path in ("/topics/a", "/topics/b", "/topics/b/nowhere/at/all", "/openapi.json"):
            await app.serve(Request(method="GET", path=path))
        await app.serve(Request(method="BREW", path="/topics"))
        await app.close()

    asyncio.run(work())
    assert {
        ("/topics/{topic}", "GET", "4xx"): 2.0,
        ("/openapi.json", "GET", "2xx"): 1.0,
        ("none", "none", "4xx"): 2.0,
    } == meters.snapshot()["headwater_http_requests"].cells
    seconds = meters.snapshot()["headwater_http_request_seconds"]
    assert {("/topics/{topic}", "GET"), ("/openapi.json", "GET"), ("none", "none")} == set(seconds.cells)


def test_metrics_tell_of_no_other_namespace() -> None:
    assert b"topic-of-other" not in asked("/metrics").body
    assert b"topic-of-default" not in asked("/metrics", namespace="other").body
    assert b"topic-of-other" in asked("/metrics", namespace="other").body


def test_lag_is_told_of_so_many_groups_pairs_and_partitions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> list[tuple[str, ...]]:
        async with await Namespace.open(MemoryStore(), options=Options(meters=Meters())) as log:
            for topic in ("a", "b"):
                await log.create_topic(topic, 3)
            for group in range(4):
                places = {(topic, number): 0 for topic in ("a", "b") for number in range(3)}
                await log.commit_offsets(f"g{group}", places)
            return [labels[1:] for family, labels, _ in metrics.gauges(log) if family is families.GROUP_LAG]

    everything = [(f"g{group}", topic) for group in range(4) for topic in ("a", "b")]
    assert everything == sorted(asyncio.run(work()))
    for bound, value, count in (("GROUPS_MAX", 2, 4), ("LAGS_MAX", 3, 3), ("LAG_PARTITIONS_MAX", 7, 4)):
        with monkeypatch.context() as patched:
            patched.setattr(metrics, f"METER_{bound}", value)
            assert count == len(asyncio.run(work())), bound


def test_metrics_want_the_credentials_of_every_other_request() -> None:
    assert 401 == asked("/metrics", auth="token").status


def test_a_function_has_no_metrics_to_scrape() -> None:
    assert 404 == asked("/metrics", function="admin").status
