"""The OpenAPI 3.1 document, made from the route tables, so that it cannot say what no handler does.

Made on first request and kept. Errors have one shape everywhere (``errors_http``); which statuses a route may answer
with beside its own follows from what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from headwater.api import routes
from headwater.api.messages import Route
from headwater.api.schemas import schema_of

VERSION: Final = "3.1.0"
JSON: Final = "application/json"
KAFKA_JSON: Final = "application/vnd.kafka.v2+json"

REASONS: Final = {
    200: "Done",
    201: "Made",
    204: "Done; there is nothing to say",
    400: "The request is malformed, or breaks a rule or a limit",
    401: "The credentials are missing, wrong or expired",
    403: "The principal may not do this",
    404: "The path, or what it names, does not exist",
    405: "The path has no such method",
    406: "None of the media types on offer is accepted, or the records are not of that format",
    408: "The body did not come in time",
    409: "Somebody was first, or has taken over; nothing was done",
    413: "The body, or the answer, is too large",
    414: "The path or the query is too long",
    415: "The body's media type or content encoding is not taken",
    416: "The offset is outside the log; the body has the valid range",
    422: "The body is well-formed and does not fit",
    429: "The quota is used up; Retry-After says for how long",
    500: "Stored bytes are damaged, or the service made a mistake",
    503: "The store cannot serve now; nothing was done",
    504: "Time ran out; a write may or may not take effect: repeat it under the same identity only",
    507: "The store is full",
}
ALWAYS: Final = (400, 404, 405, 406, 408, 413, 414, 415, 500)  # a body where none is taken is a 415
GUARDED: Final = (401, 403, 409, 416, 422, 429, 503, 504, 507)

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@cache
def document() -> bytes:
    """The document as JSON. Cost: some milliseconds once."""
    return msgspec.json.encode(describe(routes.table(routes.EVERYTHING)))


def describe(table: tuple[Route, ...]) -> dict[str, Any]:
    """The document of some routes as plain data."""
    schemas: dict[str, Any] = {"Error": _error_schema()}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Headwater",
            "version": "1",
            "description": (
                "An event log over HTTP. Paths begin with /namespaces/{namespace} for a namespace other than the "
                "default one. Errors say whether anything happened (`applied`) and what to do now (`what_now`)."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"password": []}, {"signature": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API key's token"},
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "An API key or its principal, and the key's token",
                },
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, for function URLs of auth type AWS_IAM",
                },
            },
        },
    }


def statuses(route: Route) -> list[int]:
    """Every status that the route may answer with."""
    return sorted({*route.codes, *ALWAYS, *(() if route.open else GUARDED)})


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": _parameters(route),
        "responses": {str(status): _response(route, status, schemas) for status in statuses(route)},
        "x-functions": sorted(route.functions),
    }
    if route.consumes:
        operation["requestBody"] = _body(route, schemas)
    if route.open:
        operation["security"] = [{}]
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parts = [
        {"name": name, "in": "path", "required": True, "schema": _part_schema(name)}
        for name in _PARAMETER.findall(route.pattern)
    ]
    query = [
        {"name": name, "in": "query", "description": meaning, "schema": _query_schema(name)}
        for name, meaning in route.query.items()
    ]
    headers = [
        {"name": name, "in": "header", "description": meaning, "schema": _header_schema(name)}
        for name, meaning in route.headers.items()
    ]
    return [*parts, *query, *headers]


def _header_schema(name: str) -> dict[str, Any]:
    if name.startswith("Headwater-Producer-"):
        return {"type": "integer", "minimum": 0}
    return {"type": "string", "minLength": 1, "maxLength": 200}


def _part_schema(name: str) -> dict[str, Any]:
    if name == "partition":
        return {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
    return {"type": "string", "minLength": 1, "pattern": r"^[^/\\\u0000-\u001f\u007f]+$"}


def _query_schema(name: str) -> dict[str, Any]:
    if name == "from":
        return {"enum": ["earliest", "latest"]}
    if name == "at":
        return {"type": "string", "pattern": "^(earliest|latest|[0-9]{1,18})$"}
    if name in ("offset", "timestamp", "max_bytes", "wait_ms", "as_of", "timeout", "count", "size"):
        return {"type": "integer", "minimum": 0}
    return {"type": "string"}


def _body(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for kind in route.consumes:
        if kind.endswith("json") and route.schema is not None:
            content[kind] = {"schema": _shared(route.schema, schemas)}
        else:
            content[kind] = {"schema": {} if kind.endswith("json") else {"type": "string", "format": "binary"}}
    return {"required": route.schema is not None, "content": content}


def _response(route: Route, status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": REASONS[status]}
    if status == 204:
        return response
    if status in route.codes:
        if route.sends:
            response["headers"] = {
                name: {"description": meaning, "schema": {"type": "integer"}} for name, meaning in route.sends.items()
            }
        answer = {} if route.answer is None else schema_of(route.answer, schemas)
        response["content"] = {kind: {"schema": answer if kind.endswith("json") else {}} for kind in route.produces}
    else:
        error = {"schema": {"$ref": "#/components/schemas/Error"}}
        response["content"] = {JSON: error, KAFKA_JSON: error} if route.dialect else {JSON: error}
    return response


def _shared(schema: Mapping[str, object], schemas: dict[str, Any]) -> Any:
    """The schema with its definitions moved to where those of all routes are. A name stands for one thing only."""
    plain: dict[str, Any] = _plain(schema)
    definitions: dict[str, Any] = plain.pop("$defs", {})
    names = {name: _free(name, found, schemas) for name, found in definitions.items()}
    for name, found in definitions.items():
        schemas[names[name]] = _renamed(found, names)
    return _renamed(plain, names)


def _free(name: str, found: Any, schemas: Mapping[str, Any]) -> str:
    free, count = name, 1
    while free in schemas and schemas[free].get("title") == found.get("title") and not _same(schemas[free], found):
        count += 1
        free = f"{name}{count}"
    return free


def _same(known: Any, found: Any) -> bool:
    return msgspec.json.encode(_bare(known)) == msgspec.json.encode(_bare(found))


def _bare(schema: Any) -> Any:
    """The schema with references by the last part of their names only."""
    if isinstance(schema, dict):
        return {
            name: str(value).rpartition("/")[2] if name == "$ref" else _bare(value) for name, value in schema.items()
        }
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, dict):
        return {
            name: f"#/components/schemas/{names[str(value).rpartition('/')[2]]}"
            if name == "$ref" and str(value).startswith("#/$defs/")
            else _renamed(value, names)
            for name, value in schema.items()
        }
    return [_renamed(item, names) for item in schema] if isinstance(schema, list) else schema


def _plain(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _plain(value) for name, value in schema.items()}
    return [_plain(item) for item in schema] if isinstance(schema, list | tuple) else schema


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {
            "error_code": {"type": "integer", "description": "The REST Proxy v2's number, or the status"},
            "message": {"type": "string"},
            "error": {"type": "string", "description": "The class of the error"},
            "applied": {"enum": ["no", "unknown", "-"], "description": "Whether the request took effect"},
            "what_now": {"type": "string", "description": "What the client should do"},
        },
        "additionalProperties": True,
    }


def _name(route: Route) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", route.pattern.lower()).strip("_")
    return f"{route.method.lower()}_{words}"


def _tag(route: Route) -> str:
    if route.dialect:
        return "Kafka REST Proxy v2"
    first = route.pattern.split("/")[1]
    return {"admin": "admin", "groups": "groups", "lag": "groups", "maintain": "operation"}.get(
        first, "operation" if route.open else "records"
    )
