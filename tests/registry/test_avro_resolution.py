"""Avro's schema resolution, rule by rule: every pair of primitives, and each kind of type."""

from __future__ import annotations

import io
import itertools
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.registry import avro
from headwater.registry.refusal import Refusal
from tests.registry.helpers_registry import record

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
PROMOTED = {  # writer → readers, as the specification lists them
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def enum(*symbols: str, name: str = "e", **more: object) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "f", **more: object) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def array(items: object) -> dict[str, Any]:
    return {"type": "array", "items": items}


def decimal(precision: int, scale: int, **more: object) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


def words(reader: object, writer: object) -> list[str]:
    """The kinds of problems: the words in capitals."""
    return [each.split(": ")[1] for each in avro.problems(avro.parse(reader), avro.parse(writer))]


@pytest.mark.parametrize(("writer", "reader"), list(itertools.product(PRIMITIVES, PRIMITIVES)))
def test_primitives_resolve_if_they_are_the_same_or_promoted(writer: str, reader: str) -> None:
    fits = reader == writer or reader in PROMOTED.get(writer, set())
    assert ([] if fits else ["TYPE_MISMATCH"]) == words(reader, writer)
    assert ([] if fits else ["TYPE_MISMATCH"]) == words({"type": reader}, {"type": writer})
    assert ([] if fits else ["TYPE_MISMATCH"]) == words(array(reader), array(writer))
    assert ([] if fits else ["TYPE_MISMATCH"]) == words(
        {"type": "map", "values": reader}, {"type": "map", "values": writer}
    )
    assert ([] if fits else ["TYPE_MISMATCH"]) == words(record(("x", reader)), record(("x", writer)))
    assert ([] if fits else ["MISSING_UNION_BRANCH"]) == words([reader], writer)
    assert ([] if fits else ["TYPE_MISMATCH"]) == words(reader, [writer])


CASES: list[tuple[str, object, object, list[str]]] = [
    ("a field with a default is added", record({"name": "a", "type": "int", "default": 1}), record(), []),
    ("a field without is added", record(("a", "int")), record(), ["READER_FIELD_MISSING_DEFAULT_VALUE"]),
    ("a default of null is one", record({"name": "a", "type": ["null", "int"], "default": None}), record(), []),
    ("a field is removed", record(), record(("a", "int")), []),
    ("a field is renamed", record({"name": "b", "type": "int", "aliases": ["a"]}), record(("a", "int")), []),
    (
        "a field is renamed and of another type",
        record({"name": "b", "type": "boolean", "aliases": ["a"]}),
        record(("a", "int")),
        ["TYPE_MISMATCH"],
    ),
    ("fields are put in another order", record(("a", "int"), ("b", "int")), record(("b", "int"), ("a", "int")), []),
    ("a record is renamed", record(name="s"), record(name="r"), ["NAME_MISMATCH"]),
    ("a record is renamed by an alias", record(name="s", aliases=["r"]), record(name="r"), []),
    ("an alias in the namespace", record(name="n.s", aliases=["r"]), record(name="n.r"), []),
    ("an alias by its full name", record(name="n.s", aliases=["m.r"]), record(name="m.r"), []),
    ("an alias of another namespace", record(name="n.s", aliases=["r"]), record(name="m.r"), ["NAME_MISMATCH"]),
    ("namespaces are not compared", record(name="n.r"), record(name="m.r"), []),
    ("a symbol is added", enum("A", "B"), enum("A"), []),
    ("a symbol is removed", enum("A"), enum("A", "B"), ["MISSING_ENUM_SYMBOLS"]),
    ("a symbol is removed with a default", enum("A", default="A"), enum("A", "B"), []),
    ("an enum is renamed", enum("A", name="x"), enum("A"), ["NAME_MISMATCH"]),
    ("an enum is renamed by an alias", enum("A", name="x", aliases=["e"]), enum("A"), []),
    ("fixed of one size", fixed(4), fixed(4), []),
    ("fixed of two sizes", fixed(4), fixed(5), ["FIXED_SIZE_MISMATCH"]),
    ("fixed of two names", fixed(4, "g"), fixed(4), ["NAME_MISMATCH"]),
    ("fixed is no bytes", "bytes", fixed(4), ["TYPE_MISMATCH"]),
    ("decimals alike", decimal(5, 2), decimal(5, 2), []),
    ("decimals of two scales", decimal(5, 2), decimal(5, 1), ["DECIMAL_MISMATCH"]),
    ("a decimal is bytes", "bytes", decimal(5, 2), []),
    ("bytes are a decimal", decimal(5, 2), "bytes", []),
    ("a union grows", ["null", "int", "string"], ["null", "int"], []),
    ("a union shrinks", ["null", "int"], ["null", "int", "string"], ["MISSING_UNION_BRANCH"]),
    ("a union in another order", ["int", "null"], ["null", "int"], []),
    ("a union whose branch is promoted", ["null", "long"], ["null", "int"], []),
    ("a type becomes optional", ["null", "int"], "int", []),
    ("an optional type becomes required", "int", ["null", "int"], ["TYPE_MISMATCH"]),
    ("a union of records", [record(name="a"), record(name="b")], record(name="b"), []),
    ("a union without the record", [record(name="a")], record(name="b"), ["MISSING_UNION_BRANCH"]),
    ("an empty union takes nothing", [], "int", ["MISSING_UNION_BRANCH"]),
    ("nothing is written", "int", [], []),
    ("an array is no map", array("int"), {"type": "map", "values": "int"}, ["TYPE_MISMATCH"]),
    ("other logical types are the type below", {"type": "int", "logicalType": "date"}, "int", []),
]


