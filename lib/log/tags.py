"""A small intent inside the segment's own key, which spares the combiner a GET.

LIST returns keys, so a segment of one append tells everything about itself in about 70 characters
behind its name: a combiner that lists 70 of them needs no further request before its manifest.
"""

from __future__ import annotations

import base64
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from headwater.errors import Corrupt
from headwater.log.intents import Intent
from headwater.log.operations import (
    Bytes,
    Chunk,
    Crc,
    Epoch,
    IntentId,
    Length,
    Records,
    Sequence,
    Signed,
)
from headwater.log.operations_base import Count, OrNone
from headwater.types import Codec

_TAG_MAX: Final = 150
TIME_MAX: Final = 2**62  # the end of intents.Signed
_CODECS: Final[tuple[Codec, ...]] = ("arrow", "kafka2")


class _Tag(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    id: IntentId
    topic: Count
    partition: Count
    count: Records
    codec: Annotated[int, Meta(ge=0, le=1)]  # position in _CODECS
    pos: Bytes
    len: Length
    crc: Crc
    min: Signed
    span: Count
    pid: OrNone
    epoch: Epoch
    seq: Sequence


_tags = msgspec.msgpack.Decoder(_Tag)


def encode_tag(intent: Intent) -> str:
    """The intent as a few key characters, or "" if it does not fit: one append to its own segment, nothing else."""
    if len(intent.appends) != 1 or intent.ops or intent.after or intent.appends[0].obj:
        return ""
    chunk = intent.appends[0]
    if not 0 <= chunk.max - chunk.min <= TIME_MAX:
        return ""
    tag = _Tag(
        intent.id,
        chunk.topic,
        chunk.partition,
        chunk.count,
        _CODECS.index(chunk.codec),
        chunk.pos,
        chunk.len,
        chunk.crc,
        chunk.min,
        chunk.max - chunk.min,
        chunk.pid,
        chunk.epoch,
        chunk.seq,
    )
    text = base64.urlsafe_b64encode(msgspec.msgpack.encode(tag)).rstrip(b"=").decode()
    return text if len(text) <= _TAG_MAX else ""


def decode_tag(text: str, *, tip: int, key: str) -> Intent:
    """The intent that the key of a segment carries. Raises ``Corrupt``."""
    try:
        tag = _tags.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Corrupt(f"The tag in the key {key[:120]!r} cannot be read: {error}.") from error
    if tag.min + tag.span > TIME_MAX:
        # The manifest that took it in could be read by nobody, not even by its writer.
        raise Corrupt(f"The tag in the key {key[:120]!r} claims a timestamp beyond {TIME_MAX}.")
    chunk = Chunk(
        topic=tag.topic,
        partition=tag.partition,
        count=tag.count,
        codec=_CODECS[tag.codec],
        pos=tag.pos,
        len=tag.len,
        crc=tag.crc,
        min=tag.min,
        max=tag.min + tag.span,
        obj=key,
        pid=tag.pid,
        epoch=tag.epoch,
        seq=tag.seq,
    )
    return Intent(id=tag.id, tip=tip, appends=[chunk])
