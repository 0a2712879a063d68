from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Headwater
from tests.cli.test_replay import _lake


@pytest.fixture
def lake(hw: Headwater, store: Path) -> Headwater:
    asyncio.run(_lake(store))
    return hw


def test_the_files_of_a_topic_are_listed(lake: Headwater) -> None:
    (found,) = lake("topic", "files", "t", "--json").lines
    assert (0, 0, 60, 60, 0, 59_000) == tuple(
        found[name] for name in ("partition", "start", "end", "count", "min", "max")
    )
    url = lake("topic", "files", "t", "--urls").text.strip()
    assert found["url"] == url
    assert 60 == pq.read_table(url.removeprefix("file://"), partitioning=None).num_rows
    assert url in lake("topic", "files", "t").text


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["-p", "1"], 0),
        (["--since", "1970-01-01T00:00:59Z"], 1),
        (["--since", "1970-01-01T00:00:59.001Z"], 0),
        (["--until", "1970-01-01"], 0),
        (["--as-of", "3"], 0),
    ],
)
def test_only_those_that_were_asked_for(lake: Headwater, words: list[str], count: int) -> None:
    assert count == len(lake("topic", "files", "t", "--json", *words).lines)


def test_a_topic_without_files(lake: Headwater) -> None:
    lake("topic", "create", "new")
    assert "Nothing of topic new is archived" in lake("topic", "files", "new").text
    assert 1 == lake("topic", "files", "nope").code
