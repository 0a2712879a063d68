"""Fetch: record batches from the shelf that all readers of a gateway share.

    all that is wanted is on the shelf ──► the answer, at once
    something is not                   ──► read ahead from the bucket, several partitions at a time, and look again
    there is less than ``min_bytes``   ──► wait for a commit, up to ``max_wait``, and look again

What readers see ends at the last stable offset for everybody: ``read_uncommitted`` sees committed data only, too.

Offsets without records (of aborted transactions, and where compaction took some away) are left out where records
follow, as in a compacted partition of Kafka's. Control batches take a reader over those that are the last of what it
may see, and only one that has read all before them and has waited for more: librdkafka, to 2.16 at least, commits past
records that it holds and has not given out when it closes and a control batch lies behind them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kio.schema.errors import ErrorCode

from headwater import tracing
from headwater.errors import HeadwaterError
from headwater.kafka import schema
from headwater.kafka.errors import Refusal, code_of
from headwater.kafka.figures import FETCH
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.nearby import point, preferred
from headwater.kafka.handlers.paying import charged, owed_ms, settled
from headwater.kafka.model import Answer, Fields, Later, Peer, Request
from headwater.kafka.names import LEADER_EPOCH, UNKNOWN, topic_for
from headwater.kafka.sessions import Session
from headwater.kafka.shelf import Place, Shelved
from headwater.limits import (
    FETCH_WAIT_MS_MAX,
    KAFKA_FETCH_AHEAD_BYTES,
    KAFKA_FETCH_BYTES_MAX,
    KAFKA_FETCH_READS_MAX,
    KAFKA_READ_AHEAD_BYTES,
)
from headwater.log.polling import POLL_S_MAX, LongPoll
from headwater.log.state import Topic
from headwater.log.together import together
from headwater.types import Buffer

_Read: TypeAlias = Shelved | HeadwaterError | None  # None: there is nothing at this offset yet


@dataclass(frozen=True, slots=True)
class _Miss:
    """An offset whose batch is not in memory."""

    topic: str
    place: Place
    offset: int


def fetch(peer: Peer, request: Request) -> Answer:
    """Read. What is in memory is answered at once; else it takes as long as the client is willing to wait."""
    asked = request.fields
    try:
        session = peer.gateway.sessions(peer.namespace).begin(asked)
    except Refusal as error:
        return {"error_code": error.code}
    if session is not None:
        asked = {**asked, "topics": session.topics()}
    reading = _Reading(peer, asked, session)
    is_free = peer.namespace.chain.age_s() <= POLL_S_MAX and not owed_ms(peer, "fetch")
    if is_free and reading.look() and not reading.is_denied:
        return reading.give()
    return Later(reading.rest())


class _Reading:
    """One Fetch: what is wanted, and the answer as of the last look."""

    def __init__(self, peer: Peer, asked: Fields, session: Session | None) -> None:
        self._peer = peer
        self._asked = asked
        self._session = session
        self._shelf = peer.gateway.shelf(peer.namespace)
        self._brought: dict[tuple[Place, int], _Read] = {}  # read for us: here whatever happens on the shelf
        self._misses: list[_Miss] = []
        self._room = 0  # bytes that may yet be read for the next look
        self._responses: list[Fields] = []
        self._size = 0  # bytes of records in it
        self._hits = 0  # of those batches the ones that were in memory
        self._may_read = True  # unless the client has read more than it may
        self._failed = False  # whether it has an error to tell
        self.is_denied = False  # whether a topic, a partition or an offset is not known here

    def look(self) -> bool:
        """Make the answer as of now; whether it is one to be given."""
        peer, asked = self._peer, self._asked
        left = min(max(asked["max_bytes"], 0), KAFKA_FETCH_BYTES_MAX)
        self._size, self._hits, self._failed, self.is_denied, self._misses = 0, 0, False, False, []
        self._room = KAFKA_FETCH_AHEAD_BYTES
        away = preferred(peer, asked)
        self._responses = responses = []
        for wanted in asked["topics"]:
            topic, code = topic_for(peer, "read", wanted["topic"], wanted["topic_id"])
            rows: list[Fields] = []
            for each in wanted["partitions"]:
                row: Fields = {"partition_index": each["partition"], "error_code": code, "high_watermark": -1}
                row["records"] = b""  # librdkafka takes null for a broken answer, in which nothing else counts
                rows.append(row)
                if topic is not None and away is not None:
                    point(peer, away, asked["rack_id"], topic, row)
                    self._failed = True  # there is nothing here to wait for
                elif topic is not None and self._room > 0 and len(self._misses) < KAFKA_FETCH_READS_MAX:
                    left -= self._partition(topic, each, row, left)
                if row["error_code"]:
                    self._failed = True
                    self.is_denied |= row["error_code"] in UNKNOWN
            responses.append({"topic": wanted["topic"], "topic_id": wanted["topic_id"], "partitions": rows})
        return not self._misses and (self._failed or self._size >= max(asked["min_bytes"], 0))

    def _partition(self, topic: Topic, wanted: Fields, row: Fields, left: int) -> int:
        """Fill in one partition's answer; how much of what is ``left`` of the answer it takes."""
        number, offset = wanted["partition"], wanted["fetch_offset"]
        if not 0 <= number < len(topic.partitions):
            row["error_code"] = ErrorCode.unknown_topic_or_partition
            return 0
        if wanted["current_leader_epoch"] > LEADER_EPOCH:
            row["error_code"] = ErrorCode.unknown_leader_epoch
            return 0
        place = topic.partitions[number]
        end = place.stable_end
        row.update(high_watermark=end, last_stable_offset=end, log_start_offset=place.start)
        # An offset inside an open reservation was told to its producer, so it is no error: there is nothing yet.
        if not place.start <= offset <= place.next:
            row["error_code"] = ErrorCode.offset_out_of_range
            # Another gateway may have filled it by now, and a reader that comes from there would begin anew.
            self.is_denied |= offset > place.next
            return 0
        most: int = min(left, max(wanted["partition_max_bytes"], 0))
        parts: list[Buffer] = []
        passing: list[Buffer] = []  # what takes a reader over the gap that it stands in
        size, position, key, shelf, brought = 0, offset, (topic.id, number), self._shelf, self._brought
        while position < end and self._may_read:
            found: _Read = brought.get((key, position)) if brought else None
            if found is None:
                found = shelf.peek(key, position)
                self._hits += found is not None
            if found is None:
                if not size and (key, position) not in brought:
                    self._misses.append(_Miss(topic.name, key, position))
                    self._room -= place.bytes_from(position, KAFKA_READ_AHEAD_BYTES)
                    return most
                break  # what is there goes out now; the next fetch reads on
            if isinstance(found, HeadwaterError):
                row["error_code"] = code_of(found, Unavailable=ErrorCode.kafka_storage_error)
                return 0
            if found.is_gap:
                passing += found.parts
                position = found.end
                continue
            # The first batch of an answer is sent however large it is, so that every reader gets on.
            if size + found.size > most and (size or self._size):
                break
            parts += found.parts
            size, position = size + found.size, found.end
        if position >= end:
            shelf.follow(key)
            parts = parts or passing  # the gap is no records, so an answer with nothing else waits for some
        row["records"] = parts
        self._size += size
        return size

    def give(self, silent_ms: int = 0) -> Fields:
        """The answer, once what was read is charged. ``silent_ms``: nothing was, and when the client may read again."""
        peer = self._peer
        self._shelf.hits += self._hits
        if self._failed:
            for row in (row for topic in self._responses for row in topic["partitions"] if row["error_code"]):
                peer.gateway.figures.api(FETCH).refused(row["error_code"])
        found: Fields = {"throttle_time": silent_ms or charged(peer, FETCH, "fetch", self._size)}
        if self._session is None:
            return {**found, "responses": self._responses}
        return {**found, "session_id": self._session.id, "responses": self._session.news(self._responses)}

    async def rest(self) -> Fields:
        """Read what is not in memory, or wait for what is not there yet, until there is an answer to be given."""
        chain = self._peer.namespace.chain
        self._may_read = not (silent_ms := await settled(self._peer, "fetch"))
        poll = LongPoll(chain, min(max(self._asked["max_wait"], 0), FETCH_WAIT_MS_MAX))
        is_fresh = chain.age_s() > POLL_S_MAX or self.is_denied
        if is_fresh:
            await chain.refresh()  # rights and topics are those of now
        while True:
            seen = chain.state.seq
            is_enough = self.look()
            if self.is_denied and not is_fresh:
                await chain.refresh()
                is_fresh = True
            elif self._misses:
                await together(*(self._bring(miss) for miss in self._misses))
            elif is_enough or silent_ms or not await poll.more(seen):
                return self.give(silent_ms)
            else:
                self._brought.clear()

    async def _bring(self, miss: _Miss) -> None:
        """Have a batch that is not in memory read, with what follows it."""
        reading = self._shelf.read(miss.topic, miss.place, miss.offset)
        try:
            found: _Read = await (reading if not tracing.is_on() else _traced(reading, miss))
        except HeadwaterError as error:
            found = error
        self._brought[miss.place, miss.offset] = found


async def _traced(reading: Coroutine[Any, Any, Shelved | None], miss: _Miss) -> Shelved | None:
    """As ``reading``, with a span: a poll that finds nothing, or finds all in memory, has no story."""
    with tracing.span(
        f"fetch {miss.topic}",
        "SERVER",
        messaging__system=tracing.SYSTEM,
        messaging__operation__name="fetch",
        messaging__operation__type="receive",
        messaging__destination__name=miss.topic,
        messaging__destination__partition__id=str(miss.place[1]),
        messaging__headwater__offset=miss.offset,
    ):
        return await reading


APIS: Final = {1: Api(*schema.versions(1), fetch)}
