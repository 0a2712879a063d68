"""Configs as Kafka's clients know them: which a topic has here, and what a broker answers about itself. Pure.

    acts       Headwater does what it says (``headwater.log.config``)
    no effect  Kafka has it and it means nothing over a bucket: no disk, no replicas, no broker. It can be set, and is
               reported as it was set, so that tools which compare find what they asked for; its documentation says
               that it does nothing
    unknown    refused, as Kafka does: a name that nobody acts on is most often a misspelt one

A value that would change what clients see and cannot be had (``message.timestamp.type=LogAppendTime``) is refused, also
of a config without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.errors import InvalidRequest
from headwater.kafka.messages import Fields
from headwater.limits import BATCH_BYTES_MAX, CONFIG_BYTES_MAX, SESSION_MS_MAX, SESSION_MS_MIN
from headwater.log.config import DAY_MS, HISTORY, TopicConfig, check_topic_config

BOOLEAN: Final = 1  # ids of types and sources as DescribeConfigs has them (KIP-226, KIP-569)
STRING: Final = 2
INT: Final = 3
LONG: Final = 5
DOUBLE: Final = 6
LIST: Final = 7

FROM_TOPIC: Final = 1
FROM_CLUSTER: Final = 3
FROM_BROKER: Final = 4
FROM_DEFAULT: Final = 5
FROM_GROUP: Final = 8

_INT_MAX: Final = 2**31 - 1
_LONG_MAX: Final = 2**63 - 1
_DIGITS_MAX: Final = 20  # of a 64-bit number with its sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One config: its type and default, what it does, and the name of the broker's config that Kafka takes it from."""

    name: str
    type: int
    default: str
    doc: str
    acts: bool = True
    broker: str = ""
    least: int = 0
    choices: Sequence[str] = ()

    def check(self, value: str) -> None:
        """Refuse a senseless value. Raises ``InvalidRequest``."""
        if len(value.encode(errors="replace")) > CONFIG_BYTES_MAX:
            raise InvalidRequest(f"The config {self.name!r} is text of at most {CONFIG_BYTES_MAX} bytes.")
        if self.choices and value not in self.choices:
            raise InvalidRequest(f"{self.name} is {' or '.join(self.choices)} here, not {value[:80]!r}.")
        if self.type in (INT, LONG):
            self._check_number(value)
        if self.acts:
            check_topic_config(self.name, value)

    def _check_number(self, value: str) -> None:
        digits = value.removeprefix("-")
        whole = len(value) <= _DIGITS_MAX and digits.isascii() and digits.isdigit()
        most = _INT_MAX if self.type == INT else _LONG_MAX
        if not whole or not self.least <= int(value) <= most:
            raise InvalidRequest(f"{self.name} is a whole number from {self.least} to {most}, not {value[:80]!r}.")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _acting(name: str, kind: int, default: object, doc: str, broker: str = "", least: int = 0) -> Config:
    return Config(name=name, type=kind, default=_text(default), doc=doc, broker=broker, least=least)


def _idle(
    name: str, kind: int, default: object, why: str, *, broker: str = "", least: int = 0, choices: Sequence[str] = ()
) -> Config:
    doc = f"Has no effect here: {why}"
    if kind == BOOLEAN:
        choices = ("true", "false")
    return Config(
        name=name,
        type=kind,
        default=_text(default),
        doc=doc,
        acts=False,
        broker=broker,
        least=least,
        choices=choices,
    )


_OURS: Final = TopicConfig()
_NO_DISK: Final = "the log lies in a bucket and has no files of this kind."
_NO_REPLICAS: Final = "the bucket keeps what was acknowledged; there are no replicas and no leaders."
_AS_SENT: Final = "batches stay as the producer has compressed them."
_ALL_REMOTE: Final = "the whole log lies in object storage."
_CODECS: Final = ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd")

