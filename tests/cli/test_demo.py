from __future__ import annotations

from tests.cli.conftest import Headwater


def test_the_demo_prints_its_figures_and_leaves_a_clean_namespace(hw: Headwater) -> None:
    ran = hw("demo", "--limit", "500")
    assert ran.code == 0
    words = (
        "records of flights",
        "PUT if absent",
        "at S3's list price",
        "records/s in",
        "In SQL",
        "Branched",
        "Try next",
    )
    for word in words:
        assert word in ran.text
    assert hw("verify").code == 0
    assert len(hw("consume", "weather", "--limit", "5", "--json").lines) == 5


def test_the_demo_answers_in_json(hw: Headwater) -> None:
    found = hw("demo", "--limit", "200", "--json").json
    assert (found["records"], found["produced"]) == ({"flights": 200, "weather": 200}, True)
    assert found["written"]["put_conditional"] > 0
    assert hw("demo", "--limit", "200", "--json").json["produced"] is False


def test_the_demo_refuses_a_limit_of_nothing(hw: Headwater) -> None:
    assert hw("demo", "--limit", "0").code == 2
