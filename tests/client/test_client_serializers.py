from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from headwater.client.serializers import ARROW, BYTES, JSON, STRING, deserializer, plain, serializer
from headwater.errors import InvalidRequest


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "ä"]}, 5, "text", [], True])
def test_json_comes_back(value: Any) -> None:
    assert value == JSON.deserialize(JSON.serialize(value) or b"")


def test_text_and_bytes_come_back() -> None:
    assert "ä" == STRING.deserialize(STRING.serialize("ä") or b"")
    assert b"\xff" == BYTES.deserialize(BYTES.serialize(b"\xff") or b"")


def test_arrow_comes_back() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert table.equals(ARROW.deserialize(ARROW.serialize(table) or b""))


def test_plain_takes_bytes_and_text_and_nothing_else() -> None:
    assert [b"a", b"a", b"a", b"a", None] == [
        plain(each) for each in ("a", b"a", bytearray(b"a"), memoryview(b"a"), None)
    ]
    with pytest.raises(InvalidRequest):
        plain(5)


def test_they_are_named_by_text_by_pair_or_given_as_functions() -> None:
    assert serializer("json") is serializer(JSON) is JSON.serialize
    assert deserializer("json") is deserializer(JSON) is JSON.deserialize
    assert str.encode is serializer(str.encode)
    assert bytes.decode is deserializer(bytes.decode)
    assert plain is serializer(None) is serializer("bytes")
    assert None is deserializer(None) is deserializer("bytes")
    with pytest.raises(InvalidRequest):
        serializer("yaml")
    with pytest.raises(InvalidRequest):
        deserializer("yaml")
