"""``bench http``: `headwater dev` in one process, its clients in another, and the log without HTTP beside it.

Rates are per core: what the server did, divided by the CPU time that its process took for it. JSON and Arrow bodies
hold 1, 100 and 10,000 records of 100 bytes. The baseline appends the same Arrow batches to a memory store in a
process of its own, without HTTP; ``ratio_to_raw_append`` compares bytes per CPU second. Latencies are those that
clients see when each request to the store takes as long as on S3 Standard.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pyarrow as pa

from headwater.bench.contention import quantile
from headwater.bench.slow import SlowStore
from headwater.clock import SystemClock, cpu_s, stopwatch_s, system_entropy
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.sim.latency import PROFILES
from headwater.store.memory import MemoryStore

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/vnd.kafka.json.v2+json"
PARTITIONS = 4
IN_FLIGHT = 16
VALUE_BYTES = 100
REQUESTS = {1: 2_000, 100: 1_000, 10_000: 60}  # by records in a body
REQUESTS_MIN = 32  # fewer say more of the first request, which imports, than of the others
LATENCY_CLIENTS = (1, 16)
LATENCY_REQUESTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server in a process of its own."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds that the process has used, user and system."""
        tasks = list(Path(f"/proc/{self.pid}/task").glob("*/schedstat"))
        if tasks:  # to the nanosecond; threads that have ended are left out, and this server's live as long as it
            return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
        stat = Path(f"/proc/{self.pid}/stat")
        if stat.exists():
            fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        told = subprocess.run(["ps", "-o", "time=", "-p", str(self.pid)], capture_output=True, text=True, check=True)
        minutes, _, seconds = told.stdout.strip().rpartition(":")  # as on macOS: 1:02.34
        return 60 * int(minutes) + float(seconds)


def bench(scale: float = 1.0) -> dict[str, Any]:
    """The report of ``headwater bench http``; ``scale`` makes it shorter."""
    with serving("zero") as server:
        results = asyncio.run(_throughput(server, scale))
    raw = _raw(10_000, max(REQUESTS_MIN, int(REQUESTS[10_000] * scale)))
    big = next(row for row in results if (row["verb"], row["body"], row["records"]) == ("produce", "arrow", 10_000))
    with serving("s3-standard") as server:
        latency = asyncio.run(_latencies(server, max(20, int(LATENCY_REQUESTS * scale))))
    return {
        "bench": "http",
        "in_flight": IN_FLIGHT,
        "value_bytes": VALUE_BYTES,
        "results": results,
        "raw_append_mb_per_s_per_core": round(raw, 1),
        "ratio_to_raw_append": round(big["mb_per_s_per_core"] / raw, 3),
        "latency_s3_standard": latency,
    }


# -- the server -------------------------------------------------------------------------------------------


@contextmanager
def running(module: str, *words: str) -> Iterator[Server]:
    """The module as a server in a process of its own, whose first line says where it is."""
    with subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, "the server did not start"
            yield Server(url=url, pid=process.pid)
        finally:
            process.terminate()


def serving(profile: str) -> AbstractContextManager[Server]:
    """A fresh server over a memory store with the latencies of ``profile``."""
    return running("headwater.bench.http", profile)


async def _serve(profile: str) -> None:
    """What `headwater dev` does, over a store that it could not name."""
    from headwater.api.runtime import Settings, app_for
    from headwater.api.server import serve

    clock = SystemClock()
    store = SlowStore(MemoryStore(), PROFILES[profile], clock=clock, rng=system_entropy())
    app = app_for("dev", Settings(store="memory://bench", auth="none"), store=store)
    await serve(app, port=0, ready=lambda url: print(url, flush=True))


# -- its clients --------------------------------------------------------------------------------------------


async def _throughput(server: Server, scale: float) -> list[dict[str, Any]]:
    async with _session() as session:
        await _create(session, server)
        rows = []
        for records, count in REQUESTS.items():
            for kind in ("json", "arrow"):
                requests = max(REQUESTS_MIN, int(count * scale))
                topic = f"{kind}-{records}"
                await _create(session, server, topic)
                rows.append(await _produce(session, server, topic, kind, records, requests))
                rows.append(await _fetch(session, server, topic, kind, records, requests))
    return sorted(rows, key=lambda row: str(row["verb"]), reverse=True)


async def _produce(
    session: aiohttp.ClientSession, server: Server, topic: str, kind: str, records: int, requests: int
) -> dict[str, Any]:
    body = _json_body(records) if kind == "json" else arrow_table_body(records)
    headers = {"content-type": JSON if kind == "json" else ARROW}

    async def one(i: int) -> int:
        url = f"{server.url}/topics/{topic}/partitions/{i % PARTITIONS}/records"
        async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
            found = await answer.read()
            assert answer.status == 200, found
        return len(body)

    await one(0)
    return {"verb": "produce", "body": kind, "records": records} | await _timed(server, one, requests, records)


