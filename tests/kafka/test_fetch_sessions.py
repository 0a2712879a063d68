"""A fetch session says what is new, and nothing is lost between two of its answers (KIP-227)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kio.schema.errors import ErrorCode

from headwater.kafka.errors import Refusal
from headwater.kafka.sessions import FetchSessions
from headwater.limits import KAFKA_SESSION_IDLE_S

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
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    session = sessions.begin(asking(0, 0, 0, 1, 2))
    assert session is not None
    assert [0, 1, 2] == told(session.news(answering((0, 5, b""), (1, 5, b""), (2, 5, b""))))
    again = sessions.begin(asking(session.id, 1))
    assert again is session
    assert [1] == told(session.news(answering((0, 5, b""), (1, 6, b"records"), (2, 5, b""))))
    sessions.begin(asking(session.id, 2))
    assert [2] == told(session.news(answering((0, 5, b""), (1, 6, b""), (2, 7, b""))))


def test_partitions_are_added_changed_and_forgotten() -> None:
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    session = sessions.begin(asking(0, 0, 0, 1))
    assert session is not None
    sessions.begin(asking(session.id, 1, 2, forget=(0,)))
    assert [1, 2] == wanted(session.topics())


def test_a_partition_with_records_is_served_last_the_next_time() -> None:
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    session = sessions.begin(asking(0, 0, 0, 1, 2))
    assert session is not None
    session.news(answering((0, 5, b"records"), (1, 5, b""), (2, 5, b"")))
    assert [1, 2, 0] == wanted(session.topics())


@pytest.mark.parametrize(
    ("session", "epoch", "code"),
    [(99, 1, ErrorCode.fetch_session_id_not_found), (None, 7, ErrorCode.invalid_fetch_session_epoch)],
)
def test_a_session_that_is_not_here_is_refused(session: int | None, epoch: int, code: ErrorCode) -> None:
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    known = sessions.begin(asking(0, 0, 0))
    assert known is not None
    with pytest.raises(Refusal) as refused:
        sessions.begin(asking(known.id if session is None else session, epoch))
    assert code == refused.value.code


def test_a_final_fetch_ends_the_session() -> None:
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    session = sessions.begin(asking(0, 0, 0))
    assert session is not None
    assert sessions.begin(asking(session.id, -1, 0)) is None
    assert 0 == len(sessions)


def test_sessions_are_bounded_and_the_one_that_was_idle_longest_makes_room() -> None:
    now = [0.0]
    sessions = FetchSessions(random.Random(1), lambda: now[0], sessions_max=3)
    first, second, _ = [sessions.begin(asking(0, 0, 0)) for _ in range(3)]
    assert first is not None
    assert second is not None
    now[0] = KAFKA_SESSION_IDLE_S - 1
    assert sessions.begin(asking(first.id, 1)) is first
    now[0] = KAFKA_SESSION_IDLE_S
    fresh = sessions.begin(asking(0, 0, 0))
    assert fresh is not None
    with pytest.raises(Refusal):
        sessions.begin(asking(second.id, 1))
    assert sessions.begin(asking(first.id, 2)) is first
    assert 3 == len(sessions)


def test_a_consumer_too_many_has_no_session_and_leaves_the_others_theirs() -> None:
    """Each new session threw out one that was in use: with 1,001 consumers every fetch was refused."""
    sessions = FetchSessions(random.Random(1), lambda: 5.0, sessions_max=1_000)
    begun = [sessions.begin(asking(0, 0, 0)) for _ in range(1_001)]
    assert [None] == [each for each in begun if each is None]
    for epoch in (1, 2):
        for each in begun:
            assert sessions.begin(asking(each.id, epoch) if each is not None else asking(0, 0, 0)) is each


def test_where_to_read_is_said_until_the_client_goes_there() -> None:
    """It was said once at most: who had heard of nothing new asked again at once, 700 times a second."""
    sessions = FetchSessions(random.Random(1), lambda: 0.0)
    session = sessions.begin(asking(0, 0, 0))
    assert session is not None
    session.news(answering((0, 5, b"")))
    for epoch in (1, 2):
        sessions.begin(asking(session.id, epoch))
        (topic,) = answering((0, 5, b""))
        topic["partitions"][0]["preferred_read_replica"] = 7
        assert [0] == told(session.news([topic]))
