"""``bench nexmark``: ten queries in process and through the log, beside Flink, a batch engine and Python peers.

What is not comparable with Flink's published figures: they are of a cluster with RocksDB, checkpoints and a generator
inside; ours hold the state in memory and write its changes to a topic (in process: make them and drop them). Events
count as in Flink's: all of them, also those that a query passes over.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

EVENTS = 2_000_000
ROUNDS = 2
FLINK_TIMES, FLINK_TIMES_LOG, PEER_TIMES, BATCH_TIMES = 20, 5, 10, 3  # what we want to reach


def bench(
    events: int = EVENTS, *, rounds: int = ROUNDS, seed: int = 1, peer_python: str = "", names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The report of ``headwater bench nexmark``. Raises ``Different`` if a result is not DuckDB's.

    Cost: at the default size about a minute; 10^7 events take about 4 GiB of memory.
    """
    from headwater.bench.nexmark import peers
    from headwater.bench.nexmark.generator import Generator
    from headwater.bench.nexmark.measure import measure
    from headwater.bench.nexmark.queries import QUERIES

    generator = Generator(events=events, seed=seed)
    chosen = names or tuple(QUERIES)
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is first imported: in the new process
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found = fresh.submit(measure, generator, chosen, rounds).result()
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
        else:
            os.environ["POLARS_MAX_THREADS"] = before
    python = peers.found(peer_python)
    reason = peers.missing(python)
    rates = {} if reason else peers.measure(python, generator, chosen)
    queries = {
        name: {
            "about": QUERIES[name].about,
            **_ratios(row, QUERIES[name].flink),
            **_beside(row, rates.get(name), reason),
        }
        for name, row in found.items()
    }
    return {
        "bench": "nexmark",
        "events": events,
        "event_rate": generator.rate,
        "seed": seed,
        "rounds": rounds,
        "peers": reason or peers.VERSIONS,
        "missed": missed(queries),
        "queries": queries,
    }


def missed(queries: dict[str, dict[str, Any]]) -> list[str]:
    """What is not reached, as ``query: ratio``."""
    least = {
        "ratio_to_flink": FLINK_TIMES,
        "ratio_to_flink_log": FLINK_TIMES_LOG,
        "ratio_to_best_python_peer": PEER_TIMES,
    }
    short = [
        f"{name}: {ratio} {row[ratio]} < {wanted}"
        for name, row in queries.items()
        for ratio, wanted in least.items()
        if row[ratio] is not None and row[ratio] < wanted
    ]
    slow = [
        f"{name}: ratio_to_batch {row['ratio_to_batch']} > {BATCH_TIMES}"
        for name, row in queries.items()
        if row["ratio_to_batch"] > BATCH_TIMES
    ]
    return short + slow


def _ratios(row: dict[str, Any], flink: int) -> dict[str, Any]:
    return {
        **row,
        "ratio_to_flink": round(row["events_per_s"] / (flink * 1_000), 1),
        "ratio_to_flink_log": round(row["events_per_s_log"] / (flink * 1_000), 1),
        "ratio_to_batch": round(row["events_per_s_batch"] / row["events_per_s"], 2),
    }


def _beside(row: dict[str, Any], rates: dict[str, float] | None, reason: str) -> dict[str, Any]:
    from headwater.bench.nexmark import peers

    fastest = peers.best(rates or {})
    if fastest is None:
        return {"ratio_to_best_python_peer": None, "no_peer": reason or peers.NO_EQUIVALENT}
    peer, rate = fastest
    return {
        "ratio_to_best_python_peer": round(row["events_per_s"] / rate, 1),
        "best_python_peer": peer,
        "events_per_s_peers": {name: round(each) for name, each in (rates or {}).items()},
    }
