"""What every client asks first: which APIs there are, which topics, and where."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.api.access import INTERNAL
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.kafka import schema
from headwater.kafka.errors import code_of
from headwater.kafka.handlers import Api, table
from headwater.kafka.handlers.nearby import places_of, replicas_of, zone_of
from headwater.kafka.model import Answer, Fields, Peer, Request
from headwater.kafka.names import LEADER_EPOCH, NO_UUID, cluster_id, topic_by_uuid, topic_uuid
from headwater.kafka.rights import NOT_ASKED, operations_of
from headwater.log import keys
from headwater.log.state import Topic

FEATURES: Final = {"group.version": 1, "share.version": 1, "transaction.version": 2}  # KIP-848; KIP-932; KIP-890
FEATURES_OFF_FROM: Final = 4  # of ApiVersions
PARTITIONS_MAX: Final = 2_000  # of one answer to DescribeTopicPartitions, as in Kafka


async def api_versions(peer: Peer, request: Request) -> Answer:
    """What is served (KIP-35, KIP-511).

    Features that may be off are named from version 4 on: Java clients from 3.3 to 3.7, which ask in version 3, end with
    an error if the least level of one is 0 (KAFKA-17492).
    """
    named = FEATURES if request.version >= FEATURES_OFF_FROM else {}
    features = [{"name": name, "min_version": 0, "max_version": level} for name, level in named.items()]
    levels = [
        {"name": name, "min_version_level": level, "max_version_level": level} for name, level in FEATURES.items()
    ]
    return {
        "api_keys": served(),
        "supported_features": features,
        "finalized_features_epoch": 0,
        "finalized_features": levels,
    }


@cache
def served() -> list[Fields]:
    """Every API with its versions. Produce is said to begin at 0, or old clients send no compression (KAFKA-18659)."""
    return [
        {"api_key": number, "min_version": 0 if number == 0 else api.first, "max_version": api.last}
        for number, api in sorted(table().items())
    ]


async def metadata(peer: Peer, request: Request) -> Answer:
    """Topics, their partitions, the gateways that live, and to which of them each partition is best asked for.

    Cost: 1 GET; with others 1 LIST every 5 s in all.
    """
    asked = request.fields
    await asyncio.gather(peer.namespace.refresh(), peer.gateway.fleet.look())
    if asked["topics"] is None or (request.version == 0 and not asked["topics"]):
        topics = [_topic_metadata(peer, found, request) for found in _visible(peer)]
    else:
        topics = [await _asked_topic(peer, each, request) for each in asked["topics"]]
    return {
        "brokers": [
            {"node_id": node.id, "host": node.host, "port": node.port, "rack": node.zone or None}
            for node in places_of(peer).nodes
        ],
        "cluster_id": cluster_id(peer.namespace),
        "controller_id": peer.gateway.node_id,
        "topics": topics,
        "cluster_authorized_operations": _cluster_operations(peer, request),
    }


def _cluster_operations(peer: Peer, request: Request) -> int:
    return operations_of(peer, "cluster", wanted=request.fields["include_cluster_authorized_operations"])


async def describe_cluster(peer: Peer, request: Request) -> Answer:
    """The gateways that live; the one that is asked does for the client what controllers do."""
    await peer.gateway.fleet.look()
    return {
        "cluster_id": cluster_id(peer.namespace),
        "controller_id": peer.gateway.node_id,
        "brokers": [
            {"broker_id": node.id, "host": node.host, "port": node.port, "rack": node.zone or None}
            for node in places_of(peer).nodes
        ],
        "cluster_authorized_operations": _cluster_operations(peer, request),
        "endpoint_type": request.fields["endpoint_type"],
    }


async def describe_topic_partitions(peer: Peer, request: Request) -> Answer:
    """Topics in pages (KIP-966)."""
    asked = request.fields
    await asyncio.gather(peer.namespace.refresh(), peer.gateway.fleet.look())
    cursor, left = asked["cursor"], min(max(asked["response_partition_limit"], 1), PARTITIONS_MAX)
    names = sorted({each["name"] for each in asked["topics"]}) or [topic.name for topic in _visible(peer)]
    topics: list[Fields] = []
    for name in names:
        if cursor is not None and name < cursor["topic_name"]:
            continue
        start = max(0, cursor["partition_index"]) if cursor is not None and name == cursor["topic_name"] else 0
        if left <= 0:
            return {"topics": topics, "next_cursor": {"topic_name": name, "partition_index": start}}
        found = peer.namespace.state.named(name)
        if not peer.service.may("describe", "topic", name):
            topics.append(_unknown(name, ErrorCode.topic_authorization_failed))
            continue
        if found is None:
            topics.append(_unknown(name, ErrorCode.unknown_topic_or_partition))
            continue
        described = _described(peer, found, request, with_operations=True)
        described["partitions"] = described["partitions"][start : start + left]
        topics.append(described)
        left -= len(described["partitions"])
        reached = start + len(described["partitions"])
        if reached < len(found.partitions):
            return {"topics": topics, "next_cursor": {"topic_name": name, "partition_index": reached}}
    return {"topics": topics, "next_cursor": None}


async def no_telemetry(peer: Peer, request: Request) -> Answer:
    """Nobody subscribes to the clients' metrics (KIP-714): ask again in a day."""
    instance = request.fields["client_instance_id"]
    fresh = peer.gateway.rng.randbytes(16) if instance == NO_UUID else instance
    return {
        "client_instance_id": fresh,
        "subscription_id": 0,
        "accepted_compression_types": [],
        "push_interval": 86_400_000,
        "telemetry_max_bytes": 1 << 20,
        "delta_temporality": True,
        "requested_metrics": [],
    }


