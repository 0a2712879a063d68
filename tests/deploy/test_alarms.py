"""The template's alarms look at metrics that exist, of functions that exist, and say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.meters import emf
from tests.deploy.helpers_template import FUNCTIONS, ROOT, Stack, source

TOPIC = "arn:aws:sns:eu-central-1:123456789012:ops"
QUIET = Stack(Console="yes", ProcessTopology="m:t", ProcessOnCommit="yes")
ALL = Stack(AlarmTopic=TOPIC, Console="yes", ProcessTopology="m:t", ProcessOnCommit="yes")
PLAIN = Stack(AlarmTopic=TOPIC)
NAMES = sorted(ALL.of_type("AWS::CloudWatch::Alarm"))
EACH = pytest.mark.parametrize("name", NAMES)
# What the platform publishes by itself, and under which dimension.
PLATFORM = {
    "AWS/Lambda": ("FunctionName", {"Errors", "Throttles", "Duration", "Url5xxCount"}),
    "AWS/SQS": ("QueueName", {"ApproximateAgeOfOldestMessage"}),
}


def alarms(stack: Stack) -> dict[str, dict[str, Any]]:
    return stack.of_type("AWS::CloudWatch::Alarm")


def looked_at(alarm: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The metrics of an alarm, each with its statistic and period."""
    if "Metrics" not in alarm:
        yield {**alarm, "Stat": alarm.get("Statistic") or alarm["ExtendedStatistic"]}
    for metric in alarm.get("Metrics", []):
        if "MetricStat" in metric:
            yield {**metric["MetricStat"]["Metric"], **metric["MetricStat"], "Id": metric["Id"]}


def test_there_are_no_alarms_unless_somebody_is_to_hear_of_them() -> None:
    assert {} == alarms(QUIET)
    assert {TOPIC} == {topic for alarm in alarms(ALL).values() for topic in alarm["AlarmActions"] + alarm["OKActions"]}


@EACH
def test_an_alarm_looks_at_metrics_that_exist_under_the_dimensions_they_have(name: str) -> None:
    told = {metric.name: metric for metric in emf.METRICS}
    for metric in looked_at(alarms(ALL)[name]):
        (dimension,) = metric["Dimensions"]
        if metric["Namespace"] == emf.NAMESPACE:
            assert metric["MetricName"] in told
            assert "Function" == dimension["Name"], "which every mode tells"
            spread = told[metric["MetricName"]].family.kind == "histogram"
            assert metric["Stat"] in ({"p99", "p90", "Average", "Maximum"} if spread else {"Sum"})
        else:
            key, known = PLATFORM[metric["Namespace"]]
            assert key == dimension["Name"]
            assert metric["MetricName"] in known
        assert dimension["Value"].strip("<>").partition(".")[0] in ALL.resources


@EACH
def test_an_expression_uses_every_metric_of_its_alarm_and_gives_one_value(name: str) -> None:
    metrics = alarms(ALL)[name].get("Metrics", [])
    expressions = " ".join(metric["Expression"] for metric in metrics if "Expression" in metric)
    if metrics:
        assert 1 == sum(metric.get("ReturnData", True) for metric in metrics)
        assert len(metrics) <= 12
        used = set(re.findall(r"\b[a-z]+\b", expressions))
        wanted = {metric["Id"] for metric in metrics if metric.get("ReturnData") is False}
        assert "METRICS()" in expressions or wanted <= used


@EACH
def test_an_alarm_says_what_to_do_and_ends_by_itself(name: str) -> None:
    alarm = alarms(ALL)[name]
    assert 100 < len(alarm["AlarmDescription"]) <= 1_024
    assert re.search(r"\b([Ll]ook|[Ss]ee|[Rr]ead|[Gg]ive|[Ll]et|raise|names)\b", alarm["AlarmDescription"])
    assert 1 <= alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]
    for metric in looked_at(alarm):
        # The platform's bound: a day for what an alarm looks back at.
        assert metric["Period"] * alarm["EvaluationPeriods"] <= 86_400
    wanted = "breaching" if name == "MaintenanceMissingAlarm" else "notBreaching"
    assert wanted == alarm["TreatMissingData"]


@EACH
def test_commands_in_a_description_exist(name: str) -> None:
    from headwater.cli.main import cli

    for words in re.findall(r"headwater ([a-z]+)", alarms(ALL)[name]["AlarmDescription"]):
        assert words in cli.list_commands(None), words  # type: ignore[arg-type]


def test_each_function_has_an_alarm_on_its_errors_and_on_its_time() -> None:
    names = [*FUNCTIONS, "console", "process"]
    wanted = {f"{name.capitalize()}{what}Alarm" for name in names for what in ("Errors", "Slow")}
    assert set() == wanted - set(NAMES)
    throttled = {metric["Dimensions"][0]["Value"] for metric in looked_at(alarms(ALL)["ThrottlesAlarm"])}
    assert {f"<{name.capitalize()}Function>" for name in FUNCTIONS} == throttled


def test_a_duration_that_alarms_lies_below_the_time_out() -> None:
    for name in (*FUNCTIONS, "console"):
        alarm, function = alarms(ALL)[f"{name.capitalize()}SlowAlarm"], ALL.function(name)
        assert 0.7 < alarm["Threshold"] / 1_000 / function["Timeout"] < 0.9
    (expression,) = [m["Expression"] for m in alarms(ALL)["ProcessSlowAlarm"]["Metrics"] if "Expression" in m]
    assert "duration / (10 * 300)" == expression  # ms of 300 s, in percent


def test_what_is_not_there_has_no_alarms() -> None:
    gone = {"ConsoleErrorsAlarm", "ConsoleSlowAlarm", "ProcessErrorsAlarm", "ProcessSlowAlarm", "QueueLagAlarm"}
    assert gone == set(NAMES) - set(alarms(PLAIN))
    silent = Stack(AlarmTopic=TOPIC, Metrics="off")
    assert [] == [n for n, a in alarms(silent).items() for m in looked_at(a) if m["Namespace"] == emf.NAMESPACE]
    assert {*FUNCTIONS} <= {n.removesuffix("ErrorsAlarm").lower() for n in alarms(silent)}


def test_the_parameter_takes_the_modes_that_there_are() -> None:
    assert list(emf.MODES) == source()["Parameters"]["Metrics"]["AllowedValues"]
    assert "basic" == PLAIN.globals["Environment"]["Variables"]["HEADWATER_EMF"]


SEARCH = r"""SEARCH\('\{([\w/]+),(\w+)\} MetricName="(\w+)"( headwater)?', '(\w+)', (60|3600)\)"""


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    body = json.loads((ROOT / "infra" / "cloudwatch" / "dashboard.json").read_text())
    told = {metric.name: metric for metric in emf.METRICS}
    shown = set()
    for widget in body["widgets"]:
        assert "REGION" == widget["properties"]["region"], "which whoever installs it puts in"
        for (row,) in widget["properties"]["metrics"]:
            found = re.fullmatch(SEARCH, row["expression"])
            assert found is not None, row
            namespace, dimension, name, _, stat, _ = found.groups()
            if namespace == emf.NAMESPACE:
                shown.add(name)
                assert "Function" == dimension
                assert stat in ({"p50", "p99"} if told[name].family.kind == "histogram" else {"Sum"})
            else:
                assert ("AWS/Lambda", "FunctionName") == (namespace, dimension)
                assert name in {*PLATFORM["AWS/Lambda"][1], "Invocations"}
    assert set(told) == shown
    places = [(widget["x"], widget["y"]) for widget in body["widgets"]]
    assert len(places) == len(set(places))
