"""The registry as its records say: a pure fold, in their order.

A version's latest record and the latest DELETE_SUBJECT of its subject decide together whether it is deleted, by which
of them came later. So compaction, which keeps the latest record of each key at its offset, changes nothing. What no
registry can have written is passed over: anybody who may write to the topic can write anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import structs

from headwater.registry import records
from headwater.registry.definitions import identity
from headwater.registry.records import ALL, Config, Deleted, Given, Level, Mode, Moded, Version
from headwater.types import Record

V = TypeVar("V")


class Registry:
    """Subjects with their versions, also softly deleted ones; levels and modes by subject, ``ALL`` for the rest."""

    __slots__ = ("_known", "configs", "count", "id_max", "ids", "modes", "size", "subjects")

    def __init__(self) -> None:
        self.subjects: dict[str, dict[int, Version]] = {}
        self.configs: dict[str, Level] = {}
        self.modes: dict[str, Mode] = {}
        self.ids: dict[int, set[tuple[str, int]]] = {}
        self.id_max = 0
        self.count = 0  # versions
        self.size = 0  # characters of their schemas
        self._known: dict[bytes, int] = {}  # identity → id

    def apply(self, record: Record) -> None:
        """Take one record in. Cost: 10 us and more for a schema, by its size."""
        key = records.key_of(record.key)
        if key is None:
            return
        subject = key.subject or ALL
        match key.keytype:
            case "SCHEMA" if subject and key.version > 0:
                self._schema(subject, key.version, records.value_of(record.value, Version))
            case "DELETE_SUBJECT" if subject:
                self._deleted(subject, records.value_of(record.value, Deleted))
            case "CONFIG":
                config: Config | None = records.value_of(record.value, Config)
                _set(self.configs, subject, config.compatibility_level if config else None)
            case "MODE":
                moded: Moded | None = records.value_of(record.value, Moded)
                _set(self.modes, subject, moded.mode if moded else None)
            case "NOOP":
                given: Given | None = records.value_of(record.value, Given)
                self.id_max = max(self.id_max, given.id if given else 0)

    # -- questions -------------------------------------------------------------------------------------------

    def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """The versions of a subject, oldest first; with ``deleted`` also softly deleted ones."""
        found = self.subjects.get(subject, {})
        return [found[number] for number in sorted(found) if deleted or not found[number].deleted]

    def with_id(self, number: int) -> list[Version]:
        """Every version that has this id, by subject and version, also softly deleted ones."""
        return [self.subjects[subject][version] for subject, version in sorted(self.ids.get(number, ()))]

    def id_of(self, mark: bytes) -> int:
        """The id of what has this identity; 0 if it has none yet."""
        return self._known.get(mark, 0)

    def level(self, subject: str) -> Level:
        """The compatibility level by which the subject's next version is judged."""
        return self.configs.get(subject) or self.configs.get(ALL) or "BACKWARD"

    def mode(self, subject: str) -> Mode:
        """Whether the subject can be written."""
        return self.modes.get(subject) or self.modes.get(ALL) or "READWRITE"

    def referrers(self, subject: str, version: int) -> list[int]:
        """The ids of schemas, not deleted ones, that refer to this version. Cost: a look at every version."""
        return sorted(
            {
                each.id
                for found in self.subjects.values()
                for each in found.values()
                if not each.deleted
                and any(made.subject == subject and made.version == version for made in each.references)
            }
        )

    # -- parts -----------------------------------------------------------------------------------------------

    def _schema(self, subject: str, number: int, version: Version | None) -> None:
        self._forget(subject, number)
        if version is None or (version.subject, version.version) != (subject, number) or version.id <= 0:
            return
        self.subjects.setdefault(subject, {})[number] = version
        self.ids.setdefault(version.id, set()).add((subject, number))
        self._known.setdefault(identity(version.schema_type, version.schema, version.references), version.id)
        self.id_max = max(self.id_max, version.id)
        self.count += 1
        self.size += len(version.schema)

    def _forget(self, subject: str, number: int) -> None:
        found = self.subjects.get(subject, {})
        gone = found.pop(number, None)
        if gone is None:
            return
        self.count -= 1
        self.size -= len(gone.schema)
        if not found:
            del self.subjects[subject]
        places = self.ids[gone.id]
        places.discard((subject, number))
        if not places:
            del self.ids[gone.id]
            mark = identity(gone.schema_type, gone.schema, gone.references)
            if self._known.get(mark) == gone.id:
                del self._known[mark]

    def _deleted(self, subject: str, until: Deleted | None) -> None:
        if until is None:
            return
        found = self.subjects.get(subject, {})
        for number, version in found.items():
            if number <= until.version and not version.deleted:
                found[number] = structs.replace(version, deleted=True)


def fold(found: Iterable[Record]) -> Registry:
    """The registry that these records make, from the first one on."""
    registry = Registry()
    for record in found:
        registry.apply(record)
    return registry


def plain(registry: Registry) -> Mapping[str, object]:
    """All that a registry knows, as data that can be compared."""
    return {
        "subjects": registry.subjects,
        "configs": registry.configs,
        "modes": registry.modes,
        "id_max": registry.id_max,
    }


def _set(known: dict[str, V], subject: str, value: V | None) -> None:
    if value is None:
        known.pop(subject, None)
    else:
        known[subject] = value
