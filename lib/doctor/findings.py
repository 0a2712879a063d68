"""What a check has found: one sentence that says what is so, and one that says what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from headwater.errors import HeadwaterError

Level: TypeAlias = Literal["ok", "note", "warning", "failure"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``failure``: something does not work, or loses data. ``warning``: it will, or it costs. ``note``: as intended?

    ``do`` is empty only where there is nothing to do.
    """

    area: str
    check: str
    level: Level
    says: str
    do: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level of all; ``ok`` of none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def failed(area: str, check: str, error: HeadwaterError, do: str = "") -> Finding:
    """What an error says, as a finding; ``do`` if there is better advice than the error's own."""
    return Finding(area=area, check=check, level="failure", says=str(error), do=do or error.what_now)
