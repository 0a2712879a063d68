"""Protobuf: texts and descriptors are read alike, and what may follow what."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from google.protobuf import (
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
)
from hypothesis import given
from hypothesis import strategies as st

from headwater.registry import protobuf, prototext
from headwater.registry.definitions import identity
from headwater.registry.refusal import Refusal


def file(body: str, package: str = "p", more: str = "") -> str:
    return f'syntax = "proto3"; package {package}; {more} message M {{ {body} }}'


def words(new: str, old: str) -> list[str]:
    return [
        each.partition(": ")[2] or each for each in protobuf.problems(protobuf.parse(new, {}), protobuf.parse(old, {}))
    ]


CASES: list[tuple[str, str, str, str]] = [
    ("a field is added", "int32 a = 1; string b = 2;", "int32 a = 1;", ""),
    ("a field is removed", "int32 a = 1;", "int32 a = 1; string b = 2;", ""),
    ("a field is renamed", "int32 b = 1;", "int32 a = 1;", ""),
    ("a type of one wire type", "int64 a = 1;", "int32 a = 1;", ""),
    ("bool is one of them", "bool a = 1;", "uint64 a = 1;", ""),
    ("bytes for string", "bytes a = 1;", "string a = 1;", ""),
    ("zigzag is another", "sint32 a = 1;", "int32 a = 1;", "FIELD_TYPE_CHANGED"),
    ("fixed is another", "fixed32 a = 1;", "int32 a = 1;", "FIELD_TYPE_CHANGED"),
    ("fixed of one size", "sfixed64 a = 1;", "fixed64 a = 1;", ""),
    ("string to number", "int32 a = 1;", "string a = 1;", "FIELD_TYPE_CHANGED"),
    ("an enum for a number", "enum E { Z = 0; } E a = 1;", "int32 a = 1;", ""),
    ("numbers repeat", "repeated int32 a = 1;", "int32 a = 1;", "FIELD_NUMERIC_LABEL_CHANGED"),
    ("strings repeat", "repeated string a = 1;", "string a = 1;", ""),
    ("a nested message goes away", "", "message N {}", "MESSAGE_REMOVED"),
    ("an enum goes away", "", "enum E { Z = 0; }", ""),
    ("one field moves into a new oneof", "oneof o { int32 a = 1; }", "int32 a = 1;", ""),
    ("two do", "oneof o { int32 a = 1; int32 b = 2; }", "int32 a = 1; int32 b = 2;", "MULTIPLE_FIELDS_MOVED_TO_ONEOF"),
    ("into an old oneof", "oneof o { int32 a = 1; int32 b = 2; }", "oneof o { int32 a = 1; } int32 b = 2;",
     "FIELD_MOVED_TO_EXISTING_ONEOF"),
    ("a oneof grows", "oneof o { int32 a = 1; int32 b = 2; }", "oneof o { int32 a = 1; }", ""),
    ("a oneof shrinks", "oneof o { int32 a = 1; }", "oneof o { int32 a = 1; int32 b = 2; }", "ONEOF_FIELD_REMOVED"),
    ("a field leaves its oneof", "int32 a = 1;", "oneof o { int32 a = 1; }", "ONEOF_FIELD_REMOVED"),
    ("a map's value changes", "map<string, string> a = 1;", "map<string, int32> a = 1;", "FIELD_TYPE_CHANGED"),
    ("a message for another", "message A {} message B {} A a = 1;", "message A {} message B {} B a = 1;",
     "FIELD_TYPE_CHANGED"),
    ("a name in two ways", "message A {} .p.M.A a = 1;", "message A {} A a = 1;", ""),
]  # fmt: skip


@pytest.mark.parametrize(("new", "old", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_may_follow(new: str, old: str, expected: str) -> None:
    found = words(file(new), file(old))
    assert ([expected] if expected else []) == [each.partition(":")[0] for each in found]


def test_the_package_and_required_fields_are_for_ever() -> None:
    assert ["'p' became 'q'"] == words(file("", "q"), file("", "p"))
    two = 'syntax = "proto2"; message M { required int32 a = 1; }'
    none = 'syntax = "proto2"; message M { }'
    assert (["REQUIRED_FIELD_ADDED"], ["REQUIRED_FIELD_REMOVED"]) == (words(two, none), words(none, two))


RICH = """
// A file with everything.
syntax = "proto3";
package shop.v1; /* and
   comments */
