"""Who writes, and what is open: DescribeProducers (KIP-664), DescribeTransactions, ListTransactions."""

from __future__ import annotations

from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.messages import HttpError
from headwater.errors import HeadwaterError
from headwater.kafka import schema
from headwater.kafka.handlers import Api
from headwater.kafka.handlers.group_rules import throttle_ms
from headwater.kafka.handlers.nearby import lists
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.log.reserving import timeout_ms
from headwater.log.state import Producer, State, Topic

STATES: Final = (
    *("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"),
    "PrepareEpochFence",
)


def state_of(producer: Producer) -> str:
    """Kafka's word for where a transactional producer stands. An end takes no time here, so nothing is prepared."""
    if producer.is_busy:
        return "Ongoing"
    how = producer.ended.how if producer.ended is not None else ""
    return {"commit": "CompleteCommit", "abort": "CompleteAbort"}.get(how, "Empty")


def begun_ms(producer: Producer) -> int:
    """Manifest time at which the open transaction began; -1 if none is open."""
    return producer.deadline_ms - timeout_ms(producer) if producer.is_busy else -1


async def describe_transactions(peer: Peer, request: Request) -> Answer:
    """Where transactional ids stand. Cost: 1 GET."""
    asked = dict.fromkeys(request.fields["transactional_ids"])
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        code = ErrorCode.coordinator_not_available
        return {
            "transaction_states": [{"transactional_id": tid, "error_code": code} for tid in asked],
            "throttle_time": throttle_ms(error),
        }
    return {"transaction_states": [_described(peer, tid) for tid in asked]}


def _described(peer: Peer, tid: str) -> Fields:
    state = peer.namespace.state
    if not peer.service.may("describe", "transactional_id", tid):
        return {"transactional_id": tid, "error_code": ErrorCode.transactional_id_authorization_failed}
    if not tid:
        return {"transactional_id": tid, "error_code": ErrorCode.invalid_request}
    producer = state.producers.get(state.transactional.get(tid, -1))
    if producer is None:
        return {"transactional_id": tid, "error_code": ErrorCode.transactional_id_not_found}
    topics: dict[str, list[int]] = {}
    for topic, partition in producer.open:
        found = state.topics.get(topic)
        if found is not None and peer.service.may("describe", "topic", found.name):
            topics.setdefault(found.name, []).append(partition)
    return {
        "error_code": ErrorCode.none,
        "transactional_id": tid,
        "transaction_state": state_of(producer),
        "transaction_timeout": timeout_ms(producer),
        "transaction_start_time": begun_ms(producer),
        "producer_id": producer.id,
        "producer_epoch": producer.epoch,
        "topics": [{"topic": name, "partitions": sorted(places)} for name, places in topics.items()],
    }


async def list_transactions(peer: Peer, request: Request) -> Answer:
    """Transactional ids that the client may see, and those of the asked states. Cost: 1 GET."""
    asked = request.fields
    try:
        await peer.service.enter(fresh=True)
        await peer.gateway.fleet.look()
    except HeadwaterError as error:
        return {"error_code": ErrorCode.coordinator_not_available, "throttle_time": throttle_ms(error)}
    states, pids = set(asked["state_filters"]), set(asked["producer_id_filters"])
    names = {tid for tid in peer.namespace.state.transactional if lists(peer, tid)}
    if asked["transactional_id_pattern"]:
        from headwater.api.patterns import check_pattern, matching

        try:
            check_pattern(asked["transactional_id_pattern"])
            names = set(matching(asked["transactional_id_pattern"], names))
        except HttpError:
            return {"error_code": ErrorCode.invalid_regular_expression}
    since_ms = peer.namespace.chain.clock.wall_ms() - max(0, asked["duration_filter"])
    found = []
    for tid, pid in peer.namespace.state.transactional.items():
        producer = peer.namespace.state.producers[pid]
        long = asked["duration_filter"] < 0 or (producer.is_busy and begun_ms(producer) < since_ms)
        wanted = tid in names and (not pids or pid in pids) and (not states or state_of(producer) in states)
        if long and wanted and peer.service.may("describe", "transactional_id", tid):
            found.append({"transactional_id": tid, "producer_id": pid, "transaction_state": state_of(producer)})
    return {
        "error_code": ErrorCode.none,
        "unknown_state_filters": sorted(states.difference(STATES)),
        "transaction_states": found,
    }


async def describe_producers(peer: Peer, request: Request) -> Answer:
    """Who writes to partitions. Cost: 1 GET, and a look at every producer."""
    try:
        await peer.service.enter(fresh=True)
    except HeadwaterError as error:
        wait = ErrorCode.not_leader_or_follower
        topics = [_every(topic, wait, error.message) for topic in request.fields["topics"]]
        return {"topics": topics, "throttle_time": throttle_ms(error)}
    # A partition that is named twice is answered once: nothing is gained by saying the same a thousand times.
    asked: dict[str, dict[int, None]] = {}
    for topic in request.fields["topics"]:
        asked.setdefault(topic["name"], {}).update(dict.fromkeys(topic["partition_indexes"]))
    return {"topics": [_writers(peer, name, list(places)) for name, places in asked.items()]}


def _every(asked: Fields, code: ErrorCode, message: str | None = None) -> Fields:
    row: Fields = {"error_code": code, "error_message": message, "active_producers": []}
    rows = [{**row, "partition_index": index} for index in asked["partition_indexes"]]
    return {"name": asked["name"], "partitions": rows}


def _writers(peer: Peer, name: str, places: list[int]) -> Fields:
    state = peer.namespace.state
    if not peer.service.may("read", "topic", name):
        return _every({"name": name, "partition_indexes": places}, ErrorCode.topic_authorization_failed)
    topic = state.named(name)
    if topic is None:
        return _every({"name": name, "partition_indexes": places}, ErrorCode.unknown_topic_or_partition)
    known = {index: _none_yet(topic, index) for index in places}
    for producer in state.producers.values():
        for index in producer.sequences.get(topic.id, {}):
            if index in known and not known[index]["error_code"]:
                known[index]["active_producers"].append(_writer(state, producer, topic, index))
    return {"name": name, "partitions": list(known.values())}


def _none_yet(topic: Topic, index: int) -> Fields:
    exists = 0 <= index < len(topic.partitions)
    code = ErrorCode.none if exists else ErrorCode.unknown_topic_or_partition
    return {"partition_index": index, "error_code": code, "active_producers": []}


def _writer(state: State, producer: Producer, topic: Topic, index: int) -> Fields:
    known = producer.sequences[topic.id][index]
    first, count, _ = known.batches[-1]
    is_open = (topic.id, index) in producer.open
    bases = [held.entry.base for held in topic.partitions[index].held if held.pid == producer.id] if is_open else []
    return {
        "producer_id": producer.id,
        "producer_epoch": known.epoch,
        "last_sequence": (first + count - 1) % 2**31,
        "last_timestamp": producer.last_ms,
        "coordinator_epoch": 0 if producer.tid else -1,
        "current_txn_start_offset": min(bases, default=-1),
    }


APIS: Final = {
    61: Api(*schema.versions(61), describe_producers),
    65: Api(*schema.versions(65), describe_transactions),
    66: Api(*schema.versions(66), list_transactions),
}
