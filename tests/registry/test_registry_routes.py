"""The routes: Confluent's answers and error codes, bad input, access rules, and other namespaces."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater.errors import Unauthorized
from headwater.limits import REGISTRY_DEPTH_MAX, REGISTRY_SCHEMA_BYTES_MAX
from headwater.log.operations import AclRule, ChangeAcls
from tests.log.helpers import memory, opened, simulate
from tests.registry.helpers_registry import BROKEN, GROWN, USER, V1, Ask, record


def asking(test: Callable[[Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Ask(memory()))

    simulate(main())


def test_a_subject_from_its_first_version_to_its_end() -> None:
    async def test(ask: Ask) -> None:
        assert [] == await ask.get("/subjects")
        assert 40401 == await ask.get("/subjects/s/versions")
        assert 1 == await ask.register("s", USER)
        assert 1 == await ask.register("s", {"fields": USER["fields"], "name": "r", "type": "record"})
        assert 409 == await ask.register("s", BROKEN)
        assert 2 == await ask.register("s", GROWN)
        assert [1, 2] == await ask.get("/subjects/s/versions")
        text = json.dumps(USER, separators=(",", ":"))
        assert {"subject": "s", "version": 1, "id": 1, "schema": text} == await ask.get("/subjects/s/versions/1")
        assert USER == await ask.get("/subjects/s/versions/1/schema")
        assert 2 == (await ask.get("/subjects/s/versions/latest"))["version"]
        assert 2 == (await ask.get("/subjects/s/versions/-1"))["version"]
        assert 40402 == await ask.get("/subjects/s/versions/3")
        assert 42202 == await ask.get("/subjects/s/versions/0")
        assert 42202 == await ask.get("/subjects/s/versions/first")
        assert 1 == (await ask.post("/subjects/s", USER))["version"]
        assert 40403 == await ask.post("/subjects/s", BROKEN)
        assert 40401 == await ask.post("/subjects/t", USER)
        assert 42201 == await ask.post("/subjects/s", "{")

        assert 2 == await ask.delete("/subjects/s/versions/latest")
        assert 40402 == await ask.get("/subjects/s/versions/2")
        assert (await ask.get("/subjects/s/versions/2", "deleted=true"))["deleted"]
        assert [1] == await ask.get("/subjects/s/versions")
        assert [1, 2] == await ask.get("/subjects/s/versions", "deleted=true")
        assert [2] == await ask.get("/subjects/s/versions", "deletedOnly=true")
        assert 40406 == await ask.delete("/subjects/s/versions/2")
        assert 40407 == await ask.delete("/subjects/s/versions/1", "permanent=true")
        assert 2 == await ask.delete("/subjects/s/versions/2", "permanent=true")
        assert 40405 == await ask.delete("/subjects/s", "permanent=true")
        assert [1] == await ask.delete("/subjects/s")
        assert 40404 == await ask.delete("/subjects/s")
        assert 40401 == await ask.get("/subjects/s/versions")
        assert ["s"] == await ask.get("/subjects", "deleted=true")
        assert [1] == await ask.delete("/subjects/s", "permanent=true")
        assert 40401 == await ask.delete("/subjects/s")
        assert [] == await ask.get("/subjects", "deleted=true")
        assert 3 == await ask.register("s", USER)

    asking(test)


def test_parameters_that_a_path_has_no_use_for_are_left_alone() -> None:
    """franz-go's client sends its settings with every call, as Confluent's registry lets it."""

    async def test(ask: Ask) -> None:
        always = "defaultToGlobal=true&verbose=true&normalize=true"
        assert 1 == await ask.register("s", USER)
        assert ["s"] == await ask.get("/subjects", always)
        assert [1] == await ask.get("/subjects/s/versions", always)
        assert {"compatibilityLevel": "BACKWARD"} == await ask.get("/config", always)

    asking(test)


def test_a_soft_deleted_schema_comes_back_as_a_new_version_with_its_id() -> None:
    async def test(ask: Ask) -> None:
        await ask.register("s", USER)
        await ask.delete("/subjects/s")
        assert 1 == await ask.register("s", USER)
        assert [2] == await ask.get("/subjects/s/versions")
        assert 1 == (await ask.post("/subjects/s", USER, "deleted=true"))["id"]

    asking(test)


def test_schemas_are_found_by_id() -> None:
    async def test(ask: Ask) -> None:
        await ask.register("a", USER)
        await ask.register("b", USER)
        await ask.register("b", GROWN)
        await ask.register("j", {"type": "object"}, schemaType="JSON")
        await ask.register("p", 'syntax = "proto3"; message M {}', schemaType="PROTOBUF")
        assert {"schema": json.dumps(USER, separators=(",", ":"))} == await ask.get("/schemas/ids/1")
        assert 4 == (await ask.get("/schemas/ids/1", "fetchMaxId=true"))["maxId"]
        assert ["a", "b"] == await ask.get("/schemas/ids/1/subjects")
        assert [{"subject": "b", "version": 2}] == await ask.get("/schemas/ids/2/versions")
        assert USER == await ask.get("/schemas/ids/1/schema")
        assert {"schema": '{"type":"object"}', "schemaType": "JSON"} == await ask.get("/schemas/ids/3")
        text = await ask("GET", "/schemas/ids/4/schema")
        assert ("text/plain", b'syntax = "proto3"; message M {}') == (text.headers["content-type"], text.plain)
        for wrong in ("5", "0", "-1", "x", "99999999999999999999"):
            assert 40403 == await ask.get(f"/schemas/ids/{wrong}")
        assert ["JSON", "PROTOBUF", "AVRO"] == await ask.get("/schemas/types")
        assert [("a", 1), ("b", 1), ("b", 2)] == [
            (each["subject"], each["version"]) for each in (await ask.get("/schemas"))[:3]
        ]
        assert [("b", 2)] == [
            (each["subject"], each["version"]) for each in await ask.get("/schemas", "latestOnly=true&subjectPrefix=b")
        ]
        assert ["b", "j"] == await ask.get("/subjects", "offset=1&limit=2")
        assert 422 == await ask.get("/subjects", "limit=x")

    asking(test)


def test_references_are_resolved_and_hold_what_they_refer_to() -> None:
    async def test(ask: Ask) -> None:
        await ask.register("user", USER)
        reference = {"name": "r", "subject": "user", "version": 1}
        order = record(("by", "r"), name="order")
        assert 42201 == await ask.register("order", order)
        assert 42201 == await ask.register("order", order, references=[{**reference, "version": 9}])
        assert 2 == await ask.register("order", order, references=[reference])
        assert 2 == await ask.register("order", order, references=[reference])
        assert [reference] == (await ask.get("/subjects/order/versions/1"))["references"]
        assert [2] == await ask.get("/subjects/user/versions/1/referencedby")
        assert 42206 == await ask.delete("/subjects/user")
        assert 42206 == await ask.delete("/subjects/user/versions/1")
        twice = record(("by", "order"), ("for", "r"), name="big")
        both = [{"name": "order", "subject": "order", "version": 1}, reference]
        assert 3 == await ask.register("big", twice, references=both)
        await ask.register("j", {"$defs": {"n": {"type": "integer"}}}, schemaType="JSON")
        inner = {"properties": {"a": {"$ref": "j.json#/$defs/n"}}}
        named = [{"name": "j.json", "subject": "j", "version": 1}]
        assert 5 == await ask.register("k", inner, schemaType="JSON", references=named)
        assert 42201 == await ask.register("k2", inner, schemaType="JSON", references=[{**reference, "name": "j.json"}])
        await ask.register("p", 'syntax = "proto3"; package p; message M {}', schemaType="PROTOBUF")
        using = 'syntax = "proto3"; import "p.proto"; message N { p.M m = 1; }'
        named = [{"name": "p.proto", "subject": "p", "version": 1}]
        assert 7 == await ask.register("q", using, schemaType="PROTOBUF", references=named)

    asking(test)


def test_levels_are_set_for_all_and_for_one() -> None:
    async def test(ask: Ask) -> None:
        assert {"compatibilityLevel": "BACKWARD"} == await ask.get("/config")
        assert 40408 == await ask.get("/config/s")
        assert {"compatibilityLevel": "BACKWARD"} == await ask.get("/config/s", "defaultToGlobal=true")
        assert 42203 == await ask.put("/config", {"compatibility": "SIDEWARD"})
        assert {"compatibility": "FULL"} == await ask.put("/config", {"compatibility": "full"})
        assert {"compatibility": "NONE"} == await ask.put("/config/s", {"compatibility": "NONE"})
        assert {"compatibilityLevel": "NONE"} == await ask.get("/config/s")
        assert 1 == await ask.register("s", USER)
        assert 2 == await ask.register("s", BROKEN)
        assert 1 == await ask.register("t", USER)
        assert 409 == await ask.register("t", record())
        assert {"compatibilityLevel": "NONE"} == await ask.delete("/config/s")
        assert 40408 == await ask.delete("/config/s")
        assert {"compatibilityLevel": "FULL"} == await ask.delete("/config")
        assert {"compatibilityLevel": "BACKWARD"} == await ask.get("/config")
        assert 3 == await ask.register("t", record())

    asking(test)


@pytest.mark.parametrize(
    ("level", "added", "removed", "over_two"),
    [
        ("BACKWARD", False, True, True),
        ("FORWARD", True, False, True),
        ("FULL", False, False, True),
        ("BACKWARD_TRANSITIVE", False, True, False),
        ("FORWARD_TRANSITIVE", True, False, False),
        ("FULL_TRANSITIVE", False, False, False),
        ("NONE", True, True, True),
    ],
)
def test_each_level_asks_what_its_name_says(level: str, added: bool, removed: bool, over_two: bool) -> None:
    """A field without default is added, one is removed, and one that was left out comes back as another type."""

    async def test(ask: Ask) -> None:
        await ask.put("/config", {"compatibility": level})
        await ask.register("s", USER)
        more = record(("name", "string"), ("age", "int"))
        path = "/compatibility/subjects/s/versions"
        assert added is (await ask.post(path, more))["is_compatible"]
        assert removed is (await ask.post(path, record()))["is_compatible"]
        optional = {"name": "x", "type": "int", "default": 0}
        await ask.register("o", record(optional))
        await ask.register("o", record())
        back = record({"name": "x", "type": "string", "default": ""})
        assert over_two is (await ask.post("/compatibility/subjects/o/versions", back))["is_compatible"]

    asking(test)


def test_compatibility_is_asked_about_without_registering() -> None:
    async def test(ask: Ask) -> None:
        path = "/compatibility/subjects/s/versions"
        assert {"is_compatible": True} == await ask.post(f"{path}/latest", USER)
        assert 40401 == await ask.post(f"{path}/1", USER)
        await ask.register("s", USER)
        assert 40402 == await ask.post(f"{path}/2", USER)
        assert 42202 == await ask.post(f"{path}/x", USER)
        assert {"is_compatible": True} == await ask.post(f"{path}/1", GROWN)
        found = await ask.post(f"{path}/latest", BROKEN, "verbose=true")
        assert (False, 1) == (found["is_compatible"], len(found["messages"]))
        assert "TYPE_MISMATCH" in found["messages"][0]
        assert not (await ask.post(path, {"type": "object"}, schemaType="JSON"))["is_compatible"]
        assert 42201 == await ask.post(path, "nonsense")
        assert [1] == await ask.get("/subjects/s/versions")

    asking(test)


def test_a_read_only_subject_is_not_written() -> None:
    async def test(ask: Ask) -> None:
        await ask.register("s", USER)
        assert {"mode": "READWRITE"} == await ask.get("/mode")
        assert 40409 == await ask.get("/mode/s")
        assert 42204 == await ask.put("/mode", {"mode": "IMPORT"})
        assert {"mode": "READONLY"} == await ask.put("/mode/s", {"mode": "readonly"})
        assert 42205 == await ask.register("s", GROWN)
        assert 1 == await ask.register("s", USER)
        assert 42205 == await ask.delete("/subjects/s")
        assert 42205 == await ask.put("/config/s", {"compatibility": "NONE"})
        assert 2 == await ask.register("t", BROKEN)
        assert {"mode": "READONLY"} == await ask.delete("/mode/s")
        assert 40409 == await ask.delete("/mode/s")
        assert {"mode": "READWRITE"} == await ask.delete("/mode")
        assert 3 == await ask.register("s", GROWN)

    asking(test)


def deep(levels: int) -> Any:
    node: Any = "int"
    for _ in range(levels):
        node = {"type": "array", "items": node}
    return node


NONE = ["", " ", "{", "int", "null", "[]x", '{"type": "nothing"}', '"\\ud800"', "[" * 50_000, "1e999"]


@pytest.mark.parametrize("schema", [*NONE, json.dumps(deep(200))], ids=lambda each: repr(each)[:20])
def test_what_is_no_schema_is_refused(schema: str) -> None:
    async def test(ask: Ask) -> None:
        for kind in ("AVRO", "PROTOBUF"):
            assert 42201 == await ask.register("s", schema, schemaType=kind)
            assert 42201 == await ask.post("/compatibility/subjects/s/versions", schema, schemaType=kind)
        assert [] == await ask.get("/subjects")

    asking(test)


def test_sizes_and_depths_are_bounded() -> None:
    async def test(ask: Ask) -> None:
        wide = {"type": "enum", "name": "e", "symbols": ["a"], "doc": "x" * REGISTRY_SCHEMA_BYTES_MAX}
        assert 42201 == await ask.register("s", wide)
        assert 1 == await ask.register("s", {**wide, "doc": "x" * (REGISTRY_SCHEMA_BYTES_MAX - 100)})
        assert 2 == await ask.register("d", deep(REGISTRY_DEPTH_MAX - 1))
        assert 42201 == await ask.register("d", deep(REGISTRY_DEPTH_MAX))
        assert 2 == await ask.register("d", deep(REGISTRY_DEPTH_MAX - 1))
        assert 42208 == await ask.register("x" * 250, USER)
        assert 42208 == await ask.register(":.context:s", USER)

    asking(test)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 422), (b"{}", 422), (b'{"schema": 3}', 422), (b'{"schema": null}', 422),
        (b'{"schema": "x", "schemaType": "XML"}', 422), (b'{"schema": "x", "references": 3}', 422),
        (b'{"schema": "x", "references": [{"name": "n"}]}', 422), (b"\xff", 400), (b"[" * 100_000, 422),
        (b'{"schema": "\\"int\\"", "metadata": {"properties": {"a": "b"}}}', 422),
        (b'{"schema": "\\"int\\"", "ruleSet": {"domainRules": []}}', 422), (b'{"schema": "\\"int\\"", "id": 7}', 422),
        (b'{"schema": "\\"int\\"", "version": 7}', 422),
    ],
)  # fmt: skip
def test_bodies_that_are_none_are_refused(body: bytes, status: int) -> None:
    async def test(ask: Ask) -> None:
        answer = await ask("POST", "/subjects/s/versions", body)
        assert status == answer.status
        assert answer.json["message"]
        assert "no" == answer.json["applied"]
        assert [] == await ask.get("/subjects")

    asking(test)


def test_what_clients_send_beside_a_schema_is_taken() -> None:
    async def test(ask: Ask) -> None:
        more = {"metadata": None, "ruleSet": None, "references": [], "version": -1, "id": -1, "unknown": {"a": 1}}
        assert 1 == await ask.register("s", USER, **more)
        assert 1 == await ask.register("s", USER, version=1)
        assert 2 == await ask.register("s", GROWN, version=2)
        for kind in ("application/json", "application/vnd.schemaregistry+json"):
            body = json.dumps({"schema": '"int"'})
            answer = await ask.client("POST", "/registry/subjects/i/versions", body, kind=kind)
            assert (200, V1) == (answer.status, answer.headers["content-type"])
        found = await ask.client("GET", "/registry/subjects", headers={"accept": "application/json"})
        assert "application/json" == found.headers["content-type"]
        assert 406 == (await ask.client("GET", "/registry/subjects", headers={"accept": "text/html"})).status
        assert 415 == (await ask.client("POST", "/registry/subjects/i/versions", "x", kind="text/plain")).status
        assert {} == await ask.get("")

    asking(test)


def test_access_is_that_of_the_subjects_topic() -> None:
    async def main() -> None:
        store = memory()
        namespace = await opened(store)
        rules = [
            AclRule("ann", "write", "topic", "users", "literal", True),
            AclRule("bob", "describe", "topic", "users", "literal", True),
            AclRule("eve", "write", "topic", "other", "literal", True),
        ]
        ask = Ask(store, served=("ns",))

        async def by(who: str, method: str, path: str, body: object = b"") -> int:
            kind = {} if body == b"" else {"kind": V1}
            path = f"/namespaces/ns/registry{path}"
            return (await ask.client(method, path, body, headers={"x-principal": who}, **kind)).status

        await namespace.writer.commit(ops=[ChangeAcls(add=rules)])
        schema = {"schema": json.dumps(USER)}
        assert 403 == await by("bob", "POST", "/subjects/users-value/versions", schema)
        assert 200 == await by("ann", "POST", "/subjects/users-value/versions", schema)
        for who, status in {"ann": 200, "bob": 200, "eve": 403, "root": 200}.items():
            assert status == await by(who, "GET", "/subjects/users-value/versions/latest"), who
        assert [200, 200, 404] == [await by(who, "GET", "/schemas/ids/1") for who in ("ann", "bob", "eve")]
        assert 403 == await by("ann", "DELETE", "/subjects/users-value")
        assert 403 == await by("ann", "PUT", "/config", {"compatibility": "NONE"})
        assert 200 == await by("root", "PUT", "/config", {"compatibility": "NONE"})
        assert 401 == await by("stranger", "GET", "/subjects")
        assert Unauthorized.status == 401

    simulate(main())


def test_namespaces_have_registries_of_their_own() -> None:
    async def main() -> None:
        ask = Ask(memory(), served=("one", "two"))
        for name in ("one", "two"):
            path = f"/namespaces/{name}/registry/subjects/{name}/versions"
            answer = await ask.client("POST", path, json.dumps({"schema": '"int"'}), kind=V1)
            assert 1 == answer.json["id"]
        found = await ask.client("GET", "/namespaces/one/registry/subjects")
        assert ["one"] == found.json

    simulate(main())
