"""Stream processing: Kafka Streams' guarantees at Arrow's speed, in any process.

    from headwater import streams
    from headwater.streams import Topology, agg, col, tumbling

    t = Topology("delays")
    t.stream("flights", schema=…, time="ts").group_by("origin").window(tumbling("1h")).count().suppress().to("hourly")
    await streams.run(t, "s3://bucket/prefix")

Needs the extra ``streams``. Names are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polars import col, lit, when

    from headwater.streams import agg
    from headwater.streams.driver import TestDriver
    from headwater.streams.failures import IncompatibleTopology, OperatorFailed
    from headwater.streams.process import Processor
    from headwater.streams.querying import sql
    from headwater.streams.runner.app import App, run, run_once
    from headwater.streams.stream import GlobalTable, Stream, Table
    from headwater.streams.topology import Topology
    from headwater.streams.windows import hopping, session, sliding, tumbling

_PLACES = {
    "App": "headwater.streams.runner.app",
    "GlobalTable": "headwater.streams.stream",
    "IncompatibleTopology": "headwater.streams.failures",
    "OperatorFailed": "headwater.streams.failures",
    "Processor": "headwater.streams.process",
    "Stream": "headwater.streams.stream",
    "Table": "headwater.streams.stream",
    "TestDriver": "headwater.streams.driver",
    "Topology": "headwater.streams.topology",
    "col": "polars",
    "hopping": "headwater.streams.windows",
    "lit": "polars",
    "run": "headwater.streams.runner.app",
    "run_once": "headwater.streams.runner.app",
    "session": "headwater.streams.windows",
    "sliding": "headwater.streams.windows",
    "sql": "headwater.streams.querying",
    "tumbling": "headwater.streams.windows",
    "when": "polars",
}

__all__ = [
    "App",
    "GlobalTable",
    "IncompatibleTopology",
    "OperatorFailed",
    "Processor",
    "Stream",
    "Table",
    "TestDriver",
    "Topology",
    "agg",
    "col",
    "hopping",
    "lit",
    "run",
    "run_once",
    "session",
    "sliding",
    "sql",
    "tumbling",
    "when",
]


def __getattr__(name: str) -> Any:
    import importlib

    from headwater.replay.extras import extra

    if name == "agg":
        extra("polars", "streams")
        return importlib.import_module("headwater.streams.agg")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extra("polars", "streams")
    return getattr(importlib.import_module(_PLACES[name]), name)