_ACTING: Final = (
    _acting("cleanup.policy", LIST, "delete", "delete, compact, or both by a comma.", "log.cleanup.policy"),
    _acting("retention.ms", LONG, _OURS.retention_ms, "Age at which records go; -1 is never.", "log.retention.ms", -1),
    _acting(
        "retention.bytes",
        LONG,
        _OURS.retention_bytes,
        "Stored bytes of a partition above which the oldest records go; -1 is no bound.",
        "log.retention.bytes",
        -1,
    ),
    _acting(
        "delete.retention.ms",
        LONG,
        _OURS.delete_retention_ms,
        "How long compaction keeps tombstones.",
        "log.cleaner.delete.retention.ms",
    ),
    _acting(
        "min.compaction.lag.ms",
        LONG,
        _OURS.min_compaction_lag_ms,
        "Younger records are not compacted.",
        "log.cleaner.min.compaction.lag.ms",
    ),
    _acting(
        "max.compaction.lag.ms",
        LONG,
        _OURS.max_compaction_lag_ms,
        "Older records are compacted, however few they are.",
        "log.cleaner.max.compaction.lag.ms",
    ),
    _acting(
        "min.cleanable.dirty.ratio",
        DOUBLE,
        _OURS.min_cleanable_dirty_ratio,
        "Share of a partition's bytes that must be new before it is compacted.",
        "log.cleaner.min.cleanable.ratio",
    ),
    _acting(
        "max.message.bytes",
        INT,
        _OURS.max_message_bytes,
        "Bytes of one record batch as Kafka's producers send it.",
        "message.max.bytes",
    ),
    _acting("archive.enable", BOOLEAN, _OURS.archive, "Whether records move to columnar files (Headwater's own)."),
    _acting("archive.ms", LONG, _OURS.archive_ms, "How long a chunk waits for that at most (Headwater's own)."),
    _acting("archive.bytes", LONG, _OURS.archive_bytes, "Bytes that wait for that at most (Headwater's own)."),
)

_IDLE: Final = (
    _idle("compression.type", STRING, "producer", _AS_SENT, broker="compression.type", choices=_CODECS),
    _idle("compression.gzip.level", INT, -1, _AS_SENT, least=-1),
    _idle("compression.lz4.level", INT, 9, _AS_SENT, least=1),
    _idle("compression.zstd.level", INT, 3, _AS_SENT, least=-_INT_MAX),
    _idle("min.insync.replicas", INT, 1, _NO_REPLICAS, broker="min.insync.replicas", least=1),
    _idle("unclean.leader.election.enable", BOOLEAN, False, _NO_REPLICAS, broker="unclean.leader.election.enable"),
    _idle("leader.replication.throttled.replicas", LIST, "", _NO_REPLICAS),
    _idle("follower.replication.throttled.replicas", LIST, "", _NO_REPLICAS),
    _idle(
        "message.timestamp.type",
        STRING,
        "CreateTime",
        "timestamps stay as the producer has set them.",
        broker="log.message.timestamp.type",
        choices=("CreateTime",),
    ),
    _idle("message.timestamp.before.max.ms", LONG, _LONG_MAX, "timestamps of any age are taken."),
    _idle("message.timestamp.after.max.ms", LONG, _LONG_MAX, "timestamps of any age are taken."),
    _idle("message.timestamp.difference.max.ms", LONG, _LONG_MAX, "timestamps of any age are taken."),
    _idle("message.downconversion.enable", BOOLEAN, False, "clients read batches of format 2."),
    _idle("message.format.version", STRING, "3.0-IV1", "batches have format 2."),
    _idle("segment.bytes", INT, 1 << 30, _NO_DISK, broker="log.segment.bytes", least=14),
    _idle("segment.ms", LONG, 7 * DAY_MS, _NO_DISK, broker="log.roll.ms", least=1),
    _idle("segment.jitter.ms", LONG, 0, _NO_DISK, broker="log.roll.jitter.ms"),
    _idle("segment.index.bytes", INT, 10 << 20, _NO_DISK, broker="log.index.size.max.bytes", least=4),
    _idle("index.interval.bytes", INT, 4_096, _NO_DISK, broker="log.index.interval.bytes"),
    _idle("file.delete.delay.ms", LONG, 60_000, _NO_DISK, broker="log.segment.delete.delay.ms"),
    _idle("flush.messages", LONG, _LONG_MAX, _NO_DISK, broker="log.flush.interval.messages", least=1),
    _idle("flush.ms", LONG, _LONG_MAX, _NO_DISK, broker="log.flush.interval.ms"),
    _idle("preallocate", BOOLEAN, False, _NO_DISK, broker="log.preallocate"),
    _idle("remote.storage.enable", BOOLEAN, False, _ALL_REMOTE),
    _idle("remote.log.copy.disable", BOOLEAN, False, _ALL_REMOTE),
    _idle("remote.log.delete.on.disable", BOOLEAN, False, _ALL_REMOTE),
    _idle("local.retention.ms", LONG, -2, _ALL_REMOTE, broker="log.local.retention.ms", least=-2),
    _idle("local.retention.bytes", LONG, -2, _ALL_REMOTE, broker="log.local.retention.bytes", least=-2),
)

