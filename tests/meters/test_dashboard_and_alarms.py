"""The dashboard and the alarms in infra/ speak of metrics that exist, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from headwater.cli.main import cli
from headwater.meters import families
from tests.meters.helpers_promql import TARGET, read

INFRA = Path(__file__).resolve().parents[2] / "infra"
DASHBOARD: Final[dict[str, Any]] = json.loads((INFRA / "grafana" / "headwater.json").read_text())
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((INFRA / "alarms" / "prometheus.yaml").read_text())["groups"]
    for rule in group["rules"]
]

# Families that no panel shows, and why.
UNSHOWN: Final[dict[str, str]] = {}
VALUES: Final = {"$__rate_interval": "5m", "$namespace": ".*"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def written(text: str) -> str:
    """A query with values for Grafana's variables."""
    for name, value in VALUES.items():
        text = text.replace(name, value)
    return text


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels():
        yield from ((panel["title"], target) for target in panel["targets"])


def named(text: str) -> set[str]:
    """Labels in ``{{label}}`` or ``{{ $labels.label }}``."""
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}", text))


# -- the dashboard -----------------------------------------------------------------------------------------


def test_every_query_of_the_dashboard_uses_metrics_and_labels_that_exist() -> None:
    wrong = {f"{title}: {target['expr']}": read(written(target["expr"])).wrong for title, target in targets()}
    assert {} == {query: faults for query, faults in wrong.items() if faults}
    assert not [target["expr"] for _, target in targets() if "$" in written(target["expr"])]


def test_a_legend_names_labels_that_the_query_leaves() -> None:
    for title, target in targets():
        labels = read(written(target["expr"])).labels
        assert named(target["legendFormat"]) <= labels, (title, target["expr"])


def test_every_family_is_shown_or_there_is_a_reason_not_to() -> None:
    shown = {name for _, target in targets() for name in read(written(target["expr"])).used}
    assert {family.name for family in families.ALL} - shown == set(UNSHOWN)
    assert all(UNSHOWN.values())


def test_every_panel_has_a_unit_a_source_and_a_text_that_helps() -> None:
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len(panel["description"]) > 40, panel["title"]
        assert "${datasource}" == panel["datasource"]["uid"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert {"datasource", "namespace"} == set(variables)
    assert "label_values(headwater_chain_commit, namespace)" == variables["namespace"]["definition"]
    assert "namespace" in families.CHAIN_COMMIT.labels


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


# -- the alarms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_uses_what_exists_and_tells_what_to_do(rule: dict[str, Any]) -> None:
    query = read(rule["expr"])
    assert [] == query.wrong
    assert rule["labels"]["severity"] in ("page", "ticket")
    texts = rule["annotations"]
    assert {"summary", "description"} == set(texts)
    assert named(texts["summary"] + texts["description"]) <= query.labels | {"outcome"}
    commands = re.findall(r"`headwater ([^`]+)`", texts["description"])
    assert commands, "a tired engineer wants to know what to run"
    for words in commands:
        exists(words.split())


def test_alarms_have_names_of_their_own() -> None:
    assert len(RULES) == len({rule["alert"] for rule in RULES})


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_commands_in_a_panel_exist(panel: dict[str, Any]) -> None:
    for words in re.findall(r"`headwater ([^`]+)`", panel["description"]):
        exists(words.split())


def exists(words: list[str]) -> None:
    """Fail unless ``headwater WORDS`` is a command with these options."""
    command: click.Command = cli
    context = click.Context(cli, info_name="headwater")
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"{command.name} has no command {words[0]!r}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


# -- the check itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("rate(headwater_comits_total[5m])", "there is no headwater_comits_total"),
        ("rate(headwater_commits[5m])", "there is no headwater_commits"),
        ("rate(headwater_commit_seconds[5m])", "there is no headwater_commit_seconds"),
        ("headwater_groups_total", "there is no headwater_groups_total"),
        ("headwater_commits_total", "stands in no function"),
        ("rate(headwater_groups[5m])", "is of a gauge"),
        ("delta(headwater_commits_total[5m])", "is of a counter"),
        ('rate(headwater_commits_total{topic="t"}[5m])', "has no label topic"),
        ("sum by (topic) (rate(headwater_commits_total[5m]))", "sum has no label topic"),
        ("histogram_quantile(0.9, sum by (namespace) (rate(headwater_commit_seconds_bucket[5m])))", "label le"),
        ("histogram_quantile(0.9, rate(headwater_commit_seconds_sum[5m]))", "label le"),
        ("sum by (namespace) (headwater_groups) / sum by (instance) (headwater_groups)", "never finds a pair"),
        ("headwater_groups and on (topic) headwater_groups", "and has no label topic"),
        ("sum by (namespace (headwater_groups)", "no PromQL"),
    ],
)
def test_a_wrong_query_is_found(query: str, fault: str) -> None:
    assert fault in " ".join(read(query).wrong)


def test_no_family_has_a_label_that_prometheus_gives() -> None:
    assert {} == {family.name: family.labels for family in families.ALL if TARGET & set(family.labels)}