def _visible(peer: Peer) -> list[Topic]:
    """Topics that the client may see, by name; those of our own (``__…``) are left out."""
    state = peer.namespace.state
    names = sorted(name for name in state.names if not name.startswith(INTERNAL))
    return [state.topics[state.names[name]] for name in names if peer.service.may("describe", "topic", name)]


async def _asked_topic(peer: Peer, asked: Fields, request: Request) -> Fields:
    name, uuid = asked["name"], asked["topic_id"]
    if name is None or uuid != NO_UUID:  # Java names what it knows by its id alone ""
        found = topic_by_uuid(peer.namespace, uuid)
        if found is None or not peer.service.may("describe", "topic", found.name):
            return {"error_code": ErrorCode.unknown_topic_id, "topic_id": uuid, "name": None}
        return _topic_metadata(peer, found, request)
    if not peer.service.may("describe", "topic", name):
        return _unknown(name, ErrorCode.topic_authorization_failed)
    found = peer.namespace.state.named(name)
    if found is None and peer.gateway.settings.auto_create and request.fields["allow_auto_topic_creation"]:
        try:
            await peer.service.create_topic(name, peer.gateway.settings.partitions_default)
        except HeadwaterError as error:
            if peer.namespace.state.named(name) is None:
                return _unknown(name, code_of(error, InvalidRequest=ErrorCode.invalid_topic_exception))
        found = peer.namespace.state.named(name)
    if found is None:
        return _unknown(name, _why_unknown(name))
    return _topic_metadata(peer, found, request)


def _why_unknown(name: str) -> ErrorCode:
    try:
        keys.check_topic_name(name)
    except InvalidRequest:
        return ErrorCode.invalid_topic_exception
    return ErrorCode.unknown_topic_or_partition


def _unknown(name: str, code: ErrorCode) -> Fields:
    return {"error_code": code, "name": name, "topic_authorized_operations": NOT_ASKED}


def _topic_metadata(peer: Peer, found: Topic, request: Request) -> Fields:
    return _described(peer, found, request, with_operations=request.fields["include_topic_authorized_operations"])


def _described(peer: Peer, found: Topic, request: Request, *, with_operations: bool) -> Fields:
    replicas = replicas_of(peer, places_of(peer), found, zone_of(peer, request))
    return {
        "name": found.name,
        "topic_id": topic_uuid(peer.namespace, found.id),
        "is_internal": found.name.startswith(INTERNAL),
        "partitions": [_partition(number, [node.id for node in nodes]) for number, nodes in enumerate(replicas)],
        "topic_authorized_operations": operations_of(peer, "topic", found.name, wanted=with_operations),
    }


def _partition(number: int, nodes: list[int]) -> Fields:
    """The first of ``nodes`` is the leader: any gateway would do as well, and none refuses."""
    return {
        "partition_index": number,
        "leader_id": nodes[0],
        "leader_epoch": LEADER_EPOCH,
        "replica_nodes": nodes,
        "isr_nodes": nodes,
        "eligible_leader_replicas": [],  # Java's client takes no null for these two
        "last_known_elr": [],
    }


APIS: Final = {
    3: Api(*schema.versions(3), metadata),
    18: Api(*schema.versions(18), api_versions, open=True),
    60: Api(*schema.versions(60), describe_cluster),
    71: Api(*schema.versions(71), no_telemetry),
    75: Api(*schema.versions(75), describe_topic_partitions),
}
