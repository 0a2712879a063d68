r"""How a record is printed: values a line each, JSON lines, or a format like kcat's ``-f``.

%t topic   %p partition   %o offset   %T timestamp (ms)   %k key   %s value
%K length of the key, %S of the value (-1: null)   %h headers as a=b,c=d   %% a percent sign
\n \r \t \\ \0 \xHH   as in C
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.types import PlacedRecord

Render = Callable[[str, int, "pa.RecordBatch"], bytes]

_TOKEN = re.compile(r"%(.)|\\(x[0-9A-Fa-f]{2}|.)|([^%\\]+)", re.DOTALL)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", "0": b"\0"}


def values(topic: str, partition: int, placed: pa.RecordBatch) -> bytes:
    """Values, each on a line; a tombstone is an empty line."""
    return b"".join([b"%b\n" % (value or b"") for value in placed.column("value").to_pylist()])


def json_lines(encoding: str) -> Render:
    """``{"topic", "partition", "offset", "timestamp", "key", "value", "headers"}`` a line.

    Bytes are strings if they are UTF-8; otherwise, or with ``encoding`` base64, they are base64 and a field
    ``key_encoding`` or ``value_encoding`` says so. ``headwater produce --envelope`` reads these lines.
    """

    def render(topic: str, partition: int, placed: pa.RecordBatch) -> bytes:
        from headwater.log.batch import records_of

        return b"".join(
            [
                orjson.dumps(as_dict(record, encoding), option=orjson.OPT_APPEND_NEWLINE)
                for record in records_of(topic, partition, placed)
            ]
        )

    return render


def as_dict(record: PlacedRecord, encoding: str = "utf8") -> dict[str, Any]:
    """The record as plain data."""
    found: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
    }
    for name, data in (("key", record.key), ("value", record.value)):
        text = _text(data) if encoding == "utf8" else None
        if data is not None and text is None:
            found[name], found[f"{name}_encoding"] = base64.b64encode(data).decode(), "base64"
        else:
            found[name] = text
    found["headers"] = [
        [name, None if data is None else data.decode("utf-8", "replace")] for name, data in record.headers
    ]
    return found


def kcat(template: str) -> Render:
    """Records by a format like kcat's. Raises ``click.BadParameter`` for an unknown token."""
    parts = [_part(match) for match in _TOKEN.finditer(template)]
    if sum(len(match[0]) for match in _TOKEN.finditer(template)) != len(template):
        raise click.BadParameter(f"the format {template!r} ends in the middle of a token")

    def render(topic: str, partition: int, placed: pa.RecordBatch) -> bytes:
        from headwater.log.batch import records_of

        return b"".join(
            [
                part if isinstance(part, bytes) else part(record)
                for record in records_of(topic, partition, placed)
                for part in parts
            ]
        )

    return render


def _part(match: re.Match[str]) -> bytes | Callable[[PlacedRecord], bytes]:
    token, escape, text = match.groups()
    if text is not None:
        return text.encode()
    if token == "%":
        return b"%"
    if token is not None:
        if token not in _TOKENS:
            raise click.BadParameter(
                f"%{token} is unknown; there are {' '.join('%' + name for name in _TOKENS)} and %%"
            )
        return _TOKENS[token]
    if escape[0] == "x" and len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _ESCAPES:
        raise click.BadParameter(rf"\{escape} is unknown; there are \n \r \t \\ \0 and \xHH")
    return _ESCAPES[escape]


def _headers(record: PlacedRecord) -> bytes:
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in record.headers)


def _length(data: bytes | None) -> bytes:
    return b"%d" % (-1 if data is None else len(data))


_TOKENS: dict[str, Callable[[PlacedRecord], bytes]] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "T": lambda record: b"%d" % record.timestamp,
    "k": lambda record: record.key or b"",
    "s": lambda record: record.value or b"",
    "K": lambda record: _length(record.key),
    "S": lambda record: _length(record.value),
    "h": _headers,
}


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
