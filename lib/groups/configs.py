"""Configs of groups: Kafka's names, defaults and bounds (KIP-848, KIP-932, KIP-1240). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.errors import InvalidRequest
from headwater.limits import KAFKA_HEARTBEAT_MS_MIN, SESSION_MS, SHARE_DELIVERIES_MAX
from headwater.log.state import State

BY_DURATION: Final = "by_duration:"
_DURATION = re.compile(r"P(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """One config: a whole number in ``[least, most]`` or one of ``choices``; ``broker`` is Kafka's name for brokers."""

    name: str
    default: str
    doc: str
    least: int = 0
    most: int = 0
    choices: Sequence[str] = ()
    broker: str = ""

    def check(self, value: str) -> None:
        """Refuse a senseless value. Raises ``InvalidRequest``."""
        if self.choices:
            if value not in self.choices and not (self.name == RESET and _is_duration(value)):
                raise InvalidRequest(f"{self.name} is {' or '.join(self.choices)}, not {value[:80]!r}.")
            return
        whole = len(value) <= 10 and value.isascii() and value.isdigit()
        if not whole or not self.least <= int(value) <= self.most:
            raise InvalidRequest(f"{self.name} is a whole number from {self.least} to {self.most}, not {value[:80]!r}.")


HEARTBEAT: Final = "consumer.heartbeat.interval.ms"
SESSION: Final = "consumer.session.timeout.ms"
RESET: Final = "share.auto.offset.reset"
_ALL: Final = (
    GroupConfig(
        name=HEARTBEAT,
        default=str(KAFKA_HEARTBEAT_MS_MIN),
        least=KAFKA_HEARTBEAT_MS_MIN,
        most=15_000,
        broker="group.consumer.heartbeat.interval.ms",
        doc="How often a member says that it lives, and hears of a rebalance; unless set, longer at a busy gateway.",
    ),
    GroupConfig(
        name=SESSION,
        default=str(SESSION_MS),
        least=45_000,
        most=60_000,
        broker="group.consumer.session.timeout.ms",
        doc="After how long a silence a member that joins from now on has left.",
    ),
    GroupConfig(
        name=RESET,
        default="latest",
        choices=("latest", "earliest", "by_duration:PnDTnHnMn.nS"),
        doc="Where a group begins a partition that it has not read before.",
    ),
    GroupConfig(
        name="share.delivery.count.limit",
        default="5",
        least=2,
        most=SHARE_DELIVERIES_MAX,
        broker="group.share.delivery.count.limit",
        doc="How often a record is delivered before it is archived.",
    ),
    GroupConfig(
        name="share.heartbeat.interval.ms",
        default="5000",
        least=5_000,
        most=15_000,
        broker="group.share.heartbeat.interval.ms",
        doc="How often a member says that it lives.",
    ),
    GroupConfig(
        name="share.isolation.level",
        default="read_uncommitted",
        choices=("read_uncommitted", "read_committed"),
        doc="Either reads committed records alone: others are nowhere to be read.",
    ),
    GroupConfig(
        name="share.partition.max.record.locks",
        default="2000",
        least=100,
        most=10_000,
        broker="group.share.partition.max.record.locks",
        doc="Records of one partition that are handed out, or were and came back, at any time.",
    ),
    GroupConfig(
        name="share.record.lock.duration.ms",
        default="30000",
        least=15_000,
        most=60_000,
        broker="group.share.record.lock.duration.ms",
        doc="How long a consumer holds a record that it neither acknowledges nor renews.",
    ),
    GroupConfig(
        name="share.renew.acknowledge.enable",
        default="true",
        choices=("true", "false"),
        doc="Whether a consumer may renew its lock on a record.",
    ),
    GroupConfig(
        name="share.session.timeout.ms",
        default="45000",
        least=45_000,
        most=60_000,
        broker="group.share.session.timeout.ms",
        doc="After how long a silence a member has left.",
    ),
)
CONFIGS: Final[Mapping[str, GroupConfig]] = {config.name: config for config in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareConfig:
    """What holds for one group."""

    reset: str
    deliveries: int
    heartbeat_ms: int
    locks: int
    lock_ms: int
    may_renew: bool
    session_ms: int


def share_config(state: State, group: str) -> ShareConfig:
    """The group's own configs, and defaults for the others."""
    own = state.group_configs.get(group, {})

    def value(name: str) -> str:
        return own.get(name, CONFIGS[name].default)

    return ShareConfig(
        reset=value(RESET),
        deliveries=int(value("share.delivery.count.limit")),
        heartbeat_ms=int(value("share.heartbeat.interval.ms")),
        locks=int(value("share.partition.max.record.locks")),
        lock_ms=int(value("share.record.lock.duration.ms")),
        may_renew=value("share.renew.acknowledge.enable") == "true",
        session_ms=int(value("share.session.timeout.ms")),
    )


def consumer_config(state: State, group: str, name: str) -> int | None:
    """What the group has of ``HEARTBEAT`` or ``SESSION``; None where it has nothing of its own."""
    own = state.group_configs.get(group, {}).get(name)
    return None if own is None else int(own)


def check_group_configs(wanted: Mapping[str, str | None]) -> None:
    """Refuse what no group may have. Raises ``InvalidRequest``."""
    for name, value in wanted.items():
        config = CONFIGS.get(name)
        if config is None:
            raise InvalidRequest(f"Unknown group config name: {name[:80]}")
        if value is not None:
            config.check(value)


def duration_ms(reset: str) -> int | None:
    """How far back ``by_duration:…`` (ISO 8601) begins, in ms; None for the other words."""
    if not reset.startswith(BY_DURATION):
        return None
    found = _DURATION.match(reset.removeprefix(BY_DURATION))
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds = found.groups()
    whole = ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes or 0)) * 60_000
    return whole + round(float(seconds or 0) * 1_000)


def _is_duration(value: str) -> bool:
    return duration_ms(value) is not None
