"""Rows and tables to a topic with a schema, and back."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from headwater.client import Admin, Producer, blocking, schema_serde
from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.log.state import Schema
from headwater.schemas import datums
from headwater.schemas.compile import arrow_schema, compile_schema, definition_text
from headwater.schemas.rows import decode_value, encode_row, encode_table
from headwater.schemas.typed import typed
from tests.client.helpers_client import simulate, values, world
from tests.client.test_client_faces import served

AVRO = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "tags", "type": ["null", {"type": "map", "values": "string"}]},
        {"name": "note", "type": ["string", "null"]},
    ],
}
ARROW = {
    "id": "int64 not null",
    "at": "timestamp[us, tz=UTC] not null",
    "price": "decimal128(9, 2) not null",
    "day": "date32[day]",
    "tags": "map<string, string>",
    "note": "string",
}
ROW = {
    "id": 1,
    "at": dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC),
    "price": Decimal("12.50"),
    "day": dt.date(2013, 1, 1),
    "tags": {"k": "v"},
    "note": None,
}
TABLE = pa.table(
    {
        "note": pa.array(["x", None, "é"]),
        "id": pa.array([1, 2, 3], pa.int8()),
        "price": pa.array([Decimal("1.25"), Decimal("-2.00"), Decimal("9999999.99")], pa.decimal128(9, 2)),
        "at": pa.array([1, 2, 3], pa.timestamp("ms", "UTC")),
        "tags": pa.array([{"k": "v"}, None, {}], pa.map_(pa.string(), pa.string())),
    }
)


def version(format_: str, definition: Any, number: int = 1) -> Schema:
    text = definition_text(format_, definition)
    return Schema(number, number, format_, text, compile_schema(format_, definition))  # type: ignore[arg-type]


BOTH = pytest.mark.parametrize("schema", [version("avro", AVRO), version("arrow", ARROW)], ids=["avro", "arrow"])


@BOTH
def test_a_row_comes_back_as_it_was(schema: Schema) -> None:
    assert ROW == decode_value([schema], encode_row(schema, ROW))


@BOTH
def test_what_may_be_null_may_be_left_out(schema: Schema) -> None:
    short = {name: ROW[name] for name in ("id", "at", "price")}
    assert {**dict.fromkeys(ARROW), **short} == decode_value([schema], encode_row(schema, short))


def test_a_dataclass_is_a_row() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        y: str | None = None

    for schema in (version("json", Point), version("arrow", {"x": "int64", "y": "string"})):
        assert {"x": 1, "y": None} == decode_value([schema], encode_row(schema, Point(1)))


@BOTH
@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"id": None}, {"price": Decimal("1.555")}, {"price": Decimal(10**9)}, {"at": object()}]
)
def test_a_row_that_does_not_fit_is_refused(schema: Schema, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        encode_row(schema, {**ROW, **change})


def test_a_datum_is_read_by_the_version_that_wrote_it() -> None:
    more = {**AVRO, "fields": [*AVRO["fields"], {"name": "more", "type": ["null", "int"]}]}  # type: ignore[misc]
    one, two = version("avro", AVRO), version("avro", more, 2)
    assert {**ROW, "more": None} == decode_value([one, two], encode_row(one, ROW))
    assert {**ROW, "more": 5} == decode_value([one, two], encode_row(two, {**ROW, "more": 5}))
    with pytest.raises(InvalidRequest, match="version 2"):
        decode_value([one], encode_row(two, {**ROW, "more": 5}))
    for torn in (b"", b"\0", encode_row(two, ROW)[:-1], b"\xff" * 9):
        with pytest.raises(InvalidRequest):
            decode_value([one, two], torn)


@BOTH
def test_a_table_is_the_typed_columns_of_its_values(schema: Schema) -> None:
    found = typed(schema, encode_table(schema, TABLE), strict=True)
    assert [
        {**row, "tags": None if row["tags"] is None else list(row["tags"]), "day": None} for row in TABLE.to_pylist()
    ] == [{name: row[name] for name in (*TABLE.schema.names, "day")} for row in found.to_pylist()]
    assert 0 == len(encode_table(schema, TABLE.slice(0, 0)))


def test_a_value_that_holds_the_mark_is_no_border() -> None:
    from hashlib import blake2b

    mark = blake2b(b"\0\0\0\0", digest_size=datums.MARK).digest()
    schema = version("avro", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "bytes"}]})
    table = pa.table({"a": pa.array([mark, b"", mark * 3], pa.binary())})
    assert table.to_pylist() == typed(schema, encode_table(schema, table), strict=True).to_pylist()


@BOTH
@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.drop_columns(["id"]), "no column 'id'"),
        (TABLE.append_column("other", pa.array([1, 2, 3])), "no column 'other'"),
        (TABLE.set_column(1, "id", pa.array(["x", "y", "z"])), "'id' does not become int64"),
        (TABLE.set_column(1, "id", pa.array([1, None, 3])), "field 'id'|fit"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(schema: Schema, table: pa.Table, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        encode_table(schema, table)


@pytest.mark.parametrize(("format_", "definition"), [("avro", AVRO), ("arrow", ARROW)])
def test_a_producer_sends_rows_and_tables_and_a_consumer_gets_rows(format_: str, definition: Any) -> None:
    async def main() -> None:
        async with world(t=1, u=1) as (w, verbs):
            async with Admin(verbs) as admin:
                await admin.set_schema("t", format_, definition)
                serde = schema_serde(await admin.list_schemas("t"))
                with pytest.raises(InvalidRequest, match="no schema"):
                    schema_serde(await admin.list_schemas("u"))
            async with w.producer(verbs, value_serializer=serde) as producer:
                await producer.send_and_wait("t", ROW)
                with pytest.raises(InvalidRequest):
                    await producer.send("t", {**ROW, "id": "x"})
                (sent,) = await (await producer.send_table("t", TABLE, key="id", timestamp="at"))
                assert (1, 3) == (sent.offset, sent.count)
                for topic, table, how, error in (
                    ("u", TABLE, {}, InvalidRequest),
                    ("t", TABLE, {"key": "none"}, InvalidRequest),
                    ("t", TABLE, {"key": "tags"}, InvalidRequest),
                    ("t", TABLE.drop_columns(["id"]), {}, InvalidRequest),
                    ("none", TABLE, {}, NotFound),
                ):
                    with pytest.raises(error):
                        await producer.send_table(topic, table, **how)
            found = [serde.deserialize(value) for value in await values(verbs, "t") if value is not None]
            assert [ROW, 1, 2, 3] == [found[0], *(row["id"] for row in found[1:])]
            keys = [
                key
                for chunk in (await verbs.fetch("t", 0, 1)).chunks
                for key in chunk.decode().column("key").to_pylist()
            ]
            assert [b"1", b"2", b"3"] == keys[-3:]

    simulate(main())


@pytest.mark.parametrize("way", ["bucket", "http"])
def test_both_ways_have_the_same_schemas_and_refusals(way: str) -> None:
    async def main() -> None:
        async with served(way) as url, Admin(url) as admin:
            await admin.create_topics(["t"])
            assert [] == await admin.list_schemas("t")
            first = await admin.set_schema("t", "arrow", ARROW)
            assert first == await admin.set_schema("t", "arrow", arrow_schema(compile_schema("arrow", ARROW)))
            second = await admin.set_schema("t", "arrow", {**ARROW, "more": "int8"}, version=2)
            assert [first, second] == await admin.list_schemas("t")
            assert [*ARROW, "more"] == [column.name for column in second.columns]
            for definition, error in (({"a": "none"}, InvalidRequest), ({"a": "int8"}, Conflict)):
                with pytest.raises(error):
                    await admin.set_schema("t", "arrow", definition)
            async with Producer(url) as producer:
                (sent,) = await (await producer.send_table("t", TABLE, key="id"))
                assert 3 == sent.count
                with pytest.raises(InvalidRequest, match="field 'id': expected `int`, got `str`") as caught:
                    await producer.send_and_wait("t", b'{"id": "x"}')
                assert (0, "id") == (caught.value.data["row"], caught.value.data["field"])

    asyncio.run(main())


def test_without_await_it_is_the_same() -> None:
    with blocking.Admin("memory://schemas-blocking") as admin:
        admin.create_topics(["t"])
        version_ = admin.set_schema("t", "arrow", ARROW)
        assert [version_] == admin.list_schemas("t")
        with blocking.Producer("memory://schemas-blocking") as producer:
            (sent,) = producer.send_table("t", TABLE).result()
            assert 3 == sent.count
