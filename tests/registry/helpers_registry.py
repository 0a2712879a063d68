"""What the tests of the registry share: a short way to ask it over HTTP, and schemas."""

from __future__ import annotations

import json
from typing import Any

from headwater.api import routes_registry
from headwater.store.base import ObjectStore
from tests.api.helpers_http import Answer, Client, app_over

V1 = "application/vnd.schemaregistry.v1+json"


def record(*fields: tuple[str, object], name: str = "r", **more: object) -> dict[str, Any]:
    """An Avro record whose fields have no defaults, unless a field is given as it is."""
    made = [dict(each) if isinstance(each, dict) else {"name": each[0], "type": each[1]} for each in fields]
    return {"type": "record", "name": name, "fields": made, **more}


USER = record(("name", "string"))
GROWN = {**USER, "fields": [*USER["fields"], {"name": "age", "type": "int", "default": 0}]}
BROKEN = record(("name", "int"))


class Ask:
    """A client of the registry over one bucket, without sockets."""

    def __init__(self, store: ObjectStore, **how: Any) -> None:
        self.client = Client(app_over(store, routes=routes_registry.ROUTES, **how))

    async def __call__(self, method: str, path: str, body: object = b"", query: str = "") -> Answer:
        kind = {} if body == b"" else {"kind": V1}
        return await self.client(method, f"/registry{path}", body, query=query, **kind)

    async def get(self, path: str, query: str = "") -> Any:
        """What is there; an error's code if there is nothing."""
        return said(await self("GET", path, query=query))

    async def delete(self, path: str, query: str = "") -> Any:
        return said(await self("DELETE", path, query=query))

    async def put(self, path: str, body: object) -> Any:
        return said(await self("PUT", path, body))

    async def post(self, path: str, schema: object, query: str = "", **more: object) -> Any:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return said(await self("POST", path, {"schema": text, **more}, query))

    async def register(self, subject: str, schema: object, **more: object) -> Any:
        """The id; an error's code if it is refused."""
        answer = await self.post(f"/subjects/{subject}/versions", schema, **more)
        return answer["id"] if isinstance(answer, dict) else answer


def said(answer: Answer) -> Any:
    """The JSON of an answer, or the error's code."""
    return answer.json if answer.status == 200 else answer.json["error_code"]
