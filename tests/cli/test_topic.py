from __future__ import annotations

import pytest

from tests.cli.conftest import Headwater


def test_a_created_topic_is_listed_and_described(hw: Headwater) -> None:
    assert hw("topic", "create", "a", "--partitions", "3", "--config", "retention.ms=1", "--config", "x=a=b").code == 0
    assert "a" in hw("topic", "list").text
    found = hw("topic", "describe", "a", "--json").json
    assert found["config"] == {"retention.ms": "1", "x": "a=b"}
    assert [p["partition"] for p in found["partitions"]] == [0, 1, 2]
    assert "high watermark" in hw("topic", "describe", "a").text


def test_create_answers_with_the_topic(hw: Headwater) -> None:
    created = hw("topic", "create", "a", "--json").json
    assert (created["name"], created["records"]) == ("a", 0)


def test_a_name_that_is_taken_is_refused(hw: Headwater) -> None:
    hw("topic", "create", "a")
    ran = hw("topic", "create", "a", "--json")
    assert (ran.code, ran.error["error"]) == (1, "AlreadyExists")


@pytest.mark.parametrize("name", ["", ".", "a/b", "ü", "x" * 250])
def test_a_bad_name_is_refused(hw: Headwater, name: str) -> None:
    ran = hw("topic", "create", "--", name)
    assert ran.code == 1
    assert "is no topic name" in ran.err


@pytest.mark.parametrize("config", ["nothing", "=value", ""])
def test_a_bad_configuration_is_refused(hw: Headwater, config: str) -> None:
    ran = hw("topic", "create", "a", "--config", config)
    assert ran.code == 2
    assert "name=value" in ran.err


def test_too_many_partitions_are_refused(hw: Headwater) -> None:
    assert hw("topic", "create", "a", "--partitions", "0").code == 2
    assert hw("topic", "create", "a", "--partitions", "10001").code == 1


def test_alter_adds_partitions_sets_and_unsets(hw: Headwater) -> None:
    hw("topic", "create", "a", "--config", "x=1", "--config", "y=2")
    altered = hw("topic", "alter", "a", "--partitions", "2", "--config", "y=3", "--unset", "x", "--json").json
    assert (len(altered["partitions"]), altered["config"]) == (2, {"y": "3"})


def test_alter_is_all_or_nothing(hw: Headwater) -> None:
    hw("topic", "create", "a", "--partitions", "2")
    assert hw("topic", "alter", "a", "--config", "y=3", "--partitions", "1").code == 1
    found = hw("topic", "describe", "a", "--json").json
    assert (len(found["partitions"]), found["config"]) == (2, {})


def test_alter_wants_something_to_do(hw: Headwater) -> None:
    assert hw("topic", "alter", "a").code == 2


def test_delete_asks_first(hw: Headwater) -> None:
    hw("topic", "create", "a")
    assert hw("topic", "delete", "a", stdin=b"n\n").code == 130
    assert hw("topic", "delete", "a", stdin=b"y\n").code == 0
    assert hw("topic", "list", "--json").json == []


def test_delete_of_nothing_is_an_error(hw: Headwater) -> None:
    assert hw("topic", "delete", "a", "--yes").code == 1


def test_trim_moves_the_log_start(hw: Headwater) -> None:
    hw("produce", "a", "--create", stdin=b"1\n2\n3\n")
    assert hw("topic", "trim", "a", "0", "2", "--json").json["log_start"] == 2
    assert hw("consume", "a").text == "3\n"
    assert hw("topic", "trim", "a", "0", "1", "--json").json["log_start"] == 2


def test_trim_beyond_the_end_is_refused(hw: Headwater) -> None:
    hw("topic", "create", "a")
    ran = hw("topic", "trim", "a", "0", "1")
    assert ran.code == 1
    assert "ends at 0" in ran.err
    assert hw("topic", "trim", "a", "7", "0").code == 1
