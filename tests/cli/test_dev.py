"""The development server, started as people start it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Headwater

HEADWATER = [sys.executable, "-m", "headwater.cli.main"]


class Dev:
    """A running ``headwater dev``, and what it said of itself."""

    def __init__(self, process: subprocess.Popen[bytes], said: dict[str, Any]) -> None:
        self.process = process
        self.url: str = said["url"]
        self.examples: list[str] = said["examples"]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")


@contextlib.contextmanager
def running(store: Path, *words: str) -> Iterator[Dev]:
    url = f"file://{store}"
    command = [*HEADWATER, "dev", "--json", "--port", "0", "--store", url, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield Dev(process, json.loads(line))
        finally:
            process.terminate()


def run_all(examples: list[str], tmp_path: Path) -> list[str]:
    """Run the printed commands in one shell, as a person would; each must succeed. What each printed."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "headwater").write_text(f'#!/bin/sh\nexec {" ".join(HEADWATER)} "$@"\n')
    (bin_ / "headwater").chmod(0o755)
    script = "\necho; echo ---\n".join(line.replace("curl -sS", "curl -sSf") for line in examples)
    env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1"}
    ran = subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-2_000:]}\n{ran.stderr[-2_000:]}"
    return [part.strip() for part in ran.stdout.split("---\n")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_the_printed_examples_work(store: Path, tmp_path: Path) -> None:
    with running(store) as dev:
        created, sent, moved, read, lag, document = (json.loads(out) for out in run_all(dev.examples, tmp_path))
    assert created["name"] == "greetings"
    assert sent["offsets"][0]["offset"] == 0
    assert moved["appended"][0]["base_offset"] == 1
    assert [record["value"] for record in read] == [{"text": "hello"}, "hello again"]
    assert [(row["topic"], row["committed"], row["lag"]) for row in lag["lag"]] == [("greetings", 1, 1)]
    assert document["openapi"].startswith("3.1")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_the_printed_examples_work_with_tokens(store: Path, tmp_path: Path) -> None:
    with running(store, "--auth", "token") as dev:
        token, *others = run_all(dev.examples, tmp_path)
        assert dev.ask("GET", "/topics")[0] == 401
        assert token == ""
        assert json.loads(others[0])["name"] == "greetings"


def test_what_people_see_names_the_store_and_the_commands(store: Path) -> None:
    words = [*HEADWATER, "dev", "--port", "0", "--store", f"file://{store}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(10)]
        process.terminate()
    assert lines[0].startswith(f"Serving file://{store} at http://127.0.0.1:")
    assert sum("curl -sS" in line for line in lines) == 6


def test_what_was_acknowledged_is_there_after_ctrl_c_and_a_new_start(store: Path) -> None:
    with running(store) as dev:
        assert dev.ask("POST", "/admin/topics", {"name": "t"})[0] in (200, 201)
        status, _ = dev.ask("POST", "/topics/t/partitions/0/records", {"records": [{"value": 1}]})
        assert status == 200
        dev.process.send_signal(signal.SIGINT)
        _, err = dev.process.communicate(timeout=60)
        assert (dev.process.returncode, err.strip()) == (130, b"")
    with running(store) as dev:
        assert [record["value"] for record in dev.ask("GET", "/topics/t/partitions/0/records")[1]] == [1]


def test_sigterm_ends_it_in_order(store: Path) -> None:
    with running(store) as dev:
        dev.process.terminate()
        _, err = dev.process.communicate(timeout=60)
    assert (dev.process.returncode, err) == (0, b"")


def test_only_the_named_namespaces_are_served(store: Path, hw: Headwater) -> None:
    with running(store, "--namespaces", "default, tenant-*") as dev:
        assert dev.ask("GET", "/namespaces/tenant-a/topics") == (200, [])
        assert dev.ask("GET", "/namespaces/other/topics")[0] == 404


def test_a_port_that_is_taken_is_an_error_and_no_traceback(hw: Headwater) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = hw("dev", "--port", str(taken.getsockname()[1]), "--json")
    assert ran.code == 1
    assert "Cannot listen on 127.0.0.1" in ran.error["message"]


def test_a_file_that_changes_starts_it_again(store: Path) -> None:
    with running(store, "--reload") as dev:
        assert dev.ask("GET", "/healthz")[0] == 200
        import headwater.cli.times

        os.utime(headwater.cli.times.__file__)
        assert dev.process.stdout is not None and dev.process.stderr is not None
        again = json.loads(dev.process.stdout.readline())
        assert b"starting again" in dev.process.stderr.readline()
        assert Dev(dev.process, again).ask("GET", "/healthz")[0] == 200
        dev.process.send_signal(signal.SIGINT)
        dev.process.communicate(timeout=60)
