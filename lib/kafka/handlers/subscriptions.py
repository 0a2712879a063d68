"""What members of the consumer protocol subscribe to: names, and a pattern that the coordinator matches (KIP-848).

The fold knows names alone. So a gateway matches the pattern to the topics that there are whenever the member comes by,
and keeps it beside the names, marked; any other gateway finds it there. What it finds holds at once for all members of
the group that have this pattern: else the first of them to come by would be given all of a new topic, and the others
would take theirs away from it. RE2 takes time in proportion to the names, whatever the pattern. A pattern must match
the whole name, and never matches the service's own topics.

A name that no topic can have is asked for in vain, as in Kafka, and is not kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from kio.schema.errors import ErrorCode

from headwater.api.access import INTERNAL
from headwater.api.messages import HttpError
from headwater.groups.checks import PATTERN
from headwater.kafka.errors import Refusal
from headwater.kafka.model import Fields, Peer
from headwater.limits import KAFKA_PATTERNS_MAX, PATTERN_CHARS_MAX
from headwater.log.keys import is_topic_name
from headwater.log.namespace import Namespace


class _Matches:
    """Topics by pattern, remembered for as long as there are the same topics."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._version = (0, 0)
        self._known: dict[str, list[str]] = {}

    def of(self, pattern: str) -> list[str]:
        """Names that match, in order. Raises ``HttpError``. Cost: nothing, or about 1 µs a topic."""
        from headwater.api.patterns import matching

        state = self._namespace.state
        version = (state.next_topic, len(state.names))  # ids are never used again, so equal means the same topics
        if version != self._version or len(self._known) >= KAFKA_PATTERNS_MAX:
            self._version, self._known = version, {}
        if pattern not in self._known:
            names = (name for name in state.names if not name.startswith(INTERNAL))
            self._known[pattern] = matching(pattern, names)
        return self._known[pattern]


def names_of(topics: Iterable[str]) -> list[str]:
    """The names of a subscription, those that were found by its pattern among them."""
    return [topic for topic in topics if not topic.startswith(PATTERN)]


def pattern_of(topics: Iterable[str]) -> str:
    """The pattern of a subscription; "" if it has none."""
    return next((topic.removeprefix(PATTERN) for topic in topics if topic.startswith(PATTERN)), "")


def possible(names: Iterable[str] | None) -> list[str] | None:
    """The names that a topic can have; None, for what has not changed, stays so."""
    return None if names is None else [name for name in names if is_topic_name(name)]


async def subscription(peer: Peer, asked: Fields, before: Sequence[str] | None) -> list[str] | None:
    """What the member of a heartbeat subscribes to from now on; None if that is what it was (``before``).

    Raises ``Refusal`` for a pattern that is none. Cost: nothing; 1 GET if topics have come or gone.
    """
    names, pattern = possible(asked["subscribed_topic_names"]), asked["subscribed_topic_regex"]
    known = before or ()
    if pattern is None:
        pattern = pattern_of(known)
    if not pattern and names is None and not pattern_of(known):
        return None
    if pattern:
        await _load(peer)
    if asked["subscribed_topic_regex"]:
        _check(pattern)
    found = _all(peer, names, pattern, known)
    if before is not None and pattern and found != list(before):
        # Another gateway may know of topics that we do not know yet: do not take back what it has found.
        await peer.namespace.refresh()
        found = _all(peer, names, pattern, known)
    return found


def companions(peer: Peer, asked: Fields, before: Sequence[str], topics: Sequence[str] | None) -> dict[str, list[str]]:
    """The other members of the group that have the pattern of ``topics``, with what it has found for this one by now.

    As in Kafka, who comes by finds for all, by its own rights, since those of the others are not known here. So
    nothing is taken from them but what is gone; who may not know of what is new drops it when it comes by itself.
    """
    group, pattern = peer.namespace.state.groups.get(asked["group_id"]), pattern_of(topics or ())
    if group is None or not pattern or topics is None or topics == before:
        return {}
    matches = peer.namespace.shared(_Matches)
    there = set(matches.of(pattern))
    new = there.intersection(topics).difference(before)
    found = {}
    for member in group.members.values():
        if member.id != asked["member_id"] and member.topics != topics and pattern_of(member.topics) == pattern:
            theirs = sorted(
                {*_named(matches, member.topics), *there.intersection(member.topics), *new, PATTERN + pattern}
            )
            if theirs != member.topics:
                found[member.id] = theirs
    return found


async def _load(peer: Peer) -> None:
    """RE2 comes with pyarrow, and a gateway should not stand still while that is imported."""
    if peer.namespace.chain.options.threads and "pyarrow.compute" not in sys.modules:
        await asyncio.to_thread(import_module, "pyarrow.compute")


def _check(pattern: str) -> None:
    from headwater.api.patterns import check_pattern

    if len(pattern) + len(PATTERN) > PATTERN_CHARS_MAX:
        message = f"A pattern has at most {PATTERN_CHARS_MAX - len(PATTERN)} characters, not {len(pattern)}."
        raise Refusal(ErrorCode.invalid_regular_expression, message)
    try:
        check_pattern(pattern)
    except HttpError as error:
        raise Refusal(ErrorCode.invalid_regular_expression, error.message) from error


def _all(peer: Peer, names: Sequence[str] | None, pattern: str, known: Sequence[str]) -> list[str]:
    matches = peer.namespace.shared(_Matches)
    if names is None:
        names = _named(matches, known)
    found = set(names)
    if pattern:
        found |= {name for name in matches.of(pattern) if peer.service.may("describe", "topic", name)}
        found.add(PATTERN + pattern)
    return sorted(found)


def _named(matches: _Matches, known: Sequence[str]) -> list[str]:
    """The names of a subscription that its pattern has not found: not even among topics that are gone by now."""
    from headwater.api.patterns import matching

    pattern, names = pattern_of(known), names_of(known)
    if not pattern:
        return names
    there = set(matches.of(pattern))
    gone = [name for name in names if name not in there]
    found = set(matching(pattern, gone)) if gone else set()
    return [name for name in gone if name not in found]
