from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Headwater

COMMANDS = [
    "topic",
    "produce",
    "consume",
    "offsets",
    "group",
    "auth",
    "inspect",
    "verify",
    "dev",
    "demo",
    "sim",
    "bench",
]


def spawn(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headwater.cli.main", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from headwater.cli.main import main; status = main(['--help']);"
        "heavy = {'pyarrow', 'boto3', 'aioboto3', 'obstore', 'rich'} & set(sys.modules);"
        "sys.exit(status or (f'loaded {heavy}' if heavy else 0))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(hw: Headwater, command: str) -> None:
    ran = hw(command, "--help")
    assert ran.code == 0
    assert "Usage: headwater" in ran.text


def test_general_options_stand_before_or_behind_the_command(hw: Headwater, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/other"
    hw("topic", "create", "t", "--store", url, "--namespace", "n")
    before = hw("--store", url, "--namespace", "n", "--json", "topic", "list")
    behind = hw("topic", "list", "--store", url, "--namespace", "n", "--json")
    assert before.json == behind.json
    assert [t["name"] for t in behind.json] == ["t"]
    assert hw("topic", "list", "--json").json == []


def test_a_command_that_only_reads_makes_no_store(hw: Headwater, store: Path) -> None:
    for words in (["topic", "list"], ["verify"], ["inspect"], ["consume", "t"]):
        hw(*words)
    assert not store.exists()


def test_an_error_is_a_sentence_with_what_to_do(hw: Headwater) -> None:
    ran = hw("topic", "describe", "nope")
    assert ran.code == 1
    assert ran.out == b""
    assert "There is no topic 'nope'" in ran.err
    assert "Create it first" in ran.err
    assert "Traceback" not in ran.err


def test_with_json_an_error_is_json(hw: Headwater) -> None:
    ran = hw("topic", "describe", "nope", "--json")
    assert ran.code == 1
    assert (ran.error["error"], ran.error["applied"]) == ("NotFound", "no")


def test_with_json_a_usage_error_is_json(hw: Headwater) -> None:
    ran = hw("--json", "topic", "create")
    assert ran.code == 2
    assert "NAME" in ran.error["message"]


@pytest.mark.parametrize(
    "url", ["ftp://x", "nonsense", "file://relative", "s3://", "memory://", "memory://a/b", "file:///a?b=c"]
)
def test_a_malformed_url_is_refused(hw: Headwater, url: str) -> None:
    ran = hw("topic", "list", "--store", url)
    assert ran.code == 1
    assert "://" in ran.err


def test_a_bad_namespace_is_refused(hw: Headwater) -> None:
    for command in (["topic", "list"], ["verify"], ["inspect"]):
        ran = hw(*command, "--namespace", "No/Good")
        assert ran.code == 1
        assert "is no namespace" in ran.err


def test_a_mistyped_command_gets_a_suggestion(hw: Headwater) -> None:
    ran = hw("tpoic")
    assert ran.code == 2
    assert "Did you mean 'topic'?" in ran.err


def test_ctrl_c_ends_without_a_traceback(hw: Headwater, store: Path) -> None:
    hw("produce", "t", "--create", stdin=b"a\n")
    with spawn("consume", "t", "--follow", "--store", f"file://{store}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, b"")


def test_a_closed_pipe_is_quiet(hw: Headwater, store: Path) -> None:
    hw("produce", "t", "--create", stdin=b"x" * 200_000 + b"\n")
    hw("produce", "t", stdin=b"\n".join([b"y" * 1_000] * 10_000))
    with spawn("consume", "t", "--store", f"file://{store}") as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


def test_bench_and_sim_are_doors_only(hw: Headwater) -> None:
    assert hw("bench", "--help").code == 0
    assert "--seeds" in hw("sim", "--help").text


def test_follow_prints_what_comes_later(hw: Headwater, store: Path) -> None:
    hw("produce", "t", "--create", stdin=b"a\n")
    with spawn("consume", "t", "--follow", "--limit", "2", "--json", "--store", f"file://{store}") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["value"] == "a"
        hw("produce", "t", stdin=b"b\n")
        out, err = process.communicate(timeout=30)
    assert (json.loads(out)["value"], json.loads(out)["offset"], err) == ("b", 1, b"")
    assert process.returncode == 0


def test_examples_in_help_keep_their_lines() -> None:
    from click.testing import CliRunner

    from headwater.cli.main import cli

    for words in ([], ["consume"], ["sql"], ["replay"]):
        said = CliRunner().invoke(cli, [*words, "--help"]).output
        assert "\\b" not in said
        kept = ("  headwater ", "  Begin:  headwater ", "    %t topic")
        assert any(line.startswith(kept) for line in said.splitlines()), words
