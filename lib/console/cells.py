"""Keys, values and headers for people: JSON as JSON, text as text, anything else as hexadecimal, all of it cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from headwater.limits import CONSOLE_CELL_BYTES

LINE_MAX = 1_000  # characters of JSON that are shown as they come, wrapped; longer ones are indented
Kind = Literal["null", "json", "avro", "protobuf", "arrow", "text", "hex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """``text`` is for showing, ``nbytes`` what there is of it in all; ``cut`` if that is more.

    ``by`` says which schema it was decoded by, ``note`` why it could not be.
    """

    kind: Kind
    text: str
    nbytes: int
    cut: bool
    by: str = ""
    note: str = ""


def cell(data: bytes | None, *, as_: str = "auto", limit: int = CONSOLE_CELL_BYTES) -> Cell:
    """What to show of ``data``. ``as_`` is ``auto``, ``text`` or ``hex``."""
    if data is None:
        return Cell(kind="null", text="null", nbytes=0, cut=False)
    head, cut = data[:limit], len(data) > limit
    if as_ == "auto" and not cut and (shown := _json(data)) is not None:
        return Cell(kind="json", text=shown, nbytes=len(data), cut=False)
    if as_ != "hex" and (text := _text(head, forced=as_ == "text")) is not None:
        return Cell(kind="text", text=text, nbytes=len(data), cut=cut)
    return Cell(kind="hex", text=head[: limit // 4].hex(" ", -4), nbytes=len(data), cut=len(data) > limit // 4)


def _json(data: bytes) -> str | None:
    if data[:1] not in (b"{", b"["):
        return None
    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    line = orjson.dumps(found).decode()
    return line if len(line) <= LINE_MAX else orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()


def _text(head: bytes, *, forced: bool) -> str | None:
    if forced:
        return head.decode("utf-8", "replace")
    for cut in range(4):  # the limit may lie inside a character
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return text if all(char.isprintable() or char in "\t\r\n" for char in text) else None
    return None
