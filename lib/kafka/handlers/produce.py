"""Produce: record batches as clients sent them become one intent a request.

    request ──► rights, CRC, header ──► one intent for all of its partitions ──► the answer, when it is committed

The handler returns once the intent waits in the writer's queue, so that the next request of the connection comes behind
it; the writer gathers the intents of all clients for ``linger_ms``. If the fold refuses the intent, nothing of it was
applied, and each partition is tried by itself, so that one bad batch fails alone, as in Kafka. Batches of a transaction
take their offsets now and become visible at its end (``Reserve``).

An idempotent producer without a transactional id that has given up a batch gives itself its next epoch and begins
again with sequence 0 (KIP-360); and one that was forgotten, since it was silent for days or the idlest of too many,
goes on as if nothing had been. Nobody is asked about either, so the first batch tells the fold of it, in the same
intent. From then on the producer's epochs count by partition, as in Kafka.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kio.schema.errors import ErrorCode

from headwater import tracing
from headwater.errors import Fenced, HeadwaterError, Indeterminate, InvalidRequest, Unavailable
from headwater.kafka import schema
from headwater.kafka.deferring import Deferring
from headwater.kafka.errors import code_of
from headwater.kafka.figures import PRODUCE
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.paying import charged, owed_ms, settled
from headwater.kafka.model import Answer, Fields, Later, Peer, Request, Soon
from headwater.kafka.names import UNKNOWN, topic_for
from headwater.limits import INTENT_APPENDS_MAX, KAFKA_HELD_BACK_S, TRACE_HEADER_BYTES_MAX
from headwater.log import kafka2
from headwater.log import operations as ops
from headwater.log.batch import batch_of_kafka2, keyless_rows
from headwater.log.config import MAX_MESSAGE_BYTES, TopicConfig
from headwater.log.outcomes import OutOfOrder, UnknownProducer
from headwater.log.reserving import timeout_ms
from headwater.log.state import Outcome, Topic
from headwater.log.state.producers import EPOCH_LAST
from headwater.log.surely import commit_surely
from headwater.log.together import unheard
from headwater.log.writer import Append

PAUSE_S_MIN: Final = 0.25  # before a request that is over the quota is refused, so that nobody asks in a circle


@dataclass(slots=True)
class _Part:
    """What is wanted of one partition, and its answer."""

    topic: Topic | None
    index: int
    answer: Fields
    append: Append | None = None
    transactional: bool = False
    nbytes: int = 0


def produce(peer: Peer, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
    """Append. With ``acks=0`` nobody hears of it."""
    asked = request.fields
    if asked["acks"] not in (-1, 0, 1):
        return _refused(asked, ErrorCode.invalid_required_acks)
    tid = asked["transactional_id"]
    if tid and not peer.service.may("write", "transactional_id", tid):
        return _refused(asked, ErrorCode.transactional_id_authorization_failed)
    answers, parts = _read(peer, asked)
    for part in parts:
        if part.answer["error_code"] in UNKNOWN:
            return _looked_again(peer, request)
    return _judged(peer, request, answers, parts)


async def _looked_again(peer: Peer, request: Request) -> Answer:
    """A topic, or a partition, that is not known here may have been made at another gateway just now."""
    code: ErrorCode | None = None
    try:
        await peer.namespace.refresh()
    except HeadwaterError as error:
        code = code_of(error)
    answers, parts = _read(peer, request.fields)
    for part in parts:
        if code is not None and part.answer["error_code"] in UNKNOWN:
            part.answer["error_code"] = code
    answer = _judged(peer, request, answers, parts)
    return await answer if isinstance(answer, Coroutine) else answer


def _judged(peer: Peer, request: Request, answers: Fields, parts: list[_Part]) -> Answer | Coroutine[Any, Any, Answer]:
    """Begin with what there is nothing to be said against."""
    asked = request.fields
    wanted = [part for part in parts if part.append is not None]
    if len(wanted) < len(parts):
        for part in parts:
            if part.append is None:
                peer.gateway.figures.api(PRODUCE).refused(part.answer["error_code"])
    if not wanted:
        return None if asked["acks"] == 0 else answers
    if owed_ms(peer, "produce"):
        return _held_back(peer, request, answers, wanted)
    peer.owes_since_s = -1.0
    return _begin(peer, request, answers, wanted)


async def _held_back(peer: Peer, request: Request, answers: Fields, wanted: list[_Part]) -> Answer:
    """Begin when what was sent before is paid for; or refuse it, while the client still listens. It tries again.

    Requests of a connection wait for one another, so what the first of them has waited counts for those behind it.
    """
    now_s = peer.gateway.now_s()
    if peer.owes_since_s < 0:
        peer.owes_since_s = now_s
    patience_s = max(PAUSE_S_MIN, peer.owes_since_s + KAFKA_HELD_BACK_S - now_s)
    silent_ms = await settled(peer, "produce", patience_s if request.fields["acks"] else math.inf)
    if not silent_ms and not peer.has_left:  # who has left sends it again elsewhere
        peer.owes_since_s = -1.0
        answer = _begin(peer, request, answers, wanted)
        return await answer if isinstance(answer, Coroutine) else answer
    for part in wanted:
        text = f"The quota is used up for {silent_ms} ms more. Nothing was appended; send it again then."
        part.answer.update(error_code=ErrorCode.not_enough_replicas, error_message=text)
    peer.gateway.figures.api(PRODUCE).throttled(silent_ms)
    return {**answers, "throttle_time": silent_ms}


async def _in_turn(peer: Peer, answer: Callable[[], Answer]) -> Answer:
    """Until an append has begun the writer does not know of it, and the next request must come behind it."""
    await peer.gateway.clock.sleep(0)
    return answer()


def _begin(peer: Peer, request: Request, answers: Fields, wanted: list[_Part]) -> Answer | Coroutine[Any, Any, Answer]:
    """Put the intents of what is wanted into the writer's queue."""
    asked = request.fields
    answers["throttle_time"] = charged(peer, PRODUCE, "produce", sum([part.nbytes for part in wanted]))
    sending = [_sending(peer, asked["transactional_id"], group) for group in _groups(wanted)]
    span = _span(request, wanted) if tracing.is_on() else None
    with tracing.within(span.context if span is not None else None):
        begun = [each.begin() for each in sending]
    before, peer.appending = peer.appending, asyncio.get_running_loop().create_future()
    done = peer.appending

    async def finished() -> Fields:
        try:
            for each in sending:
                await each.finish(before)
        finally:
            done.set_result(None)
            if span is not None:
                span.end(next((code.name for part in wanted if (code := part.answer["error_code"])), ""))
        return answers

    if asked["acks"] == 0:
        peer.gateway.keep(finished())
    if None in begun:
        return _in_turn(peer, lambda: Later(finished()) if asked["acks"] else None)
    if asked["acks"] == 0:
        return None
    if len(begun) != 1 or begun[0] is None:
        return Later(finished())

    def then() -> Fields | Later:
        if not sending[0].placed():
            return Later(finished())
        done.set_result(None)
        return answers

    return Soon(begun[0], then)


