"""``headwater streams``: what users type, on a store in a directory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from headwater.cli import streams as commands
from headwater.log.namespace import Namespace
from headwater.store import open_store
from tests.cli.conftest import Headwater

JOB = """
import polars as pl
from headwater.streams import Topology, agg

def counts():
    topology = Topology("counting")
    words = topology.stream("words", schema={"word": pl.String}, format="json")
    words.group_by("word").aggregate(n=agg.count(), name="totals", store="totals").to("counted", format="json")
    return topology

made = counts()
number = 7
"""


@pytest.fixture
def jobs(hw: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module with a job, in the present folder, and two topics; the module's name."""
    name = f"jobs_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert hw("topic", "create", "words", "--partitions", "2").code == 0
    assert hw("topic", "create", "counted").code == 0
    return name


def say(hw: Headwater, *words: str, partition: int = 0) -> None:
    lines = "".join(f'{{"word": "{word}"}}\n' for word in words)
    assert hw("produce", "words", "--partition", str(partition), stdin=lines.encode()).code == 0


def test_a_job_runs_once_and_says_what_it_did(hw: Headwater, jobs: str) -> None:
    say(hw, "a", "b", "a")
    ran = hw("streams", "run", f"{jobs}:counts", "--once", "--json")
    assert ran.code == 0, ran.err
    assert "counting" == ran.json["job"]
    assert 3 <= ran.json["records"]
    assert '"n":2' in hw("consume", "counted").text.replace(" ", "")
    again = hw("streams", "run", f"{jobs}:made", "--once")
    assert again.code == 0
    assert "Job counting: 0 records in" in again.text


def test_how_a_worker_ended_and_what_it_had_are_lines(hw: Headwater, jobs: str) -> None:
    say(hw, "a")
    (ended,) = map(json.loads, hw("streams", "run", f"{jobs}:counts", "--once", "--log-level", "info").err.splitlines())
    assert ("streams", "counting", "ended") == (ended["process"], ended["job"], ended["event"])
    assert "" == hw("streams", "run", f"{jobs}:counts", "--once").err
    assert 0 == hw("topic", "delete", "words", "--yes").code
    failed, *_ = hw("streams", "run", f"{jobs}:counts", "--once", "--log-level", "error").err.splitlines()
    assert ("error", "failed", "NotFound") == (
        (line := json.loads(failed))["level"],
        line["event"],
        line["error"]["error"],
    )


def test_a_worker_that_stays_says_which_tasks_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    worker = SimpleNamespace(tasks={}, listeners=[])
    commands._follow(commands._lines("info", "counting"), worker)
    (look,) = worker.listeners
    for tasks in ({}, {1: "a", 0: "b"}, {0: "b", 1: "a"}, {}):
        worker.tasks = tasks
        look()
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [([0, 1], 2), (None, 0)] == [(line.get("tasks"), line["count"]) for line in told]


def test_a_topology_is_described_and_drawn_without_a_store(hw: Headwater, jobs: str, tmp_path: Path) -> None:
    assert "words" in hw("streams", "describe", f"{jobs}:counts").text
    assert "counting" == hw("streams", "describe", f"{jobs}:counts", "--json").json["job"]
    assert hw("streams", "describe", f"{jobs}:counts", "--svg", tmp_path / "job.svg").code == 0
    assert (tmp_path / "job.svg").read_text().lstrip().startswith("<svg")


def test_what_is_no_topology_is_refused_with_words(hw: Headwater, jobs: str) -> None:
    assert hw("streams", "describe", "nonsense").code == 2
    wrong = {f"{jobs}:nothing": "has no", f"{jobs}:number": "no topology but int", "absent_module:x": "no module"}
    for name, word in wrong.items():
        ran = hw("streams", "describe", name)
        assert ran.code == 1
        assert word in ran.err


def test_status_pause_and_resume(hw: Headwater, jobs: str) -> None:
    assert hw("streams", "status", "counting").code == 1
    say(hw, "a")
    hw("streams", "run", f"{jobs}:counts", "--once")
    assert "stopped" == hw("streams", "status", "counting", "--json").json["state"]
    assert "is paused" in hw("streams", "pause", "counting").text
    say(hw, "b", partition=1)
    assert 0 == hw("streams", "run", f"{jobs}:counts", "--once", "--json").json["records"]
    assert "paused, 2 tasks, 1 records behind" in hw("streams", "status", "counting").text
    assert "is resumed" in hw("streams", "resume", "counting").text
    assert 1 <= hw("streams", "run", f"{jobs}:counts", "--once", "--json").json["records"]


def test_a_savepoint_is_gone_back_to_by_name(hw: Headwater, jobs: str) -> None:
    say(hw, "a", "a")
    hw("streams", "run", f"{jobs}:counts", "--once")
    saved = hw("streams", "savepoint", "counting", "good")
    assert saved.code == 0
    assert "Back: headwater streams restart counting --at good" in saved.text
    say(hw, "a")
    hw("streams", "run", f"{jobs}:counts", "--once")
    assert hw("streams", "restart", "counting", "--at", "bad", "--yes").code == 1
    done = hw("streams", "restart", "counting", "--at", "good", "--yes")
    assert done.code == 0, done.err
    assert "Its tables are as they were then" in done.text
    hw("streams", "run", f"{jobs}:counts", "--once")
    text = hw("consume", "counted").text.replace(" ", "")
    assert 2 == text.count('"n":3')


def test_a_reset_shows_what_it_would_do_and_asks(hw: Headwater, jobs: str) -> None:
    say(hw, "a", "a")
    hw("streams", "run", f"{jobs}:counts", "--once")
    asked = hw("streams", "reset", "counting", stdin=b"n\n")
    assert 130 == asked.code
    assert "words" in asked.text
    assert "records of state" in asked.text
    assert 0 == hw("streams", "run", f"{jobs}:counts", "--once", "--json").json["records"]
    assert hw("streams", "reset", "counting", "--yes").code == 0
    assert 2 <= hw("streams", "run", f"{jobs}:counts", "--once", "--json").json["records"]


def test_a_reset_is_refused_while_members_are_active(hw: Headwater, jobs: str, store: Path) -> None:
    say(hw, "a")
    hw("streams", "run", f"{jobs}:counts", "--once")
    asyncio.run(_join(store))
    refused = hw("streams", "reset", "counting", "--yes")
    assert 1 == refused.code
    assert "1 active members: m-1 (worker)" in refused.err


async def _join(store: Path) -> None:
    from headwater.groups.coordinator import Coordinator

    async with await Namespace.open(open_store(f"file://{store}"), owns_store=True) as log:
        await Coordinator(log).heartbeat("counting", "m-1", topics=["words"], client="worker", joining=True)


def test_a_query_without_a_worker_that_answers_says_how_to_start_one(hw: Headwater, jobs: str) -> None:
    refused = hw("streams", "query", "counting", "totals", "a")
    assert 1 == refused.code
    assert "--listen" in refused.err
