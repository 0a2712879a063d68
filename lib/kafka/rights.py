"""Operations in Kafka's numbers, and what a client may do as Kafka's bits (KIP-430)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headwater.api.access import CLUSTER
from headwater.kafka.model import Peer
from headwater.log.operations import Operation, Resource

NUMBERS: Final[Mapping[Operation, int]] = {
    "all": 2,
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "cluster_action": 9,
}
NOT_ASKED: Final = -(2**31)
_OF: Final[Mapping[Resource, tuple[Operation, ...]]] = {
    "topic": ("read", "write", "create", "delete", "alter", "describe"),
    "group": ("read", "delete", "describe"),
    "cluster": ("create", "alter", "describe", "cluster_action"),
}
# Operations on configs have no rules of their own here: who may see or change a thing may see or change its configs.
_CONFIGS: Final[Mapping[Operation, int]] = {"describe": 10, "alter": 11}


def operations_of(peer: Peer, resource: Resource, name: str = CLUSTER, *, wanted: bool) -> int:
    """What the client may do with a topic, a group or the cluster; ``NOT_ASKED`` if it does not want to know."""
    if not wanted:
        return NOT_ASKED
    allowed = [each for each in _OF[resource] if peer.service.may(each, resource, name)]
    bits = {NUMBERS[each] for each in allowed}
    if resource != "group":
        bits |= {_CONFIGS[each] for each in allowed if each in _CONFIGS}
    return sum(1 << bit for bit in bits)
