"""Which gateway a client is told to go to. Pure: gateways with the same knowledge give the same answer.

Every gateway serves every partition and group, so a place is advice: it keeps the readers of a partition at one
gateway, whose cache has it then, and clients in their own zone. Places are drawn by rendezvous hashing: each gateway
has a number for each place, and the highest has it, so that a gateway that goes leaves only its own places to the
others. Partitions of a topic are drawn with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): who leads its
share of the topic already is passed over.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_ZONE = re.compile(r"(?:\A|[\s,;&/])(?:headwater_)?zone=([^\s,;&/]+)")


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A gateway as clients see it through one of its listeners. ``zone`` is "" if nobody has said it."""

    id: int
    host: str
    port: int
    zone: str = ""


def zone_in(client: str) -> str:
    """The zone that a client id names, as in ``billing,headwater_zone=eu-1a`` or ``zone=eu-1a``; "" if none."""
    found = _ZONE.search(client)
    return found[1] if found else ""


@dataclass(slots=True)
class Places:
    """The gateways that serve one namespace through one listener, by id; places are drawn once and remembered."""

    nodes: Sequence[Node]
    _spread: dict[tuple[str, str], Sequence[tuple[Node, ...]]] = field(default_factory=dict, repr=False)

    def near(self, zone: str) -> Sequence[Node]:
        """The gateways of a zone; all of them if it has none, or if nobody knows the zone."""
        return [node for node in self.nodes if zone and node.zone == zone] or self.nodes

    def leader(self, place: str, zone: str) -> Node:
        """Who leads a place for clients of ``zone``. Cost: a hash for each gateway."""
        return _highest(self.near(zone), place)

    def replicas(self, topic: str, partitions: int, zone: str) -> Sequence[tuple[Node, ...]]:
        """For each partition of a topic who leads it for clients of ``zone``, and then one gateway of each other zone.

        So a client that looks for a replica in its zone finds one (KIP-392, KIP-881). No gateway leads more than its
        share, rounded up. Cost: a hash for each partition and gateway, once.
        """
        zones = sorted({node.zone for node in self.nodes})
        zone = zone if zone in zones else ""  # clients may say anything, and what is remembered must not grow by it
        found = self._spread.get((topic, zone), ())
        if len(found) != partitions:
            there = {each: _drawn([n for n in self.nodes if n.zone == each], topic, partitions) for each in zones}
            found = [
                (leader, *(there[each][number] for each in zones if each != leader.zone))
                for number, leader in enumerate(_drawn(self.near(zone), topic, partitions))
            ]
            self._spread[topic, zone] = found
        return found


def _drawn(nodes: Sequence[Node], topic: str, partitions: int) -> Sequence[Node]:
    """Who of these leads each partition."""
    share = -(-partitions // len(nodes))
    found: list[Node] = []
    left = dict.fromkeys(nodes, share)
    for number in range(partitions):
        leader = _highest(list(left), f"{topic}/{number}")
        found.append(leader)
        left[leader] -= 1
        if not left[leader]:
            del left[leader]
    return found


def _highest(nodes: Sequence[Node], place: str) -> Node:
    if len(nodes) == 1:
        return nodes[0]
    return max(nodes, key=lambda node: (_number(node.id, place), node.id))


def _number(node: int, place: str) -> bytes:
    return hashlib.blake2b(f"{node}\0{place}".encode(), digest_size=8).digest()
