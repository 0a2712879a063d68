"""Plans: what is cut, what is made, and what state a successor takes."""

from __future__ import annotations

import polars as pl
import pytest

from headwater.errors import InvalidRequest
from headwater.streams import Topology, agg, tumbling
from headwater.streams.plan import make_plan


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
