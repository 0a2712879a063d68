"""Which decoder shows a value, and that no bytes make a page fail, wait or grow."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api.service import Service
from headwater.console.decoding import FORMS, Decoders
from headwater.limits import CONSOLE_ARROW_ROWS, CONSOLE_CELL_BYTES, CONSOLE_DECODE_BYTES, CONSOLE_RECURSIVE_BYTES
from headwater.log.state import Schema
from headwater.registry.fold import Registry
from headwater.registry.ledger import Ledger
from headwater.registry.records import Reference, SchemaType, Version, schema_record
from headwater.schemas import datums
from tests.console.test_console import Browser, append, browsing

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "raw", "type": ["null", "bytes"]},
    ],
}
ROW = {"id": 7, "price": Decimal("1.50"), "at": datetime(2026, 1, 2, tzinfo=UTC), "raw": b"\xff"}
SHOWN = '{"id":7,"price":"1.50","at":"2026-01-02T00:00:00+00:00","raw":"/w=="}'
PROTO = """
syntax = "proto3";
package shop;
message Other { string name = 1; }
message Order {
  enum State { NEW = 0; PAID = 1; }
  message Line { string item = 1; sint32 count = 2; }
  int64 id = 1;
  State state = 2;
  repeated Line lines = 3;
  repeated int32 numbers = 4;
  map<string, double> prices = 5;
  bool gift = 6;
}
"""
ARRAY_OF = {"type": "array", "items": "Line"}
EMPTY = {"type": "record", "name": "E", "fields": []}
# id 7, PAID, a line (pen, -2), numbers 1 and 300 packed, prices {a: 1.5}, gift; and a field 9 of a newer schema.
MESSAGE = bytes.fromhex("080710011a070a0370656e10032203 01ac02 2a0c0a0161 11000000000000f83f 3001 4805")


def datum(schema: Any, row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


def avro(document: Any, version: int = 1) -> Schema:
    return Schema(version=version, seq=1, format="avro", definition=json.dumps(document), columns=[])


def known(kind: SchemaType, text: str, *others: Version, refers: tuple[Reference, ...] = ()) -> Decoders:
    version = Version(subject="orders-value", version=1, id=7, schema=text, schema_type=kind, references=refers)
    registry = Registry()
    for each in (*others, version):
        registry.apply(schema_record(each))
    return Decoders(registry=registry, versions={7: version})


def framed(data: bytes, number: int = 7) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + data


def test_avro_by_the_topics_schema_says_by_which_version() -> None:
    decoders = Decoders(schemas=[avro(ORDER), avro(ORDER, 2)])
    for data, version in ((datum(ORDER, ROW), 1), (datums.framed(2, datum(ORDER, ROW)), 2)):
        cell = decoders.value(data)
        assert ("avro", SHOWN, "") == (cell.kind, cell.text, cell.note)
        assert f"Avro by the topic's schema, version {version}" == cell.by


def test_avro_by_the_registrys_schema_and_what_it_refers_to() -> None:
    line = Version(
        subject="line", version=1, id=3, schema='{"type":"record","name":"Line","fields":[{"name":"n","type":"int"}]}'
    )
    document = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "lines", "type": {"type": "array", "items": "Line"}}],
    }
    reference = Reference(name="Line", subject="line", version=1)
    decoders = known("AVRO", json.dumps(document), line, refers=(reference,))
    cell = decoders.value(framed(bytes([4, 2, 4, 0])))
    assert ("avro", '{"lines":[{"n":1},{"n":2}]}', "") == (cell.kind, cell.text, cell.note)
    assert "Avro by schema 7 of the registry: orders-value, version 1" == cell.by


def test_protobuf_by_the_registrys_schema_with_the_names_of_its_fields() -> None:
    cell = known("PROTOBUF", PROTO).value(framed(b"\x02\x02" + MESSAGE))
    assert "protobuf" == cell.kind, cell.note
    assert {
        "shop.Order": {
            "id": 7,
            "state": "PAID",
            "lines": [{"item": "pen", "count": -2}],
            "numbers": [1, 300],
            "prices": {"a": 1.5},
            "gift": True,
            "9": [5],
        }
    } == json.loads(cell.text)
    nested = known("PROTOBUF", PROTO).value(framed(b"\x04\x02\x00\x0a\x01a"))
    assert '{"shop.Order.Line":{"item":"a"}}' == nested.text
    assert '{"shop.Other":{"name":"a"}}' == known("PROTOBUF", PROTO).value(framed(b"\x00\x0a\x01a")).text


def test_json_by_the_registrys_schema() -> None:
    cell = known("JSON", '{"type":"object"}').value(framed(b'{"a": 1}'))
    assert ("json", '{"a":1}') == (cell.kind, cell.text)
    assert cell.by.startswith("JSON by schema 7")


def test_an_arrow_stream_is_its_columns_and_first_rows() -> None:
    table = pa.table({"n": list(range(CONSOLE_ARROW_ROWS + 1))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    cell = Decoders().value(sink.getvalue())
    assert ("arrow", list(range(CONSOLE_ARROW_ROWS))) == (
        cell.kind,
        [row["n"] for row in json.loads(cell.text)["rows"]],
    )
    assert f"Arrow, 1 columns, {CONSOLE_ARROW_ROWS} of {CONSOLE_ARROW_ROWS + 1} rows" == cell.by


@pytest.mark.parametrize(
    ("decoders", "data", "form", "words"),
    [
        (Decoders(schemas=[avro(ORDER)]), b"\xff", "auto", "It is no datum of its Avro schema"),
        (Decoders(schemas=[avro(ORDER)]), datum(ORDER, ROW) + b"x", "auto", "It is longer than its Avro schema says"),
        (known("AVRO", json.dumps(ORDER)), framed(b"", 8), "auto", "It names schema 8 of the registry"),
        (known("AVRO", json.dumps(ORDER)), framed(b""), "protobuf", "Its schema 7 is one of AVRO, not of PROTOBUF"),
        (known("PROTOBUF", PROTO), framed(b"\x00\x0a\x05a"), "auto", "It is no message of its Protobuf schema"),
        (known("PROTOBUF", PROTO), framed(b"\x02\x08"), "auto", "It is no message of its Protobuf schema"),
        (known("JSON", "{}"), framed(b"{"), "auto", "It is no JSON"),
        (Decoders(), b"{", "json", "It is no JSON"),
        (Decoders(), b"x", "avro", "Neither the topic's schema nor an id"),
        (Decoders(), b"x", "protobuf", "No id of the registry says"),
        (Decoders(), b"x", "arrow", "It is no Arrow stream"),
        (Decoders(), b"\xff\xff\xff\xffx", "auto", "It begins like an Arrow stream"),
        (Decoders(), b"\x00" * (CONSOLE_DECODE_BYTES + 1), "avro", "It is too long to be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_shown_as_bytes_with_a_sentence(
    decoders: Decoders, data: bytes, form: str, words: str
) -> None:
    cell = decoders.value(data, form)
    assert ("hex", len(data)) == (cell.kind, cell.nbytes)
    assert cell.note.startswith(words), cell.note
    assert cell.note.endswith("Here are its bytes.")


@pytest.mark.parametrize("items", ["null", EMPTY, {"type": "fixed", "name": "F", "size": 0}, "E"], ids=str)
def test_six_bytes_cannot_name_a_billion_things(items: Any) -> None:
    fields: list[Any] = [{"name": "e", "type": EMPTY}] if items == "E" else []
    fields.append({"name": "all", "type": {"type": "array", "items": items}})
    document = {"type": "record", "name": "Order", "fields": fields}
    cell = known("AVRO", json.dumps(document)).value(framed(bytes.fromhex("feffffffffff0f")))
    assert "arrays of what takes no bytes" in cell.note
    empty = pa.array([None] * 3, pa.null())
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("n", pa.list_(pa.null()))])) as writer:
        writer.write_batch(pa.record_batch({"n": pa.ListArray.from_arrays([0, 3], empty)}))
    assert "hex" == Decoders().value(sink.getvalue()).kind


def test_a_tree_is_decoded_as_deep_as_it_goes() -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "below", "type": {"type": "array", "items": "Node"}}]}
    row: Any = {"below": [{"below": []}, {"below": []}]}
    cell = known("AVRO", json.dumps(node)).value(framed(datum(node, row)))
    assert row == json.loads(cell.text)
    for size in (CONSOLE_RECURSIVE_BYTES, CONSOLE_RECURSIVE_BYTES + 1):
        deep = known("AVRO", json.dumps(node)).value(framed(b"\x02" * size))
        assert ("hex", size > CONSOLE_RECURSIVE_BYTES) == (deep.kind, "contains itself" in deep.note)


DECODERS = (
    Decoders(),
    Decoders(schemas=[avro(ORDER)]),
    known("AVRO", json.dumps(ORDER)),
    known("PROTOBUF", PROTO),
    known("JSON", "{}"),
)


@given(
    st.sampled_from(DECODERS),
    st.sampled_from(FORMS),
    st.binary(max_size=64),
    st.sampled_from([b"", framed(b""), b"\xff" * 4]),
)
def test_any_bytes_are_shown_and_bounded(decoders: Decoders, form: str, data: bytes, begin: bytes) -> None:
    cell = decoders.value(begin + data, form)
    assert len(cell.text) <= CONSOLE_CELL_BYTES
    assert len(begin + data) == cell.nbytes


def test_the_page_asks_the_registry_only_for_values_that_name_a_schema() -> None:
    async def test(browser: Browser) -> None:
        await browser.space.create_topic("_schemas", 1)
        ledger = browser.space.shared(Ledger)
        version = Version(subject="greetings-value", version=1, id=7, schema=json.dumps(ORDER))
        await append(browser.space, [framed(datum(ORDER, ROW))])
        path = "/console/topics/greetings/messages?from=3"
        assert "of the registry" not in await browser.page(path)  # an empty one says nothing of bytes
        await browser.space.append("_schemas", 0, _records([schema_record(version)]))
        text = await browser.page(path)
        assert "Avro by schema 7 of the registry: greetings-value, version 1" in text
        assert Registry() is not ledger.registry
        assert "2026-01-02T00:00:00+00:00" in text

    browsing(test)


def test_a_schema_of_a_topic_that_is_not_for_the_reader_stays_hidden() -> None:
    async def test(browser: Browser) -> None:
        from headwater.api.verbs import AclRule

        await browser.space.create_topic("_schemas", 1)
        version = Version(subject="secrets-value", version=1, id=7, schema=json.dumps(ORDER))
        await browser.space.append("_schemas", 0, _records([schema_record(version)]))
        owner = Service(browser.space)
        await owner.change_acls(add=[AclRule("reader", "read", "topic", "greetings")])
        topic = browser.space.topic("greetings")
        value = framed(datum(ORDER, ROW))
        for service, shown in ((owner, "avro"), (Service(browser.space, principal="reader"), "hex")):
            decoders = await Decoders.of(service, browser.space, topic, [value])
            assert shown == decoders.value(value).kind

    browsing(test)


def _records(records: Any) -> Any:
    from headwater.log.batch import batch_of_records

    return batch_of_records(records, default_timestamp=0)