def _span(request: Request, parts: list[_Part]) -> tracing.Opened | None:
    """The request's own trace. The records' headers may name their senders': they are opaque here, and stay so."""
    topics = {part.topic.name for part in parts if part.topic is not None}
    topic = topics.pop() if len(topics) == 1 else ""
    return tracing.opened(
        f"produce {topic}".strip(),
        "SERVER",
        messaging__system=tracing.SYSTEM,
        messaging__operation__name="produce",
        messaging__operation__type="send",
        messaging__destination__name=topic,
        messaging__destination__partition__id=str(parts[0].index) if len(parts) == 1 else None,
        messaging__client__id=request.client[:TRACE_HEADER_BYTES_MAX],
        messaging__batch__message_count=sum(part.append.batch.count for part in parts if part.append is not None),
        messaging__message__body__size=sum(part.nbytes for part in parts),
    )


# -- from the request to appends ----------------------------------------------------------------------------


def _read(peer: Peer, asked: Fields) -> tuple[Fields, list[_Part]]:
    """The answer as it will be, and the partitions in it."""
    parts: list[_Part] = []
    responses = []
    for wanted in asked["topic_data"]:
        topic, code = topic_for(peer, "write", wanted["name"], wanted["topic_id"])
        row = []
        for each in wanted["partition_data"]:
            part = _Part(topic, each["index"], {"index": each["index"], "error_code": code, "base_offset": -1})
            if topic is not None and not code:
                _check(peer, part, each["records"])
            parts.append(part)
            row.append(part.answer)
        responses.append({"name": wanted["name"], "topic_id": wanted["topic_id"], "partition_responses": row})
    return {"responses": responses}, parts


def _check(peer: Peer, part: _Part, records: Any) -> None:
    """Make the partition's append, or say in its answer what is wrong with it."""
    topic = part.topic
    assert topic is not None
    if not 0 <= part.index < len(topic.partitions):
        part.answer["error_code"] = ErrorCode.unknown_topic_or_partition
        return
    if not records:
        part.answer.update(error_code=ErrorCode.invalid_record, error_message="There is no record batch.")
        return
    if MAX_MESSAGE_BYTES in topic.config:
        most = TopicConfig.of(topic.config).max_message_bytes
        if len(records) > most:
            text = f"The batch has {len(records)} bytes; {topic.name} takes at most {most} ({MAX_MESSAGE_BYTES})."
            part.answer.update(error_code=ErrorCode.message_too_large, error_message=text)
            return
    compacted = "compact" in topic.config.get("cleanup.policy", "")
    try:
        batch = batch_of_kafka2(records, check_records=compacted)
    except InvalidRequest as error:
        part.answer.update(error_code=_wrong_with(records, error), error_message=error.message)
        return
    part.transactional = kafka2.is_transactional(records)
    part.nbytes = len(batch.data)
    part.append = Append(topic=topic.id, partition=part.index, batch=batch)


