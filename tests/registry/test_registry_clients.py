"""Confluent's Python client and its serializers, unchanged, against the running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from headwater.api import routes
from headwater.api.app import App
from headwater.api.auth import Authenticator
from headwater.api.service import Service
from headwater.clock import SystemClock
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore
from tests.api.helpers_http import Log, app_over, serving

VALUE = SerializationContext("users", MessageField.VALUE)
AVRO = '{"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}'
GROWN = (
    '{"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}, '
    '{"name": "age", "type": "int", "default": 0}]}'
)
BROKEN = '{"type": "record", "name": "User", "fields": [{"name": "name", "type": "int"}]}'
JSON = '{"title": "User", "type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false}'


@contextmanager
def running(store: MemoryStore | None = None, **how: Any) -> Iterator[str]:
    """The base URL of a server in a thread of its own; no mistake of ours may be logged."""
    log = Log()

    async def make() -> App:
        return app_over(store or MemoryStore(), routes=routes.table(routes.EVERYTHING), log=log, **how)

    with serving(make) as url:
        yield f"{url}/registry"
    assert [] == log.lines


@pytest.fixture
def client() -> Iterator[SchemaRegistryClient]:
    with running() as url, SchemaRegistryClient({"url": url}) as made:
        yield made


def code_of(error: pytest.ExceptionInfo[Any]) -> tuple[int, int]:
    return error.value.http_status_code, error.value.error_code


def test_avro_values_go_round_by_the_id_that_the_registry_gave(client: SchemaRegistryClient) -> None:
    written = AvroSerializer(client, AVRO)({"name": "ada"}, VALUE)
    assert b"\0\0\0\0\1" == written[:5]
    assert {"name": "ada"} == AvroDeserializer(client)(written, VALUE)
    assert {"name": "ada", "age": 0} == AvroDeserializer(client, GROWN)(written, VALUE)
    assert ["users-value"] == client.get_subjects()


def test_a_serializer_may_use_what_is_registered_and_nothing_else(client: SchemaRegistryClient) -> None:
    client.register_schema("users-value", Schema(GROWN, "AVRO"))
    written = AvroSerializer(client, AVRO, conf={"auto.register.schemas": False, "use.latest.version": True})(
        {"name": "ada", "age": 3}, VALUE
    )
    assert {"name": "ada", "age": 3} == AvroDeserializer(client)(written, VALUE)
    other = AvroSerializer(client, AVRO, conf={"auto.register.schemas": False})
    with pytest.raises(SchemaRegistryError) as refused:
        other({"name": "ada"}, VALUE)
    assert (404, 40403) == code_of(refused)


def test_json_values_go_round(client: SchemaRegistryClient) -> None:
    written = JSONSerializer(JSON, client)({"name": "ada"}, VALUE)
    assert {"name": "ada"} == JSONDeserializer(JSON, schema_registry_client=client)(written, VALUE)
    assert "JSON" == client.get_latest_version("users-value").schema.schema_type


def message_class(*fields: tuple[str, int, int]) -> Any:
    """A class for messages ``shop.User`` with such fields: name, number, type."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    made = file.message_type.add(name="User")
    for name, number, kind in fields:
        made.field.add(name=name, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.User"))


def test_protobuf_values_go_round(client: SchemaRegistryClient) -> None:
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer

    user = message_class(("name", 1, 9), ("age", 2, 5))
    written = ProtobufSerializer(user, client)(user(name="ada", age=36), VALUE)
    assert user(name="ada", age=36) == ProtobufDeserializer(user, {}, client)(written, VALUE)
    assert "PROTOBUF" == client.get_latest_version("users-value").schema.schema_type

    renamed = message_class(("name", 1, 12), ("age", 2, 5), ("mail", 3, 9))  # string to bytes, and a new field
    written = ProtobufSerializer(renamed, client)(renamed(name=b"ada"), VALUE)
    assert b"\0\0\0\0\2" == written[:5]
    changed = message_class(("name", 1, 1))
    with pytest.raises(SchemaRegistryError) as refused:
        ProtobufSerializer(changed, client)(changed(), VALUE)
    assert (409, 409) == code_of(refused)


def test_python_reads_by_a_protobuf_schema_that_others_registered_as_text() -> None:
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer

    text = 'syntax = "proto3"; package shop; message User { string name = 1; int32 age = 2; }'
    user = message_class(("name", 1, 9), ("age", 2, 5))
    with running() as url:
        with SchemaRegistryClient({"url": url}) as others:  # which remembers the text
            number = others.register_schema("users-value", Schema(text, "PROTOBUF"))
        written = b"\0" + number.to_bytes(4, "big") + b"\0" + user(name="ada", age=36).SerializeToString()
        with SchemaRegistryClient({"url": url}) as client:
            assert user(name="ada", age=36) == ProtobufDeserializer(user, {}, client)(written, VALUE)


def test_the_client_manages_subjects_as_with_a_registry_of_its_own(client: SchemaRegistryClient) -> None:
    first = client.register_schema("s", Schema(AVRO, "AVRO"))
    assert first == client.register_schema("s", Schema(AVRO, "AVRO"))
    assert first == client.register_schema("other", Schema(AVRO, "AVRO"))
    second = client.register_schema("s", Schema(GROWN, "AVRO"))
    assert (1, 2) == (first, second)
    assert [1, 2] == client.get_versions("s")
    assert 2 == client.get_latest_version("s").version
    assert 1 == client.lookup_schema("s", Schema(AVRO, "AVRO")).version
    assert Schema(AVRO.replace(": ", ":").replace(", ", ","), "AVRO") == client.get_schema(first)
    assert not client.test_compatibility("s", Schema(BROKEN, "AVRO"))
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema("s", Schema(BROKEN, "AVRO"))
    assert (409, 409) == code_of(refused)
    client.set_compatibility("s", "NONE")
    assert "NONE" == client.get_compatibility("s")
    assert 3 == client.register_schema("s", Schema(BROKEN, "AVRO"))
    assert 3 == client.delete_version("s", 3)
    assert [1, 2] == client.delete_subject("s", permanent=False)
    assert [1, 2, 3] == client.delete_subject("s", permanent=True)
    assert ["other"] == client.get_subjects()


def test_references_are_read_by_the_serializers(client: SchemaRegistryClient) -> None:
    client.register_schema("user", Schema(AVRO, "AVRO"))
    order = '{"type": "record", "name": "Order", "fields": [{"name": "by", "type": "User"}]}'
    schema = Schema(order, "AVRO", [SchemaReference("User", "user", 1)])
    written = AvroSerializer(client, schema)({"by": {"name": "ada"}}, VALUE)
    assert {"by": {"name": "ada"}} == AvroDeserializer(client)(written, VALUE)


def test_a_proto_may_import_files_in_folders_and_one_that_only_imports_others(client: SchemaRegistryClient) -> None:
    """Serializers register each import under its path; a slash in it was refused, and a file without types, too."""
    user = Schema('syntax = "proto3"; package shop; message User { string name = 1; }', "PROTOBUF")
    client.register_schema("shop/types/user.proto", user)
    assert ["shop/types/user.proto"] == client.get_subjects()
    assert 1 == client.get_latest_version("shop/types/user.proto").version
    public = Schema(
        'syntax = "proto3"; import public "shop/types/user.proto";',
        "PROTOBUF",
        [SchemaReference("shop/types/user.proto", "shop/types/user.proto", 1)],
    )
    client.register_schema("shop/all.proto", public)
    order = Schema(
        'syntax = "proto3"; package shop; import "shop/all.proto"; message Order { User by = 1; }',
        "PROTOBUF",
        [SchemaReference("shop/all.proto", "shop/all.proto", 1)],
    )
    number = client.register_schema("orders-value", order)
    assert "User by" in str(client.get_schema(number).schema_str)
    client.register_schema("all-value", public)
    assert [1] == client.delete_subject("orders-value")


def test_modes_and_levels_are_set_through_the_client(client: SchemaRegistryClient) -> None:
    assert "READWRITE" == client.get_global_mode()
    client.update_global_mode("READONLY")
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema("s", Schema(AVRO, "AVRO"))
    assert (422, 42205) == code_of(refused)
    client.update_mode("s", "READWRITE")
    assert 1 == client.register_schema("s", Schema(AVRO, "AVRO"))
    assert "BACKWARD" == client.get_compatibility()


def test_the_client_logs_in_with_a_token() -> None:
    store = MemoryStore()

    async def key() -> str:
        namespace = await Namespace.open(store, "default")
        _, token = await Service(namespace).create_key("ann")
        await namespace.close()
        return token

    token = asyncio.run(key())
    bearer = {
        "bearer.auth.credentials.source": "STATIC_TOKEN",
        "bearer.auth.logical.cluster": "any",
        "bearer.auth.identity.pool.id": "any",
    }
    auth = Authenticator("token", clock=SystemClock())
    with running(store, auth=auth) as url:
        with SchemaRegistryClient({"url": url, "bearer.auth.token": token, **bearer}) as client:
            assert 1 == client.register_schema("s", Schema(AVRO, "AVRO"))
        for wrong in ({}, {"bearer.auth.token": "nonsense", **bearer}):
            with SchemaRegistryClient({"url": url, **wrong}) as client, pytest.raises(SchemaRegistryError) as refused:
                client.get_subjects()
            assert 401 == refused.value.http_status_code
