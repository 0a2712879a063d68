"""The refusals of a schema registry, by Confluent's numbers: clients act on ``error_code``, not on text."""

from __future__ import annotations

from typing import Final

from headwater.errors import InvalidRequest
from headwater.limits import REGISTRY_STEPS_MAX

SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
SCHEMA_NOT_FOUND: Final = 40403
SUBJECT_SOFT_DELETED: Final = 40404
SUBJECT_NOT_SOFT_DELETED: Final = 40405
VERSION_SOFT_DELETED: Final = 40406
VERSION_NOT_SOFT_DELETED: Final = 40407
SUBJECT_CONFIG_NOT_FOUND: Final = 40408
SUBJECT_MODE_NOT_FOUND: Final = 40409
INCOMPATIBLE: Final = 409
INVALID_SCHEMA: Final = 42201
INVALID_VERSION: Final = 42202
INVALID_COMPATIBILITY: Final = 42203
INVALID_MODE: Final = 42204
NOT_PERMITTED: Final = 42205
REFERENCE_EXISTS: Final = 42206
INVALID_SUBJECT: Final = 42208


class Refusal(InvalidRequest):
    """The registry says no, by ``error_code``; nothing was done. The first three digits are the HTTP status."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.status = error_code if error_code < 1_000 else error_code // 100


def no_subject(subject: str) -> Refusal:
    """There is no such subject."""
    return Refusal(SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")


def no_version(version: int | str) -> Refusal:
    """The subject has no such version."""
    return Refusal(VERSION_NOT_FOUND, f"Version {version} not found.")


def no_schema(what: str = "Schema") -> Refusal:
    """There is no such schema."""
    return Refusal(SCHEMA_NOT_FOUND, f"{what} not found.")


def invalid_schema(reason: str) -> Refusal:
    """The text is no schema of its type, or one that is too large or refers to nothing."""
    return Refusal(INVALID_SCHEMA, f"Invalid schema: {reason}")


class Steps:
    """A bound on how much one comparison looks at: alternatives in alternatives could ask for any number of looks."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = REGISTRY_STEPS_MAX

    def take(self) -> None:
        """One more. Raises ``Refusal`` 42201 when there were too many."""
        self.left -= 1
        if self.left < 0:
            raise invalid_schema(f"comparing it takes more than {REGISTRY_STEPS_MAX} steps: it has too many unions.")
