"""Topics whose schema is bound to a registry: frames with its ids, and values that name no version."""

from __future__ import annotations

import pyarrow as pa
import pytest

from headwater.errors import InvalidRequest
from headwater.log.state import Schema
from headwater.schemas import framing, rows
from headwater.schemas.compile import compile_schema
from headwater.schemas.typed import check, typed

A = '{"name": "a", "type": "string"}'
B = '{"name": "b", "type": ["null", "int"], "default": null}'
AVRO = [f'{{"type": "record", "name": "r", "fields": [{fields}]}}' for fields in (A, f"{A}, {B}")]
OPTIONAL = '"b": {"type": ["integer", "null"]}'
JSON = [
    f'{{"type": "object", "properties": {{"a": {{"type": "string"}}{more}}}, "required": ["a"]}}'
    for more in ("", f", {OPTIONAL}")
]


def versions(kind: str, texts: list[str], ids: tuple[int, ...] = (7, 70_000)) -> list[Schema]:
    made = []
    for number, (text, each) in enumerate(zip(texts, ids, strict=False), start=1):
        bound = framing.bind(text, each)
        columns = compile_schema(kind, bound)
        made.append(Schema(version=number, seq=1, format=kind, definition=bound, columns=columns))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(("kind", "texts"), [("avro", AVRO), ("json", JSON)])
def test_values_are_framed_with_the_id_and_read_by_its_version(kind: str, texts: list[str]) -> None:
    old, new = known = versions(kind, texts)
    first, second = rows.encode_row(old, {"a": "x"}), rows.encode_row(new, {"a": "y", "b": 3})
    assert (b"\0\0\0\0\7", b"\0\0\1\x11p") == (first[:5], second[:5])
    assert {"a": "x", "b": None} == rows.decode_value(known, first)
    assert {"a": "y", "b": 3} == rows.decode_value(known, second)
    check(known, [first, None, second])
    made = typed(known, pa.array([first, None, second], pa.binary()))
    assert {"a": ["x", None, "y"], "b": [None, None, 3]} == made.to_pydict()
    table = rows.encode_table(
        new, pa.table({"a": ["z"], "b": pa.array([4], pa.int64() if kind == "json" else pa.int32())})
    )
    assert {"a": "z", "b": 4} == rows.decode_value(known, table[0].as_py())


@pytest.mark.parametrize(("kind", "texts"), [("avro", AVRO), ("json", JSON)])
def test_what_names_no_version_is_let_in_and_has_no_columns(kind: str, texts: list[str]) -> None:
    known = versions(kind, texts)
    others = [b"", b"\0", b"\0\0\0\0", b"plain text", b"\0\0\0\0\x09what", b"\0\xff\xff\xff\xff", b'{"a": "x"}']
    check(known, others)
    made = typed(known, pa.array(others, pa.binary()))
    assert {"a": [None] * 7, "b": [None] * 7} == made.to_pydict()
    with pytest.raises(InvalidRequest):
        rows.decode_value(known, b"\0\0\0\0\x09what")


@pytest.mark.parametrize(("kind", "texts"), [("avro", AVRO), ("json", JSON)])
def test_a_value_that_names_a_version_must_fit_it(kind: str, texts: list[str]) -> None:
    known = versions(kind, texts)
    good = rows.encode_row(known[0], {"a": "x"})
    for bad in (good[:5], good + b"!", b"\0\0\0\0\7{}"):
        with pytest.raises(InvalidRequest) as refused:
            check(known, [good, b"other", bad])
        assert 2 == refused.value.data["row"]
    assert [None, "x"] == typed(known, pa.array([good[:5], good], pa.binary())).to_pydict()["a"]


def test_a_definition_is_bound_by_a_member_that_means_nothing_else() -> None:
    bound = framing.bind(AVRO[0], 7)
    (version,) = versions("avro", [bound], (8,))
    assert 8 == framing.id_of(version)
    assert compile_schema("avro", AVRO[0]) == version.columns
    for wrong in ("0", "-1", "true", '"7"', "2147483648"):
        text = bound.replace('"registry.id":7', f'"registry.id":{wrong}')
        assert 0 == framing.id_of(Schema(version=1, seq=1, format="avro", definition=text, columns=[]))
