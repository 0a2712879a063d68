"""Registered schemas become a topic's own: what serializers write has columns in the archive."""

from __future__ import annotations

import json

from headwater.log.small import batch_of
from headwater.schemas import framing
from headwater.schemas.change import set_schema
from headwater.types import Record
from tests.log.helpers import memory, opened, simulate
from tests.registry.helpers_registry import BROKEN, USER, Ask, record

GROWN = {**USER, "fields": [*USER["fields"], {"name": "age", "type": ["null", "int"], "default": None}]}


def test_a_registered_schema_gives_its_topic_columns_and_grows_with_it() -> None:
    async def main() -> None:
        store = memory()
        namespace, ask = await opened(store), Ask(store, served=("ns",), namespace="ns")
        await namespace.create_topic("users")
        await ask.register("other-value", BROKEN)
        assert 2 == await ask.register("users-value", USER)
        await namespace.refresh()
        schema = namespace.topic("users").schema
        assert schema is not None
        assert (["name"], 2) == ([each.name for each in schema.columns], framing.id_of(schema))
        await ask.register("users-value", USER)
        assert 3 == await ask.register("users-value", GROWN)
        await namespace.refresh()
        assert [2, 3] == [framing.id_of(each) for each in namespace.topic("users").schemas]
        assert ["name", "age"] == [each.name for each in namespace.topic("users").schemas[-1].columns]

    simulate(main())


def test_what_columns_cannot_express_is_registered_all_the_same() -> None:
    async def main() -> None:
        store = memory()
        namespace, ask = await opened(store), Ask(store, served=("ns",), namespace="ns")
        for name in ("a", "b", "c", "d"):
            await namespace.create_topic(name)
        await set_schema(namespace, "d", "json", {"type": "object", "properties": {"x": {"type": "string"}}})
        await ask.register("a-value", record(("u", ["int", "string"])))
        await ask.register("b-key", USER)
        await ask.register("c-value", 'syntax = "proto3"; message M {}', schemaType="PROTOBUF")
        await ask.register("d-value", USER)
        await ask.register("none-value", USER)
        await namespace.refresh()
        assert [0, 0, 0, 1] == [len(namespace.topic(name).schemas) for name in ("a", "b", "c", "d")]
        assert not framing.bound(namespace.topic("d").schemas)

    simulate(main())


def test_any_value_is_written_as_before_the_registration() -> None:
    async def main() -> None:
        store = memory()
        namespace, ask = await opened(store), Ask(store, served=("ns",), namespace="ns")
        await namespace.create_topic("users")
        await ask.register(
            "users-value", {"type": "object", "properties": {"a": {"type": "string"}}}, schemaType="JSON"
        )
        await namespace.refresh()
        assert framing.bound(namespace.topic("users").schemas)
        values = [b"plain", b"\0\0\0\0\1" + json.dumps({"a": "x"}).encode(), b"\0\0\0\0\1{", None]
        await namespace.append("users", 0, batch_of([Record(value=value, timestamp=1) for value in values]))

    simulate(main())