def _wrong_with(records: Any, error: InvalidRequest) -> ErrorCode:
    if "message format" in error.message:
        return ErrorCode.unsupported_for_message_format
    if "CRC32C" in error.message or "claims" in error.message or "too few" in error.message:
        return ErrorCode.corrupt_message
    return ErrorCode.message_too_large if "at most" in error.message else ErrorCode.invalid_record


def _groups(parts: list[_Part]) -> list[list[_Part]]:
    """Parts that can be one intent: of one transaction, or of none, and not too many of them."""
    found: dict[int, list[_Part]] = {}
    for part in parts:
        assert part.append is not None
        found.setdefault(part.append.batch.producer_id if part.transactional else -1, []).append(part)
    size = INTENT_APPENDS_MAX
    return [group[at : at + size] for group in found.values() for at in range(0, len(group), size)]


def _refused(asked: Fields, code: ErrorCode) -> Fields:
    """The same error for every partition."""
    return {
        "responses": [
            {
                "name": topic["name"],
                "topic_id": topic["topic_id"],
                "partition_responses": [
                    {"index": part["index"], "error_code": code, "base_offset": -1} for part in topic["partition_data"]
                ],
            }
            for topic in asked["topic_data"]
        ]
    }


# -- from appends to the answer -----------------------------------------------------------------------------


