"""``headwater maintain`` and ``headwater branch``, as people and scripts call them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater.cli import output
from headwater.types import Progress
from tests.cli.conftest import Headwater

LINES = "".join(f"k{n % 10}:{n}\n" for n in range(1_000)).encode()


def filled(hw: Headwater, *config: str) -> None:
    assert hw("topic", "create", "t", "--partitions", "2", *config).code == 0
    assert hw("produce", "t", "--key-separator", ":", stdin=LINES).code == 0


def values(hw: Headwater, *words: str) -> list[int]:
    return sorted(int(line) for line in hw(*words, "consume", "t", "--offset", "beginning").out.split())


# -- maintain ---------------------------------------------------------------------------------------------


def test_what_is_young_waits_and_what_is_told_to_is_archived(hw: Headwater, store: Path) -> None:
    filled(hw)
    assert hw("maintain", "--once").text == "default: nothing to do\n"
    ran = hw("maintain", "--once", "--archive-now")
    assert ran.code == 0
    assert ran.text.startswith("default: 2 files archived")
    assert len(list(store.rglob("*.parquet"))) == 2
    assert values(hw) == list(range(1_000))
    assert hw("verify").code == 0


def test_a_compacted_topic_keeps_the_latest_of_each_key(hw: Headwater) -> None:
    filled(hw, "--config", "cleanup.policy=compact")
    report = hw("maintain", "--once", "--archive-now", "--json").json
    assert (report["failed"], report["files_archived"], report["files_compacted"]) == ([], 2, 2)
    assert values(hw) == list(range(990, 1_000))


def test_all_namespaces_of_a_store_are_maintained(hw: Headwater) -> None:
    filled(hw)
    assert hw("branch", "copy").code == 0
    assert {line["namespace"] for line in hw("maintain", "--once", "--all", "--json").lines} == {"default", "copy"}


def test_a_cold_run_over_a_namespace_at_rest_opens_nothing(hw: Headwater) -> None:
    filled(hw, "--config", "archive.enable=false")
    for _ in range(3):
        hw("maintain", "--once")
    assert hw("maintain", "--once", "--json").json == {"namespace": "default", "rested": True}


def test_a_chore_that_fails_is_told_and_the_exit_code_says_so(hw: Headwater, store: Path) -> None:
    filled(hw)
    hw("maintain", "--once", "--archive-now")
    for path in [
        *store.rglob("manifest/*"),
        *store.rglob("segment/*"),
        *store.rglob("snapshot/*"),
        *store.rglob("latest"),
    ]:
        path.write_bytes(b"damaged")
    ran = hw("maintain", "--once")
    assert ran.code == 1
    assert "Corrupt" in ran.err


def test_archiving_everything_in_a_loop_is_refused(hw: Headwater) -> None:
    ran = hw("maintain", "--archive-now")
    assert (ran.code, "--once" in ran.err) == (2, True)


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--once", "--archive-now"), 143)])
def test_sigterm_breaks_a_round_off_and_the_next_one_does_it_all(
    hw: Headwater, store: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    """It comes at every place at which the archiver tells how far it is, one after another."""
    filled(hw, "--config", "archive.bytes=1")
    seen = 0

    @contextmanager
    def phases(_: str) -> Iterator[Progress]:
        nonlocal seen
        seen = 0

        def stop(*_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == place:
                os.kill(os.getpid(), signal.SIGTERM)

        yield stop

    for place in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(output, "phases", phases)
            ran = hw("maintain", *words)
        assert (code, "") == (ran.code, ran.err)
        assert place <= seen
        assert 0 == hw("verify").code
    assert 0 == hw("maintain", "--once", "--archive-now").code
    assert list(range(1_000)) == values(hw)
    assert 2 == len(list(store.rglob("*.parquet")))


def test_rounds_are_lines_if_they_are_asked_for(hw: Headwater) -> None:
    filled(hw)
    assert "" == hw("maintain", "--once", "--log-level", "info").err
    (line,) = map(json.loads, hw("maintain", "--once", "--log-level", "debug").err.splitlines())
    assert ("debug", "upkeep", "maintain", "default") == tuple(
        line[name] for name in ("level", "event", "process", "namespace")
    )
    (line,) = map(json.loads, hw("maintain", "--once", "--archive-now", "--log-level", "info").err.splitlines())
    assert ("info", 2) == (line["level"], line["files_archived"])
    assert 0 < line["ms"]


# -- branch -----------------------------------------------------------------------------------------------


def test_a_branch_is_made_listed_written_and_dropped(hw: Headwater) -> None:
    filled(hw)
    assert hw("branch").text == "Namespace default has no branches.\n"
    made = hw("branch", "copy", "--json").json
    assert made == {"namespace": "copy", "origin": "default", "commit": 2, "topic": ""}
    assert hw("--namespace", "copy", "produce", "t", "--key-separator", ":", stdin=b"k:1000\n").code == 0
    assert values(hw, "--namespace", "copy") == list(range(1_001))
    assert values(hw) == list(range(1_000))
    assert "copy" in hw("branch").text
    assert hw("verify").code == hw("--namespace", "copy", "verify").code == 0
    assert hw("branch", "copy", "--drop", "--yes").code == 0
    assert hw("branch", "--json").json == []
    assert values(hw) == list(range(1_000))


def test_a_branch_of_an_earlier_commit_and_of_one_topic(hw: Headwater) -> None:
    filled(hw)
    hw("topic", "create", "other")
    assert hw("branch", "early", "--at", "1", "--topic", "t").code == 0
    assert values(hw, "--namespace", "early") == []
    assert [each["name"] for each in hw("--namespace", "early", "topic", "list", "--json").json] == ["t"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("copy", "--at", "99"), 1, "has not been made yet"),
        (("default",), 1, "a name of its own"),
        (("A",), 1, "is no namespace"),
        (("copy", "--topic", "nope"), 1, "no topic 'nope'"),
        (("--at", "1"), 2, "Name the branch"),
        (("--drop",), 2, "Name the branch"),
        (("nope", "--drop", "--yes"), 1, "has no branch 'nope'"),
    ],
)
def test_what_cannot_be_branched_is_said(hw: Headwater, words: tuple[str, ...], code: int, said: str) -> None:
    filled(hw)
    ran = hw("branch", *words)
    assert (ran.code, said in ran.err) == (code, True), ran.err
