"""What CI runs, with scripts in the place of those that take long: who fails is named, and nobody is left behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("demo", "lint", "browser")


def stage(folder: Path, *, tests: str, deployment: str) -> list[str]:
    """A repository with the real ``.ci/run`` and these scripts; the command that runs it."""
    (folder / ".ci").mkdir()
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    scripts = {**dict.fromkeys(QUICK, "true"), "test": tests, "test-localstack": deployment}
    for name, body in scripts.items():
        path = folder / "scripts" / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    (folder / "scripts/venv.sh").write_text('prepare() { echo "prepared $*"; }\n')
    (folder / "scratch").mkdir()
    return [str(folder / ".ci/run")]


def surroundings(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder / "scratch")}


@pytest.mark.parametrize(
    ("tests", "deployment", "status", "said"),
    [
        (0, 0, 0, ["scripts/test: passed", "scripts/test-localstack: passed"]),
        (3, 0, 1, ["scripts/test: FAILED with exit status 3", "scripts/test-localstack: passed"]),
        (0, 4, 1, ["scripts/test: passed", "scripts/test-localstack: FAILED with exit status 4"]),
        (3, 4, 1, ["scripts/test: FAILED with exit status 3", "scripts/test-localstack: FAILED with exit status 4"]),
    ],
)
def test_the_last_lines_say_which_of_the_two_failed(
    tmp_path: Path, tests: int, deployment: int, status: int, said: list[str]
) -> None:
    ci = stage(tmp_path, tests=f'echo "tested $*"; exit {tests}', deployment=f"echo deployed >&2; exit {deployment}")
    done = subprocess.run([*ci, "-x"], env=surroundings(tmp_path), capture_output=True, text=True, check=False)
    expected = ["prepared test", "tested -n 2 --dist loadgroup -x", "-- scripts/test-localstack", "deployed"]
    assert [*expected, "-- all in all", *said] == done.stdout.splitlines()
    assert status == done.returncode
    assert [] == list((tmp_path / "scratch").iterdir())


def test_who_stops_it_stops_all_that_it_has_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sleeper = f'sleep 300 & echo "begun $!" >{pipe}; wait'
    ci = stage(tmp_path, tests=sleeper, deployment=sleeper)
    with subprocess.Popen(ci, env=surroundings(tmp_path), stdout=subprocess.DEVNULL) as running:
        sleepers = [os.pidfd_open(int(line.split()[1])) for line in lines_of(pipe, 2)]
        running.send_signal(signal.SIGTERM)
        assert 128 + signal.SIGTERM == running.wait(30)
    for sleeper in sleepers:
        assert [sleeper] == select.select([sleeper], [], [], 30)[0], "it has not ended"
        os.close(sleeper)
    assert [] == list((tmp_path / "scratch").iterdir())


def lines_of(pipe: Path, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:  # opened again when all writers have closed it
        found += pipe.read_text().splitlines()
    return found
