"""Topologies: what cannot be is refused where it is said, with names."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from headwater.errors import InvalidRequest
from headwater.streams import Topology, agg, col, tumbling

ROW = {"k": pl.String, "v": pl.Int64, "ts": pl.Int64}


def _read_and_suppressed(t: Topology) -> object:
    counted = t.stream("in", schema=ROW, time="ts").group_by("k").window(tumbling("1s")).count()
    counted.to("out")
    return counted.suppress()


WRONG: dict[str, tuple[Callable[[Topology], object], str]] = {
    "an unknown column of a filter": (lambda t: t.stream("in", schema=ROW).filter(col("nope") > 1), "nope"),
    "an unknown column of a select": (lambda t: t.stream("in", schema=ROW).select("nope"), "nope"),
    "an unknown column of a group": (lambda t: t.stream("in", schema=ROW).group_by("nope"), "no column 'nope'"),
    "an unknown column of an aggregate": (
        lambda t: t.stream("in", schema=ROW).group_by("k").aggregate(n=agg.sum("nope")),
        "nope",
    ),
    "an unknown key of a sink": (lambda t: t.stream("in", schema=ROW).to("out", key="nope"), "no column 'nope'"),
    "an unknown column of time": (lambda t: t.stream("in", schema=ROW, time="nope"), "no column 'nope'"),
    "a text as time": (lambda t: t.stream("in", schema=ROW, time="k"), "'k' is String"),
    "a system column": (lambda t: t.stream("in", schema={"_time": pl.Int64}), "are the system's"),
    "a filter that is no Boolean": (lambda t: t.stream("in", schema=ROW).filter(col("v") + 1), "needs a Boolean"),
    "a table without a key": (lambda t: t.table("in", schema=ROW, key=()), "has a key"),
    "a merge of unlike streams": (
        lambda t: t.stream("in", schema=ROW).merge(t.stream("other", schema={"k": pl.Int64})),
        "the same columns",
    ),
    "an explode of what is no list": (lambda t: t.stream("in", schema=ROW).explode("v"), "takes a list"),
    "a join of unlike keys": (
        lambda t: t.stream("in", schema=ROW).join(
            t.stream("other", schema={"k": pl.Int64}), left_on="k", right_on="k", within="1s"
        ),
        "'k' is String on the left and 'k' is Int64 on the right",
    ),
    "a join without a window": (
        lambda t: t.stream("in", schema=ROW).join(t.stream("other", schema=ROW), on="k"),
        "has a window",
    ),
    "a join in which names clash": (
        lambda t: t.stream("in", schema={**ROW, "v_right": pl.Int64}).join(
            t.stream("other", schema=ROW), on="k", within="1s"
        ),
        "both sides have 'v_right'",
    ),
    "a join with another topology's stream": (
        lambda t: t.stream("in", schema=ROW).join(Topology("two").stream("other", schema=ROW), on="k", within="1s"),
        "is not in this topology",
    ),
    "a suppress without windows": (
        lambda t: t.stream("in", schema=ROW).group_by("k").count().suppress(),
        "never final",
    ),
    "a suppress after its updates were read": (_read_and_suppressed, "are read already"),
    "an aggregate of nothing": (lambda t: t.stream("in", schema=ROW).group_by("k").aggregate(), "has no aggregate"),
    "an aggregate named as its group": (
        lambda t: t.stream("in", schema=ROW).group_by("k").aggregate(k=agg.count()),
        "'k' is taken",
    ),
    "a table that loses its key": (lambda t: t.table("in", schema=ROW, key="k").select("v"), "no column 'k'"),
    "windows of a table": (
        lambda t: t.table("in", schema=ROW, key="k").group_by("k").window(tumbling("1s")),
        "Windows are for streams",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_refused_where_it_is_said(what: str) -> None:
    build, said = WRONG[what]
    with pytest.raises(InvalidRequest, match=said):
        build(Topology("job"))


def test_a_name_belongs_to_one_node() -> None:
    t = Topology("job")
    rows = t.stream("in", schema=ROW)
    rows.filter(col("v") > 1, name="few")
    with pytest.raises(InvalidRequest, match="two nodes named 'few'"):
        rows.filter(col("v") > 2, name="few")
    with pytest.raises(InvalidRequest, match="two nodes named 'in'"):
        t.stream("in", schema=ROW)


def test_a_job_does_not_read_what_it_writes() -> None:
    t = Topology("job")
    t.stream("in", schema=ROW).to("out")
    t.stream("out", schema=ROW, name="again").to("elsewhere")
    with pytest.raises(InvalidRequest, match="reads topic 'out' and writes it: a cycle"):
        t.build()


def test_a_job_reads_something_and_writes_something() -> None:
    with pytest.raises(InvalidRequest, match="reads nothing"):
        Topology("job").build()
    t = Topology("job")
    t.stream("in", schema=ROW)
    with pytest.raises(InvalidRequest, match="writes nothing"):
        t.build()


def test_rows_that_lie_right_are_sent_nowhere() -> None:
    t = Topology("job")
    rows = t.stream("in", schema=ROW, key="k")
    rows.group_by("k").count(name="by-key")
    rows.group_by("k", "v").count(name="by-more")
    assert ["in", "by-key", "by-more"] == list(t.nodes)
    rows.group_by("v").count(name="by-value")
    rows.group_by("v").count(name="by-value-too")
    assert ["in", "by-key", "by-more", "repartition-1", "by-value", "by-value-too"] == list(t.nodes)


def test_a_key_that_is_computed_anew_decides_no_partition() -> None:
    rows = Topology("job").stream("in", schema=ROW, key="k")
    assert ("k",) == rows.with_columns(w=col("v") * 2).node.keys
    assert ("k",) == rows.select("k", "v").node.keys
    assert () == rows.select("v").node.keys
    assert () == rows.with_columns(k=col("k").str.to_lowercase()).node.keys
