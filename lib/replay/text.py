"""Record batches as JSON lines and CSV, whole columns at a time. Pure.

Bytes that are UTF-8 become text. In ``json_lines`` a value that is a JSON object or array is embedded as it is; bytes
that are no UTF-8 are base64, and a field ``<name>_encoding`` says so, as in ``headwater consume --json``. A text never
looks like an embedded document, so nothing is ambiguous.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
from pyarrow import types as kinds

from headwater.errors import InvalidRequest
from headwater.limits import MIB
from headwater.log import rows

STEP_BYTES: Final = 64 * MIB  # of columns that become text at once: what comes out stays below 2 GiB
_DOCUMENT: Final = r"^\s*[{\[]"
_raw_lines = msgspec.json.Decoder(msgspec.Raw)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_FIXED = (kinds.is_boolean, kinds.is_integer, kinds.is_decimal)
_ISO = "%Y-%m-%dT%H:%M:%S"


def json_lines(batch: pa.RecordBatch, documents: Collection[str] = ()) -> Iterator[bytes | memoryview]:
    """A JSON object for each row, a line each; columns in ``documents`` may hold JSON, which is then embedded."""
    for part in _steps(batch):
        parts: list[Any] = []
        before = "{"
        for name, column in zip(part.schema.names, part.columns, strict=True):
            text, encoding = _json_column(name, column, name in documents)
            parts += [f"{before}{json.dumps(name, ensure_ascii=False)}:", text]
            parts += [encoding] if encoding is not None else []
            before = ","
        joined = pc.binary_join_element_wise(*parts, "}\n", "", null_handling="replace", null_replacement="null")
        yield _bytes_of(joined)


def csv_rows(batch: pa.RecordBatch, *, header: bool) -> Iterator[bytes]:
    """The rows as CSV (RFC 4180): null is empty, an empty text ``""``; nested columns are JSON.

    Raises:
        InvalidRequest: a column holds bytes that are no UTF-8; the message names the row.
    """
    for part in _steps(batch) if batch.num_rows else [batch]:
        columns = [_csv_column(part, name) for name in part.schema.names]
        sink = io.BytesIO()
        options = pv.WriteOptions(include_header=header, quoting_style="needed")
        pv.write_csv(pa.RecordBatch.from_arrays(columns, names=part.schema.names), sink, options)
        header = False
        yield sink.getvalue()


def _steps(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    step = max(1, batch.num_rows * STEP_BYTES // max(batch.nbytes, 1))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _json_column(name: str, column: Any, document: bool) -> tuple[Any, Any]:
    """The column as JSON, and what says how its bytes are written, where that differs from row to row."""
    kind = column.type
    if kinds.is_null(kind):
        return "null", None
    if any(check(kind) for check in _FIXED):
        return column.cast(pa.string()), None
    if kinds.is_floating(kind):
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind)).cast(pa.string()), None
    if kinds.is_timestamp(kind):
        return rows.json_strings(_iso(column)), None
    if _is_binary(kind):
        return _json_bytes(name, column, document)
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return rows.json_strings(column.cast(pa.string())), None
    if name == "headers" and kinds.is_list(kind):
        return _headers(column), None
    return _nested(column), None


def _json_bytes(name: str, column: Any, document: bool) -> tuple[Any, Any]:
    try:
        text = column.cast(pa.string())
    except pa.ArrowInvalid:
        return _some_base64(name, column, document)
    return _documents(text) if document else rows.json_strings(text), None


def _some_base64(name: str, column: Any, document: bool) -> tuple[Any, Any]:
    """Rows that are no UTF-8 as base64. They are rare or all, and Arrow has no base64: row by row."""
    values = column.to_pylist()
    texts = [_utf8(value) for value in values]
    lost = [value is not None and text is None for value, text in zip(values, texts, strict=True)]
    coded = [base64.b64encode(value).decode() if bad else None for value, bad in zip(values, lost, strict=True)]
    plain = pa.array(texts, pa.string())
    text = pc.coalesce(
        _documents(plain) if document else rows.json_strings(plain), rows.json_strings(pa.array(coded, pa.string()))
    )
    mark = f',{json.dumps(f"{name}_encoding", ensure_ascii=False)}:"base64"'
    return text, pc.if_else(pa.array(lost), pa.scalar(mark), pa.scalar(""))


def _documents(text: Any) -> Any:
    """Objects and arrays of JSON as they are, on one line; everything else as a JSON string."""
    likely = pc.fill_null(pc.match_substring_regex(text, _DOCUMENT), False)
    if not pc.any(likely).as_py():
        return rows.json_strings(text)
    # Line ends between tokens mean nothing, and a string of JSON has none.
    flat = pc.replace_substring(pc.replace_substring(text, "\n", " "), "\r", " ")
    good = _are_json(flat, likely)
    return flat if pc.all(pc.or_(good, pc.is_null(flat))).as_py() else pc.if_else(good, flat, rows.json_strings(text))


def _are_json(flat: Any, likely: Any) -> Any:
    """Which rows are JSON: of those that are likely all at once, and one by one if one of them is not."""
    chosen = flat.filter(likely)
    try:
        _raw_lines.decode_lines(_bytes_of(pc.binary_join_element_wise(chosen, "\n", "")))
    except msgspec.DecodeError:
        flags = iter([_is_json(value) for value in chosen.to_pylist()])
        return pa.array([wanted and next(flags) for wanted in likely.to_pylist()])
    return likely


def _is_json(text: str) -> bool:
    try:
        _raw_lines.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _headers(column: Any) -> Any:
    if not pc.sum(pc.list_value_length(column)).as_py():
        return "[]"
    return pa.array(
        [
            orjson.dumps([[each["key"], _readable(each["value"])] for each in record or ()]).decode()
            for record in column.to_pylist()
        ]
    )


def _nested(column: Any) -> Any:
    """Lists, structs, dates and the like: one JSON array of all rows, cut at its elements."""
    document = orjson.dumps(column.to_pylist(), default=_plain, option=orjson.OPT_NON_STR_KEYS)
    return pa.array([bytes(raw) for raw in _raw_list.decode(document)], pa.binary()).cast(pa.string())


def _csv_column(part: pa.RecordBatch, name: str) -> Any:
    column = part.column(name)
    kind = column.type
    if _is_binary(kind):
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid:
            row = next(i for i, value in enumerate(column.to_pylist()) if value is not None and _utf8(value) is None)
            raise InvalidRequest(
                f"Column {name!r} of {_where(part, row)} is no UTF-8 text, and CSV has nothing else: write jsonl, "
                "parquet or arrow, or choose other columns.",
                column=name,
            ) from None
    if kinds.is_timestamp(kind):
        return _iso(column)
    if name == "headers" and kinds.is_list(kind):
        text = _headers(column)
        return pa.array([None] * len(column), pa.string()) if isinstance(text, str) else text
    return pc.if_else(pc.is_null(column), None, _nested(column)) if kinds.is_nested(kind) else column


def _where(part: pa.RecordBatch, row: int) -> str:
    names = [name for name in ("partition", "offset") if name in part.schema.names]
    return " ".join(f"{name} {part.column(name)[row].as_py()}" for name in names) or f"row {row}"


def _iso(column: Any) -> Any:
    """Times as RFC 3339, in UTC if they have a zone."""
    zoned = column.type.tz is not None
    instants = column.cast(pa.timestamp(column.type.unit, "UTC")) if zoned else column
    return pc.strftime(instants, format=_ISO + ("Z" if zoned else ""))


def _bytes_of(text: Any) -> memoryview:
    """All strings of an array, one behind the other, without a copy."""
    array = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    buffers = array.buffers()
    if not len(array) or buffers[2] is None:
        return memoryview(b"")
    ends = pa.Array.from_buffers(pa.int32(), len(array) + 1, [None, buffers[1]], offset=array.offset)
    return memoryview(buffers[2])[ends[0].as_py() : ends[-1].as_py()]


def _is_binary(kind: pa.DataType) -> bool:
    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        text = _utf8(value)
        return base64.b64encode(value).decode() if text is None else text
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
