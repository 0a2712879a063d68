"""Transactions of Kafka clients: producer ids, what a transaction takes in, how it ends, and who may see that.

    InitProducerId ──► (AddPartitionsToTxn) ──► Produce …            Reserve: offsets are taken, nobody reads them yet
                   └─► (AddOffsetsToTxn) ─────► TxnOffsetCommit …    ReserveOffsets
                                                └──► EndTxn          EndReserve: all of it by one conditional write

What is in parentheses commits nothing: a transaction holds what it has reserved. Clients that know KIP-890 end with
EndTxn 5 or newer, leave those two out, and go on under the epoch of the answer; older ones keep their epoch. The fold
decides who is fenced. Who is refused here is judged by the newest knowledge, since a client may have come from another
gateway a moment ago; who is let in by old knowledge is refused by the fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import Conflict, Fenced, HeadwaterError, InvalidRequest
from headwater.kafka import schema
from headwater.kafka.deferring import Deferring
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_offsets import commit_code, commit_of, commit_parts, refused_parts
from headwater.kafka.handlers.group_rules import enter, group_code, throttle_ms
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.limits import INTENT_OPS_MAX, KAFKA_TRANSACTIONS_MAX, NAME_BYTES_MAX, TRANSACTION_MS_MAX
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownProducer
from headwater.log.reserving import Reserving
from headwater.log.state import State
from headwater.log.state.producers import last_end
from headwater.log.surely import commit_surely

BUMPING: Final = 5  # EndTxn from here on answers the next epoch (KIP-890)
BATCHED: Final = 4  # AddPartitionsToTxn from here on is for several transactions, and brokers ask it


class _Begun:
    """Producers that have told this gateway of a transaction since the last one ended; the newest of them.

    Nothing depends on it but one case: a client older than KIP-890 that begins a transaction, reserves nothing and
    aborts. It asks the same as one that takes its last commit back, and is told apart by having begun. If the gateway
    that heard of the beginning is gone, it is told INVALID_TXN_STATE, and needs a new instance: nothing was lost.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._known: dict[int, int] = {}

    def add(self, pid: int, epoch: int) -> None:
        self._known.pop(pid, None)
        self._known[pid] = epoch
        while len(self._known) > KAFKA_TRANSACTIONS_MAX:
            del self._known[next(iter(self._known))]

    def has(self, pid: int, epoch: int) -> bool:
        """Whether the producer has begun one under this epoch."""
        return self._known.get(pid) == epoch

    def drop(self, pid: int) -> None:
        """It has ended."""
        self._known.pop(pid, None)


# -- ids and epochs ----------------------------------------------------------------------------------------


async def init_producer_id(peer: Peer, request: Request) -> Answer:
    """A fresh id, or the next epoch of the transactional id, whose open transaction is aborted. Cost: 1 commit."""
    asked = request.fields
    tid, timeout_ms = asked["transactional_id"], asked["transaction_timeout"]
    pid, epoch = asked["producer_id"], asked["producer_epoch"]
    code = _init_code(peer, asked)
    try:
        await peer.service.enter()
    except HeadwaterError as error:
        return {**_unavailable(tid), "throttle_time": throttle_ms(error)}
    if code is not ErrorCode.none:
        return {"error_code": code}
    known = (pid, epoch) if tid is not None else (-1, -1)
    op = ops.InitProducer(tid=tid or "", pid=known[0], epoch=known[1], timeout_ms=timeout_ms if tid is not None else 0)
    try:
        outcome = await commit_surely(peer.namespace, [op])
    except (Fenced, UnknownProducer, InvalidRequest):
        again = last_end(peer.namespace.state, tid or "", pid, epoch)
        if again is not None and again[1].how == "renew" and not again[0].is_busy:
            return _identity(again[0].id, again[0].epoch)  # the client missed the answer to the same request
        if tid and tid not in peer.namespace.state.transactional:
            # It was silent for days and is forgotten, so nobody else has taken its place: it begins anew, as in Kafka.
            return await init_producer_id(peer, replace(request, fields={**asked, **_ANEW}))
        return {"error_code": _fenced(request, newer=4)}
    except HeadwaterError:
        return _unavailable(tid)
    return _identity(outcome.values["pid"], outcome.values["epoch"])


_ANEW: Final = {"producer_id": -1, "producer_epoch": -1}


