"""Share sessions (KIP-932): which share-partitions a member reads by way of this gateway, and its locks.

A session is a member's on one gateway. When it ends, or its connection does, others may have what the member held. A
member whose session is not here is told so and begins a new one; a gateway remembers nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.groups.shares import Shares
from headwater.kafka.errors import Refusal
from headwater.kafka.messages import Fields
from headwater.limits import KAFKA_SHARE_SESSIONS_MAX
from headwater.log.namespace import Namespace

INITIAL: Final = 0  # epochs that say what is wanted
FINAL: Final = -1
_EPOCHS: Final = 2**31 - 1

Key = tuple[bytes, int]  # topic's UUID, partition


@dataclass(slots=True)
class ShareSession:
    """What one member reads here. ``epoch`` is that of its next request."""

    group: str
    member: str
    epoch: int = 1
    wanted: dict[Key, None] = field(default_factory=dict)

    def turn(self, key: Key) -> None:
        """This one was served: the others come first next time."""
        if key in self.wanted:
            del self.wanted[key]
            self.wanted[key] = None


class ShareSessions:
    """The sessions of one namespace on one gateway."""

    def __init__(self, namespace: Namespace) -> None:
        self._shares = namespace.shared(Shares)
        self._sessions: dict[tuple[str, str], ShareSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, asked: Fields, *, may_open: bool) -> tuple[ShareSession, bool]:
        """The session of a request, brought up to date by what it says, and whether the request ends it.

        Raises ``Refusal`` for a session that is not here, of which this is not the next request, or one too many.
        """
        key, epoch = (asked["group_id"] or "", asked["member_id"] or ""), asked["share_session_epoch"]
        if epoch == INITIAL and may_open:
            session = self._opened(key, asked["topics"])
        else:
            session = self._known(key, epoch)
        if may_open and epoch != FINAL:
            _update(session, asked)
        return session, epoch == FINAL

    def end(self, session: ShareSession) -> None:
        """The session is over, unless another one of its member has begun."""
        key = (session.group, session.member)
        if self._sessions.get(key) is session:
            del self._sessions[key]
            self._shares.release(*key)

    def _opened(self, key: tuple[str, str], topics: Sequence[Fields]) -> ShareSession:
        if any(row["acknowledgement_batches"] for topic in topics for row in topic["partitions"]):
            raise Refusal(ErrorCode.invalid_request, "Who opens a session has acquired nothing to acknowledge.")
        before = self._sessions.get(key)
        if before is not None:
            self.end(before)
        if len(self._sessions) >= KAFKA_SHARE_SESSIONS_MAX:
            text = f"This gateway has {KAFKA_SHARE_SESSIONS_MAX} share sessions, as many as it may."
            raise Refusal(ErrorCode.share_session_limit_reached, text)
        session = self._sessions[key] = ShareSession(*key)
        return session

    def _known(self, key: tuple[str, str], epoch: int) -> ShareSession:
        session = self._sessions.get(key)
        if session is None:
            text = f"Member {key[1]!r} of group {key[0]!r} has no share session here."
            raise Refusal(ErrorCode.share_session_not_found, text)
        if epoch not in (FINAL, session.epoch):
            text = f"The share session of member {key[1]!r} is at epoch {session.epoch}, not {epoch}."
            raise Refusal(ErrorCode.invalid_share_session_epoch, text)
        session.epoch = session.epoch % _EPOCHS + 1
        return session


def _update(session: ShareSession, asked: Fields) -> None:
    for topic in asked["topics"]:
        for row in topic["partitions"]:
            session.wanted.setdefault((topic["topic_id"], row["partition_index"]), None)
    for topic in asked["forgotten_topics_data"]:
        for partition in topic["partitions"]:
            session.wanted.pop((topic["topic_id"], partition), None)
