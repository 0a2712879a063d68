"""Keys, timestamps and whole records out of JSON and text."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa

from headwater.cli.times import parse_time
from headwater.errors import InvalidRequest
from headwater.log.batch import RECORD_SCHEMA

Place = Callable[[int], int]  # row of a block -> its line

_FIELDS: list[pa.Field[Any]] = [
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),
    pa.field("timestamp", pa.int64()),
    RECORD_SCHEMA.field("headers"),
]
ENVELOPE_SCHEMA = pa.schema(_FIELDS)
_ENVELOPE = {"key", "value", "timestamp", "headers", "key_encoding", "value_encoding", "topic", "partition", "offset"}


class JsonFields:
    """Takes the key and the timestamp out of JSON lines, and sees to it that each line is one JSON value."""

    def __init__(self, key_field: str | None, timestamp_field: str | None) -> None:
        self.key_field = key_field
        self.timestamp_field = timestamp_field
        kinds: list[tuple[pa.DataType, pa.DataType]] = [
            (key, time) for key in (pa.string(), pa.int64()) for time in (pa.int64(), pa.string())
        ]
        self._schemas = [self._schema(*pair) for pair in kinds]

    def parse(self, data: bytes, lines: Any, place: Place) -> dict[str, Any]:
        """The columns ``key`` and ``timestamp``, as far as asked for, of ``lines``, which are those of ``data``."""
        table = self._read(data, len(lines))
        if table is None:
            return self._one_by_one(lines, place)
        columns: dict[str, Any] = {}
        if self.key_field:
            columns["key"] = table.column(self.key_field).cast(pa.string())
        if self.timestamp_field:
            column = table.column(self.timestamp_field)
            columns["timestamp"] = times_of(column, place) if pa.types.is_string(column.type) else column
        return columns

    def _schema(self, key: pa.DataType, time: pa.DataType) -> pa.Schema:
        wanted: dict[str, pa.DataType] = {}
        if self.key_field:
            wanted[self.key_field] = key
        if self.timestamp_field:
            wanted[self.timestamp_field] = time
        return pa.schema(list(wanted.items()))

    def _read(self, data: bytes, count: int) -> pa.Table | None:
        import pyarrow.json as pj

        for schema in list(self._schemas):
            try:
                table: pa.Table = pj.read_json(
                    io.BytesIO(data),
                    read_options=pj.ReadOptions(use_threads=False, block_size=max(len(data), 1)),
                    parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
                )
            except pa.ArrowException:
                continue
            # What fitted this block will most likely fit the next one.
            self._schemas.remove(schema)
            self._schemas.insert(0, schema)
            # Two values on one line would shift all keys behind them.
            return table if table.num_rows == count else None
        return None

    def _one_by_one(self, lines: Any, place: Place) -> dict[str, Any]:
        keys, times = [], []
        for row, line in enumerate(lines.to_pylist()):
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise _bad(place(row), f"is no JSON: {error}") from None
            if (self.key_field or self.timestamp_field) and not isinstance(value, dict):
                raise _bad(place(row), "is no JSON object, so it has no fields")
            if self.key_field:
                keys.append(_as_key(value.get(self.key_field), place(row)))
            if self.timestamp_field:
                times.append(as_time(value.get(self.timestamp_field), place(row)))
        columns: dict[str, Any] = {}
        if self.key_field:
            columns["key"] = pa.array(keys, pa.binary())
        if self.timestamp_field:
            columns["timestamp"] = pa.array(times, pa.int64())
        return columns


def envelope(line: bytes, number: int) -> dict[str, Any]:
    """One record from ``{"key", "value", "timestamp", "headers"}``.

    Keys and values are strings (with ``"…_encoding": "base64"`` for bytes), null, or any JSON, which stands for
    its own text. Headers are an object or a list of pairs.
    """
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _bad(number, f"is no JSON: {error}") from None
    if not isinstance(found, dict) or "value" not in found:
        raise _bad(number, 'is no record: write {"value": …}, and "key", "timestamp" and "headers" if you like')
    unknown = sorted(set(found) - _ENVELOPE)
    if unknown:
        raise _bad(number, f"has the unknown field {unknown[0]!r}")
    headers = found.get("headers") or []
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    if not isinstance(pairs, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise _bad(number, "has headers that are neither an object nor a list of pairs")
    return {
        "key": _bytes(found.get("key"), found.get("key_encoding"), number),
        "value": _bytes(found["value"], found.get("value_encoding"), number),
        "timestamp": as_time(found.get("timestamp"), number),
        "headers": [{"key": str(name), "value": _bytes(value, None, number)} for name, value in pairs],
    }


def times_of(column: Any, place: Place) -> Any:
    """Milliseconds from a column of text: all whole numbers in ms, or all ISO 8601 (without a zone: UTC)."""
    for kind in (pa.int64(), pa.timestamp("ms", tz="UTC"), pa.timestamp("ms")):
        try:
            return column.cast(kind).cast(pa.int64())
        except pa.ArrowException:
            continue
    return pa.array([as_time(value, place(row)) for row, value in enumerate(column.to_pylist())], pa.int64())


def as_time(value: object, line: int) -> int | None:
    """Milliseconds from a number or ISO 8601; None stays None."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        found = parse_time(value)
        if found is not None:
            return found
    raise _bad(line, f"has the timestamp {value!r}, which is neither milliseconds since 1970 nor ISO 8601")


def require(names: Sequence[str], *wanted: str | None) -> None:
    """Refuse a field that the header row does not have."""
    for name in wanted:
        if name is not None and name not in names:
            raise InvalidRequest(f"There is no column {name!r}; the header row has {', '.join(map(repr, names))}.")


def _as_key(value: object, line: int) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int | float):  # True and False too: their JSON text
        return orjson.dumps(value)
    raise _bad(line, "has a key that is neither text nor a number")


def _bytes(value: object, encoding: object, line: int) -> bytes | None:
    if value is None:
        return None
    if encoding not in (None, "base64"):
        raise _bad(line, f"has the unknown encoding {encoding!r}; there is only 'base64'")
    if not isinstance(value, str):
        return orjson.dumps(value)
    try:
        return base64.b64decode(value, validate=True) if encoding else value.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _bad(line, f"cannot be decoded: {error}") from None


def _bad(line: int, what: str) -> InvalidRequest:
    from headwater.cli.sources import BadRow

    return BadRow(f"Line {line} {what}.")
