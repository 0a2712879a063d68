"""Names and numbers at the door of the service: checked before anything is done, so that nothing is half done.

Topics follow Kafka's rule (``headwater.log.keys``). Groups, members, principals and transactional ids may be any text
of bounded length without control characters. ``.`` and ``..`` are refused, since they have a meaning in a path and
none as a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from headwater.api.access import ANYBODY, CLUSTER, ROOT
from headwater.errors import InvalidRequest
from headwater.groups import checks
from headwater.limits import (
    CONFIG_BYTES_MAX,
    CONFIGS_MAX,
    INTENT_APPENDS_MAX,
    INTENT_OPS_MAX,
    METADATA_BYTES_MAX,
    PARTITION_MAX,
    TOPIC_NAME_MAX,
)
from headwater.log import keys
from headwater.log.config import check_namespace_config, check_topic_config
from headwater.log.operations import AclRule

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONFIG = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")
_TOPIC_PART = re.compile(rf"[A-Za-z0-9._-]{{1,{TOPIC_NAME_MAX}}}\Z")
_OPERATIONS = {
    "topic": {"all", "read", "write", "create", "delete", "alter", "describe"},
    "group": {"all", "read", "delete", "describe"},
    "transactional_id": {"all", "write", "describe"},
    "cluster": {"all", "create", "alter", "describe", "cluster_action"},
}
NUMBER_MAX = 2**62  # what the log's own integers can carry


def check_name(what: str, name: str, *, empty: bool = False) -> str:
    """A name as ``groups.checks`` has it, that is no part of a path either. Raises ``InvalidRequest``."""
    if not isinstance(name, str):
        raise InvalidRequest(f"A {what} is text, not {type(name).__name__}.")
    checks.check_name(what, name, empty=empty)
    if name in (".", "..") or _CONTROL.search(name):
        raise InvalidRequest(f"{name[:40]!r} is no {what}: it is a part of a path, or has control characters.")
    return name


def check_topic(name: str) -> str:
    """A topic's name. Raises ``InvalidRequest``."""
    if not isinstance(name, str):
        raise InvalidRequest(f"A topic's name is text, not {type(name).__name__}.")
    return keys.check_topic_name(name)


def check_number(what: str, value: int, least: int = 0, most: int = NUMBER_MAX) -> int:
    """A whole number in ``[least, most]``. Raises ``InvalidRequest``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"The {what} is a whole number, not {str(value)[:40]!r}.")
    if not least <= value <= most:
        raise InvalidRequest(f"The {what} is {least} to {most}, not {str(value)[:40]}.")
    return value


def check_place(topic: str, partition: int) -> tuple[str, int]:
    """A topic's name and a partition's number, which need not exist. Raises ``InvalidRequest``."""
    return check_topic(topic), check_number("partition", partition, 0, PARTITION_MAX - 1)


def check_places(places: Iterable[tuple[str, int]], most: int = INTENT_OPS_MAX) -> None:
    """Partitions, not too many of them. Raises ``InvalidRequest``."""
    for i, (topic, partition) in enumerate(places, 1):
        if i > most:
            raise InvalidRequest(f"One request names at most {most} partitions.")
        check_place(topic, partition)


def check_batches(batches: Sequence[tuple[str, int, object]], *, empty: bool = False) -> None:
    """Where batches are to go. Raises ``InvalidRequest``."""
    if not batches and not empty:
        raise InvalidRequest("There is nothing to append: the request has no batch.")
    if len(batches) > INTENT_APPENDS_MAX:
        raise InvalidRequest(f"One commit takes at most {INTENT_APPENDS_MAX} batches; this one has {len(batches)}.")
    check_places(((topic, partition) for topic, partition, _ in batches), INTENT_APPENDS_MAX)


def check_metadata(metadata: object) -> None:
    """What a client notes beside an offset. Raises ``InvalidRequest``."""
    if not isinstance(metadata, str) or len(metadata.encode(errors="replace")) > METADATA_BYTES_MAX:
        raise InvalidRequest(f"An offset's metadata is text of at most {METADATA_BYTES_MAX} bytes.")


def check_config(config: Mapping[str, str | None], *, unset: bool = False) -> dict[str, str | None]:
    """A topic's configs; ``None`` only where one may be taken back. Raises ``InvalidRequest``."""
    if len(config) > CONFIGS_MAX:
        raise InvalidRequest(f"A topic has at most {CONFIGS_MAX} configs, not {len(config)}.")
    for name, value in config.items():
        if not _CONFIG.match(name):
            raise InvalidRequest(f"{name[:40]!r} is no config: use 1 to 100 of a-z 0-9 . _ -.")
        if not (value is None and unset):
            _check_value(name, value)
            check_topic_config(name, str(value))
    return dict(config)


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value.encode(errors="replace")) > CONFIG_BYTES_MAX:
        raise InvalidRequest(f"The config {name!r} is text of at most {CONFIG_BYTES_MAX} bytes.")


def check_namespace_configs(config: Mapping[str, str | None]) -> dict[str, str | None]:
    """Configs of the namespace; ``None`` takes one back. Raises ``InvalidRequest``."""
    if not config:
        raise InvalidRequest("There is nothing to alter: name at least one config.")
    for name, value in config.items():
        if value is not None:
            _check_value(name, value)
        check_namespace_config(name, "-1" if value is None else value)
    return dict(config)


def check_principal(name: str, *, anybody: bool = False) -> str:
    """Who a rule, a key or a quota is for; ``*`` only where ``anybody`` may be meant. Raises ``InvalidRequest``."""
    if name == ANYBODY and not anybody:
        raise InvalidRequest("'*' stands for every principal and is none itself; name one.")
    return check_name("principal", name)


def check_rule(rule: AclRule) -> AclRule:
    """An access rule that can have an effect. Raises ``InvalidRequest``."""
    check_principal(rule.principal, anybody=True)
    if rule.principal == ROOT:
        raise InvalidRequest(f"No rule binds {ROOT!r}, who holds the bucket; name another principal.")
    if rule.operation not in _OPERATIONS.get(rule.resource, ()):
        known = ", ".join(sorted(_OPERATIONS.get(rule.resource, ())))
        raise InvalidRequest(f"With a {rule.resource} one can {known or 'do nothing'}, not {rule.operation!r}.")
    if rule.pattern not in ("literal", "prefix"):
        raise InvalidRequest(f"A rule's name is meant as literal or prefix, not {str(rule.pattern)[:40]!r}.")
    check_name("name in a rule", rule.name)
    if rule.resource == "cluster" and (rule.name not in (ANYBODY, CLUSTER) or rule.pattern != "literal"):
        raise InvalidRequest(f"There is one cluster: name it {CLUSTER!r} or '*', literally.")
    if rule.resource == "topic" and rule.name != ANYBODY and not _TOPIC_PART.match(rule.name):
        raise InvalidRequest(f"No topic can match {rule.name[:40]!r}.")
    return rule
