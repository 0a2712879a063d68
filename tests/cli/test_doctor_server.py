"""``headwater doctor`` by hand: exit codes, JSON, a service and a gateway that are there, and that are not."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from headwater.clock import SystemClock
from headwater.doctor.deployment import examine_kafka, examine_service
from headwater.errors import Unauthorized
from tests.cli.conftest import Headwater
from tests.cli.test_kafka_cli import running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_a_new_store_is_well(hw: Headwater) -> None:
    ran = hw("doctor", "--round-trip")
    assert 0 == ran.code
    assert "All is well." in ran.text
    assert "A record was written and read back" in ran.text


def test_a_failure_is_an_exit_code_a_verdict_and_a_piece_of_advice(hw: Headwater) -> None:
    port = free_port()
    ran = hw("doctor", "--read-only", "--url", f"http://127.0.0.1:{port}", "--kafka", f"127.0.0.1:{port}", "--json")
    assert 1 == ran.code
    assert "failure" == ran.json["verdict"]
    failures = [finding for finding in ran.json["findings"] if finding["level"] == "failure"]
    assert ["service", "kafka"] == [finding["area"] for finding in failures]
    assert all(finding["do"] for finding in failures)


def test_to_read_only_and_to_write_contradict_each_other(hw: Headwater) -> None:
    assert 2 == hw("doctor", "--read-only", "--round-trip").code


def test_a_gateway_and_what_it_advertises_are_looked_at(store: Path) -> None:
    port = free_port()
    with running(store) as (_, said):
        found = asyncio.run(examine_kafka(said["listeners"][0]["address"]))
    assert [("answers", "ok"), ("advertised address", "ok")] == [(f.check, f.level) for f in found]
    with running(store, "--advertise", f"127.0.0.1:{port}") as (_, said):
        found = asyncio.run(examine_kafka(said["listeners"][0]["address"]))
    assert [("answers", "ok"), ("advertised address", "failure")] == [(f.check, f.level) for f in found]
    assert f"127.0.0.1:{port}" in found[1].says
    assert "--advertise" in found[1].do


def test_a_service_that_does_not_know_us_says_what_to_give() -> None:
    class Strict:
        async def describe_namespace(self) -> None:
            raise Unauthorized("There is no such key.")

    verbs: Any = Strict()
    url = f"http://127.0.0.1:{free_port()}"
    (found,) = asyncio.run(examine_service(verbs, url, clock=SystemClock(), namespace="default"))
    assert "failure" == found.level
    assert "--token" in found.do
