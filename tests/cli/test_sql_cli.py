from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.cli.conftest import Headwater
from tests.cli.test_replay import _lake


@pytest.fixture
def lake(hw: Headwater, store: Path) -> Headwater:
    asyncio.run(_lake(store))
    return hw


QUERY = 'SELECT partition, count(*) AS n, max("offset") AS top FROM t GROUP BY 1 ORDER BY 1'


def test_a_table_for_people(lake: Headwater) -> None:
    ran = lake("sql", QUERY)
    assert 0 == ran.code
    lines = [line.split() for line in ran.text.splitlines()]
    assert ["partition", "n", "top"] == lines[0]
    assert [["0", "100", "99"], ["1", "20", "19"]] == lines[-2:]


def test_forms_for_programs(lake: Headwater, tmp_path: Path) -> None:
    expected = [{"partition": 0, "n": 100, "top": 99}, {"partition": 1, "n": 20, "top": 19}]
    assert expected == lake("sql", QUERY, "--json").lines
    assert expected == lake("sql", QUERY, "--format", "json").lines
    rows = list(csv.DictReader(io.StringIO(lake("sql", QUERY, "--format", "csv").text)))
    assert [{name: str(value) for name, value in row.items()} for row in expected] == rows
    assert expected == pa.ipc.open_stream(lake("sql", QUERY, "--format", "arrow").out).read_all().to_pylist()
    path = tmp_path / "out.json"
    assert 0 == lake("sql", QUERY, "--format", "json", "--output", path).code
    assert expected == [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_column_has_a_form_for_people(lake: Headwater) -> None:
    ran = lake("sql", 'SELECT * FROM t WHERE partition = 1 AND "offset" = 7')
    assert ["1", "7", "1970-01-01", "00:00:07.000Z", "k1", "v7", "null"] == ran.text.splitlines()[-1].split()


def test_long_tables_are_cut_for_people(lake: Headwater, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.cli.sql.ROWS_SHOWN_MAX", 3)
    ran = lake("sql", 'SELECT "offset" FROM t')
    assert "… and 117 rows more" in ran.text


def test_as_of_an_earlier_commit(lake: Headwater) -> None:
    assert [{"n": 100}] == lake("sql", "SELECT count(*) AS n FROM t", "--as-of", "2", "--json").lines


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT * FROM flights", "Topics are tables; there are: t."),
        ("SELECT delay FROM t", "delay"),
        ("SELECT offset FROM t", '"offset", in double quotes'),
    ],
)
def test_what_is_wrong_is_said(lake: Headwater, statement: str, said: str) -> None:
    ran = lake("sql", statement)
    assert (1, True, b"") == (ran.code, said in ran.err, ran.out)


def test_an_archive_file_that_is_missing_is_an_error(lake: Headwater, store: Path) -> None:
    next(store.glob("default/archive/topic=t/partition=0/*.parquet")).unlink()
    ran = lake("sql", "SELECT count(value) FROM t")
    assert (1, True) == (ran.code, "headwater verify" in ran.err)
