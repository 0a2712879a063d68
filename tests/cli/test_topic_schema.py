from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Headwater

DEFINITION = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_topic_without_a_schema_says_so(hw: Headwater) -> None:
    hw("topic", "create", "t")
    assert "Topic t has no schema" in hw("topic", "schema", "t").text
    assert {"topic": "t", "schemas": []} == hw("topic", "schema", "t", "--json").json


def test_a_schema_is_set_from_a_file_and_shown(hw: Headwater, place: Path) -> None:
    hw("topic", "create", "t")
    (place / "s.json").write_text(json.dumps(DEFINITION))
    assert "version 1 of its schema: 1 columns, values as json" in hw("topic", "schema", "t", "--set", "s.json").text
    again = hw("topic", "schema", "t", "--set", "s.json", "--json").json
    assert (1, [{"name": "year", "type": "int64", "nullable": False}]) == (again["version"], again["columns"])
    shown = hw("topic", "schema", "t").text
    for word in ("version 1", "year", "int64", "not null"):
        assert word in shown
    assert "schema: version 1, values as json" in hw("topic", "describe", "t").text
    assert {"version": 1, "format": "json"} == hw("topic", "describe", "t", "--json").json["schema"]
    wider = {
        **DEFINITION,
        "properties": {**DEFINITION["properties"], "tags": {"type": "array", "items": {"type": "string"}}},
    }  # type: ignore[dict-item]
    (place / "s.json").write_text(json.dumps(wider))
    assert 2 == hw("topic", "schema", "t", "--set", "s.json", "--json").json["version"]
    both = hw("topic", "schema", "t", "--json").json["schemas"]
    assert [DEFINITION, wider] == [json.loads(each["definition"]) for each in both]
    everything = hw("topic", "schema", "t", "--all").text
    assert ("version 1" in everything, "version 2" in everything, '"tags"' in everything) == (True, True, True)


@pytest.mark.parametrize(
    ("format_", "definition"),
    [
        ("arrow", {"a": "int32 not null"}),
        ("avro", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}),
    ],
)
def test_a_schema_has_one_of_three_formats(hw: Headwater, place: Path, format_: str, definition: object) -> None:
    hw("topic", "create", "t")
    (place / "s.json").write_text(json.dumps(definition))
    made = hw("topic", "schema", "t", "--set", "s.json", "--format", format_, "--json").json
    assert (format_, [{"name": "a", "type": "int32", "nullable": False}]) == (made["format"], made["columns"])


def test_a_class_of_the_working_directory_is_a_schema(hw: Headwater, place: Path) -> None:
    hw("topic", "create", "t")
    (place / "hw_test_events.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Flight:\n    year: int\n    delay: float | None = None\n"
    )
    made = hw("topic", "schema", "t", "--python", "hw_test_events:Flight", "--json").json
    assert ["int64", "double"] == [column["type"] for column in made["columns"]]
    for name, said in (
        ("hw_test_events:Nothing", "cannot be imported"),
        ("hw_test_nothing:Flight", "cannot be imported"),
        ("hw_test_events:dataclass", "is no class"),
    ):
        refused = hw("topic", "schema", "t", "--python", name, "--json")
        assert (1, True) == (refused.code, said in refused.error["message"])


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", "InvalidRequest", "no JSON"),
        ('{"properties": {"a": {"type": "array"}}}', "InvalidRequest", "at a: an array says what its items are"),
        ('{"properties": {"year": {"type": "string"}}}', "Conflict", "types only widen"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(hw: Headwater, place: Path, text: str, error: str, said: str) -> None:
    hw("topic", "create", "t")
    (place / "s.json").write_text(json.dumps(DEFINITION))
    hw("topic", "schema", "t", "--set", "s.json")
    (place / "s.json").write_text(text)
    refused = hw("topic", "schema", "t", "--set", "s.json", "--json")
    assert (1, error) == (refused.code, refused.error["error"])
    assert said in refused.error["message"]
    assert 1 == len(hw("topic", "schema", "t", "--json").json["schemas"])


def test_a_definition_that_is_not_there_is_named(hw: Headwater, place: Path) -> None:
    hw("topic", "create", "t")
    refused = hw("topic", "schema", "t", "--set", "none.json", "--json")
    assert (1, True) == (refused.code, "none.json" in refused.error["message"])
    assert 2 == hw("topic", "schema", "t", "--set", "a", "--python", "b:C").code
    assert 2 == hw("topic", "schema", "t", "--python", "b").code


def test_produce_names_the_row_and_the_field_that_do_not_fit(hw: Headwater, place: Path) -> None:
    hw("topic", "create", "t")
    (place / "s.json").write_text(json.dumps(DEFINITION))
    hw("topic", "schema", "t", "--set", "s.json")
    refused = hw("produce", "t", "--json", stdin=b'{"year": 2013}\n{"year": "x"}\n')
    assert 1 == refused.code
    for word in ("Row 1", "field 'year'", "expected `int`, got `str`"):
        assert word in refused.error["message"]
    assert 0 == hw("topic", "describe", "t", "--json").json["records"]