TOPIC: Final[Mapping[str, Config]] = {each.name: each for each in sorted((*_ACTING, *_IDLE), key=lambda c: c.name)}


def _broker(name: str, kind: int, value: object, doc: str) -> Config:
    return Config(name=name, type=kind, default=_text(value), doc=doc, acts=False)


BROKER: Final[Mapping[str, Config]] = {
    each.name: each
    for each in (
        _broker("default.replication.factor", INT, 1, "The bucket keeps what was acknowledged."),
        _broker("delete.topic.enable", BOOLEAN, True, "Topics can be deleted."),
        _broker("group.max.session.timeout.ms", INT, SESSION_MS_MAX, "The longest session of a group's member."),
        _broker("group.min.session.timeout.ms", INT, SESSION_MS_MIN, "The shortest session of a group's member."),
        _broker("log.cleanup.policy", LIST, "delete", "What topics have without one of their own."),
        _broker("log.message.timestamp.type", STRING, "CreateTime", "Timestamps stay as the producer has set them."),
        _broker("log.retention.bytes", LONG, _OURS.retention_bytes, "What topics have without one of their own."),
        _broker("log.retention.ms", LONG, _OURS.retention_ms, "What topics have without one of their own."),
        _broker("message.max.bytes", INT, BATCH_BYTES_MAX, "Bytes of one record batch."),
        _broker("min.insync.replicas", INT, 1, "The bucket keeps what was acknowledged."),
        _broker("offsets.topic.replication.factor", INT, 1, "Offsets lie in the bucket, and in no topic."),
        _broker("transaction.state.log.replication.factor", INT, 1, "Transactions lie in the bucket, in no topic."),
    )
}


def broker_configs(*, node: int, rack: str, listener: str, auto_create: bool, partitions: int) -> list[Config]:
    """What one gateway says of itself: what holds for all of them, and its own settings."""
    own = (
        _broker("advertised.listeners", LIST, listener, "Where clients of this listener find the gateway."),
        _broker("auto.create.topics.enable", BOOLEAN, auto_create, "Whether topics are made that clients ask for."),
        _broker("broker.rack", STRING, rack, "The zone that the gateway runs in."),
        _broker("node.id", INT, node, "What clients call the gateway."),
        _broker("num.partitions", INT, partitions, "What topics have that are created without a number."),
    )
    return sorted((*BROKER.values(), *own), key=lambda config: config.name)


CLUSTER: Final[Mapping[str, Config]] = {
    HISTORY: Config(
        name=HISTORY,
        type=LONG,
        default=str(DAY_MS),
        doc="How far back reading 'as of' reaches; -1 is for ever (Headwater's own, of the whole namespace).",
        least=-1,
    )
}


def find(name: str) -> Config:
    """A topic's config by name. Raises ``InvalidRequest``."""
    found = TOPIC.get(name)
    if found is None:
        raise InvalidRequest(f"Unknown topic config name: {name[:80]}")
    return found


def checked(wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """Configs that a topic may have; None is the default. Raises ``InvalidRequest``."""
    for name, value in wanted.items():
        config = find(name)
        if value is not None:
            config.check(value)
    return dict(wanted)


def added(name: str, present: str | None, more: str) -> str:
    """A list config's value with further words. Raises ``InvalidRequest`` for what is no list."""
    words = _words(name, present)
    return ",".join([*words, *(word for word in _split(more) if word not in words)])


def subtracted(name: str, present: str | None, less: str) -> str:
    """A list config's value without some words. Raises ``InvalidRequest`` for what is no list."""
    gone = set(_split(less))
    return ",".join(word for word in _words(name, present) if word not in gone)


def _words(name: str, present: str | None) -> list[str]:
    config = find(name)
    if config.type != LIST:
        raise InvalidRequest(f"The config {name} is no list: it can be set, not added to or subtracted from.")
    return _split(config.default if present is None else present)


def _split(value: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


def described(config: Config, value: str | None, *, source: int = FROM_TOPIC) -> Fields:
    """One config as answers have it: with its present value, where that comes from, and what stands behind it.

    ``value`` is what was set at ``source``, None if nothing was.
    """
    chain = [{"name": config.broker or config.name, "value": config.default, "source": FROM_DEFAULT}]
    if value is not None:
        chain.insert(0, {"name": config.name, "value": value, "source": source})
    return {
        "name": config.name,
        "value": config.default if value is None else value,
        "read_only": False,
        "is_default": value is None,
        "config_source": chain[0]["source"],
        "is_sensitive": False,
        "synonyms": chain,
        "config_type": config.type,
        "documentation": config.doc,
    }
