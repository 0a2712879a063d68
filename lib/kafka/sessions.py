"""Fetch sessions: a consumer says once which partitions it reads, and then only what is new about them (KIP-227).

A session is a saving and no promise: it lives in one gateway's memory, and a client whose session is not found begins a
new one, as after a broker's restart. Pure.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kio.schema.errors import ErrorCode

from headwater.kafka.errors import Refusal
from headwater.kafka.messages import Fields
from headwater.limits import KAFKA_SESSION_IDLE_S, KAFKA_SESSIONS_MAX

FINAL, INITIAL = -1, 0  # epochs: of a fetch without a session, and of one that asks for a new one
_EPOCHS: Final = 2**31 - 1

Key: TypeAlias = tuple[str, bytes, int]  # topic by name or UUID, partition


@dataclass(slots=True)
class Session:
    """``wanted`` are the partitions in the order in which they are served; ``told`` what was last said of each."""

    id: int
    epoch: int = 1  # of the next request
    wanted: OrderedDict[Key, Fields] = field(default_factory=OrderedDict)
    told: dict[Key, tuple[int, int]] = field(default_factory=dict)  # high watermark and log start
    is_new: bool = True
    used_s: float = 0.0  # when it was last asked for

    def topics(self) -> list[Fields]:
        """What is wanted, as a full request has it."""
        found: list[Fields] = []
        for (name, uuid, _), partition in self.wanted.items():
            if not found or (found[-1]["topic"], found[-1]["topic_id"]) != (name, uuid):
                found.append({"topic": name, "topic_id": uuid, "partitions": []})
            found[-1]["partitions"].append(partition)
        return found

    def news(self, responses: list[Fields]) -> list[Fields]:
        """Of a full answer what the client does not know yet; partitions with records go to the end of the queue."""
        is_new, self.is_new = self.is_new, False
        found = []
        for topic in responses:
            rows = []
            for row in topic["partitions"]:
                key = (topic["topic"], topic["topic_id"], row["partition_index"])
                state = (row["high_watermark"], row.get("log_start_offset", -1))
                has_records = bool(row.get("records"))
                is_sent_on = "preferred_read_replica" in row  # until the client goes there it would ask again at once
                if is_new or has_records or is_sent_on or row["error_code"] or self.told.get(key) != state:
                    rows.append(row)
                    self.told[key] = state
                if has_records and key in self.wanted:
                    self.wanted.move_to_end(key)
            if rows:
                found.append({**topic, "partitions": rows})
        return found


class FetchSessions:
    """The sessions of one gateway. If there are too many, one that is not in use makes room; if all are in use, who
    comes has none, as in Kafka: were one thrown out that is, its client would throw out the next.
    """

    def __init__(self, rng: random.Random, now_s: Callable[[], float], sessions_max: int = KAFKA_SESSIONS_MAX) -> None:
        self._rng = rng
        self._now_s = now_s
        self._max = sessions_max
        self._sessions: OrderedDict[int, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, asked: Fields) -> Session | None:
        """The session of a fetch, brought up to date by what it says; None for a fetch without one, and for one that
        asks for a new one if there is no room.

        Raises ``Refusal`` for a session that is not here, or of which this is not the next request.
        """
        number, epoch = asked["session_id"], asked["session_epoch"]
        if epoch in (FINAL, INITIAL):
            self._sessions.pop(number, None)
            if epoch == FINAL or not asked["topics"]:
                return None
            session = self._fresh()
            if session is None:
                return None
        else:
            session = self._sessions.get(number)
            if session is None:
                raise Refusal(ErrorCode.fetch_session_id_not_found, f"There is no fetch session {number} here.")
            if epoch != session.epoch:
                raise Refusal(
                    ErrorCode.invalid_fetch_session_epoch,
                    f"Fetch session {number} is at epoch {session.epoch}, not {epoch}.",
                )
            session.epoch = session.epoch % _EPOCHS + 1
            self._sessions.move_to_end(number)
        session.used_s = self._now_s()
        _update(session, asked)
        return session

    def _fresh(self) -> Session | None:
        if len(self._sessions) >= self._max:
            oldest = next(iter(self._sessions.values()))
            if self._now_s() - oldest.used_s < KAFKA_SESSION_IDLE_S:
                return None
            del self._sessions[oldest.id]
        number = 0
        while number == 0 or number in self._sessions:
            number = self._rng.randrange(1, _EPOCHS)
        session = self._sessions[number] = Session(number)
        return session


def _update(session: Session, asked: Fields) -> None:
    for topic in asked["topics"]:
        for partition in topic["partitions"]:
            session.wanted[topic["topic"], topic["topic_id"], partition["partition"]] = partition
    for topic in asked["forgotten_topics_data"]:
        for number in topic["partitions"]:
            key = (topic["topic"], topic["topic_id"], number)
            session.wanted.pop(key, None)
            session.told.pop(key, None)
