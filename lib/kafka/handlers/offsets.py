"""Where partitions begin and end, and what lies at a time."""

from __future__ import annotations

from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import HeadwaterError
from headwater.kafka import schema
from headwater.kafka.errors import code_of
from headwater.kafka.handlers import Api
from headwater.kafka.model import Answer, Fields, Later, Peer, Request
from headwater.kafka.names import LEADER_EPOCH
from headwater.log.state import Partition

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5


async def list_offsets(peer: Peer, request: Request) -> Answer:
    """Offsets by name or by time. The latest is where readers stop, whatever their isolation."""
    return Later(_list_offsets(peer, request))


async def _list_offsets(peer: Peer, request: Request) -> Fields:
    await peer.namespace.refresh()
    topics = []
    for topic in request.fields["topics"]:
        rows = [await _offset(peer, topic["name"], each) for each in topic["partitions"]]
        topics.append({"name": topic["name"], "partitions": rows})
    return {"topics": topics}


async def _offset(peer: Peer, topic: str, asked: Fields) -> Fields:
    answer: Fields = {"partition_index": asked["partition_index"], "timestamp": -1, "offset": -1, "leader_epoch": -1}
    place, code = _place(peer, topic, asked["partition_index"], asked["current_leader_epoch"])
    answer["error_code"] = code
    if place is None:
        return answer
    when = asked["timestamp"]
    if when == LATEST:
        return answer | {"offset": place.stable_end, "leader_epoch": LEADER_EPOCH}
    if when in (EARLIEST, EARLIEST_LOCAL):
        return answer | {"offset": place.start, "leader_epoch": LEADER_EPOCH}
    if when < MAX_TIMESTAMP:
        return answer  # as in Kafka without tiers: nothing
    try:
        number = asked["partition_index"]
        time_ms = await _newest(peer, topic, number, place) if when == MAX_TIMESTAMP else when
        found = None if time_ms is None else await peer.namespace.reader.offset_at(topic, number, time_ms)
    except HeadwaterError as error:
        return answer | {"error_code": code_of(error, Unavailable=ErrorCode.kafka_storage_error)}
    if found is None:
        return answer
    return answer | {"offset": found[0], "timestamp": found[1], "leader_epoch": LEADER_EPOCH}


async def _newest(peer: Peer, topic: str, partition: int, place: Partition) -> int | None:
    """The largest timestamp in the partition, None if it is empty (KIP-734). Cost: the whole index, and no record."""
    lookup, number = peer.namespace.lookup, peer.namespace.topic(topic).id
    times = [file.max async for file in lookup.files(number, partition, place.start)]
    async for entry in lookup.entries(number, partition, place.hot):
        if entry.base >= place.stable_end:
            break
        if entry.codec != "gap":
            times.append(entry.max)
    return max(times, default=None)


async def offset_for_leader_epoch(peer: Peer, request: Request) -> Answer:
    """Where an epoch of the leader ended (KIP-101): there has only ever been one."""
    await peer.namespace.refresh()
    topics = []
    for topic in request.fields["topics"]:
        rows = []
        for each in topic["partitions"]:
            place, code = _place(peer, topic["topic"], each["partition"], each["current_leader_epoch"])
            row: Fields = {"partition": each["partition"], "error_code": code}
            if place is not None and each["leader_epoch"] == LEADER_EPOCH:
                row |= {"leader_epoch": LEADER_EPOCH, "end_offset": place.stable_end}
            rows.append(row)
        topics.append({"topic": topic["topic"], "partitions": rows})
    return {"topics": topics}


def _place(peer: Peer, topic: str, partition: int, leader_epoch: int) -> tuple[Partition | None, ErrorCode]:
    if not peer.service.may("describe", "topic", topic):
        return None, ErrorCode.topic_authorization_failed
    found = peer.namespace.state.named(topic)
    if found is None or not 0 <= partition < len(found.partitions):
        return None, ErrorCode.unknown_topic_or_partition
    if leader_epoch > LEADER_EPOCH:
        return None, ErrorCode.unknown_leader_epoch
    return found.partitions[partition], ErrorCode.none


APIS: Final = {2: Api(*schema.versions(2), list_offsets), 23: Api(*schema.versions(23), offset_for_leader_epoch)}