def _init_code(peer: Peer, asked: Fields) -> ErrorCode:
    tid = asked["transactional_id"]
    if tid is None:
        may = peer.service.may("write", "cluster") or peer.service.may_some("write", "topic")
        return ErrorCode.none if may else ErrorCode.cluster_authorization_failed
    if not peer.service.may("write", "transactional_id", tid) or asked["enable2_pc"]:
        return ErrorCode.transactional_id_authorization_failed  # nobody may leave transactions open for ever (KIP-939)
    if asked["keep_prepared_txn"]:
        return ErrorCode.unsupported_version
    if not tid or len(tid.encode()) > NAME_BYTES_MAX or (asked["producer_id"] < 0) != (asked["producer_epoch"] < 0):
        return ErrorCode.invalid_request
    if not 0 < asked["transaction_timeout"] <= TRANSACTION_MS_MAX:
        return ErrorCode.invalid_transaction_timeout
    return ErrorCode.none


def _identity(pid: int, epoch: int) -> Fields:
    return {"error_code": ErrorCode.none, "producer_id": pid, "producer_epoch": epoch}


def _unavailable(tid: str | None) -> Fields:
    # Without a transactional id there is no coordinator that the client could look for.
    waits = ErrorCode.coordinator_load_in_progress if tid is None else ErrorCode.coordinator_not_available
    return {"error_code": waits}


def _fenced(request: Request, *, newer: int = 2) -> ErrorCode:
    """Clients of versions before ``newer`` do not know the code that was made for it."""
    return ErrorCode.producer_fenced if request.version >= newer else ErrorCode.invalid_producer_epoch


async def _code(peer: Peer, request: Request, tid: str, pid: int, epoch: int) -> ErrorCode:
    """Whether the producer is the transactional id's, by the newest knowledge if not. Cost: nothing, or 1 GET."""
    if not tid:
        return ErrorCode.invalid_request
    if not peer.service.may("write", "transactional_id", tid):
        return ErrorCode.transactional_id_authorization_failed
    if _known_code(peer.namespace.state, request, tid, pid, epoch) is ErrorCode.none:
        return ErrorCode.none
    return _known_code(await peer.namespace.refresh(), request, tid, pid, epoch)


def _known_code(state: State, request: Request, tid: str, pid: int, epoch: int) -> ErrorCode:
    producer = state.producers.get(pid)
    if producer is None or state.transactional.get(tid) != pid:
        return ErrorCode.invalid_producer_id_mapping
    return ErrorCode.none if producer.epoch == epoch else _fenced(request)


def _reserving(peer: Peer, asked: Fields) -> Reserving:
    return Reserving(peer.namespace, asked["transactional_id"], asked["producer_id"], asked["producer_epoch"])


# -- what a transaction takes in -----------------------------------------------------------------------------


async def add_partitions(peer: Peer, request: Request) -> Answer:
    """AddPartitionsToTxn: judge what a transaction is about to write to. Cost: nothing, or 1 GET."""
    asked = request.fields
    if request.version >= BATCHED:
        try:
            await peer.service.enter()
        except HeadwaterError as error:
            return {"error_code": ErrorCode.coordinator_not_available, "throttle_time": throttle_ms(error)}
        found = [
            {"transactional_id": each["transactional_id"], "topic_results": await _added(peer, request, each)}
            for each in asked["transactions"]
        ]
        return {"error_code": ErrorCode.none, "results_by_transaction": found}
    old = "v3_and_below_"
    one = {name.removeprefix(old): value for name, value in asked.items() if name.startswith(old)}
    try:
        await peer.service.enter()
    except HeadwaterError as error:
        rows = _every(one, ErrorCode.coordinator_not_available)
        return {"results_by_topic_v3_and_below": rows, "throttle_time": throttle_ms(error)}
    return {"results_by_topic_v3_and_below": await _added(peer, request, {**one, "verify_only": False})}


