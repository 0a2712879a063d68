"""What the tests of schemas share."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pyarrow as pa

from headwater.log.state import Schema
from headwater.schemas.compile import compile_schema, definition_text


def version(format: str, definition: Any, number: int = 1) -> Schema:  # noqa: A002
    """A version of a topic's schema, as the fold would keep it."""
    return Schema(number, number, format, definition_text(format, definition), compile_schema(format, definition))  # type: ignore[arg-type]


def record(*fields: tuple[str, Any], name: str = "R") -> dict[str, Any]:
    """An Avro record of these fields."""
    return {"type": "record", "name": name, "fields": [{"name": each, "type": kind} for each, kind in fields]}


def datum(definition: Any, row: dict[str, Any]) -> bytes:
    """A row as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(definition), row)
    return out.getvalue()


def binary(*values: bytes | None) -> pa.Array[Any]:
    """Values as a column."""
    return pa.array(values, pa.binary())