import public "google/protobuf/timestamp.proto";
import "other.proto";
option java_package = "test.shop";
option (custom) = { a: 1 b: [ "x;}", 'y' ] };
message Order {
  option deprecated = true;
  reserved 4, 9 to 11, 100 to max;
  reserved "old", "older";
  string id = 1 [deprecated = true, (rule).min = 0x10];
  optional int32 count = 2;
  repeated Line lines = 3;
  map<string, Line> by_name = 5;
  google.protobuf.Timestamp at = 6;
  oneof pay { option (x) = 1; string card = 7; .shop.v1.Order.Cash cash = 8; }
  message Line { string what = 1; Kind kind = 2;
    enum Kind { option allow_alias = true; NONE = 0; NIL = 0 [deprecated = true]; LOW = -1; reserved 5; } }
  message Cash { }
  Other other = 12;
  string message = 13; bool enum = 14; int32 option = 15; string reserved = 16;
}
message Other {};
service Shop { rpc Buy (Order) returns (stream Other) { option (http) = { get: "/x" }; } }
"""


def test_a_text_with_everything_is_read() -> None:
    made = protobuf.parse(RICH, {"other.proto": 'syntax = "proto3"; message Unused {}'})
    order = made.messages["shop.v1.Order"]
    assert ["shop.v1.Order", "shop.v1.Order.Line", "shop.v1.Order.Cash", "shop.v1.Other"] == list(made.messages)
    assert [1, 2, 3, 5, 6, 7, 8, 12, 13, 14, 15, 16] == sorted(order.fields)
    assert "map<string,shop.v1.Order.Line>" == order.fields[5].type
    assert ("pay", "shop.v1.Order.Cash") == (order.fields[8].oneof, order.fields[8].type)
    assert {"NONE": 0, "NIL": 0, "LOW": -1} == made.enums["shop.v1.Order.Line.Kind"]


def test_proto2_groups_extensions_and_editions_are_read() -> None:
    text = """syntax = "proto2";
    message A { optional group Inner = 1 { optional int32 x = 1; } extensions 100 to 199;
      extend A { optional int32 y = 100; } }
    extend A { optional int32 z = 101; }"""
    made = protobuf.parse(text, {})
    assert ["A", "A.Inner"] == list(made.messages)
    assert "A.Inner" == made.messages["A"].fields[1].type
    assert "2023" == protobuf.parse('edition = "2023"; message A {}', {}).syntax


def descriptor(found: object) -> str:
    made = descriptor_pb2.FileDescriptorProto()
    found.DESCRIPTOR.CopyToProto(made)  # type: ignore[attr-defined]
    return base64.b64encode(made.SerializeToString()).decode()


@pytest.mark.parametrize("module", [api_pb2, struct_pb2, type_pb2, descriptor_pb2], ids=lambda each: each.__name__)
def test_descriptors_are_read_as_protobuf_itself_reads_them(module: object) -> None:
    made = protobuf.parse(descriptor(module), {"google/protobuf/x": 'syntax = "proto3"; message X {}'})
    messages = module.DESCRIPTOR.message_types_by_name  # type: ignore[attr-defined]
    for name, message in messages.items():
        found = made.messages[f"google.protobuf.{name}"]
        assert {each.number: each.name for each in message.fields} == {n: f.name for n, f in found.fields.items()}


def test_a_text_and_its_descriptor_are_the_same_schema() -> None:
    text = """syntax = "proto3"; package google.protobuf;
    message Struct { map<string, Value> fields = 1; }
    message Value { oneof kind { NullValue null_value = 1; double number_value = 2; string string_value = 3;
      bool bool_value = 4; Struct struct_value = 5; ListValue list_value = 6; } }
    enum NullValue { NULL_VALUE = 0; }
    message ListValue { repeated Value values = 1; }"""
    assert identity("PROTOBUF", text, ()) == identity("PROTOBUF", descriptor(struct_pb2), ())
    assert identity("PROTOBUF", text, ()) != identity("PROTOBUF", text.replace("= 6", "= 7"), ())


def test_a_text_becomes_the_descriptor_that_protobuf_would_make() -> None:
    pool = descriptor_pool.DescriptorPool()
    for other in (timestamp_pb2.DESCRIPTOR,):
        pool.AddSerializedFile(other.serialized_pb)
    text = RICH.replace('import "other.proto";', "")
    made = descriptor_pb2.FileDescriptorProto()
    made.ParseFromString(base64.b64decode(protobuf.serialized(protobuf.parse(text, {}))))
    pool.Add(made)  # which checks every name and number
    order = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.v1.Order"))
    value = order(id="x", count=0, lines=[{"what": "w", "kind": "LOW"}], cash={}, message="m")
    value.by_name["k"].what = "v"
    again = order.FromString(value.SerializeToString())
    assert (True, "cash", "v", -1) == (
        again.HasField("count"), again.WhichOneof("pay"), again.by_name["k"].what, again.lines[0].kind,
    )  # fmt: skip
    assert identity("PROTOBUF", text, ()) == identity("PROTOBUF", protobuf.serialized(protobuf.parse(text, {})), ())


@pytest.mark.parametrize("module", [api_pb2, struct_pb2, type_pb2, timestamp_pb2], ids=lambda each: each.__name__)
def test_a_descriptor_that_was_read_is_written_again_alike(module: object) -> None:
    first = protobuf.parse(descriptor(module), {})
    second = protobuf.parse(protobuf.serialized(first), {})
    assert first == second


BODIES = [
    "int32", "int32 a;", "int32 a = ;", "int32 a = x;", "int32 a = 0;", "int32 a = -1;", "int32 a = 536870912;",
    "int32 a = 1; int32 b = 1;", "int32 a = 1; int32 a = 2;", "Nothing a = 1;", "map<M, int32> a = 1;",
    "int32 a = 1 [;", ")", "} {", "/*", "1 a = 1;",
]  # fmt: skip
BAD = [
    "", "x", "message", "message M", "message M {", "message M {} message M {}", 'import "x.proto"; message M {}',
    '"', "enum E { A = ; }", "\x00", 'syntax = "proto3";', "AAAA", base64.b64encode(b"\x0a\xff").decode(),
    base64.b64encode(b"\x22\x02\x12\x00").decode(), "message M { " * 500,
    *(f"message M {{ {body} }}" for body in BODIES),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=lambda each: repr(each)[:40])
def test_what_is_no_file_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        protobuf.parse(text, {})
    assert 42201 == refused.value.error_code


@given(st.text(max_size=80) | st.text("{}()=;[]<>,. \nmessage int32 a1\"'/*", max_size=120))
def test_any_text_is_a_file_or_refused(text: str) -> None:
    with suppress(Refusal):
        prototext.parse(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_descriptor_or_refused(data: bytes) -> None:
    with suppress(Refusal):
        protobuf.parse(base64.b64encode(data).decode(), {})
