"""Bytes on their way into an object: chunks with positions that are known only when the header is.

A ``Piece`` is an intent whose inline chunks count positions from 0 of the piece's own bytes. Assembling
puts pieces one behind another, learns how long the header will be, and gives every chunk its absolute
position. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import structs

from headwater.limits import OBJECT_BYTES_MAX
from headwater.log import frame
from headwater.log.intents import Intent, Manifest, SegmentHeader
from headwater.types import Buffer

H = TypeVar("H", Manifest, SegmentHeader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An intent and the bytes of its inline chunks, in order; chunks with an ``obj`` have none here.

    ``tip`` is set when the intent is sent again under an old identity: then it keeps the tip that it had.
    """

    intent: Intent
    parts: Sequence[Buffer] = ()
    size: int = 0
    header_bytes: int = 0  # what the intent adds to a manifest's line, about
    tip: int | None = None


def assemble(
    pieces: Sequence[Piece],
    tip: int,
    build: Callable[[list[Intent]], H],
    encode: Callable[[H, int, int], bytes],
    *,
    after: str = "",
) -> tuple[H, list[Buffer], int]:
    """The header that ``build`` makes of the pieces' intents, the object's bytes in parts, and its size.

    ``tip``, the newest manifest that their writer knows now, is written into every intent that has none yet, and
    ``after``, the intent that they come after, into all of them.
    """
    payload_bytes = sum([piece.size for piece in pieces])
    # Positions have at most as many digits as the largest object; so this header is at least as long as the real one.
    header = build(_placed(pieces, tip, OBJECT_BYTES_MAX, after))
    base = frame.payload_base(msgspec.json.encode(header))
    if payload_bytes:
        header = build(_placed(pieces, tip, base, after))
    parts: list[Buffer] = [encode(header, payload_bytes, base)]
    for piece in pieces:
        parts.extend(piece.parts)
    return header, parts, base + payload_bytes


def _placed(pieces: Sequence[Piece], tip: int, base: int, after: str) -> list[Intent]:
    intents, pos = [], base
    for piece in pieces:
        appends = []
        for chunk in piece.intent.appends:
            if chunk.obj:
                appends.append(chunk)
                continue
            appends.append(structs.replace(chunk, pos=pos))
            pos += chunk.len
        own_tip = tip if piece.tip is None else piece.tip
        intents.append(structs.replace(piece.intent, tip=own_tip, appends=appends, after=after))
    return intents
