"""The OpenAPI document: it says what the routes are, and a fuzzer finds the running server to be as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from headwater.api import media, openapi, routes
from headwater.api.app import App
from headwater.api.routing import Router
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import Client, Log, app_over, serving
from tests.log.helpers import memory, simulate

TABLE = routes.table(routes.EVERYTHING)
DOCUMENT: dict[str, Any] = json.loads(openapi.document())


def test_every_route_appears_once_with_its_functions_and_statuses() -> None:
    said = {
        (method.upper(), path): (operation["x-functions"], {int(code) for code in operation["responses"]})
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    made = {(route.method, route.pattern): (sorted(route.functions), set(openapi.statuses(route))) for route in TABLE}
    assert made == said
    assert len(TABLE) == len(made)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    text = json.dumps(DOCUMENT)
    for name in {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert name in schemas, name
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


@pytest.mark.parametrize("function", routes.FUNCTIONS)
def test_each_function_serves_what_the_tables_say(function: str) -> None:
    served = {(route.method, route.pattern) for route in routes.table(function)}
    assert {(route.method, route.pattern) for route in TABLE if function in route.functions} == served
    assert {("GET", "/healthz"), ("GET", "/openapi.json")} <= served


def test_every_route_is_served_by_some_function_and_found_by_its_path() -> None:
    router = Router(TABLE)
    for route in TABLE:
        assert route.functions, route.pattern
        found, parts = router.find(route.method, route.pattern.replace("{", "<").replace("}", ">"))
        assert route is found
        assert all(value == f"<{name}>" for name, value in parts.items())


def test_the_document_is_served() -> None:
    async def main() -> None:
        app = app_over(memory(), routes=TABLE)
        answer = await Client(app).done("GET", "/openapi.json")
        assert DOCUMENT == answer.json

    simulate(main())


# -- fuzzing ---------------------------------------------------------------------------------------------


@contextmanager
def running() -> Iterator[tuple[str, Log]]:
    """A server in a thread of its own, over a bucket with two topics, that waits for nothing."""
    log = Log()

    async def make() -> App:
        app = app_over(MemoryStore(), routes=TABLE, log=log, wait_ms_max=20)
        client = Client(app)
        for name in ("t", "topic", "0"):
            await client.done("POST", "/admin/topics", {"name": name, "partitions": 2})
        return app

    with serving(make) as url:
        yield url, log


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Log]]:
    with running() as made:
        yield made


checks.load_all_checks()
CHECKS = [
    checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "allow_header_conformance",
        "unsupported_method",
    )
]


@schemathesis.serializer(media.ARROW, media.KAFKA2, media.FRAME)
def as_bytes(context: schemathesis.SerializationContext, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.phases.coverage.enabled = False  # thousands of requests that hypothesis makes too, in time


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_server_answers_as_the_document_says(case: schemathesis.Case, server: tuple[str, Log]) -> None:
    url, log = server
    response = case.call(base_url=url, timeout=10)
    case.validate_response(response, checks=CHECKS)
    assert [] == log.lines
