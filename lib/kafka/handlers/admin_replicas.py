"""What Kafka's tools ask about disks, leaders and replicas, of which there are none.

The log lies in a bucket, and every gateway leads every partition. The answers say so in words that tools understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.kafka.handlers import Api
from headwater.kafka.handlers.nearby import places_of, replicas_of, zone_of
from headwater.kafka.model import Fields, Peer, Request
from headwater.log.state import State, Topic
from headwater.upkeep.retention import bytes_at_most


async def describe_log_dirs(peer: Peer, request: Request) -> Fields:
    """DescribeLogDirs (KIP-113): one directory, the bucket, with the stored bytes of each partition, or a few more:
    what lies behind index pages is known to the fold as a sum alone.
    """
    state = await peer.service.enter(fresh=True)
    if not peer.service.may("describe", "cluster"):
        return {"error_code": ErrorCode.cluster_authorization_failed, "results": []}
    wanted = request.fields["topics"]
    if wanted is None:
        topics = [_sizes(topic, range(len(topic.partitions))) for topic in state.topics.values()]
    else:
        known = [(state.named(each["topic"]), each["partitions"]) for each in wanted]
        topics = [_sizes(topic, partitions) for topic, partitions in known if topic is not None]
    place = {"error_code": ErrorCode.none, "log_dir": _directory(peer), "topics": topics}
    return {"error_code": ErrorCode.none, "results": [place]}


def _directory(peer: Peer) -> str:
    return f"/{peer.namespace.name}"


def _sizes(topic: Topic, partitions: Sequence[int]) -> Fields:
    return {
        "name": topic.name,
        "partitions": [
            {
                "partition_index": number,
                "partition_size": bytes_at_most(topic.partitions[number]),
                "offset_lag": 0,
                "is_future_key": False,
            }
            for number in dict.fromkeys(partitions)
            if 0 <= number < len(topic.partitions)
        ],
    }


async def alter_replica_log_dirs(peer: Peer, request: Request) -> Fields:
    """AlterReplicaLogDirs (KIP-113): everything lies in the one directory, and stays there."""
    state = await peer.service.enter(fresh=True)
    is_allowed = peer.service.may("alter", "cluster")
    found: dict[str, list[Fields]] = {}
    for place in request.fields["dirs"]:
        for topic in place["topics"]:
            for number in topic["partitions"]:
                if not is_allowed:
                    code = ErrorCode.cluster_authorization_failed
                elif place["path"] != _directory(peer):
                    code = ErrorCode.log_dir_not_found
                else:
                    code = _missing(state, topic["name"], number)
                found.setdefault(topic["name"], []).append({"partition_index": number, "error_code": code})
    return {"results": [{"topic_name": name, "partitions": partitions} for name, partitions in found.items()]}


async def elect_leaders(peer: Peer, request: Request) -> Fields:
    """ElectLeaders (KIP-183, KIP-460): every gateway leads every partition, so no election is ever needed."""
    state = await peer.service.enter(fresh=True)
    if not peer.service.may("alter", "cluster"):
        return {"error_code": ErrorCode.cluster_authorization_failed, "replica_election_results": []}
    wanted = request.fields["topic_partitions"]
    if wanted is None:  # all that need one: Kafka leaves out those that need none
        return {"error_code": ErrorCode.none, "replica_election_results": []}

    def elected(name: str, number: int) -> Fields:
        if _missing(state, name, number):
            code, text = ErrorCode.unknown_topic_or_partition, "There is no such partition."
        else:
            code, text = ErrorCode.election_not_needed, "Every gateway leads every partition."
        return {"partition_id": number, "error_code": code, "error_message": text}

    results = [
        {"topic": each["topic"], "partition_result": [elected(each["topic"], number) for number in each["partitions"]]}
        for each in wanted
    ]
    return {"error_code": ErrorCode.none, "replica_election_results": results}


async def alter_partition_reassignments(peer: Peer, request: Request) -> Fields:
    """AlterPartitionReassignments (KIP-455): there is nothing to move, and so nothing to take back either."""
    state = await peer.service.enter(fresh=True)
    allow = request.fields["allow_replication_factor_change"]
    if not peer.service.may("alter", "cluster"):
        text = "Only who may alter the cluster reassigns partitions."
        return {
            "allow_replication_factor_change": allow,
            "error_code": ErrorCode.cluster_authorization_failed,
            "error_message": text,
        }

    def reassigned(name: str, each: Fields) -> Fields:
        number, code, text = each["partition_index"], ErrorCode.none, ""
        if _missing(state, name, number):
            code, text = ErrorCode.unknown_topic_or_partition, "There is no such partition."
        elif each["replicas"] is None:
            code, text = ErrorCode.no_reassignment_in_progress, "Nothing is being reassigned."
        elif sorted(each["replicas"]) != _replicas(peer, request, state, name, number):
            code, text = ErrorCode.invalid_replica_assignment, "The log lies in a bucket; no broker has a part of it."
        return {"partition_index": number, "error_code": code, "error_message": text or None}

    responses = [
        {"name": topic["name"], "partitions": [reassigned(topic["name"], each) for each in topic["partitions"]]}
        for topic in request.fields["topics"]
    ]
    return {"allow_replication_factor_change": allow, "error_code": ErrorCode.none, "responses": responses}


async def list_partition_reassignments(peer: Peer, request: Request) -> Fields:
    """ListPartitionReassignments (KIP-455): there are none, ever."""
    await peer.service.enter(fresh=True)
    if not peer.service.may("describe", "cluster"):
        text = "Only who may describe the cluster sees reassignments."
        return {"error_code": ErrorCode.cluster_authorization_failed, "error_message": text, "topics": []}
    return {"error_code": ErrorCode.none, "topics": []}


def _replicas(peer: Peer, request: Request, state: State, name: str, number: int) -> list[int]:
    """The gateways that Metadata tells this client to have a partition, by id."""
    topic = state.named(name)
    assert topic is not None, "it was looked for"
    return sorted([node.id for node in replicas_of(peer, places_of(peer), topic, zone_of(peer, request))[number]])


def _missing(state: State, name: str, number: int) -> ErrorCode:
    """The error of a partition that is not there, or none."""
    topic = state.named(name)
    is_there = topic is not None and 0 <= number < len(topic.partitions)
    return ErrorCode.none if is_there else ErrorCode.unknown_topic_or_partition


APIS: Final = {
    34: Api(1, 2, alter_replica_log_dirs),
    35: Api(1, 5, describe_log_dirs),
    43: Api(0, 2, elect_leaders),
    45: Api(0, 1, alter_partition_reassignments),
    46: Api(0, 0, list_partition_reassignments),
}
