"""What writers wish for, as typed data, and its bytes: manifests, published segments, and their tags.

An ``Intent`` is one writer's all-or-nothing wish. It reaches the log inside a ``Manifest``, either put
there by its own writer or, after that writer has published it as a segment, by any other. Chunks and
operations are decoded and checked by msgspec in one pass; what does not fit is ``Corrupt``, and what
only a newer program could have written is ``UpgradeRequired`` (R9), never skipped.
"""

from __future__ import annotations

import random
from binascii import b2a_base64
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from headwater.errors import Corrupt, InvalidRequest, UpgradeRequired
from headwater.limits import (
    INTENT_APPENDS_MAX,
    INTENT_BYTES_MAX,
    INTENT_OPS_MAX,
    MANIFEST_INTENTS_MAX,
)
from headwater.log import frame
from headwater.log.operations import AnyOp, BranchedFrom, Chunk, IntentId
from headwater.log.operations_base import Count, Positive

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
FORMAT: Final = 1  # of manifests and segments; a higher one in the bucket means "upgrade first" (R9)


class Intent(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One all-or-nothing wish. Operations apply before appends, each in order.

    ``tip`` is the newest manifest that its writer knew when it made (or last renewed) the intent: in a
    manifest above ``tip + WINDOW`` the intent is void (R4), and ids are remembered for as long (R3). While the
    intent ``after`` which it comes is not decided, it is void as well: its writer published both at a time.
    """

    id: IntentId
    tip: Count
    appends: Annotated[list[Chunk], Meta(max_length=INTENT_APPENDS_MAX)] = []
    ops: Annotated[list[AnyOp], Meta(max_length=INTENT_OPS_MAX)] = []
    after: IntentId = ""


class Manifest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Commit number ``seq``: the ordered intents that it makes true.

    ``id`` is unique to this very PUT (R2: equal bodies would have equal ETags). ``time`` is the larger
    of the writer's clock and the predecessor's time, in ms (R7). ``merged`` names the published
    segments whose intents were taken in.
    """

    v: Positive
    kind: str
    seq: Positive
    id: IntentId
    writer: str
    time: Count
    intents: Annotated[list[Intent], Meta(max_length=MANIFEST_INTENTS_MAX)]
    merged: list[str] = []


class SegmentHeader(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A segment's line. With ``intents`` it is published: anyone may commit them. Without, it is only bytes.

    ``next`` is the key under which its writer publishes what it has next, if that is soon: a GET finds it then, sooner
    than a LIST and at a twelfth of its price.
    """

    v: Positive
    kind: str
    writer: str
    intents: Annotated[list[Intent], Meta(max_length=MANIFEST_INTENTS_MAX)] = []
    next: Annotated[str, Meta(max_length=128)] = ""


class _Versioned(Protocol):
    @property
    def v(self) -> int: ...


_T = TypeVar("_T")
_V = TypeVar("_V", bound=_Versioned)
_encoder = msgspec.json.Encoder()
_intents = msgspec.json.Decoder(Intent)
_manifests = msgspec.json.Decoder(Manifest)
_segments = msgspec.json.Decoder(SegmentHeader)


def check_intent(intent: Intent) -> int:
    """How many bytes the intent's own JSON has, if every process will be able to read it.

    Raises:
        InvalidRequest: a value is out of bounds or of the wrong type, or the intent is too large.

    Cost: an encoding and a decoding, some microseconds for a small intent.
    """
    try:
        encoded = _encoder.encode(intent)
        _intents.decode(encoded)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"The request cannot be stored: {error}.") from error
    if len(encoded) > INTENT_BYTES_MAX:
        raise InvalidRequest(
            f"The request needs {len(encoded)} bytes beside its records; at most {INTENT_BYTES_MAX} fit one commit."
        )
    return len(encoded)


def located(intent: Intent, key: str) -> Intent:
    """The intent as others see it: chunks that ride in the segment named by its key."""
    if all(chunk.obj for chunk in intent.appends):
        return intent
    return structs.replace(
        intent, appends=[chunk if chunk.obj else structs.replace(chunk, obj=key) for chunk in intent.appends]
    )


def header_cost(intents: list[Intent]) -> int:
    """How many bytes the intents add to a manifest's line."""
    return len(_encoder.encode(intents))


def encode_manifest(manifest: Manifest, payload_bytes: int, base: int | None = None) -> bytes:
    """The manifest's line; the payload follows it."""
    return frame.encode(_encoder.encode(manifest), payload_bytes, base)


def decode_manifest(data: bytes, seq: int) -> Manifest:
    """The manifest in ``data``, which was read at slot ``seq``. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, base = frame.decode(data)
    manifest = decode_header(_manifests, line, f"manifest {seq}")
    if manifest.kind != "manifest" or manifest.seq != seq:
        raise Corrupt(f"Slot {seq} holds a {manifest.kind} numbered {manifest.seq}.")
    for intent in manifest.intents:
        for chunk in intent.appends:
            # I2: a manifest never names bytes that are not there.
            if not chunk.obj and (chunk.pos < base or chunk.pos + chunk.len > len(data)):
                raise Corrupt(f"Manifest {seq} names inline bytes [{chunk.pos}, {chunk.pos + chunk.len}) outside.")
    return manifest


def branched_from(data: bytes) -> BranchedFrom | None:
    """What manifest 1 says that its namespace is a branch of. Raises ``Corrupt`` or ``UpgradeRequired``."""
    ops = (op for intent in decode_manifest(data, 1).intents for op in intent.ops)
    return next((op for op in ops if isinstance(op, BranchedFrom)), None)


def encode_segment(header: SegmentHeader, payload_bytes: int, base: int | None = None) -> bytes:
    """The segment's line; the payload follows it."""
    return frame.encode(_encoder.encode(header), payload_bytes, base)


def decode_segment(data: bytes, *, whole: bool = True) -> SegmentHeader:
    """The header of a segment, from all of it or from its beginning. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, _ = frame.decode(data, whole=whole)
    header = decode_header(_segments, line, "segment")
    if header.kind != "segment":
        raise Corrupt(f"A segment's key holds a {header.kind}.")
    return header


def decode_header(decoder: msgspec.json.Decoder[_V], line: bytes, what: str) -> _V:
    """The line of ``what``, an object of a format that we know. Raises ``Corrupt`` or ``UpgradeRequired`` (R9)."""
    decoded = decode_known(decoder, line, what)
    if decoded.v > FORMAT:
        raise UpgradeRequired(f"The {what} has format {decoded.v}; this program knows up to {FORMAT}.")
    return decoded


def encode_hint(hint: Struct) -> bytes:
    """An object that is a line and nothing else."""
    return frame.encode(_encoder.encode(hint), 0)


def decode_hint(decoder: msgspec.json.Decoder[_V], data: bytes, what: str) -> _V:
    """What `encode_hint` has made. Raises ``Corrupt`` or ``UpgradeRequired`` (R9)."""
    line, _ = frame.decode(data)
    return decode_header(decoder, line, what)


# What msgspec says of a field, a tag, an enum's word or an array's element that the types do not have.
_NEWER: Final = ("unknown field", "Invalid value", "Invalid enum value", "`array` of at most length")


def decode_known(decoder: msgspec.json.Decoder[_T] | msgspec.msgpack.Decoder[_T], data: bytes, what: str) -> _T:
    """``data``, whose CRC is right, so that some writer meant it. Raises ``Corrupt`` or ``UpgradeRequired`` (R9)."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        newer = any(sign in str(error) for sign in _NEWER) or _version(data) > FORMAT
        kind = UpgradeRequired if newer else Corrupt
        raise kind(f"The {what} does not fit format {FORMAT}: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"The {what} cannot be read: {error}.") from error


def _version(line: bytes) -> int:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    version = found.get("v") if isinstance(found, dict) else None
    return version if isinstance(version, int) else 0


def new_id(rng: random.Random) -> str:
    """A fresh identity of 72 random bits, 12 characters."""
    return b2a_base64(rng.getrandbits(72).to_bytes(9, "big"), newline=False).translate(_URL_SAFE).decode()