@pytest.mark.parametrize(("reader", "writer", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_resolution(reader: object, writer: object, expected: list[str]) -> None:
    assert expected == words(reader, writer)


def node(*fields: object) -> dict[str, Any]:
    return record(("next", ["null", "n.node"]), *fields, name="n.node")  # type: ignore[arg-type]


def test_a_type_that_holds_itself_is_compared_once() -> None:
    assert [] == words(node(("v", "long")), node(("v", "int")))
    assert ["TYPE_MISMATCH"] == words(node(("v", "int")), node(("v", "long")))
    assert ["READER_FIELD_MISSING_DEFAULT_VALUE"] == words(node(("w", "int")), node())


def test_problems_name_the_path() -> None:
    reader = record(("a", array(record(("b", {"type": "map", "values": "int"}), name="inner"))))
    writer = record(("a", array(record(("b", {"type": "map", "values": "string"}), name="inner"))))
    assert ["/a[]/b{}: TYPE_MISMATCH: the writer's string cannot be read as int"] == avro.problems(
        avro.parse(reader), avro.parse(writer)
    )


def test_an_attempt_at_a_branch_that_failed_is_not_believed_later() -> None:
    """The inner pair looks fine while it is being tried as a branch, and is not."""
    inner_old, inner_new = record(("x", "string"), name="inner"), record(("x", "int"), name="inner")
    reader = record(("u", ["null", inner_new]), ("v", "inner"))
    writer = record(("u", ["null", inner_old]), ("v", "inner"))
    assert ["MISSING_UNION_BRANCH", "TYPE_MISMATCH"] == words(reader, writer)


def test_unions_in_unions_end_in_a_refusal_and_not_in_a_search_without_end() -> None:
    def level(depth: int, name: str, leaf: str) -> dict[str, Any]:
        """Two records of each level go by the name that is written, and both are tried."""
        below: object = leaf
        if depth:
            first = level(depth - 1, "a", leaf) if name == "a" else f"a{depth - 1}"
            below = [first, level(depth - 1, "b", leaf) if name == "a" else f"b{depth - 1}"]
        return record(("x", below), name=f"{name}{depth}", aliases=[f"a{depth}"])

    reader, writer = level(30, "a", "int"), level(30, "a", "string")
    with pytest.raises(Refusal, match="steps"):
        avro.problems(avro.parse(reader), avro.parse(writer))


BAD: list[object] = [
    5, None, True, {}, {"type": "foo"}, "foo", {"type": "record"}, {"type": "record", "name": "x", "fields": 3},
    {"type": "record", "name": "1x", "fields": []}, {"type": "record", "name": ["x"], "fields": []},
    {"type": "record", "name": "a..b", "fields": []}, record(("1a", "int")), record(("a", "int"), ("a", "int")),
    record(("a", "nothing")), record({"name": "a", "type": "int", "default": "x"}), record({"name": "a"}),
    record({"type": "int"}), record(aliases=3), enum("A", "A"), enum("1"), enum("A", default="B"),
    {"type": "enum", "name": "e", "symbols": "abc"}, {"type": "enum", "name": "e"}, fixed(-1),
    {"type": "fixed", "name": "f", "size": "7"}, {"type": "fixed", "name": "f", "size": True},
    {"type": "array"}, {"type": "map", "values": None}, ["int", "int"], ["int", ["string"]], {"type": ["int", "int"]},
    [array("int"), array("string")], {"type": {"type": "array", "items": ["int", "int"]}},
    array({"type": "fixed", "name": "f", "size": 1, "aliases": [1]}), [record(name="a"), record(name="a")],
]  # fmt: skip


@pytest.mark.parametrize("document", BAD, ids=str)
def test_what_is_no_schema_is_refused(document: object) -> None:
    with pytest.raises(Refusal) as refused:
        avro.parse(document)
    assert (422, 42201) == (refused.value.status, refused.value.error_code)


def test_names_may_be_of_a_schema_that_is_referred_to() -> None:
    inner = record(("x", "int"), name="n.inner")
    assert [] == avro.problems(
        avro.parse(record(("a", "n.inner")), [inner]), avro.parse(record(("a", "n.inner")), [inner])
    )
    with pytest.raises(Refusal, match=r"'n\.inner' is defined nowhere"):
        avro.parse(record(("a", "n.inner")))


# -- beside fastavro, which reads by resolution -----------------------------------------------------------

LEAF = st.sampled_from(["null", "int", "long", "float", "double", "string", "bytes", "boolean"])
TYPE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        inner.map(array),
        st.lists(LEAF, min_size=1, max_size=3, unique=True),
        inner.map(lambda each: {"type": "map", "values": each}),
    ),
    max_leaves=3,
)
FIELD = st.tuples(st.sampled_from("abc"), TYPE)
RECORD = st.lists(FIELD, max_size=3, unique_by=lambda each: each[0]).map(lambda fields: record(*fields))


