"""The state as an object, so that a cold start folds only the tail of the chain.

``snapshot/<seq>`` is a frame whose payload is the state after manifest ``seq`` as JSON; ``latest`` is a
frame without payload that names a snapshot. ``latest`` is written plainly and may therefore be old,
but what it names was stored before it, so it is never wrong. Pure: bytes in, state out.
"""

from __future__ import annotations

import zlib

import msgspec
from msgspec import Struct

from headwater.errors import Corrupt
from headwater.limits import SNAPSHOT_PLAIN_MAX, STATE_BYTES_MAX
from headwater.log import frame
from headwater.log.intents import FORMAT, decode_header, decode_hint, decode_known, encode_hint
from headwater.log.state.model import PageRef, State


class SnapshotHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A snapshot's line. ``pages`` are those of the state: whoever collects pages need not read the rest."""

    v: int
    kind: str
    seq: int
    payload_crc: int
    packed: bool = False  # zlib
    pages: list[PageRef] = []


class Latest(Struct, frozen=True, forbid_unknown_fields=True):
    """A hint: the newest snapshot, as far as its writer knew."""

    v: int
    kind: str
    snapshot: int


_headers = msgspec.json.Decoder(SnapshotHeader)
_states = msgspec.json.Decoder(State)
_latest = msgspec.json.Decoder(Latest)


def encode(state: State) -> bytes:
    """The snapshot of ``state`` as it is now."""
    payload = msgspec.json.encode(state)
    packed = len(payload) > SNAPSHOT_PLAIN_MAX
    if packed:
        payload = zlib.compress(payload, 1)
    header = SnapshotHeader(FORMAT, "snapshot", state.seq, frame.checksum(payload), packed, state.pages)
    return frame.encode(msgspec.json.encode(header), len(payload)) + payload


def decode(data: bytes, seq: int) -> State:
    """The state in the object ``snapshot/<seq>``. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, base = frame.decode(data)
    payload = data[base:]
    header = decode_header(_headers, line, f"snapshot {seq}")
    _check_kind(header, seq)
    if frame.checksum(payload) != header.payload_crc:
        raise Corrupt(f"The payload of snapshot {seq} fails its CRC32C.")
    if header.packed:
        payload = _unpacked(payload, seq)
    state = decode_known(_states, payload, f"state in snapshot {seq}")
    if state.seq != seq:
        raise Corrupt(f"Snapshot {seq} holds the state after manifest {state.seq}.")
    if state.pages != header.pages:
        raise Corrupt(f"The line of snapshot {seq} names other index pages than its state.")
    return state


def header_bytes(data: bytes) -> int:
    """How many bytes the line of a snapshot has, from its beginning. Raises ``Corrupt``."""
    return frame.header_bytes(data)


def pages_named(data: bytes, seq: int) -> list[PageRef]:
    """The index pages that ``snapshot/<seq>`` names; its line is enough. Raises ``Corrupt`` or ``UpgradeRequired``."""
    line, _ = frame.decode(data, whole=False)
    header = decode_header(_headers, line, f"snapshot {seq}")
    _check_kind(header, seq)
    return header.pages


def _check_kind(header: SnapshotHeader, seq: int) -> None:
    if header.kind != "snapshot" or header.seq != seq:
        raise Corrupt(f"The key of snapshot {seq} holds {header.kind} {header.seq}.")


def _unpacked(payload: bytes, seq: int) -> bytes:
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(payload, STATE_BYTES_MAX)
    except zlib.error as error:
        raise Corrupt(f"The payload of snapshot {seq} cannot be unpacked: {error}.") from error
    if not inflater.eof:
        raise Corrupt(f"The payload of snapshot {seq} is cut, or unpacks to more than {STATE_BYTES_MAX} bytes.")
    return plain


def encode_latest(seq: int) -> bytes:
    """The hint that names snapshot ``seq``."""
    return encode_hint(Latest(FORMAT, "latest", seq))


def decode_latest(data: bytes) -> int:
    """The snapshot that the hint names. Raises ``Corrupt`` or ``UpgradeRequired``."""
    latest = decode_hint(_latest, data, "hint 'latest'")
    if latest.kind != "latest" or latest.snapshot < 0:
        raise Corrupt(f"The key of the hint 'latest' holds {latest.kind} {latest.snapshot}.")
    return latest.snapshot
