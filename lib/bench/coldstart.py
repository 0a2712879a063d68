"""``bench coldstart``: from a fresh process to the first acknowledged produce, and to the first fetched record.

The namespace has 10^5 manifests of history and lies behind an S3 endpoint in this process. Each run is a new
interpreter that imports the real function and calls its handler once with a function-URL event, as a new execution
environment does. CPU is that of the whole new process, interpreter and all.

``compiled`` has bytecode (as scripts/deploy ships it), ``source`` must compile every module first. Packages that no
function ships (numpy above all, which pyarrow imports where it finds it) are hidden from the new process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from statistics import median
from typing import Any

import orjson

from headwater.bench.history import grow
from headwater.bench.s3_stub import serving
from headwater.clock import stopwatch_s
from headwater.log.batch import batch_of_records
from headwater.log.frame import checksum
from headwater.sim.platform import url_event
from headwater.store.memory import MemoryStore
from headwater.store.prefixed import PrefixedStore
from headwater.types import Batch, Record

MANIFESTS = 100_000
PARTITIONS = 100
ROUNDS = 5
HIDDEN = ("numpy", "pandas", "boto3", "aioboto3", "aiohttp", "click", "rich")
JSON_V2 = "application/vnd.kafka.json.v2+json"

_CHILD = """
import json, sys, time
for name in json.loads(sys.argv[3]):
    sys.modules[name] = None
from headwater.api.runtime import function
handler = function(sys.argv[1])
answer = handler(json.loads(sys.argv[2]), None)
print(json.dumps({"cpu_ms": time.process_time() * 1000, "status": answer["statusCode"], "body": answer["body"][:400]}))
"""


def bench(manifests: int = MANIFESTS, rounds: int = ROUNDS) -> dict[str, Any]:
    """The report of ``headwater bench coldstart``."""
    store = MemoryStore()
    asyncio.run(grow(PrefixedStore(store, "hw/"), manifests, partitions=PARTITIONS, batch=_one_record()))
    with serving(store) as url, tempfile.TemporaryDirectory() as compiled:
        env = _environment(url)
        return {
            "bench": "coldstart",
            "manifests": manifests,
            "rounds": rounds,
            "hidden": list(HIDDEN),
            "produce": _measure("produce", _produce_event(), env, compiled, rounds),
            "fetch": _measure("fetch", _fetch_event(), env, compiled, rounds),
        }


def _measure(name: str, event: dict[str, Any], env: dict[str, str], compiled: str, rounds: int) -> dict[str, Any]:
    warm = {**env, "PYTHONPYCACHEPREFIX": compiled}
    _run(name, event, warm)  # compiles
    runs = [_run(name, event, warm) for _ in range(rounds)]
    source = [_run(name, event, {**env, "PYTHONPYCACHEPREFIX": os.devnull}) for _ in range(2)]
    return {
        "ms": round(median(run["ms"] for run in runs), 1),
        "cpu_ms": round(median(run["cpu_ms"] for run in runs), 1),
        "imports": _imports(name, event, warm),
        "source": {
            "ms": round(min(run["ms"] for run in source), 1),
            "cpu_ms": round(min(run["cpu_ms"] for run in source), 1),
        },
    }


def _run(name: str, event: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    began = stopwatch_s()
    done = _child(name, event, env)
    ms = (stopwatch_s() - began) * 1_000
    found: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    assert found["status"] == 200, f"the function answered {found['status']}: {found['body']}"
    return {**found, "ms": ms}


def _imports(name: str, event: dict[str, Any], env: dict[str, str]) -> dict[str, float]:
    """Import time in ms by package, the slow ones; the time of a module without what it imports itself."""
    spent: dict[str, float] = defaultdict(float)
    for line in _child(name, event, {**env, "PYTHONPROFILEIMPORTTIME": "1"}).stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            package = fields[2].strip().split(".")[0]
            spent[package if package in _SHIPPED else "python"] += int(fields[0]) / 1_000
    return {package: round(ms, 1) for package, ms in sorted(spent.items(), key=lambda item: -item[1])}


_SHIPPED = ("headwater", "obstore", "pyarrow", "msgspec", "orjson", "google_crc32c", "botocore", "aiokafka")


def _child(name: str, event: dict[str, Any], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", _CHILD, name, orjson.dumps(event).decode(), orjson.dumps(HIDDEN).decode()]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2_000:]}"
    return done


def _environment(url: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "HEADWATER_STORE": url,
        "HEADWATER_AUTH": "none",
        "NO_PROXY": "127.0.0.1",
    }


def _one_record() -> Batch:
    batch = batch_of_records(
        [Record(key=b'"k"', value=b'{"delay":7}', timestamp=1_357_034_400_000)], default_timestamp=0
    )
    return Batch(
        codec=batch.codec,
        data=batch.data,
        count=1,
        timestamp_min=batch.timestamp_min,
        timestamp_max=batch.timestamp_max,
        crc=checksum(batch.data),
    )


def _produce_event() -> dict[str, Any]:
    body = orjson.dumps({"records": [{"key": "k", "value": {"delay": 7}}]})
    return url_event("POST", "/topics/t", headers={"content-type": JSON_V2, "accept": "application/json"}, body=body)


def _fetch_event() -> dict[str, Any]:
    query = "offset=0&max_bytes=1"
    return url_event("GET", "/topics/t/partitions/1/records", query=query, headers={"accept": JSON_V2})
