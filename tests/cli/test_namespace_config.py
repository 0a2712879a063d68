from __future__ import annotations

import pytest

from tests.cli.conftest import Headwater

HISTORY = "history.retention.ms"


def test_a_namespace_shows_its_configuration_and_takes_another(hw: Headwater) -> None:
    hw("topic", "create", "a")
    assert {} == hw("namespace", "--json").json["config"]
    assert {HISTORY: "-1"} == hw("namespace", "--set", f"{HISTORY}=-1", "--json").json["config"]
    shown = hw("namespace").text
    assert "history.retention.ms = -1" in shown
    assert "commit" in shown
    assert {} == hw("namespace", "--unset", HISTORY, "--json").json["config"]


@pytest.mark.parametrize("config", [f"{HISTORY}=5", "retention.ms=5"])
def test_a_namespace_refuses_what_it_has_no_use_for(hw: Headwater, config: str) -> None:
    hw("topic", "create", "a")
    ran = hw("namespace", "--set", config, "--json")
    assert (1, "InvalidRequest") == (ran.code, ran.error["error"])


def test_a_topic_refuses_a_senseless_configuration(hw: Headwater) -> None:
    refused = hw("topic", "create", "a", "--config", "retention.ms=soon", "--json")
    assert (1, "InvalidRequest") == (refused.code, refused.error["error"])
    hw("topic", "create", "a")
    refused = hw("topic", "alter", "a", "--config", "cleanup.policy=x", "--json")
    assert "cleanup.policy" in refused.error["message"]


def test_a_topic_shows_how_far_it_is_archived(hw: Headwater) -> None:
    hw("topic", "create", "a")
    (found,) = hw("topic", "describe", "a", "--json").json["partitions"]
    assert (0, 0) == (found["archived"], found["archived_bytes"])
    assert "archived to" in hw("topic", "describe", "a").text
