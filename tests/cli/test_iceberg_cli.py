from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.log.namespace import Namespace
from headwater.store.local import LocalStore
from tests.cli.conftest import Headwater
from tests.cli.test_replay import _lake
from tests.replay.archives import archive_all

pytest.importorskip("pyiceberg")


@pytest.fixture
def lake(hw: Headwater, store: Path) -> Headwater:
    asyncio.run(_lake(store))
    return hw


def test_export_and_sync(lake: Headwater, store: Path) -> None:
    ran = lake("iceberg", "sync", "t")
    assert (1, True) == (ran.code, "no such table" in ran.err)
    ran = lake("iceberg", "export", "t")
    assert 0 == ran.code
    assert "Table default.t: 1 file added, 0 taken out. It has 1 file with 60 records, as of commit 4." in ran.text
    assert "60 offsets of the topic are not archived yet" in ran.text

    async def more() -> None:
        async with await Namespace.open(LocalStore(store)) as log:
            await archive_all(log, "t", 0, 60, 100)

    asyncio.run(more())
    found = lake("iceberg", "sync", "t", "--json").json
    assert (1, 0, 2, 100, 20) == tuple(found[name] for name in ("added", "removed", "files", "records", "unarchived"))
    assert Path(found["metadata"].removeprefix("file://")).exists()
    assert 0 == lake("iceberg", "export", "t", "--json").json["added"]


def test_a_catalog_of_ones_own(lake: Headwater, tmp_path: Path) -> None:
    own = ["--property", f"uri=sqlite:///{tmp_path}/own.db", "--table", "lake.flights", "--warehouse", tmp_path / "wh"]
    ran = lake("iceberg", "export", "t", *own)
    assert (0, True) == (ran.code, "Table lake.flights: 1 file added" in ran.text)
    assert (tmp_path / "own.db").exists()
    assert list((tmp_path / "wh" / "lake" / "flights" / "metadata").glob("*.metadata.json"))


def test_bad_requests_say_what_is_wrong(lake: Headwater) -> None:
    assert "There is no topic 'nope'" in lake("iceberg", "export", "nope").err
    assert "namespace.name" in lake("iceberg", "export", "t", "--table", "flat").err
    assert 2 == lake("iceberg", "export", "t", "--property", "uri").code
