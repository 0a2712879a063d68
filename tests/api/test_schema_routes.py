"""Schemas at the edges: how they are set and shown, and that no way in passes them by."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from headwater.api import routes
from headwater.api.service import Service
from headwater.api.uploads import Uploads
from headwater.api.verbs import ColumnInfo, SchemaInfo
from headwater.client import Admin
from headwater.errors import Conflict, HeadwaterError, Indeterminate, InvalidRequest, NotFound
from headwater.log.batch import batch_of_kafka2, encode_arrow, encode_kafka2
from headwater.log.namespace import Namespace
from headwater.log.small import batch_of
from headwater.log.verify import verify
from headwater.schemas.change import set_schema
from headwater.schemas.typed import typed
from headwater.types import Batch, Record
from tests.api.helpers_http import Client, app_over
from tests.api.test_uploads import PutsHere
from tests.log.helpers import memory, opened, simulate
from tests.log.helpers_store import Scripted

DEFINITION = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]}
WIDER = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
GOOD, BAD = b'{"a": 1}', b'{"a": "x"}'
SAID = (
    "Row 1 of the batch for topic 't', partition 0, does not fit version 1 of the topic's schema: "
    "field 'a': expected `int`, got `str`."
)


def small(*values: bytes | None) -> Batch:
    return batch_of([Record(value=value, timestamp=5) for value in values])


def table(*values: bytes | None) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.binary()), "timestamp": pa.array([5] * len(values), pa.int64())})


def kafka2(*values: bytes | None) -> Batch:
    return batch_of_kafka2(encode_kafka2(table(*values), 0, compression="gzip"))


async def started(store: Any = None) -> tuple[Service, Namespace]:
    space = await opened(store or memory())
    one = Service(space, principal="ann")
    await one.create_topic("t", 2)
    await one.create_topic("free")
    await one.set_schema("t", "json", json.dumps(DEFINITION))
    return one, space


async def count(space: Namespace) -> int:
    state = await space.refresh()
    found = state.named("t")
    assert found is not None
    return sum(partition.next for partition in found.partitions)


# -- set and show -------------------------------------------------------------------------------------------------


def test_a_schema_is_set_shown_and_followed() -> None:
    async def main() -> None:
        _, space = await started()
        async with Admin(Service(space, principal="bob")) as admin:
            columns = [ColumnInfo(name="a", type="int64", nullable=False)]
            (first,) = await admin.list_schemas("t")
            assert (
                SchemaInfo(
                    version=1, format="json", definition=json.dumps(DEFINITION), columns=columns, commit=first.commit
                )
                == first
            )
            assert [] == await admin.list_schemas("free")
            second = await admin.set_schema("t", "json", WIDER, version=2)
            columns.append(ColumnInfo(name="b", type="string", nullable=True))
            assert (2, columns) == (second.version, second.columns)
            assert [first, second] == await admin.list_schemas("t")
            with pytest.raises(NotFound):
                await admin.list_schemas("nothing")
            with pytest.raises(NotFound):
                await admin.set_schema("nothing", "json", WIDER)

    simulate(main())


def test_the_same_definition_again_changes_nothing() -> None:
    async def main() -> None:
        one, space = await started()
        seq = space.state.seq
        for text in (json.dumps(DEFINITION), json.dumps(DEFINITION, indent=3)):
            for version in (0, 1):
                assert 1 == (await one.set_schema("t", "json", text, version=version)).version
        assert 1 == (await set_schema(space, "t", "json", DEFINITION)).version
        assert seq == space.state.seq

    simulate(main())


@pytest.mark.parametrize(
    ("format_", "definition", "version", "kind", "said"),
    [
        ("json", '{"properties": {"a": {"type": "string"}}, "required": ["a"]}', 0, Conflict, "types only widen"),
        ("json", '{"properties": {"b": {"type": "string"}}}', 0, Conflict, "column 'a' is missing"),
        ("avro", '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}', 0, Conflict, "stay so"),
        ("json", json.dumps(WIDER), 1, Conflict, "the next one is 2, not 1"),
        ("json", json.dumps(WIDER), 3, Conflict, "the next one is 2, not 3"),
        ("json", json.dumps(WIDER), -1, InvalidRequest, "version"),
        ("json", "{", 0, InvalidRequest, "no JSON"),
        ("json", WIDER, 0, InvalidRequest, "JSON text"),
        ("yaml", "{}", 0, InvalidRequest, "json, avro and arrow"),
        (
            "arrow",
            '{"a": "int64 not null", "b": "list<item: nothing>"}',
            0,
            InvalidRequest,
            "at b: 'nothing' is no type",
        ),
        ("arrow", '{"offset": "int64"}', 0, InvalidRequest, "at offset: every topic has a column of this name"),
    ],
)
def test_a_schema_that_cannot_be_is_refused_and_nothing_changes(
    format_: str, definition: Any, version: int, kind: type[HeadwaterError], said: str
) -> None:
    async def main() -> None:
        one, space = await started()
        seq = space.state.seq
        with pytest.raises(kind, match=said):
            await one.set_schema("t", format_, definition, version=version)
        assert 1 == len(space.topic("t").schemas)
        assert seq >= space.state.seq - 1

    simulate(main())


def test_two_who_set_a_schema_at_once_both_get_an_answer_and_one_order() -> None:
    async def main() -> None:
        store = memory()
        one, _ = await started(store)
        other = await opened(store, seed=2)
        await other.refresh()
        await one.set_schema("t", "json", json.dumps(WIDER))
        found = await set_schema(other, "t", "json", {**WIDER, "title": "third"})
        assert (3, 3) == (found.version, len(other.topic("t").schemas))

    simulate(main())


def test_setting_a_schema_leaves_its_record_and_showing_it_none() -> None:
    async def main() -> None:
        one, space = await started()
        await one.schemas("t")
        await one.set_schema("t", "json", json.dumps(DEFINITION))
        found = await Service(space).fetch("__audit", 0, 0)
        values = [json.loads(v) for chunk in found.chunks for v in chunk.decode().column("value").to_pylist()]
        assert [("ann", "set_schema", "topic", "t", {"version": 1, "format": "json"})] == [
            (v["principal"], v["action"], v["resource"], v["name"], v["details"])
            for v in values
            if v["action"] != "create"
        ]

    simulate(main())


def test_schemas_over_http() -> None:
    async def main() -> None:
        client = Client(app_over(memory(), routes=routes.table(routes.EVERYTHING)))
        await client.done("POST", "/admin/topics", {"name": "t"})
        assert {"schemas": []} == (await client("GET", "/admin/topics/t/schema")).json
        body = {"format": "json", "definition": DEFINITION}
        made = await client.done("PUT", "/admin/topics/t/schema", body)
        assert (1, "json", [{"name": "a", "type": "int64", "nullable": False}]) == (
            made.json["version"],
            made.json["format"],
            made.json["columns"],
        )
        assert DEFINITION == json.loads(made.json["definition"])
        again = await client.done("PUT", "/admin/topics/t/schema", {**body, "definition": json.dumps(DEFINITION)})
        assert made.json == again.json
        assert [made.json] == (await client("GET", "/admin/topics/t/schema")).json["schemas"]
        for status, bad in (
            (400, {**body, "definition": {"properties": {"a": {"type": "x"}}}}),
            (409, {**body, "definition": {"properties": {"b": {"type": "string"}}}}),
            (409, {**body, "definition": WIDER, "version": 7}),
            (422, {**body, "format": "xml"}),
            (422, {**body, "definition": 5}),
            (422, {**body, "more": 1}),
            (422, {"format": "json"}),
        ):
            answer = await client("PUT", "/admin/topics/t/schema", bad)
            assert (status, 1) == (answer.status, answer.json["error_code"] and 1)
        assert 404 == (await client("GET", "/admin/topics/none/schema")).status

    simulate(main())


# -- every way in -------------------------------------------------------------------------------------------------


async def _produce(one: Service, space: Namespace, batch: Batch) -> Any:
    return await one.produce([("t", 0, batch)])


async def _transact(one: Service, space: Namespace, batch: Batch) -> Any:
    return await one.transact(await one.init_producer("x"), [("t", 0, batch)])


async def _staged(one: Service, space: Namespace, batch: Batch) -> Any:
    transaction = await one.begin(await one.init_producer("x"))
    await one.add(transaction, [("t", 0, batch)])
    return await one.commit(transaction)


async def _append(one: Service, space: Namespace, batch: Batch) -> Any:
    return await space.append("t", 0, batch)


async def _append_many(one: Service, space: Namespace, batch: Batch) -> Any:
    return await space.append_many([("t", 0, batch)])


async def _idempotent(one: Service, space: Namespace, batch: Batch) -> Any:
    return await (await space.producer()).append("t", 0, batch)


async def _transaction(one: Service, space: Namespace, batch: Batch) -> Any:
    transaction = (await space.producer("x")).transaction()
    await transaction.append("t", 0, batch)
    return await transaction.commit()


@pytest.mark.parametrize("make", [small, kafka2, lambda *values: encode_arrow(table(*values))])
@pytest.mark.parametrize("way", [_produce, _transact, _staged, _append, _append_many, _idempotent, _transaction])
def test_no_way_in_passes_the_schema_by(
    way: Callable[[Service, Namespace, Batch], Awaitable[Any]], make: Callable[..., Batch]
) -> None:
    async def main() -> None:
        store = memory()
        one, space = await started(store)
        with pytest.raises(InvalidRequest) as caught:
            await way(one, space, make(GOOD, BAD, None))
        assert SAID == caught.value.message
        assert {"row": 1, "field": "a", "schema_version": 1}.items() <= caught.value.as_dict().items()
        assert 0 == await count(space)
        await way(one, space, make(GOOD, None, GOOD))
        assert 3 == await count(space)
        report = await verify(space.store, clock=space.chain.clock, rng=random.Random(1))
        assert [] == report.problems

    simulate(main())


def test_one_bad_value_keeps_every_batch_of_its_request_out() -> None:
    async def main() -> None:
        one, space = await started()
        batches = [("free", 0, small(BAD)), ("t", 0, small(GOOD)), ("t", 1, small(GOOD, b"{}"))]
        with pytest.raises(InvalidRequest, match=r"^Row 1 of batch 2 for topic 't', partition 1, "):
            await one.produce(batches)
        assert (0, 0) == (await count(space), space.topic("free").partitions[0].next)
        await one.produce([("free", 0, small(BAD))])

    simulate(main())


def test_an_upload_is_checked_before_it_is_appended() -> None:
    async def main() -> None:
        store = memory()
        _, space = await started(store)
        uploads = Uploads(space, PutsHere())
        for values, fits in (((GOOD, BAD), False), ((GOOD, GOOD), True)):
            data = encode_arrow(table(*values)).data
            upload = await uploads.create("t", 0, len(data))
            await store.put_if_absent(f"ns/{upload.url}", upload.prefix + data)
            if fits:
                assert 2 == (await uploads.append(upload.id)).count
                continue
            for _ in range(2):
                with pytest.raises(InvalidRequest) as caught:
                    await uploads.append(upload.id)
                assert SAID == caught.value.message
        assert 2 == await count(space)

    simulate(main())


@pytest.mark.parametrize("copies", [1, 100])
def test_http_and_the_rest_dialect_name_row_and_field(copies: int) -> None:
    async def main() -> None:
        client = Client(app_over(memory(), routes=routes.table(routes.EVERYTHING)))
        await client.done("POST", "/admin/topics", {"name": "t"})
        await client.done("PUT", "/admin/topics/t/schema", {"format": "json", "definition": DEFINITION})
        records = [{"value": {"a": 1}}] * copies + [{"value": {"a": "x"}}]
        v2 = await client("POST", "/topics/t", {"records": records}, kind="application/vnd.kafka.json.v2+json")
        encoded = [{"value": base64.b64encode(BAD).decode()}]
        raw = await client("POST", "/topics/t", {"records": encoded}, kind="application/vnd.kafka.binary.v2+json")
        for answer, row in ((v2, copies), (raw, 0)):
            assert 400 <= answer.status < 500
            assert f"Row {row} of the batch for topic 't'" in answer.json["message"]
            assert "field 'a'" in answer.json["message"]
        assert 0 == (await client("GET", "/admin/topics/t")).json["partitions"][0]["end"]

    simulate(main())


# -- races and repetitions ----------------------------------------------------------------------------------------


def test_a_repetition_may_fit_the_version_that_the_first_attempt_passed_by() -> None:
    async def main() -> None:
        one, _ = await started()
        narrow = {**WIDER, "properties": {**WIDER["properties"], "a": {"type": "integer", "maximum": 0}}}  # type: ignore[dict-item]
        (first,) = await one.produce([("t", 0, small(GOOD))], once="k")
        await one.set_schema("t", "json", json.dumps(narrow))
        assert [first] == list(await one.produce([("t", 0, small(GOOD))], once="k"))
        with pytest.raises(InvalidRequest, match="version 2"):
            await one.produce([("t", 0, small(GOOD))])
        with pytest.raises(InvalidRequest, match="version 1"):
            await one.produce([("t", 0, small(BAD))], once="l")

    simulate(main())


@pytest.mark.parametrize("format_", ["json", "avro"])
def test_what_is_checked_by_one_version_and_committed_after_the_next_has_its_columns(format_: str) -> None:
    one = {"a": "int"} if format_ == "avro" else {"a": {"type": "integer"}}
    two = {"a": "long", "b": ["null", "string"]} if format_ == "avro" else {**one, "b": {"type": "string"}}

    def definition(fields: dict[str, Any]) -> dict[str, Any]:
        if format_ == "json":
            return {"properties": fields}
        return {"type": "record", "name": "R", "fields": [{"name": n, "type": kind} for n, kind in fields.items()]}

    async def main() -> None:
        store = memory()
        fresh, stale = await opened(store), await opened(store, seed=2)
        await fresh.create_topic("t")
        await set_schema(fresh, "t", format_, definition(one))
        await stale.refresh()
        await set_schema(fresh, "t", format_, definition(two))
        old = b"\x02" if format_ == "avro" else GOOD
        framed = b"\0\0\0\0\1\x02" if format_ == "avro" else GOOD
        assert 1 == len(stale.topic("t").schemas)  # it has not heard of the second version yet
        at = await stale.append("t", 0, small(old, framed, None))
        topic = stale.topic("t")
        assert at.commit > topic.schemas[1].seq
        (chunk,) = [chunk async for chunk in fresh.reader.chunks("t", 0, 0)]
        found = typed(topic.schemas, chunk.decode().column("value"))
        assert [1, 1, None] == found.column("a").to_pylist()
        assert [None] * 3 == found.column("b").to_pylist()

    simulate(main())


def test_with_a_token_a_refusal_says_nothing_of_the_first_attempt() -> None:
    async def main() -> None:
        one, space = await started()
        token = f"abcdefgh@{space.state.seq}"
        with pytest.raises(Indeterminate) as caught:
            await one.produce([("t", 0, small(BAD))], token=token)
        assert token == caught.value.token
        assert 1 == (await one.produce([("t", 0, small(GOOD))], token=token))[0].count

    simulate(main())


def test_what_was_there_before_the_schema_stays_as_it_was() -> None:
    async def main() -> None:
        space = await opened(memory())
        await space.create_topic("t")
        await space.append("t", 0, small(b"anything", None))
        await set_schema(space, "t", "json", DEFINITION)
        chunks = [chunk async for chunk in space.reader.chunks("t", 0, 0)]
        assert [b"anything", None] == chunks[0].decode().column("value").to_pylist()

    simulate(main())


def test_records_that_cannot_be_read_cannot_be_checked() -> None:
    async def main() -> None:
        one, space = await started()
        good = kafka2(GOOD, GOOD)
        torn = bytearray(good.data)
        torn[-8:] = b"\xff" * 8
        with pytest.raises(InvalidRequest, match="cannot be checked"):
            await one.produce([("t", 0, replace(good, data=bytes(torn), crc=-1))])
        assert 0 == await count(space)

    simulate(main())


# -- costs --------------------------------------------------------------------------------------------------------


def test_a_check_makes_no_request() -> None:
    async def main() -> None:
        store = Scripted(memory())
        one, space = await started(store)
        await space.drain()
        store.calls.clear()
        await one.produce([("t", 0, small(GOOD))])
        assert {"put_if_absent": 1} == dict(store.calls)
        store.calls.clear()
        with pytest.raises(InvalidRequest):
            await one.produce([("t", 0, small(BAD))])
        assert {} == dict(store.calls)
        await one.set_schema("t", "json", json.dumps(WIDER))
        assert {"get": 1, "put_if_absent": 1} == dict(store.calls)

    simulate(main())


PROGRAM = """
import asyncio, sys
from headwater.api.service import Service
from headwater.log.namespace import Namespace
from headwater.log.small import batch_of
from headwater.store.memory import MemoryStore
from headwater.types import Record

async def main():
    space = await Namespace.open(MemoryStore())
    one = Service(space)
    await one.create_topic("t")
    batch = batch_of([Record(value=b'{"a": 1}', timestamp=1)])
    await one.produce([("t", 0, batch)])
    assert not [name for name in sys.modules if name.startswith(("headwater.schemas", "pyarrow"))]
    await one.set_schema("t", "json", '{"properties": {"a": {"type": "integer"}}}')
    await one.produce([("t", 0, batch)])
    assert not [name for name in sys.modules if name.startswith(("pyarrow", "fastavro"))]

asyncio.run(main())
"""


def test_a_topic_without_a_schema_loads_nothing_and_json_loads_no_pyarrow() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (ran.returncode, ran.stderr)
