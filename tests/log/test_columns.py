"""Types of columns: their grammar, the lattice of widening, and which schema may follow which."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.limits import COLUMN_DEPTH_MAX, COLUMN_FIELDS_MAX
from headwater.log.arrow_types import arrow_type
from headwater.log.columns import RESERVED, SCALARS, Field, Type, parse, plain_name, refusal, widens
from headwater.log.operations import Column

WHOLE = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DECIMALS = ["decimal128(38, 0)", "decimal128(38, 18)", "decimal128(20, 0)", "decimal128(5, 2)", "decimal128(3, 0)",
            "decimal128(7, 4)", "decimal128(22, 2)", "decimal128(38, 38)"]  # fmt: skip
TYPES = [*sorted(SCALARS), *DECIMALS, "fixed_size_binary[1]", "fixed_size_binary[16]"]

scalars = st.sampled_from(TYPES).map(parse)
names = st.sampled_from(["a", "b", "c d", "é", "x.y"])


def _nested(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    items = st.builds(lambda found, null: Field(name="item", type=found, nullable=null), inner, st.booleans())
    fields = st.lists(
        st.builds(lambda name, found, null: Field(name=name, type=found, nullable=null), names, inner, st.booleans()),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each.name,
    )
    return st.one_of(
        items.map(lambda item: Type(kind="list", fields=(item,))),
        inner.map(lambda found: Type(kind="map", fields=(Field(name="value", type=found),))),
        fields.map(lambda each: Type(kind="struct", fields=tuple(each))),
    )


types = st.recursive(scalars, _nested, max_leaves=6)


@st.composite
def wider(draw: st.DrawFn, old: Type) -> Type:
    """A type that holds all values of ``old``, made by steps that ought to be legal."""
    if not old.fields:
        return parse(draw(st.sampled_from([name for name in TYPES if widens(str(old), name)])))
    fields = [
        Field(name=each.name, type=draw(wider(each.type)), nullable=each.nullable or draw(st.booleans()))
        for each in old.fields
    ]
    if old.kind == "struct":
        fields = draw(st.permutations(fields))
        if draw(st.booleans()):
            fields = [*fields, Field(name=f"added {len(fields)}", type=draw(scalars))]
    return Type(kind=old.kind, fields=tuple(fields))


def values(found: Type) -> st.SearchStrategy[Any]:
    """What a column of this type can hold, its edges among it."""
    match found.kind:
        case "list":
            return st.lists(_or_null(found.item), max_size=3)
        case "map":
            return st.dictionaries(st.sampled_from(["k", "l"]), _or_null(found.item), max_size=2).map(
                lambda made: list(made.items())
            )
        case "struct":
            return st.fixed_dictionaries({each.name: _or_null(each) for each in found.fields})
    return st.sampled_from(edges(str(found)))


def _or_null(each: Field) -> st.SearchStrategy[Any]:
    return st.none() | values(each.type) if each.nullable else values(each.type)


def edges(name: str) -> list[Any]:
    """The extreme values of a type without parts."""
    if name in WHOLE:
        bits, signed = int(name.removeprefix("u")[3:]), not name.startswith("u")
        return [-(1 << bits - 1), (1 << bits - 1) - 1, -1, 0] if signed else [0, (1 << bits) - 1, 1 << bits - 1]
    if name.startswith("decimal128"):
        precision, scale = parse(name).params
        nines = (9,) * precision
        return [Decimal((0, nines, -scale)), Decimal((1, nines, -scale)), Decimal((0, (1,), -scale))]
    if name.startswith("fixed"):
        return [bytes(parse(name).params[0])]
    if name.startswith("timestamp"):
        zone = dt.UTC if name.endswith("UTC]") else None
        return [dt.datetime(1, 1, 1, tzinfo=zone), dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=zone)]
    if name.startswith("time"):
        return [dt.time(0, 0, 0), dt.time(23, 59, 59)]
    return {
        "bool": [True, False],
        "float": [3.4028234663852886e38, -0.0, 1.5, 2.0**-149],
        "double": [1.7976931348623157e308, 5e-324, 0.1],
        "string": ["", "é\0"],
        "large_string": ["", "é\0"],
        "binary": [b"", b"\xff"],
        "large_binary": [b"", b"\xff"],
        "date32[day]": [dt.date(1, 1, 1), dt.date(9999, 12, 31)],
    }[name]


def _part(found: Type, value: Any) -> Any:
    """What of ``value`` a type knows: a wider struct has more fields."""
    if value is None or not found.fields:
        return value
    if found.kind == "struct":
        return {each.name: _part(each.type, value[each.name]) for each in found.fields}
    if found.kind == "map":
        return [(key, _part(found.item.type, inner)) for key, inner in value]
    return [_part(found.item.type, inner) for inner in value]


# -- grammar ------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(types)
def test_a_type_is_read_as_it_is_written(found: Type) -> None:
    assert found == parse(str(found))


@settings(max_examples=200)
@given(types)
def test_a_type_is_written_as_arrow_prints_it(found: Type) -> None:
    assert str(found) == str(arrow_type(found))


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "int", "int128", "int32 ", " int32", "int32 not null", "INT32", "halffloat", "null", "int32\n"),
        *("list", "list<", "list<>", "list<item>", "list<item: >", "list<item: int8", "list<x: int8>", "list<int8>"),
        *("list<item: int8>>", "list<item: int8 not null not null>", "large_list<item: int8>"),
        *("struct<>", "struct<a>", "struct<a: >", "struct<: int8>", "struct<a: int8,b: int8>", "struct<a: int8, >"),
        *("struct<a: int8, a: int8>", "struct<a:b: int8>"),
        *("map<int8, int8>", "map<string>", "map<string, int8 not null>", "map<string not null, int8>"),
        *("decimal128(0, 0)", "decimal128(39, 0)", "decimal128(5, 6)", "decimal128(5,2)", "decimal128(-1, 2)"),
        *("decimal256(5, 2)", "decimal128", "decimal128(99999999999999999999, 1)", "timestamp[ns]", "timestamp"),
        *("timestamp[ms, tz=Europe/Rome]", "timestamp[us, tz=UTC", "date64[ms]", "date32", "time64[ns]", "time32[us]"),
        *("fixed_size_binary[0]", "fixed_size_binary[100000]", "fixed_size_binary[-1]", "dictionary<values=string>"),
        *("extension<arrow.uuid>", "\0", "é", "list<item: é>", "int32" * 10_000),
    ],
)
def test_what_is_no_type_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse(text)
    assert not widens(text, text)
    assert refusal([], [Column("a", text or "x")]).startswith("column 'a': ")


@settings(max_examples=300)
@given(st.text(st.sampled_from(list("listrucmap<>item: ,()[]0int8 x")), max_size=40) | types.map(str))
def test_no_text_is_more_than_refused(text: str) -> None:
    refused = refusal([Column("a", text or "x")], [Column("a", "int8")])
    try:
        parse(text)
    except ValueError:
        assert refused != ""
    else:
        assert widens(text, text)


def test_depth_and_fields_have_a_bound() -> None:
    def nested(depth: int) -> str:
        return "list<item: " * (depth - 1) + "int8" + ">" * (depth - 1)

    assert nested(COLUMN_DEPTH_MAX) == str(parse(nested(COLUMN_DEPTH_MAX)))
    with pytest.raises(ValueError, match="nested at most"):
        parse(nested(COLUMN_DEPTH_MAX + 1))
    with pytest.raises(ValueError, match="nested at most"):
        parse("list<item: " * 5_000)

    def flat(count: int) -> str:
        return f"struct<{', '.join(f'f{number}: bool' for number in range(count))}>"

    assert flat(COLUMN_FIELDS_MAX) == str(parse(flat(COLUMN_FIELDS_MAX)))
    with pytest.raises(ValueError, match="fields"):
        parse(flat(COLUMN_FIELDS_MAX + 1))


def test_a_plain_name_is_one_that_a_struct_can_spell() -> None:
    for name in ("a", "a b", "not null", "é", "x" * 249):
        assert plain_name(name)
        assert name == parse(f"struct<{name}: int8>").fields[0].name
    for name in ("", "a:", "a: b", "a,b", "<", ">", "x" * 250):
        assert not plain_name(name)


# -- the lattice --------------------------------------------------------------------------------------------------


def test_widening_is_reflexive_transitive_and_antisymmetric_on_types_without_parts() -> None:
    edges_ = {(old, new) for old, new in itertools.product(TYPES, TYPES) if widens(old, new)}
    assert edges_ >= {(name, name) for name in TYPES}
    assert [] == [(a, b, d) for a, b in edges_ for c, d in edges_ if b == c and (a, d) not in edges_]
    assert [] == [(a, b) for a, b in edges_ if a != b and (b, a) in edges_]


@pytest.mark.parametrize("old", TYPES)
def test_every_value_of_a_type_without_parts_is_the_same_in_each_wider_one(old: str) -> None:
    column = pa.array(edges(old), arrow_type(parse(old)))
    for new in TYPES:
        if widens(old, new):
            assert column.to_pylist() == column.cast(arrow_type(parse(new))).to_pylist()


def test_whole_numbers_do_not_become_floats_that_lose_digits() -> None:
    for old, new in (("int64", "double"), ("uint64", "double"), ("int32", "float"), ("uint32", "float")):
        assert not widens(old, new)
    for old, new in (("int32", "double"), ("int16", "float"), ("uint32", "int64"), ("uint64", "decimal128(20, 0)")):
        assert widens(old, new)
    assert not widens("uint64", "int64")
    assert not widens("int64", "decimal128(18, 0)")
    assert not widens("timestamp[ms]", "timestamp[us]")  # years beyond 292,000 have no microseconds of 64 bits
    assert not widens("string", "binary")


@settings(max_examples=200)
@given(st.data(), types)
def test_what_a_type_is_widened_to_step_by_step_it_widens_to_at_once(data: st.DataObject, old: Type) -> None:
    one = data.draw(wider(old))
    two = data.draw(wider(one))
    assert widens(str(old), str(one))
    assert widens(str(old), str(two))


@settings(max_examples=200)
@given(st.data(), types)
def test_every_value_casts_to_what_its_type_is_widened_to(data: st.DataObject, old: Type) -> None:
    new = data.draw(wider(old))
    column: Any = pa.array(data.draw(st.lists(st.none() | values(old), min_size=1, max_size=3)), arrow_type(old))
    cast = column.cast(arrow_type(new))
    assert column.to_pylist() == [_part(old, value) for value in cast.to_pylist()]


# -- which schema may follow which --------------------------------------------------------------------------------


def test_a_schema_gains_columns_that_may_be_null_and_widens_others() -> None:
    old = [Column("a", "int8", False), Column("b", "list<item: struct<x: float>>")]
    new = [Column("c", "string"), Column("b", "list<item: struct<y: bool, x: double>>"), Column("a", "int64")]
    assert "" == refusal([], old) == refusal(old, new) == refusal(old, old)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ([Column("b", "int8")], "column 'a' is missing; columns are only added."),
        ([Column("a", "uint8", False)], "column 'a' was int8 and cannot become uint8: types only widen."),
        (
            [Column("a", "int8", False), Column("b", "struct<x: int8>", False)],
            "column 'b' was nullable and must stay so.",
        ),
        (
            [Column("a", "int8", False), Column("b", "struct<x: int8, y: int8 not null>")],
            "column 'b' was struct<x: int8> and cannot become struct<x: int8, y: int8 not null>: types only widen.",
        ),
        (
            [Column("a", "int8"), Column("b", "struct<x: int8>"), Column("c", "int8", False)],
            "the new column 'c' must be nullable: old values do not have it.",
        ),
        ([Column("a", "int8"), Column("a", "int8")], "it has two columns 'a'."),
        *(([Column(name, "int8")], f"column {name!r} has the name of one that every topic has.") for name in RESERVED),
    ],
)
def test_a_schema_that_cannot_follow_says_why(new: list[Column], reason: str) -> None:
    assert reason == refusal([Column("a", "int8", False), Column("b", "struct<x: int8>")], new)
