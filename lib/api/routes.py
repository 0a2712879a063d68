"""Which routes there are, and which function serves them.

    produce   what writes records                groups   what produce and fetch do, groups, the whole REST dialect
    fetch     what reads records                 admin    /admin/…
    maintain  POST /maintain                              … and /registry/…, a Confluent schema registry
    console   /console/…: headwater.console      all      /healthz and /openapi.json; but for maintain and console
                                                          reads of topics

`headwater dev` serves everything on one port.

Route tables are imported by function, so that a function pays only for what it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headwater.api.messages import Call, Response, Route

FUNCTIONS: Final = ("produce", "fetch", "groups", "admin", "maintain", "console")
WRITE: Final = frozenset({"produce", "groups"})
READ: Final = frozenset({"fetch", "groups"})
GROUPS: Final = frozenset({"groups"})
ADMIN: Final = frozenset({"admin"})
TOPICS: Final = frozenset({"produce", "fetch", "groups", "admin"})
MAINTAIN: Final = frozenset({"maintain"})
ALL: Final = frozenset(FUNCTIONS)
EVERYTHING: Final = "dev"

OFFSET_QUERY: Final = {
    "offset": "the first offset to read",
    "timestamp": "read from the first record at or after this time, in ms since 1970",
    "from": "`earliest` (the default) or `latest`",
    "max_bytes": "about how many stored bytes at most; at least one batch is read if there is any",
    "wait_ms": "how long to wait for a record if there is none (long poll)",
    "as_of": "read the log as it was at this commit",
}


def body_schema(kind: type[msgspec.Struct]) -> Mapping[str, object]:
    """The JSON Schema of a body, made when somebody reads it: only OpenAPI does."""
    return _Schema(kind)


def table(function: str) -> tuple[Route, ...]:
    """The routes that ``function`` serves; all of them for ``dev``."""
    routes = [*_open_routes()]
    if function in ("produce", "fetch", "groups", EVERYTHING):
        from headwater.api import routes_data

        routes += routes_data.ROUTES
    if function in ("groups", EVERYTHING):
        from headwater.api import dialect_consumers, routes_groups, routes_registry

        routes += [*routes_groups.ROUTES, *dialect_consumers.ROUTES, *routes_registry.ROUTES]
    if function in ("produce", "fetch", "groups", "admin", EVERYTHING):
        from headwater.api import dialect, routes_admin  # whose reads of topics are what every client begins with

        routes += [*dialect.ROUTES, *routes_admin.ROUTES]
    if function in ("maintain", EVERYTHING):
        from headwater.api import upkeep

        routes += upkeep.ROUTES
    return tuple(route for route in routes if function == EVERYTHING or function in route.functions)


async def _health(call: Call) -> Response:
    return Response(headers={"content-type": "application/json"}, body=b'{"status":"ok"}')


async def _document(call: Call) -> Response:
    from headwater.api.openapi import document

    return Response(headers={"content-type": "application/json"}, body=document())


def _open_routes() -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            pattern="/healthz",
            handler=_health,
            functions=ALL,
            summary="Whether the process answers",
            open=True,
        ),
        Route(
            method="GET",
            pattern="/openapi.json",
            handler=_document,
            functions=ALL,
            summary="This document",
            open=True,
        ),
    )


class _Schema(Mapping[str, object]):
    """A JSON Schema with its definitions, made on first use."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.kind = kind
        self._made: dict[str, Any] | None = None

    def _schema(self) -> dict[str, Any]:
        if self._made is None:
            self._made = msgspec.json.schema(self.kind)
        return self._made

    def __getitem__(self, name: str) -> object:
        return self._schema()[name]

    def __iter__(self) -> Any:
        return iter(self._schema())

    def __len__(self) -> int:
        return len(self._schema())
