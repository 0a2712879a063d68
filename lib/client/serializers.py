"""From a program's values to the bytes of a record, and back.

A serializer is a callable of one value that returns bytes, and a deserializer is one of bytes that returns a value;
``None`` stands for "no key" and "tombstone" and passes neither. ``Serde`` names both at once. The ready ones can be
named by text: ``Producer(url, value_serializer="json")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from headwater.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa


class Serializer(Protocol):
    """Makes bytes of a value. Any exception refuses the record."""

    def __call__(self, value: Any, /) -> bytes | None: ...


class Deserializer(Protocol):
    """Makes a value of bytes. Any exception makes the record ``Undecodable``."""

    def __call__(self, data: bytes, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Serde:
    """Both ways of one format."""

    name: str
    serialize: Serializer
    deserialize: Deserializer


SerializerLike: TypeAlias = str | Serde | Serializer | None
DeserializerLike: TypeAlias = str | Serde | Deserializer | None


def serializer(given: SerializerLike) -> Serializer:
    """The serializer that was asked for; by default bytes, and text as its UTF-8. Raises ``InvalidRequest``."""
    if given is None:
        return plain
    if isinstance(given, str):
        return _named(given).serialize
    return given.serialize if isinstance(given, Serde) else given


def deserializer(given: DeserializerLike) -> Deserializer | None:
    """The deserializer that was asked for; None means bytes as they are. Raises ``InvalidRequest``."""
    if given is None:
        return None
    found: Serde | Deserializer = _named(given) if isinstance(given, str) else given
    if not isinstance(found, Serde):
        return found
    return None if found is BYTES else found.deserialize


def plain(value: Any, /) -> bytes | None:
    """Bytes as they are, and text as UTF-8. Raises ``InvalidRequest`` for anything else."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise InvalidRequest(
        f"A key or value is bytes, text or None, not {type(value).__name__}; name a serializer, such as 'json'."
    )


def _named(name: str) -> Serde:
    found = _SERDES.get(name)
    if found is None:
        raise InvalidRequest(f"The serializers are {', '.join(_SERDES)}; {name[:40]!r} is none of them.")
    return found


def _json_bytes(value: Any, /) -> bytes:
    import orjson

    return orjson.dumps(value)


def _json_value(data: bytes, /) -> Any:
    import orjson

    return orjson.loads(data)


def _text_bytes(value: Any, /) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(f"The string serializer takes text, not {type(value).__name__}.")
    return value.encode()


def _text(data: bytes, /) -> str:
    return data.decode()


def _arrow_bytes(value: pa.Table | pa.RecordBatch, /) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as stream:
        stream.write(value)
    return sink.getvalue().to_pybytes()


def _arrow_table(data: bytes, /) -> pa.Table:
    import pyarrow as pa

    table: pa.Table = pa.ipc.open_stream(data).read_all()
    table.validate(full=True)  # these bytes are a stranger's
    return table


JSON = Serde(name="json", serialize=_json_bytes, deserialize=_json_value)
STRING = Serde(name="string", serialize=_text_bytes, deserialize=_text)
BYTES = Serde(name="bytes", serialize=plain, deserialize=bytes)
ARROW = Serde(name="arrow", serialize=_arrow_bytes, deserialize=_arrow_table)
_SERDES = {serde.name: serde for serde in (JSON, STRING, BYTES, ARROW)}