async def _fetch(
    session: aiohttp.ClientSession, server: Server, topic: str, kind: str, records: int, requests: int
) -> dict[str, Any]:
    headers = {"accept": JSON if kind == "json" else ARROW}
    batches = requests // PARTITIONS

    async def one(i: int) -> int:
        offset = (i // PARTITIONS) % batches * records
        url = f"{server.url}/topics/{topic}/partitions/{i % PARTITIONS}/records?offset={offset}&max_bytes=1"
        async with session.get(url, headers=headers) as answer:
            found = await answer.read()
            assert answer.status == 200, found[:500]
        return len(found)

    await one(0)
    return {"verb": "fetch", "body": kind, "records": records} | await _timed(server, one, requests, records)


async def _timed(server: Server, one: Callable[[int], Awaitable[int]], requests: int, records: int) -> dict[str, Any]:
    cpu, began = server.cpu_s(), stopwatch_s()
    sizes = await _closed_loop(one, requests, IN_FLIGHT)
    wall, cpu = stopwatch_s() - began, max(server.cpu_s() - cpu, 0.01)
    return {
        "requests": requests,
        "requests_per_s": round(requests / wall, 1),
        "requests_per_s_per_core": round(requests / cpu, 1),
        "records_per_s_per_core": round(requests * records / cpu),
        "mb_per_s_per_core": round(sum(sizes) / cpu / 1e6, 2),
    }


async def _latencies(server: Server, requests: int) -> list[dict[str, Any]]:
    rows = []
    body, headers = _json_body(1), {"content-type": JSON}
    async with _session() as session:
        await _create(session, server)
        url = f"{server.url}/topics/t/partitions/0/records"

        async def produce(i: int) -> float:
            began = stopwatch_s()
            async with session.post(url, data=body, headers=headers) as answer:
                assert answer.status == 200, await answer.read()
            return (stopwatch_s() - began) * 1_000

        async def fetch(i: int) -> float:
            began = stopwatch_s()
            async with session.get(f"{url}?offset={i}&max_bytes=1", headers={"accept": JSON}) as answer:
                assert answer.status == 200, await answer.read()
            return (stopwatch_s() - began) * 1_000

        for clients in LATENCY_CLIENTS:
            for verb, one in (("produce", produce), ("fetch", fetch)):
                done = sorted(await _closed_loop(one, requests, clients))
                figures = {f"p{q}_ms": round(quantile(done, q / 100), 1) for q in (50, 99)}
                rows.append({"verb": verb, "clients": clients, "requests": requests, **figures})
    return rows


async def _closed_loop(one: Callable[[int], Awaitable[Any]], count: int, clients: int) -> list[Any]:
    numbers = iter(range(count))
    found: dict[int, Any] = {}

    async def client() -> None:
        for i in numbers:
            found[i] = await one(i)

    await asyncio.gather(*(client() for _ in range(clients)))
    return list(found.values())


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers={"accept-encoding": "identity"})


async def _create(session: aiohttp.ClientSession, server: Server, topic: str = "t") -> None:
    body = {"name": topic, "partitions": PARTITIONS}
    async with session.post(f"{server.url}/admin/topics", json=body) as answer:
        assert answer.status in (200, 201), await answer.read()


# -- bodies, and the log alone ----------------------------------------------------------------------------


def _json_body(records: int) -> bytes:
    value = "x" * (VALUE_BYTES - 2)  # JSON's quotes are part of it
    return orjson.dumps({"records": [{"key": f"key-{i % 100}", "value": value} for i in range(records)]})


def arrow_table_body(records: int) -> bytes:
    """The records as one Arrow IPC stream."""
    return encode_arrow(_table(records), compression=None).data


def _table(records: int) -> pa.Table:
    now_ms = SystemClock().wall_ms()
    return pa.table(
        {
            "timestamp": pa.array([now_ms] * records, pa.timestamp("ms", tz="UTC")),
            "key": pa.array([b"key-%d" % (i % 100) for i in range(records)], pa.binary()),
            "value": pa.array([b"x" * VALUE_BYTES] * records, pa.binary()),
        }
    )


def _raw(records: int, batches: int) -> float:
    """MB per CPU second of appends without HTTP, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        rate: float = fresh.submit(_raw_round, records, batches).result()
        return rate


def _raw_round(records: int, batches: int) -> float:
    return asyncio.run(_append_raw(records, batches))


async def _append_raw(records: int, batches: int) -> float:
    batch = encode_arrow(_table(records), compression=None)
    async with await Namespace.open(MemoryStore()) as log:
        await log.create_topic("t", PARTITIONS)

        async def one(i: int) -> int:
            await log.append("t", i % PARTITIONS, batch)
            return len(batch.data)

        await one(0)
        began = cpu_s()
        sizes = await _closed_loop(one, batches, IN_FLIGHT)
        return float(sum(sizes)) / (cpu_s() - began) / 1e6


if __name__ == "__main__":
    try:
        asyncio.run(_serve(sys.argv[1]))
    except KeyboardInterrupt:
        pass
