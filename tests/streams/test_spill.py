"""State larger than memory: the bound, the pages, and that nothing is lost."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headwater.streams.state import spill
from headwater.streams.state.keyed import DEAD, FOUND, Keyed

MEMORY = 400_000
SCHEMA: dict[str, pl.DataType] = {"k": pl.Int64(), "v": pl.String()}


def rows(keys: range, value: str, *, dead: bool = False) -> pl.DataFrame:
    return pl.DataFrame({"k": keys, "v": value}).with_columns(pl.lit(dead).alias(DEAD))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyed:
    monkeypatch.setattr(spill, "STREAMS_PAGE_BYTES_MIN", 1_000)
    return Keyed(("k",), SCHEMA, memory_max=MEMORY, spill=str(tmp_path / "store"), recent_rows=100)


def test_rows_in_memory_stay_within_the_bound_and_a_page(store: Keyed) -> None:
    for start in range(0, 50_000, 1_000):
        store.put(rows(range(start, start + 1_000), "a value of some length"), 1_000)
        assert store.size().bytes <= MEMORY + MEMORY // spill.STREAMS_PAGES_MIN
    assert store.size().spilled > 3 * MEMORY
    assert 50_000 == store.size().rows


def test_what_is_on_disk_is_found_changed_and_deleted(store: Keyed) -> None:
    for start in range(0, 30_000, 3_000):
        store.put(rows(range(start, start + 3_000), "old"), 3_000)
    store.put(rows(range(10_000, 12_000), "new"), 0)
    store.put(rows(range(20_000, 21_000), "", dead=True), -1_000)
    found = store.find(pl.DataFrame({"k": [0, 11_000, 20_500, 29_999, 30_000]}))
    assert ["old", "new", None, "old", None] == found.get_column("v").to_list()
    assert [True, True, False, True, False] == found.get_column(FOUND).to_list()
    assert store.size().bytes <= MEMORY + MEMORY // spill.STREAMS_PAGES_MIN
    whole = store.query(None)
    assert 29_000 == whole.height == whole.get_column("k").n_unique() == len(store)
    assert 2_000 == whole.filter(pl.col("v") == "new").height


def test_a_store_on_disk_is_restored_from_its_pages(store: Keyed, tmp_path: Path) -> None:
    store.put(rows(range(30_000), "some value"), 30_000)
    pieces = [delta.frame for delta in store.snapshot()]
    assert len(pieces) > 4
    other = Keyed(("k",), SCHEMA, memory_max=MEMORY, spill=str(tmp_path / "other"), recent_rows=100)
    for piece in pieces:
        other.restore(piece)
        assert other.size().bytes <= MEMORY + MEMORY // spill.STREAMS_PAGES_MIN
    other.restored()
    assert store.query(None).sort("k").equals(other.query(None).sort("k"))
    assert 30_000 == len(other)


def test_files_of_an_earlier_process_are_removed_and_so_are_ones_own(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.arrow").write_bytes(b"torn")
    store = Keyed(("k",), SCHEMA, memory_max=MEMORY, spill=str(tmp_path / "store"))
    assert [] == list(tmp_path.iterdir())
    store.put(rows(range(100_000), "value"), 100_000)
    assert store.size().spilled
    store.close()
    assert [] == list(tmp_path.iterdir())


def test_without_a_folder_there_is_one_page_in_memory() -> None:
    store = Keyed(("k",), SCHEMA, memory_max=MEMORY)
    store.put(rows(range(200_000), "value"), 200_000)
    assert 0 == store.size().spilled
    assert store.size().bytes > MEMORY


def test_rows_that_share_a_hash_share_a_page_however_big(tmp_path: Path) -> None:
    store = Keyed(("k",), SCHEMA, memory_max=10_000, spill=str(tmp_path / "s"), bits=1, recent_rows=10)
    store.put(rows(range(300), "a value of some length"), 300)
    store.put(rows(range(300, 600), "a value of some length"), 300)
    assert store.find(pl.DataFrame({"k": range(600)})).get_column(FOUND).all()
