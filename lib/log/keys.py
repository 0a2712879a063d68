"""Names of objects inside a namespace: encode and parse, one pair for each kind.

    manifest/<seq>                          segment/<tip>-<writer>-<n>[.<tag>]
    snapshot/<seq>                          index/<first>-<last>
    boundary/<seq>                          latest
    lease/<group>/<member>                  consumer/<group>/<instance>

Numbers are 20 digits wide, so that the order of keys is the order of numbers.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
from dataclasses import dataclass
from urllib.parse import quote

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import TOPIC_NAME_MAX

LATEST = "latest"
MANIFESTS = "manifest/"
SEGMENTS = "segment/"
SNAPSHOTS = "snapshot/"
BOUNDARIES = "boundary/"
INDEXES = "index/"
LEASES = "lease/"
CONSUMERS = "consumer/"
DOCUMENTS = ("transaction/", "upload/", CONSUMERS)  # folders of what the layers above keep beside the log
STAGED = "0"  # ends the writer's name in a segment of bytes alone; writers' names are base32, which has no 0

_SEGMENT = re.compile(r"segment/([0-9]{20})-([0-9a-z]{1,32})-([0-9]{1,12})(?:\.([A-Za-z0-9_-]+))?\Z")
_NUMBERED = re.compile(r"[a-z]+/([0-9]{20})\Z")
_INDEX = re.compile(r"index/([0-9]{20})-([0-9]{20})\Z")
_TOPIC = re.compile(r"[A-Za-z0-9._-]+\Z")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_PART_MAX = 200  # bytes of a free name inside a key; two of them and a prefix stay far below a key's 1,024


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """A segment's name, taken apart. ``tip`` is the newest manifest that its writer knew (R4)."""

    tip: int
    writer: str
    number: int
    tag: str

    @property
    def staged(self) -> bool:
        """Whether the segment is bytes for a later intent, and wishes for nothing itself."""
        return self.writer.endswith(STAGED)


def manifest_key(seq: int) -> str:
    """The key of commit number ``seq``."""
    return f"{MANIFESTS}{seq:020d}"


def snapshot_key(seq: int) -> str:
    """The key of the state after manifest ``seq``."""
    return f"{SNAPSHOTS}{seq:020d}"


def boundary_key(seq: int) -> str:
    """The key of the marker that nothing below manifest ``seq`` need exist."""
    return f"{BOUNDARIES}{seq:020d}"


def index_key(first: int, last: int) -> str:
    """The key of the page of what manifests ``[first, last]`` made readable."""
    return f"{INDEXES}{first:020d}-{last:020d}"


def segment_key(tip: int, writer: str, number: int, tag: str = "") -> str:
    """The key of a writer's ``number``-th segment, made at ``tip``; a ``tag`` carries its intent."""
    return f"{SEGMENTS}{tip:020d}-{writer}-{number}{'.' + tag if tag else ''}"


def leases_of(group: str) -> str:
    """The prefix of the leases of a group."""
    return f"{LEASES}{_part(group)}/"


def lease_key(group: str, member: str) -> str:
    """The key of a member's lease. Nobody takes it apart: whoever lists leases knows the members to look for."""
    return leases_of(group) + _part(member)


def consumer_key(group: str, instance: str) -> str:
    """The key of a REST consumer instance's document."""
    return f"{CONSUMERS}{_part(group)}/{_part(instance)}"


def segments_after(tip: int) -> str:
    """The ``start_after`` that lists the segments of ``tip`` and later."""
    return f"{SEGMENTS}{max(tip, 0):020d}"


def parse_segment_key(key: str) -> SegmentKey:
    """Raises ``Corrupt`` for a key that no writer of ours makes."""
    match = _SEGMENT.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} is not the name of a segment.", key=key)
    return SegmentKey(int(match[1]), match[2], int(match[3]), match[4] or "")


def parse_numbered_key(key: str) -> int:
    """The number of a manifest, snapshot or boundary key. Raises ``Corrupt``."""
    match = _NUMBERED.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} does not end in a number of 20 digits.", key=key)
    return int(match[1])


def parse_index_key(key: str) -> tuple[int, int]:
    """The manifests ``[first, last]`` that an index page covers. Raises ``Corrupt``."""
    match = _INDEX.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} is not the name of an index page.", key=key)
    return int(match[1]), int(match[2])


def check_topic_name(name: str) -> str:
    """Kafka's rule for topic names. Raises ``InvalidRequest``."""
    if name in ("", ".", "..") or len(name) > TOPIC_NAME_MAX or not _TOPIC.match(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no topic name: use 1 to {TOPIC_NAME_MAX} of A-Z a-z 0-9 . _ - (but not '.' or '..')."
        )
    return name


def fresh_name(rng: random.Random, bits: int) -> str:
    """A name of so many random bits in base32 (a-z, 2-7), which is good in a key and in a URL."""
    return base64.b32encode(rng.getrandbits(bits).to_bytes(-(-bits // 8), "big")).decode().rstrip("=").lower()


def is_namespace(name: str) -> bool:
    """Whether a namespace may be called so."""
    return _NAMESPACE.match(name) is not None


def check_namespace(name: str) -> str:
    """A namespace is one path part of the bucket. Raises ``InvalidRequest``."""
    if not is_namespace(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no namespace: use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit."
        )
    return name


def _part(name: str) -> str:
    """Any name as one part of a key: no slash, no dots, nothing to escape; a long one ends in its SHA-256."""
    quoted = quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= _PART_MAX:
        return quoted
    return f"{quoted[: _PART_MAX - 65]}~{hashlib.sha256(name.encode()).hexdigest()}"
