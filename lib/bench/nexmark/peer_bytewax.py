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

PERSON, AUCTION, BID = 0, 1, 2
STATES = ("OR", "ID", "CA")
START = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - in its own interpreter, perhaps an older one
DISORDER = timedelta(seconds=4)


def _time(event: dict[str, Any]) -> datetime:
    at: datetime = event["at"]
    return at


def _bidder(event: dict[str, Any]) -> str:
    return str(event["bidder"])


def _kept(op: Any, given: Any, name: str, kind: int, key: str, also: Callable[[dict[str, Any]], bool]) -> Any:
    """The events of one kind for which ``also`` holds, by a key."""
    some = op.filter(name, given, lambda e: e["type"] == kind and also(e))
    return op.key_on(f"{name}-key", some, lambda e: str(e[key]))


def _joined(query: str, op: Any, windowing: Any, given: Any) -> Any:
    """The queries that join: q3 and q4 as events come, q8 in windows."""
    if query == "q3":
        people = _kept(op, given, "people", PERSON, "person_id", lambda e: e["state"] in STATES)
        auctions = _kept(op, given, "auctions", AUCTION, "seller", lambda e: e["category"] == 10)
        both = op.join("join", auctions, people, emit_mode="running")
        whole = op.filter("both", both, lambda item: None not in item[1])
        return op.map("narrow", whole, lambda item: (item[1][1]["name"], item[1][1]["city"], item[1][0]["auction_id"]))
    if query == "q4":
        auctions = _kept(op, given, "auctions", AUCTION, "auction_id", lambda e: True)
        bids = _kept(op, given, "bids", BID, "auction", lambda e: True)
        both = op.join("join", auctions, bids, emit_mode="running")
        valid = op.filter("valid", both, lambda item: _is_valid(*item[1]))
        best = op.stateful_map("best", valid, _best)
        return op.stateful_map("mean", op.map("by", best, lambda item: item[1]), _mean)
    people = _kept(op, given, "people", PERSON, "person_id", lambda e: True)
    auctions = _kept(op, given, "auctions", AUCTION, "seller", lambda e: True)
    clock = windowing.EventClock(ts_getter=_time, wait_for_system_duration=DISORDER)
    ten = windowing.TumblingWindower(length=timedelta(seconds=10), align_to=START)
    return windowing.join_window("join", clock, ten, people, auctions).down


def _is_valid(auction: dict[str, Any] | None, bid: dict[str, Any] | None) -> bool:
    return auction is not None and bid is not None and auction["ts"] <= bid["ts"] <= auction["expires"]


def _best(best: int | None, pair: tuple[dict[str, Any], dict[str, Any]]) -> tuple[int, Any]:
    """The auction's best bid so far, and by category what it adds to the mean: a count and a sum."""
    auction, bid = pair
    now = max(best or 0, bid["price"])
    return now, (str(auction["category"]), (int(best is None), now - (best or 0)))


def _mean(known: tuple[int, int] | None, more: tuple[int, int]) -> tuple[tuple[int, int], float]:
    count, total = known or (0, 0)
    count, total = count + more[0], total + more[1]
    return (count, total), total / count


def build(query: str, flow: Any, events: list[dict[str, Any]]) -> Any:
    """The flow's last stream."""
    op = import_module("bytewax.operators")
    windowing = import_module("bytewax.operators.windowing")
    testing = import_module("bytewax.testing")
    given = op.input("in", flow, testing.TestingSource(events, 1_000))
    if query in ("q3", "q4", "q8"):
        return _joined(query, op, windowing, given)
    bids = op.filter("bids", given, lambda e: e["type"] == BID)
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
