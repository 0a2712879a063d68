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

BID = 2
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


def build(query: str, bids: Any) -> Any:
    """The query's data frame. Windows close key by key, as they do in Quix."""
    windows = import_module("quixstreams.dataframe.windows.aggregations")
    if query == "q0":
        return bids
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
    given = [(event, str(event.get(key, "all")).encode(), event[clock]) for event in events]
    results = 0

    def sink(value: Any, key: Any, timestamp: int, headers: Any) -> None:
        nonlocal results
        results += 1

    with tempfile.TemporaryDirectory() as state_dir:
        sdf, context = frame(state_dir)
        composed = build(query, sdf.filter(lambda e: e["type"] == BID)).compose(sink=sink)["nexmark"]
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
