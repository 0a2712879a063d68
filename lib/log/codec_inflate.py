"""Kafka's compression codecs with a bound on what comes out, since what goes in is not trusted.

gzip, zstd and LZ4 frames and raw Snappy come with pyarrow, so no further package is needed. Java clients
frame Snappy with the Xerial library: a 16-byte header, then blocks of raw Snappy behind their length.
"""

from __future__ import annotations

import struct
from typing import Literal, TypeAlias

import pyarrow as pa

from headwater.errors import Corrupt
from headwater.log.codec_schema import Bytes

Codec: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Writable: TypeAlias = Literal["none", "gzip", "snappy", "zstd"]

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_PIECE_BYTES = 1 << 18


def compress(codec: Writable, data: Bytes) -> bytes:
    """``data`` compressed as Kafka's ``gzip``, ``snappy`` (one raw block) or ``zstd``; ``none`` changes nothing.

    Not ``lz4``: pyarrow links the blocks of a frame, which Java's Kafka clients refuse (KIP-57).
    """
    return bytes(data) if codec == "none" else bytes(pa.Codec(codec).compress(data, asbytes=True))


def decompress(codec: Codec, data: memoryview, bytes_max: int) -> bytes:
    """``data`` decompressed, at most ``bytes_max`` bytes; ``none`` copies it.

    Raises:
        Corrupt: the bytes are not of ``codec``, are cut off, or hold more than ``bytes_max``.
    """
    try:
        if codec == "none":
            return bytes(data)
        if codec == "snappy":
            return _snappy(data, bytes_max)
        return _stream(codec, data, bytes_max)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise Corrupt(f"{len(data)} bytes are not {codec}: {error}.") from error


def _stream(codec: Literal["gzip", "lz4", "zstd"], data: memoryview, bytes_max: int) -> bytes:
    pieces = []
    size = 0
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), codec) as stream:
        while piece := stream.read(_PIECE_BYTES):
            size += len(piece)
            _refuse(size, bytes_max)
            pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _snappy(data: memoryview, bytes_max: int) -> bytes:
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(data, bytes_max)
    blocks = []
    size = 0
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 < length <= len(data) - at:
            raise Corrupt(f"A Snappy block claims {length} bytes of {len(data) - at}.")
        blocks.append(_snappy_block(data[at : at + length], bytes_max - size))
        size += len(blocks[-1])
        at += length
    return b"".join(blocks)


def _snappy_block(data: memoryview, bytes_max: int) -> bytes:
    size = 0
    for shift in range(0, 35, 7):  # a varint of at most 32 bits says how much will come out
        (byte,) = struct.unpack_from("B", data, shift // 7)
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    _refuse(size, bytes_max)
    return bytes(pa.Codec("snappy").decompress(data, decompressed_size=size, asbytes=True))


def _refuse(size: int, bytes_max: int) -> None:
    if size > bytes_max:
        raise Corrupt(f"The batch holds more than {bytes_max} bytes once decompressed.")
