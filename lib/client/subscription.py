"""What a consumer is to read: topics by name or by pattern, in a group or alone, or partitions that it names itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from headwater.client.records import TopicPartition
from headwater.errors import InvalidRequest

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs


class RebalanceListener:
    """Hears of partitions that come and go. Override what you need; each method may be ``async`` or plain.

    All of them are called inside a poll of the consumer, so nothing that was handed out is still in work. In
    ``on_partitions_revoked`` the partitions are still ours: what was processed can be committed. In
    ``on_partitions_lost`` they are somebody else's already, and a commit would be refused.
    """

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> Any:
        """These are about to be given up. Called before the commit of ``enable_auto_commit``."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> Any:
        """These are ours from now on, and their positions are set. A seek in here is the first thing that counts."""

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> Any:
        """These were taken away while the consumer was silent. By default the same as revoked, as in Kafka."""
        return self.on_partitions_revoked(lost)


async def told(answer: Any) -> None:
    """Wait for a listener's method if it is a coroutine's."""
    if inspect.isawaitable(answer):
        await answer


class Subscription:
    """What was asked for. ``topics`` are those of a pattern as last resolved."""

    def __init__(self) -> None:
        self.topics: tuple[str, ...] = ()
        self.pattern: re.Pattern[str] | None = None
        self.listener = RebalanceListener()
        self.manual: tuple[TopicPartition, ...] | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether partitions are found for us, by the group or by looking at the topics."""
        return self.manual is None and (self.pattern is not None or bool(self.topics))

    def subscribe(
        self, topics: Iterable[str] | str, pattern: str | re.Pattern[str] | None, listener: RebalanceListener | None
    ) -> None:
        """Replace what was asked for before. Raises ``InvalidRequest``."""
        names = (topics,) if isinstance(topics, str) else tuple(dict.fromkeys(topics))
        if bool(names) == (pattern is not None):
            raise InvalidRequest("Subscribe to topics or to a pattern, one of the two.")
        if self.manual is not None:
            raise InvalidRequest("Partitions were assigned by hand; unsubscribe() first.")
        self.topics, self.pattern = names, _compiled(pattern)
        self.listener = listener or RebalanceListener()

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Replace what was assigned by hand before. Raises ``InvalidRequest``."""
        if self.is_automatic:
            raise InvalidRequest("Topics are subscribed to; unsubscribe() first.")
        self.manual = tuple(dict.fromkeys(place(tp) for tp in partitions))

    def clear(self) -> None:
        """Ask for nothing."""
        self.topics, self.pattern, self.manual = (), None, None

    async def resolve(self, verbs: Verbs) -> tuple[str, ...]:
        """The topics by name. Cost: nothing for a list, one request for a pattern."""
        if self.pattern is not None:
            pattern = self.pattern
            self.topics = tuple(sorted(info.name for info in await verbs.topics() if pattern.match(info.name)))
        return self.topics


def place(tp: Any) -> TopicPartition:
    """A partition as ``TopicPartition``. Raises ``InvalidRequest``."""
    if isinstance(tp, TopicPartition):
        return tp
    if not (isinstance(tp, tuple) and len(tp) == 2 and isinstance(tp[0], str) and isinstance(tp[1], int)):
        raise InvalidRequest(f"A partition is TopicPartition(topic, partition), not {tp!r:.80}.")
    return TopicPartition(*tp)


def _compiled(pattern: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    if not isinstance(pattern, str):
        return pattern
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"The pattern {pattern[:80]!r} is no regular expression: {error}.") from error
