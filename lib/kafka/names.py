"""Names that only Kafka has: UUIDs of topics (KIP-516), the id of a cluster, the epoch of a leader."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.kafka.model import Peer
from headwater.log.namespace import Namespace
from headwater.log.operations import Operation
from headwater.log.state import Topic

NO_UUID: Final = bytes(16)
UNKNOWN: Final = (ErrorCode.unknown_topic_or_partition, ErrorCode.unknown_topic_id)  # as far as this process knows
LEADER_EPOCH: Final = 0  # there is one leader for ever: whichever gateway is asked


def topic_uuid(namespace: Namespace, topic: int) -> bytes:
    """The UUID of a topic: 8 bytes of its namespace and store, 8 of its id. The same at every gateway."""
    return _half(namespace) + topic.to_bytes(8, "big")


def topic_by_uuid(namespace: Namespace, uuid: bytes) -> Topic | None:
    """The topic of that UUID as this process knows it, or None."""
    if uuid[:8] != _half(namespace):
        return None
    return namespace.state.topics.get(int.from_bytes(uuid[8:], "big"))


def topic_for(peer: Peer, operation: Operation, name: str, uuid: bytes) -> tuple[Topic | None, ErrorCode]:
    """The topic that a client names, by UUID if it gives one, and may use so; or None, and why not."""
    if uuid != NO_UUID:
        found = topic_by_uuid(peer.namespace, uuid)
        if found is None or not peer.service.may("describe", "topic", found.name):
            return None, ErrorCode.unknown_topic_id
        if not peer.service.may(operation, "topic", found.name):
            return None, ErrorCode.topic_authorization_failed
        return found, ErrorCode.none
    if not peer.service.may(operation, "topic", name):
        return None, ErrorCode.topic_authorization_failed
    found = peer.namespace.state.named(name)
    return found, ErrorCode.none if found is not None else ErrorCode.unknown_topic_or_partition


def cluster_id(namespace: Namespace) -> str:
    """Kafka's cluster id: one for each namespace, the same at every gateway."""
    return _digest(namespace.bucket.url, namespace.name).hex()[:22]


def _half(namespace: Namespace) -> bytes:
    # The first byte is not 0, so that no topic has the zero UUID, which means "none".
    return b"\x48" + _digest(namespace.bucket.url, namespace.name)[:7]


@cache
def _digest(store: str, namespace: str) -> bytes:
    return hashlib.sha256(f"{store}\0{namespace}".encode()).digest()
