from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.cli.conftest import Headwater


def test_the_streams_demo_prints_a_table_for_each_job_and_leaves_a_clean_namespace(hw: Headwater) -> None:
    first = hw("demo", "streams", "--limit", "3000")
    assert first.code == 0
    for word in ("Made flights, weather", "the worst first", "worst airports", "One tail number", "and no other"):
        assert word in first.text
    second = hw("demo", "streams", "--limit", "3000")
    assert (0, 3) == (second.code, second.text.count("Done before."))
    assert hw("verify").code == 0


def test_the_streams_demo_answers_in_json(hw: Headwater) -> None:
    found = hw("demo", "streams", "--limit", "500", "--json").json
    assert ["demo-delays", "demo-worst", "demo-rotations"] == [job["job"] for job in found["jobs"]]
    assert all(
        job["records"] >= 500 and all(rows > 0 for rows in job["compared"].values()) for job in found["jobs"][:2]
    )


def test_a_limit_stands_behind_the_part(hw: Headwater) -> None:
    ran = hw("demo", "--limit", "5", "streams")
    assert (2, True) == (ran.code, "stands behind streams" in ran.err)


def test_an_unknown_part_is_refused(hw: Headwater) -> None:
    assert hw("demo", "stream").code == 2


def test_without_polars_the_error_says_what_to_install(hw: Headwater, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "polars":
            raise ModuleNotFoundError("No module named 'polars'", name="polars")
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    ran = hw("demo", "streams", "--limit", "5")
    assert ran.code == 1
    assert "headwater[streams]" in ran.err