async def _added(peer: Peer, request: Request, asked: Fields) -> list[Fields]:
    """All of the transaction's partitions are added, or none."""
    pid, epoch = asked["producer_id"], asked["producer_epoch"]
    if not peer.service.may("write", "transactional_id", asked["transactional_id"]):
        return _every(asked, ErrorCode.transactional_id_authorization_failed)
    rows = _placed(peer, asked)
    parts = [part for topic in rows for part in topic["results_by_partition"]]
    if any(part["partition_error_code"] is ErrorCode.unknown_topic_or_partition for part in parts):
        await peer.namespace.refresh()  # another gateway may have made it
        rows = _placed(peer, asked)
        parts = [part for topic in rows for part in topic["results_by_partition"]]
    if any(part["partition_error_code"] for part in parts):
        for part in parts:
            part["partition_error_code"] = part["partition_error_code"] or ErrorCode.operation_not_attempted
        return rows
    try:
        code = await _code(peer, request, asked["transactional_id"], pid, epoch)
    except HeadwaterError:
        code = ErrorCode.coordinator_not_available
    if code is not ErrorCode.none:
        return _every(asked, code)
    if asked["verify_only"]:
        return _verified(peer, request, asked)
    peer.namespace.shared(_Begun).add(pid, epoch)
    return rows


def _placed(peer: Peer, asked: Fields) -> list[Fields]:
    """Of each partition whether it is there, as far as this gateway knows, and may be written to."""
    rows = _every(asked, ErrorCode.none)
    for topic in rows:
        for part in topic["results_by_partition"]:
            part["partition_error_code"] = _place_code(peer, topic["name"], part["partition_index"])
    return rows


def _place_code(peer: Peer, topic: str, partition: int) -> ErrorCode:
    if not peer.service.may("write", "topic", topic):
        return ErrorCode.topic_authorization_failed
    found = peer.namespace.state.named(topic)
    exists = found is not None and 0 <= partition < len(found.partitions)
    return ErrorCode.none if exists else ErrorCode.unknown_topic_or_partition


def _verified(peer: Peer, request: Request, asked: Fields) -> list[Fields]:
    """Whether the partitions are in the transaction (KIP-890, part 1)."""
    state = peer.namespace.state
    missing = ErrorCode.transaction_abortable if request.version > BATCHED else ErrorCode.invalid_txn_state
    known = set(state.producers[asked["producer_id"]].open)
    rows = _every(asked, ErrorCode.none)
    for topic in rows:
        for part in topic["results_by_partition"]:
            place = (state.names[topic["name"]], part["partition_index"])
            part["partition_error_code"] = ErrorCode.none if place in known else missing
    return rows


def _every(asked: Fields, code: ErrorCode) -> list[Fields]:
    """The same for every partition."""
    return [
        {
            "name": topic["name"],
            "results_by_partition": [
                {"partition_index": index, "partition_error_code": code} for index in topic["partitions"]
            ],
        }
        for topic in asked["topics"]
    ]


async def add_offsets(peer: Peer, request: Request) -> Answer:
    """AddOffsetsToTxn: judge a transaction that is about to move a group's offsets. Cost: nothing, or 1 GET."""
    asked = request.fields
    pid, epoch = asked["producer_id"], asked["producer_epoch"]
    try:
        if not peer.service.may("write", "transactional_id", asked["transactional_id"]):
            return {"error_code": ErrorCode.transactional_id_authorization_failed}
        await enter(peer, asked["group_id"])
        code = await _code(peer, request, asked["transactional_id"], pid, epoch)
    except HeadwaterError as error:
        return {"error_code": group_code(error), "throttle_time": throttle_ms(error)}
    if code is ErrorCode.none:
        peer.namespace.shared(_Begun).add(pid, epoch)
    return {"error_code": code}


async def txn_offset_commit(peer: Peer, request: Request) -> Answer:
    """TxnOffsetCommit: keep a group's offsets for the end of the transaction. Cost: 1 commit."""
    asked = request.fields
    try:
        if not peer.service.may("write", "transactional_id", asked["transactional_id"]):
            return refused_parts(request, ErrorCode.transactional_id_authorization_failed)
        await enter(peer, asked["group_id"])
        code = await _code(peer, request, asked["transactional_id"], asked["producer_id"], asked["producer_epoch"])
        if code is ErrorCode.producer_fenced:
            code = ErrorCode.invalid_producer_epoch  # the group's coordinator, whom clients ask here, knows no other
        if code is ErrorCode.none:
            code = _of_transaction(await commit_code(peer, request))
    except HeadwaterError as error:
        return refused_parts(request, group_code(error), throttle_ms(error))
    if code is not ErrorCode.none:
        return refused_parts(request, code)
    topics, parts = await commit_parts(peer, request)
    wanted = [part for part in parts if part.entry is not None]
    if wanted:
        code = await _reserve_offsets(peer, request, [part.entry for part in wanted if part.entry is not None])
        for part in wanted:
            part.answer["error_code"] = code
    for part in parts:
        part.answer["error_code"] = _of_transaction(part.answer["error_code"])
    return {"topics": topics}


