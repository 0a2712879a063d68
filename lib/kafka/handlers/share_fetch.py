"""ShareFetch and ShareAcknowledge (KIP-932): records handed out one by one, and what became of them.

    words about earlier records ──► the log                                     ┐ at the same time:
    nothing to hand out here? ──► claim more of the share-partition in the log  ┘ mostly one manifest
    bytes from the shelf of all readers ──► lock in memory ──► answer; else wait for a commit, up to ``max_wait``

Any gateway serves any share-partition, beside others (``groups.shares``), so nobody is ever told of another leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.groups.share_partition import NotAcquired
from headwater.groups.shares import Place, Shares
from headwater.kafka.errors import Refusal, code_of
from headwater.kafka.figures import SHARE_FETCH
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import enter, refused
from headwater.kafka.handlers.paying import charged
from headwater.kafka.model import Answer, Fields, Later, Peer, Request
from headwater.kafka.names import topic_for
from headwater.kafka.share_records import extents, said_in
from headwater.kafka.share_sessions import Key, ShareSession, ShareSessions
from headwater.limits import FETCH_WAIT_MS_MAX, KAFKA_FETCH_BYTES_MAX
from headwater.log.polling import POLL_S_MAX, LongPoll
from headwater.log.together import to_the_end
from headwater.types import Buffer

RECORD_LIMIT: Final = 1  # of the two ways to count: never more than asked for (KIP-1206); 0 takes whole batches
_RENEWALS: Final = 2  # the version that has them (KIP-1222)
_NO_LEADER: Final = {"leader_id": -1, "leader_epoch": -1}
_SPECIAL: Final = {
    NotAcquired.__name__: ErrorCode.invalid_record_state,
    # Of what clients take for a partition's error and try again after, the one that says why.
    "Unavailable": ErrorCode.kafka_storage_error,
    "Indeterminate": ErrorCode.kafka_storage_error,
    "NotFound": ErrorCode.unknown_topic_or_partition,
}


@dataclass(slots=True)
class _Bound:
    """How much an answer may still take. ``hard``: records are counted one by one, and not in whole batches."""

    records: int
    bytes: int
    hard: bool
    size: int = 0


@dataclass(slots=True)
class _Row:
    """One partition's answer so far."""

    key: Key
    answer: Fields
    place: Place | None = None
    topic: str = ""
    parts: list[Buffer] = field(default_factory=list)
    acquired: list[Fields] = field(default_factory=list)

    def fail(self, error: HeadwaterError) -> None:
        self.answer.update(error_code=code_of(error, **_SPECIAL), error_message=error.message)


async def share_fetch(peer: Peer, request: Request) -> Answer:
    """Acknowledge and fetch. It may take as long as the client is willing to wait."""
    asked = request.fields
    try:
        await enter(peer, asked["group_id"] or "")
        _check(asked)
        session, is_final = peer.namespace.shared(ShareSessions).begin(asked, may_open=True)
    except HeadwaterError as error:
        return refused(error)
    return Later(_fetched(peer, request, session, is_final=is_final))


async def share_acknowledge(peer: Peer, request: Request) -> Answer:
    """Say what became of records that were acquired. Cost: 1 commit, which others share."""
    asked = request.fields
    try:
        await enter(peer, asked["group_id"] or "")
        session, is_final = peer.namespace.shared(ShareSessions).begin(asked, may_open=False)
    except HeadwaterError as error:
        return refused(error)
    return Later(_acknowledged(peer, request, session, is_final=is_final))


def _check(asked: Fields) -> None:
    if not asked["member_id"]:
        raise Refusal(ErrorCode.invalid_request, "A member chooses its id, and keeps it.")
    if asked["is_renew_ack"] and any(asked[name] for name in ("max_wait", "min_bytes", "max_bytes", "max_records")):
        raise Refusal(ErrorCode.invalid_request, "A request that renews asks for no records.")


# -- words about records -------------------------------------------------------------------------------------


async def _acknowledged(peer: Peer, request: Request, session: ShareSession, *, is_final: bool) -> Fields:
    words = await _say(peer, request, session)
    if is_final:
        peer.namespace.shared(ShareSessions).end(session)
    rows = [(key, _row(key, error, "error")) for key, error in words.items()]
    lock_ms = peer.namespace.shared(Shares).config(session.group).lock_ms
    return {"acquisition_lock_timeout": lock_ms, "responses": _by_topic(rows)}


