"""``headwater top`` where nobody looks at a terminal."""

from __future__ import annotations

from tests.cli.conftest import Headwater


def test_without_a_terminal_it_looks_twice_and_prints(hw: Headwater) -> None:
    hw("topic", "create", "greetings")
    ran = hw("top", "--every", "0.2")
    assert 0 == ran.code
    assert "greetings" in ran.text
    found = hw("top", "--every", "0.2", "--json").json
    assert ["greetings"] == [row["name"] for row in found["topics"]]
    assert 0.0 == found["overview"]["records_per_s"]
