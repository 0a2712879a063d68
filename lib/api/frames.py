"""Many batches in one HTTP body: the media type ``application/vnd.headwater.batches``.

    length of the header 4 (big-endian) | header, a JSON object | the batches' bytes, back to back

The header's ``batches`` is a list with an entry for each batch: its place, its codec, how many bytes it takes
(``len``), and what is known of it. Other fields of the header belong to the route. Nothing lies between or behind
the batches, so a frame that was cut or padded is noticed. What a header says of a batch (counts, times) is a
claim; ``media.checked`` holds it against the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from headwater.errors import InvalidRequest
from headwater.limits import FRAME_HEADER_BYTES_MAX, INTENT_APPENDS_MAX
from headwater.log.chunk import Chunk
from headwater.log.reader import Fetched
from headwater.types import Batch, Buffer, Codec

T = TypeVar("T")

MEDIA_TYPE = "application/vnd.headwater.batches"

Placed: TypeAlias = tuple[str, int, Batch]  # topic, partition, batch

_Whole: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
_OrNone: TypeAlias = Annotated[int, Meta(ge=-1, le=2**62)]
_LENGTH_BYTES = 4


class Entry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One batch in a frame. ``base`` is its first offset, where it has a place; -1 stands for "none" or "not known"."""

    topic: Annotated[str, Meta(min_length=1, max_length=249)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    codec: Codec
    count: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    len: Annotated[int, Meta(ge=1, le=2**40)]
    timestamp_min: Annotated[int, Meta(ge=-(2**62), le=2**62)] = -1
    timestamp_max: Annotated[int, Meta(ge=-(2**62), le=2**62)] = -1
    producer_id: _OrNone = -1
    producer_epoch: Annotated[int, Meta(ge=-1, le=2**15 - 1)] = -1
    sequence: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = -1
    crc: Annotated[int, Meta(ge=-1, le=2**32 - 1)] = -1
    base: _OrNone = -1
    upto: _OrNone = -1  # of a batch that was read: compaction left gaps, see ``Chunk.upto``


class _Tail(Struct, frozen=True, kw_only=True):
    next_offset: _Whole
    log_start: _Whole
    high_watermark: _Whole
    stable_end: _Whole
    commit: _Whole


# -- the frame itself ----------------------------------------------------------------------------


def encode(header: Mapping[str, object], parts: Iterable[Buffer]) -> bytes:
    """A frame. ``header["batches"]`` has an entry with ``len`` for each of ``parts``. Cost: one copy."""
    line = msgspec.json.encode(header)
    assert len(line) <= FRAME_HEADER_BYTES_MAX, "a header larger than its bound could never be read again"
    return b"".join((len(line).to_bytes(_LENGTH_BYTES, "big"), line, *parts))


def decode(body: Buffer) -> tuple[dict[str, Any], list[memoryview]]:
    """The header, and the bytes of each batch as views of ``body``.

    Raises:
        InvalidRequest: the bytes are no frame; nothing else is raised, whatever they are.
    """
    view = memoryview(body)
    header, rest = _header(view)
    lengths = _lengths(header)
    if sum(lengths) != len(rest):
        raise InvalidRequest(f"The frame's batches take {sum(lengths)} bytes by its header, and it holds {len(rest)}.")
    parts, start = [], 0
    for length in lengths:
        parts.append(rest[start : start + length])
        start += length
    return header, parts


# -- batches to write ----------------------------------------------------------------------------


def pack(batches: Sequence[Placed], more: Mapping[str, object] | None = None) -> bytes:
    """A frame of ``batches``, with ``more`` beside them in the header."""
    entries = [_entry(topic, partition, batch) for topic, partition, batch in batches]
    return encode({**(more or {}), "batches": entries}, [batch.data for _, _, batch in batches])


def unpack(body: Buffer) -> tuple[dict[str, Any], list[Placed]]:
    """The header without ``batches``, and the batches as the frame claims them to be.

    Raises:
        InvalidRequest: the bytes are no frame, or an entry has an unknown, missing or senseless field.

    Cost: one copy of the batches.
    """
    header, parts = decode(body)
    entries = _entries(header.pop("batches"))
    return header, [_placed(entry, part) for entry, part in zip(entries, parts, strict=True)]


# -- batches that were read ------------------------------------------------------------------------


def pack_fetched(fetched: Fetched) -> bytes:
    """What a fetch found, as a frame: every chunk with its place, and where to go on. Cost: one copy."""
    header = {
        "batches": [_chunk_entry(chunk) for chunk in fetched.chunks],
        "next_offset": fetched.next_offset,
        "log_start": fetched.log_start,
        "high_watermark": fetched.high_watermark,
        "stable_end": fetched.stable_end,
        "commit": fetched.commit,
    }
    return encode(header, [chunk.data for chunk in fetched.chunks])


def unpack_fetched(body: Buffer) -> Fetched:
    """The inverse of ``pack_fetched``. Raises ``InvalidRequest``. Cost: one copy."""
    header, parts = decode(body)
    entries = _entries(header["batches"])
    tail = _convert(header, _Tail)
    return Fetched(
        chunks=[_chunk(entry, part) for entry, part in zip(entries, parts, strict=True)],
        next_offset=tail.next_offset,
        log_start=tail.log_start,
        high_watermark=tail.high_watermark,
        stable_end=tail.stable_end,
        commit=tail.commit,
    )


# -- parts -----------------------------------------------------------------------------------------


def _header(view: memoryview) -> tuple[dict[str, Any], memoryview]:
    if len(view) < _LENGTH_BYTES:
        raise InvalidRequest(
            f"A frame begins with the four bytes of its header's length, and this one has {len(view)}."
        )
    end = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "big")
    if end - _LENGTH_BYTES > FRAME_HEADER_BYTES_MAX or end > len(view):
        raise InvalidRequest(f"The frame claims a header of {end - _LENGTH_BYTES} bytes in {len(view)}.")
    try:
        header = msgspec.json.decode(view[_LENGTH_BYTES:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The frame's header is no JSON: {error}.") from error
    if not isinstance(header, dict) or not isinstance(header.get("batches"), list):
        raise InvalidRequest("The frame's header is no JSON object with a list `batches`.")
    return header, view[end:]


def _lengths(header: dict[str, Any]) -> list[int]:
    if len(header["batches"]) > INTENT_APPENDS_MAX:
        raise InvalidRequest(f"A frame takes at most {INTENT_APPENDS_MAX} batches.")
    lengths: list[int] = []
    for place, entry in enumerate(header["batches"]):
        length = entry.get("len") if isinstance(entry, dict) else None
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise InvalidRequest(f"Batch {place} of the frame has no `len`.")
        lengths.append(length)
    return lengths


def _entries(plain: object) -> list[Entry]:
    return _convert(plain, list[Entry])


def _convert(plain: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The frame's header does not fit: {error}.") from error


def _entry(topic: str, partition: int, batch: Batch) -> Entry:
    return Entry(
        topic=topic,
        partition=partition,
        codec=batch.codec,
        count=batch.count,
        len=len(batch.data),
        timestamp_min=batch.timestamp_min,
        timestamp_max=batch.timestamp_max,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        sequence=batch.sequence,
        crc=batch.crc,
    )


def _placed(entry: Entry, part: memoryview) -> Placed:
    batch = Batch(
        codec=entry.codec,
        data=bytes(part),
        count=entry.count,
        timestamp_min=entry.timestamp_min,
        timestamp_max=entry.timestamp_max,
        producer_id=entry.producer_id,
        producer_epoch=entry.producer_epoch,
        sequence=entry.sequence,
        crc=entry.crc,
    )
    return entry.topic, entry.partition, batch


def _chunk_entry(chunk: Chunk) -> Entry:
    return Entry(
        topic=chunk.topic,
        partition=chunk.partition,
        codec=chunk.codec,
        count=chunk.count,
        len=len(chunk.data),
        timestamp_min=chunk.timestamp_min,
        timestamp_max=chunk.timestamp_max,
        base=chunk.base,
        upto=chunk.upto,
    )


def _chunk(entry: Entry, part: memoryview) -> Chunk:
    if entry.base < 0:
        raise InvalidRequest("A batch that was read has no `base`.")
    if 0 <= entry.upto < entry.base + entry.count:
        raise InvalidRequest(f"{entry.count} records from {entry.base} on cannot end at {entry.upto}.")
    return Chunk(
        topic=entry.topic,
        partition=entry.partition,
        base=entry.base,
        count=entry.count,
        codec=entry.codec,
        data=bytes(part),
        timestamp_min=entry.timestamp_min,
        timestamp_max=entry.timestamp_max,
        upto=entry.upto,
    )
