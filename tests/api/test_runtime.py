"""Functions: warm between invocations, never late, never raising, and nothing in flight when they return."""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headwater.api import routes
from headwater.api.messages import Call, Response, Route
from headwater.api.runtime import Function, Settings, app_for, function
from headwater.errors import InvalidRequest, Unavailable
from headwater.log.options import Options
from headwater.store.base import Body, Stat
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from tests.api.helpers_http import NATIVE, Client, Log, app_over, event, with_topic
from tests.log.helpers import memory, simulate

RECORDS = "/topics/t/partitions/0/records"
ENVIRONMENT = {"HEADWATER_STORE": "memory://unused", "HEADWATER_AUTH": "none"}
FUNCTIONS = Path(__file__).parents[2] / "functions"


@dataclass
class Context:
    """What the platform says about an invocation."""

    left_ms: float = 30_000

    def get_remaining_time_in_millis(self) -> float:
        return self.left_ms


class SilentStore(MemoryStore):
    """A store that may fall silent: then a conditional write arrives and is never answered."""

    silent = False
    arrived = 0

    async def put_if_absent(self, key: str, data: Body) -> Stat:
        if not self.silent:
            return await super().put_if_absent(key, data)
        self.arrived += 1
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@pytest.fixture
def store() -> SilentStore:
    """A bucket with a topic ``t``."""
    return with_topic(SilentStore())


def ask(handler: Function, *what: Any, context: object = None, **how: Any) -> tuple[int, Any]:
    """The status, and the body as JSON."""
    answer = handler(event(*what, **how), context or Context())
    json.dumps(answer)
    return answer["statusCode"], json.loads(answer["body"] or "null")


def produce(handler: Function, value: object = 1, context: object = None) -> tuple[int, Any]:
    return ask(handler, "POST", RECORDS, {"records": [{"value": value}]}, context=context)


def writer_of(handler: Function) -> str:
    assert handler._app is not None
    (namespace,) = handler._app.open_namespaces()
    return namespace.journal.writer


# -- what a function serves ------------------------------------------------------------------------------


def test_what_one_function_writes_another_reads(store: SilentStore) -> None:
    assert 200 == produce(function("produce", environment=ENVIRONMENT, store=store))[0]
    for name in ("fetch", "groups"):
        status, records = ask(function(name, environment=ENVIRONMENT, store=store), "GET", RECORDS)
        assert (200, [1]) == (status, [each["value"] for each in records])


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("produce", "GET", RECORDS),
        ("produce", "GET", "/admin/acls"),
        ("fetch", "POST", RECORDS),
        ("fetch", "POST", "/maintain"),
        ("groups", "GET", "/admin/acls"),
        ("admin", "POST", RECORDS),
        ("admin", "GET", "/groups"),
        ("maintain", "GET", "/topics"),
    ],
)
def test_a_function_serves_its_own_routes_only(store: SilentStore, name: str, method: str, path: str) -> None:
    status, _ = ask(function(name, environment=ENVIRONMENT, store=store), method, path)
    assert status in (404, 405)


@pytest.mark.parametrize("name", routes.FUNCTIONS)
def test_every_function_has_a_folder_and_says_that_it_is_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = runpy.run_path(str(FUNCTIONS / name / "app.py"))["handler"]
    assert name == handler.name
    monkeypatch.setenv("HEADWATER_STORE", "memory://well")
    assert (200, {"status": "ok"}) == ask(handler, "GET", "/healthz")


def test_there_is_a_folder_for_each_function_and_no_other() -> None:
    # `process` runs a job and serves no requests: headwater.streams.function
    assert {*routes.FUNCTIONS, "process"} == {path.parent.name for path in FUNCTIONS.glob("*/app.py")}


# -- warm ------------------------------------------------------------------------------------------------


def test_a_namespace_is_opened_once_and_catches_up_when_it_is_used(store: SilentStore) -> None:
    first, second = (function("groups", environment=ENVIRONMENT, store=store) for _ in range(2))
    produce(first)
    ask(second, "GET", RECORDS)
    writers = writer_of(first), writer_of(second)
    produce(first, 2)
    _, records = ask(second, "GET", RECORDS)
    assert [1, 2] == [each["value"] for each in records]
    assert writers == (writer_of(first), writer_of(second))


