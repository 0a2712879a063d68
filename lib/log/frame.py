r"""The framing that every object shares: one JSON line, then raw bytes.

    {"crc":"9d0e2f31","base":     128,"size":        4224,"v":1,"kind":"manifest", …}␠␠␠\n
    <payload: bytes [base, size) of the object>

The line begins with three fields of fixed width, so that they can be filled in last: the CRC32C of
everything behind the ``crc`` field up to the line's end, the position where the payload starts (a
multiple of 64, as Arrow likes it; blanks fill the gap) and the object's whole size. ``head -1 | jq``
reads any object by hand; a flipped or missing byte never goes unnoticed in the line, and the
payload's chunks carry CRCs of their own.
"""

from __future__ import annotations

import re
from typing import Final

import google_crc32c

from headwater.errors import Corrupt
from headwater.limits import HEADER_BYTES_MAX, OBJECT_BYTES_MAX, PAYLOAD_ALIGN
from headwater.types import Buffer

_PREFIX: Final = re.compile(rb'\{"crc":"([0-9a-f]{8})","base":([ 0-9]{10}),"size":([ 0-9]{12}),')
PREFIX_BYTES: Final = len(b'{"crc":"00000000","base":0000000000,"size":000000000000,')
_CRC_END: Final = len(b'{"crc":"00000000"')
CHECKED_AT_ONCE: Final = 1 << 18  # bytes


def payload_base(header_json: bytes) -> int:
    """Where the payload will start behind this header, a JSON object of at least one field."""
    line_bytes = PREFIX_BYTES + len(header_json)  # less "{", plus "\n"
    return -(-line_bytes // PAYLOAD_ALIGN) * PAYLOAD_ALIGN


def encode(header_json: bytes, payload_bytes: int, base: int | None = None) -> bytes:
    """The line in front of a payload of ``payload_bytes``. ``base`` may be larger than needed (blanks fill it).

    A caller that must know positions before it can write the header reserves a ``base`` first.
    """
    least = payload_base(header_json)
    base = least if base is None else base
    assert base >= least, "the header outgrew the place kept for it"
    assert base % PAYLOAD_ALIGN == 0, "payloads are aligned"
    assert base <= HEADER_BYTES_MAX, "a header larger than its bound could never be read again"
    assert base + payload_bytes <= OBJECT_BYTES_MAX, "an object larger than its bound must never be built"
    rest = b',"base":%10d,"size":%12d,' % (base, base + payload_bytes) + header_json[1:]
    rest = rest.ljust(base - _CRC_END - 1) + b"\n"
    return b'{"crc":"%08x"' % google_crc32c.value(rest) + rest


def header_bytes(data: Buffer) -> int:
    """How many bytes the line has, read from its first ``PREFIX_BYTES``. Raises ``Corrupt``."""
    return _prefix(data)[1]


def decode(data: bytes, *, whole: bool = True) -> tuple[bytes, int]:
    """The header of an object as JSON (less the three fixed fields) and the position of its payload.

    With ``whole`` the object's size must be that of ``data``; without it ``data`` may be the object's
    beginning, as long as the line is complete.

    Raises:
        Corrupt: anything at all is wrong with the line; never another error.
    """
    crc, base, size = _prefix(data)
    if whole and size != len(data):
        raise Corrupt(f"The object has {len(data)} bytes and says that it has {size}: it was cut or padded.")
    if base > len(data):
        raise Corrupt(f"The header needs {base} bytes and only {len(data)} are there.")
    rest = data[_CRC_END:base]
    if rest[-1] != 0x0A or google_crc32c.value(rest) != crc:
        raise Corrupt("The header line fails its CRC32C: a byte of it was changed.")
    return b"{" + data[PREFIX_BYTES:base], base


def checksum(data: Buffer, crc: int = 0) -> int:
    """CRC32C (Castagnoli, RFC 3720), at memory speed; ``crc`` is that of what lies before ``data``."""
    if isinstance(data, bytes):
        return int(google_crc32c.extend(crc, data))
    # It takes bytes alone: a copy of a part stays in the cache, one of 64 MiB takes ten times as long as the sum.
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHECKED_AT_ONCE):
        crc = google_crc32c.extend(crc, bytes(view[start : start + CHECKED_AT_ONCE]))
    return int(crc)


def _prefix(data: Buffer) -> tuple[int, int, int]:
    match = _PREFIX.match(bytes(data[:PREFIX_BYTES]))
    if match is None:
        raise Corrupt("The object does not begin with a Headwater header line.")
    try:
        base, size = int(match[2]), int(match[3])
    except ValueError:
        raise Corrupt("The header line has no readable base and size.") from None
    if not PREFIX_BYTES < base <= min(size, HEADER_BYTES_MAX) or size > OBJECT_BYTES_MAX:
        raise Corrupt(f"The header line claims an impossible base of {base} or size of {size} bytes.")
    return int(match[1], 16), base, size
