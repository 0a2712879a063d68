from __future__ import annotations

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest

from headwater.bench.nexmark import batch, inprocess, log, peers, report
from headwater.bench.nexmark.generator import AUCTION, BID, OUT_OF_ORDER_MS, PERSON, SCHEMA, Generator
from headwater.bench.nexmark.queries import QUERIES

SMALL = Generator(events=40_000, rate=1_000, seed=3)  # 40 s of event time: all windows close several times


def rows(generator: Generator) -> pl.DataFrame:
    return pl.concat(list(generator.blocks()))


def test_of_fifty_events_one_is_a_person_three_are_auctions_and_the_others_are_bids() -> None:
    counts = rows(SMALL).get_column("event_type").value_counts(sort=True).rows()
    assert [(BID, 36_800), (AUCTION, 2_400), (PERSON, 800)] == counts


def test_the_same_seed_gives_the_same_events_and_another_one_others() -> None:
    assert rows(SMALL).equals(rows(Generator(events=40_000, rate=1_000, seed=3)))
    assert not rows(SMALL).equals(rows(Generator(events=40_000, rate=1_000, seed=4)))


def test_a_longer_stream_begins_with_the_same_events() -> None:
    longer = Generator(events=80_000, rate=1_000, seed=3)
    assert rows(SMALL).equals(rows(longer).head(40_000))


def test_events_come_late_but_never_too_late() -> None:
    times = rows(SMALL).get_column("ts").dt.epoch("ms")
    behind = times.cum_max() - times
    assert 0 <= int(behind.min() or 0)  # type: ignore[arg-type]
    assert OUT_OF_ORDER_MS // 2 < int(behind.max() or 0) < OUT_OF_ORDER_MS  # type: ignore[arg-type]
    assert rows(SMALL).get_column("arrived").is_sorted()


def test_half_of_the_bids_go_to_the_hot_auction_and_three_of_four_come_from_the_hot_bidder() -> None:
    bids = rows(SMALL).filter(pl.col("event_type") == BID)
    hot_auction = bids.filter(pl.col("auction") % 100 == 0).height / bids.height
    hot_bidder = bids.filter(pl.col("bidder") % 100 == 1).height / bids.height
    assert (0.5, 0.75) == pytest.approx((hot_auction, hot_bidder), abs=0.02)


def test_names_of_people_are_tokens() -> None:
    people = rows(SMALL).filter(pl.col("event_type") == PERSON)
    assert people.select(pl.col("name").str.contains(r"^person-\d+$").all()).item()


def test_the_schema_is_what_the_generator_gives_also_as_arrow() -> None:
    (first, *_) = SMALL.frames(1_000)
    assert (list(SCHEMA), 1_000) == (first.schema.names, first.num_rows)
    assert SCHEMA == dict(rows(SMALL).schema)


@pytest.mark.parametrize("name", list(QUERIES))
def test_a_query_in_process_gives_what_duckdb_finds(name: str) -> None:
    frames = list(SMALL.frames(700))
    expected, _ = batch.Batch(frames).run(QUERIES[name], 1)
    assert expected.height > 0
    batch.check(QUERIES[name], expected, inprocess.run(QUERIES[name], SMALL, frames).frames)


@pytest.mark.parametrize("name", list(QUERIES))
def test_a_query_does_not_depend_on_the_size_of_micro_batches(name: str) -> None:
    frames = list(SMALL.frames(10_000))
    expected, _ = batch.Batch(frames).run(QUERIES[name], 1)
    batch.check(QUERIES[name], expected, inprocess.run(QUERIES[name], SMALL, frames).frames)


def test_queries_through_the_log_give_what_duckdb_finds() -> None:
    frames = list(SMALL.frames(10_000))
    known = batch.Batch(frames)

    async def run() -> None:
        async with log.written(frames) as namespace:
            for name in ("q2", "q4", "q8", "q12"):
                through = await log.run(QUERIES[name], SMALL, namespace)
                batch.check(QUERIES[name], known.run(QUERIES[name], 1)[0], through.frames)

    asyncio.run(run())


def test_a_row_that_differs_is_noticed() -> None:
    frames = list(SMALL.frames(10_000))
    query = QUERIES["q12"]
    expected, _ = batch.Batch(frames).run(query, 1)
    wrong = expected.with_columns(count=pl.when(pl.int_range(pl.len()) == 5).then(0).otherwise(pl.col("count")))
    with pytest.raises(batch.Different, match="q12 gave"):
        batch.check(query, expected, [wrong])
    with pytest.raises(batch.Different, match="q12 gave nothing"):
        batch.check(query, expected, [])
    with pytest.raises(batch.Different, match="q12 gave"):
        batch.check(query, expected, [expected, expected.head(1)])


def test_the_report_has_a_row_of_ratios_for_each_query_and_says_why_there_is_no_peer(tmp_path: Path) -> None:
    made = report.bench(60_000, rounds=1, peer_python=str(tmp_path / "none"), names=("q1", "q3"))
    assert ["q1", "q3"] == list(made["queries"])
    for row in made["queries"].values():
        assert row["checked"] is True
        assert min(row[each] for each in ("events_per_s", "events_per_s_log", "ratio_to_flink", "ratio_to_batch")) > 0
        assert row["ratio_to_best_python_peer"] is None
        assert "none is no program" in row["no_peer"]
    json.dumps(made)


def test_what_is_not_reached_is_named() -> None:
    row = {"ratio_to_flink": 19.9, "ratio_to_flink_log": 5, "ratio_to_best_python_peer": None, "ratio_to_batch": 3.1}
    assert ["q9: ratio_to_flink 19.9 < 20", "q9: ratio_to_batch 3.1 > 3"] == report.missed({"q9": row})


def test_a_peer_that_fails_has_no_rate(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert {"q0": {}} == peers.measure(str(broken), Generator(events=1_000), ["q0"])
    assert peers.best({}) is None
    assert ("b", 2.0) == peers.best({"a": 1.0, "b": 2.0})
