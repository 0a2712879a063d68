"""``GET /metrics`` of a process without an HTTP interface, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headwater.meters import Meters, Sample, families, prometheus
from headwater.meters.server import MetricsServer


async def get(
    server: MetricsServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    def ask() -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    return await asyncio.to_thread(ask)


def counted() -> Meters:
    meters = Meters()
    meters.counter(families.COMMITS, "ns").add(3)
    meters.histogram(families.COMMIT_SECONDS, "ns").observe(0.02)
    meters.collect(lambda: [Sample(families.GROUP_LAG, ("ns", 'g"\n\\', "t"), 5.0)])
    return meters


def test_prometheus_own_parser_reads_back_what_was_counted() -> None:
    async def work() -> None:
        async with MetricsServer(meters=counted()) as server:
            status, headers, body = await get(server, "/metrics")
        assert 200 == status
        assert prometheus.CONTENT_TYPE == headers["content-type"]
        found = {family.name: family for family in text_string_to_metric_families(body.decode())}
        assert {"headwater_commits", "headwater_commit_seconds", "headwater_group_lag_records"} == set(found)
        assert ("counter", "Manifests that this process wrote.") == (
            found["headwater_commits"].type,
            found["headwater_commits"].documentation,
        )
        ((name, labels, value, *_),) = found["headwater_commits"].samples
        assert ("headwater_commits_total", {"namespace": "ns"}, 3.0) == (name, labels, value)
        ((_, labels, value, *_),) = found["headwater_group_lag_records"].samples
        assert ({"namespace": "ns", "group": 'g"\n\\', "topic": "t"}, 5.0) == (labels, value)
        buckets = {s.labels["le"]: s.value for s in found["headwater_commit_seconds"].samples if "le" in s.labels}
        assert (0.0, 1.0, 1.0) == (buckets["0.01"], buckets["0.025"], buckets["+Inf"])

    asyncio.run(work())


def test_a_scraper_that_takes_gzip_gets_it_and_each_connection_has_one_answer() -> None:
    async def work() -> None:
        async with MetricsServer(meters=counted()) as server:
            _, headers, body = await get(server, "/metrics", accept_encoding="gzip")
        assert ("gzip", "close") == (headers["content-encoding"], headers["connection"])
        assert b"headwater_commits_total" in gzip.decompress(body)

    asyncio.run(work())


def test_a_process_that_answers_is_alive_and_other_paths_and_methods_are_refused() -> None:
    async def work() -> None:
        async with MetricsServer(meters=Meters()) as server:
            assert (200, b"ok\n") == (await get(server, "/healthz"))[::2]
            assert 404 == (await get(server, "/"))[0]
            status, headers, _ = await get(server, "/metrics", method="POST")
            assert (405, "GET, HEAD") == (status, headers["allow"])
            assert (200, b"") == (await get(server, "/metrics", method="HEAD"))[::2]
            assert 400 == (await get(server, "/metrics?" + "x" * 10_000))[0]

    asyncio.run(work())


def test_a_client_that_says_nothing_is_let_go_and_one_too_many_is_not_let_in() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with MetricsServer(meters=Meters(), slow_s=0.3, connections_max=1) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET /metr")
            began_s = loop.time()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(get(server, "/healthz"), 30)
            assert b"" == await reader.read()
            assert 0.2 <= loop.time() - began_s
            writer.close()
            assert 200 == (await get(server, "/healthz"))[0]

    asyncio.run(work())


def test_a_stop_gives_the_address_back() -> None:
    async def work() -> None:
        server = MetricsServer(meters=Meters())
        await server.start()
        await server.stop()
        await server.stop()
        with socket.create_server((server.host, server.port)):
            pass

    asyncio.run(work())