async def _say(peer: Peer, request: Request, session: ShareSession) -> dict[Key, HeadwaterError | None]:
    """Make true what the request says of records, partition by partition; what went wrong with each."""
    wanted = {
        (topic["topic_id"], row["partition_index"]): row["acknowledgement_batches"]
        for topic in request.fields["topics"]
        for row in topic["partitions"]
        if row["acknowledgement_batches"]
    }
    shares = peer.namespace.shared(Shares)
    may_renew = request.version >= _RENEWALS and shares.config(session.group).may_renew

    errors: dict[Key, HeadwaterError | None] = dict.fromkeys(wanted)

    async def one(key: Key, batches: Sequence[Fields]) -> None:
        try:
            _, place = _place(peer, session.group, key)
            await shares.acknowledge(place, session.member, said_in(batches, may_renew=may_renew))
        except HeadwaterError as error:
            errors[key] = error

    await to_the_end([one(key, batches) for key, batches in wanted.items()])
    return errors


def _place(peer: Peer, group: str, key: Key) -> tuple[str, Place]:
    """The topic's name and the share-partition. Raises ``Refusal``."""
    topic, code = topic_for(peer, "read", "", key[0])
    if topic is None:
        raise Refusal(code, "There is no topic of that id, or it is not yours to read.")
    if not 0 <= key[1] < len(topic.partitions):
        raise Refusal(ErrorCode.unknown_topic_or_partition, f"Topic {topic.name!r} has no partition {key[1]}.")
    return topic.name, (group, topic.id, key[1])


# -- records ---------------------------------------------------------------------------------------------


async def _fetched(peer: Peer, request: Request, session: ShareSession, *, is_final: bool) -> Fields:
    sessions = peer.namespace.shared(ShareSessions)
    asked = request.fields
    try:
        if is_final or asked["is_renew_ack"]:
            words, rows = await _say(peer, request, session), list[_Row]()
        else:
            # At the same time, so that both commits share a manifest.
            words, rows = await asyncio.gather(_say(peer, request, session), _wait(peer, request, session))
    except asyncio.CancelledError:
        sessions.end(session)  # the client is gone
        raise
    if is_final:
        sessions.end(session)
    lock_ms = peer.namespace.shared(Shares).config(session.group).lock_ms
    paused_ms = charged(peer, SHARE_FETCH, "fetch", sum(len(part) for row in rows for part in row.parts))
    responses = _by_topic(_answers(words, rows))
    return {"throttle_time": paused_ms, "acquisition_lock_timeout": lock_ms, "responses": responses}


def _answers(words: dict[Key, HeadwaterError | None], rows: Sequence[_Row]) -> list[tuple[Key, Fields]]:
    """A row for each partition of which there is something to say."""
    found = {key: _row(key, error, "acknowledge_error") for key, error in words.items()}
    for row in rows:
        if row.acquired or row.answer["error_code"]:
            said = found.get(row.key, {})
            found[row.key] = {**row.answer, **said, "records": row.parts, "acquired_records": row.acquired}
    return list(found.items())


def _row(key: Key, error: HeadwaterError | None, what: str) -> Fields:
    answer: Fields = {"partition_index": key[1], "current_leader": _NO_LEADER}
    if error is not None:
        answer |= {f"{what}_code": code_of(error, **_SPECIAL), f"{what}_message": error.message}
    return answer


async def _wait(peer: Peer, request: Request, session: ShareSession) -> list[_Row]:
    """What there is, or what comes within the time that the client gives. Cost: 1 commit if nothing is claimed yet."""
    try:
        return await _polled(peer, request.fields, session)
    except HeadwaterError as error:
        rows = _rows(session)
        for row in rows:
            row.fail(error)
        return rows


async def _polled(peer: Peer, asked: Fields, session: ShareSession) -> list[_Row]:
    chain = peer.namespace.chain
    poll = LongPoll(chain, min(max(asked["max_wait"], 0), FETCH_WAIT_MS_MAX))
    if chain.age_s() > POLL_S_MAX:
        await chain.refresh()
    wants_any = asked["max_bytes"] > 0
    while True:
        seen = chain.state.seq
        bound = _Bound(
            max(asked["max_records"], 1) if wants_any else 0,
            min(max(asked["max_bytes"], 0), KAFKA_FETCH_BYTES_MAX),
            asked["share_acquire_mode"] == RECORD_LIMIT,
        )
        rows = await _look(peer, session, bound)
        is_done = bound.size or not wants_any or any(row.answer["error_code"] for row in rows)
        if is_done or not await poll.more(seen):
            return rows