def _of_transaction(code: ErrorCode) -> ErrorCode:
    """Producers do not know what members of the consumer protocol are told."""
    stale = code in (ErrorCode.stale_member_epoch, ErrorCode.group_id_not_found)
    return ErrorCode.illegal_generation if stale else code


async def _reserve_offsets(peer: Peer, request: Request, entries: Sequence[ops.OffsetEntry]) -> ErrorCode:
    asked, size = request.fields, INTENT_OPS_MAX
    commits = [commit_of(request, entries[start : start + size]) for start in range(0, len(entries), size)]
    try:
        await _reserving(peer, asked).move(commits)
    except (Fenced, UnknownProducer):
        # Somebody was first; the state tells by now who.
        tid, pid, epoch = asked["transactional_id"], asked["producer_id"], asked["producer_epoch"]
        known = _known_code(peer.namespace.state, request, tid, pid, epoch)
        if known is not ErrorCode.none:
            return ErrorCode.invalid_producer_epoch if known is ErrorCode.producer_fenced else known
        code = _of_transaction(await commit_code(peer, request))
        return ErrorCode.illegal_generation if code is ErrorCode.none else code
    except HeadwaterError as error:
        return group_code(error, InvalidRequest=ErrorCode.invalid_commit_offset_size)
    return ErrorCode.none


# -- how it ends -------------------------------------------------------------------------------------------


async def end_txn(peer: Peer, request: Request) -> Answer:
    """EndTxn: all of it becomes true, or nothing. Cost: 1 commit.

    A repetition gets the first answer. A transaction that was aborted by others, for its time or by a new instance, is
    never said to have been committed: its producer is fenced.
    """
    asked = request.fields
    tid, pid, epoch = asked["transactional_id"], asked["producer_id"], asked["producer_epoch"]
    commit, bump = asked["committed"], request.version >= BUMPING
    open_, begun = _reserving(peer, asked), peer.namespace.shared(_Begun)
    try:
        await peer.service.enter()
        code = await _code(peer, request, tid, pid, epoch)
        if code is ErrorCode.none:
            end = partial(peer.namespace.shared(Deferring).end, open_) if peer.deferred else open_.end
            found = await end(commit=commit, bump=bump, begun=begun.has(pid, epoch))
            begun.drop(pid)
        elif code in _ELSEWHERE:
            found = open_.ended(commit=commit, otherwise=Fenced("The producer is somebody else's."))
        else:
            return {"error_code": code}
    except (Fenced, UnknownProducer):
        code = _known_code(peer.namespace.state, request, tid, pid, epoch)
        return {"error_code": _fenced(request) if code is ErrorCode.none else code}
    except (Conflict, InvalidRequest):
        return {"error_code": ErrorCode.invalid_txn_state}
    except HeadwaterError as error:  # clients ask again, and are told what became of it
        return {"error_code": ErrorCode.coordinator_not_available, "throttle_time": throttle_ms(error)}
    return _identity(*found)


_ELSEWHERE: Final = (
    *(ErrorCode.producer_fenced, ErrorCode.invalid_producer_epoch),
    ErrorCode.invalid_producer_id_mapping,  # past the last epoch a producer gets a new id
)


async def write_markers(peer: Peer, request: Request) -> Answer:
    """WriteTxnMarkers: brokers ask it of each other, and there are none."""
    code = ErrorCode.cluster_authorization_failed
    return {
        "markers": [
            {
                "producer_id": marker["producer_id"],
                "topics": [
                    {
                        "name": topic["name"],
                        "partitions": [
                            {"partition_index": index, "error_code": code} for index in topic["partition_indexes"]
                        ],
                    }
                    for topic in marker["topics"]
                ],
            }
            for marker in request.fields["markers"]
        ]
    }


APIS: Final = {
    22: Api(*schema.versions(22), init_producer_id),
    24: Api(*schema.versions(24), add_partitions),
    25: Api(*schema.versions(25), add_offsets),
    26: Api(*schema.versions(26), end_txn),
    27: Api(*schema.versions(27), write_markers),
    28: Api(*schema.versions(28), txn_offset_commit),
}
