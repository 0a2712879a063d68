"""Requests from bytes and answers to bytes: Kafka's message protocol (KIP-482 for its flexible versions).

request   length 4 │ api 2 │ version 2 │ correlation 4 │ client id │ tags │ message
answer    length 4 │ correlation 4 │ tags │ message
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import Final

from headwater.kafka import compiled, schema
from headwater.kafka.compiled import Decoder, Encoder, Malformed
from headwater.kafka.messages import Fields, Request
from headwater.types import Buffer

__all__ = ["Malformed", "answer", "peek", "prepare", "request"]

_HEAD: Final = struct.Struct(">hhih")  # api, version, correlation, length of the client id
_FRAME: Final = struct.Struct(">ii")


def peek(frame: memoryview) -> tuple[int, int, int]:
    """API, version and correlation id of a request. Raises ``Malformed``."""
    if len(frame) < _HEAD.size:
        raise Malformed(f"A request has at least {_HEAD.size} bytes; this one has {len(frame)}.")
    api, version, correlation, _ = _HEAD.unpack_from(frame)
    return api, version, correlation


def request(frame: memoryview) -> Request:
    """The request in a frame without its length. Bytes and records are slices of the frame.

    Raises:
        Malformed: the bytes are no request of the API and version that they name.
        KeyError: there is no such API or version.
    """
    api, version, correlation = peek(frame)
    decode, is_flexible = _decoder(api, version)
    end, at = len(frame), _HEAD.size
    (size,) = struct.unpack_from(">h", frame, at - 2)
    client = ""
    if size > 0:
        try:
            client = str(compiled.part(frame, at, size, end), "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("The client id is no UTF-8.") from error
        at += size
    if is_flexible:
        try:
            _, at = compiled.tags(frame, at, end)
        except IndexError as error:
            raise Malformed("The request ends in its header.") from error
    # Bytes behind the message are left alone, as Kafka does: librdkafka 2.x asks for all topics with 3 of them.
    fields, _ = decode(frame, at, end)
    return Request(api=api, version=version, correlation=correlation, client=client, fields=fields)


def answer(api: int, version: int, correlation: int, fields: Fields) -> list[Buffer]:
    """The answer's frame as buffers to be written one after another; records are not copied."""
    encode, has_tags = _encoder(api, version)
    out: list[Buffer] = [b"", b"\x00"] if has_tags else [b""]
    encode(fields, out)
    out[0] = _FRAME.pack(4 + sum(map(len, out)), correlation)
    return out


def prepare(apis: Iterable[int]) -> None:
    """Compile the codecs of these APIs in the newest versions now, not while a client waits.

    Cost: about 0.1 s for each, nearly all of it the import of kio's modules, which also serve the older versions.
    """
    for api in apis:
        newest = schema.versions(api)[1]
        _decoder(api, newest)
        _encoder(api, newest)


@cache
def _decoder(api: int, version: int) -> tuple[Decoder, bool]:
    found = schema.message(api, version, "request")
    return compiled.decoder(found, api), schema.header_has_tags(api, version, "request")


@cache
def _encoder(api: int, version: int) -> tuple[Encoder, bool]:
    found = schema.message(api, version, "response")
    return compiled.encoder(found), schema.header_has_tags(api, version, "response")
