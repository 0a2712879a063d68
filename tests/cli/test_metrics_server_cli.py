"""``--metrics`` of the commands that stay, started as people start them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from headwater.cli.serving import Address
from tests.cli.conftest import Headwater

HEADWATER = [sys.executable, "-m", "headwater.cli.main"]


@contextlib.contextmanager
def running(store: Path, *words: str) -> Iterator[dict[str, Any]]:
    """The command, and what it says first."""
    command = [*HEADWATER, *words, "--json", "--metrics", "0", "--store", f"file://{store}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield json.loads(line)
        finally:
            process.terminate()


def scraped(url: str) -> list[str]:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode()).splitlines()


def test_a_gateway_tells_what_it_asked_of_the_store_and_its_chain(store: Path, hw: Headwater) -> None:
    hw("topic", "create", "greetings")
    with running(store, "kafka", "--listen", "127.0.0.1:0") as said:
        assert said["metrics"].startswith("http://127.0.0.1:")
        lines = scraped(said["metrics"])
        assert 'headwater_chain_commit{namespace="default"} 1.0' in lines
        assert any(line.startswith('headwater_store_requests_total{kind="get"') for line in lines)


def test_maintenance_says_where_its_metrics_are_before_its_first_round(store: Path, hw: Headwater) -> None:
    hw("topic", "create", "greetings")
    with running(store, "maintain") as said:
        assert {"metrics"} == set(said)
        scraped(said["metrics"])


def test_a_console_tells_what_its_pages_took(store: Path, hw: Headwater) -> None:
    hw("topic", "create", "greetings")
    with running(store, "console", "--port", "0") as said:
        scraped(f"{said['url']}/topics")
        lines = scraped(said["metrics"])
        assert any(line.startswith('headwater_http_requests_total{route="/console/topics"') for line in lines)


@pytest.mark.parametrize("words", [("maintain",), ("streams", "run", "jobs:delays")])
def test_a_run_that_ends_serves_no_metrics(hw: Headwater, words: tuple[str, ...]) -> None:
    ran = hw(*words, "--once", "--metrics", "0", "--json")
    assert 2 == ran.code
    assert "--once" in ran.error["message"]


def test_an_address_without_a_host_is_of_this_machine() -> None:
    told = {text: Address().convert(text, None, None) for text in ("9464", ":9464", "0.0.0.0:0", "[::1]:9464")}
    assert [("127.0.0.1", 9464), ("127.0.0.1", 9464), ("0.0.0.0", 0), ("::1", 9464)] == list(told.values())


@pytest.mark.parametrize("text", ["", "host", "127.0.0.1:", "127.0.0.1:65536", "::1:9464", "127.0.0.1:-1", "h:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        Address().convert(text, None, None)
