"""Nexmark's queries with Quix Streams, record by record and without a broker. Runs by itself, where Quix is installed.

    python peer_quix.py QUERY EVENTS.jsonl

Prints one JSON object: seconds, and how many results there were. Events are read before the clock starts. State lies
in RocksDB, as it does by default, and is committed every 10,000 records; nothing is sent to a changelog.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from typing import Any

PERSON, AUCTION, BID = 0, 1, 2
STATES = ("OR", "ID", "CA")
COMMIT_EVERY = 10_000
TEN_S = 10_000
DISORDER_MS = 4_000


class Nothing:
    """Stands for a broker: whatever is asked of it, it says 0."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: 0


def frame(state_dir: str) -> tuple[Any, Any]:
    """A data frame of one topic, and the context of its state."""
    registry = import_module("quixstreams.dataframe").DataFrameRegistry()
    context = import_module("quixstreams.processing.context").ProcessingContext(
        commit_interval=0,
        producer=Nothing(),
        consumer=Nothing(),
        state_manager=import_module("quixstreams.state").StateStoreManager(group_id="bench", state_dir=state_dir),
        sink_manager=import_module("quixstreams.sinks").SinkManager(),
        dataframe_registry=registry,
    )
    topics = import_module("quixstreams.models.topics")
    topic = topics.Topic("nexmark", value_deserializer="json", key_deserializer="str")
    topic.broker_config = topics.TopicConfig(
        num_partitions=1, replication_factor=1, extra_config={"retention.ms": "86400000", "cleanup.policy": "delete"}
    )
    made = import_module("quixstreams").dataframe.StreamingDataFrame(
        topic, topic_manager=Nothing(), registry=registry, processing_context=context
    )
    registry.register_root(made)
    return made, context


def _q3(event: dict[str, Any], state: Any) -> list[Any]:
    """A person meets the auctions that came before; an auction its seller, or it waits."""
    if event["type"] == PERSON:
        if event["state"] not in STATES:
            return []
        state.set("person", event)
        return [(event["name"], event["city"], auction) for auction in state.get("waiting", [])]
    if event["category"] != 10:
        return []
    person = state.get("person")
    if person is not None:
        return [(person["name"], person["city"], event["auction_id"])]
    state.set("waiting", [*state.get("waiting", []), event["auction_id"]])
    return []


def _q4(event: dict[str, Any], state: Any) -> list[Any]:
    """The best bid of each auction so far; bids that come before their auction wait."""
    auction, bids = state.get("auction"), [event]
    if event["type"] == AUCTION:
        auction, bids = event, state.get("waiting", [])
        state.set("auction", event)
    elif auction is None:
        state.set("waiting", [*state.get("waiting", []), event])
        return []
    prices = [bid["price"] for bid in bids if auction["ts"] <= bid["ts"] <= auction["expires"]]
    best = state.get("best", 0)
    if max(prices, default=0) <= best:
        return []
    state.set("best", max(prices))
    return [(auction["category"], max(prices))]


def _q8(event: dict[str, Any], state: Any) -> list[Any]:
    """A new person who sells within the same 10 s, once."""
    window = event["ts"] // TEN_S
    known = state.get(f"{window}", {})
    now = {**known, "name": event["name"]} if event["type"] == PERSON else {**known, "sells": True}
    if now == known:
        return []
    state.set(f"{window}", now)
    return [(now["name"], window)] if len(now) == 2 else []


JOINS = {"q3": (_q3, {PERSON: "person_id", AUCTION: "seller"}), "q4": (_q4, {AUCTION: "auction_id", BID: "auction"})}
JOINS["q8"] = (_q8, JOINS["q3"][1])


def build(query: str, bids: Any) -> Any:
    """The query's data frame. Windows close key by key, as they do in Quix."""
    windows = import_module("quixstreams.dataframe.windows.aggregations")
    if query == "q0":
        return bids
    if query in JOINS:
        return bids.apply(JOINS[query][0], stateful=True, expand=True)
    if query == "q1":
        return bids.apply(lambda e: {**e, "price": e["price"] * 0.908})
    if query == "q2":
        return bids.filter(lambda e: e["auction"] % 123 == 0).apply(lambda e: {"a": e["auction"], "p": e["price"]})
    if query == "q5":
        return bids.hopping_window(TEN_S, 2_000, grace_ms=DISORDER_MS).agg(n=windows.Count()).final()
    if query == "q7":
        return bids.tumbling_window(TEN_S, grace_ms=DISORDER_MS).agg(most=windows.Max("price")).final()
    if query == "q11":
        return bids.session_window(TEN_S, grace_ms=DISORDER_MS).agg(n=windows.Count()).final()
    return bids.tumbling_window(TEN_S).agg(n=windows.Count()).final()


def main(query: str, path: str) -> None:
    """Run one query over the events of a file."""
    context_of = import_module("quixstreams.context").set_message_context
    message = import_module("quixstreams.models.messagecontext").MessageContext
    key = {"q5": "auction", "q7": ""}.get(query, "bidder")
    clock = "arrived" if query == "q12" else "ts"
    with open(path) as lines:
        events = [json.loads(line) for line in lines]
    # A join's events lie by what they are joined on, as in a topic that somebody has keyed so.
    keys = JOINS[query][1] if query in JOINS else {}
    given = [(event, str(event.get(keys.get(event["type"], key), "all")).encode(), event[clock]) for event in events]
    results = 0

    def sink(value: Any, key: Any, timestamp: int, headers: Any) -> None:
        nonlocal results
        results += 1

    with tempfile.TemporaryDirectory() as state_dir:
        sdf, context = frame(state_dir)
        kinds = set(keys) or {BID}
        composed = build(query, sdf.filter(lambda e: e["type"] in kinds)).compose(sink=sink)["nexmark"]
        context.state_manager.on_partition_assign(stream_id=sdf.stream_id, partition=0, committed_offsets={})
        context.init_checkpoint()
        started = time.process_time()  # noqa: TID251 - this file runs without Headwater
        for offset, (value, at, when) in enumerate(given):
            context_of(message(topic="nexmark", partition=0, offset=offset, size=0))
            composed(value, at, when, [])
            context.store_offset(topic="nexmark", partition=0, offset=offset)
            if offset % COMMIT_EVERY == COMMIT_EVERY - 1:
                context.commit_checkpoint(force=True)
        context.commit_checkpoint(force=True)
        seconds = time.process_time() - started  # noqa: TID251
    sys.stdout.write(json.dumps({"seconds": seconds, "results": results}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
