"""Lines of the log of a process: their shape, their bounds, and what they tell of a request."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from headwater import lines
from headwater.api.runtime import Settings, app_for, function
from headwater.clock import SystemClock
from headwater.errors import Corrupt, Indeterminate, InvalidRequest
from headwater.limits import LINE_BYTES_MAX, LINE_INTENTS_MAX, LINE_TEXT_MAX, REQUEST_ID_MAX
from headwater.sim.loop import SimClock, sim_loop
from headwater.store import open_store
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import Client, Log, app_over, event
from tests.log.helpers import simulate


class StoppedClock(SystemClock):
    def wall_ms(self) -> int:
        return 1_790_000_000_123


def said(write: Log, level: str = "info", **always: object) -> lines.Lines:
    return lines.Lines(StoppedClock(), level=level, write=write, always=always)


def test_a_line_is_one_json_object_with_its_time_level_and_event_first() -> None:
    log = Log()
    said(log, process="dev").say("info", "request", request="r-1", status=200, ms=1.23456, principal="", error=None)
    golden = (
        '{"time":"2026-09-21T14:13:20.123Z","level":"info","event":"request","process":"dev","request":"r-1",'
        '"status":200,"ms":1.235}\n'
    )
    assert [golden] == log.lines


@pytest.mark.parametrize(
    ("level", "heard"), [("off", ""), ("error", "error"), ("info", "error info"), ("debug", "error info debug")]
)
def test_a_level_has_those_above_it(level: str, heard: str) -> None:
    log = Log()
    for each in ("error", "info", "debug"):
        said(log, level).say(each, "x")
    assert heard.split() == [json.loads(line)["level"] for line in log.lines]


@pytest.mark.parametrize(
    ("value", "level"), [("", "info"), ("debug", "debug"), (" OFF ", "off"), ("verbose", "info"), ("error\n", "error")]
)
def test_the_environment_names_a_level_or_the_default_holds(value: str, level: str) -> None:
    assert level == lines.level_of({"HEADWATER_LOG": value}, "info")


@pytest.mark.parametrize(
    "hostile",
    [
        '"}\n{"level":"error"',
        "\r\n",
        "\x1b[2J\x1b]0;x\x07",
        "\u2028\u2029\x85",
        "\ud800",
        "\x00",
        "\u202egnp.exe",
        "é" * 10,
    ],
)
def test_what_a_client_makes_up_stays_inside_its_field_and_is_ascii(hostile: str) -> None:
    log = Log()
    said(log).say("info", "request", principal=hostile, error={"message": hostile}, intents=[hostile])
    (line,) = log.lines
    assert line.isascii() and line.endswith("}\n") and line[:-1].isprintable()
    told = json.loads(line)
    assert (hostile, hostile, [hostile]) == (told["principal"], told["error"]["message"], told["intents"])


@pytest.mark.parametrize("size", [LINE_TEXT_MAX, LINE_TEXT_MAX + 1, 10_000_000])
def test_a_text_is_cut_at_its_bound(size: int) -> None:
    log = Log()
    said(log).say("info", "x", message="m" * size)
    told = json.loads(log.lines[0])["message"]
    assert min(size, LINE_TEXT_MAX) == len(told)
    assert ("m" * size == told) == (size <= LINE_TEXT_MAX)


def test_a_line_that_would_be_too_long_keeps_its_short_fields() -> None:
    log = Log()
    deep = {f"k{i}": {f"j{j}": "é" * 500 for j in range(20)} for i in range(20)}
    said(log).say("info", "x", request="r", deep=deep, flat="y")
    assert len(log.lines[0]) <= LINE_BYTES_MAX + 1
    assert ("r", "y", True) == tuple(json.loads(log.lines[0])[name] for name in ("request", "flat", "cut"))


def test_a_stream_that_is_closed_raises_nothing() -> None:
    def broken(_: str) -> None:
        raise ValueError("I/O operation on closed file")

    lines.Lines(StoppedClock(), level="info", write=broken).say("info", "x")


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        ("a", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("8f7c1b1e-5b0e-4c65-9b0a-9d5b2a7c8e11", True),
        ("x" * REQUEST_ID_MAX, True),
        ("x" * (REQUEST_ID_MAX + 1), False),
        ("", False),
        ("a b", False),
        ("a\n", False),
        ("-rf", False),
        ("é", False),
        ('"', False),
    ],
)
def test_an_id_of_a_client_is_taken_if_it_is_well_formed(named: str, taken: bool) -> None:
    assert (named if taken else "") == lines.request_id(named)


def test_intents_are_heard_by_their_request_and_by_the_tasks_that_it_starts() -> None:
    async def request(name: str) -> list[Any]:
        with lines.listening() as heard:
            await asyncio.gather(*(part(f"{name}{i}") for i in range(2)))
        lines.committed("afterwards", 9)
        return [intent["id"] for intent in heard.intents]

    async def part(name: str) -> None:
        await asyncio.sleep(0)
        lines.committed(name, 1)

    async def main() -> None:
        lines.committed("nobody listens", 1)
        assert [["a0", "a1"], ["b0", "b1"]] == await asyncio.gather(request("a"), request("b"))
        assert lines.heard() is None

    asyncio.run(main())


def test_intents_beyond_the_bound_are_counted() -> None:
    with lines.listening() as heard:
        for i in range(LINE_INTENTS_MAX + 3):
            lines.committed(f"i{i}", i)
    assert (LINE_INTENTS_MAX, 3) == (len(heard.fields()["intents"]), heard.fields()["intents_more"])  # type: ignore[arg-type]


# -- requests -----------------------------------------------------------------------------------------------

THEIRS = {"x-request-id": "theirs"}
KEYED = {"name": "flights", "partitions": 1}


def over(log: Log, level: str) -> Client:
    return Client(app_over(open_store("memory://lines"), log=log, level=level, process="dev"))


def told(log: Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.lines]


def run(main: Coroutine[Any, Any, None]) -> None:
    simulate(main)


def test_the_intents_of_a_request_are_in_its_line_with_the_commit_that_holds_them() -> None:
    async def main() -> None:
        log = Log()
        client = over(log, "info")
        made = await client("POST", "/admin/topics", {"name": f"t{random.Random(1).getrandbits(32)}"})
        line = told(log)[-1]
        assert ("request", "info", "POST", "/admin/topics", "root", "default") == tuple(
            line[name] for name in ("event", "level", "method", "route", "principal", "namespace")
        )
        assert made.headers["x-request-id"] == line["request"]
        recent = (await client.app.opened("default")).state.recent
        assert line["intents"] == [{"id": each["id"], "commit": recent[each["id"]].seq} for each in line["intents"]]
        assert 2 == len(line["intents"]), "the topic, and what the audit has of it"

    run(main())


def test_reads_are_lines_of_debug_alone() -> None:
    async def main() -> None:
        for level, count in (("info", 0), ("debug", 1)):
            log = Log()
            await over(log, level).done("GET", "/admin/topics")
            assert count == len(log.lines)

    run(main())


def test_the_id_of_a_refusal_is_in_the_answer_and_in_the_log() -> None:
    async def main() -> None:
        log = Log()
        answer = await over(log, "info")("GET", "/topics/none/partitions/0/records", headers={"x-request-id": "mine-1"})
        (line,) = told(log)
        assert "mine-1" == answer.headers["x-request-id"] == answer.json["id"] == line["request"]
        assert (404, "NotFound", "no") == (line["status"], line["error"]["error"], line["error"]["applied"])

    run(main())


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "<script>"])
def test_a_malformed_id_is_replaced(given: str) -> None:
    async def main() -> None:
        answer = await over(Log(), "info")("GET", "/healthz", headers={"x-request-id": given})
        assert 16 == len(answer.headers["x-request-id"]) and answer.headers["x-request-id"] != given

    run(main())


def test_what_is_no_request_at_all_has_an_id_too() -> None:
    async def main() -> None:
        log = Log()
        answer = await over(log, "info")("GET", "/a/../b")
        (line,) = told(log)
        assert (400, line["request"]) == (answer.status, answer.json["id"])

    run(main())


def test_why_a_namespace_cannot_be_read_is_in_the_log_and_not_in_the_answer() -> None:
    async def main() -> None:
        log = Log()
        store = MemoryStore("gone")

        async def gone(*_: Any, **__: Any) -> Any:
            raise Corrupt("The object s3://secret-place/1 holds no JSON.")

        store.get = store.put_if_absent = gone  # type: ignore[method-assign]
        client = Client(app_over(store, log=log, level="error"))
        answer = await client("GET", "/admin/topics")
        line = told(log)[-1]
        assert (503, "error") == (answer.status, line["level"])
        assert "secret-place" in line["cause"]["message"] and b"secret-place" not in answer.body

    run(main())


def test_a_function_calls_its_request_as_the_platform_does(capsys: pytest.CaptureFixture[str]) -> None:
    context = SimpleNamespace(aws_request_id="8f7c1b1e-5b0e-4c65-9b0a-9d5b2a7c8e11")
    environment = {"HEADWATER_STORE": "memory://x", "HEADWATER_AUTH": "none"}
    handler = function("admin", environment=environment, store=MemoryStore("f"))
    made = event(
        "POST", "/admin/topics", json.dumps(KEYED), kind="application/json", headers={"x-request-id": "theirs"}
    )
    answer = handler(made, context)
    handler._loop.close()  # type: ignore[union-attr]
    line = json.loads(capsys.readouterr().err)
    assert context.aws_request_id == answer["headers"]["x-request-id"] == line["request"]
    assert ("admin", 2) == (line["process"], len(line["intents"]))


def test_a_function_that_is_told_to_be_silent_is(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"HEADWATER_STORE": "memory://x", "HEADWATER_AUTH": "none", "HEADWATER_LOG": "off"}
    handler = function("admin", environment=environment, store=MemoryStore("f"))
    assert 404 == handler(event("GET", "/nothing"), None)["statusCode"]
    handler._loop.close()  # type: ignore[union-attr]
    assert "" == capsys.readouterr().err


def test_an_app_of_the_runtime_writes_nothing_of_what_went_well() -> None:
    async def main() -> None:
        log = Log()
        settings = Settings(store="memory://quiet", auth="none")
        app = app_for("dev", settings, store=MemoryStore("quiet"), clock=SimClock(sim_loop()), log=log)
        await Client(app).done("POST", "/admin/topics", KEYED)
        assert [] == log.lines
        await app.close()

    run(main())


def test_an_error_says_whether_it_happened_and_one_of_our_own_quotes_nobody() -> None:
    assert "unknown" == lines.error_of(Indeterminate("Sent.", token="abcd@1"))["applied"]
    assert "no" == lines.error_of(InvalidRequest("Wrong."))["applied"]
    assert {"error": "ValueError", "applied": "unknown"} == lines.error_of(ValueError("hunter2"))
