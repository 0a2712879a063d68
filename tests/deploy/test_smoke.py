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


def test_without_python_3_13_the_localstack_test_fails_and_says_why(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "sed", "cat", "sha256sum"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = run(str(ROOT / "scripts/test-localstack"), PATH=str(tmp_path), PYENV_ROOT=str(tmp_path), PYTHON_3_13="")
    assert 1 == done.returncode
    assert "LocalStack needs Python 3.13" in done.stderr
