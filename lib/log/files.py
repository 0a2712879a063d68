"""Lists of archive files as objects, so that a partition of a million files keeps a small state.

The state lists a partition's newest files itself. Older ones are moved to a page: an object ``files/…`` that is
written once, named by ``SwapFiles`` in a manifest, and read by whoever looks for an old offset or time. Pure.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Final

import msgspec
from msgspec import Struct

from headwater.errors import Corrupt
from headwater.limits import OBJECT_BYTES_MAX
from headwater.log import frame
from headwater.log.intents import FORMAT, decode_header, decode_known
from headwater.log.operations import File, FilePage

PAGE_FILES: Final = 4_096  # files of one page: about 200 KB, so that a seek reads little


class FilePageHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A page's line; the payload is msgpack of its files, by base offset, packed by zlib."""

    v: int
    kind: str
    files: int


_headers = msgspec.json.Decoder(FilePageHeader)
_files = msgspec.msgpack.Decoder(list[File])


def encode(files: list[File], key: str) -> tuple[FilePage, bytes]:
    """The page of neighbouring files that will lie at ``key``, and its bytes."""
    assert files
    assert all(left.end == right.base for left, right in itertools.pairwise(files)), "files meet end to end"
    payload = zlib.compress(msgspec.msgpack.encode(files), 6)
    line = msgspec.json.encode(FilePageHeader(FORMAT, "files", len(files)))
    data = frame.encode(line, len(payload)) + payload
    page = FilePage(
        base=files[0].base,
        end=files[-1].end,
        count=sum(file.count for file in files),
        key=key,
        bytes=sum(file.bytes for file in files),
        min=min(file.min for file in files),
        max=max(file.max for file in files),
        files=len(files),
        size=len(data),
        crc=frame.checksum(data),
    )
    return page, data


def decode(page: FilePage, data: bytes) -> list[File]:
    """The files that ``page`` lists. Raises ``Corrupt`` or ``UpgradeRequired``."""
    if len(data) != page.size or frame.checksum(data) != page.crc:
        raise Corrupt(f"{page.key!r}, a list of archive files, fails its CRC32C.", key=page.key)
    line, base = frame.decode(data)
    header = decode_header(_headers, line, "list of archive files")
    try:
        raw = zlib.decompressobj().decompress(data[base:], OBJECT_BYTES_MAX)
    except zlib.error as error:
        raise Corrupt(f"{page.key!r} cannot be inflated: {error}.", key=page.key) from error
    files = decode_known(_files, raw, "list of archive files")
    if header.kind != "files" or len(files) != page.files or (files[0].base, files[-1].end) != (page.base, page.end):
        raise Corrupt(f"{page.key!r} does not list the files of [{page.base}, {page.end}).", key=page.key)
    return files
