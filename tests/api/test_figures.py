"""What functions print for CloudWatch: once an invocation, never twice the same, and never in the way of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headwater.api.figures import Figures
from headwater.api.runtime import Function, function
from headwater.clock import SystemClock
from headwater.meters import Meters, families
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import event, with_topic

RECORDS = "/topics/t/partitions/0/records"
ENVIRONMENT = {
    "HEADWATER_STORE": "memory://unused",
    "HEADWATER_AUTH": "none",
    "HEADWATER_EMF": "basic",
    "AWS_LAMBDA_FUNCTION_NAME": "hw-ProduceFunction-1",
}


@pytest.fixture
def store() -> MemoryStore:
    """A bucket with a topic ``t``."""
    return with_topic(MemoryStore())


@pytest.fixture
def make(store: MemoryStore) -> Iterator[Callable[..., Function]]:
    """Makes functions over the bucket, and closes their loops."""
    handlers: list[Function] = []

    def one(name: str = "produce", **environment: str) -> Function:
        handlers.append(function(name, environment={**ENVIRONMENT, **environment}, store=store))
        return handlers[-1]

    yield one
    for handler in handlers:
        if handler._loop is not None:
            handler._loop.close()


def produce(handler: Function) -> int:
    answer = handler(event("POST", RECORDS, {"records": [{"value": 1}]}), None)
    status: int = answer["statusCode"]
    return status


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def made(**environment: str) -> tuple[Figures, Meters, list[str]]:
    meters, written = Meters(), list[str]()
    given = {"HEADWATER_EMF": "basic", **environment}
    return Figures(given, "fetch", clock=SystemClock(), meters=meters, write=written.append), meters, written


# -- a function ------------------------------------------------------------------------------------------


def test_an_invocation_prints_one_line_of_what_it_did(
    make: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = make()
    produce(handler)  # what others in this process have counted comes with the first
    told(capsys)
    for _ in range(2):
        assert 200 == produce(handler)
        (line,) = told(capsys)
        assert "hw-ProduceFunction-1" == line["Function"]
        assert (1, 1) == (line["ProducedRecords"], line["Commits"])
        assert line["StoreRequests"] == line["StoreLatency"]["Count"] >= 1
        assert "StoreErrors" not in line


def test_an_invocation_that_counts_nothing_prints_nothing(
    make: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = make()
    produce(handler)
    told(capsys)
    assert 200 == handler(event("GET", "/healthz"), None)["statusCode"]
    assert [] == told(capsys)


def test_nothing_is_printed_where_nobody_asked_for_it(
    make: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("", "off"):
        handler = make(HEADWATER_EMF=mode)
        assert 200 == produce(handler)
    assert [] == told(capsys)


def test_nothing_is_told_twice_or_lost_when_a_function_begins_anew(
    make: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = make()
    produce(handler)
    told(capsys)
    for _ in range(2):
        loop = handler._loop
        handler.forget()
        assert loop is not None
        loop.close()
        assert 200 == produce(handler)
        (line,) = told(capsys)
        assert (1, 1) == (line["ProducedRecords"], line["Commits"])


def test_a_round_of_the_schedule_is_told(make: Callable[..., Function], capsys: pytest.CaptureFixture[str]) -> None:
    handler = make("maintain")
    handler({"source": "aws.events"}, None)
    told(capsys)
    assert [] == handler({"source": "aws.events"}, None)["failed"]
    (line,) = told(capsys)
    assert 1 == line["MaintenanceRounds"]
    assert "MaintenanceFailures" not in line


def test_a_broken_pipe_breaks_no_answer(make: Callable[..., Function], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = write

    handler = make()
    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", Gone())
    assert 200 == produce(handler)


# -- figures ---------------------------------------------------------------------------------------------


def test_what_could_not_be_printed_is_told_the_next_time(capsys: pytest.CaptureFixture[str]) -> None:
    figures, meters, written = made()

    def fail(text: str) -> None:
        raise OSError("no space")

    figures._write = fail
    meters.counter(families.COMMITS, "default").add()
    figures.tell()
    assert "not told" in capsys.readouterr().err
    figures._write = written.append
    meters.counter(families.COMMITS, "default").add()
    figures.tell()
    figures.tell()
    (line,) = written
    assert (2, "fetch") == (json.loads(line)["Commits"], json.loads(line)["Function"])


def test_several_lines_are_one_write() -> None:
    figures, meters, written = made(HEADWATER_EMF="topics")
    meters.counter(families.PRODUCED_RECORDS, "default", "t").add()
    figures.tell()
    (text,) = written
    assert 3 == text.count("\n") == len([json.loads(line) for line in text.splitlines()])


def test_a_mode_that_does_not_exist_is_off_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    figures, meters, written = made(HEADWATER_EMF="everything")
    assert "off, basic, namespaces, topics" in capsys.readouterr().err
    meters.counter(families.COMMITS, "default").add()
    figures.tell()
    assert [] == written
