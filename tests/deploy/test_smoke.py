"""scripts/smoke and scripts/deploy, run as people run them, without a cloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.helpers_template import ROOT

HEADWATER = [sys.executable, "-m", "headwater.cli.main"]
NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="scripts/smoke needs curl")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HEADWATER_"))}
    return subprocess.run(
        arguments, capture_output=True, text=True, env={**kept, **environment}, timeout=120, check=False
    )


@NEEDS_CURL
def test_smoke_passes_on_a_server_that_works_and_needs_the_right_token(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/log"
    token = run(*HEADWATER, "auth", "create-key", "--principal", "p", "--store", store).stdout.strip()
    command = [*HEADWATER, "dev", "--json", "--port", "0", "--store", store, "--auth", "token"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            passed = run(str(ROOT / "scripts/smoke"), url, HEADWATER_TOKEN=token)
            assert (0, "smoke: ok") == (passed.returncode, passed.stdout.splitlines()[-1]), passed.stderr
            for wrong in ({}, {"HEADWATER_TOKEN": token[:-1]}):
                refused = run(str(ROOT / "scripts/smoke"), url, **wrong)
                assert 1 == refused.returncode
                assert "401" in refused.stderr
                assert token not in refused.stdout + refused.stderr
        finally:
            server.terminate()
    left = run(*HEADWATER, "topic", "list", "--json", "--store", store)
    assert "smoke-" not in left.stdout


@NEEDS_CURL
def test_smoke_says_so_when_nobody_answers() -> None:
    done = run(str(ROOT / "scripts/smoke"), "http://127.0.0.1:9")
    assert 0 != done.returncode
    assert "smoke: ok" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--help",), 0), ((), 2), (("moon",), 2), (("aws", "NoValue"), 1)], ids=str
)
def test_deploy_explains_itself_before_it_does_anything(arguments: tuple[str, ...], status: int) -> None:
    done = run(str(ROOT / "scripts/deploy"), *arguments)
    assert status == done.returncode
    assert ("NAME=VALUE" if status == 1 else "scripts/deploy aws") in done.stdout + done.stderr


def test_deploy_refuses_a_job_without_its_code_before_it_does_anything() -> None:
    done = run(str(ROOT / "scripts/deploy"), "aws", "ProcessTopology=mine:topology", JOBS="")
    assert 1 == done.returncode
    assert "the job mine:topology of the stack headwater has its code from the folder JOBS" in done.stderr
    assert "Nothing was deployed" in done.stderr


RUNS = "echo mine:topology"
NO_JOB = "echo"
NO_ANSWER = "echo 'no credentials' >&2; exit 1"


@pytest.mark.parametrize(
    ("stack", "words", "jobs", "said"),
    [
        (RUNS, [], "", "the job mine:topology of the stack headwater"),
        (RUNS, [], "jobs", ""),
        (RUNS, ["ProcessTopology="], "", ""),  # the job is to end
        (NO_JOB, [], "", ""),
        (NO_ANSWER, [], "", "could not be asked whether it runs a job"),
        (NO_ANSWER, [], "jobs", ""),
    ],
)
def test_an_update_never_takes_the_code_from_under_a_job(
    tmp_path: Path, stack: str, words: list[str], jobs: str, said: str
) -> None:
    """The real script over a SAM that notes how it was called, and a stack that answers so."""
    for name in ("scripts/deploy", "infra/tools.sh", "infra/sam-requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / ".localstack/sam/bin"
    tools.mkdir(parents=True)
    python = 'case "$*" in -V) echo Python 3.13.0 ;; *version*) echo 3.13 ;; *) echo "$0" ;; esac'
    scripts = {tools / "python": stack, tools / "sam": 'echo "sam $1" >>called', tmp_path / "python": python}
    for path, body in scripts.items():
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    # As infra/tools.sh stamps an environment that is complete.
    stamp = 'cd "$0"; ./python -V; cat infra/sam-requirements.txt | sha256sum; pwd'
    (tools.parent / "stamp").write_text(run("bash", "-c", stamp, str(tmp_path)).stdout.rstrip("\n"))
    given = {"JOBS": jobs, "PYTHON_3_13": str(tmp_path / "python")}
    done = run(str(tmp_path / "scripts/deploy"), "aws", *words, **given)
    called = tmp_path / "called"
    assert ("" if said else "sam build") == (called.read_text().splitlines()[0] if called.exists() else "")
    assert bool(said) == bool(done.returncode)
    assert said in done.stderr


def test_without_python_3_13_the_localstack_test_fails_and_says_why(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "sed", "cat", "sha256sum"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = run(str(ROOT / "scripts/test-localstack"), PATH=str(tmp_path), PYENV_ROOT=str(tmp_path), PYTHON_3_13="")
    assert 1 == done.returncode
    assert "LocalStack needs Python 3.13" in done.stderr