def test_after_a_restore_everything_is_opened_anew(store: SilentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[Any] = []
    module = ModuleType("snapshot_restore_py")
    module.register_after_restore = hooks.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", module)
    handler = function("produce", environment=ENVIRONMENT, store=store)
    produce(handler)
    before = writer_of(handler)
    (restored,) = hooks
    restored()
    assert 200 == produce(handler)[0]
    assert before != writer_of(handler)


def test_after_a_fork_everything_is_opened_anew(store: SilentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = function("produce", environment=ENVIRONMENT, store=store)
    produce(handler)
    before = writer_of(handler)
    monkeypatch.setattr("os.getpid", lambda: -5)
    assert 200 == produce(handler)[0]
    assert before != writer_of(handler)


# -- never late ------------------------------------------------------------------------------------------


def test_a_long_poll_ends_before_the_function_does(store: SilentStore) -> None:
    handler = function("fetch", environment=ENVIRONMENT, store=store)
    ask(handler, "GET", RECORDS)
    start = time.monotonic()
    assert (200, []) == ask(handler, "GET", RECORDS, query="wait_ms=30000", context=Context(1_000))
    assert time.monotonic() - start < 1.0


def test_a_write_that_nobody_answers_is_indeterminate_before_the_deadline(store: SilentStore) -> None:
    handler = function("produce", environment=ENVIRONMENT, store=store)
    assert 200 == produce(handler, context=Context(2_000))[0]
    store.silent = True
    start = time.monotonic()
    status, body = produce(handler, context=Context(2_000))
    assert time.monotonic() - start < 2.0
    assert (504, "Indeterminate", "unknown") == (status, body["error"], body["applied"])
    assert store.arrived >= 1
    assert "@" in body["token"]
    assert not asyncio.all_tasks(handler._loop)
    store.silent = False
    headers = {"headwater-token": body["token"]}
    again = [
        ask(handler, "POST", RECORDS, {"records": [{"value": 1}]}, headers=headers)[1]["appended"] for _ in range(2)
    ]
    assert again[0] == again[1]
    assert [1] == [each["base_offset"] for each in again[0]]


def test_a_write_that_was_never_begun_was_not_applied(store: SilentStore) -> None:
    class Mute(MemoryStore):
        async def get(self, *what: Any, **how: Any) -> Any:
            await asyncio.Event().wait()

    handler = function("produce", environment=ENVIRONMENT, store=Mute())
    status, body = produce(handler, context=Context(400))
    assert (True, "no") == (status in (503, 504), body["applied"])
    assert not asyncio.all_tasks(handler._loop)


def test_with_no_time_left_nothing_stays_in_flight(store: SilentStore) -> None:
    handler = function("produce", environment=ENVIRONMENT, store=store)
    produce(handler)
    store.silent = True
    status, body = produce(handler, context=Context(150))
    assert (504, "unknown") == (status, body["applied"])
    assert not asyncio.all_tasks(handler._loop)
    store.silent = False
    assert 200 == produce(handler)[0]


# -- never raising ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [None, [], "x", 5, {}, {"requestContext": {"http": {}}}, {"Records": []}])
@pytest.mark.parametrize("context", [None, object(), Context(0), Context(-5)])
def test_whatever_comes_in_an_answer_goes_out(
    store: SilentStore, made: Any, context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = function("produce", environment=ENVIRONMENT, store=store)(made, context)
    assert answer["statusCode"] in (400, 500)
    assert json.loads(answer["body"])["error_code"] in (400, 500)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HEADWATER_STORE": "ftp://x"},
        {"HEADWATER_STORE": "memory://x", "HEADWATER_AUTH": "magic"},
        {"HEADWATER_STORE": "memory://x", "HEADWATER_AUTH": "none", "HEADWATER_NAMESPACE": "../x"},
    ],
)
def test_a_wrong_environment_is_an_answer_and_a_line_in_the_log(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, body = ask(function("fetch", environment=environment), "GET", RECORDS)
    assert status in (400, 500)
    if status == 500:
        assert body["id"] == json.loads(capsys.readouterr().err)["request"]


def test_a_mistake_of_ours_is_logged_without_what_the_client_sent() -> None:
    async def broken(call: Call) -> Response:
        raise ValueError(f"the secret is {call.request.body!r}")

    async def main() -> None:
        log = Log()
        route = Route(
            method="POST",
            pattern="/broken/{name}",
            handler=broken,
            functions=frozenset(),
            summary="Broken",
            consumes=("application/json",),
        )
        app = app_over(memory(), routes=(route,), log=log)
        answer = await Client(app)("POST", "/broken/hush", {"password": "hunter2"})
        assert (500, "unknown") == (answer.status, answer.json["applied"])
        (line,) = log.lines
        assert answer.json["id"] == answer.headers["x-request-id"] == json.loads(line)["request"]
        assert ("mistake", "ValueError") == (json.loads(line)["event"], json.loads(line)["error"]["error"])
        for secret in ("hunter2", "hush", "the secret"):
            assert secret not in line
            assert secret not in answer.body.decode()

    simulate(main())


def test_why_a_namespace_cannot_be_read_is_no_clients_business() -> None:
    class Away(MemoryStore):
        async def get(self, *what: Any, **how: Any) -> Any:
            raise Unavailable("https://bucket.internal/secret-prefix is away")

    async def main() -> None:
        options = Options(store_retry_s=0.1)
        answer = await Client(app_over(Away(), options=options))("GET", RECORDS)
        assert 503 == answer.status
        assert "secret-prefix" not in answer.body.decode()
        assert "1" == answer.headers["retry-after"]

    simulate(main())


# -- tenants ---------------------------------------------------------------------------------------------


def test_only_the_namespaces_that_are_named_are_served() -> None:
    async def main() -> None:
        client = Client(app_over(memory(), served=("default", "team-*")))
        for name in ("default", "team-a", "team-"):
            answer = await client("GET", f"/namespaces/{name}/groups")
            assert 200 == answer.status, answer.body
        bodies = set()
        for name in ("other", "teams", "default2", "a"):
            answer = await client("GET", f"/namespaces/{name}/groups", headers={"x-request-id": "same"})
            assert 404 == answer.status
            bodies.add(answer.body)
        assert 1 == len(bodies)
        assert 400 == (await client("GET", "/namespaces/team-A/groups")).status

    simulate(main())


def test_with_tokens_a_namespace_of_others_answers_like_a_wrong_token() -> None:
    async def main() -> None:
        bucket = memory()
        root = Client(app_over(bucket, served=("*",)))
        tokens = {}
        for name in ("mine", "theirs"):
            made = await root.done("POST", f"/namespaces/{name}/admin/keys", {"principal": "a"})
            tokens[name] = made.json["token"]
        settings = Settings(store="", namespace="mine", namespaces=("mine",), auth="token")
        client = Client(app_for("groups", settings, store=bucket, clock=root.app.clock))
        bodies = set()
        for path, token in (
            ("/namespaces/mine/groups", "hw_nobody_00000000"),
            ("/namespaces/mine/groups", tokens["theirs"]),
            ("/namespaces/mine/groups", ""),
            ("/namespaces/theirs/groups", tokens["mine"]),
            ("/namespaces/theirs/groups", tokens["theirs"]),
            ("/namespaces/theirs/groups", ""),
            ("/namespaces/none/groups", tokens["mine"]),
        ):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            answer = await client("GET", path, headers={**headers, "x-request-id": "same"})
            assert (401, "Bearer") == (answer.status, answer.headers["www-authenticate"])
            bodies.add(answer.body)
        assert 1 == len(bodies)
        headers = {"authorization": f"Bearer {tokens['mine']}"}
        assert 200 == (await client("GET", "/groups", headers=headers)).status
        assert 200 == (await client("GET", "/namespaces/mine/groups", headers=headers)).status

    simulate(main())


@pytest.mark.parametrize(("name", "auth"), [("fetch", "none"), ("groups", "token"), ("produce", "token")])
def test_who_makes_no_first_commit_writes_nothing_into_an_empty_bucket(name: str, auth: str) -> None:
    async def main() -> None:
        bucket = MeteredStore(memory())
        settings = Settings(store="", namespace="new", namespaces=("new",), auth=auth)
        client = Client(app_for(name, settings, store=bucket))
        answer = await client("GET", "/admin/topics", headers={"authorization": "Bearer hw_some_secret"})
        assert (200 if auth == "none" else 401) == answer.status
        assert 0 == bucket.counts.put + bucket.counts.put_conditional

    simulate(main())


def test_the_environment_names_what_is_served() -> None:
    assert Settings(store="s3://b/p", namespace="a", namespaces=("a", "team-*"), auth="token") == Settings.of(
        {
            "HEADWATER_STORE": "s3://b/p",
            "HEADWATER_NAMESPACE": "a",
            "HEADWATER_NAMESPACES": "a, team-*",
            "HEADWATER_AUTH": "token",
        }
    )
    assert Settings(store="x", namespaces=("default",)) == Settings.of({"HEADWATER_STORE": "x"})
    with pytest.raises(InvalidRequest):
        Settings.of({})


# -- maintenance -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [{}, {"source": "aws.events", "detail-type": "Scheduled Event"}])
def test_the_schedule_does_the_chores_of_every_namespace(
    store: SilentStore, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**ENVIRONMENT, "HEADWATER_NAMESPACES": "default,other,team-*"}
    report = function("maintain", environment=environment, store=store)(made, Context())
    assert ["default", "other"] == sorted(each["namespace"] for each in report["reports"])
    assert [] == report["failed"]
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert json.loads(json.dumps(report["reports"])) == [line["done"] for line in said]
    assert {("upkeep", "info")} == {(line["event"], line["level"]) for line in said}


def test_namespaces_that_fit_a_pattern_are_found_in_the_bucket(store: SilentStore) -> None:
    async def fill() -> None:
        client = Client(app_over(store, served=("*",)))
        for name in ("team-a", "team-b", "team", "team-", "team-a.b", "tea", "zoo"):
            await client.done("POST", f"/namespaces/{name}/admin/topics", {"name": "t"})
        await store.put("Not-a-namespace/x", b"")
        await store.put("team-c", b"")
        await client.app.close()

    asyncio.run(fill())
    environment = {**ENVIRONMENT, "HEADWATER_NAMESPACES": "default,team-*"}
    report = function("maintain", environment=environment, store=store)({}, Context())
    assert ["default", "team-", "team-a", "team-a.b", "team-b"] == sorted(
        each["namespace"] for each in report["reports"]
    )


def test_chores_can_be_asked_for(store: SilentStore) -> None:
    status, report = ask(function("maintain", environment=ENVIRONMENT, store=store), "POST", "/maintain")
    assert (200, "default", []) == (status, report["namespace"], report["failed"])


def test_a_snapshot_is_stored_when_the_last_one_is_some_way_back() -> None:
    async def main() -> None:
        client = Client(app_over(memory()))
        await client.done("POST", "/admin/topics", {"name": "t"})
        for n in range(70):
            await client.done("POST", RECORDS, {"records": [{"value": n}]})
        first, second = (await client.done("POST", "/maintain")).json, (await client.done("POST", "/maintain")).json
        assert first["snapshot"] >= 70
        assert 0 == second["snapshot"]

    simulate(main())


@pytest.fixture(autouse=True)
def loops_are_closed() -> Iterator[None]:
    """A function keeps its loop for as long as its process lives; here the process goes on."""
    made: list[asyncio.AbstractEventLoop] = []
    real = asyncio.new_event_loop

    def remembered() -> asyncio.AbstractEventLoop:
        made.append(real())
        return made[-1]

    asyncio.new_event_loop = remembered
    try:
        yield
    finally:
        asyncio.new_event_loop = real
        for loop in made:
            loop.close()


def test_native_routes_are_all_there() -> None:
    assert {(route.method, route.pattern) for route in NATIVE} <= {
        (route.method, route.pattern) for route in routes.table(routes.EVERYTHING)
    }
