"""Fetch: record batches from the shelf that all readers of a gateway share.

    what is on the shelf ──► else read ahead from the bucket ──► else wait for a commit, up to ``max_wait``

What readers see ends at the last stable offset for everybody: ``read_uncommitted`` sees committed data only, too.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from kio.schema.errors import ErrorCode

from headwater import tracing
from headwater.errors import HeadwaterError, Throttled
from headwater.kafka import schema
from headwater.kafka.errors import Refusal, code_of
from headwater.kafka.figures import FETCH
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.nearby import point, preferred
from headwater.kafka.model import Answer, Fields, Later, Peer, Request
from headwater.kafka.names import LEADER_EPOCH, topic_for
from headwater.kafka.shelf import Shelved
from headwater.limits import FETCH_WAIT_MS_MAX, KAFKA_FETCH_BYTES_MAX
from headwater.log.polling import POLL_S_MAX, LongPoll
from headwater.log.state import Topic
from headwater.types import Buffer


@dataclass(slots=True)
class _Wanted:
    """One partition that is read."""

    topic: Topic
    partition: int
    offset: int
    bytes_max: int
    answer: Fields


async def fetch(peer: Peer, request: Request) -> Answer:
    """Read. It may take as long as the client is willing to wait."""
    return Later(_fetch(peer, request))


async def _fetch(peer: Peer, request: Request) -> Fields:
    asked = request.fields
    try:
        session = peer.gateway.sessions(peer.namespace).begin(asked)
    except Refusal as error:
        return {"error_code": error.code}
    if session is not None:
        asked = {**asked, "topics": session.topics()}
    chain = peer.namespace.chain
    poll = LongPoll(chain, min(max(asked["max_wait"], 0), FETCH_WAIT_MS_MAX))
    if chain.age_s() > POLL_S_MAX:
        await chain.refresh()  # rights and topics are those of now
    while True:
        seen = chain.state.seq
        answer, size, failed = await _look(peer, asked)
        if failed or size >= max(asked["min_bytes"], 0) or not await poll.more(seen):
            await _pay(peer, size)
            if session is None:
                return answer
            return {"session_id": session.id, "responses": session.news(answer["responses"])}


async def _look(peer: Peer, asked: Fields) -> tuple[Fields, int, bool]:
    """The answer as of now, its bytes of records, and whether a partition failed."""
    left = min(max(asked["max_bytes"], 0), KAFKA_FETCH_BYTES_MAX)
    total, failed = 0, False
    away = preferred(peer, asked)
    responses = []
    for wanted in asked["topics"]:
        topic, code = topic_for(peer, "read", wanted["topic"], wanted["topic_id"])
        row = []
        for each in wanted["partitions"]:
            answer: Fields = {"partition_index": each["partition"], "error_code": code, "high_watermark": -1}
            row.append(answer)
            if topic is not None and away is not None:
                point(peer, away, asked["rack_id"], topic, answer)
                failed = True  # there is nothing here to wait for
            elif topic is not None:
                place = _Wanted(topic, each["partition"], each["fetch_offset"], each["partition_max_bytes"], answer)
                # The first batch of an answer is sent however large it is, so that every reader gets on.
                size = await _partition(peer, place, each["current_leader_epoch"], left, first=total == 0)
                total, left = total + size, left - size
            if answer["error_code"]:
                failed = True
                peer.gateway.figures.api(FETCH).refused(answer["error_code"])
        responses.append({"topic": wanted["topic"], "topic_id": wanted["topic_id"], "partitions": row})
    return {"responses": responses}, total, failed


async def _partition(peer: Peer, wanted: _Wanted, leader_epoch: int, bytes_max: int, *, first: bool) -> int:
    """Fill in one partition's answer; the bytes of its records."""
    answer = wanted.answer
    found = peer.namespace.state.topics.get(wanted.topic.id)
    if found is None or not 0 <= wanted.partition < len(found.partitions):
        answer["error_code"] = ErrorCode.unknown_topic_or_partition
        return 0
    if leader_epoch > LEADER_EPOCH:
        answer["error_code"] = ErrorCode.unknown_leader_epoch
        return 0
    place = found.partitions[wanted.partition]
    end = place.stable_end
    answer.update(high_watermark=end, last_stable_offset=end, log_start_offset=place.start)
    answer["records"] = b""
    # An offset inside an open reservation was told to its producer, so it is no error: there is nothing yet.
    if not place.start <= wanted.offset <= place.next:
        answer["error_code"] = ErrorCode.offset_out_of_range
        return 0
    try:
        parts, size = await _records(peer, wanted, end, min(bytes_max, max(wanted.bytes_max, 0)), first=first)
    except HeadwaterError as error:
        answer["error_code"] = code_of(error, Unavailable=ErrorCode.kafka_storage_error)
        return 0
    answer["records"] = parts
    return size


async def _records(peer: Peer, wanted: _Wanted, end: int, bytes_max: int, *, first: bool) -> tuple[list[Buffer], int]:
    """Batches from the offset on, at most ``bytes_max`` of them unless it is the ``first`` one of the answer."""
    shelf = peer.gateway.shelf(peer.namespace)
    key = (wanted.topic.id, wanted.partition)
    parts: list[Buffer] = []
    size, position = 0, wanted.offset
    while position < end:
        found = shelf.find(key, position)
        if found is None:
            if size:
                break  # what is there goes out now; the next fetch reads on
            reading = shelf.read(wanted.topic.name, key, position)
            found = await (reading if not tracing.is_on() else _traced(reading, wanted, position))
            if found is None:
                break
        if size + found.size > bytes_max and not (first and not size):
            break
        parts += found.parts
        size, position = size + found.size, found.end
    if position >= end:
        shelf.follow(key)
    return parts, size


async def _traced(reading: Coroutine[Any, Any, Shelved | None], wanted: _Wanted, offset: int) -> Shelved | None:
    """As ``reading``, with a span: a poll that finds nothing, or finds all in memory, has no story."""
    topic = wanted.topic.name
    with tracing.span(
        f"fetch {topic}",
        "SERVER",
        messaging__system=tracing.SYSTEM,
        messaging__operation__name="fetch",
        messaging__operation__type="receive",
        messaging__destination__name=topic,
        messaging__destination__partition__id=str(wanted.partition),
        messaging__headwater__offset=offset,
    ):
        return await reading


async def _pay(peer: Peer, size: int) -> None:
    """Charge what was read, and hold back a client that has read more than it may."""
    if not size:
        return
    peer.service.charge("fetch", size)
    try:
        peer.service.check_debt("fetch")
    except Throttled as error:
        peer.gateway.figures.api(FETCH).throttled(error.retry_after_ms)
        await peer.gateway.clock.sleep(error.retry_after_ms / 1_000)


APIS: Final = {1: Api(*schema.versions(1), fetch)}
