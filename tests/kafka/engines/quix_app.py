"""A Quix Streams application that sums numbers per key, exactly once: ``python quix_app.py BOOTSTRAP STATE CRASH_AT``.

Every number of topic ``numbers`` gives one record of topic ``sums``: the number, and the sum of its key so far. The
sums lie in a RocksDB state store with its changelog topic in Kafka. With CRASH_AT above zero the process dies at its
CRASH_AT-th record, in the middle of a transaction, without a word to anybody: as ``kill -9`` does it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from quixstreams import Application, State


def run(bootstrap: str, state_dir: str, crash_at: int) -> None:
    """Serve until the input has been silent for a few seconds."""
    app = Application(
        broker_address=bootstrap,
        consumer_group="quix",
        state_dir=state_dir,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=50,  # several transactions before the crash, and one that it tears
        commit_interval=60.0,
        # Each start has a transactional id of its own, so a dead one is not fenced: its transaction stays open until it
        # times out, and its member until its session does. Both are a minute or so by default.
        producer_extra_config={"transaction.timeout.ms": 5_000},
        consumer_extra_config={"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000},
    )
    numbers = app.topic("numbers", value_deserializer="json")
    sums = app.topic("sums", value_serializer="json")
    seen = 0

    def add(value: dict[str, Any], state: State) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if seen == crash_at:
            os._exit(9)
        total = state.get("sum", 0) + value["n"]
        state.set("sum", total)
        return {"n": value["n"], "sum": total}

    app.dataframe(numbers).apply(add, stateful=True).to_topic(sums)
    app.run(timeout=9.0)  # longer than the two timeouts above, or it would leave before its partitions come


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
