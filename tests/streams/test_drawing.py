"""Topologies as text and as pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import polars as pl

from headwater.streams import Topology, agg, col, tumbling
from headwater.streams.describe import plain

SVG = "{http://www.w3.org/2000/svg}"
DELAYS = """\
Job: delays
  Sub-topology: 0
    Source: flights (topic flights, json)
      --> positive
    Filter: positive (v > 0)
      <-- flights
      --> repartition-1
    Repartition: repartition-1 (topic delays-repartition-1-repartition, by k)
  Sub-topology: 1
    Table: names (topic names, json; store names)
      --> named
    Source: repartition-1 (topic delays-repartition-1-repartition)
      --> named
    Table join: named (left, on k; store named)
      <-- repartition-1, names
      --> repartition-2
    Repartition: repartition-2 (topic delays-repartition-2-repartition, by label)
  Sub-topology: 2
    Source: repartition-2 (topic delays-repartition-2-repartition)
      --> hourly
    Aggregate: hourly (by label: n, tumbling 1h, grace 10m; store hourly)
      <-- repartition-2
      --> hourly-late, to-2
    Branch: hourly-late (late)
      <-- hourly
      --> to-1
    Sink: to-1 (topic late, json)
      <-- hourly-late
    Sink: to-2 (topic out, json)
      <-- hourly
  Dead letters: dead"""


def _delays() -> Topology:
    t = Topology("delays", dead_letters="dead")
    names = t.table("names", schema={"k": pl.String, "label": pl.String}, key="k", store="names")
    flights = t.stream("flights", schema={"k": pl.String, "v": pl.Int64, "ts": pl.Int64}, time="ts")
    named = flights.filter(col("v") > 0, name="positive").join(names, on="k", how="left", name="named")
    hourly = named.group_by("label").window(tumbling("1h", grace="10m")).aggregate(n=agg.count(), name="hourly")
    hourly.late.to("late")
    hourly.suppress().to("out", key="label")
    return t


def test_a_topology_is_described_stage_by_stage_upstream_first() -> None:
    assert DELAYS == _delays().describe()


def test_rows_that_come_back_to_their_stage_are_described_all_the_same() -> None:
    t = Topology("job")
    rows = t.stream("in", schema={"k": pl.String, "v": pl.Int64}, key="k")
    there = rows.repartition("v", name="there").filter(col("v") > 0)
    there.repartition("k", name="back").join(rows, on="k", within="1s").to("out")
    text = t.describe()
    assert [0, 1] == [int(number) for number in re.findall(r"Sub-topology: (\d+)", text)]
    assert all(f" {name}" in text for name in t.nodes)


def test_a_picture_is_well_formed_and_names_every_node() -> None:
    t = _delays()
    root = ET.fromstring(t.svg())
    assert f"{SVG}svg" == root.tag
    titles = [each.text for each in root.iter(f"{SVG}text") if each.get("class") == "title"]
    assert sorted([*t.nodes, "delays"]) == sorted(str(each) for each in titles)
    tips = [str(each.text) for each in root.iter(f"{SVG}title")]
    assert all(any(name in tip for tip in tips) for name in t.nodes)
    edges = [each for each in root.iter(f"{SVG}path") if each.get("class") == "edge"]
    assert sum(len(node.parents) for node in t.nodes.values()) == len(edges)


def test_a_picture_has_every_colour_for_light_and_for_dark() -> None:
    style = str(next(ET.fromstring(_delays().svg()).iter(f"{SVG}style")).text)
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    filled = re.findall(r"\.(\w+)(?: \{|,)", light)
    assert {"page", "stage", "node", "topic", "state", "kind", "note"} <= set(filled)
    assert set() == set(filled) - {"title"} - set(re.findall(r"\.(\w+)(?: \{|,)", dark))


def test_nodes_lie_inside_the_picture_and_apart() -> None:
    root = ET.fromstring(_delays().svg())
    boxes = [
        tuple(float(each.get(name, "0")) for name in ("x", "y", "width", "height"))
        for each in root.iter(f"{SVG}rect")
        if each.get("class") in ("node", "topic", "state")
    ]
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for at, (x, y, w, _) in enumerate(boxes):
        assert all(y != other[1] or abs(x - other[0]) >= w for other in boxes[at + 1 :])


def test_an_edge_that_passes_boxes_is_drawn_beside_them() -> None:
    t = Topology("job")
    rows = t.stream("in", schema={"k": pl.String, "v": pl.Int64}).repartition("k")
    most = rows.group_by("k").window(tumbling("2s")).aggregate(most=agg.max("v")).suppress()
    rows.join(most.select("k", "most"), on="k", within="2s").to("out")
    picture = t.svg()
    assert 1 == len(re.findall(r'class="edge" d="[^"]* V ', picture)), "from the repartition to the join"
    assert "inner, on k, within 2s" in picture
    without = Topology("job")
    without.stream("in", schema={"k": pl.String}).filter(col("k") == "a").to("out")
    assert [] == re.findall(r'class="edge" d="[^"]* V ', without.svg())


def test_expressions_are_shown_without_the_marks_of_polars_parser() -> None:
    assert "v > 0" == plain(col("v") > 0)
    assert '(v > 0) & (k == "a")' == plain((col("v") > 0) & (col("k") == "a"))


def test_a_picture_takes_expressions_with_signs_of_markup() -> None:
    t = Topology("job")
    t.stream("in", schema={"k": pl.String}).filter(col("k") == "<&>\"'", name="odd").to("out")
    notes = [each.text for each in ET.fromstring(t.svg()).iter(f"{SVG}text") if each.get("class") == "note"]
    assert any("<&>" in str(note) for note in notes)
