"""Names that only Kafka has: UUIDs of topics (KIP-516), and what is internal."""

from __future__ import annotations

import hashlib

from headwater.log.namespace import Namespace
from headwater.log.state import Topic


def topic_uuid(namespace: Namespace, topic: int) -> bytes:
    """The UUID of a topic: 8 bytes of its namespace and store, 8 of its id. The same at every gateway."""
    return _namespace_half(namespace) + topic.to_bytes(8, "big")


def topic_by_uuid(namespace: Namespace, uuid: bytes) -> Topic | None:
    """The topic of that UUID as this process knows it, or None."""
    if uuid[:8] != _namespace_half(namespace):
        return None
    return namespace.state.topics.get(int.from_bytes(uuid[8:], "big"))


def cluster_id(namespace: Namespace) -> str:
    """Kafka's cluster id: one for each namespace, the same at every gateway."""
    return hashlib.sha256(f"{namespace.bucket.url}\0{namespace.name}".encode()).hexdigest()[:22]


def _namespace_half(namespace: Namespace) -> bytes:
    # The first byte is not 0, so that no topic has the zero UUID, which means "none".
    digest = hashlib.sha256(f"{namespace.bucket.url}\0{namespace.name}".encode()).digest()
    return b"\x48" + digest[:7]
