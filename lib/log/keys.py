"""Names of objects inside a namespace: encode and parse, one pair for each kind.

    manifest/<seq>                          segment/<tip>-<writer>-<n>[.<tag>]
    snapshot/<seq>                          index/<first>-<last>[-<pruned>]
    boundary/<seq>                          latest, collected, maintained, bell
    archive/topic=<t>/partition=<p>/<base>-<end>-<nonce>-<tip>.parquet
    files/<tip>-<topic id>-<partition>-<nonce>
    branch/<seq>-<namespace>
    lease/<group>/<member>                  consumer/<group>/<instance>
    transaction/<id>                        upload/<id>
    deferred/<digest of a producer>

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
COLLECTED = "collected"  # a hint: the boundary up to which everything was swept
MAINTAINED = "maintained"  # a hint: up to when there is nothing to maintain
BELL = "bell"  # a hint: a segment whose writer thinks that nobody looks
ARCHIVE = "archive/"
FILE_PAGES = "files/"
BRANCHES = "branch/"
MANIFESTS = "manifest/"
SEGMENTS = "segment/"
SNAPSHOTS = "snapshot/"
BOUNDARIES = "boundary/"
INDEXES = "index/"
LEASES = "lease/"
CONSUMERS = "consumer/"
DEFERRED = "deferred/"
DOCUMENTS = ("transaction/", "upload/", CONSUMERS, DEFERRED)  # folders of what the layers above keep beside the log
STAGED = "0"  # ends the writer's name in a segment of bytes alone; writers' names are base32, which has no 0

_SEGMENT = re.compile(r"segment/([0-9]{20})-([0-9a-z]{1,32})-([0-9]{1,12})(?:\.([A-Za-z0-9_-]+))?\Z")
_NUMBERED = re.compile(r"[a-z]+/([0-9]{20})\Z")
_INDEX = re.compile(r"index/([0-9]{20})-([0-9]{20})(?:-([0-9]{20}))?\Z")
_ARCHIVE = re.compile(
    r"archive/topic=([A-Za-z0-9._-]+)/partition=([0-9]{1,6})/([0-9]{20})-([0-9]{20})-([a-z2-7]{4,16})-([0-9]{20})\.parquet\Z"
)
_FILE_PAGE = re.compile(r"files/([0-9]{20})-([0-9]{1,19})-([0-9]{1,6})-([a-z2-7]{4,16})\Z")
_BRANCH = re.compile(r"branch/([0-9]{20})-([a-z0-9][a-z0-9._-]{0,62})\Z")
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


def manifest_key(seq: int) -> str:
    """The key of commit number ``seq``."""
    return f"{MANIFESTS}{seq:020d}"


def snapshot_key(seq: int) -> str:
    """The key of the state after manifest ``seq``."""
    return f"{SNAPSHOTS}{seq:020d}"


def boundary_key(seq: int) -> str:
    """The key of the marker that nothing below manifest ``seq`` need exist."""
    return f"{BOUNDARIES}{seq:020d}"


def index_key(first: int, last: int, pruned: int = 0) -> str:
    """The key of the page of what manifests ``[first, last]`` made readable and the state ``pruned`` still needed."""
    return f"{INDEXES}{first:020d}-{last:020d}{f'-{pruned:020d}' if pruned else ''}"


def archive_folder(topic: str, partition: int) -> str:
    """Where a partition's files lie, named as Hive, Spark and DuckDB read it."""
    return f"{ARCHIVE}topic={topic}/partition={partition}/"


def archive_key(topic: str, partition: int, base: int, end: int, tip: int, nonce: str) -> str:
    """The key of a file of the offsets ``[base, end)``, made at ``tip``; the ``nonce`` makes it nobody else's."""
    return f"{archive_folder(topic, partition)}{base:020d}-{end:020d}-{nonce}-{tip:020d}.parquet"


def file_page_key(tip: int, topic: int, partition: int, nonce: str) -> str:
    """The key of a list of files of one partition, made at ``tip``."""
    return f"{FILE_PAGES}{tip:020d}-{topic}-{partition}-{nonce}"


def branch_key(seq: int, namespace: str) -> str:
    """The key that says: ``namespace`` is a branch of this one as of commit ``seq``, and may need its objects."""
    return f"{BRANCHES}{seq:020d}-{namespace}"


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


_WRITER_AT = len(SEGMENTS) + len("00000000000000000000-")  # where a segment's key has its writer


def segment_writer(key: str) -> str:
    """Who has stored the segment, told without taking the rest of its name apart."""
    return key[_WRITER_AT : key.find("-", _WRITER_AT)]


def is_staged(key: str) -> bool:
    """Whether ``key`` names a segment of bytes for a later intent, which wishes for nothing itself, as most are.

    Told without taking the name apart, since a look around goes by a thousand of them.
    """
    end = key.find("-", _WRITER_AT)
    return end > 0 and key[end - 1] == STAGED


def parse_numbered_key(key: str) -> int:
    """The number of a manifest, snapshot or boundary key. Raises ``Corrupt``."""
    match = _NUMBERED.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} does not end in a number of 20 digits.", key=key)
    return int(match[1])


def parse_index_key(key: str) -> tuple[int, int, int]:
    """The manifests ``[first, last]`` that an index page covers, and the state it is pruned by. Raises ``Corrupt``."""
    match = _INDEX.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} is not the name of an index page.", key=key)
    return int(match[1]), int(match[2]), int(match[3] or 0)


def is_index_key(key: str) -> bool:
    """Whether it is the name of an index page."""
    return _INDEX.match(key) is not None


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """A file's name, taken apart. ``tip`` is the newest manifest that its writer knew (R4)."""

    topic: str
    partition: int
    base: int
    end: int
    tip: int


def parse_archive_key(key: str) -> ArchiveKey:
    """Raises ``Corrupt`` for a key that no archiver of ours makes."""
    match = _ARCHIVE.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:200]!r} is not the name of a file of the archive.", key=key)
    return ArchiveKey(match[1], int(match[2]), int(match[3]), int(match[4]), int(match[6]))


def parse_file_page_key(key: str) -> int:
    """The tip at which a list of files was made. Raises ``Corrupt``."""
    match = _FILE_PAGE.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} is not the name of a list of files.", key=key)
    return int(match[1])


def parse_branch_key(key: str) -> tuple[int, str]:
    """The commit and the namespace of a branch. Raises ``Corrupt``."""
    match = _BRANCH.match(key)
    if match is None:
        raise Corrupt(f"The key {key[:120]!r} does not name a branch.", key=key)
    return int(match[1]), match[2]


def age_of(key: str) -> int:
    """The first commit that may need the object: what a branch made later than that shares with its origin.

    Raises:
        Corrupt: the key is none of an object that commits name.
    """
    if key.startswith(SEGMENTS):
        return parse_segment_key(key).tip + 1
    if key.startswith(ARCHIVE):
        return parse_archive_key(key).tip + 1
    if key.startswith(FILE_PAGES):
        return parse_file_page_key(key) + 1
    if key.startswith(INDEXES):
        _, last, pruned = parse_index_key(key)
        return max(last, pruned)
    return parse_numbered_key(key)


def is_topic_name(name: str) -> bool:
    """Whether a topic may be called so."""
    return name not in ("", ".", "..") and len(name) <= TOPIC_NAME_MAX and _TOPIC.match(name) is not None


def check_topic_name(name: str) -> str:
    """Kafka's rule for topic names. Raises ``InvalidRequest``."""
    if not is_topic_name(name):
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