class _Sending:
    """Parts on their way into the log by one intent, or where that is refused by one each."""

    def __init__(self, peer: Peer, parts: list[_Part]) -> None:
        self._peer = peer
        self._parts = parts
        self._wishes: Sequence[ops.AnyOp] = ()
        self._begun: asyncio.Future[Outcome] | None = None
        self._task: asyncio.Task[Outcome] | None = None

    def begin(self) -> asyncio.Future[Outcome] | None:
        """Put the intent into the writer's queue: at once if that can be, else as soon as the loop turns (None)."""
        self._wishes = self._wishes_for(self._parts)
        if not tracing.is_on():  # a commit's span has a task of its own around it
            try:
                self._begun = self._peer.namespace.writer.begin(
                    self._appends(self._parts), self._wishes, caller=self._peer, told=self._told(self._parts)
                )
            except HeadwaterError:
                pass
        if self._begun is None:
            self._task = self._started(self._commit(self._parts, self._wishes))
        return self._begun

    def placed(self) -> bool:
        """Whether what has begun at once is done and went well: then the answers have it."""
        begun = self._begun
        if begun is None or not begun.done() or begun.exception() is not None or begun.result().error:
            return False
        self._place(self._parts, begun.result())
        return True

    async def finish(self, before: asyncio.Future[None] | None) -> None:
        """Wait for the outcome and write it into the answers. ``before`` is done when the last request is."""
        try:
            outcome = await (self._task or self._commit(self._parts, self._wishes, self._begun))
            self._place(self._parts, outcome)
            return
        except HeadwaterError as error:
            overtook = isinstance(error, OutOfOrder) and before is not None and not before.done()
            if isinstance(error, Unavailable | Indeterminate) or (len(self._parts) == 1 and not overtook):
                for part in self._parts:
                    self._fail(part, error)
                return
        # Nothing of the intent was applied, so each may be tried again. In their order, one after another, and behind
        # the request before, which may be trying again as well.
        if before is not None:
            await asyncio.shield(before)
        for part in self._parts:
            try:
                self._place([part], await self._commit([part], self._wishes_for([part])))
            except HeadwaterError as error:
                self._fail(part, error)

    def _started(self, coroutine: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(unheard)
        return task

    async def _commit(
        self, parts: list[_Part], wishes: Sequence[ops.AnyOp], begun: asyncio.Future[Outcome] | None = None
    ) -> Outcome:
        try:
            return await self._append(parts, wishes, begun)
        except (Fenced, InvalidRequest, UnknownProducer):
            # Nothing was applied, and by now all is folded that another gateway, or a request before, has done.
            now = self._wishes_for(parts)
            if parts[0].transactional or now == wishes:
                raise
            return await self._append(parts, now)

    async def _append(
        self, parts: list[_Part], wishes: Sequence[ops.AnyOp], begun: asyncio.Future[Outcome] | None = None
    ) -> Outcome:
        return await commit_surely(
            self._peer.namespace,
            wishes,
            self._appends(parts),
            caller=self._peer,
            told=self._told(parts),
            begun=begun,
        )

    def _appends(self, parts: list[_Part]) -> list[Append]:
        return [part.append for part in parts if part.append is not None]

    def _told(self, parts: list[_Part]) -> Callable[[Outcome], None]:
        return lambda outcome: self._offer(parts, outcome)

    def _offer(self, parts: list[_Part], outcome: Outcome) -> None:
        """Leave what is committed to readers at the end, who are woken next."""
        if outcome.error or parts[0].transactional:
            return
        shelf = self._peer.gateway.shelf(self._peer.namespace)
        for part, base in zip(parts, outcome.bases, strict=True):
            assert part.topic is not None
            assert part.append is not None
            batch = part.append.batch
            shelf.offer((part.topic.id, part.index), base, base + batch.count, batch.data)

    def _wishes_for(self, parts: list[_Part]) -> Sequence[ops.AnyOp]:
        """The operations beside the appends of one intent."""
        return [self._reserve(parts[0])] if parts[0].transactional else self._renewals(parts)

    def _renewals(self, parts: list[_Part]) -> list[ops.InitProducer]:
        """What the fold has to hear of producers first, as far as this gateway knows: which epochs they have given
        themselves, and that those which were forgotten go on. No Kafka client asks anybody about either.
        """
        state = self._peer.namespace.state
        found: dict[int, int] = {}
        for part in parts:
            assert part.append is not None
            pid, epoch = part.append.batch.producer_id, part.append.batch.producer_epoch
            known = state.producers.get(pid)
            if known is None:
                is_news = 0 <= pid < state.next_producer
            else:
                is_news = epoch > known.epoch and not known.tid
            if is_news and epoch <= EPOCH_LAST:
                found[pid] = max(found.get(pid, 0), epoch)
        return [ops.InitProducer(pid=pid, epoch=epoch, again=True) for pid, epoch in found.items()]

    def _reserve(self, part: _Part) -> ops.Reserve:
        assert part.append is not None
        batch = part.append.batch
        known = self._peer.namespace.state.producers.get(batch.producer_id)
        return ops.Reserve(pid=batch.producer_id, epoch=batch.producer_epoch, timeout_ms=timeout_ms(known))

    def _place(self, parts: list[_Part], outcome: Outcome) -> None:
        for part, base in zip(parts, outcome.bases, strict=True):
            assert part.topic is not None
            start = part.topic.partitions[part.index].start
            part.answer.update(error_code=ErrorCode.none, base_offset=base, log_start_offset=start)

    def _fail(self, part: _Part, error: HeadwaterError) -> None:
        code = code_of(error, InvalidRequest=ErrorCode.invalid_record, Conflict=ErrorCode.invalid_txn_state)
        if isinstance(error, InvalidRequest) and error.data.get("reason") == "invalid":
            code = ErrorCode.invalid_producer_epoch
        if isinstance(error, UnknownProducer) and part.transactional:
            code = ErrorCode.invalid_producer_id_mapping
        part.answer.update(error_code=code, error_message=error.message, base_offset=-1)
        if code is ErrorCode.invalid_record:
            part.answer["record_errors"] = _at_fault(part, error)
        self._peer.gateway.figures.api(PRODUCE).refused(code)


def _at_fault(part: _Part, error: HeadwaterError) -> list[Fields]:
    """The records for which a batch is refused, so that its client knows that the others are innocent (KIP-467)."""
    row = error.data.get("row")
    if not isinstance(row, int) or part.append is None:
        return []
    rows = keyless_rows(part.append.batch) if row == part.append.batch.keyless else [row]
    return [{"batch_index": each, "batch_index_error_message": error.message if each == row else None} for each in rows]


class _Deferred(_Sending):
    """Parts of a transaction that wait outside of the log: they have their offsets at its end."""

    def __init__(self, peer: Peer, tid: str, parts: list[_Part]) -> None:
        super().__init__(peer, parts)
        self._tid = tid
        self._taken: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Put the parts into the transaction's queue."""
        self._taken = self._peer.namespace.shared(Deferring).begin(self._tid, self._appends(self._parts))

    async def finish(self, before: asyncio.Future[None] | None) -> None:
        """Wait until they are stored and named."""
        assert self._taken is not None
        try:
            await asyncio.shield(self._taken)  # what is begun goes on when its client is gone
        except HeadwaterError as error:
            for part in self._parts:
                self._fail(part, error)
            return
        for part in self._parts:
            part.answer.update(error_code=ErrorCode.none, base_offset=-1)


def _sending(peer: Peer, tid: str | None, parts: list[_Part]) -> _Sending:
    return _Deferred(peer, tid or "", parts) if peer.deferred and parts[0].transactional else _Sending(peer, parts)


APIS: Final = {0: Api(*schema.versions(0), produce)}
