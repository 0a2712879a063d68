"""Plans: what is cut, what is made, and what state a successor takes."""

from __future__ import annotations

import polars as pl
import pytest

from headwater.errors import InvalidRequest
from headwater.streams import Topology, agg, tumbling
from headwater.streams.model import Sink, Source
from headwater.streams.plan import make_plan
from headwater.streams.task import Task


def _topology(size: str = "10s", job: str = "j") -> Topology:
    t = Topology(job)
    bids = t.stream("bids", schema={"who": pl.Int64, "price": pl.Int64, "ts": pl.Datetime("ms", "UTC")}, time="ts")
    bids.group_by("who").window(tumbling(size)).aggregate(total=agg.sum("price")).to("totals")
    return t


def test_one_partition_needs_no_repartition() -> None:
    spec = _topology().build()
    assert {} == make_plan(spec, {"bids": 1}).repartitions
    assert 1 == len(make_plan(spec, {"bids": 4}).repartitions)


def test_a_window_of_another_size_does_not_take_the_state() -> None:
    old = make_plan(_topology().build(), {"bids": 4})
    assert [] == make_plan(_topology().build(), {"bids": 4}).incompatible(old.document())
    assert make_plan(_topology("20s").build(), {"bids": 4}).incompatible(old.document())


def test_an_unknown_column_is_refused_when_it_is_named() -> None:
    t = Topology("j")
    with pytest.raises(InvalidRequest, match="nope"):
        t.stream("bids", schema={"who": pl.Int64}).filter(pl.col("nope") > 1)


def test_many_diamonds_are_planned_and_run_in_one_pass() -> None:
    t = Topology("j")
    row = {"who": pl.Int64, "price": pl.Int64}
    found = t.stream("bids", schema=row)
    for _ in range(40):  # 2^40 ways from the source to the join
        found = found.filter(pl.col("price") > 0).merge(found.filter(pl.col("price") < 0))
    found.join(t.stream("others", schema=row), on="who", within="1s").to("out")
    plan = make_plan(t.build(), {"bids": 2, "others": 2})
    assert {"out", "others"} < {node.topic for node in plan.nodes.values() if isinstance(node, Source | Sink)}
    Task(plan.nodes, 0, tasks=2).step([])


def test_a_join_of_unequal_topics_is_refused_however_far_its_sources_are() -> None:
    t = Topology("j")
    row = {"who": pl.Int64, "price": pl.Int64}
    left = t.stream("bids", schema=row, key="who")
    merged = left.filter(pl.col("price") > 0).merge(left.filter(pl.col("price") < 0))
    merged.join(t.stream("others", schema=row, key="who"), on="who", within="1s").to("out")
    with pytest.raises(InvalidRequest, match="needs topic 'bids' in 3 partitions"):
        make_plan(t.build(), {"bids": 2, "others": 3})
