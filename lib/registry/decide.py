"""What a request does to a registry: a pure decision, made anew when somebody else wrote first.

Each function answers what the client is told and the records that make it true; no records, and nothing changes.
Source: Confluent's Schema Registry API reference, and its error codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from headwater.limits import (
    REGISTRY_BYTES_MAX,
    REGISTRY_REFERENCES_MAX,
    REGISTRY_SUBJECT_MAX,
    REGISTRY_VERSIONS_MAX,
)
from headwater.registry import compatibility, definitions, records, refusal
from headwater.registry.definitions import Definition
from headwater.registry.fold import Registry
from headwater.registry.records import ALL, Level, Mode, Reference, SchemaType, Version
from headwater.registry.refusal import Refusal
from headwater.types import Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[T]):
    """``answer`` holds once ``writes`` are in the log."""

    answer: T
    writes: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A schema as a client sends it; ``version`` is the one that it must become, 0 whichever is next."""

    text: str
    type: SchemaType = "AVRO"
    references: tuple[Reference, ...] = ()
    version: int = 0


# -- reading -------------------------------------------------------------------------------------------------


def version_of(registry: Registry, subject: str, wanted: str, *, deleted: bool = False) -> Version:
    """The version that a path names: a number, ``latest`` or ``-1``. Raises ``Refusal`` 40401, 40402 or 42202."""
    number = number_of(wanted)
    found = registry.versions(subject, deleted=deleted)
    if not found:
        raise refusal.no_subject(subject)
    if number < 0:
        return found[-1]
    for each in found:
        if each.version == number:
            return each
    raise refusal.no_version(number)


def number_of(wanted: str) -> int:
    """A version as a path names it; -1 for the latest. Raises ``Refusal`` 42202."""
    if wanted in ("latest", "-1"):
        return -1
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 10 and int(wanted) > 0):
        raise Refusal(
            refusal.INVALID_VERSION,
            f"The specified version '{wanted[:40]}' is not a valid version id. Allowed values are between "
            '[1, 2^31-1] and the string "latest"',
        )
    return int(wanted)


def lookup(registry: Registry, subject: str, wanted: Wanted, *, deleted: bool = False) -> Version:
    """The version of the subject that says the same. Raises ``Refusal`` 40401, 40403 or 42201."""
    if not registry.versions(subject, deleted=deleted):
        raise refusal.no_subject(subject)
    text = definitions.compact(wanted.type, wanted.text)
    found = _same(registry, subject, definitions.identity(wanted.type, text, wanted.references), deleted)
    if found is None:
        definition_of(registry, wanted.type, text, wanted.references)  # an invalid one is told so
        raise refusal.no_schema()
    return found


def compatible(registry: Registry, subject: str, wanted: Wanted, version: str) -> list[str]:
    """Why the schema cannot follow that version, or with "" those that the level asks for; none: it can."""
    number = number_of(version) if version else 0
    new = definition_of(registry, wanted.type, definitions.compact(wanted.type, wanted.text), wanted.references)
    level, found = registry.level(subject), registry.versions(subject)
    if not number:
        found = list(compatibility.asked(level, found))
    elif number > 0 or found:
        found = [version_of(registry, subject, version)]
    return compatibility.problems(level, new, _defined(registry, found))


def definition_of(registry: Registry, kind: SchemaType, text: str, references: Sequence[Reference]) -> Definition:
    """The definition with all that it refers to. Raises ``Refusal`` 42201, also for a reference to nothing."""
    return definitions.parsed(kind, text, referred(registry, references))


def referred(registry: Registry, references: Sequence[Reference]) -> dict[str, tuple[SchemaType, str]]:
    """What is referred to, type and text by name, innermost first. Raises ``Refusal`` 42201: it is nowhere."""
    return _referred(registry, references, {}, set())


def serialized(registry: Registry, version: Version) -> Version:
    """A Protobuf version with its text as a descriptor in base64, and as it is if it was sent so."""
    from headwater.registry import protobuf, protowire

    if protowire.parse(version.schema) is not None:
        return version
    file = definition_of(registry, version.schema_type, version.schema, version.references).parsed
    return msgspec.structs.replace(version, schema=protobuf.serialized(file))


# -- writing -------------------------------------------------------------------------------------------------


