"""Configs of topics and of the namespace: their names, defaults and values. Pure.

The state keeps configs as strings, as Kafka does; here is what they mean. Names and meanings are Kafka's where Kafka
has them. One default differs: ``retention.ms`` is -1, for ever, since storage in a bucket costs little and
records that are gone cost a lot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headwater.errors import InvalidRequest
from headwater.limits import BATCH_BYTES_MAX

DAY_MS: Final = 86_400_000
FOREVER: Final = -1
_NUMBER_MAX: Final = 2**63 - 1  # what Kafka's tools write for never


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """What a topic's configs say. Times in ms, sizes in stored bytes of one partition; -1 is "no bound"."""

    retention_ms: int = FOREVER
    retention_bytes: int = FOREVER
    delete: bool = True  # cleanup.policy: old records go by retention
    compact: bool = False  # cleanup.policy: the latest record of each key stays
    delete_retention_ms: int = DAY_MS  # tombstones are kept so long after compaction first went over them
    min_compaction_lag_ms: int = 0  # younger records are left alone
    max_compaction_lag_ms: int = _NUMBER_MAX  # older records are compacted, however few they are
    min_cleanable_dirty_ratio: float = 0.5  # else this part of a partition's bytes must be new
    max_message_bytes: int = BATCH_BYTES_MAX  # a batch as Kafka's producers send it; the gateway refuses larger ones
    archive: bool = True  # archive.enable
    archive_ms: int = 6 * 3_600_000  # a chunk waits for the archive at most so long …
    archive_bytes: int = 64 << 20  # … or until so many bytes of its partition wait

    @property
    def archive_within_ms(self) -> int:
        """How long a chunk may wait: what is to be compacted within some time has to be in the archive by then."""
        return min(self.archive_ms, self.max_compaction_lag_ms) if self.compact else self.archive_ms

    @classmethod
    def of(cls, configs: Mapping[str, str]) -> TopicConfig:
        """What the state's ``configs`` mean. Unknown names mean nothing to this version, senseless values the default:
        they were checked when they were set, and whoever keeps house must not stop at one.
        """
        values: dict[str, object] = {}
        for name, value in configs.items():
            try:
                values |= _parsed(name, value)
            except InvalidRequest:
                continue
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceConfig:
    """What the namespace's configs say."""

    history_retention_ms: int = DAY_MS  # how far back "as of" reaches; -1 is for ever. Never less than a day.

    @classmethod
    def of(cls, configs: Mapping[str, str]) -> NamespaceConfig:
        try:
            kept = _number(HISTORY, configs.get(HISTORY, str(DAY_MS)))
        except InvalidRequest:
            kept = DAY_MS
        return cls(history_retention_ms=kept if kept == FOREVER else max(kept, DAY_MS))


HISTORY: Final = "history.retention.ms"
MAX_MESSAGE_BYTES: Final = "max.message.bytes"

_NUMBERS: Final = {
    "retention.ms": "retention_ms",
    "retention.bytes": "retention_bytes",
    "delete.retention.ms": "delete_retention_ms",
    "min.compaction.lag.ms": "min_compaction_lag_ms",
    "max.compaction.lag.ms": "max_compaction_lag_ms",
    MAX_MESSAGE_BYTES: "max_message_bytes",
    "archive.ms": "archive_ms",
    "archive.bytes": "archive_bytes",
}
_FROM_ZERO: Final = {
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    MAX_MESSAGE_BYTES,
    "archive.ms",
    "archive.bytes",
}
_AT_MOST: Final = {MAX_MESSAGE_BYTES: BATCH_BYTES_MAX}  # what no batch may exceed anyway


def check_topic_config(name: str, value: str) -> None:
    """Refuse a senseless value of a config that we act on; others are kept as they are. Raises ``InvalidRequest``."""
    _parsed(name, value)


def check_namespace_config(name: str, value: str) -> None:
    """Refuse what the namespace has no use for. Raises ``InvalidRequest``."""
    if name != HISTORY:
        raise InvalidRequest(f"A namespace has the config {HISTORY!r}, and none called {name[:80]!r}.")
    kept = _number(name, value)
    if kept != FOREVER and kept < DAY_MS:
        raise InvalidRequest(f"{name} is -1 (for ever) or at least {DAY_MS} ms, a day, not {kept}.")


def _parsed(name: str, value: str) -> dict[str, object]:
    if name in _NUMBERS:
        return {_NUMBERS[name]: _number(name, value)}
    if name == "cleanup.policy":
        words = {word.strip() for word in value.split(",")} if value else set()  # nothing ever goes (KIP-1161)
        if not words <= {"delete", "compact"}:
            raise InvalidRequest(f"cleanup.policy is delete, compact, compact,delete or empty, not {value[:80]!r}.")
        return {"delete": "delete" in words, "compact": "compact" in words}
    if name == "archive.enable":
        if value not in ("true", "false"):
            raise InvalidRequest(f"archive.enable is true or false, not {value[:80]!r}.")
        return {"archive": value == "true"}
    if name == "min.cleanable.dirty.ratio":
        try:
            ratio = float(value)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise InvalidRequest(f"min.cleanable.dirty.ratio is a number from 0 to 1, not {value[:80]!r}.")
        return {"min_cleanable_dirty_ratio": ratio}
    return {}


def _number(name: str, value: str) -> int:
    least = 0 if name in _FROM_ZERO else FOREVER
    number = int(value) if value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() else least - 1
    if not least <= number <= _AT_MOST.get(name, _NUMBER_MAX):
        most = f"to {_AT_MOST[name]}" if name in _AT_MOST else "on"
        raise InvalidRequest(f"{name} is a whole number from {least} {most}, not {value[:80]!r}.")
    return number
