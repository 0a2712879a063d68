"""Nexmark's queries with Bytewax, record by record. Runs by itself, in an interpreter that has Bytewax.

    python peer_bytewax.py QUERY EVENTS.jsonl

Prints one JSON object: seconds, and how many results there were. Events are read before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any

BID = 2
START = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - in its own interpreter, perhaps an older one
DISORDER = timedelta(seconds=4)


def _time(event: dict[str, Any]) -> datetime:
    at: datetime = event["at"]
    return at


def _bidder(event: dict[str, Any]) -> str:
    return str(event["bidder"])


def build(query: str, flow: Any, events: list[dict[str, Any]]) -> Any:
    """The flow's last stream."""
    op = import_module("bytewax.operators")
    windowing = import_module("bytewax.operators.windowing")
    testing = import_module("bytewax.testing")
    bids = op.filter("bids", op.input("in", flow, testing.TestingSource(events, 1_000)), lambda e: e["type"] == BID)
    if query == "q0":
        return bids
    if query == "q1":
        return op.map("euro", bids, lambda e: {**e, "price": e["price"] * 0.908})
    if query == "q2":
        some = op.filter("some", bids, lambda e: e["auction"] % 123 == 0)
        return op.map("narrow", some, lambda e: (e["auction"], e["price"]))
    clock = windowing.EventClock(ts_getter=_time, wait_for_system_duration=DISORDER)
    ten = timedelta(seconds=10)
    windows = {
        "q5": lambda: windowing.SlidingWindower(length=ten, offset=timedelta(seconds=2), align_to=START),
        "q7": lambda: windowing.TumblingWindower(length=ten, align_to=START),
        "q11": lambda: windowing.SessionWindower(gap=ten),
        "q12": lambda: windowing.TumblingWindower(length=ten, align_to=START),
    }
    if query == "q7":
        keyed = op.key_on("all", bids, lambda e: "all")
        return windowing.max_window("max", keyed, clock, windows[query](), by=lambda e: e["price"]).down
    key: Callable[[dict[str, Any]], str] = (lambda e: str(e["auction"])) if query == "q5" else _bidder
    return windowing.count_window("count", bids, clock, windows[query](), key).down


def main(query: str, path: str) -> None:
    """Run one query over the events of a file."""
    op, testing = import_module("bytewax.operators"), import_module("bytewax.testing")
    dataflow = import_module("bytewax.dataflow")
    with open(path) as lines:
        events = [json.loads(line) for line in lines]
    for event in events:
        event["at"] = START + timedelta(milliseconds=event["arrived" if query == "q12" else "ts"])
    results: list[Any] = []
    flow = dataflow.Dataflow("nexmark")
    op.output("out", build(query, flow, events), testing.TestingSink(results))
    started = time.process_time()  # noqa: TID251 - this file runs without Headwater
    testing.run_main(flow)
    seconds = time.process_time() - started  # noqa: TID251
    sys.stdout.write(json.dumps({"seconds": seconds, "results": len(results)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
