"""What names and numbers a group takes, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.errors import InvalidRequest
from headwater.limits import NAME_BYTES_MAX, PATTERN_CHARS_MAX, SESSION_MS_MAX, SESSION_MS_MIN, SUBSCRIBED_MAX
from headwater.log import keys
from headwater.log.state import assignors

PATTERN = "re2:"  # begins a subscription to what a pattern matches; no topic is called so. Edges match it to names
REBALANCE_MS_MAX = 86_400_000  # a member that may sit on a partition for longer than a day holds its group up


def check_name(what: str, name: str, *, empty: bool = False) -> str:
    """A name of 1 to ``NAME_BYTES_MAX`` bytes without control characters. Raises ``InvalidRequest``."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The {what} {name[:40]!r} is no valid Unicode.") from error
    if not (1 - empty) <= size <= NAME_BYTES_MAX:
        raise InvalidRequest(f"A {what} has {1 - empty} to {NAME_BYTES_MAX} bytes; this one has {size}.")
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise InvalidRequest(f"A {what} has no control characters; {name[:40]!r} has some.")
    return name


def check_member(group: str, member: str) -> None:
    """The names of a group and of one of its members. Raises ``InvalidRequest``."""
    check_name("group's name", group)
    check_name("member id", member)


def check_terms(*, session_ms: int, rebalance_ms: int, instance: str, client: str) -> None:
    """On what terms a member joins. Raises ``InvalidRequest``."""
    check_name("instance id", instance, empty=True)
    check_name("client id", client, empty=True)
    if not SESSION_MS_MIN <= session_ms <= SESSION_MS_MAX:
        raise InvalidRequest(f"A session lasts {SESSION_MS_MIN} to {SESSION_MS_MAX} ms, not {session_ms}.")
    if not 1 <= rebalance_ms <= REBALANCE_MS_MAX:
        raise InvalidRequest(f"A rebalance may take 1 to {REBALANCE_MS_MAX} ms, not {rebalance_ms}.")


def check_subscription(topics: Sequence[str], assignor: str) -> None:
    """What a member wants to read, and who is to share it out. Raises ``InvalidRequest``."""
    if len(topics) > SUBSCRIBED_MAX:
        raise InvalidRequest(f"A member subscribes to at most {SUBSCRIBED_MAX} topics, not {len(topics)}.")
    for topic in topics:
        if not topic.startswith(PATTERN):
            keys.check_topic_name(topic)
        elif len(topic) > PATTERN_CHARS_MAX:
            raise InvalidRequest(f"A pattern has at most {PATTERN_CHARS_MAX - len(PATTERN)} characters.")
    if assignor and assignor not in assignors.NAMES:
        raise InvalidRequest(f"The assignors are {', '.join(assignors.NAMES)}; {assignor[:40]!r} is none.")