def register(registry: Registry, subject: str, wanted: Wanted) -> Decision[Version]:
    """Make the schema a version of the subject, unless it is one.

    Raises:
        Refusal: 42201, it is no schema; 409, it is incompatible; 42205, the subject is read only; 42202, 42208.
    """
    check_subject(subject)
    text = definitions.compact(wanted.type, wanted.text)
    mark = definitions.identity(wanted.type, text, wanted.references)
    known = _same(registry, subject, mark, deleted=False)
    if known is not None:
        return Decision(answer=known)
    _writable(registry, subject)
    new = definition_of(registry, wanted.type, text, wanted.references)
    versions = registry.versions(subject)
    _check_compatible(registry, subject, new, versions)
    every = registry.versions(subject, deleted=True)
    number = every[-1].version + 1 if every else 1
    if wanted.version > 0 and wanted.version != number:
        raise Refusal(refusal.INVALID_SCHEMA, f"The next version of the subject is {number}, not {wanted.version}.")
    _check_room(registry, text)
    made = Version(
        subject=subject,
        version=number,
        id=registry.id_of(mark) or registry.id_max + 1,
        schema=text,
        schema_type=wanted.type,
        references=wanted.references,
    )
    return Decision(answer=made, writes=(records.schema_record(made),))


def delete_subject(registry: Registry, subject: str, *, permanent: bool) -> Decision[list[int]]:
    """Delete all versions of a subject, softly first and then for good. Raises ``Refusal`` 40401, 40404, 40405 …"""
    every = registry.versions(subject, deleted=True)
    if not every:
        raise refusal.no_subject(subject)
    _writable(registry, subject)
    living = registry.versions(subject)
    if permanent:
        if living:
            raise Refusal(
                refusal.SUBJECT_NOT_SOFT_DELETED,
                f"Subject '{subject}' was not deleted first before being permanently deleted",
            )
        numbers = [each.version for each in every]
        settings = []
        if subject in registry.configs:
            settings.append(records.config_record(subject, None))
        if subject in registry.modes:
            settings.append(records.mode_record(subject, None))
        return Decision(answer=numbers, writes=(*_forget(registry, every), *settings))
    if not living:
        raise Refusal(
            refusal.SUBJECT_SOFT_DELETED,
            f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently",
        )
    for each in living:
        _check_unreferred(registry, each)
    numbers = [each.version for each in living]
    return Decision(answer=numbers, writes=(records.delete_record(subject, numbers[-1]),))


def delete_version(registry: Registry, subject: str, wanted: str, *, permanent: bool) -> Decision[int]:
    """Delete one version, softly first and then for good. Raises ``Refusal`` 40401, 40402, 40406, 40407, 42206 …"""
    found = version_of(registry, subject, wanted, deleted=permanent or number_of(wanted) > 0)
    _writable(registry, subject)
    if permanent:
        if not found.deleted:
            raise Refusal(
                refusal.VERSION_NOT_SOFT_DELETED,
                f"Subject '{subject}' Version {found.version} was not deleted first before being permanently deleted",
            )
        return Decision(answer=found.version, writes=_forget(registry, [found]))
    if found.deleted:
        raise Refusal(
            refusal.VERSION_SOFT_DELETED,
            f"Subject '{subject}' Version {found.version} was soft deleted. Set permanent=true to delete permanently",
        )
    _check_unreferred(registry, found)
    gone = msgspec.structs.replace(found, deleted=True)
    return Decision(answer=found.version, writes=(records.schema_record(gone),))


def set_level(registry: Registry, subject: str, level: str) -> Decision[Level]:
    """Set the compatibility level of a subject, or of ``ALL``. Raises ``Refusal`` 42203, 42205."""
    found = next((each for each in records.LEVELS if each == level.upper()), None)
    if found is None:
        raise Refusal(
            refusal.INVALID_COMPATIBILITY,
            f"Invalid compatibility level. Valid values are {', '.join(records.LEVELS).lower()}",
        )
    if subject != ALL:
        check_subject(subject)
    _writable(registry, subject)
    if registry.configs.get(subject) == found:
        return Decision(answer=found)
    return Decision(answer=found, writes=(records.config_record(subject, found),))


def unset_level(registry: Registry, subject: str) -> Decision[Level]:
    """Take a level back; the answer is what it was. Raises ``Refusal`` 40408 for a subject without one."""
    was = registry.configs.get(subject)
    if was is None and subject != ALL:
        raise no_level(subject)
    _writable(registry, subject)
    return Decision(answer=was or registry.level(ALL), writes=(records.config_record(subject, None),) if was else ())


def set_mode(registry: Registry, subject: str, mode: str) -> Decision[Mode]:
    """Set the mode of a subject, or of ``ALL``. Raises ``Refusal`` 42204."""
    found = next((each for each in records.MODES if each == mode.upper()), None)
    if found is None:
        raise Refusal(refusal.INVALID_MODE, f"Invalid mode. Valid values are {', '.join(records.MODES)}")
    if subject != ALL:
        check_subject(subject)
    if registry.modes.get(subject) == found:
        return Decision(answer=found)
    return Decision(answer=found, writes=(records.mode_record(subject, found),))