async def _look(peer: Peer, session: ShareSession, bound: _Bound) -> list[_Row]:
    """The rows of all partitions of the session as of now."""
    rows = _rows(session)
    for row in rows:
        try:
            row.topic, row.place = _place(peer, session.group, row.key)
        except Refusal as error:
            row.fail(error)
    await to_the_end([_claim(peer, row, bound.records) for row in _to_claim(peer, rows, bound.records)])
    for row in rows:
        if row.place is None or row.answer["error_code"] or bound.records <= 0 or bound.bytes <= 0:
            continue
        try:
            await _take(peer, session, row, bound)
        except HeadwaterError as error:
            row.fail(error)
        if row.acquired:
            session.turn(row.key)
    return rows


def _rows(session: ShareSession) -> list[_Row]:
    return [
        _Row(key, {"partition_index": key[1], "error_code": 0, "current_leader": _NO_LEADER}) for key in session.wanted
    ]


def _to_claim(peer: Peer, rows: Sequence[_Row], records: int) -> list[_Row]:
    """The partitions of which more is to be claimed for so many records: what one gateway holds others cannot have."""
    shares = peer.namespace.shared(Shares)
    found = []
    for row in rows:
        if row.place is None or records <= 0:
            continue
        ready = shares.available(row.place)
        if ready is not None:
            records -= ready[1] - ready[0]
        elif shares.may_claim(row.place):
            records -= shares.backlog(row.place)
            found.append(row)
    return found


async def _claim(peer: Peer, row: _Row, records: int) -> None:
    assert row.place is not None
    try:
        await peer.namespace.shared(Shares).claim(row.place, records)
    except HeadwaterError as error:
        row.fail(error)


async def _take(peer: Peer, session: ShareSession, row: _Row, bound: _Bound) -> None:
    """Lock records for the member, and put the batches that hold them into its answer."""
    assert row.place is not None
    shares, shelf = peer.namespace.shared(Shares), peer.gateway.shelf(peer.namespace)
    found = shares.available(row.place)
    while found is not None and bound.records > 0:
        offset, key = found[0], row.place[1:]
        shelved = shelf.find_whole(key, offset)
        if shelved is None:
            if row.acquired:
                return  # what is there goes out now; the next fetch reads on
            shelved = shelf.whole(key, await shelf.read(row.topic, key, offset))
            if shelved is None:
                return
        if not _lock(shares, session, row, bound, shelved.data, offset):
            return
        found = shares.available(row.place, shelved.end)


def _lock(shares: Shares, session: ShareSession, row: _Row, bound: _Bound, data: Buffer, offset: int) -> bool:
    """Lock what is available in these batches from the offset on. Whether there is room for more."""
    assert row.place is not None
    for batch in extents(data):
        if batch.next <= offset:
            continue
        if not batch.records:
            shares.spend(row.place, batch.base, batch.next)
            continue
        nbytes = batch.end - batch.start
        # The first batch of an answer is sent however large it is, so that every member gets on.
        if bound.records <= 0 or (bound.size and nbytes > bound.bytes):
            return False
        end = batch.next
        if bound.hard:
            found = shares.available(row.place, max(batch.base, offset))
            if found is None or found[0] >= batch.next:
                continue
            end = min(end, found[0] + bound.records)
        acquired = shares.acquire(row.place, session.member, batch.base, end)
        if acquired:
            row.parts.append(memoryview(data)[batch.start : batch.end])
            bound.size += nbytes
            bound.bytes -= nbytes
        for each in acquired:
            bound.records -= each.end - each.base
            row.acquired.append({"first_offset": each.base, "last_offset": each.end - 1, "delivery_count": each.count})
    return bound.records > 0


def _by_topic(rows: Sequence[tuple[Key, Fields]]) -> list[Fields]:
    found: dict[bytes, list[Fields]] = {}
    for (uuid, _), row in rows:
        found.setdefault(uuid, []).append(row)
    return [{"topic_id": uuid, "partitions": partitions} for uuid, partitions in found.items()]


APIS: Final = {
    78: Api(1, 2, share_fetch),
    79: Api(1, 2, share_acknowledge),
}
