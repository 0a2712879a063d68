"""``bench serverless``: many one-request processes that produce through real handlers, in simulated time.

As ``bench contention``, whose writers are namespace handles; here each of N callers has a function of its own, in a
process of its own, which serves one event at a time: JSON in, route, service, engine, JSON out, and drained before
it returns, as ``headwater.api.runtime`` does. The store is simulated. The same run measures the handles beside it.
"""

from __future__ import annotations

import random
from typing import Any

import orjson

from headwater.api import http
from headwater.api.runtime import Settings, app_for
from headwater.bench.contention import PARTITIONS, RECORD, Opened, measure, span_s
from headwater.clock import stopwatch_s
from headwater.log.options import Options
from headwater.sim.faults import SimStore
from headwater.sim.latency import PROFILES
from headwater.sim.loop import SimClock
from headwater.sim.platform import url_event

JSON = "application/vnd.kafka.json.v2+json"
CALLERS = 256


def bench(
    callers: int = CALLERS, profile: str = "s3-standard", *, seconds: float = 0.0, seed: int = 1
) -> dict[str, Any]:
    """The report of ``headwater bench serverless``: as that of contention, and that one's figures as ``handles``."""
    span = seconds or span_s(callers)
    began = stopwatch_s()
    served = measure(callers, profile, seconds=span, seed=seed, open_one=open_function).as_dict()
    handles = measure(callers, profile, seconds=span, seed=seed).as_dict()
    return {
        "bench": "serverless",
        "callers": callers,
        "profile": profile,
        "simulated_s": span,
        "seed": seed,
        "profile_put_p50_ms": PROFILES[profile].put[0],
        **served,
        "goodput_to_handles": round(served["batches_per_s"] / handles["batches_per_s"], 3),
        "handles": handles,
        "wall_s": round(stopwatch_s() - began, 1),
    }


async def open_function(store: SimStore, clock: SimClock, rng: random.Random, options: Options, number: int) -> Opened:
    """Caller ``number``'s function: the whole of ``produce``, over a store of its own."""
    settings = Settings(store=store.url, auth="none")
    app = app_for("produce", settings, store=store, clock=clock, rng=rng, options=options)
    body = orjson.dumps({"records": [{"value": "x" * len(RECORD.data)}]})
    path = f"/topics/t/partitions/{number % PARTITIONS}/records"
    event = url_event("POST", path, headers={"content-type": JSON}, body=body)

    async def invoke() -> None:
        answer = await http.handle(event, app)
        assert answer["statusCode"] == 200, answer["body"]
        await app.drain()  # R10: nothing is under way when the platform freezes the process

    await app.opened(settings.namespace)
    return invoke, app.drain