def unset_mode(registry: Registry, subject: str) -> Decision[Mode]:
    """Take a mode back; the answer is what it was. Raises ``Refusal`` 40409 for a subject without one."""
    was = registry.modes.get(subject)
    if was is None and subject != ALL:
        raise no_mode(subject)
    return Decision(answer=was or registry.mode(ALL), writes=(records.mode_record(subject, None),) if was else ())


def no_level(subject: str) -> Refusal:
    """The subject has no level of its own."""
    return Refusal(
        refusal.SUBJECT_CONFIG_NOT_FOUND, f"Subject '{subject}' does not have subject-level compatibility configured"
    )


def no_mode(subject: str) -> Refusal:
    """The subject has no mode of its own."""
    return Refusal(refusal.SUBJECT_MODE_NOT_FOUND, f"Subject '{subject}' does not have subject-level mode configured")


# -- parts ---------------------------------------------------------------------------------------------------


def check_subject(subject: str) -> None:
    """Raise ``Refusal`` 42208 for what is no subject's name."""
    if not 1 <= len(subject) <= REGISTRY_SUBJECT_MAX or not subject.isprintable() or subject.startswith(":"):
        raise Refusal(
            refusal.INVALID_SUBJECT,
            f"The specified subject '{subject[:80]}' is not a valid: it has 1 to {REGISTRY_SUBJECT_MAX} printable "
            "characters, and no context.",
        )


def _check_compatible(registry: Registry, subject: str, new: Definition, versions: Sequence[Version]) -> None:
    level = registry.level(subject)
    found = compatibility.problems(level, new, _defined(registry, compatibility.asked(level, versions)))
    if found:
        raise Refusal(
            refusal.INCOMPATIBLE,
            f'Schema being registered is incompatible with an earlier schema for subject "{subject}", details: '
            f"[{'; '.join(found)}; compatibility: '{level}']",
        )


def _check_room(registry: Registry, text: str) -> None:
    if registry.count >= REGISTRY_VERSIONS_MAX or registry.size + len(text) > REGISTRY_BYTES_MAX:
        raise refusal.invalid_schema(
            f"the registry is full: it takes {REGISTRY_VERSIONS_MAX} versions, and {REGISTRY_BYTES_MAX} characters of "
            "them. Delete some permanently."
        )


def _check_unreferred(registry: Registry, version: Version) -> None:
    found = registry.referrers(version.subject, version.version)
    if found:
        raise Refusal(
            refusal.REFERENCE_EXISTS,
            f"One or more references exist to the schema {version.subject}, version {version.version}: ids {found}.",
        )


def _writable(registry: Registry, subject: str) -> None:
    if registry.mode(subject) == "READONLY":
        raise Refusal(refusal.NOT_PERMITTED, f"Subject '{subject}' is in read-only mode")


def _same(registry: Registry, subject: str, mark: bytes, deleted: bool) -> Version | None:
    """The newest version with that identity."""
    number = registry.id_of(mark)
    found = [each for each in registry.with_id(number) if each.subject == subject and (deleted or not each.deleted)]
    return found[-1] if found else None


def _forget(registry: Registry, versions: Sequence[Version]) -> tuple[Record, ...]:
    """Tombstones; and the largest id, which is found nowhere else once they are compacted."""
    return (records.given_record(registry.id_max), *(records.forget_record(each) for each in versions))


def _defined(registry: Registry, versions: Sequence[Version]) -> list[tuple[int, Definition]]:
    return [
        (each.version, definition_of(registry, each.schema_type, each.schema, each.references)) for each in versions
    ]


def _referred(
    registry: Registry,
    references: Sequence[Reference],
    found: dict[str, tuple[SchemaType, str]],
    seen: set[Reference],
) -> dict[str, tuple[SchemaType, str]]:
    """What is referred to, by name, innermost first. A name means what the first reference of that name does."""
    for each in references:
        if each in seen:
            continue
        seen.add(each)
        if len(seen) > REGISTRY_REFERENCES_MAX:
            raise refusal.invalid_schema(f"it refers to more than {REGISTRY_REFERENCES_MAX} schemas.")
        version = registry.subjects.get(each.subject, {}).get(each.version)
        if version is None:
            raise refusal.invalid_schema(
                f"the reference {each.name[:200]!r} names version {each.version} of subject {each.subject[:200]!r}, "
                "which does not exist."
            )
        _referred(registry, version.references, found, seen)
        found.setdefault(each.name, (version.schema_type, version.schema))
    return found