@settings(max_examples=150, deadline=None)
@given(RECORD, RECORD, st.data())
def test_what_resolves_is_read_by_fastavro(reader: dict[str, Any], writer: dict[str, Any], data: st.DataObject) -> None:
    if avro.problems(avro.parse(reader), avro.parse(writer)):
        return
    value = data.draw(values(writer))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    stream.seek(0)
    found = fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    assert {each["name"] for each in reader["fields"]} == set(found)  # type: ignore[arg-type]


def values(node: Any) -> st.SearchStrategy[Any]:
    """Values that fit a schema of the kind above."""
    if isinstance(node, list):
        return st.one_of(*(values(each) for each in node))
    if isinstance(node, dict):
        if node["type"] == "record":
            return st.fixed_dictionaries({each["name"]: values(each["type"]) for each in node["fields"]})
        if node["type"] == "array":
            return st.lists(values(node["items"]), max_size=2)
        return st.dictionaries(st.text(max_size=2), values(node["values"]), max_size=2)
    known: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-100, 100),
        "long": st.integers(-100, 100),
        "float": st.integers(-8, 8).map(float),
        "double": st.integers(-8, 8).map(float),
        "string": st.text("ab", max_size=3),
        "bytes": st.binary(max_size=0),  # ASCII only, or they would be no string
    }
    return known[node]
