"""A fetch session says what is new, and nothing is lost between two of its answers (KIP-227)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kio.schema.errors import ErrorCode

from headwater.kafka.errors import Refusal
from headwater.kafka.sessions import FetchSessions

NOTHING = bytes(16)


def asking(session: int, epoch: int, *partitions: int, forget: tuple[int, ...] = ()) -> dict[str, Any]:
    rows = [{"partition": number, "fetch_offset": 0} for number in partitions]
    gone = [{"topic": "t", "topic_id": NOTHING, "partitions": list(forget)}] if forget else []
    topics = [{"topic": "t", "topic_id": NOTHING, "partitions": rows}] if rows else []
    return {"session_id": session, "session_epoch": epoch, "topics": topics, "forgotten_topics_data": gone}


def answering(*rows: tuple[int, int, bytes]) -> list[dict[str, Any]]:
    partitions = [
        {"partition_index": number, "error_code": 0, "high_watermark": end, "log_start_offset": 0, "records": data}
        for number, end, data in rows
    ]
    return [{"topic": "t", "topic_id": NOTHING, "partitions": partitions}]


def told(responses: list[dict[str, Any]]) -> list[int]:
    return [row["partition_index"] for topic in responses for row in topic["partitions"]]


def wanted(topics: list[dict[str, Any]]) -> list[int]:
    return [row["partition"] for topic in topics for row in topic["partitions"]]


def test_the_first_answer_has_every_partition_and_the_next_ones_what_is_new() -> None:
    sessions = FetchSessions(random.Random(1))
    session = sessions.begin(asking(0, 0, 0, 1, 2))
    assert session is not None
    assert [0, 1, 2] == told(session.news(answering((0, 5, b""), (1, 5, b""), (2, 5, b""))))
    again = sessions.begin(asking(session.id, 1))
    assert again is session
    assert [1] == told(session.news(answering((0, 5, b""), (1, 6, b"records"), (2, 5, b""))))
    sessions.begin(asking(session.id, 2))
    assert [2] == told(session.news(answering((0, 5, b""), (1, 6, b""), (2, 7, b""))))


def test_partitions_are_added_changed_and_forgotten() -> None:
    sessions = FetchSessions(random.Random(1))
    session = sessions.begin(asking(0, 0, 0, 1))
    assert session is not None
    sessions.begin(asking(session.id, 1, 2, forget=(0,)))
    assert [1, 2] == wanted(session.topics())


def test_a_partition_with_records_is_served_last_the_next_time() -> None:
    sessions = FetchSessions(random.Random(1))
    session = sessions.begin(asking(0, 0, 0, 1, 2))
    assert session is not None
    session.news(answering((0, 5, b"records"), (1, 5, b""), (2, 5, b"")))
    assert [1, 2, 0] == wanted(session.topics())


@pytest.mark.parametrize(
    ("session", "epoch", "code"),
    [(99, 1, ErrorCode.fetch_session_id_not_found), (None, 7, ErrorCode.invalid_fetch_session_epoch)],
)
def test_a_session_that_is_not_here_is_refused(session: int | None, epoch: int, code: ErrorCode) -> None:
    sessions = FetchSessions(random.Random(1))
    known = sessions.begin(asking(0, 0, 0))
    assert known is not None
    with pytest.raises(Refusal) as refused:
        sessions.begin(asking(known.id if session is None else session, epoch))
    assert code == refused.value.code


def test_a_final_fetch_ends_the_session() -> None:
    sessions = FetchSessions(random.Random(1))
    session = sessions.begin(asking(0, 0, 0))
    assert session is not None
    assert sessions.begin(asking(session.id, -1, 0)) is None
    assert 0 == len(sessions)


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    sessions = FetchSessions(random.Random(1), sessions_max=3)
    first, *others = [sessions.begin(asking(0, 0, 0)) for _ in range(4)]
    assert first is not None
    with pytest.raises(Refusal):
        sessions.begin(asking(first.id, 1))
    assert 3 == len({each.id for each in others if each is not None})
