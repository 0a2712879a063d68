"""JSON Schema: what may follow what, case by case, and beside a validator."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.registry import jsons
from headwater.registry.refusal import Refusal

OPEN: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED: dict[str, Any] = {**OPEN, "additionalProperties": False}


def obj(closed: bool = False, required: tuple[str, ...] = (), **properties: object) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if closed:
        made["additionalProperties"] = False
    if required:
        made["required"] = list(required)
    return made


def fits(new: object, old: object) -> bool:
    return not jsons.problems(jsons.parse(new, {}), jsons.parse(old, {}))


def short(*items: object) -> dict[str, Any]:
    """A tuple, as schemas before 2020-12 have it."""
    return {"items": list(items), "additionalItems": False}


S, INT, N = {"type": "string"}, {"type": "integer"}, {"type": "number"}
PATTERN: dict[str, Any] = {"patternProperties": {"b": {}}}
PARTLY = {**OPEN, "additionalProperties": INT}
CASES: list[tuple[str, object, object, bool]] = [
    ("the same", OPEN, OPEN, True),
    ("true takes all", True, OPEN, True),
    ("nothing else takes what true took", OPEN, True, False),
    ("false took nothing", OPEN, False, True),
    ("false takes nothing", False, OPEN, False),
    ("integer to number", N, INT, True),
    ("number to integer", INT, N, False),
    ("a type is added", {"type": ["string", "null"]}, S, True),
    ("a type is removed", S, {"type": ["string", "null"]}, False),
    ("a type is asked for", S, {}, False),
    ("a value is added", {"enum": [1, 2]}, {"enum": [1]}, True),
    ("a value is removed", {"enum": [1]}, {"enum": [1, 2]}, False),
    ("true is not 1", {"enum": [1]}, {"enum": [True]}, False),
    ("a const becomes one of several", {"enum": [1, 2]}, {"const": 1}, True),
    ("an enum of strings is a string", S, {"enum": ["x"]}, True),
    ("a string is no enum", {"enum": ["x"]}, S, False),
    ("maxLength is added", {**S, "maxLength": 5}, S, False),
    ("maxLength goes away", S, {**S, "maxLength": 5}, True),
    ("maxLength rises", {**S, "maxLength": 6}, {**S, "maxLength": 5}, True),
    ("maxLength falls", {**S, "maxLength": 4}, {**S, "maxLength": 5}, False),
    ("minimum falls", {**N, "minimum": 1}, {**N, "minimum": 2}, True),
    ("minimum rises", {**N, "minimum": 3}, {**N, "minimum": 2}, False),
    ("multipleOf of a divisor", {**INT, "multipleOf": 5}, {**INT, "multipleOf": 10}, True),
    ("multipleOf of a multiple", {**INT, "multipleOf": 10}, {**INT, "multipleOf": 5}, False),
    ("a pattern is added", {**S, "pattern": "x"}, S, False),
    ("a pattern goes away", S, {**S, "pattern": "x"}, True),
    ("unique items", {"type": "array", "uniqueItems": True}, {"type": "array"}, False),
    ("added to a closed model", obj(True, a=S, b=S), CLOSED, True),
    ("added to an open model", obj(a=S, b=S), OPEN, False),
    ("true is added to an open model", obj(a=S, b=True), OPEN, True),
    ("removed from an open model", obj(), OPEN, True),
    ("removed from a closed model", obj(True), CLOSED, False),
    ("the model is opened", OPEN, CLOSED, True),
    ("the model is closed", CLOSED, OPEN, False),
    ("others get a schema", {**OPEN, "additionalProperties": S}, CLOSED, True),
    ("the schema of others widens", {**OPEN, "additionalProperties": N}, {**OPEN, "additionalProperties": INT}, True),
    ("the schema of others narrows", {**OPEN, "additionalProperties": INT}, {**OPEN, "additionalProperties": N}, False),
    (
        "added as others were",
        {**obj(a=S, b=N), "additionalProperties": INT},
        {**OPEN, "additionalProperties": INT},
        True,
    ),
    ("added not so", {**obj(a=S, b=S), "additionalProperties": INT}, {**OPEN, "additionalProperties": INT}, False),
    ("removed and covered by others", {**obj(), "additionalProperties": S}, CLOSED, True),
    ("removed and not covered", {**obj(), "additionalProperties": INT}, CLOSED, False),
    ("a property widens", obj(a=N), obj(a=INT), True),
    ("a property narrows", obj(a=INT), obj(a=N), False),
    ("required is added", obj(required=("a",), a=S), OPEN, False),
    ("required with a default is added", obj(required=("a",), a={**S, "default": ""}), OPEN, True),
    ("required goes away", OPEN, obj(required=("a",), a=S), True),
    ("added as required to a closed model", obj(True, ("b",), a=S, b=S), CLOSED, False),
    ("items widen", {"type": "array", "items": N}, {"type": "array", "items": INT}, True),
    ("items narrow", {"type": "array", "items": INT}, {"type": "array", "items": N}, False),
    ("items are described", {"type": "array", "items": INT}, {"type": "array"}, False),
    ("prefixItems widen", {"prefixItems": [N]}, {"prefixItems": [INT]}, True),
    ("prefixItems narrow", {"prefixItems": [INT]}, {"prefixItems": [N]}, False),
    (
        "a tuple of the old way",
        {"items": [N], "additionalItems": False},
        {"items": [INT], "additionalItems": False},
        True,
    ),
    ("a tuple is cut", {"items": [], "additionalItems": False}, {"items": [INT], "additionalItems": False}, False),
    ("anyOf grows", {"anyOf": [S, INT]}, {"anyOf": [S]}, True),
    ("anyOf shrinks", {"anyOf": [S]}, {"anyOf": [S, INT]}, False),
    ("one becomes one of several", {"oneOf": [S, INT]}, INT, True),
    ("one of several becomes one", INT, {"oneOf": [S, INT]}, False),
    ("several become what takes them all", {"type": ["string", "number"]}, {"oneOf": [S, INT]}, True),
    ("allOf loses a part", {"allOf": [S]}, {"allOf": [S, {"maxLength": 5}]}, True),
    ("allOf gets a part", {"allOf": [S, {"maxLength": 5}]}, {"allOf": [S]}, False),
    ("not stays", {"not": S}, {"not": S}, True),
    ("not changes", {"not": INT}, {"not": S}, False),
    ("patternProperties change", {"patternProperties": {"x": S}}, {"patternProperties": {"x": INT}}, False),
    ("patterns leave an open model", {"properties": {}}, {"patternProperties": {"b": N}}, True),
    ("patterns leave a closed model", obj(True), {**obj(True), "patternProperties": {"b": N}}, False),
    ("a name of a pattern is added", {**obj(True, b=INT), **PATTERN}, {**obj(True), **PATTERN}, False),
    ("words of no meaning change", {**S, "title": "x", "format": "date"}, {**S, "title": "y"}, True),
]


@pytest.mark.parametrize(("new", "old", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_may_follow(new: object, old: object, expected: bool) -> None:
    assert expected is fits(new, old)


def tree(value: object) -> dict[str, Any]:
    return {"$ref": "#/$defs/n", "$defs": {"n": obj(True, v=value, next={"$ref": "#/$defs/n"})}}


def test_references_are_followed_and_a_schema_may_hold_itself() -> None:
    assert fits(tree(N), tree(INT))
    assert not fits(tree(INT), tree(N))
    assert fits({"$ref": "#/definitions/a~1b", "definitions": {"a/b": N}}, INT)
    assert fits({"$ref": "#"}, {"$ref": "#"})


def test_documents_are_referred_to_by_name_or_id() -> None:
    other = {"$id": "https://x.test/other", "definitions": {"n": N}}
    for reference in ("other.json#/definitions/n", "https://x.test/other#/definitions/n"):
        new = jsons.parse(obj(a={"$ref": reference}), {"other.json": other})
        assert [] == jsons.problems(new, jsons.parse(obj(a=INT), {}))
        assert [] != jsons.problems(new, jsons.parse(obj(a=S), {}))
    with pytest.raises(Refusal, match="leads nowhere"):
        jsons.parse({"$ref": "other.json"}, {})


BAD: list[object] = [
    5, "x", None, [], {"type": "strin"}, {"type": []}, {"type": 3}, {"type": ["string", 3]}, {"enum": 3},
    {"required": "a"}, {"required": [1]}, {"properties": []}, {"properties": {"a": 3}}, {"items": 3},
    {"items": [3]}, {"anyOf": {}}, {"allOf": [3]}, {"minimum": "1"}, {"minimum": True}, {"multipleOf": 0},
    {"$ref": 3}, {"$ref": "#/nowhere"}, {"$ref": "elsewhere"}, {"not": []}, {"additionalProperties": "no"},
    {"$defs": {"a": []}}, {"prefixItems": {}},
]  # fmt: skip


@pytest.mark.parametrize("document", BAD, ids=str)
def test_what_is_no_schema_is_refused(document: object) -> None:
    with pytest.raises(Refusal) as refused:
        jsons.parse(document, {})
    assert 42201 == refused.value.error_code


def test_alternatives_in_alternatives_end_in_a_refusal() -> None:
    def deep(leaf: object) -> jsons.Schema:
        levels: dict[str, object] = {"a0": leaf, "b0": {**S, "enum": ["x"], "title": leaf}}
        for depth in range(1, 31):
            below = [{"$ref": f"#/$defs/{name}{depth - 1}"} for name in "ab"]
            levels |= {f"{name}{depth}": {"anyOf": below, "title": name} for name in "ab"}
        return jsons.parse({"$ref": "#/$defs/a30", "$defs": levels}, {})

    with pytest.raises(Refusal, match="steps"):
        jsons.problems(deep(S), deep(INT))


# -- beside a validator -----------------------------------------------------------------------------------

LEAF = st.sampled_from(
    [S, INT, N, {}, {"type": "null"}, {"enum": [1, "x"]}, {"type": ["string", "null"]}, {"minimum": 1}]
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    made = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2)},
        optional={
            "additionalProperties": st.one_of(st.booleans(), inner),
            "required": st.lists(st.sampled_from("ab"), max_size=1),
        },
    )
    listed = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        made,
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        listed.map(lambda parts: {"anyOf": parts}),
        listed.map(lambda parts: {"allOf": parts}),
    )


SCHEMA = st.recursive(LEAF, objects, max_leaves=4)
VALUE = st.recursive(
    st.sampled_from([None, 0, 1, 2.5, "x", "", True]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMA, SCHEMA, st.lists(VALUE, min_size=5, max_size=20))
def test_what_fitted_the_old_schema_fits_one_that_may_follow(new: Any, old: Any, found: list[Any]) -> None:
    if not fits(copy.deepcopy(new), old):
        return
    before, after = jsonschema_rs.validator_for(old), jsonschema_rs.validator_for(new)
    for value in found:
        assert after.is_valid(value) or not before.is_valid(value), value
