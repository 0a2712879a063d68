"""Records of the topic ``_schemas``: JSON keys and values as Confluent's own registry writes them.

    key                                                                value
    {"keytype":"SCHEMA","subject":s,"version":v,"magic":1}             the version; null: permanently deleted
    {"keytype":"DELETE_SUBJECT","subject":s,"magic":0}                 versions up to one are softly deleted
    {"keytype":"CONFIG","subject":s,"magic":0}, s null for all         {"compatibilityLevel": …}; null: back to default
    {"keytype":"MODE","subject":s,"magic":0}, s null for all           {"mode": …}; null: back to default
    {"keytype":"NOOP","magic":0}                                       ours: {"id": the largest id that was given}

Compaction keeps the newest record of each key, so a key is encoded in one way only.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from headwater.types import Record

SchemaType = Literal["AVRO", "JSON", "PROTOBUF"]
TYPES: Final[tuple[SchemaType, ...]] = ("JSON", "PROTOBUF", "AVRO")
Level = Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
LEVELS: Final[tuple[Level, ...]] = (
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"
)  # fmt: skip
Mode = Literal["READWRITE", "READONLY"]
MODES: Final[tuple[Mode, ...]] = ("READWRITE", "READONLY")
ALL: Final = ""  # stands for every subject that has no config or mode of its own


class Reference(Struct, frozen=True, forbid_unknown_fields=False):
    """What a schema calls ``name`` is that version of that subject."""

    name: str
    subject: str
    version: int


class Version(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A version of a subject. One ``id`` may have several: it stands for the text and its references."""

    subject: str
    version: int
    id: int
    schema: str
    schema_type: SchemaType = "AVRO"
    references: tuple[Reference, ...] = ()
    deleted: bool = False


class Key(Struct, frozen=True):
    """A key as it is read: ``version`` belongs to SCHEMA alone, ``subject`` to all but NOOP."""

    keytype: str
    subject: str | None = None
    version: int = 0


class Deleted(Struct, frozen=True):
    """The value of DELETE_SUBJECT: versions up to ``version`` were deleted softly."""

    subject: str
    version: int


class Config(Struct, frozen=True, rename="camel"):
    """The value of CONFIG."""

    compatibility_level: Level


class Moded(Struct, frozen=True):
    """The value of MODE."""

    mode: Mode


class Given(Struct, frozen=True):
    """The value of NOOP: no id up to ``id`` is given again, though its schema may be gone for good."""

    id: int


def key_of(data: bytes | None) -> Key | None:
    """The key of a record; None for what no registry wrote, which is passed over."""
    found: Key | None = _decoded(data, Key)
    return found


def value_of(data: bytes | None, kind: type[Any]) -> Any:
    """The value of a record; None for a tombstone, and for what no registry wrote."""
    return _decoded(data, kind)


def schema_record(version: Version) -> Record:
    """Sets a version, or what is known of it."""
    return _record(_schema_key(version.subject, version.version), version)


def forget_record(version: Version) -> Record:
    """Deletes a version for good."""
    return _record(_schema_key(version.subject, version.version), None)


def delete_record(subject: str, version: int) -> Record:
    """Deletes the versions of a subject up to one, softly."""
    return _record({"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}, Deleted(subject, version))


def config_record(subject: str, level: Level | None) -> Record:
    """Sets the compatibility level of a subject, or of ``ALL``."""
    key: dict[str, object] = {"keytype": "CONFIG", "subject": subject or None, "magic": 0}
    return _record(key, Config(level) if level else None)


def mode_record(subject: str, mode: Mode | None) -> Record:
    """Sets the mode of a subject, or of ``ALL``."""
    return _record({"keytype": "MODE", "subject": subject or None, "magic": 0}, Moded(mode) if mode else None)


def given_record(id_max: int) -> Record:
    """Remembers the largest id when its schema is about to be forgotten."""
    return _record({"keytype": "NOOP", "magic": 0}, Given(id_max))


def _schema_key(subject: str, version: int) -> dict[str, object]:
    return {"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1}


def _record(key: dict[str, object], value: object) -> Record:
    return Record(key=msgspec.json.encode(key), value=None if value is None else msgspec.json.encode(value))


def _decoded(data: bytes | None, kind: type[Any]) -> Any:
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
